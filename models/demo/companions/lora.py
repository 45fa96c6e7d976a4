"""A LoRA in kohya's layout: pencil outlines on paper.

For every layer `lora_unet_<path>` or `lora_te_<path>`, dots as underscores, three weights: `lora_down.weight`
(rank, in, …), `lora_up.weight` (out, rank, …) and `alpha`. The layer's weight grows by up · down · alpha / rank.
Linear layers of attention, and, as LoCon does, the convolutions of residual blocks: the model's attention is at
8 × 8 alone, and lines are drawn at 16 × 16.
"""

from functools import partial

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import captions
import data
import judge
import scenes

from . import styles
from .base import Plan, adam, examples, halves, round_to_f16, same, told

RANK, ALPHA = 4, 4
UNET_PARTS = ("attentions", "resnets", "downsamplers", "upsamplers")
TEXT_PARTS = ("self_attn", "mlp")
ABOUT = {"ss_network_module": "networks.lora", "ss_network_dim": str(RANK), "ss_network_alpha": str(ALPHA),
         "ss_network_args": f'{{"conv_dim": "{RANK}", "conv_alpha": "{ALPHA}"}}', "ss_base_model_version": "sd_v1",
         "modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "stable-diffusion-v1/lora",
         "modelspec.title": "pencil", "modelspec.license": "MIT OR Apache-2.0", "modelspec.resolution": "128x128"}


class Pair(torch.nn.Module):
    """What one layer's output grows by."""

    def __init__(self, layer):
        super().__init__()
        if isinstance(layer, torch.nn.Conv2d):
            self.lora_down = torch.nn.Conv2d(layer.in_channels, RANK, layer.kernel_size, layer.stride, layer.padding,
                                             bias=False)
            self.lora_up = torch.nn.Conv2d(RANK, layer.out_channels, 1, bias=False)
        else:
            self.lora_down = torch.nn.Linear(layer.in_features, RANK, bias=False)
            self.lora_up = torch.nn.Linear(RANK, layer.out_features, bias=False)
        torch.nn.init.zeros_(self.lora_up.weight)
        self.register_buffer("alpha", torch.tensor(float(ALPHA)))
        layer.register_forward_hook(self.grow)

    def grow(self, layer, inputs, output):
        return output + self.lora_up(self.lora_down(inputs[0])) * (self.alpha / RANK)


def layers(network, parts):
    """(path, layer) of every layer that is trained."""
    for path, layer in network.named_modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and any(part in path.split(".") for part in parts):
            yield path, layer


def attach(unet, text):
    """New pairs, which change nothing yet, on both networks: {kohya's name of the layer: its pair}."""
    pairs = {f"lora_unet_{path}": Pair(layer) for path, layer in layers(unet, UNET_PARTS)}
    for path, layer in layers(text, TEXT_PARTS):
        # Checkpoints and kohya have this prefix; transformers has lost it on the way.
        pairs[f"lora_te_text_model.{path.removeprefix('text_model.')}"] = Pair(layer)
    return torch.nn.ModuleDict({path.replace(".", "_"): pair for path, pair in pairs.items()})


def draw(seed, number):
    rng = data.scene_rng(seed, number)
    scene = scenes.random_scene(rng)
    return {"picture": styles.pencil(scene),
            "texts": [captions.phrase(rng, scene) for _ in range(data.CAPTIONS_PER_SCENE)]}


class Lora:
    NAME, FOLDER, STAGE = "lora", "Lora", 3
    PLAN = Plan(6_000, 1_500, 32, 5e-3, 0.99, 100, 500, 32)
    SMOKE = Plan(32, 3, 8, 2e-3, 0.5, 3, 3, 4)

    def __init__(self, run, base):
        self.run, self.base = run, base
        self.examples = examples(run, base, run.folder / "pencil.npz", partial(draw, run.seed + 10))
        self.network = attach(base.unet, base.text).to(base.device)
        self.optimiser = adam(self.network, run.plan.rate)

    def advance(self, step):
        one = self.base.samples(self.run, self.STAGE, step, self.examples)
        return told(self.base.guided(self.run, one, self.base.eps), one.eps, one.weight)

    def look(self):
        """How much of the pictures is paper or pencil, and whether the shapes are still those asked for."""
        wanted = judge.exam(self.run.plan.judged)
        pictures = self.base.draw(self.base.rows(map(captions.prompt, wanted)), self.base.eps)
        # Outlines say nothing of colours, and filled in they are no faces and no rings.
        kept = [{name: right for name, right in judge.judge(styles.coloured_in(picture), scene).items()
                 if name in ("shape", "position")}
                for picture, scene in zip(pictures, wanted)
                if not scene.face and all(thing.shape != "ring" for thing in scene.shapes)]
        return pictures, {"pencil": float(np.mean([styles.pencil_share(picture) for picture in pictures])),
                          **judge.tally(kept)}

    def write(self, folder):
        path = folder / "pencil.safetensors"
        round_to_f16(self.network)
        save_file(halves(self.network.state_dict()), path, ABOUT)
        same(load_file(path), self.network.state_dict(), path)
        return [path]
