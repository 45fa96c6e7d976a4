"""What plugins cost that read and write the UNet's blocks: FreeU at SD 1.5's size, within the daemon and in a process of its own.

    tests/.venv/bin/python tests/bench/blocks.py FOLDER [--precision bf16] [--side 512] [--steps 4] [--rounds 3]

FOLDER is a models folder with a checkpoint sd15-random, as tests/bench/real_size.py makes it. FreeU (plugin-api/examples/freeu)
maps h and skip of the six blocks of the two lowest levels of the way up, in each step, and writes both anew. In each round the same
picture is drawn without it, with it inline and with it in a process; printed are the medians of a step's time, and by which share
a step is longer.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import latentd

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def daemon(args: argparse.Namespace, home: Path, isolation: str):
    """One with FreeU, of which it is said where it runs."""
    home.mkdir()
    config = home / "config.toml"
    config.write_text(f'[plugins.freeu]\nisolation = "{isolation}"\n')
    plugins = home / "plugins"
    plugins.mkdir()
    source = ROOT / "plugin-api/examples/freeu/freeu.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-I", ROOT / "plugin-api/include", source, "-o", plugins / "freeu.so", "-lm"],
                   check=True, cwd=source.parent)
    environment = {**os.environ, **{name: str(home) for name in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"]}}
    command = [args.latentd, "serve", "--models-dir", args.folder, "--plugins-dir", plugins, "--config", config]
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
    try:
        with latentd.Client(process.stdout.readline().split()[-1]) as client:
            yield client
            client.shutdown()
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latentd", default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    request = {"width": args.side, "height": args.side, "steps": args.steps, "seed": 1, "checkpoint": "sd15-random",
               "precision": args.precision, "sampler": "Euler"}
    times: dict[str, list[float]] = {"without": [], "inline": [], "process": []}
    pictures = {}
    with tempfile.TemporaryDirectory(prefix="latentd-bench-") as folder:
        # One after the other in each round: two daemons hold the model, so each is started as it is needed.
        with daemon(args, Path(folder, "inline"), "inline") as inline, daemon(args, Path(folder, "process"), "process") as isolated:
            for client in (inline, isolated):
                client.txt2img("a lighthouse", **{**request, "steps": 1})
            for round_ in range(args.rounds):
                for name, client, plugins in [("without", inline, {}), ("inline", inline, {"freeu": {}}), ("process", isolated, {"freeu": {}})]:
                    drawn = client.txt2img("a lighthouse", plugins=plugins, **request)
                    pictures[name] = drawn.images[0].png
                    times[name].append(drawn.timings["denoise_s"] / args.steps)
                    own = drawn.plugin_timings.get("freeu", 0.0) / args.steps
                    print(f"round {round_ + 1}, {name}: {times[name][-1]:.3f} s a step, {own * 1e3:.1f} ms of it the plugin's", flush=True)
    if pictures["inline"] != pictures["process"]:
        raise SystemExit("a process draws another picture than the daemon by itself")
    without = statistics.median(times["without"])
    for name in ("inline", "process"):
        print(f"{name}: a step is {statistics.median(times[name]) / without - 1:+.1%} of {without:.3f} s longer")


if __name__ == "__main__":
    main()
