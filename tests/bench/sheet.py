"""The README's contact sheet: what the demo model draws, through a daemon, words under the pictures.

    cargo build --release -p latentd
    tests/.venv/bin/python tests/bench/sheet.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from contact_sheet import contact_sheet
from demo_daemon import ROOT, add_flags, exam, started
from PIL import Image

COLUMNS = 6
PROMPTS = (
    "a red circle on a blue background",
    "a yellow star on a black background",
    "a pink heart on a white background",
    "a striped green square on an orange background",
    "a dotted purple hexagon on a yellow background",
    "a white crescent on a purple background",
    "a small cyan diamond at the top on a brown background",
    "a large orange ring on a gray background",
    "a gradient blue triangle on a pink background",
    "a black cross on the left on a cyan background",
    "two red hearts side by side on a white background",
    "a green circle above a yellow square on a blue background",
    "a blue star on the left, a red star in the centre and a yellow star on the right on a black background",
    "three orange circles on top of each other on a green background",
    "a pink diamond to the right of a brown ring on a white background",
    "a smiling face with long blond hair and glasses on a blue background",
    "a frowning face with spiky black hair on a yellow background",
    "a smiling face with curly red hair and a green hat on a gray background",
    "a portrait of a person with short brown hair and no glasses on a pink background",
    "a smiling face with spiky green hair, dark skin on an orange background",
    "a smiling face with long pink hair and a black hat on a cyan background",
    "a small smiling face on the left and a red circle on the right on a white background",
    "a yellow star above a small face with black hair on a purple background",
    "moon, yellow, purple background",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "models" / "demo" / "sheet.png")
    add_flags(parser)
    flags = parser.parse_args()
    with started(flags) as (client, settings):
        cards = [(Image.fromarray(exam.draw(client, prompt, settings, index)), prompt, "")
                 for index, prompt in enumerate(PROMPTS)]
    contact_sheet(cards, COLUMNS).save(flags.output, optimize=True)
    print(flags.output)


if __name__ == "__main__":
    main()
