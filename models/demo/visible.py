"""From where on noise hides what: `python visible.py FILE` prints, for a finished file's VAE, the table of the README.

Two pictures that differ in one thing lie d apart in latents, and noise of deviation sigma hides which of them it is at
d / 2 sigma around 1.
"""

import sys
from dataclasses import replace

import numpy as np
import torch

import networks
import sampling
import scenes
import tokens
import train


def changes(thing):
    """What of a thing may be another → what it may be."""
    if isinstance(thing, scenes.Shape):
        return {"shape": scenes.SHAPES}
    return {"cut": scenes.CUTS, "glasses": (False, True), "hat": (None, *scenes.HATS), "hair": scenes.HAIR,
            "skin": scenes.SKINS, "mouth": scenes.MOUTHS}


def pairs(kind):
    """(what differs, scene, scene) by lot."""
    rng = np.random.default_rng([1, list(scenes.KINDS).index(kind)])
    for _ in range(24):
        scene = scenes.random_scene(rng, kind)
        thing = scene.face or scene.things[0]
        for name, options in changes(thing).items():
            options = [one for one in options if one != getattr(thing, name)]
            other = replace(thing, **{name: scenes.choose(rng, options)})
            yield name, scene, replace(scene, things=tuple(other if one is thing else one for one in scene.things))


@torch.no_grad()
def main():
    _, _, vae = networks.load(sys.argv[1], networks.Vocabulary({tokens.START, tokens.END}))
    products = sampling.alphas_cumprod()
    sigmas = ((1 - products) / products).sqrt()
    for kind in ("one", "face", "small face"):
        apart = {}
        for name, *both in pairs(kind):
            images = train.to_images(np.stack([scenes.draw(scene) for scene in both]), "cpu")
            first, second = vae.encode(images).latent_dist.mean * networks.SCALE_FACTOR
            apart.setdefault(name, []).append(float((first - second).norm()))
        for name, values in apart.items():
            half = float(np.median(values)) / 2
            two, one = (int((half / sigmas < limit).int().argmax()) for limit in (2, 1))
            print(f"{kind}, {name}: d / 2 sigma is 2 at {two}, 1 at {one}", flush=True)


if __name__ == "__main__":
    main()
