"""What the demo model makes of prompts that change, are composed, have styles around them, or are of a part of the picture."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List

import exam  # isort: skip, what follows is where it looks
import judge
import latentd
import numpy as np
import pytest
import scenes
from process import Daemon

# As in test_demo_pictures.py.
pytestmark = pytest.mark.timeout(900)

SEEDS = 12
SIZE = scenes.SIZE


@pytest.fixture(scope="module")
def client() -> Iterator[latentd.Client]:
    daemon = Daemon()
    with daemon.client() as client:
        yield client
    daemon.remove()


def drawn(client: latentd.Client, prompt: Any, **fields: Any) -> List[np.ndarray]:
    """A picture for each seed, (128, 128, 3)."""
    fields = {"steps": 12, "cfg_scale": 5, "seed": 1, "batch_size": SEEDS, "checkpoint": "latentd-demo", **fields}
    images = client.txt2img(prompt, output={"format": "raw"}, **fields).images
    return [np.frombuffer(image.data, np.uint8).reshape(SIZE, SIZE, 3) for image in images]


def share(pixels: np.ndarray, colour: str) -> float:
    """How many of these look most like a colour, (…, 3)."""
    names = list(scenes.COLOURS)
    palette = judge.lab(np.array([scenes.COLOURS[name] for name in names]))
    far = np.linalg.norm(judge.lab(pixels)[..., None, :] - palette, axis=-1)
    return float(np.mean(far.argmin(-1) == names.index(colour)))


def behind(pictures: List[np.ndarray], colour: str) -> float:
    """How many have a background of this colour."""
    return float(np.mean([judge.nearest(judge.border(picture), scenes.COLOURS) == colour for picture in pictures]))


def test_each_region_has_its_own(client: latentd.Client, capsys: pytest.CaptureFixture[str]) -> None:
    # Two grey pixels are two halves.
    half = lambda pixels: latentd.Image(2, 1, raw=pixels, channels=1)
    regions: List[Dict[str, Any]] = [
        {"mask": half(b"\xff\x00"), "prompt": "a red circle on the left on a yellow background"},
        {"mask": half(b"\x00\xff"), "prompt": "a blue square on the right on a green background"},
    ]
    pictures = drawn(client, "a white background", regions=regions)
    edge = SIZE // 16
    left = float(np.mean([share(picture[:, :edge], "yellow") for picture in pictures]))
    right = float(np.mean([share(picture[:, -edge:], "green") for picture in pictures]))
    middle = slice(3 * SIZE // 8, 5 * SIZE // 8)
    things = [(share(picture[middle, :SIZE // 2], "red"), share(picture[middle, SIZE // 2:], "blue"))
              for picture in pictures]
    both = float(np.mean([min(pair) > 0.15 for pair in things]))
    with capsys.disabled():
        print(f"\nyellow on the left {left:.2f}, green on the right {right:.2f}, both things {both:.2f}")
    assert left > 0.9 and right > 0.9 and both > 0.8


def test_words_change_and_are_composed(client: latentd.Client, capsys: pytest.CaptureFixture[str]) -> None:
    early = drawn(client, "a red circle on a [blue:yellow:0.1] background")
    late = drawn(client, "a red circle on a [blue:yellow:0.9] background")
    away = drawn(client, "a red circle on a blue background AND a blue background :-0.6 AND a yellow background :0.6")
    reached = [behind(early, "yellow"), behind(late, "blue"), behind(away, "blue")]
    with capsys.disabled():
        print(f"\nchanged early {reached[0]:.2f}, late {reached[1]:.2f}; steered away from {reached[2]:.2f}")
    assert reached[0] > 0.9 and reached[1] > 0.9 and reached[2] < 0.2


def test_styles_and_lists(client: latentd.Client) -> None:
    client.save_style("on green", "{prompt} on a green background")
    assert behind(drawn(client, "a red circle", styles=["on green"]), "green") > 0.9
    names = ["blue", "yellow", "green"]
    prompts = [f"a red circle on a {name} background" for name in names]
    pictures = drawn(client, prompts, batch_size=3)
    assert [behind([picture], name) for picture, name in zip(pictures, names)] == [1, 1, 1]
