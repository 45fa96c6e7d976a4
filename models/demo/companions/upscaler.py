"""An upscaler in the layout of the compact Real-ESRGAN (`SRVGGNetCompact`): drawings and words, four times as large.

`body.0`, `body.2`, … are convolutions, those between `PReLU`s; the last makes 4 × 4 pixels of each, which are added to
the picture's own, enlarged by nearest neighbour. Programs that read the real files read this one.
"""

from functools import partial

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import data
from optimiser import Muon

from . import patches
from .base import Plan, halves, made_from, round_to_f16, same

WIDTH, INNER = 24, 7
SIDE, CROP = 192, 128
ABOUT = {"modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "real-esrgan-compact",
         "modelspec.title": "latentd-demo-x4", "modelspec.license": "MIT OR Apache-2.0"}


class Compact(torch.nn.Module):
    """(n, 3, h, w) in [0, 1] → (n, 3, 4h, 4w)."""

    def __init__(self):
        super().__init__()
        row = [torch.nn.Conv2d(3, WIDTH, 3, padding=1), torch.nn.PReLU(WIDTH)]
        for _ in range(INNER):
            row += [torch.nn.Conv2d(WIDTH, WIDTH, 3, padding=1), torch.nn.PReLU(WIDTH)]
        last = torch.nn.Conv2d(WIDTH, 3 * patches.SCALE ** 2, 3, padding=1)
        torch.nn.init.normal_(last.weight, std=0.02)
        torch.nn.init.zeros_(last.bias)
        self.body = torch.nn.ModuleList([*row, last])

    def forward(self, x):
        h = x
        for layer in self.body:
            h = layer(h)
        return (torch.nn.functional.pixel_shuffle(h, patches.SCALE)
                + torch.nn.functional.interpolate(x, scale_factor=patches.SCALE, mode="nearest"))


def is_edge(name):
    return name.startswith(("body.0.", f"body.{2 * INNER + 2}."))


def turned(pictures, how):
    """One of eight ways to lay a picture down, of (n, 3, h, w)."""
    pictures = pictures.flip(-1) if how & 1 else pictures
    pictures = pictures.flip(-2) if how & 2 else pictures
    return pictures.mT if how & 4 else pictures


class Upscaler:
    NAME, FOLDER, STAGE = "upscaler", "ESRGAN", 9
    PLAN = Plan(4_000, 4_000, 16, 1e-2, 0.995, 100, 1_000, 48)
    SMOKE = Plan(32, 3, 8, 1e-2, 0.5, 3, 3, 8)

    def __init__(self, run, base):
        self.run, self.device = run, base.device
        self.large, self.small = pairs(run)
        self.network = Compact().to(base.device, memory_format=torch.channels_last)
        self.optimiser = Muon(self.network, run.plan.rate, is_edge, adam_rate=2e-3)

    def advance(self, step):
        rng, _ = self.run.generators(self.STAGE, step)
        small, large, crop = [], [], CROP // patches.SCALE
        for number in rng.integers(len(self.large), size=self.run.plan.batch // self.run.team.size):
            y, x = rng.integers(SIDE // patches.SCALE - crop + 1, size=2)
            low = self.small[number, y:y + crop, x:x + crop]
            high = self.large[number, patches.SCALE * y:patches.SCALE * y + CROP,
                              patches.SCALE * x:patches.SCALE * x + CROP]
            # In other colours: channels change places, and each is as bright and as strong as it comes.
            order, gain = rng.permutation(3), rng.uniform(0.4, 1, 3) * rng.choice([-1, 1])
            floor = np.where(gain < 0, rng.uniform(-gain, 1), rng.uniform(0, 1 - np.abs(gain)))
            both = [torch.from_numpy((one[..., order] / 255 * gain + floor).astype(np.float32)).permute(2, 0, 1)
                    for one in (low, high)]
            low, high = (turned(one, int(number + step) % 8) for one in both)
            small.append(low)
            large.append(high)
        small, large = (torch.stack(some).to(self.device, memory_format=torch.channels_last)
                        for some in (small, large))
        squares = (self.network(small) - large).pow(2)
        # Most of a drawing is flat, where doing nothing is right: the absolute error of all of it would stay there.
        loss = (squares.mean((1, 2, 3)) + 1e-6).sqrt().mean()
        return loss, {"loss": loss, "squares": squares.mean()}

    def enlarge(self, pictures):
        """(n, h, w, 3) uint8 → (n, 4h, 4w, 3) uint8."""
        x = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float() / 255
        made = torch.cat([self.network(one[None]) for one in x])
        return (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    def look(self):
        """How near held-out pictures come, beside what programs do without a network."""
        large, small = patches.exam(self.run.plan.judged)
        made = self.enlarge(small)
        others = {how.name.lower(): np.stack([patches.larger(picture, how) for picture in small])
                  for how in (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC)}
        marks = {"psnr": made, **{f"{name}_psnr": pictures for name, pictures in others.items()}}
        middle = (slice(None), slice(80, 176), slice(80, 176))
        shown = np.concatenate([one[middle] for one in (others["lanczos"], made, large)], 1)
        return shown, {name: float(patches.psnr(found, large).mean()) for name, found in marks.items()}

    def write(self, folder):
        path = folder / "latentd-demo-x4.safetensors"
        round_to_f16(self.network)
        save_file(halves(self.network.state_dict()), path, ABOUT)
        same(load_file(path), self.network.state_dict(), path)
        return [path]


def pairs(run):
    """The training set: pictures (n, 192, 192, 3) and smaller ones (n, 48, 48, 3), uint8, made if they are not there."""
    path, count, source = run.folder / "patches.npz", run.plan.scenes, made_from(run, patches.pair)
    with run.team.leader_first():
        if not path.exists():
            with data.pool(run.workers) as pool:
                made = pool.map(partial(patches.pair, SIDE, run.seed + 16), range(count), 64)
            large, small = map(np.stack, zip(*made))
            data.save(path, lambda file: np.savez(file, large=large, small=small, made_from=np.array(source)))
    found = np.load(path)
    if len(found["large"]) != count or str(found["made_from"]) != source:
        raise ValueError(f"{path} was made by another program or plan; remove it to make it anew")
    return found["large"], found["small"]
