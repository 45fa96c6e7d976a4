"""Canny's edges, as the preprocessor that people put before a ControlNet finds them, and how well two sets agree."""

import numpy as np
from scipy import ndimage

LOW, HIGH = 100, 200


def canny(picture, low=LOW, high=HIGH):
    """(h, w, 3) uint8 → (h, w) bool.

    OpenCV's choices: no blur, Sobel 3 × 3, |dx| + |dy|, and per pixel the channel in which that is largest.
    """
    values = np.pad(np.asarray(picture, float), ((1, 1), (1, 1), (0, 0)), "edge")
    dx, dy = (ndimage.correlate1d(ndimage.correlate1d(values, (-1, 0, 1), along), (1, 2, 1), 1 - along)[1:-1, 1:-1]
              for along in (1, 0))
    size = np.abs(dx) + np.abs(dy)
    strongest = size.argmax(-1)[..., None]
    dx, dy, size = (np.take_along_axis(part, strongest, -1)[..., 0] for part in (dx, dy, size))
    around = np.pad(size, 1)

    def neighbour(down, right):
        return around[1 + down:around.shape[0] - 1 + down, 1 + right:around.shape[1] - 1 + right]

    steep = np.abs(dy) / np.maximum(np.abs(dx), 1e-9)
    flat, upright = steep < np.tan(np.pi / 8), steep > np.tan(3 * np.pi / 8)
    rising = dx * dy >= 0
    before = np.select([flat, upright, rising], [neighbour(0, -1), neighbour(-1, 0), neighbour(-1, -1)],
                       neighbour(-1, 1))
    after = np.select([flat, upright, rising], [neighbour(0, 1), neighbour(1, 0), neighbour(1, 1)], neighbour(1, -1))
    # Of two equal neighbours the first wins; on diagonals neither may be equal.
    peak = (size > before) & np.where(flat | upright, size >= after, size > after)
    weak = peak & (size > low)
    marks, _ = ndimage.label(weak, np.ones((3, 3)))
    kept = np.unique(marks[weak & (size > high)])
    return np.isin(marks, kept[kept > 0])


def agreement(found, wanted, reach=2):
    """1 where two sets of edges lie within `reach` pixels of each other everywhere, 0 where nowhere (an F1 score)."""
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    near = np.ones((2 * reach + 1,) * 2, bool)
    precision = (found & ndimage.binary_dilation(wanted, near)).sum() / found.sum()
    recall = (wanted & ndimage.binary_dilation(found, near)).sum() / wanted.sum()
    return float(2 * precision * recall / max(precision + recall, 1e-9))
