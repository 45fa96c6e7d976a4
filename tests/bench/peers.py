"""The stages of a picture side by side with PyTorch and diffusers: same sizes, same threads, turn and turn about.

    cargo build --release -p latentd
    python tests/bench/peers.py [--rounds 3] [--threads 2] [--side 512]     # needs tests/fixtures/requirements.txt

SD 1.5 at its real size with random weights; one CFG step (UNet, batch 2), VAE decode, text encoder (2 x 77). Each
round runs every engine once in a process of its own; figures are medians over the rounds, ratios are ours / theirs.
Machines are noisy: compare within one run of this script only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("unet_step_s", "vae_decode_s", "clip_s")


def latentd(side, threads):
    program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "latentd"
    command = [program, "bench", "--synthetic", "sd15", "--json", "--runs", "1", "--steps", "0", "--width", side,
               "--height", side, "--threads", threads]
    report = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout)
    return {stage: report[stage] for stage in STAGES} | {"peak": report["peak_rss_bytes"]}


def diffusers(side, threads, kind):
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if "bf16" in kind else torch.float32
    layout = torch.channels_last if "channels_last" in kind else torch.contiguous_format
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                        num_attention_heads=12, hidden_act="quick_gelu"))
    for net in (unet, vae, clip):
        net.eval().requires_grad_(False).to(dtype=dtype)
    unet.to(memory_format=layout)
    vae.to(memory_format=layout)
    ids = torch.full((2, 77), 49407)
    context = torch.randn(2, 77, 768, dtype=dtype)
    x = torch.randn(2, 4, side // 8, side // 8, dtype=dtype).to(memory_format=layout)
    z = x[:1].contiguous(memory_format=layout)
    t = torch.tensor([500.0, 500.0], dtype=dtype)
    runs = {"unet_step_s": lambda: unet(x, t, context), "vae_decode_s": lambda: vae.decode(z), "clip_s": lambda: clip(ids)}
    times = {}
    with torch.inference_mode():
        for stage, run in runs.items():
            run()
            begun = time.perf_counter()
            run()
            times[stage] = time.perf_counter() - begun
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return times | {"peak": int(peak.split()[1]) * 1024}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--peers", nargs="*", default=["f32"], help="f32, f32_channels_last, bf16, bf16_channels_last")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the child that measures one peer
    args = parser.parse_args()
    if args.one:
        print(json.dumps(diffusers(args.side, args.threads, args.one)))
        return
    seen = {}
    for round_ in range(args.rounds):
        ours = latentd(args.side, args.threads)
        seen.setdefault("latentd f32", []).append(ours)
        for peer in args.peers:
            command = [sys.executable, __file__, "--one", peer, "--side", str(args.side), "--threads", str(args.threads)]
            done = subprocess.run(command, check=True, capture_output=True)
            seen.setdefault(f"diffusers {peer}", []).append(json.loads(done.stdout.splitlines()[-1]))
        print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr)
    median = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in seen.items()}
    ours = median["latentd f32"]
    print(f"| {args.side}x{args.side}, {args.threads} threads | UNet step | VAE decode | CLIP | peak memory |")
    print("|---|---|---|---|---|")
    for name, row in median.items():
        cells = [f"{row[stage]:.2f} s ({ours[stage] / row[stage]:.2f})" for stage in STAGES]
        print(f"| {name} | {' | '.join(cells)} | {row['peak'] / 2**30:.2f} GiB |")
    print("In brackets: latentd's time over this engine's.")


if __name__ == "__main__":
    main()
