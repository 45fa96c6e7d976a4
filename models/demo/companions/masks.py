"""Masks to paint into, of the kinds that people draw."""

import numpy as np
from scipy import ndimage

from scenes import SIZE, choose, grid, segment

# Where all is masked, words say all that the rest would show.
KINDS = {"thing": 0.32, "whole": 0.25, "box": 0.1, "blob": 0.12, "strokes": 0.12, "side": 0.09}


def random_mask(rng, scene, kind=None):
    """(128, 128) bool, true where the picture is to be made anew; never empty."""
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    x, y = grid()
    match kind:
        case "whole":
            return np.ones((SIZE, SIZE), bool)
        case "thing":
            thing = choose(rng, scene.things)
            reach = (1.25 if hasattr(thing, "shape") else 1.55) * thing.radius + rng.uniform(1, 9)
            middle_x, middle_y = thing.x + rng.uniform(-3, 3), thing.y + rng.uniform(-3, 3)
            square = rng.random() < 0.5
            far = (np.maximum if square else np.hypot)(np.abs(x - middle_x), np.abs(y - middle_y))
            return far < reach
        case "box":
            width, height = rng.uniform(20, 100, 2)
            left, top = rng.uniform(0, SIZE - width), rng.uniform(0, SIZE - height)
            return (x > left) & (x < left + width) & (y > top) & (y < top + height)
        case "blob":
            hills = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), rng.uniform(8, 18), mode="wrap")
            return hills > np.quantile(hills, rng.uniform(0.35, 0.85))
        case "strokes":
            return np.minimum.reduce([stroke for _ in range(rng.integers(1, 4)) for stroke in brush(rng, x, y)]) < 0
        case "side":
            share = rng.uniform(0.25, 0.7) * SIZE
            return choose(rng, (x < share, x > SIZE - share, y < share, y > SIZE - share))
    raise ValueError(kind)


def brush(rng, x, y):
    """Distances to the pieces of one crooked stroke."""
    width, at = rng.uniform(6, 14), rng.uniform(10, SIZE - 10, 2)
    for _ in range(rng.integers(2, 6)):
        to = np.clip(at + rng.normal(0, 30, 2), 4, SIZE - 4)
        if np.hypot(*(to - at)) > 1:
            yield segment(x, y, *at, *to, width)
            at = to
    yield np.hypot(x - at[0], y - at[1]) - width


def latent(mask):
    """(…, 128, 128) → (…, 16, 16): one pixel for each latent, as nearest interpolation picks it."""
    return mask[..., ::8, ::8]
