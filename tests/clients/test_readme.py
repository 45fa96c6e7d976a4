"""Walks the README as a reader does: its code blocks in order, as written.

What differs from the reader's machine: the folder is a temporary one that shows the repository's files, and
`cargo` and `target/release` give the build that is tested instead of another one with `--release`.
A block may have a comment above it, `<!-- test: skip, WHY -->` or `<!-- test: background -->`.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

import latentd
import pytest
from conftest import LATENTD, REPOSITORY, environment
from PIL import Image

README = REPOSITORY / "README.md"
BLOCK = re.compile(r"(?:<!-- test: (?P<mark>\w+).*?-->\n)?```(?P<language>\w+)\n(?P<text>.*?)```\n", re.DOTALL)

#: Seconds for one block; the first to call cargo may have to compile.
PATIENCE = 600

CARGO = """#!/bin/sh
# `--release` would be another build of everything; the folder is not the workspace's.
command=$1; shift
for argument; do
    shift
    [ "$argument" = --release ] || set -- "$@" "$argument"
done
exec {cargo} "$command" --quiet --manifest-path {manifest} "$@"
"""


class Block(NamedTuple):
    mark: str
    language: str
    text: str


def blocks() -> List[Block]:
    found = BLOCK.finditer(README.read_text())
    return [Block(match["mark"] or "", match["language"], match["text"]) for match in found]


class Reader:
    """Someone with a terminal in a clean checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        (self.folder / "target" / "release").mkdir(parents=True)
        (self.folder / "target" / "release" / "latentd").symlink_to(LATENTD)
        for name in ("models", "sdk", "tests"):
            (self.folder / name).symlink_to(REPOSITORY / name)
        shims = folder / "bin"
        shims.mkdir()
        cargo = shutil.which("cargo")
        assert cargo is not None, "cargo is missing"
        (shims / "cargo").write_text(CARGO.format(cargo=cargo, manifest=REPOSITORY / "Cargo.toml"))
        (shims / "cargo").chmod(0o755)

        home = {name: os.environ.get(name, str(Path.home() / part)) for name, part in HOMES.items()}
        self.environment: Dict[str, str] = {**environment(folder), **home}
        self.environment["PATH"] = f"{shims}{os.pathsep}{self.environment['PATH']}"
        self.socket = folder / "run" / "latentd" / "latentd.sock"
        self.background: List[subprocess.Popen[str]] = []

    def run(self, block: Block) -> None:
        command = self.command(block)
        if block.mark == "background":
            self.start(command)
            return
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        # Neovim goes on after an error in a script.
        assert block.language != "lua" or "Error" not in done.stderr, done.stderr

    def start(self, command: List[str]) -> None:
        """Starts what stays. It is ready once it says its first line, on either stream."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.background.append(process)
        assert process.stdout is not None
        # What it logs as it begins may come first.
        line = next((line for line in process.stdout if "latentd.sock" in line), "it ended")
        # The README says what this means: the daemon that `generate` started is still there.
        assert "latentd.sock" in line, line

    def command(self, block: Block) -> List[str]:
        if block.language == "sh":
            return ["bash", "-euo", "pipefail", "-c", block.text]
        if block.language == "python":
            return [".venv/bin/python", "-c", block.text]
        if block.language == "lua":
            script = self.folder / "block.lua"
            script.write_text(block.text)
            return ["nvim", "--headless", "--clean", "-c", f"luafile {script}", "-c", "qall!"]
        if block.language == "toml":
            # A configuration file: what it says is looked at as it is read.
            file = self.folder / "block.toml"
            file.write_text(block.text)
            return ["target/release/latentd", "--config", str(file), "plugins", "list"]
        raise AssertionError(f"nobody knows how to run {block.language!r}")

    def stop(self) -> None:
        """Ends the daemon, whoever started it."""
        with contextlib.suppress(latentd.ConnectionClosed):
            with latentd.Client(self.socket) as client:
                end = os.pidfd_open(client.status()["pid"])
                client.shutdown()
                # Readable when the process is gone.
                assert select.select([end], [], [], 60)[0], "the daemon does not end"
                os.close(end)
        for process in self.background:
            process.terminate()
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()


#: Where the toolchain keeps its own; they are found through HOME, which is another one here.
HOMES = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup"}


@pytest.fixture
def reader() -> Iterator[Reader]:
    folder = Path(tempfile.mkdtemp(prefix="latentd-readme-"))
    reader = Reader(folder)
    yield reader
    reader.stop()
    shutil.rmtree(folder)


@pytest.mark.timeout(1200)
def test_every_block_runs_as_written(reader: Reader) -> None:
    todo = [block for block in blocks() if block.mark != "skip"]
    assert {block.language for block in todo} == {"sh", "python", "lua", "toml"}
    for block in todo:
        reader.run(block)
    pictures = sorted(path.name for path in reader.folder.glob("*.png"))
    named = {"blue.png", "circle.png", "large.png", "shell.png", "pipe.png", "python.png", "regions.png", "rust.png"}
    assert named < set(pictures)
    assert len(pictures) == 9, f"Neovim's is missing or there are too many: {pictures}"
    for name in pictures:
        with Image.open(reader.folder / name) as picture:
            picture.load()
            assert picture.size[0] >= 64
            assert (picture.size[0] == 512) == (name == "large.png")


def test_links_lead_somewhere() -> None:
    for document in [README, REPOSITORY / "sdk" / "python" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
