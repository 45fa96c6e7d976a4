"""What the tests of this folder share."""

from __future__ import annotations

import subprocess
from typing import Any, Dict, Iterator, List

import latentd
import pytest
from process import LATENTD, MODELS, REPOSITORY, SOON, Daemon, environment

__all__ = ["LATENTD", "LONG", "MODELS", "REPOSITORY", "SMALL", "SOON", "Daemon", "environment", "run"]

#: A picture that is quick to draw.
SMALL: Dict[str, Any] = {"prompt": "a red circle", "seed": 7, "steps": 3, "width": 64, "height": 64}
#: A job that is still running whenever a test wants to look at it or stop it.
LONG: Dict[str, Any] = {**SMALL, "steps": 150, "width": 512, "height": 512}


def pytest_sessionstart() -> None:
    if not LATENTD.is_file():
        pytest.exit(f"{LATENTD} is missing: run tests/run, or `cargo build -p latentd`, or set LATENTD_BIN", 2)


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
