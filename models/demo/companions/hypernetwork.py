"""A hypernetwork in A1111's layout: all in the colours of autumn.

For each width that attention has inside, two small networks, shared by all layers of that width: one changes what
keys are made from, the other what values are made from; x becomes x + network(x). The file, a pickle, has the width
as a number → (state of the one for keys, state of the one for values), and beside these how they are built.
"""

from copy import deepcopy
from functools import partial

import torch

import captions
import data
import judge
import scenes

from . import pickles, styles
from .base import Plan, adam, examples, round_to_f16, same, told

STRUCTURE = [1, 2, 1]


class Side(torch.nn.Module):
    """x + network(x)."""

    def __init__(self, width):
        super().__init__()
        inner = [width * factor for factor in STRUCTURE]
        self.linear = torch.nn.Sequential(
            torch.nn.Linear(inner[0], inner[1]), torch.nn.ReLU(), torch.nn.Linear(inner[1], inner[2]))
        for layer in self.linear[::2]:
            torch.nn.init.normal_(layer.weight, std=0.01)
            torch.nn.init.zeros_(layer.bias)

    def forward(self, x):
        return x + self.linear(x)


def attach(unet):
    """Puts new networks before every key and value of the UNet: {width: [for keys, for values]}."""
    sides = torch.nn.ModuleDict()
    for path, layer in unet.named_modules():
        which = {"to_k": 0, "to_v": 1}.get(path.rsplit(".", 1)[-1])
        if which is None:
            continue
        width = str(layer.in_features)
        if width not in sides:
            sides[width] = torch.nn.ModuleList([Side(layer.in_features), Side(layer.in_features)])
        layer.register_forward_pre_hook(partial(change, sides[width][which]))
    return sides


def change(side, layer, inputs):
    return (side(inputs[0]),)


def draw(seed, number):
    """A picture in warm colours, and captions that name those it would have had."""
    rng = data.scene_rng(seed, number)
    while True:
        scene = scenes.random_scene(rng)
        if warm := styles.autumn(scene):
            break
    return {"picture": scenes.draw(warm), "texts": [captions.phrase(rng, scene) for _ in range(data.CAPTIONS_PER_SCENE)]}


class Hypernetwork:
    NAME, FOLDER, STAGE = "hypernetwork", "hypernetworks", 5
    PLAN = Plan(6_000, 1_500, 32, 2e-3, 0.99, 100, 500, 32)
    SMOKE = Plan(32, 3, 8, 2e-3, 0.5, 3, 3, 4)

    def __init__(self, run, base):
        self.run, self.base = run, base
        self.examples = examples(run, base, run.folder / "autumn.npz", partial(draw, run.seed + 12))
        self.network = attach(base.unet).to(base.device)
        self.optimiser = adam(self.network, run.plan.rate)

    def advance(self, step):
        one = self.base.samples(self.run, self.STAGE, step, self.examples)
        return told(self.base.guided(self.run, one, self.base.eps), one.eps, one.weight)

    def look(self):
        """Whether what is asked for in other colours comes in those of autumn."""
        wanted = [(scene, styles.autumn(scene)) for scene in judge.exam(self.run.plan.judged)]
        wanted = [(scene, warm) for scene, warm in wanted if warm not in (None, scene)]
        pictures = self.base.draw(self.base.rows(captions.prompt(scene) for scene, _ in wanted), self.base.eps)
        return pictures, judge.tally([judge.judge(picture, warm) for picture, (_, warm) in zip(pictures, wanted)])

    def write(self, folder):
        path = folder / "autumn.pt"
        round_to_f16(self.network)
        # Ordered dictionaries as modules give them, for that is what the files in the world hold.
        state = {int(width): tuple(deepcopy(side).cpu().half().state_dict() for side in sides)
                 for width, sides in sorted(self.network.items(), key=lambda item: int(item[0]))}
        pickles.save(state | {
            "step": self.run.plan.steps, "name": path.stem, "layer_structure": STRUCTURE, "activation_func": "relu",
            "is_layer_norm": False, "weight_initialization": "Normal", "sd_checkpoint": self.base.short_hash,
            "sd_checkpoint_name": self.base.name, "activate_output": False, "use_dropout": False,
            "dropout_structure": [0, 0, 0], "last_layer_dropout": False, "optional_info": None}, path)
        found = torch.load(path, weights_only=True)
        for width, sides in self.network.items():
            for side, weights in zip(sides, found[int(width)], strict=True):
                same(weights, side.state_dict(), path)
        return [path]
