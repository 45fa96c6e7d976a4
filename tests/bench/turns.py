"""Two models in turn under a budget for one: no turn is refused, and memory does not grow.

    tests/.venv/bin/python tests/bench/turns.py FOLDER [--turns 50] [--precision bf16]

FOLDER is a models folder with a checkpoint sd15-random, as tests/bench/real_size.py makes it; a second one is made beside
it once, of the same size and with other weights in each of its networks. Prints the daemon's memory after each turn, and
how far it lies apart from the fifth turn on: by then each model was in memory twice.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import latentd

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("sd15-random", "sd15-other")


def make_other(folder: Path) -> None:
    """A copy with one bit of each network's first tensor turned over: nothing is shared."""
    source, target = (folder / "Stable-diffusion" / f"{name}.safetensors" for name in NAMES)
    if target.exists():
        return
    partial = target.with_suffix(".part")
    shutil.copyfile(source, partial)
    with partial.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        for prefix in ("cond_stage_model.", "first_stage_model.", "model.diffusion_model."):
            name = min(name for name in header if name.startswith(prefix) and name.endswith("weight"))
            place = 8 + length + header[name]["data_offsets"][0]
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1]))
    partial.rename(target)


def resident(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--memory-bytes", type=int, default=2600 << 20, help="the budget [default: 2600 MiB]")
    parser.add_argument("--latentd", default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    make_other(args.folder)
    with tempfile.TemporaryDirectory() as state:
        socket = f"{state}/latentd.sock"
        command = [args.latentd, "serve", "--socket", socket, "--state-dir", state, "--models-dir", args.folder,
                   "--memory-bytes", str(args.memory_bytes)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "LATENTD_PRECISION": args.precision})
        try:
            process.stdout.readline()
            sizes = []
            with latentd.Client(socket) as client:
                for turn in range(args.turns):
                    begun = time.monotonic()
                    result = client.txt2img("a red circle", seed=1, steps=1, width=64, height=64,
                                            checkpoint=NAMES[turn % 2], output={"format": "raw"})
                    sizes.append(resident(process.pid))
                    print(f"turn {turn + 1}: {sizes[-1] / 2**20:.0f} MiB, {time.monotonic() - begun:.1f} s, "
                          f'of which loading {result.timings["load_s"]:.1f}', flush=True)
            settled = sizes[4:]
            middle = sorted(settled)[len(settled) // 2]
            low, high = (100 * (edge / middle - 1) for edge in (min(settled), max(settled)))
            print(f"median {middle / 2**20:.0f} MiB, {low:+.1f} to {high:+.1f} %; no turn was refused")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
