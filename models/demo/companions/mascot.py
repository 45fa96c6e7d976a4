"""The mascot that the embedding's word stands for: what it looks like, scenes with it, and how they are asked for."""

from dataclasses import replace

import captions
import scenes
from scenes import COLOURS, HAIR, SKINS, Face

WORD = "zippy"
LOOK = {"skin": "tan", "hair": "green", "cut": "spiky", "glasses": True, "mouth": "smile", "hat": "purple"}


def mascot_scene(rng):
    """A scene with the mascot in it, on a background that hides no part of it."""
    while True:
        scene = scenes.random_scene(rng, "face" if rng.random() < 0.5 else "small face")
        behind = COLOURS[scene.background]
        if (scene.background != LOOK["hat"] and scenes.far_apart(HAIR[LOOK["hair"]], behind, 60)
                and scenes.far_apart(SKINS[LOOK["skin"]], behind, 66)):
            break
    # A large head without a hat was placed higher than one with.
    lower = 5 if scene.face.size == "large" and scene.face.hat is None else 0
    return replace(scene, things=tuple(
        replace(thing, **LOOK, y=thing.y + lower) if isinstance(thing, Face) else thing for thing in scene.things))


def prompt(scene):
    """What asks for a scene by the word alone: it says all of the head."""
    place = "" if scene.face.size == "large" else captions.PLACE_WORDS[scene.face.position][0]
    size = "small" if scene.face.size == "small" else ""
    mascot = captions.join([size, WORD, place])
    rest = [captions.shape_prompt(thing, True) for thing in scene.shapes]
    return f"{captions.listing([mascot, *rest])} on {captions.article(scene.background)} background"
