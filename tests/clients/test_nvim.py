"""Neovim as a client, driven by the Lua scripts beside this file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Dict

import pytest
from conftest import SMALL, Daemon, run
from PIL import Image

HERE = Path(__file__).parent


def nvim(script: str, daemon: Daemon, **environment: str) -> str:
    """Runs a Lua script in Neovim; returns what it printed."""
    if shutil.which("nvim") is None:
        pytest.fail("Neovim is missing: tests/run installs it")
    env: Dict[str, str] = {"LATENTD_SOCKET": str(daemon.socket), "REQUEST": json.dumps(SMALL), **environment}
    done = run(["nvim", "--headless", "--clean", "-c", f"luafile {HERE / script}"], daemon, env=env)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_rpcrequest(daemon: Daemon, tmp_path: Path) -> None:
    printed = nvim("rpc.lua", daemon, OUTPUT_DIR=str(tmp_path))
    path = Path(printed.split("path ", 1)[1].strip())
    assert path.parent == tmp_path
    with Image.open(path) as picture:
        assert picture.size == (SMALL["width"], SMALL["height"])


def test_lua_client_on_a_pipe_keeps_binary_data(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    nvim("pipe.lua", daemon, OUTPUT=str(path))
    with daemon.client() as client:
        assert path.read_bytes() == client.txt2img(**SMALL).images[0].png
