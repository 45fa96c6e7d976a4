"""A real daemon for the tests of this folder, and what they share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List

import latentd
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "fixtures" / "models"
LATENTD = Path(os.environ.get("LATENTD_BIN", REPOSITORY / "target" / "debug" / "latentd")).resolve()

#: A picture that is quick to draw.
SMALL: Dict[str, Any] = {"prompt": "a red circle", "seed": 7, "steps": 3, "width": 64, "height": 64}
#: A job that is still running whenever a test wants to look at it or stop it.
LONG: Dict[str, Any] = {**SMALL, "steps": 150, "width": 512, "height": 512}

#: Seconds within which anything that is waited for must have happened.
SOON = 60.0


class Daemon:
    """``latentd serve`` with folders of its own."""

    def __init__(self, *arguments: str, models: Path = MODELS) -> None:
        if not LATENTD.is_file():
            pytest.exit(f"{LATENTD} is missing: run tests/run, or `cargo build -p latentd`, or set LATENTD_BIN", 2)
        # Not pytest's tmp_path: a socket's path has at most about 100 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="latentd-test-"))
        self.environment = environment(self.folder)
        self.socket = self.folder / "run" / "latentd" / "latentd.sock"
        self.log = self.folder / "log"
        self._command = [str(LATENTD), "serve", "--models-dir", str(models), *arguments]
        self._start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.ready_line = self._first_line()
        if str(self.socket) not in self.ready_line:
            self.kill()
            raise AssertionError(f"not ready: {self.ready_line!r}\n{self.log.read_text()}")

    def _first_line(self) -> str:
        # A daemon that says nothing is killed, which ends the read.
        timer = threading.Timer(SOON, self.process.kill)
        timer.start()
        try:
            assert self.process.stdout is not None
            return self.process.stdout.readline().decode()
        finally:
            timer.cancel()

    def client(self, **options: Any) -> latentd.Client:
        return latentd.Client(self.socket, **{"timeout": SOON, **options})

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SOON)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SOON)

    def restart(self) -> None:
        """Starts the daemon again on the same folders."""
        self._start()

    def remove(self) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def environment(folder: Path) -> Dict[str, str]:
    """An environment in which every program keeps its files under ``folder``."""
    values = {key: value for key, value in os.environ.items() if not key.startswith(("LATENTD_", "XDG_"))}
    values["HOME"] = str(folder)
    values["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), values["PATH"]])
    for name, part in [
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_DATA_HOME", "data"),
    ]:
        (folder / part).mkdir(mode=0o700, exist_ok=True)
        values[name] = str(folder / part)
    return values


@pytest.fixture(scope="session")
def _shared_daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    status = daemon.terminate() if daemon.process.poll() is None else daemon.process.returncode
    log = daemon.log.read_text(errors="replace")
    daemon.remove()
    assert status == 0, f"the daemon ended with {status}\n{log}"


@pytest.fixture
def daemon(_shared_daemon: Daemon) -> Iterator[Daemon]:
    """The daemon that all tests share. Whatever a test does to it, it must live and answer afterwards."""
    yield _shared_daemon
    assert _shared_daemon.process.poll() is None, _shared_daemon.log.read_text(errors="replace")
    with _shared_daemon.client() as client:
        client.ping()


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """A daemon for one test, which may end it."""
    daemon = Daemon()
    yield daemon
    daemon.remove()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[latentd.Client]:
    with daemon.client() as client:
        yield client


def run(command: List[str], daemon: Daemon, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program that finds the daemon through its environment."""
    return subprocess.run(
        command,
        env={**daemon.environment, **options.pop("env", {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SOON,
        **options,
    )
