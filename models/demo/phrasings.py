"""Captions in an order of words that training's never have, each with one that says the same in theirs.

In training's captions the left one of several things comes before the right one, the upper before the lower, and the
background comes last: a model may go by that order and never read "left". So the last stage asks that the first kind of
caption be read as the second is.
"""

from functools import partial

import captions
import data
import drawn
import scenes
from captions import PLACE_WORDS, article, choose, join, listing

CAPTIONS_PER_SCENE = 3
KINDS = {"one": 0.25, "two": 0.4, "three": 0.1, "face": 0.05, "small face": 0.2}
# What can stand before a thing: "centered a red circle" nobody says.
FIRST_WORDS = {place: words[:3] for place, words in PLACE_WORDS.items()}


def couple(rng, scene):
    """(a caption as training has them, one by lot that says the same otherwise)."""
    things = list(scene.things)
    colour = captions.word(rng, captions.COLOUR_WORDS, scene.background)
    if captions.alike(things):
        known = other = captions.subject(rng, scene)
        front = True
    else:
        words = [captions.thing_words(rng, thing) for thing in things]
        # The place of a thing alone may be left open, and a large head has none.
        placed = len(things) > 1 or (not scene.face and rng.random() < 0.5)
        known = listing([join([said, choose(rng, PLACE_WORDS[thing.position]) if placed else ""])
                         for said, thing in zip(words, things)])
        other = otherwise(rng, things, words, placed)
        front = rng.random() < 0.4 or len(things) == 1
    known = f"{known} on {article(colour)} background"
    if not front:
        return known, other + captions.background_words(rng, scene)
    fronts = (f"on {article(colour)} background, {other}", f"on {article(colour)} background {other}",
              f"{colour} background, {other}", f"{article(colour)} background with {other}",
              f"on {colour}, {other}", f"in front of {article(colour)} background {other}")
    return known, choose(rng, fronts)


def otherwise(rng, things, words, placed):
    """The things in an order by lot; the place of one of two may be left open."""
    if not placed:
        return words[0]
    if len(things) == 2 and rng.random() < 0.25:
        first = int(rng.integers(2))
        return join([words[first], choose(rng, captions.RELATION[things[first].position]), words[1 - first]])
    order = [int(i) for i in rng.permutation(len(things))]
    open_one = order[int(rng.integers(2))] if len(things) == 2 and rng.random() < 0.25 else None
    front = rng.random() < 0.35
    parts = []
    for i in order:
        place = choose(rng, (FIRST_WORDS if front else PLACE_WORDS)[things[i].position]) if i != open_one else ""
        parts.append(join([place, words[i]] if front else [words[i], place]))
    return listing(parts)


def draw(seed, number):
    """(the picture, captions as training has them and the same ones otherwise)."""
    rng = data.scene_rng(seed, number)
    scene = scenes.random_scene(rng, str(rng.choice(list(KINDS), p=list(KINDS.values()))))
    return scenes.draw(scene)[None], list(zip(*(couple(rng, scene) for _ in range(CAPTIONS_PER_SCENE))))


def latents(path, count, seed, workers, encode, vocabulary):
    """Moments (count, 1, 2, 4, 16, 16) f16 and rows (count, 2, 3, 77) uint8: as training has them, otherwise."""
    return drawn.latents(path, count, partial(draw, seed), workers, encode, vocabulary)


if __name__ == "__main__":
    for number in range(12):
        for known, other in zip(*draw(0, number)[1]):
            print(f"{known}\n    {other}")
