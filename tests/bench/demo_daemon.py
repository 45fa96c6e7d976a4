"""A daemon for measuring what the demo model draws, and the flags that choose it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "clients"))

import exam  # noqa: E402
import latentd  # noqa: E402
from process import Daemon  # noqa: E402


def add_flags(parser: argparse.ArgumentParser) -> None:
    default = exam.Settings()
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--cfg", type=float, default=default.cfg_scale)
    parser.add_argument("--seed", type=int, default=default.seed, help="of the first picture; each has the next")
    parser.add_argument("--sampler", default=default.sampler_name)
    parser.add_argument("--checkpoint", type=Path, help="a .safetensors file instead of what is built in")


def release_binary() -> Path:
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "latentd"
    program = Path(os.environ.get("LATENTD_BIN", built)).resolve()
    if not program.is_file():
        sys.exit(f"{program} is missing: cargo build --release -p latentd, or set LATENTD_BIN")
    return program


@contextmanager
def started(flags: argparse.Namespace) -> Iterator[Tuple[latentd.Client, exam.Settings]]:
    """A client of a daemon that has the demo model, or the file that was named, and nothing else."""
    with tempfile.TemporaryDirectory() as models:
        if flags.checkpoint is not None:
            # With the configuration beside it, if there is one: it may say what the model predicts.
            for file in (flags.checkpoint, flags.checkpoint.with_suffix(".yaml")):
                if file == flags.checkpoint or file.exists():
                    (Path(models) / file.name).symlink_to(file.resolve(strict=True))
        daemon = Daemon(models=Path(models), program=release_binary())
        try:
            with daemon.client() as client:
                # By name, so that a file which is refused is an error and not the model that is built in.
                name = flags.checkpoint and flags.checkpoint.stem
                yield client, exam.Settings(flags.steps, flags.cfg, flags.seed, flags.sampler, name)
        finally:
            daemon.remove()
