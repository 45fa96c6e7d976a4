"""What a preview of each step costs: the same pictures in pairs, with and without, by the demo model.

    tests/.venv/bin/python tests/bench/previews.py [--pairs 20] [--side 512]

Prints the median of the ratios of both times.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import latentd

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--latentd", default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latentd-bench-") as home:
        environment = {**os.environ, "XDG_RUNTIME_DIR": home, "XDG_STATE_HOME": home, "XDG_CONFIG_HOME": home}
        command = [str(args.latentd), "serve"]
        daemon = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            with latentd.Client(daemon.stdout.readline().split()[-1]) as client:

                def seconds(seed: int, on_preview) -> float:
                    begun = time.perf_counter()
                    client.txt2img("a red circle", seed=seed, width=args.side, height=args.side, checkpoint="latentd-demo",
                                   on_preview=on_preview)
                    return time.perf_counter() - begun

                seen = []
                seconds(0, None)
                ratios = [seconds(seed, seen.append) / seconds(seed, None) for seed in range(args.pairs)]
                print(f"{args.side}x{args.side}, {len(seen)} previews in {args.pairs} pictures of 20 steps: "
                      f"{statistics.median(ratios):.3f} times the time without")
                client.shutdown()
        finally:
            daemon.kill()
            daemon.wait()


if __name__ == "__main__":
    main()
