"""Bytes no client sends. The daemon's own tests do this in breadth; here the SDK's user looks on."""

from __future__ import annotations

import socket
from typing import Any

import latentd
import msgpack
import pytest
from conftest import SMALL, SOON, Daemon

HOSTILE = {
    "reserved byte": b"\xc1",
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "truncated": msgpack.packb([0, 1, "ping", [{}]])[:-1],
    "bin of 4 GiB": b"\x94\x00\x01\xa4ping\x91\xc6\xff\xff\xff\xff" + b"x" * 1000,
    "array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "nesting": b"\x91" * 100_000,
    "response nobody asked for": msgpack.packb([1, 1, None, None]),
}


def send_raw(daemon: Daemon, data: bytes) -> bytes:
    """Sends bytes, hangs up the sending side, and returns all that comes back before the daemon closes."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(SOON)
        raw.connect(str(daemon.socket))
        answer = b""
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while chunk := raw.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass  # Ended in the middle, which is its right.
        return answer


def ask(daemon: Daemon, data: bytes) -> Any:
    """Sends bytes and returns the first message that comes back."""
    unpacker = msgpack.Unpacker()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(SOON)
        raw.connect(str(daemon.socket))
        raw.sendall(data)
        while chunk := raw.recv(65536):
            unpacker.feed(chunk)
            for message in unpacker:
                return message
    raise AssertionError("the daemon ended the connection without an answer")


@pytest.mark.parametrize("data", HOSTILE.values(), ids=list(HOSTILE))
def test_ends_that_connection_only(daemon: Daemon, client: latentd.Client, data: bytes) -> None:
    send_raw(daemon, data)
    client.ping()
    with daemon.client() as other:
        other.ping()


@pytest.mark.parametrize(
    "params",
    [5, {}, [5], ["x"], [[1, 2]], [{}, {}], [{1: 2}], [{"prompt": 5}], [{"prompt": "x", "width": "64"}]],
    ids=repr,
)
def test_wrong_params_are_an_error_of_that_request(daemon: Daemon, params: Any) -> None:
    answer = ask(daemon, msgpack.packb([0, 9, "txt2img", params]))
    assert answer[:2] == [1, 9] and answer[3] is None
    code, text = answer[2]
    assert isinstance(code, int) and text.startswith("E_INVALID_PARAMS: "), text


def test_a_client_that_hangs_up_at_once_loses_nothing(daemon: Daemon, client: latentd.Client) -> None:
    request = {"method": "txt2img", "params": SMALL, "id": "hangs-up-at-once"}
    send_raw(daemon, msgpack.packb([0, 1, "jobs.submit", [request]]))
    # The id makes this the same job.
    job = client.jobs.submit("txt2img", SMALL, id="hangs-up-at-once")
    assert client.jobs.wait(job, timeout=SOON).images[0].seed == SMALL["seed"]
