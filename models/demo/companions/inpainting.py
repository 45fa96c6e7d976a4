"""An inpainting checkpoint: its UNet sees nine channels, which are latents, mask (1 = make anew) and the latents of the
picture with gray under the mask, in this order.

The mask is one pixel for each latent, as nearest interpolation picks it. Where all is masked it draws from words alone.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

import captions
import data
import judge
import sampling
import scenes

from . import small
from .base import Plan, round_to_f16, told
from .masks import latent, random_mask
from .sketches import covered, sketches


class Inpainting:
    NAME, FOLDER, STAGE = "inpainting", "Stable-diffusion", 6
    PLAN = Plan(16_000, 1_500, 64, 0.007, 0.998, 250, 500, 32)
    SMOKE = Plan(32, 3, 8, 0.007, 0.5, 3, 3, 4)

    def __init__(self, run, base):
        self.run, self.base = run, base
        self.examples = sketches(run, base)
        self.network = small.Painter(9).begin_with(base.unet).to(base.device)
        self.optimiser = small.optimiser(self.network, run.plan.rate)

    def advance(self, step):
        one = self.base.samples(self.run, self.STAGE, step, self.examples)
        mean, deviation = self.examples["masked"][one.picked].float().unbind(1)
        masked = mean + deviation * torch.randn(mean.shape, generator=one.generator, device=mean.device)
        mask = self.examples["mask"][one.picked].float()[:, None]
        made = self.base.guided(
            self.run, one, lambda x, t, context: self.network.unet(torch.cat([x, mask, masked], 1), t, context).sample)
        return told(made, self.wanted(one, mask), one.weight)

    @torch.no_grad()
    def wanted(self, one, mask):
        """Where all is masked, what the demo model tells: that has less noise in it than pictures have, so words are
        learned sooner. It knows nothing of masks; with others it is the picture."""
        eps, whole = one.eps.clone(), mask.flatten(1).all(1)
        if whole.any():
            alone = SimpleNamespace(x=one.x[whole], t=one.t[whole], words=one.words[whole])
            eps[whole] = self.base.guided(self.run, alone, self.base.eps)
        return eps

    def tasks(self):
        """(picture, mask, scene wanted): one thing of a scene is to become another of its kind; or draw it all."""
        for number in range(self.run.plan.judged):
            rng = data.scene_rng(self.run.seed + 22, number)
            before = scenes.random_scene(rng, ("one", "two", "face")[number % 3])
            picture = scenes.draw(before)
            old = before.things[0]
            if number % 8 == 7:
                yield picture, np.ones(picture.shape[:2], bool), before
            elif before.face:
                other = replace(old, mouth="frown" if old.mouth == "smile" else "smile", glasses=not old.glasses)
                yield picture, head_mask(old), replace(before, things=(other,))
            else:
                free = [name for name in scenes.SHAPES if name != old.shape]
                colours = [name for name in scenes.COLOURS if name not in (old.colour, before.background)]
                other = replace(old, shape=scenes.choose(rng, free), colour=scenes.choose(rng, colours), fill="plain")
                mask = random_mask(rng, replace(before, things=(old,)), "thing")
                yield picture, mask, replace(before, things=(other, *before.things[1:]))

    def look(self):
        """Whether what was asked for is there, and how near (dB) the rest is to what the VAE alone makes of it."""
        pictures, masks, wanted = zip(*self.tasks())
        masks = np.stack(masks)
        moments = torch.from_numpy(self.base.moments(self.run, sampling.to_images(
            np.stack([covered(picture, mask) for picture, mask in zip(pictures, masks)]), "cpu"))).to(self.base.device)
        beside = torch.cat([torch.from_numpy(latent(masks)).to(self.base.device)[:, None], moments[:, 0].float()], 1)

        def predict(x, t, context):
            return self.network.unet(torch.cat([x, torch.cat([beside] * 2)], 1), t, context).sample

        made = self.base.draw(self.base.rows(map(captions.prompt, wanted)), predict)
        plain = self.base.moments(self.run, sampling.to_images(np.stack(pictures), "cpu"))[:, 0]
        known = decoded(self.base, plain)
        away = [np.square((a[~mask].astype(float) - b[~mask]) / 255).mean()
                for a, b, mask in zip(made, known, masks) if not mask.all()]
        marks = judge.tally([judge.judge(picture, scene) for picture, scene in zip(made, wanted)])
        given = [covered(picture, mask).astype(np.uint8) for picture, mask in zip(pictures, masks)]
        pairs = np.stack([one for pair in zip(given, made) for one in pair])
        return pairs, {"outside_psnr": float(-10 * np.log10(np.mean(away))), **marks}

    def write(self, folder):
        path = folder / f"{self.base.name}-inpainting.safetensors"
        round_to_f16(self.network)
        small.write(path, self.network, self.base, title=path.stem)
        return [path]


def head_mask(face):
    """Around the face, without hair and hat."""
    x, y = scenes.grid()
    return scenes.ellipse((x - face.x) / face.radius, (y - face.y) / face.radius, 0, 0.2, 0.9, 0.9) < 0


@torch.no_grad()
def decoded(base, means):
    images = base.vae.decode(torch.from_numpy(means).float().to(base.device) / base.vae.config.scaling_factor).sample
    return sampling.pixels(images)
