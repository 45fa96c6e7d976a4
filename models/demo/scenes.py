"""What the demo model draws: seeded pictures of shapes and cartoon faces, 128 x 128.

A `Scene` says what is where. `draw` turns it into pixels; `captions` turns it into words; `judge` reads pixels back
with the same geometry. Lengths are pixels, y points down. Edges are antialiased from signed distances, so fills stay
flat.
"""

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np

SIZE = 128

COLOURS = {
    "red": (214, 38, 42), "orange": (245, 130, 26), "yellow": (250, 218, 50), "green": (46, 158, 68),
    "cyan": (58, 204, 214), "blue": (38, 82, 208), "purple": (126, 56, 172), "pink": (246, 148, 192),
    "brown": (122, 72, 36), "black": (24, 24, 30), "white": (248, 248, 248), "gray": (140, 142, 148),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "crescent", "diamond", "hexagon")
FILLS = ("plain", "striped", "dotted", "gradient")
SIZES = {"small": (15.0, 18.0), "medium": (22.0, 27.0), "large": (34.0, 39.0)}
POSITIONS = {"centre": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}

SKINS = {"light": (250, 212, 178), "tan": (220, 164, 112), "brown": (160, 104, 66), "dark": (98, 62, 46)}
HAIR = {
    "black": (28, 26, 34), "brown": (112, 62, 26), "blond": (244, 206, 84), "red": (196, 66, 24),
    "gray": (150, 152, 158), "blue": (46, 92, 214), "green": (52, 164, 76), "pink": (244, 126, 184),
}
CUTS = ("short", "long", "curly", "spiky")
HATS = ("red", "yellow", "green", "blue", "purple", "black", "white")
MOUTHS = ("smile", "frown")


@dataclass(frozen=True)
class Shape:
    """One flat figure; `radius` is about half its side."""

    shape: str
    colour: str
    fill: str
    size: str
    position: str
    x: float
    y: float
    radius: float
    phase: float = 0.0


@dataclass(frozen=True)
class Face:
    """One head; `radius` is half its height, without hair and hat. `hat` is a colour or None."""

    skin: str
    hair: str
    cut: str
    glasses: bool
    mouth: str
    hat: str | None
    size: str
    position: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    background: str
    things: tuple

    @property
    def shapes(self):
        return [thing for thing in self.things if isinstance(thing, Shape)]

    @property
    def face(self):
        """The head, if there is one; there is never a second."""
        return next((thing for thing in self.things if isinstance(thing, Face)), None)


# --- geometry: signed distances in units of the radius, negative inside --------------------------------------------

def ellipse(x, y, cx, cy, rx, ry):
    """First-order distance to an ellipse: exact on the edge, which is where it is used."""
    x, y = x - cx, y - cy
    near = np.hypot(x / rx, y / ry)
    return near * (near - 1) / np.maximum(np.hypot(x / rx ** 2, y / ry ** 2), 1e-6)


def circle(x, y, cx=0.0, cy=0.0, r=1.0):
    return np.hypot(x - cx, y - cy) - r


def box(x, y, left, top, right, bottom, corner=0.0):
    dx = np.abs(x - (left + right) / 2) - (right - left) / 2 + corner
    dy = np.abs(y - (top + bottom) / 2) - (bottom - top) / 2 + corner
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner


def segment(x, y, x0, y0, x1, y1, half_width):
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - x0 - along * dx, y - y0 - along * dy) - half_width


def polygon(x, y, corners):
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
        if y0 != y1:
            inside ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * dx / dy)
    return np.sqrt(nearest) * np.where(inside, -1, 1)


def around(count, radii, start=-90.0):
    """Corners at equal angles from `start` degrees, the radii in turn."""
    angles = (math.radians(start + 360 * i / count) for i in range(count))
    return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)]


def heart(x, y):
    """Two discs and the tangents from them to a tip."""
    x, y = np.abs(x), y + 0.06
    disc = np.hypot(x - 0.47, y + 0.36) - 0.50
    tip = polygon(x, y, [(-0.6, -0.36), (0.47, -0.36), (0.858, -0.045), (0.0, 0.98), (-0.6, 0.3)])
    return np.minimum(disc, tip)


TRIANGLE = [(0.0, -0.92), (1.0, 0.82), (-1.0, 0.82)]
STAR = [(x, y + 0.06) for x, y in around(10, (1.1, 0.46))]
HEXAGON = around(6, (1.0,), start=0.0)


def distance(shape, x, y):
    """Signed distance to a shape of radius 1 around 0."""
    match shape:
        case "circle":
            return circle(x, y, r=0.95)
        case "square":
            return box(x, y, -0.86, -0.86, 0.86, 0.86)
        case "triangle":
            return polygon(x, y, TRIANGLE)
        case "star":
            return polygon(x, y, STAR)
        case "heart":
            return heart(x, y)
        case "ring":
            return np.abs(np.hypot(x, y) - 0.74) - 0.24
        case "cross":
            return np.minimum(box(x, y, -0.95, -0.32, 0.95, 0.32), box(x, y, -0.32, -0.95, 0.32, 0.95))
        case "crescent":
            return np.maximum(circle(x, y, 0.16, 0, 1.0), -circle(x, y, 0.71, -0.06, 0.8))
        case "diamond":
            return polygon(x, y, [(0.0, -1.05), (0.76, 0.0), (0.0, 1.05), (-0.76, 0.0)])
        case "hexagon":
            return polygon(x, y, HEXAGON)
    raise ValueError(shape)


# --- drawing --------------------------------------------------------------------------------------------------------

def tint(colour):
    """The second colour of a fill: lighter for dark colours, darker for light ones."""
    base = np.array(COLOURS[colour], float)
    light = base @ (0.299, 0.587, 0.114)
    return base * 0.42 + 255 * 0.58 if light < 150 else base * 0.62


def grid():
    """(x, y) of the pixel centres."""
    at = np.arange(SIZE) + 0.5
    return np.meshgrid(at, at)


class Canvas:
    """(128, 128, 3) floats 0 to 255 that layers are painted on, each within its own window."""

    def __init__(self, background):
        self.x, self.y = grid()
        self.pixels = np.empty((SIZE, SIZE, 3))
        self.pixels[:] = background

    def window(self, x, y, reach):
        """A slice of the picture that holds everything within `reach` of a point."""
        return tuple(slice(max(0, int(c - reach) - 1), min(SIZE, int(c + reach) + 2)) for c in (y, x))

    def cover(self, window, far, colour):
        """Paints `colour` ((3,) or per pixel) where the distance `far` is negative."""
        share = np.clip(0.5 - far, 0, 1)[..., None]
        self.pixels[window] += share * (np.asarray(colour, float) - self.pixels[window])


def fill_share(thing, x, y):
    """0 where a shape has its own colour, 1 where it has the tint; x and y are pixels from its centre."""
    period = 7.0 + 0.14 * thing.radius
    match thing.fill:
        case "plain":
            return np.zeros_like(x)
        case "striped":
            along = (x + y) / math.sqrt(2) / period + thing.phase
            return np.clip(0.5 + (0.21 - np.abs(along - np.round(along))) * period, 0, 1)
        case "dotted":
            u, v = (x + y) / math.sqrt(2) / period + thing.phase, (x - y) / math.sqrt(2) / period + thing.phase
            return np.clip(0.5 + (0.31 - np.hypot(u - np.round(u), v - np.round(v))) * period, 0, 1)
        case "gradient":
            return np.clip(0.5 + 0.55 * y / thing.radius, 0, 1)
    raise ValueError(thing.fill)


def draw_shape(canvas, thing):
    window = canvas.window(thing.x, thing.y, 1.25 * thing.radius)
    x, y = canvas.x[window] - thing.x, canvas.y[window] - thing.y
    far = distance(thing.shape, x / thing.radius, y / thing.radius) * thing.radius
    base = np.array(COLOURS[thing.colour], float)
    colour = base + fill_share(thing, x, y)[..., None] * (tint(thing.colour) - base)
    canvas.cover(window, far, colour)


def back_hair(cut, x, y):
    """Distance to the hair behind the head."""
    match cut:
        case "short":
            return np.maximum(ellipse(x, y, 0, -0.16, 0.88, 0.92), y - 0.06)
        case "long":
            return np.minimum(ellipse(x, y, 0, -0.12, 1.0, 0.98), box(x, y, -1.0, -0.12, 1.0, 1.08, 0.16))
        case "curly":
            bumps = [circle(x, y, 0.86 * math.cos(a), -0.22 + 0.78 * math.sin(a), 0.31)
                     for a in np.radians(np.linspace(152, 388, 10))]
            return np.minimum.reduce(bumps)
        case "spiky":
            corners = [(0.86, 0.1), (-0.86, 0.1)]
            for i, a in enumerate(np.radians(np.linspace(186, 354, 13))):
                reach = 1.32 if i % 2 else 0.92
                corners.append((reach * 0.92 * math.cos(a), -0.08 + reach * math.sin(a)))
            return polygon(x, y, corners)
    raise ValueError(cut)


INK = (26, 24, 32)


def face_layers(face, x, y):
    """(part, distance) from back to front; x, y and distances in units of the radius from the head's middle."""
    behind = back_hair(face.cut, x, y)
    yield "hair", np.maximum(behind, -0.55 - y) if face.hat else behind
    if face.cut != "long":
        yield "ear", np.minimum(circle(x, y, -0.78, 0.12, 0.15), circle(x, y, 0.78, 0.12, 0.15))
    yield "skin", ellipse(x, y, 0, 0, 0.78, 0.96)
    # The hair over the forehead leaves the same skin free below it in every cut: `judge` measures heads by that.
    sides = 0.62 if face.cut == "long" else 0.0
    fringe = np.maximum(ellipse(x, y, 0, -0.04, 0.81, 0.98), -ellipse(x, y, 0, 0.38, 0.68, 0.84))
    yield "hair", np.maximum(fringe, y - sides)
    # Eyes, mouth and glasses are as bold as they are so that those of small heads pass through a VAE of 8 x 8 cells.
    for side in (-0.32, 0.32):
        yield "eye", ellipse(x, y, side, 0.05, 0.22, 0.24)
        yield "ink", circle(x, y, side, 0.08, 0.14)
    if face.mouth == "smile":
        yield "mouth", np.maximum(np.abs(circle(x, y, 0, 0.3, 0.4)) - 0.095, 0.46 - y)
    else:
        yield "mouth", np.maximum(np.abs(circle(x, y, 0, 0.9, 0.4)) - 0.095, y - 0.76)
    if face.glasses:
        rims = [np.abs(circle(x, y, side, 0.05, 0.27)) - 0.075 for side in (-0.34, 0.34)]
        bars = [segment(x, y, a, 0.0, b, 0.0, 0.065) for a, b in ((-0.08, 0.08), (-0.76, -0.58), (0.58, 0.76))]
        yield "ink", np.minimum.reduce(rims + bars)
    if face.hat:
        yield "hat", box(x, y, -0.6, -1.46, 0.6, -0.55, 0.12)
        yield "band", box(x, y, -0.6, -0.84, 0.6, -0.68)
        yield "hat", box(x, y, -1.06, -0.7, 1.06, -0.5, 0.09)


def face_colours(face):
    """The colour of each part."""
    skin = np.array(SKINS[face.skin], float)
    colours = {"skin": skin, "ear": skin * 0.93, "hair": np.array(HAIR[face.hair], float),
               "eye": np.array((252.0, 252, 252)), "ink": np.array(INK, float), "mouth": np.array((176.0, 24, 44))}
    if face.hat:
        colours |= {"hat": np.array(COLOURS[face.hat], float), "band": tint(face.hat)}
    return colours


def draw_face(canvas, face):
    window = canvas.window(face.x, face.y, 1.6 * face.radius)
    x, y = (canvas.x[window] - face.x) / face.radius, (canvas.y[window] - face.y) / face.radius
    colours = face_colours(face)
    for part, far in face_layers(face, x, y):
        canvas.cover(window, far * face.radius, colours[part])


def draw(scene):
    """(128, 128, 3) uint8."""
    canvas = Canvas(COLOURS[scene.background])
    for thing in scene.things:
        draw_shape(canvas, thing) if isinstance(thing, Shape) else draw_face(canvas, thing)
    return np.clip(canvas.pixels + 0.5, 0, 255).astype(np.uint8)


# --- drawing lots ---------------------------------------------------------------------------------------------------

def held_out(shape, colour, background, position):
    """One combination in ten, fixed for ever. Training never sees these; the judge's prompts are made of them."""
    return zlib.crc32(f"{shape}|{colour}|{background}|{position}".encode()) % 10 == 3


def are_held_out(scene):
    """Of each shape, whether its combination is held out."""
    return [held_out(t.shape, t.colour, scene.background, t.position) for t in scene.shapes]


def far_apart(a, b, least):
    return math.dist(a, b) >= least


def choose(rng, options):
    return options[int(rng.integers(len(options)))]


def place(rng, position, radius, apart=None):
    """(x, y) near a named place, wholly inside the picture. `apart` is the distance from the middle, if given."""
    dx, dy = POSITIONS[position]
    room = SIZE / 2 - 2 - 1.06 * radius
    out = min(apart or 35.0, room) + (rng.uniform(-3, 0) if apart is None or apart > room else rng.uniform(-2, 2))
    jitter = rng.uniform(-4, 4, 2) * (0.4 if apart else 1)
    return (SIZE / 2 + dx * out + (not dx) * jitter[0], SIZE / 2 + dy * out + (not dy) * jitter[1])


def random_shape(rng, background, position, size, apart=None, limit=None):
    shape = choose(rng, SHAPES)
    colour = choose(rng, [name for name in COLOURS if name != background])
    fill = choose(rng, FILLS) if rng.random() < 0.35 else "plain"
    if not far_apart(tint(colour), COLOURS[background], 95):
        fill = "plain"
    low, high = SIZES[size]
    radius = rng.uniform(low, min(high, limit or high))
    x, y = place(rng, position, radius, apart)
    return Shape(shape, colour, fill, size, position, x, y, radius, rng.uniform(0, 1))


def random_face(rng, background, position, radius, size):
    """A head whose parts can be told from each other and from the background."""
    behind = COLOURS[background]
    skin = choose(rng, [name for name in SKINS if far_apart(SKINS[name], behind, 66)])
    hair = choose(rng, [name for name in HAIR
                        if far_apart(SKINS[skin], HAIR[name], 66) and far_apart(HAIR[name], behind, 60)])
    hat = None
    if rng.random() < 0.5:
        hat = choose(rng, [name for name in HATS
                           if name != background and far_apart(COLOURS[name], HAIR[hair], 60)])
    x, y = place(rng, position, 1.15 * radius)
    if size == "large":
        y += 5 if hat else 0
    y = max(y, 1.47 * radius + 2)  # room for hats and spikes
    return Face(skin, hair, choose(rng, CUTS), bool(rng.random() < 0.4), choose(rng, MOUTHS), hat, size, position,
                x, y, radius)


# Faces take longest to learn.
KINDS = {"one": 0.36, "two": 0.15, "three": 0.07, "face": 0.23, "small face": 0.19}
ROWS = (("left", "right"), ("top", "bottom"))


def random_scene(rng, kind=None, held=False):
    """One scene. Those of training (`held` false) have no held-out combination; with `held` true every shape is one."""
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    while True:
        scene = Scene(choose(rng, list(COLOURS)), ())
        scene = replace(scene, things=tuple(random_things(rng, kind, scene.background)))
        combinations = are_held_out(scene)
        if all(combinations) if held else not any(combinations):
            return scene


def random_things(rng, kind, background):
    row = choose(rng, ROWS)
    match kind:
        case "one":
            size = choose(rng, ("small", "medium", "medium", "large"))
            return [random_shape(rng, background, choose(rng, list(POSITIONS)), size)]
        case "two":
            things = [random_shape(rng, background, where, choose(rng, ("small", "medium"))) for where in row]
            return twins(rng, things)
        case "three":
            places = (row[0], "centre", row[1])
            things = [random_shape(rng, background, where, "small", 41.0, 16.5) for where in places]
            return twins(rng, things)
        case "face":
            return [random_face(rng, background, "centre", rng.uniform(33, 39), "large")]
        case "small face":
            if rng.random() < 0.3:
                where = choose(rng, list(POSITIONS))
                return [random_face(rng, background, where, rng.uniform(20, 23), "small")]
            where = [int(i) for i in rng.permutation(2)]
            face = random_face(rng, background, row[where[0]], rng.uniform(20, 23), "small")
            shape = random_shape(rng, background, row[where[1]], choose(rng, ("small", "medium")))
            return [face, shape] if where[0] == 0 else [shape, face]
    raise ValueError(kind)


def twins(rng, things):
    """Now and then all alike, so that "two red circles" has meaning."""
    if rng.random() < 0.25:
        first = things[0]
        things = [replace(t, shape=first.shape, colour=first.colour, fill=first.fill, size=first.size,
                          radius=first.radius) for t in things]
    return things
