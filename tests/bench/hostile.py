"""What hostile clients cost a daemon: memory, and other clients' time.

    tests/.venv/bin/python tests/bench/hostile.py      # a minute; LATENTD_BIN names another program
"""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

from demo_daemon import release_binary
from process import Daemon


def request(number: int, method: bytes, params: bytes = b"\x80") -> bytes:
    return b"\x94\x00" + bytes([number]) + bytes([0xA0 | len(method)]) + method + b"\x91" + params


PING = request(1, b"ping")


@contextmanager
def daemon() -> Iterator[Daemon]:
    """One with the demo model alone."""
    with tempfile.TemporaryDirectory() as models:
        started = Daemon(models=Path(models), program=release_binary())
        try:
            yield started
        finally:
            started.remove()


def memory(of: Daemon, what: str) -> int:
    """MiB."""
    lines = Path(f"/proc/{of.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) >> 10


def connected(to: Daemon, count: int) -> List[socket.socket]:
    connections = []
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(to.socket))
        connection.settimeout(1)
        connections.append(connection)
    return connections


def write(connection: socket.socket, piece: bytes, most: int, until: float) -> None:
    """Writes until the daemon takes no more, for a second."""
    sent = 0
    try:
        while sent < most and time.monotonic() < until:
            sent += connection.send(piece)
    except OSError:
        pass


def at_once(connections: List[socket.socket], piece: bytes, most: int = 1 << 40) -> List[threading.Thread]:
    until = time.monotonic() + 8
    threads = [threading.Thread(target=write, args=(each, piece, most, until)) for each in connections]
    for thread in threads:
        thread.start()
    return threads


def unread_pings() -> None:
    with daemon() as victim:
        before = memory(victim, "VmRSS")
        for thread in at_once(connected(victim, 12), PING * 4096):
            thread.join()
        most = memory(victim, "VmHWM")
    print(f"12 clients that ping and never read: {before} MiB before, {most} MiB at most", flush=True)


def unfinished_messages() -> None:
    image = b"\x81\xa5image\x81\xa3png\xc6" + struct.pack(">I", 250 << 20)
    with daemon() as victim:
        connections = connected(victim, 24)
        for connection in connections:
            connection.sendall(request(1, b"image.info", image))
        threads = at_once(connections, bytes(1 << 20), 200 << 20)
        worst = 0.0
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            with victim.client() as client:
                client.ping()
            worst = max(worst, time.monotonic() - began)
        most = memory(victim, "VmHWM")
    print(f"24 clients with 200 MiB of a message that never ends: {most} MiB at most;", end=" ")
    print(f"connecting and a ping beside them: {worst * 1000:.0f} ms at most", flush=True)


def unread_events() -> None:
    with daemon() as victim:

        def drawn(prompt: str) -> float:
            began = time.monotonic()
            with victim.client() as client:
                client.txt2img(prompt, steps=20, seed=1)
            return time.monotonic() - began

        drawn("a circle")
        alone = drawn("a star")
        connections = connected(victim, 4)
        for connection in connections:
            connection.sendall(request(2, b"jobs.subscribe"))
        for thread in at_once(connections, PING * 4096):
            thread.join()
        beside = drawn("a heart")
    print(f"a job beside 4 subscribers with all the unread pings they may have: {beside / alone:.2f} times as long as alone")


def loads() -> None:
    demo = b"\x81\xaacheckpoint\xaclatentd-demo"
    both = request(3, b"models.unload", demo) + request(4, b"models.load", demo)
    times = []
    with daemon() as victim, victim.client() as client:
        job = client.jobs.submit("txt2img", {"prompt": "a circle", "steps": 1})
        client.jobs.wait(job)
        for connection in (connections := connected(victim, 40)):
            connection.sendall(both * 16)
        for _ in range(20):
            began = time.monotonic()
            client.jobs.wait(job)
            times.append(time.monotonic() - began)
        del connections
    print(f"640 models.load under way: a finished answer in {max(times) * 1000:.0f} ms at most")


def main() -> None:
    for attack in (unread_pings, unfinished_messages, unread_events, loads):
        attack()


if __name__ == "__main__":
    main()
