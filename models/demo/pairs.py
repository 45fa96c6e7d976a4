"""Pairs of scenes that differ in one thing, and the training set made of them: see `contrast.py`."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np

import captions
import data
import drawn
import scenes
from scenes import COLOURS, HAIR, SKINS, far_apart

CAPTIONS_PER_PAIR = 4
# "a red hat" instead of "no hat", "striped" instead of nothing.
MOST_APART = 4
TRIES = 60
# What differs: things that are hard to see, and so to learn, are asked for more often.
CHANCES = {"mouth": 3, "shape": 3, "fill": 2, "colour": 1, "cut": 1, "glasses": 1, "hat": 1, "hair": 1, "skin": 1}


def others(scene, thing):
    """What of a thing may be different → the values it may have, by the rules that scenes are made by."""
    behind = COLOURS[scene.background]
    if isinstance(thing, scenes.Shape):
        pale = [name for name in COLOURS if not far_apart(scenes.tint(name), behind, 95)]
        colours = [name for name in COLOURS if name != scene.background and (thing.fill == "plain" or name not in pale)]
        fills = ("plain",) if thing.colour in pale else scenes.FILLS
        found = {"shape": scenes.SHAPES, "colour": colours, "fill": fills}
    else:
        hat = COLOURS.get(thing.hat, (-999,) * 3)
        found = {
            "cut": scenes.CUTS, "glasses": (False, True), "mouth": scenes.MOUTHS,
            "hat": (None, *(name for name in scenes.HATS
                            if name != scene.background and far_apart(COLOURS[name], HAIR[thing.hair], 60))),
            "hair": [name for name in HAIR if far_apart(SKINS[thing.skin], HAIR[name], 66)
                     and far_apart(HAIR[name], behind, 60) and far_apart(hat, HAIR[name], 60)],
            "skin": [name for name in SKINS if far_apart(SKINS[name], behind, 66)
                     and far_apart(SKINS[name], HAIR[thing.hair], 66)]}
    found = {name: [value for value in values if value != getattr(thing, name)] for name, values in found.items()}
    return {name: values for name, values in found.items() if values}


def changed(scene, thing, **to):
    return replace(scene, things=tuple(replace(one, **to) if one is thing else one for one in scene.things))


def random_pair(rng):
    """Two scenes, neither of which is held out."""
    while True:
        scene = scenes.random_scene(rng)
        # Of a scene with a face mostly that.
        thing = scene.face if scene.face and rng.random() < 0.8 else scenes.choose(rng, scene.things)
        options = others(scene, thing)
        chances = np.array([CHANCES[name] for name in options], float)
        name = list(options)[int(rng.choice(len(options), p=chances / chances.sum()))]
        other = changed(scene, thing, **{name: scenes.choose(rng, options[name])})
        if not any(scenes.are_held_out(other)):
            return scene, other


def draw(seed, number):
    """(two pictures, for each scene captions, which are the same words but for what differs)."""
    both = random_pair(data.scene_rng(seed, number))
    return np.stack([scenes.draw(scene) for scene in both]), list(zip(*captions_of(seed, number, both)))


def captions_of(seed, number, both):
    """Pairs of captions. One may tell of something that the other leaves out, or neither of what differs: these are not
    taken, so sooner or later the plain prompts are."""
    taken = []
    for attempt in range(TRIES):
        first, second = (captions.phrase(np.random.default_rng([seed, number, attempt]), scene) for scene in both)
        if 0 < words_apart(first, second) <= MOST_APART:
            taken.append((first, second))
        if len(taken) == CAPTIONS_PER_PAIR:
            return taken
    return taken + [tuple(map(captions.prompt, both))] * (CAPTIONS_PER_PAIR - len(taken))


def words_apart(first, second):
    """How many words the one has and the other has not."""
    first, second = (Counter(text.replace(",", "").split()) for text in (first, second))
    return ((first - second) + (second - first)).total()


def latents(path, count, seed, workers, encode, vocabulary):
    """Moments (count, 2, 2, 4, 16, 16) f16, the first axis after `count` being the scene, and rows of captions
    (count, 2, 4, 77) uint8."""
    return drawn.latents(path, count, partial(draw, seed), workers, encode, vocabulary)
