"""A thousand changes among 20 sets of LoRAs: what one takes, that memory does not grow, and that off is off.

    tests/.venv/bin/python tests/bench/sets.py [--changes 1000]

The demo model with its pencil, once or twice, at strengths of its own; every tenth request is the plain one, whose bytes must
be the plain ones. Twice: with room for all sets, and with room for a few. Prints how much longer a job takes that draws with
another set than the job before it than one that draws with the same, and how far the daemon's memory lies apart from the
hundredth change on.
"""

import argparse
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import latentd

from switches import ROOT, resident, spread

LIBRARY = ROOT / "models/demo/library"
PROMPT = "a red circle on a blue background"
SETS = [f"<lora:pencil:{0.05 * number:.2f}>" + "<lora:pencil:0.01>" * (number % 2) for number in range(1, 21)]
#: Bytes of one set, and of what the demo model and a picture take beside it, roughly.
SET, REST = 18 << 20, 60 << 20


def measure(changes: int, flags: list[str], program: Path) -> None:
    with tempfile.TemporaryDirectory() as state:
        socket = f"{state}/latentd.sock"
        command = [program, "serve", "--socket", socket, "--state-dir", state, "--models-dir", LIBRARY, *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            process.stdout.readline()
            choose, sizes, other, same, loads = random.Random(7), [], [], [], []
            with latentd.Client(socket) as client:

                def draw(more: str) -> tuple[float, float, bytes]:
                    begun = time.monotonic()
                    result = client.txt2img(PROMPT + more, seed=1, steps=1, checkpoint="latentd-demo", strict=True,
                                            output={"format": "raw"})
                    return time.monotonic() - begun, result.timings["load_s"], result.images[0].data

                plain = draw("")[2]
                for one in SETS:
                    draw(one)
                before = SETS[-1]
                for number in range(changes):
                    if number % 10 == 9 and draw("")[2] != plain:
                        raise SystemExit(f"request {number}: the plain picture has other bytes")
                    one = choose.choice([one for one in SETS if one != before])
                    took, load, _ = draw(one)
                    other.append(took)
                    loads.append(load)
                    same.append(draw(one)[0])
                    before = one
                    sizes.append(resident(process.pid))
            extra = [1000 * (changed - stayed) for changed, stayed in zip(other, same)]
            middle, low, high = spread(sizes[100:])
            print(f"{' '.join(flags) or 'room for all'}: a change takes {statistics.median(extra):.1f} ms more, p95 "
                  f"{statistics.quantiles(extra, n=20)[-1]:.1f} ms (loading, median {1000 * statistics.median(loads):.1f} ms); "
                  f"memory {middle / 2**20:.1f} MiB, {low:+.2f} to {high:+.2f} %; the plain bytes {changes // 10} times")
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--latentd", type=Path, default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    measure(args.changes, [], args.latentd)
    measure(args.changes, ["--memory-bytes", str(REST + 6 * SET)], args.latentd)


if __name__ == "__main__":
    main()
