"""Two ways to draw a scene that are not the demo model's, and how far a picture is drawn in the first."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

import judge
import scenes
from scenes import COLOURS, HAIR, HATS, SKINS, Scene, Shape

# Near to what the VAE makes of such colours, and yellow enough to be told from the white that scenes have.
PAPER = np.array((250.0, 240.0, 208.0))
GRAPHITE = np.array((12.0, 12.0, 16.0))
# Lines of half a latent's width come back from the VAE gray and broken.
HALF_LINE = 3.0
OUTLINED, FILLED = ("shape", "ear", "skin", "hat"), ("hair", "ink", "mouth", "band")
# What becomes of colours that are not warm; of those of hair too.
AUTUMN = {"green": "brown", "cyan": "yellow", "blue": "red", "purple": "red", "pink": "orange"}
AUTUMN_HAIR = {"green": "brown", "blue": "red", "pink": "red"}


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
                # A little inside of the edge: around it the line of a small crescent would close.
                canvas.cover(window, np.abs(far + 1) - HALF_LINE, GRAPHITE)
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


def autumn(scene):
    """The scene in warm colours; None if it cannot be told apart in them."""
    behind = AUTUMN.get(scene.background, scene.background)
    things = tuple(
        replace(thing, colour=AUTUMN.get(thing.colour, thing.colour)) if isinstance(thing, Shape) else
        replace(thing, hair=AUTUMN_HAIR.get(thing.hair, thing.hair), hat=AUTUMN.get(thing.hat, thing.hat))
        for thing in scene.things)
    return Scene(behind, things) if all(told_apart(thing, behind) for thing in things) else None


def told_apart(thing, background):
    """Whether `scenes.random_scene` might put it on this background."""
    behind = COLOURS[background]
    if isinstance(thing, Shape):
        return thing.colour != background and (
            thing.fill == "plain" or scenes.far_apart(scenes.tint(thing.colour), behind, 95))
    skin, hair = SKINS[thing.skin], HAIR[thing.hair]
    near = [(skin, behind, 66), (skin, hair, 66), (hair, behind, 60)]
    if thing.hat:
        near.append((COLOURS[thing.hat], hair, 60))
    return thing.hat in (None, *HATS) and thing.hat != background and all(scenes.far_apart(*two) for two in near)
