"""What the upscaler learns from: parts of drawn scenes at any size, and words, each also four times smaller.

A scene is drawn anew at the size that is wanted, so its edges are as sharp at 512 × 512 as at 128 × 128. Words are set in
the typeface that Pillow carries.
"""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import captions
import data
import scenes

SCALE = 4
# How programs make pictures smaller.
FILTERS = {"box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
WITH_WORDS = 0.45


class Part(scenes.Canvas):
    """A square of `side` pixels, and nothing of what lies beside it."""

    def __init__(self, background, side):
        at = np.arange(side) + 0.5
        self.x, self.y = np.meshgrid(at, at)
        self.side = side
        self.pixels = np.empty((side, side, 3))
        self.pixels[:] = background

    def window(self, x, y, reach):
        return tuple(slice(min(self.side, max(0, int(c - reach) - 1)), max(0, min(self.side, int(c + reach) + 2)))
                     for c in (y, x))


def enlarged(scene, zoom, left, top, side):
    """(side, side, 3) floats: the part at `left`, `top` of the scene drawn `zoom` times as large."""
    part = Part(scenes.COLOURS[scene.background], side)
    for thing in scene.things:
        there = replace(thing, x=thing.x * zoom - left, y=thing.y * zoom - top, radius=thing.radius * zoom)
        if min(there.x, there.y) > -1.6 * there.radius and max(there.x, there.y) < side + 1.6 * there.radius:
            (scenes.draw_shape if isinstance(thing, scenes.Shape) else scenes.draw_face)(part, there)
    return part.pixels


def colour(rng):
    return rng.uniform(0, 255, 3)


def lettered(rng, pixels, text):
    """Writes a few lines of the text over the picture, in one size and colour, level or not."""
    side = len(pixels)
    font = ImageFont.load_default(float(np.exp(rng.uniform(np.log(16), np.log(90)))))
    mask = Image.new("L", (2 * side, 2 * side))
    words = text.split()
    at = int(rng.integers(len(words)))
    words = words[at:] + words[:at]
    lines = [" ".join(words[start:start + 3]) for start in range(0, len(words), 3)]
    if rng.random() < 0.3:
        lines = [line.upper() for line in lines]
    ImageDraw.Draw(mask).multiline_text(
        (rng.uniform(0.3, 0.6) * side, rng.uniform(0.4, 0.6) * side), "\n".join(lines), 255, font,
        stroke_width=float(rng.choice([0, 0, 0.5, 1.5])))
    if rng.random() < 0.3:
        mask = mask.rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC)
    half = side // 2
    share = np.asarray(mask.crop((half, half, half + side, half + side)), float)[..., None] / 255
    return pixels + share * (colour(rng) - pixels)


def patch(rng, side, held=False):
    """(side, side, 3) uint8 of one picture; with `held` of what training never sees."""
    scene = scenes.random_scene(rng, held=held, kind=str(rng.choice(["one", "two", "three"])) if held else None)
    zoom = float(np.exp(rng.uniform(np.log(0.8), np.log(8))))
    thing = scenes.choose(rng, scene.things)
    # Its rim, or what is within.
    angle, out = rng.uniform(0, 2 * np.pi), thing.radius * rng.uniform(0.2, 1.1)
    middle = np.array([thing.x + out * np.cos(angle), thing.y + out * np.sin(angle)]) * zoom
    left, top = middle - rng.uniform(0.2, 0.8, 2) * side
    pixels = enlarged(scene, zoom, left, top, side)
    if rng.random() < WITH_WORDS:
        if rng.random() < 0.5:
            along = np.linspace(0, 1, side)[:, None, None]
            pixels = np.broadcast_to(colour(rng) * along + colour(rng) * (1 - along), pixels.shape)
        pixels = lettered(rng, pixels, captions.phrase(rng, scene))
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def smaller(picture, how):
    """(h, w, 3) uint8 → (h/4, w/4, 3)."""
    height, width, _ = picture.shape
    return np.asarray(Image.fromarray(picture).resize((width // SCALE, height // SCALE), FILTERS[how]))


def larger(picture, how):
    """(h, w, 3) uint8 → (4h, 4w, 3), as any program does it."""
    height, width, _ = picture.shape
    return np.asarray(Image.fromarray(picture).resize((width * SCALE, height * SCALE), how))


def pair(side, seed, number):
    """A picture and its smaller one."""
    rng = data.scene_rng(seed, number)
    picture = patch(rng, side)
    return picture, smaller(picture, scenes.choose(rng, list(FILTERS)))


def exam(count, side=256):
    """Held-out pictures and the same made smaller by the bicubic filter."""
    pictures = [patch(np.random.default_rng([71, number]), side, held=True) for number in range(count)]
    return np.stack(pictures), np.stack([smaller(picture, "bicubic") for picture in pictures])


def psnr(made, wanted):
    """Of each picture, in dB."""
    error = (made.astype(float) - wanted).reshape(len(made), -1)
    return 10 * np.log10(255 ** 2 / np.maximum((error ** 2).mean(1), 1e-9))
