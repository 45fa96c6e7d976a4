"""Marks for what the demo model draws, class by class, over prompts of which every shape is a held-out combination.

    cargo build --release -p latentd
    tests/.venv/bin/python tests/bench/demo.py [--count 300] [--steps 20] [--cfg 5] [--seed 1] [--sheet FILE.png]

The pictures come through a daemon. Exits with 1 if a class is below its bar.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from contact_sheet import contact_sheet
from demo_daemon import add_flags, exam, started
from PIL import Image

COLUMNS = 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="prompts")
    parser.add_argument("--sheet", type=Path, default=Path("demo-exam.png"), help="all pictures, what is wrong in red")
    add_flags(parser)
    flags = parser.parse_args()
    marked = []
    with started(flags) as (client, settings):
        begun = time.perf_counter()
        for one in exam.sit(client, flags.count, settings):
            marked.append(one)
            if len(marked) % 25 == 0:
                print(f"{len(marked)} of {flags.count}, {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        seconds = (time.perf_counter() - begun) / len(marked)
    table, failed = exam.report(marked)
    print(f"{len(marked)} prompts, {flags.steps} steps {flags.sampler}, cfg {flags.cfg:g}, {seconds:.2f} s a picture")
    print(table)
    cards = [(Image.fromarray(one.picture), one.prompt, ", ".join(one.wrong)) for one in marked]
    contact_sheet(cards, COLUMNS).save(flags.sheet)
    print(flags.sheet)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
