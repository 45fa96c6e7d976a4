"""How soon a job of a real-size model ends once it is cancelled, in every phase.

    tests/.venv/bin/python tests/bench/cancel.py FOLDER      # ten minutes on two cores

FOLDER is a models folder with a checkpoint sd15-random, as tests/bench/real_size.py makes it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import latentd
from demo_daemon import release_binary
from process import Daemon

#: What is drawn, whether a step must be done first, and seconds from then to the cancel.
CASES = [
    ("loading", 512, 0, (0.3, 1.0, 2.5)),
    ("loading or the first step", 4096, 0, (1, 3, 6, 10, 20)),
    ("decoding", 1024, 1, (0.2, 1, 2, 3, 5)),
]


def cancelled(daemon: Daemon, size: int, step: int, delay: float) -> str:
    # Another prompt each time: one that was encoded before would skip a phase.
    request = {"prompt": str(time.time()), "seed": 1, "steps": 1, "checkpoint": "sd15-random"}
    with daemon.client() as client:
        job = client.jobs.submit("txt2img", {**request, "width": size, "height": size, "precision": "bf16"})
        while (state := client.jobs.get(job))["state"] != "running" or state["step"] < step:
            time.sleep(0.01)
        time.sleep(delay)
        began = time.monotonic()
        client.jobs.cancel(job)
        try:
            client.jobs.wait(job)
            return "finished: too late"
        except latentd.Cancelled:
            return f"{(time.monotonic() - began) * 1000:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    daemon = Daemon(models=parser.parse_args().folder, program=release_binary())
    try:
        for what, size, step, delays in CASES:
            for delay in delays:
                print(f"{what}, {size}×{size}, after {delay} s: {cancelled(daemon, size, step, delay)}", flush=True)
    finally:
        daemon.remove()


if __name__ == "__main__":
    main()
