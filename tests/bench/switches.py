"""A thousand switches among 6 checkpoints and 4 VAEs: how long one takes, and that memory does not grow.

    tests/.venv/bin/python tests/bench/switches.py [--switches 1000] [--wider 3]

The checkpoints are small ones, made wider, with weights of their own. Twice: with room for all, where a switch is between
what is in memory, and with room for two, where networks come and go. Prints how much longer a job takes that draws with
another checkpoint and VAE than the job before it than one that draws with the same; and how far the daemon's memory lies
apart from the second hundred on, all of it and what networks do not take.
"""

import argparse
import json
import random
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import numpy

import latentd

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ROOT / "tests/fixtures/models/Stable-diffusion/tiny-sd1.safetensors"
CHECKPOINTS = [f"model-{index}" for index in range(6)]
VAES = [f"vae-{index}" for index in range(4)]


def write(path: Path, tensors: dict[str, numpy.ndarray]) -> None:
    kinds = {"float16": "F16", "float32": "F32", "int64": "I64"}
    header, place = {}, 0
    for name, values in tensors.items():
        end = place + values.nbytes
        header[name] = {"dtype": kinds[values.dtype.name], "shape": values.shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())


def read(path: Path) -> dict[str, numpy.ndarray]:
    kinds = {"F16": "<f2", "F32": "<f4", "I64": "<i8"}
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    body = data[8 + length:]
    return {
        name: numpy.frombuffer(body[slice(*info["data_offsets"])], kinds[info["dtype"]]).reshape(info["shape"])
        for name, info in json.loads(data[8:8 + length]).items() if name != "__metadata__"
    }


def widened(values: numpy.ndarray, times: int) -> numpy.ndarray:
    """So many times as many channels; those of latents, pixels, kernels, positions and the vocabulary stay."""
    repeats = [times if size >= 32 and size not in (77, 49408) else 1 for size in values.shape]
    inputs = repeats[1] if len(repeats) > 1 else 1
    return (numpy.tile(values, repeats) / inputs).astype(values.dtype) if values.dtype.kind == "f" else values


def make(folder: Path, wider: int) -> int:
    """Every tensor of every file is another one: nothing is shared. Gives the bytes of a checkpoint."""
    tiny = {name: widened(values, wider) for name, values in read(TINY).items()}
    generator = numpy.random.default_rng(1)

    def other(values: numpy.ndarray) -> numpy.ndarray:
        return (values * (1 + generator.uniform(-0.01, 0.01))).astype(values.dtype) if values.dtype.kind == "f" else values

    for kind in ("Stable-diffusion", "VAE"):
        (folder / kind).mkdir(parents=True)
    for name in CHECKPOINTS:
        write(folder / f"Stable-diffusion/{name}.safetensors", {key: other(value) for key, value in tiny.items()})
    prefix = "first_stage_model."
    for name in VAES:
        own = {key.removeprefix(prefix): other(value) for key, value in tiny.items() if key.startswith(prefix)}
        write(folder / f"VAE/{name}.safetensors", own)
    return sum(values.nbytes for values in tiny.values())


def resident(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def spread(sizes: list[int]) -> tuple[float, float, float]:
    """The median, and how far the lowest and the highest lie from it, in hundredths."""
    middle = statistics.median(sizes)
    return middle, 100 * (min(sizes) / middle - 1), 100 * (max(sizes) / middle - 1)


def measure(folder: Path, switches: int, flags: list[str], program: Path) -> None:
    with tempfile.TemporaryDirectory() as state:
        socket = f"{state}/latentd.sock"
        command = [program, "serve", "--socket", socket, "--state-dir", state, "--models-dir", folder, *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            process.stdout.readline()
            choose = random.Random(7)
            sizes, beside, same, other, loads = [], [], [], [], []
            with latentd.Client(socket) as client:

                def draw(checkpoint: str, vae: str) -> tuple[float, float]:
                    begun = time.monotonic()
                    result = client.txt2img("a red circle", seed=1, steps=1, width=64, height=64, checkpoint=checkpoint,
                                            vae=vae, output={"format": "raw"})
                    return time.monotonic() - begun, result.timings["load_s"]

                for checkpoint in CHECKPOINTS:
                    for vae in VAES:
                        draw(checkpoint, vae)
                before = (CHECKPOINTS[-1], VAES[-1])
                for _ in range(switches):
                    pair = before
                    while pair == before:
                        pair = (choose.choice(CHECKPOINTS), choose.choice(VAES))
                    took, load = draw(*pair)
                    other.append(took)
                    loads.append(load)
                    same.append(draw(*pair)[0])
                    before = pair
                    sizes.append(resident(process.pid))
                    beside.append(sizes[-1] - client.status()["memory"]["models_bytes"])
            extra = [1000 * (switched - stayed) for switched, stayed in zip(other, same)]
            p95 = statistics.quantiles(extra, n=20)[-1]
            load95 = 1000 * statistics.quantiles(loads, n=20)[-1]
            middle, low, high = spread(sizes[100:])
            # What is in memory has not always the same size.
            own, least, most = spread(beside[100:])
            print(f"{' '.join(flags) or 'room for all'}: a switch takes {statistics.median(extra):.1f} ms more, p95 "
                  f"{p95:.1f} ms (loading, p95 {load95:.1f} ms); memory {middle / 2**20:.1f} MiB, {low:+.1f} to {high:+.1f} %; beside the networks "
                  f"{own / 2**20:.1f} MiB, {own * least / middle:+.1f} to {own * most / middle:+.1f} % of all")
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--wider", type=int, default=3, help="times as many channels as tiny-sd1 has")
    parser.add_argument("--latentd", type=Path, default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = make(Path(folder), args.wider)
        measure(Path(folder), args.switches, [], args.latentd)
        measure(Path(folder), args.switches, ["--memory-bytes", str(2 * size + (32 << 20))], args.latentd)


if __name__ == "__main__":
    main()
