"""Methods that plugins have, called by the SDK."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import zlib
from pathlib import Path

import latentd
import pytest
from process import REPOSITORY, SOON, Daemon

SOURCE = REPOSITORY / "tests" / "fixtures" / "plugins" / "methods.c"


@pytest.fixture
def with_methods(own_daemon: Daemon) -> Daemon:
    """A daemon with a plugin that has methods, which it finds as it is asked for them."""
    folder = own_daemon.folder / "data" / "latentd" / "plugins"
    folder.mkdir(parents=True, exist_ok=True)
    library = own_daemon.folder / "methods.so"
    include = REPOSITORY / "plugin-api" / "include"
    command = ["cc", "-shared", "-fPIC", "-std=gnu99", "-I", str(include), SOURCE.name, "-o", str(library), "-lm"]
    subprocess.run(command, cwd=SOURCE.parent, check=True, timeout=SOON)
    library.rename(folder / "methods.so")
    return own_daemon


def png() -> bytes:
    """A grey picture of 3 by 2."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(b"".join(b"\0" + bytes(3) for _ in range(2)))
    header = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_methods_are_called_by_name(with_methods: Daemon, tmp_path: Path) -> None:
    with with_methods.client() as client:
        [entry] = [entry for entry in client.plugins().plugins if entry.name == "methods"]
        assert entry.methods["at-once"] == latentd.PluginMethod("quick", "1.0.0", "Gives back what it is given.")
        assert entry.methods["work"].kind == "job"
        assert client.plugin_schema("methods").methods["work"]["result"]["required"] == ["width"]
        info = client.api_info()["methods"]["methods.work"]
        assert info["plugin"] == "methods" and info["job"]
        answer = client.call("methods.at-once", {"image": {"png": png()}})
        assert answer["width"] == 3 and answer["image"]["png"].startswith(b"\x89PNG")
        (tmp_path / "in.png").write_bytes(png())
        answer = client.call("methods.work", {"image": {"path": str(tmp_path / "in.png")}})
        assert answer["width"] == 3 and answer["job"] and answer["notices"] == ["plugin 'methods': planned"]
        job = client.jobs.submit("methods.work", {})
        assert client.jobs.wait(job)["job"] == job
        with pytest.raises(latentd.InvalidParams, match="method 'work': as asked"):
            client.call("methods.work", {"act": "fail"})
        with pytest.raises(latentd.NotFound, match="did you mean 'methods.work'"):
            client.call("methods.wrk", {})


def test_methods_are_called_by_name_from_asyncio(with_methods: Daemon) -> None:
    async def calls() -> None:
        async with latentd.AsyncClient(with_methods.socket, timeout=SOON) as client:
            answers = await asyncio.gather(*(client.call("methods.at-once", {"act": "good"}) for _ in range(4)))
            assert [answer["name"] for answer in answers] == ["at-once"] * 4

    asyncio.run(calls())
