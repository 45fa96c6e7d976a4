"""What the Python client does when the other end is not a sane daemon. No daemon takes part."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List

import latentd
import msgpack
import pytest

Script = Callable[[socket.socket, msgpack.Unpacker], None]
Serve = Callable[[Script], Path]


def receive(connection: socket.socket, unpacker: msgpack.Unpacker) -> List[Any]:
    """The next message of the client."""
    while True:
        for message in unpacker:
            return message
        data = connection.recv(65536)
        assert data, "the client ended the connection"
        unpacker.feed(data)


def send(connection: socket.socket, message: object) -> None:
    connection.sendall(msgpack.packb(message))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Runs a script against the first client that connects to the path which is returned."""
    threads: List[threading.Thread] = []
    failures: List[BaseException] = []
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)

    def start(script: Script) -> Path:
        def work() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(30)
                    script(connection, msgpack.Unpacker())
            except BaseException as error:  # Shown by the test, not lost with the thread.
                failures.append(error)

        listener.bind(str(path))
        listener.listen(1)
        threads.append(threading.Thread(target=work))
        threads[0].start()
        return path

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    listener.close()
    assert not failures, failures


def until_closed(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass


def answers(data: bytes) -> Script:
    def script(connection: socket.socket, unpacker: msgpack.Unpacker) -> None:
        receive(connection, unpacker)
        with contextlib.suppress(ConnectionError):  # The client may hang up in the middle.
            connection.sendall(data)
        until_closed(connection)

    return script


GARBAGE = {
    "reserved byte": b"\xc1",
    "not an array": b"\xa5hello",
    "empty array": b"\x90",
    "response of three": msgpack.packb([1, 0, None]),
    "unknown type": msgpack.packb([7, 0, None, None]),
    "request to the client": msgpack.packb([0, 1, "ping", []]),
    "answer to nothing": msgpack.packb([1, 4711, None, {}]),
    "id of a wrong type": msgpack.packb([1, "0", None, {}]),
    "notification without params": msgpack.packb([2, "job.event", None]),
    "method as a number": msgpack.packb([2, 5, []]),
    "string that is not utf-8": b"\x94\x01\x00\xc0\xa2\xff\xfe",
    "array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "bin of 4 GiB": b"\x94\x01\x00\xc0\xc6\xff\xff\xff\xff" + bytes(200_000),
    "str of 4 GiB": b"\x94\x01\x00\xc0\xdb\xff\xff\xff\xff" + bytes(200_000),
    "ext of 4 GiB": b"\x94\x01\x00\xc0\xc9\xff\xff\xff\xff\x01",
    "nesting": b"\x91" * 100_000,
    "map with an array for a key": b"\x94\x01\x00\xc0\x81\x90\x00",
    "larger than allowed": msgpack.packb([1, 0, None, bytes(200_000)]),
    "event that is a number": msgpack.packb([2, "job.event", [5]]),
    "event without a number": msgpack.packb([2, "job.event", [{"job": "a", "type": "queued"}]]),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_ends_the_connection_with_an_error(serve: Serve, data: bytes) -> None:
    with latentd.Client(serve(answers(data)), timeout=30, max_message_bytes=100_000) as client:
        with pytest.raises(latentd.ProtocolError):
            client.ping()
        with pytest.raises(latentd.ProtocolError):
            client.status()


@pytest.mark.parametrize("data", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_ends_the_async_connection_with_an_error(serve: Serve, data: bytes) -> None:
    async def main() -> None:
        path = serve(answers(data))
        async with latentd.AsyncClient(path, timeout=30, max_message_bytes=100_000) as client:
            with pytest.raises(latentd.ProtocolError):
                await client.ping()
            with pytest.raises(latentd.ProtocolError):
                await client.status()

    asyncio.run(main())


def test_messages_may_come_in_any_pieces_and_order(serve: Serve) -> None:
    def script(connection: socket.socket, unpacker: msgpack.Unpacker) -> None:
        first, second = receive(connection, unpacker), receive(connection, unpacker)
        unknown = msgpack.packb([2, "something.newer", [{"a": 1}]])
        late_first = b"".join(msgpack.packb([1, call[1], None, {"was": call[2]}]) for call in (second, first))
        for byte in unknown + late_first:
            connection.sendall(bytes([byte]))
        until_closed(connection)

    with latentd.Client(serve(script), timeout=30) as client:
        answers: List[Any] = []
        threads = [threading.Thread(target=lambda n=n: answers.append((n, client.call(n)))) for n in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(answers) == [("one", {"was": "one"}), ("two", {"was": "two"})]


def test_hanging_up_fails_every_call_that_waits(serve: Serve) -> None:
    def script(connection: socket.socket, unpacker: msgpack.Unpacker) -> None:
        receive(connection, unpacker)

    with latentd.Client(serve(script), timeout=30) as client:
        with pytest.raises(latentd.ConnectionClosed):
            client.ping()
        with pytest.raises(ConnectionError):
            client.ping()


def test_the_daemons_last_word_is_in_the_error(serve: Serve) -> None:
    def script(connection: socket.socket, unpacker: msgpack.Unpacker) -> None:
        receive(connection, unpacker)
        send(connection, [2, "rpc.error", [[1, "E_INVALID_PARAMS: message is nested deeper than 64"]]])

    with latentd.Client(serve(script), timeout=30) as client:
        with pytest.raises(latentd.ConnectionClosed, match="nested deeper than 64"):
            client.ping()


def test_an_answer_that_comes_too_late_is_dropped(serve: Serve) -> None:
    timed_out = threading.Event()

    def script(connection: socket.socket, unpacker: msgpack.Unpacker) -> None:
        late = receive(connection, unpacker)
        assert timed_out.wait(30)
        send(connection, [1, late[1], None, "late"])
        send(connection, [1, receive(connection, unpacker)[1], None, "in time"])
        until_closed(connection)

    with latentd.Client(serve(script), timeout=0.05) as client:
        with pytest.raises(TimeoutError):
            client.call("slow")
        client.timeout = 30
        timed_out.set()
        assert client.call("quick") == "in time"


def test_a_slow_listener_keeps_the_latest_preview_and_each_event_once(serve: Serve) -> None:
    def script(connection: socket.socket, unpacker: msgpack.Unpacker) -> None:
        submit = receive(connection, unpacker)
        params = {"prompt": "x", "preview": {"every": 1}}
        assert submit[2:] == ["jobs.submit", [{"method": "txt2img", "params": params}]]
        send(connection, [1, submit[1], None, {"job": "j1"}])
        subscribe = receive(connection, unpacker)
        assert subscribe[2:] == ["jobs.subscribe", [{"job": "j1", "since": 0}]]
        send(connection, [1, subscribe[1], None, {}])
        wait = receive(connection, unpacker)
        assert wait[2:] == ["jobs.wait", [{"job": "j1"}]]
        events = [{"job": "j1", "seq": 1, "type": "progress", "step": 1, "steps": 9}]
        events += [
            {"job": "j1", "seq": n, "type": "preview", "image": {"png": b"%d" % n, "width": 1, "height": 1}}
            for n in range(2, 100)
        ]
        # Not for this listener: another job's, and one it has had.
        events += [{"job": "other", "seq": 200, "type": "progress", "step": 5, "steps": 9}, events[0]]
        events += [{"job": "j1", "seq": 100, "type": "progress", "step": 9, "steps": 9, "eta_s": 0.5}]
        send(connection, [2, "job.event", [events.pop(0)]])
        barrier = receive(connection, unpacker)
        for event in events:
            send(connection, [2, "job.event", [event]])
        send(connection, [1, wait[1], None, {"job": "j1", "images": [], "timings": {}}])
        send(connection, [1, barrier[1], None, {}])
        until_closed(connection)

    seen: List[Any] = []

    def on_progress(progress: latentd.Progress) -> None:
        seen.append(progress.step)
        if progress.step == 1:
            # Is answered after everything else, so this callback is slower than all of it.
            client.call("barrier")

    with latentd.Client(serve(script), timeout=30) as client:
        client.txt2img("x", on_progress=on_progress, on_preview=lambda preview: seen.append(preview.image.png))
    assert seen[0] == 1 and seen[-2:] == [b"99", 9]
    assert len(seen) == 3


def test_errors_are_typed() -> None:
    for name, kind in latentd.errors.BY_NAME.items():
        error = latentd.errors.from_wire([3, f"{name}: what is wrong: this"])
        assert type(error) is kind and (error.code, error.name, error.message) == (3, name, "what is wrong: this")
        assert str(error) == f"{name}: what is wrong: this"
    newer = latentd.errors.from_wire([99, "E_NEWER: later"])
    assert type(newer) is latentd.LatentdError and newer.name == "E_NEWER"
    for odd in ["text", b"\xff", 5, [], {}, [1, 2, 3], ["x", None]]:
        assert isinstance(latentd.errors.from_wire(odd), latentd.InternalError)


@pytest.mark.parametrize(
    "error",
    [latentd.Busy(4, "E_BUSY", "full"), latentd.ConnectionClosed("gone"), latentd.Timeout("late")],
)
def test_errors_travel_between_processes(error: latentd.LatentdError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)


def test_no_daemon_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(latentd.ConnectionClosed, match="latentd serve"):
        latentd.Client(tmp_path / "none")
    with pytest.raises(latentd.ConnectionClosed, match="latentd serve"):
        asyncio.run(latentd.AsyncClient(tmp_path / "none").connect())


def test_where_the_socket_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTD_SOCKET", "/named")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert latentd.socket_path("/given") == "/given"
    assert latentd.socket_path() == "/named"
    monkeypatch.delenv("LATENTD_SOCKET")
    assert latentd.socket_path() == "/run/user/7/latentd/latentd.sock"

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / f"latentd-{os.geteuid()}"
    assert latentd.socket_path() == str(folder / "latentd.sock")
    folder.mkdir(mode=0o700)
    assert latentd.socket_path() == str(folder / "latentd.sock")
    folder.chmod(0o777)
    with pytest.raises(latentd.ConnectionClosed, match="only this user"):
        latentd.socket_path()


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        latentd.Image(1, 1, path=tmp_path / "gone").save(target)
    assert target.read_bytes() == b"old"
    assert latentd.Image(1, 1, png=b"new").save(target) == target
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["picture.png"]
    with pytest.raises(ValueError, match="pil"):
        latentd.Image(1, 1, raw=b"abc").save(target)


def test_raw_pixels_become_pictures() -> None:
    picture = latentd.Image(2, 1, raw=bytes([255, 0, 0, 0, 0, 255])).image
    assert picture.size == (2, 1) and picture.getpixel((1, 0)) == (0, 0, 255)


def test_a_cancelled_task_cancels_the_job_even_before_it_has_a_name(serve: Serve) -> None:
    submitted, stopped, cancelled = threading.Event(), threading.Event(), threading.Event()

    def script(connection: socket.socket, unpacker: msgpack.Unpacker) -> None:
        submit = receive(connection, unpacker)
        submitted.set()
        assert stopped.wait(30)
        send(connection, [1, submit[1], None, {"job": "j1"}])
        cancel = receive(connection, unpacker)
        assert cancel[2:] == ["jobs.cancel", [{"job": "j1"}]]
        cancelled.set()
        until_closed(connection)

    async def main() -> None:
        async with latentd.AsyncClient(serve(script), timeout=30) as client:
            task = asyncio.ensure_future(client.txt2img("x"))
            assert await asyncio.to_thread(submitted.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stopped.set()
            assert await asyncio.to_thread(cancelled.wait, 30)

    asyncio.run(main())
