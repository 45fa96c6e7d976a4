"""How much the UNet takes from words: `python words.py FOLDER` prints it for stage 2 of a run folder, finished or not.

The error of its eps with the captions of other scenes, less that with their own, told as a part of the latents'
variance: 0 if words are not read, some 1.2 after a full run (two scenes differ in up to twice the variance of one).
"""

import sys
from pathlib import Path

import numpy as np
import torch

import runs
import sampling
import unet_training

TIMESTEPS = (999, 950, 850, 700)
SCENES = 128


@torch.no_grad()
def main():
    run = runs.Run.reopened(Path(sys.argv[1]), torch.device("cpu"))
    saved = run.load("unet")
    if saved is None:
        raise SystemExit(f"{run.folder} has no unet.pt yet")
    drawer = unet_training.Drawer(len(unet_training.vocabulary_of(run))).eval()
    drawer.load_state_dict(saved["average"])
    # Of the training set: words that are not read from what was seen will not be read from anything.
    found = np.load(run.folder / "latents.npz")
    x0 = torch.from_numpy(found["moments"][-SCENES:, 0]).float()
    own = drawer.context(torch.from_numpy(found["rows"][-SCENES:, 0]).long())
    generator = torch.Generator().manual_seed(0)
    print(f"step {saved['step']}")
    for timestep in TIMESTEPS:
        t = torch.full((len(x0),), timestep)
        products = sampling.alphas_cumprod()
        x, eps, _ = unet_training.noised(x0, t, products, generator)
        errors = [float((drawer.unet(x, t, context).sample - eps).pow(2).mean()) for context in (own, own.roll(1, 0))]
        product = float(products[timestep])
        print(f"timestep {timestep}: {(errors[1] - errors[0]) * (1 - product) / product:.3f}", flush=True)


if __name__ == "__main__":
    main()
