"""What words should make of the one thing that a pair of scenes differs in.

In the same noise, at the same moment of drawing, the one picture's eps less the other's is known: signal / level times
the difference of their latents, with the other sign. Asked for it, the UNet learns what a word is for without the noise
of all the rest of the picture. The README has the figures.
"""

import torch

# The distance between a pair's latents, halved, as a multiple of the noise's deviation: with less all is hidden, with
# more nothing.
HARDEST, EASIEST = 0.35, 2.0


def batch_of(moments, rows, products, last, count, generator):
    """(latents (2, count, 4, 16, 16), timesteps (count,), words (2, count, 77)) of pairs by lot, each at a timestep
    up to `last` where noise half hides what differs."""
    device = moments.device
    picked = torch.randint(len(rows), (count,), generator=generator, device=device)
    spoken = torch.randint(rows.shape[2], (count,), generator=generator, device=device)
    words = rows[picked, :, spoken].long().transpose(0, 1)
    mean, deviation = moments[picked].float().unbind(2)
    noise = torch.randn(count, 1, *mean.shape[2:], generator=generator, device=device)
    x0 = (mean + deviation * noise).transpose(0, 1)
    apart = (x0[0] - x0[1]).flatten(1).norm(dim=1)
    part = torch.rand(count, generator=generator, device=device)
    ratio = HARDEST * (EASIEST / HARDEST) ** part
    sigmas = ((1 - products) / products).sqrt()
    t = torch.searchsorted(sigmas, apart / (2 * ratio)).clamp(max=last)
    return x0, t, words


def error(first, second, x0, t, products):
    """How far eps told with either's words in the same noise are from differing as they should: 0 is right, 1 is as
    if words were not read, and more if they are read wrongly."""
    product = products[t][:, None, None, None]
    wanted = -(product / (1 - product)).sqrt() * (x0[0] - x0[1])
    error = (first - second - wanted).pow(2).flatten(1).sum(1)
    return (error / wanted.pow(2).flatten(1).sum(1).clamp(min=1e-6)).mean()
