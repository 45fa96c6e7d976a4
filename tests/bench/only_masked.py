"""What painting a part of a large photo takes in memory, beside drawing as large a picture from text.

    tests/.venv/bin/python tests/bench/only_masked.py FOLDER [--precision bf16] [--side 1024] [--steps 1]

FOLDER is a models folder with a checkpoint sd15-random, as tests/bench/real_size.py makes it. Each request goes to a daemon of
its own, whose most memory is read once it is done: txt2img at SIDE x SIDE, and img2img with `inpaint_full_res` at the same
size in a JPEG of 4000 x 3000.
"""

import argparse
import io
import os
import subprocess
import tempfile
from pathlib import Path

import latentd
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent


def peak(process: int) -> int:
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measured(args: argparse.Namespace, draw) -> int:
    with tempfile.TemporaryDirectory(prefix="latentd-bench-") as home:
        environment = {**os.environ, "XDG_RUNTIME_DIR": home, "XDG_STATE_HOME": home, "XDG_CONFIG_HOME": home}
        command = [args.latentd, "serve", "--models-dir", args.folder]
        daemon = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
        try:
            socket = daemon.stdout.readline().split()[-1]
            with latentd.Client(socket) as client:
                image = draw(client).images[0]
                bytes_ = peak(daemon.pid)
                print(f"{image.width}x{image.height}: {bytes_ / 2**20:.0f} MiB", flush=True)
                client.shutdown()
            return bytes_
        finally:
            daemon.kill()
            daemon.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--latentd", default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    common = {"width": args.side, "height": args.side, "steps": args.steps, "seed": 1, "checkpoint": "sd15-random",
              "precision": args.precision}
    rows, columns = np.mgrid[0:3000, 0:4000]
    photo, mask = io.BytesIO(), io.BytesIO()
    pixels = np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(photo, "JPEG", quality=90)
    Image.fromarray(np.where((abs(rows - 1500) < 400) & (abs(columns - 2000) < 400), 255, 0).astype(np.uint8)).save(mask, "PNG")
    plain = measured(args, lambda client: client.txt2img("a lighthouse", **common))
    painted = measured(args, lambda client: client.img2img(
        photo.getvalue(), "a lighthouse", mask=mask.getvalue(), img2img_fix_steps=True, **common))
    print(f"the painted photo takes {(painted - plain) / 2**20:+.0f} MiB")


if __name__ == "__main__":
    main()
