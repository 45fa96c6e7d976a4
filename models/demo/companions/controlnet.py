"""A ControlNet for edges, in the layout of its first authors: the way down of the base's UNet once more, with a stem
that reads the edges (white on black, 0 to 1) and convolutions, zero at first, into the base.
"""

import numpy as np
import torch
from diffusers import ControlNetModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file

import captions
import data
import judge
import networks
import scenes
from optimiser import Muon

from .base import Plan, halves, round_to_f16, same, told
from .edges import agreement, canny
from .sketches import sketches

PREFIX = "control_model."
STEM = "controlnet_cond_embedding."
# Where something enters or leaves: these stay with AdamW.
EDGES = ("conv_in", "conv_out", "controlnet_down_blocks", "controlnet_mid_block")
ABOUT = {"format": "pt", "modelspec.sai_model_spec": "1.0.1",
         "modelspec.architecture": "stable-diffusion-v1/controlnet", "modelspec.title": "latentd-demo edges",
         "modelspec.license": "MIT OR Apache-2.0"}


def control_key(key, blocks):
    """The name, below `control_model.`, of a diffusers weight."""
    leaf = key.rsplit(".", 1)[-1]
    if key.startswith(STEM):
        match key.removeprefix(STEM).split("."):
            # The stem is one row of convolutions with activations between: 0, 2, … 14.
            case ["conv_in", _]:
                return f"input_hint_block.0.{leaf}"
            case ["blocks", at, _]:
                return f"input_hint_block.{2 + 2 * int(at)}.{leaf}"
            case ["conv_out", _]:
                return f"input_hint_block.14.{leaf}"
    if key.startswith("controlnet_down_blocks."):
        return f"zero_convs.{key.split('.')[1]}.0.{leaf}"
    if key.startswith("controlnet_mid_block."):
        return f"middle_block_out.0.{leaf}"
    return networks.unet_key(key, blocks)


def hints(packed):
    """(n, 128, 16) packed bits → (n, 3, 128, 128) of 0 and 1."""
    bits = np.unpackbits(packed.cpu().numpy(), axis=-1)
    return torch.from_numpy(bits).to(packed.device).float()[:, None].expand(-1, 3, -1, -1)


class ControlNet:
    NAME, FOLDER, STAGE = "controlnet", "ControlNet", 8
    PLAN = Plan(16_000, 1_500, 32, 0.01, 0.998, 250, 500, 32)
    SMOKE = Plan(32, 3, 8, 0.01, 0.5, 3, 3, 4)

    def __init__(self, run, base):
        self.run, self.base = run, base
        self.examples = sketches(run, base)
        self.network = ControlNetModel.from_unet(base.unet).to(base.device).requires_grad_(True)
        if base.device.type == "cpu":
            self.network.set_attn_processor(AttnProcessor())
        self.optimiser = Muon(self.network, run.plan.rate, lambda name: any(edge in name for edge in EDGES))

    def eps(self, x, t, context, hint):
        down, middle = self.network(x, t, context, controlnet_cond=hint, return_dict=False)
        return self.base.unet(x, t, context, down_block_additional_residuals=down,
                              mid_block_additional_residual=middle).sample

    def advance(self, step):
        one = self.base.samples(self.run, self.STAGE, step, self.examples)
        hint = hints(self.examples["edges"][one.picked])
        made = self.base.guided(self.run, one, lambda *inputs: self.eps(*inputs, hint))
        return told(made, one.eps, one.weight)

    def look(self):
        """Prompts without places and sizes: these can come from the edges alone."""
        wanted = []
        for number in range(self.run.plan.judged):
            rng = data.scene_rng(self.run.seed + 23, number)
            scene = scenes.random_scene(rng, "one")
            wanted.append(scene if number % 4 else scenes.random_scene(rng, "face"))
        given = np.stack([canny(scenes.draw(scene)) for scene in wanted])
        hint = hints(torch.from_numpy(np.packbits(given, -1)).to(self.base.device))
        texts = [captions.prompt(scene) if scene.face else captions.short_prompt(scene.shapes[0], scene.background)
                 for scene in wanted]
        pictures = self.base.draw(self.base.rows(texts), lambda x, t, context: self.eps(
            x, t, context, torch.cat([hint] * 2)))
        fit = float(np.mean([agreement(canny(picture), edges) for picture, edges in zip(pictures, given)]))
        shown = np.repeat(given[..., None], 3, -1).astype(np.uint8) * 255
        pairs = np.stack([one for pair in zip(shown, pictures) for one in pair])
        return pairs, {"edges": fit, **judge.tally([judge.judge(p, s) for p, s in zip(pictures, wanted)])}

    def write(self, folder):
        path = folder / f"control_{self.base.name}_canny.safetensors"
        round_to_f16(self.network)
        blocks = networks.SIZES.unet_blocks
        own = self.network.state_dict()
        state = {PREFIX + control_key(key, blocks): value for key, value in own.items()}
        save_file(halves(state), path, ABOUT)
        same(convert_controlnet_checkpoint(load_file(path), dict(self.network.config)), own, path)
        return [path]
