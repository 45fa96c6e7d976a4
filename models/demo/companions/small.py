"""Whole checkpoints with a smaller UNet, trained from nothing; text encoder and VAE are the demo model's."""

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


def optimiser(painter, rate):
    return Muon(painter, rate, networks.is_edge)


def write(path, painter, base, **about):
    """Writes the checkpoint; `networks.export` reads it back with diffusers' converter."""
    networks.export(path, base.text, painter.unet, base.vae, base.vocabulary, SIZES,
                    networks.ABOUT | {f"modelspec.{name}": value for name, value in about.items()}, LARGEST_FILE)
