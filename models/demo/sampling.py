"""Drawing during training, as the engine will: scaled-linear betas, "Automatic" schedule, Euler a, cfg."""

import numpy as np
import torch

from networks import SCALE_FACTOR

STEPS = 1000


def alphas_cumprod():
    """(1000,) float32."""
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def schedule(steps):
    """(timesteps, sigmas with a last 0), both falling; timesteps may lie between two."""
    products = alphas_cumprod()
    log_sigmas = ((1 - products) / products).sqrt().log()
    times = torch.linspace(STEPS - 1, 0, steps)
    low = times.floor().long()
    high = (low + 1).clamp(max=STEPS - 1)
    part = times - low
    return times, torch.cat([((1 - part) * log_sigmas[low] + part * log_sigmas[high]).exp(), torch.zeros(1)])


@torch.no_grad()
def draw(unet, vae, contexts, empty, steps=20, cfg=6.0, seed=0):
    """Contexts (n, 77, width) and the one of "" → pictures (n, 128, 128, 3) uint8."""
    device, count = contexts.device, len(contexts)
    noise = torch.Generator().manual_seed(seed)

    def fresh():
        return torch.randn(count, 4, 16, 16, generator=noise).to(device)

    times, sigmas = schedule(steps)
    both = torch.cat([contexts, empty.expand(count, -1, -1)])
    x = fresh() * sigmas[0]
    for t, sigma, after in zip(times.tolist(), sigmas[:-1].tolist(), sigmas[1:].tolist()):
        scaled = x / (sigma ** 2 + 1) ** 0.5
        eps = unet(torch.cat([scaled] * 2), torch.full((2 * count,), t, device=device), both).sample
        wanted, unwanted = eps.chunk(2)
        eps = unwanted + cfg * (wanted - unwanted)
        up = min(after, (after ** 2 * (sigma ** 2 - after ** 2) / sigma ** 2) ** 0.5)
        down = (after ** 2 - up ** 2) ** 0.5
        x = x + eps * (down - sigma) + fresh() * up
    return pixels(vae.decode(x / SCALE_FACTOR).sample)


def pixels(images):
    """(n, 3, h, w) in [-1, 1] → (n, h, w, 3) uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def to_images(pictures, device):
    """(n, h, w, 3) uint8 → (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
