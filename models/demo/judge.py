"""Scores a picture against the scene that was asked for, by the generator's own geometry.

`judge` answers yes or no per class: background, count, and for shapes colour, shape, position and fill, each right
only if it is right for every shape; for heads face (is there one), hair, cut, glasses, mouth, hat, skin.
`python judge.py` prints how well it does this on pictures whose contents are known.
"""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
from scipy import ndimage

import captions
import scenes
from scenes import COLOURS, HAIR, HATS, SIZE, SKINS, Face

SMALLEST = 60
CENTRE = 12
# Mean distance in L*a*b* from the mean below which there is no pattern: that of the faintest, a cyan gradient, is 4.4.
FLAT = 3.5
# Mean error of a fitted head below which no other is tried; degraded pictures of the true head have about 20.
CONVINCING = 32


def lab(rgb):
    """(…, 3) sRGB 0 to 255 → CIE L*a*b*."""
    c = np.asarray(rgb, float) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = c @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    xyz = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def nearest(rgb, palette):
    """The name whose colour looks most like this one."""
    names = list(palette)
    far = np.linalg.norm(lab(np.array([palette[name] for name in names])) - lab(rgb), axis=-1)
    return names[int(far.argmin())]


def border(picture):
    """The (3,) median of a frame three pixels wide."""
    rim = np.ones(picture.shape[:2], bool)
    rim[3:-3, 3:-3] = False
    return np.median(picture[rim], axis=0)


def position_of(thing):
    """The named place of whatever has a middle (x, y)."""
    dx, dy = thing.x - SIZE / 2, thing.y - SIZE / 2
    if max(abs(dx), abs(dy)) < CENTRE:
        return "centre"
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "top" if dy < 0 else "bottom"


class Blob:
    """Something that is not background: a mask and where it is."""

    def __init__(self, mask):
        self.mask = mask
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        self.x, self.y = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
        self.area = int(mask.sum())

    def inside(self):
        """The mask without its edge, if anything is left then."""
        for steps in (2, 1):
            core = ndimage.binary_erosion(self.mask, iterations=steps)
            if core.sum() >= 20:
                return core
        return self.mask


def blobs(picture, behind):
    """Every `Blob` of the picture, largest first. Its edge is where the colour is halfway to the background's."""
    far = np.linalg.norm(picture - behind, axis=-1)
    marks, count = ndimage.label(ndimage.binary_fill_holes(far > 34), np.ones((3, 3)))
    found = []
    for index in range(1, count + 1):
        here = marks == index
        strong = here & (far > 34)
        if strong.sum() < SMALLEST:
            continue
        inner = far[ndimage.binary_erosion(here)]
        # Mush may be large and all edge.
        level = 0.5 * np.percentile(inner, 50) if here.sum() > 80 and inner.size else 34
        mask = here & (far > max(30, min(level, 75)))
        if mask.sum() >= SMALLEST:
            found.append(Blob(mask))
    return sorted(found, key=lambda blob: -blob.area)


# --- shapes ---------------------------------------------------------------------------------------------------------

def unit_masks():
    """shape → (area, middle of mass) at radius 1."""
    at = (np.arange(400) + 0.5) / 160 - 1.25
    x, y = np.meshgrid(at, at)
    facts = {}
    for shape in scenes.SHAPES:
        inside = scenes.distance(shape, x, y) < 0
        facts[shape] = inside.sum() / 160 ** 2, x[inside].mean(), y[inside].mean()
    return facts


UNITS = unit_masks()


def likeness(mask, shape, x, y, area, mass):
    """1 for the very mask of a shape with this area and middle of mass, 0 for nothing in common."""
    unit, dx, dy = UNITS[shape]
    radius = (area / unit) ** 0.5
    far = scenes.distance(shape, (x - mass[0]) / radius + dx, (y - mass[1]) / radius + dy) * radius
    made = np.clip(0.5 - far, 0, 1)
    return 1 - np.abs(mask - made).sum() / (mask.sum() + made.sum())


def shape_of(blob):
    """(name, likeness) of the shape whose mask fits best."""
    grid_x, grid_y = scenes.grid()
    rows, columns = np.nonzero(blob.mask.any(1))[0], np.nonzero(blob.mask.any(0))[0]
    window = (slice(max(0, rows[0] - 8), rows[-1] + 9), slice(max(0, columns[0] - 8), columns[-1] + 9))
    mask, x, y = blob.mask[window].astype(float), grid_x[window], grid_y[window]
    mass = (x * mask).sum() / blob.area, (y * mask).sum() / blob.area
    scores = {shape: likeness(mask, shape, x, y, blob.area, mass) for shape in scenes.SHAPES}
    best = max(scores, key=scores.get)
    return best, scores[best]


def along_tint(values, name):
    """(share of the way from colour to tint, distance from that way), both (n,), of Lab values."""
    start, end = lab(COLOURS[name]), lab(scenes.tint(name))
    way = end - start
    share = np.clip((values - start) @ way / (way @ way), 0, 1)
    return share, np.linalg.norm(values - start - share[:, None] * way, axis=-1)


def colour_of(picture, blob, fill):
    """The colour of a shape that should be filled so."""
    pixels = picture[blob.inside()]
    values = lab(pixels)
    # Gray is nearly the tint of white and of black: where there is no pattern it is gray.
    if fill == "plain" or np.linalg.norm(values - values.mean(0), axis=-1).mean() < FLAT:
        return nearest(np.median(pixels, axis=0), COLOURS)
    return min(COLOURS, key=lambda name: along_tint(values, name)[1].mean())


def fill_of(picture, blob, colour):
    core = blob.inside()
    rows, columns = np.nonzero(core)
    values = lab(picture[core])
    # Along the direction from colour to tint, but not held to its ends: a plain colour next to it is still plain.
    start, way = lab(COLOURS[colour]), lab(scenes.tint(colour)) - lab(COLOURS[colour])
    share = (values - start) @ way / (way @ way)
    whole = share.var()
    if whole < 0.17 ** 2:
        return "plain"
    if np.corrcoef(share, rows)[0, 1] ** 2 > 0.6:
        return "gradient"
    diagonal = rows + columns
    counts = np.bincount(diagonal)
    means = np.bincount(diagonal, share) / np.maximum(counts, 1)
    return "striped" if (means[diagonal] - share.mean()).var() / whole > 0.5 else "dotted"


def judge_shapes(picture, found, wanted):
    """Answers for the shapes that were asked for, with the blobs dealt to them in the best way."""
    if not found:
        return {"colour": False, "shape": False, "position": False, "fill": False}
    reads = []
    for blob in found[:5]:
        shape, fit = shape_of(blob)
        reads.append((blob, shape if fit > 0.8 else None))
    best = None
    for order in permutations(range(len(reads)), min(len(wanted), len(reads))):
        right = {"colour": [], "shape": [], "position": [], "fill": []}
        for thing, index in zip(wanted, order):
            blob, shape = reads[index]
            colour = colour_of(picture, blob, thing.fill)
            right["colour"].append(colour == thing.colour)
            right["shape"].append(shape == thing.shape)
            right["position"].append(position_of(blob) == thing.position)
            right["fill"].append(fill_of(picture, blob, thing.colour) == thing.fill)
        score = sum(sum(values) for values in right.values())
        if best is None or score > best[0]:
            best = score, right
    missing = len(reads) < len(wanted)
    return {name: all(values) and not missing for name, values in best[1].items()}


# --- faces ----------------------------------------------------------------------------------------------------------

def face_parts(face, x, y):
    """(n…) names of the parts one sees, "" beside the head."""
    seen = np.full(x.shape, "", dtype="<U5")
    for part, far in scenes.face_layers(face, x, y):
        seen[far < 0] = part
    return seen


TONES = tuple((f"{name} skin",) for name in SKINS)
# Skin drawn between two tones is skin too, and some of it looks most like the colour brown; so is skin drawn too dark.
BETWEEN = (("light skin", "tan skin"), ("tan skin", "brown skin"), ("brown skin", "dark skin", "brown"),
           ("dark skin", "black hair", "brown hair"))


def skin_places(picture, kinds):
    """(tone, x, y, radius) wherever skin has the outline of a face's lower part; `kinds` says what is skin together."""
    names = [*(f"{name} skin" for name in SKINS), *COLOURS, *(f"{name} hair" for name in HAIR), "mouth"]
    palette = np.array([*SKINS.values(), *COLOURS.values(), *HAIR.values(), (176, 24, 44)])
    far = np.linalg.norm(lab(picture)[:, :, None] - lab(palette), axis=-1)
    label = np.where(far.min(-1) < 20, far.argmin(-1), -1)
    for alike in kinds:
        skin = np.isin(label, [names.index(name) for name in alike])
        skin = ndimage.binary_opening(skin, np.ones((2, 2)))
        # Glasses cut a face in two: what lies near belongs together.
        marks, count = ndimage.label(ndimage.binary_dilation(skin, np.ones((3, 3)), iterations=3))
        for index in range(1, count + 1):
            blob = skin & (marks == index)
            area = int(blob.sum())
            if area < 60:
                continue
            rows, columns = np.nonzero(blob)
            middle, chin = (columns.min() + columns.max() + 1) / 2, rows.max() + 1
            # From the hair to the chin; or, where forehead and lenses are lost, from the glasses down.
            for part in (1.42, 1.08, 0.94, 0.78):
                radius = (chin - rows.min()) / part
                if radius >= 10:
                    tone = nearest(np.median(picture[blob], axis=0), SKINS)
                    yield tone, middle, chin - 0.96 * radius, radius, area


class Head:
    """A guess at a head in a picture, made better part by part."""

    def __init__(self, picture, behind, tone, x, y, radius):
        self.picture, self.behind = picture, behind
        self.face = Face(tone, "black", "short", False, "smile", None, "large", "centre", x, y, radius)
        reach = 1.55 * radius
        low = [max(0, int(c - reach)) for c in (y, x)]
        high = [min(SIZE, int(c + reach) + 1) for c in (y, x)]
        self.window = tuple(slice(a, b) for a, b in zip(low, high))
        grid_x, grid_y = scenes.grid()
        self.grid = grid_x[self.window], grid_y[self.window]
        self.pixels = picture[self.window]

    def parts(self, face):
        x, y = self.grid
        return face_parts(face, (x - face.x) / face.radius, (y - face.y) / face.radius)

    def painted(self, face, parts=None):
        """The head as it would be drawn, a little soft, as decoders draw."""
        parts = self.parts(face) if parts is None else parts
        out = np.empty(self.pixels.shape)
        out[:] = self.behind
        for part, colour in scenes.face_colours(face).items():
            out[parts == part] = colour
        return ndimage.gaussian_filter(out, (0.7, 0.7, 0))

    def error(self, face, area=None):
        """Mean difference between picture and guess, in the box (left, top, right, bottom) in radii if given."""
        far = np.abs(self.painted(face) - self.pixels).clip(0, 110).sum(-1)
        if area is None:
            return far.mean()
        x, y = (self.grid[0] - face.x) / face.radius, (self.grid[1] - face.y) / face.radius
        left, top, right, bottom = area
        return far[(x > left) & (x < right) & (y > top) & (y < bottom)].mean()

    def dress(self):
        """Finds cut, hat and both colours together: the guess that leaves the least unexplained."""
        guesses = []
        for cut, hat in product(scenes.CUTS, (None, "red")):
            face = replace(self.face, cut=cut, hat=hat)
            parts = self.parts(face)
            colours = {}
            for part, palette in (("hair", HAIR), ("hat", {name: COLOURS[name] for name in HATS})):
                here = parts == part
                core = ndimage.binary_erosion(here)
                core = core if core.sum() >= 12 else here
                if core.any():
                    colours[part] = nearest(np.median(self.pixels[core], axis=0), palette)
            face = replace(face, hair=colours.get("hair", "black"), hat=hat and colours.get("hat", "red"))
            guesses.append((self.error(face, (-1.3, -1.5, 1.3, 1.1)), face))
        self.face = min(guesses, key=lambda guess: guess[0])[1]

    def features(self):
        guesses = [replace(self.face, glasses=glasses, mouth=mouth)
                   for glasses, mouth in product((False, True), scenes.MOUTHS)]
        self.face = min(guesses, key=lambda face: self.error(face, (-0.75, -0.4, 0.75, 0.9)))

    def settle(self, step):
        """Moves and sizes the guess where that explains more."""
        best = self.error(self.face)
        for change in ({"x": step}, {"x": -step}, {"y": step}, {"y": -step}, {"radius": step}, {"radius": -step}):
            face = replace(self.face, **{name: getattr(self.face, name) + by * self.face.radius
                                         for name, by in change.items()})
            if (error := self.error(face)) < best:
                best, self.face = error, face

    def is_face(self):
        """Whether eyes, and the rest of what makes a face, are where they should be."""
        parts = self.parts(self.face)
        blank = np.where(np.isin(parts, ("eye", "ink", "mouth")), "skin", parts)
        x, y = (self.grid[0] - self.face.x) / self.face.radius, (self.grid[1] - self.face.y) / self.face.radius
        middle = (np.abs(x) < 0.7) & (y > -0.35) & (y < 0.9)

        def error(parts, where):
            return np.abs(self.painted(self.face, parts) - self.pixels).sum(-1)[where].mean()

        eyes = middle & (np.abs(y - 0.05) < 0.24)
        # A guess may have moved out of the picture.
        return (eyes.any() and error(parts, eyes) < 0.72 * error(blank, eyes)
                and error(parts, middle) < 0.8 * error(blank, middle) and self.error(self.face) < 110)


def find_face(picture, behind):
    """The most convincing head of a picture, as a `Face`, or None."""
    # Only where there is no head of one tone: a brown thing beside it may be taken for a worse one.
    return best_face(picture, behind, TONES) or best_face(picture, behind, BETWEEN)


def best_face(picture, behind, kinds):
    found = []
    for tone, x, y, radius, _ in sorted(skin_places(picture, kinds), key=lambda place: -place[-1])[:12]:
        head = Head(picture, behind, tone, x, y, radius)
        head.dress()
        head.features()
        for step in (0.1, 0.06, 0.03):
            head.settle(step)
        head.dress()
        head.features()
        if head.is_face():
            found.append((head.error(head.face), head.face))
            if found[-1][0] < CONVINCING:
                break
    return min(found, key=lambda one: one[0])[1] if found else None


def judge_face(face, wanted):
    """Answers for a head; all are no where there is none."""
    return {"face": face is not None} | {
        name: face is not None and getattr(face, name) == getattr(wanted, name)
        for name in ("hair", "cut", "glasses", "mouth", "hat", "skin")}


# --- the whole picture ----------------------------------------------------------------------------------------------

def judge(picture, scene):
    """Class → right or wrong, for a (128, 128, 3) picture of 0 to 255."""
    picture = np.asarray(picture, float)
    behind = border(picture)
    found = blobs(picture, behind)
    answers = {"background": nearest(behind, COLOURS) == scene.background, "count": len(found) == len(scene.things)}
    face = None
    if scene.face:
        face = find_face(picture, behind)
        answers |= judge_face(face, scene.face)
    if scene.shapes:
        beside = [blob for blob in found if not (face and holds(blob, face))]
        answers |= judge_shapes(picture, beside, scene.shapes)
    if scene.face and scene.face.size == "small":
        place = face is not None and position_of(face) == scene.face.position
        answers["position"] = place and answers.get("position", True)
    return answers


def holds(blob, face):
    return blob.mask[min(SIZE - 1, max(0, int(face.y + 0.5 * face.radius))), min(SIZE - 1, max(0, int(face.x)))]


def tally(answers):
    """Class → share of right answers, over those that were asked."""
    names = dict.fromkeys(name for answer in answers for name in answer)
    return {name: float(np.mean([answer[name] for answer in answers if name in answer])) for name in names}


EXAM = ("one", "one", "one", "two", "face", "one", "one", "small face")


def exam(count, seed=300):
    """`count` scenes to ask for, every shape in them of a combination that training never saw. In every other eight the
    last of several things is the first to be named."""
    found = [scenes.random_scene(np.random.default_rng([seed, i]), EXAM[i % len(EXAM)], held=True)
             for i in range(count)]
    turned = [i // len(EXAM) % 2 and not captions.alike(scene.things) for i, scene in enumerate(found)]
    return [replace(scene, things=scene.things[::-1]) if turn else scene for turn, scene in zip(turned, found)]


def degrade(picture, rng):
    """What a small VAE does to a picture: softer edges, a cast, blotches in 8 x 8 cells, noise."""
    soft = ndimage.gaussian_filter(np.asarray(picture, float), (0.8, 0.8, 0))
    blotches = np.kron(rng.normal(0, 3, (SIZE // 8, SIZE // 8, 3)), np.ones((8, 8, 1)))
    return np.clip(soft + rng.normal(0, 3, 3) + blotches + rng.normal(0, 4, soft.shape), 0, 255).round()


def main():
    """Prints the judge's own marks: true pictures, degraded ones, and pictures of other scenes."""
    count = 400
    wanted = exam(count)
    rng = np.random.default_rng(1)
    pictures = [scenes.draw(scene) for scene in wanted]
    shift = len(EXAM)
    tests = {"true": pictures, "degraded": [degrade(picture, rng) for picture in pictures],
             "wrong": pictures[shift:] + pictures[:shift]}
    marks = {name: tally([judge(p, s) for p, s in zip(test, wanted)]) for name, test in tests.items()}
    for name in marks["true"]:
        print(f"{name:10}", *(f"{test} {marks[test][name]:.4f}" for test in tests))


if __name__ == "__main__":
    main()
