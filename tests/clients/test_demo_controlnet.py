"""The demo's ControlNet draws where a sketch says: through the socket, with the plugin that comes with latentd. How well is the overlap
of what is blue with what the sketch encloses. `LATENTD_SHEET=FILE` keeps a sheet of sketches and pictures.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Iterator

import exam  # isort: skip, what follows is where it looks
import latentd
import numpy as np
import pytest
import scenes
from PIL import Image
from process import REPOSITORY, Daemon, build_plugins
from scipy import ndimage

# As in test_demo_pictures.py.
pytestmark = pytest.mark.timeout(900)

assert exam

LIBRARY = REPOSITORY / "models" / "demo" / "library"
#: Pictures, how much of each must overlap, and how many of them must.
SEEDS, LEAST_OVERLAP, LEAST_SHARE = range(40), 0.8, 0.9


@pytest.fixture(scope="module")
def client() -> Iterator[latentd.Client]:
    build_plugins()
    daemon = Daemon(models=LIBRARY)
    with daemon.client() as client:
        yield client
    daemon.remove()


def star(seed: int) -> np.ndarray:
    """Where a star is, of some size and somewhere."""
    rng = np.random.default_rng(seed)
    radius = rng.uniform(28, 44)
    x, y = rng.uniform(radius + 4, scenes.SIZE - radius - 4, 2)
    across, down = scenes.grid()
    return scenes.distance("star", (across - x) / radius, (down - y) / radius) < 0


def sketch(inside: np.ndarray) -> np.ndarray:
    """Its outline, black on white, as somebody draws it."""
    lines = inside & ~ndimage.binary_erosion(inside)
    return np.repeat(np.where(lines, 0, 255).astype(np.uint8)[..., None], 3, -1)


def test_a_blue_star_is_where_the_sketch_says(client: latentd.Client, capsys: pytest.CaptureFixture[str]) -> None:
    overlaps, without, shown = [], [], []
    for seed in SEEDS:
        inside = star(seed)
        drawn_by_hand = sketch(inside)
        image = {"raw": drawn_by_hand.tobytes(), "width": scenes.SIZE, "height": scenes.SIZE, "channels": 3}
        unit = {"model": "control_latentd-demo_canny", "module": "invert", "image": image}
        pictures = [
            np.array(Image.open(io.BytesIO(client.txt2img(
                "a blue star on a white background", seed=seed, checkpoint="latentd-demo", plugins=plugins,
            ).images[0].data)).convert("RGB"))
            for plugins in ({"controlnet": {"units": [unit]}}, {})
        ]  # fmt: skip
        for picture, found in zip(pictures, (overlaps, without)):
            colour = picture.astype(int)
            blue = (colour[..., 2] - colour[..., 0] > 60) & (colour[..., 2] - colour[..., 1] > 30)
            found.append((blue & inside).sum() / max(1, (blue | inside).sum()))
        shown.append(np.concatenate([drawn_by_hand, *pictures]))
    if "LATENTD_SHEET" in os.environ:
        Image.fromarray(np.concatenate(shown[:10], axis=1)).save(Path(os.environ["LATENTD_SHEET"]))
    right = sum(overlap >= LEAST_OVERLAP for overlap in overlaps)
    with capsys.disabled():
        print(f"\n{right} of {len(SEEDS)} overlap by {LEAST_OVERLAP}; mean {np.mean(overlaps):.3f}, without it {np.mean(without):.3f}")
    assert np.mean(without) < np.mean(overlaps) / 2
    assert right >= LEAST_SHARE * len(SEEDS)
