"""Upscalers side by side with PyTorch, channels last, f32: same weights, same picture, same threads, turn and turn about.

    python tests/bench/upscalers.py [--side 256] [--rounds 3] [--threads 2] [--kinds rrdbnet compact span swinir dat]

Each round runs latentd (`tests/bench/upscalers.rs`) and spandrel once, in a process of its own each; figures are medians over the
rounds, ratios are latentd's time over PyTorch's. Sizes are those of RealESRGAN_x4plus, realesr-general-x4v3, SPAN x4 with 48
features, SwinIR-M x4 and DAT-light x4, weights random. It needs torch, spandrel and einops.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def network(kind):
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.DAT import DAT
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.SPAN import SPAN
    from spandrel.architectures.SwinIR import SwinIR

    makers = {
        "rrdbnet": lambda: ESRGAN(),
        "compact": lambda: Compact(num_feat=64, num_conv=32, upscale=4),
        "span": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=48, upscale=4),
        "swinir": lambda: SwinIR(upscale=4, img_size=48, window_size=8, embed_dim=180, depths=[6] * 6, num_heads=[6] * 6,
                                 mlp_ratio=2.0, upsampler="pixelshuffle"),
        "dat": lambda: DAT(upscale=4, embed_dim=60, depth=[18], num_heads=[6], split_size=[8, 32], expansion_factor=2.0,
                           resi_connection="3conv", upsampler="pixelshuffledirect", img_size=64),
    }
    return makers[kind]()


def torchs(kind, path, side):
    """In a process of its own: seconds of one run."""
    import time

    import torch
    from spandrel import ModelLoader

    found = ModelLoader("cpu").load_from_file(path)
    model = found.model.eval().to(memory_format=torch.channels_last)
    values = torch.tensor([(at * 7919 % 1009) / 1009 for at in range(3 * side * side)])
    picture = values.reshape(1, 3, side, side).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        model(picture)
        start = time.perf_counter()
        model(picture)
        print(f"seconds {time.perf_counter() - start:.4f}")


def seconds(command, environment):
    out = subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True, text=True).stdout
    return float(next(line for line in out.splitlines() if line.startswith("seconds ")).split()[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", default=["rrdbnet", "compact", "span", "swinir", "dat"])
    parser.add_argument("--torch", nargs=2, metavar=("KIND", "FILE"))
    given = parser.parse_args()
    if given.torch:
        return torchs(*given.torch, given.side)

    import torch

    threads = {"RAYON_NUM_THREADS": str(given.threads), "OMP_NUM_THREADS": str(given.threads)}
    environment = os.environ | threads
    bench = ["cargo", "bench", "-q", "-p", "latentd-models", "--bench", "upscalers"]
    subprocess.run([*bench, "--no-run"], check=True, cwd=ROOT)
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds:
            torch.manual_seed(1)
            path = Path(folder) / f"{kind}.pth"
            torch.save(network(kind).state_dict(), path)
            ours, theirs = [], []
            for _ in range(given.rounds):
                ours.append(seconds([*bench, "--", str(path), str(given.side), "1"], environment))
                command = [sys.executable, __file__, "--side", str(given.side), "--torch", kind, str(path)]
                theirs.append(seconds(command, environment))
            ours, theirs = statistics.median(ours), statistics.median(theirs)
            print(f"{kind} x4, {given.side}x{given.side}: {ours:.2f} s, PyTorch {theirs:.2f} s, ratio {ours / theirs:.2f}", flush=True)


if __name__ == "__main__":
    main()
