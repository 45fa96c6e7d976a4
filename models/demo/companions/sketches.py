"""The training set that inpainting, the v variant and the ControlNet share: scenes with a mask and with edges."""

from functools import partial

import numpy as np

import captions
import data
import scenes

from .base import examples
from .edges import canny
from .masks import latent, random_mask


def covered(picture, mask):
    """The picture with gray, zero for the VAE, where the mask is."""
    return np.where(mask[..., None], 127.5, picture).astype(np.float32)


def draw(seed, number):
    rng = data.scene_rng(seed, number)
    scene = scenes.random_scene(rng)
    picture, mask = scenes.draw(scene), random_mask(rng, scene)
    return {"picture": picture, "texts": [captions.phrase(rng, scene) for _ in range(data.CAPTIONS_PER_SCENE)],
            "masked": covered(picture, mask), "mask": latent(mask), "edges": np.packbits(canny(picture), -1)}


def sketches(run, base):
    """Moments, rows, `masked` moments (n, 2, 4, 16, 16), `mask` (n, 16, 16) and `edges` (n, 128, 16), packed."""
    return examples(run, base, run.folder.parent / "sketches.npz", partial(draw, run.seed + 13))
