"""The Python package as a user gets it: typed, and with examples that run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import latentd
import pytest
from conftest import REPOSITORY, Daemon, run
from PIL import Image

EXAMPLES = REPOSITORY / "sdk" / "python" / "examples"


def test_types() -> None:
    # What to check, and how strictly, stands in pyproject.toml.
    command = [sys.executable, "-m", "mypy", "--cache-dir=/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (Path(latentd.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["txt2img.py", "a lighthouse", "one.png", "--steps", "2", "--width", "64", "--height", "64"], ["one.png"]),
        (["many.py", "a lighthouse", "many", "--count", "2", "--size", "64"], ["many/1.png", "many/2.png"]),
        (["jobs.py", "a lighthouse", "job.png", "--size", "64"], ["job.png"]),
        (["regions.py", "a beach", "a lighthouse", "a palm", "both.png", "--size", "64"], ["both.png"]),
    ],
    ids=lambda value: value[0],
)
def test_examples(daemon: Daemon, tmp_path: Path, command: list[str], files: list[str]) -> None:
    done = run([sys.executable, str(EXAMPLES / command[0]), *command[1:]], daemon, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for file in files:
        with Image.open(tmp_path / file) as picture:
            assert picture.size == (64, 64)


def test_an_example_without_a_daemon_says_so(daemon: Daemon, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "txt2img.py"), "x", str(tmp_path / "x.png")]
    done = run(command, daemon, env={"LATENTD_SOCKET": str(tmp_path / "none")})
    assert done.returncode == 1 and "latentd serve" in done.stderr
