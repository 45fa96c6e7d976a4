"""A real daemon, with folders of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Dict

import latentd

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "fixtures" / "models"
LATENTD = Path(os.environ.get("LATENTD_BIN", REPOSITORY / "target" / "debug" / "latentd")).resolve()

#: Seconds within which anything that is waited for must have happened.
SOON = 60.0


class Daemon:
    """``latentd serve`` with folders of its own."""

    def __init__(self, *arguments: str, models: Path = MODELS, program: Path = LATENTD) -> None:
        # Not pytest's tmp_path: a socket's path has at most about 100 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="latentd-test-"))
        self.environment = environment(self.folder)
        self.socket = self.folder / "run" / "latentd" / "latentd.sock"
        self.log = self.folder / "log"
        self._command = [str(program), "serve", "--models-dir", str(models), *arguments]
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


def build_plugins() -> None:
    """Puts the plugins that come with latentd beside the program that is tested."""
    # Of the whole workspace, since what was built for the tests is taken for that, and not for a package alone.
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--workspace"], cwd=REPOSITORY, check=True)


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
