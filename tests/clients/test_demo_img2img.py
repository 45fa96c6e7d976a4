"""The demo model paints into pictures what it is told to, and leaves the rest: through the socket, marked by the judge of
`models/demo`. `LATENTD_SHEET=FILE` keeps a sheet of what was drawn.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Iterator, List

import exam  # isort: skip, what follows is where it looks
import judge
import latentd
import numpy as np
import pytest
import scenes
from PIL import Image
from process import Daemon
from scipy import ndimage

# As in test_demo_pictures.py.
pytestmark = pytest.mark.timeout(900)

#: Pictures of each kind, with seeds of their own, and the share of them that must show what was asked for.
SEEDS, LEAST = range(40), 0.95
STEPS = 12


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[latentd.Client]:
    """Of a daemon that has no checkpoint but what is built in."""
    daemon = Daemon(models=tmp_path_factory.mktemp("models"))
    with daemon.client() as client:
        yield client
    daemon.remove()


@pytest.fixture(scope="module")
def sheet() -> Iterator[List[np.ndarray]]:
    """Rows of pictures, kept where `LATENTD_SHEET` says."""
    rows: List[np.ndarray] = []
    yield rows
    if rows and "LATENTD_SHEET" in os.environ:
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((4, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
        Image.fromarray(np.concatenate(padded)).save(Path(os.environ["LATENTD_SHEET"]))


def pixels(image: latentd.Image) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(image.data)).convert("RGB"))


def mask(where: np.ndarray) -> latentd.Image:
    height, width = where.shape
    return latentd.Image(width=width, height=height, channels=1, raw=np.where(where, 255, 0).astype(np.uint8).tobytes())


def told(capsys: pytest.CaptureFixture[str], what: str) -> None:
    with capsys.disabled():
        print(f"\n{what}")


def test_the_masked_half_turns_blue_and_the_other_stays(
    client: latentd.Client, sheet: List[np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    right = np.arange(scenes.SIZE)[None, :].repeat(scenes.SIZE, axis=0) >= scenes.SIZE // 2
    blue, shown = 0, []
    for seed in SEEDS:
        before = client.txt2img("a red circle on a yellow background", seed=seed, steps=STEPS).images[0]
        after = client.img2img(
            before, "a blue background", mask=mask(right), mask_blur=0, inpaint_full_res=False, inpainting_fill=2,
            denoising_strength=1.0, seed=seed, steps=STEPS,
        ).images[0]  # fmt: skip
        drawn, kept = pixels(after), pixels(before)
        assert (drawn[~right] == kept[~right]).all(), "outside of the mask is the original"
        # Away from the seam.
        half = drawn[:, scenes.SIZE // 2 + 12 :].reshape(-1, 3)
        blue += judge.nearest(np.median(half, axis=0), scenes.COLOURS) == "blue"
        shown.append(np.concatenate([kept, drawn]))
    sheet.append(np.concatenate(shown[:8], axis=1))
    told(capsys, f"{blue} of {len(SEEDS)} halves are blue")
    assert blue >= LEAST * len(SEEDS)


def test_hair_takes_another_colour(
    client: latentd.Client, sheet: List[np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    right, faces, shown = 0, 0, []
    for seed in range(1000):
        if faces == len(SEEDS):
            break
        before = client.txt2img("a smiling face with red hair on a green background", seed=seed, steps=STEPS).images[0]
        picture = pixels(before)
        face = judge.find_face(picture.astype(float), judge.border(picture))
        # Of a face that the model did not draw so nothing can be told.
        if face is None or face.hair != "red":
            continue
        faces += 1
        x, y = scenes.grid()
        parts = judge.face_parts(face, (x - face.x) / face.radius, (y - face.y) / face.radius)
        hair = np.isin(parts, ("hair",))
        hair |= np.linalg.norm(judge.lab(picture) - judge.lab(np.array(scenes.HAIR["red"])), axis=-1) < 30
        hair = ndimage.binary_dilation(hair, iterations=3)
        after = client.img2img(
            before, "a smiling face with blue hair on a green background", mask=mask(hair), mask_blur=1,
            inpaint_full_res=False, inpainting_fill=2, denoising_strength=1.0, seed=seed, steps=STEPS,
        ).images[0]  # fmt: skip
        drawn = pixels(after)
        found = judge.find_face(drawn.astype(float), judge.border(drawn))
        right += found is not None and found.hair == "blue"
        shown.append(np.concatenate([picture, drawn]))
    sheet.append(np.concatenate(shown[:8], axis=1))
    told(capsys, f"{right} of {faces} have blue hair")
    assert faces == len(SEEDS) and right >= LEAST * faces


@pytest.mark.parametrize(("method", "blur", "reach", "strength"), [("mk2", 2, 22, 0.9), ("poor-mans", 2, 14, 0.9)])
def test_a_picture_is_continued_to_the_right(
    client: latentd.Client,
    sheet: List[np.ndarray],
    capsys: pytest.CaptureFixture[str],
    method: str,
    blur: int,
    reach: int,
    strength: float,
) -> None:
    more, right, shown = scenes.SIZE // 2, 0, []
    colours = [colour for colour in scenes.COLOURS if colour != "red"]
    for seed in SEEDS:
        colour = colours[seed % len(colours)]
        before = client.txt2img(f"a red circle on a {colour} background", seed=seed, steps=STEPS).images[0]
        after = client.outpaint(
            before, f"a {colour} background", right=more, method=method, mask_blur=blur, denoising_strength=strength, seed=seed,
            steps=STEPS,
        ).images[0]  # fmt: skip
        kept, drawn = pixels(before), pixels(after)
        assert drawn.shape == (scenes.SIZE, scenes.SIZE + more, 3)
        # So far into the picture reaches the mask, and its softened edge.
        same = scenes.SIZE - reach
        assert (drawn[:, :same] == kept[:, :same]).all(), "what was there is the original"
        new = drawn[:, scenes.SIZE :].reshape(-1, 3)
        right += judge.nearest(np.median(new, axis=0), scenes.COLOURS) == colour
        padded = np.pad(kept, ((0, 0), (0, more), (0, 0)), constant_values=255)
        shown.append(np.concatenate([padded, drawn]))
    sheet.append(np.concatenate(shown[:6], axis=1))
    told(capsys, f"{right} of {len(SEEDS)} go on in the background's colour ({method})")
    assert right >= LEAST * len(SEEDS)
