"""Clients of the Python package where they do not belong, and daemons that are somebody else's: errors, at once."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List

import latentd
import pytest
from conftest import SMALL, SOON, Daemon

NOBODY = 65534


def in_a_fork(work: Callable[[], object]) -> str:
    """Runs ``work`` in a forked process; what it returned or raised, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], SOON)
    with os.fdopen(reader, "rb") as answers:
        if not ready:
            os.kill(child, 9)
        os.waitpid(child, 0)
        assert ready, "it hangs"
        return answers.read().decode()


def test_a_client_in_a_fork_says_so(client: latentd.Client) -> None:
    events = client.events()
    job = client.jobs.submit("txt2img", SMALL)
    for work in (
        client.ping,
        lambda: client.txt2img(**SMALL),
        lambda: client.events(),
        lambda: next(events),
        lambda: client.jobs.wait(job, timeout=5),
    ):
        assert "Misuse" in in_a_fork(work) and "fork" in in_a_fork(work)
    # It may be closed there, and thrown away: the parent's connection goes on.
    assert in_a_fork(client.close) == "None"
    assert in_a_fork(lambda: client._finalizer()) == "None"
    client.jobs.wait(job, timeout=SOON)
    assert next(event for event in events if event.is_last).job == job


def test_a_fork_that_ends_leaves_the_connection_to_its_parent(daemon: Daemon) -> None:
    script = """
import os, sys, latentd
client = latentd.Client(sys.argv[1], timeout=30)
child = os.fork()
if child == 0:
    sys.exit(0)  # With everything that is done at the end of a program.
assert os.waitpid(child, 0)[1] == 0
client.ping()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, str(daemon.socket)], env=environment, check=True, timeout=SOON)


def test_an_async_client_belongs_to_one_loop(daemon: Daemon) -> None:
    client = latentd.AsyncClient(daemon.socket, timeout=SOON)
    started, done = threading.Event(), threading.Event()
    failures: List[BaseException] = []

    async def other() -> None:
        for work in (client.ping, client.events, client.close, client.connect):
            with pytest.raises(latentd.Misuse, match="loop|connected already"):
                await work()

    def elsewhere() -> None:
        try:
            started.wait(SOON)
            asyncio.run(other())
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()

    async def main() -> None:
        async with client:
            started.set()
            assert await asyncio.to_thread(done.wait, SOON)
            await client.ping()
            with pytest.raises(latentd.Misuse, match="connected already"):
                await client.connect()
        with pytest.raises(latentd.ConnectionClosed, match="closed"):
            await client.connect()

    asyncio.run(main())
    thread.join()
    assert not failures, failures


def test_an_async_client_in_a_fork_says_so(daemon: Daemon) -> None:
    async def main() -> None:
        async with latentd.AsyncClient(daemon.socket, timeout=SOON) as client:

            def work() -> Any:
                return client._send("ping", {})

            assert "Misuse" in in_a_fork(work)
            await client.ping()

    asyncio.run(main())


@pytest.fixture
def their_socket() -> Iterator[Path]:
    """A listener of another user that ends with an error if it is sent anything."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    folder = Path(tempfile.mkdtemp(prefix="latentd-theirs-"))
    folder.chmod(0o777)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(NOBODY)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(folder / "s"))
            os.chmod(folder / "s", 0o666)
            listener.listen()
            os.write(told, b"x")
            for _ in range(2):
                connection, _ = listener.accept()
                if connection.recv(1):
                    os._exit(1)
            os._exit(0)
        except BaseException:
            os._exit(2)
    os.close(told)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    yield folder / "s"
    assert os.waitpid(child, 0)[1] == 0, "it was sent something"
    shutil.rmtree(folder)


def test_a_daemon_of_another_user_is_sent_nothing(their_socket: Path) -> None:
    with pytest.raises(latentd.ConnectionClosed, match=f"user {NOBODY} listens there"):
        latentd.Client(their_socket)
    with pytest.raises(latentd.ConnectionClosed, match=f"user {NOBODY} listens there"):
        asyncio.run(latentd.AsyncClient(their_socket).connect())


def test_a_place_that_others_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LATENTD_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / f"latentd-{os.geteuid()}"
    path = latentd.socket_path()
    folder.mkdir()
    folder.chmod(0o777)
    for open_it in (latentd.socket_path, latentd.Client, lambda: latentd.Client(path)):
        with pytest.raises(latentd.ConnectionClosed, match="only this user"):
            open_it()
    with pytest.raises(latentd.ConnectionClosed, match="only this user"):
        asyncio.run(latentd.AsyncClient(path).connect())
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert latentd.socket_path() == path, "a link of our own"
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(latentd.ConnectionClosed, match="only this user"):
            latentd.socket_path()


def test_settings_as_their_specification_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTD_SOCKET", "~/s")
    monkeypatch.setenv("HOME", "/home/me")
    assert latentd.socket_path() == "/home/me/s"
    monkeypatch.delenv("LATENTD_SOCKET")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    monkeypatch.setenv("TMPDIR", "relative too")
    assert latentd.socket_path() == f"/tmp/latentd-{os.geteuid()}/latentd.sock"
