"""Two ways to draw a scene that the demo model does not know, and how far a picture is drawn so."""

import numpy as np
from scipy import ndimage

import judge
import scenes
from scenes import Shape

# Near to what the VAE makes of such colours, and yellow enough to be told from the white that scenes have.
PAPER = np.array((250.0, 240.0, 208.0))
GRAPHITE = np.array((12.0, 12.0, 16.0))
# Lines of half a latent's width come back from the VAE gray and broken.
HALF_LINE = 3.0
OUTLINED, FILLED = ("shape", "ear", "skin", "hat"), ("hair", "ink", "mouth", "band")
# The share of its own colour that a pastel keeps; the rest is white.
KEPT = 0.4


def pencil(scene):
    """(128, 128, 3) uint8: outlines on paper, fills as a light shade, no colours."""
    canvas = scenes.Canvas(PAPER)
    for thing in scene.things:
        window = canvas.window(thing.x, thing.y, 1.6 * thing.radius + HALF_LINE)
        x, y = (canvas.x[window] - thing.x) / thing.radius, (canvas.y[window] - thing.y) / thing.radius
        if isinstance(thing, Shape):
            shade = 0.3 * scenes.fill_share(thing, x * thing.radius, y * thing.radius)[..., None]
            layers = [("shape", scenes.distance(thing.shape, x, y), PAPER + shade * (GRAPHITE - PAPER))]
        else:
            layers = [(part, far, GRAPHITE if part in FILLED else PAPER)
                      for part, far in scenes.face_layers(thing, x, y)]
        for part, far, colour in layers:
            far = far * thing.radius
            canvas.cover(window, far, colour)
            if part in OUTLINED:
                canvas.cover(window, np.abs(far) - HALF_LINE, GRAPHITE)
    return np.clip(canvas.pixels + 0.5, 0, 255).astype(np.uint8)


def pencil_share(picture):
    """The share of pixels that have the colour of paper or, on a sheet of paper, of graphite."""
    picture = np.asarray(picture, float)
    paper = np.linalg.norm(picture - PAPER, axis=-1) < 26
    if np.linalg.norm(judge.border(picture) - PAPER) < 26:
        paper |= np.linalg.norm(picture - GRAPHITE, axis=-1) < 36
    return float(paper.mean())


def coloured_in(picture):
    """The drawing with all that its lines enclose filled: shapes that `judge` can read."""
    dark = np.asarray(picture, float).mean(-1) < (PAPER + GRAPHITE).mean() / 2
    return np.where(ndimage.binary_fill_holes(dark)[..., None], GRAPHITE, PAPER).astype(np.uint8)


def pastel(picture):
    """The same picture in light colours."""
    return (KEPT * np.asarray(picture, float) + (1 - KEPT) * 255 + 0.5).astype(np.uint8)


def unpastel(picture):
    """What `pastel` was made from."""
    return ((np.asarray(picture, float) - (1 - KEPT) * 255) / KEPT).clip(0, 255).round().astype(np.uint8)


def pastel_share(picture):
    """The share of pixels as light as `pastel` makes them."""
    return float((np.asarray(picture).min(-1) > (1 - KEPT) * 255 - 12).mean())
