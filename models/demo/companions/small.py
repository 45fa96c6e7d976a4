"""Whole checkpoints with a smaller UNet, which begins as a part of the demo model's: every second channel of the inner
level. Text encoder and VAE are the demo model's.
"""

from dataclasses import replace

import torch

import networks
from optimiser import Muon

# As wide as the base where latents enter and leave: with less, GroupNorm has two channels a group there.
SIZES = replace(networks.SIZES, unet_channels=(96, 64))
LARGEST_FILE = 12_000_000


class Painter(torch.nn.Module):
    """What is trained; the name `unet` tells the optimiser which layers are edges."""

    def __init__(self, in_channels):
        super().__init__()
        self.unet = networks.make_unet(SIZES, in_channels)

    @torch.no_grad()
    def begin_with(self, unet):
        """Takes over the weights of a wider UNet, without the channels that are too many. Inputs that it does not have,
        mask and masked latents, have no effect at first."""
        wider = unet.state_dict()
        for name, own in self.unet.state_dict().items():
            weight = wider[name]
            for axis, size in enumerate(own.shape):
                if size < weight.shape[axis]:
                    weight = weight.index_select(axis, kept(weight.shape[axis], size).to(weight.device))
            own.zero_()[tuple(map(slice, weight.shape))] = weight
        return self


def kept(before, after):
    """Which of `before` channels go on: of those that are too many and as many more every second one, and all the rest.
    So half of every head is left, and half of every norm's group but where a narrower level is concatenated with an equal
    one: there each keeps its place, and groups are cut anew."""
    return torch.cat([torch.arange(0, 2 * (before - after), 2), torch.arange(2 * (before - after), before)])


def optimiser(painter, rate):
    return Muon(painter, rate, networks.is_edge)


def write(path, painter, base, **about):
    """Writes the checkpoint; `networks.export` reads it back with diffusers' converter."""
    networks.export(path, base.text, painter.unet, base.vae, base.vocabulary, SIZES,
                    networks.ABOUT | {f"modelspec.{name}": value for name, value in about.items()}, LARGEST_FILE)
