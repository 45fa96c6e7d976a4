"""From where on noise hides what, and whether words then tell it: `python visible.py FILE` prints it for a file.

Two pictures that differ in one thing lie d apart in latents, and noise of deviation sigma hides which of them it is at
d / 2 sigma around 1. There, in the same noise, eps with the one's words less eps with the other's should be the
difference of the pictures: the last number is how much of it is.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import captions
import networks
import pairs
import runs
import sampling
import scenes
import unet_training

PAIRS = 24


def pairs_of(kind):
    """What differs → pairs of scenes by lot."""
    found = {}
    for number in range(PAIRS):
        rng = np.random.default_rng([1, list(scenes.KINDS).index(kind), number])
        scene = scenes.random_scene(rng, kind)
        thing = scene.face or scene.things[0]
        for name, options in pairs.others(scene, thing).items():
            other = pairs.changed(scene, thing, **{name: scenes.choose(rng, options)})
            found.setdefault(name, []).append((scene, other))
    return found


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="what train.py wrote")
    vocabulary = unet_training.make_vocabulary(runs.SEED)
    text, unet, vae = networks.load(parser.parse_args().file, vocabulary)
    products = sampling.alphas_cumprod()
    sigmas = ((1 - products) / products).sqrt()
    for kind in ("one", "face", "small face"):
        for name, both in pairs_of(kind).items():
            latents, contexts = [], []
            for side in zip(*both):
                images = sampling.to_images(np.stack([scenes.draw(scene) for scene in side]), "cpu")
                latents.append(vae.encode(images).latent_dist.mean * networks.SCALE_FACTOR)
                rows = torch.tensor([vocabulary.encode(captions.prompt(scene)) for scene in side])
                contexts.append(text(input_ids=rows).last_hidden_state)
            apart = latents[0] - latents[1]
            half = float(apart.flatten(1).norm(dim=1).median()) / 2
            two, one = (int((half / sigmas < limit).int().argmax()) for limit in (2, 1))
            t = torch.full((len(both),), one)
            noise = torch.randn(apart.shape, generator=torch.Generator().manual_seed(0))
            x = products[one].sqrt() * latents[0] + (1 - products[one]).sqrt() * noise
            told = -sigmas[one] * (unet(x, t, contexts[0]).sample - unet(x, t, contexts[1]).sample)
            share = float((told * apart).sum() / apart.pow(2).sum())
            print(f"{kind}, {name}: d / 2 sigma is 2 at {two}, 1 at {one}; words tell {share:.3f}", flush=True)


if __name__ == "__main__":
    main()
