"""The stages of a picture side by side with other engines: same sizes, same threads, turn and turn about.

    cargo build --release -p latentd
    python tests/bench/peers.py [--rounds 3] [--threads 2] [--side 512] [--engines latentd-bf16 openvino-bf16 …]

SD 1.5 at its real size with random weights; one CFG step (UNet, batch 2), VAE both ways, text encoder (2 x 77), and a whole
picture of `--steps`. Of diffusers and OpenVINO the picture is their networks one after the other, without a sampler,
which flatters them. Each round runs every engine once, in a process of its own; figures are medians over the rounds,
ratios are the first engine's time over this one's. Machines are noisy: compare within one run of this script only.

Needs tests/fixtures/requirements.txt; `openvino-*` needs `pip install openvino==2026.4.1`, and `sdcpp` needs
`pip install stable-diffusion-cpp-python==0.4.7` (built here, with cmake) and `--checkpoint`, a file from
tests/bench/real_size.py.
`onednn-bf16` measures what the matrix units give PyTorch's library at best, for comparison with the step's rate.
`diffusers-f32-avx2` holds PyTorch to AVX2, as `LATENTD_KERNELS=avx2` does us (`latentd-f32-avx2`).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("unet_step_s", "vae_decode_s", "vae_encode_s", "clip_s", "txt2img_s")
AVX2_ONLY = {"LATENTD_KERNELS": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
             "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
ENGINES = ["latentd-bf16", "latentd-f32", "diffusers-f32", "diffusers-bf16", "diffusers-bf16-channels_last",
           "openvino-bf16", "openvino-f32", "sdcpp", "onednn-bf16"]


def peak():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def second_run(run):
    """Seconds of the second call: the first one warms up."""
    run()
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def stages(step, decode, encode, text, steps):
    """What is measured, of an engine that can be called network by network."""
    seen = {"unet_step_s": second_run(step), "vae_decode_s": second_run(decode), "vae_encode_s": second_run(encode),
            "clip_s": second_run(text)}
    begun = time.perf_counter()
    text()
    for _ in range(steps):
        step()
    decode()
    return seen | {"txt2img_s": time.perf_counter() - begun, "peak": peak()}


def latentd(kind, args):
    program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "latentd"
    precision = kind.split("-")[0]
    command = [program, "bench", "--synthetic", "sd15", "--json", "--runs", "1", "--steps", args.steps,
               "--width", args.side, "--height", args.side, "--threads", args.threads, "--precision", precision]
    report = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout)
    return {stage: report[stage] for stage in STAGES} | {"peak": report["peak_rss_bytes"]}


def networks(dtype):
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                        num_attention_heads=12, hidden_act="quick_gelu"))
    for net in (unet, vae, clip):
        net.eval().requires_grad_(False).to(dtype=dtype)
    return unet, vae, clip


def inputs(side, dtype):
    import torch

    x = torch.randn(2, 4, side // 8, side // 8, dtype=dtype)
    return x, torch.tensor([500.0, 500.0], dtype=dtype), torch.randn(2, 77, 768, dtype=dtype), torch.full((2, 77), 49407)


def diffusers(kind, args):
    import torch

    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if "bf16" in kind else torch.float32
    layout = torch.channels_last if "channels_last" in kind else torch.contiguous_format
    unet, vae, clip = networks(dtype)
    unet.to(memory_format=layout)
    vae.to(memory_format=layout)
    x, t, context, ids = inputs(args.side, dtype)
    x = x.to(memory_format=layout)
    z = x[:1].contiguous(memory_format=layout)
    picture = torch.randn(1, 3, args.side, args.side, dtype=dtype).to(memory_format=layout)
    with torch.inference_mode():
        return stages(lambda: unet(x, t, context), lambda: vae.decode(z), lambda: vae.encode(picture),
                      lambda: clip(ids), args.steps)


def openvino(kind, args):
    import openvino as ov
    import torch

    class Flat(torch.nn.Module):
        """One tensor out, which is what can be traced."""

        def __init__(self, call):
            super().__init__()
            self.call = call

        def forward(self, *inputs):
            return self.call(*inputs)

    unet, vae, clip = networks(torch.float32)
    x, t, context, ids = inputs(args.side, torch.float32)
    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY"}

    def compiled(call, *example):
        folder = Path(args.cache) if args.cache else None
        file = folder and folder / f"{call.__name__}-{args.side}.xml"
        if file is None or not file.exists():
            with torch.inference_mode():
                model = ov.convert_model(Flat(call), example_input=example)
            if file is not None:
                ov.save_model(model, file)
        else:
            model = core.read_model(file)
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        feed = [ov.Tensor(tensor.numpy()) for tensor in example]
        return lambda: request.infer(feed)

    def unet_step(x, t, context):
        return unet(x, t, context, return_dict=False)[0]

    def vae_decode(z):
        return vae.decode(z, return_dict=False)[0]

    def vae_encode(picture):
        return vae.quant_conv(vae.encoder(picture))

    def text(ids):
        return clip(ids, return_dict=False)[0]

    step, decode = compiled(unet_step, x, t, context), compiled(vae_decode, x[:1].contiguous())
    encode = compiled(vae_encode, torch.randn(1, 3, args.side, args.side))
    return stages(step, decode, encode, compiled(text, ids), args.steps)


def sdcpp(_, args):
    """It shows whole pictures only: a step is the difference of two of them."""
    from stable_diffusion_cpp import StableDiffusion

    engine = StableDiffusion(model_path=args.checkpoint, n_threads=args.threads, verbose=False)

    def picture(steps):
        begun = time.perf_counter()
        engine.generate_image(prompt="a lighthouse", negative_prompt="blurry", width=args.side, height=args.side,
                              sample_steps=steps, cfg_scale=7.0, sample_method="euler_a", seed=1)
        return time.perf_counter() - begun

    picture(1)
    one, whole = picture(1), picture(args.steps)
    return {"unet_step_s": (whole - one) / (args.steps - 1), "vae_decode_s": math.nan,
            "vae_encode_s": math.nan, "clip_s": math.nan,
            "txt2img_s": whole, "peak": peak()}


def onednn(_, args):
    """No engine but a yardstick: the best rate of a bf16 product with PyTorch's library, at sizes of the UNet and square."""
    import torch

    torch.set_num_threads(args.threads)
    best = 0.0
    with torch.inference_mode():
        for m, k, n in PRODUCTS:
            x, layer = torch.randn(m, k, dtype=torch.bfloat16), torch.nn.Linear(k, n, dtype=torch.bfloat16)
            rate = 2 * m * k * n / min(second_run(lambda: layer(x)) for _ in range(8))
            print(f"{m}x{k}x{n}: {rate / 1e12:.2f} TFLOP/s", file=sys.stderr)
            best = max(best, rate)
    return {"best_product": best}


RUN = {"latentd": latentd, "diffusers": diffusers, "openvino": openvino, "sdcpp": sdcpp, "onednn": onednn}
# Rows, inner size, columns: linear layers of SD 1.5 at 512 x 512, batch 2; its convolutions as products; squares.
PRODUCTS = ((8192, 320, 320), (8192, 320, 2560), (8192, 1280, 320), (2048, 640, 5120), (2048, 2560, 640),
            (512, 1280, 10240), (512, 5120, 1280), (8192, 2880, 320), (2048, 5760, 640), (512, 11520, 1280),
            (2048, 1024, 4096), (2048, 2048, 2048), (4096, 4096, 4096))
# Of one CFG step of SD 1.5 at 512 x 512, multiplications and additions.
STEP_512 = 1606e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4, help="of the whole picture, 2 or more")
    parser.add_argument("--engines", nargs="+", default=ENGINES, help="the first is the one ratios are of")
    parser.add_argument("--checkpoint", help="for sdcpp")
    parser.add_argument("--cache", help="a folder that keeps OpenVINO's converted networks")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the child that measures one engine
    args = parser.parse_args()
    if args.steps < 2 or ("sdcpp" in args.engines and not args.checkpoint):
        parser.error("--steps is at least 2, and sdcpp needs --checkpoint")
    if args.one:
        engine, _, kind = args.one.partition("-")
        print(json.dumps(RUN[engine](kind.removesuffix("-avx2"), args)))
        return
    seen = {}
    for round_ in range(args.rounds):
        for engine in args.engines:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", engine]
            environment = os.environ | (AVX2_ONLY if engine.endswith("-avx2") else {})
            done = subprocess.run(command, check=True, capture_output=True, env=environment)
            seen.setdefault(engine, []).append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {round_ + 1}, {engine}: {seen[engine][-1]}", file=sys.stderr)
    median = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in seen.items()}
    ours = median[args.engines[0]]
    print(f"| {args.side}x{args.side}, {args.threads} threads | UNet step | VAE decode | VAE encode | CLIP "
          f"| {args.steps} steps | peak memory |")
    print("|---|---|---|---|---|---|---|")
    yardstick = median.pop("onednn-bf16", None)
    for name, row in median.items():
        cells = ["—" if math.isnan(row[stage]) else f"{row[stage]:.3f} s ({ours[stage] / row[stage]:.2f})"
                 for stage in STAGES]
        print(f"| {name} | {' | '.join(cells)} | {row['peak'] / 2**30:.2f} GiB |")
    print(f"In brackets: the time of {args.engines[0]} over this engine's.")
    if yardstick and args.side == 512:
        best, step = yardstick["best_product"], STEP_512 / ours["unet_step_s"]
        print(f"oneDNN's best bf16 product: {best / 1e12:.2f} TFLOP/s. The UNet step of {args.engines[0]}: "
              f"{step / 1e12:.2f} TFLOP/s, {100 * step / best:.0f} % of it.")


if __name__ == "__main__":
    main()
