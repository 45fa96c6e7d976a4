"""Stage 1: the VAE, and the scale of its latents."""

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

import data
import networks
import sampling
import scenes
from optimiser import Muon
from runs import sheet, steps_of
from sampling import to_images

KL_WEIGHT = 1e-3
# From this part of the steps on no more crops.
WHOLE_PICTURES = 0.85


def picture_loss(made, wanted):
    """(absolute error, squared error, error of the slopes between neighbours): the second finds small features, which
    the first would rather blur; the third keeps edges clean and fills flat."""
    error = made - wanted
    slopes = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean(), error.pow(2).mean(), slopes


def crop_of(rng, picture, size):
    """A square around a place where something begins or ends: most of a picture is flat, and soon learned."""
    steps = [np.abs(np.diff(picture.astype(np.int16), axis=axis)).max(-1) > 24 for axis in (0, 1)]
    y, x = rng.choice(np.argwhere(steps[0][:, 1:] | steps[1][1:]))
    top, left = (int(np.clip(at - rng.integers(size // 6, size - size // 6), 0, scenes.SIZE - size)) for at in (y, x))
    return picture[top:top + size, left:left + size]


def train_vae(run):
    plan, device = run.plan, run.device
    torch.manual_seed(run.seed)
    vae = networks.make_vae().to(device)
    networks.begin_simple(vae)
    if device.type == "cuda":
        vae = vae.to(memory_format=torch.channels_last)
    saved = run.load("vae")
    if saved and saved["done"]:
        vae.load_state_dict(saved["average"])
        return vae.eval().requires_grad_(False)
    with run.team.leader_first():
        pictures = data.pictures(run.folder / "pictures.npy", plan.vae_pictures, run.seed, run.workers)
    held = np.stack([scenes.draw(scenes.random_scene(data.scene_rng(run.seed + 1, i))) for i in range(16)])

    def advance(step):
        numpy_rng, generator = run.generators(1, step)
        whole = step >= WHOLE_PICTURES * plan.vae_steps
        count = plan.vae_batch // run.team.size
        if whole:
            count = max(1, round(count * (plan.vae_crop / scenes.SIZE) ** 2))
        chosen = pictures[np.sort(numpy_rng.integers(len(pictures), size=count))]
        if not whole:
            chosen = np.stack([crop_of(numpy_rng, picture, plan.vae_crop) for picture in chosen])
        images = to_images(chosen, device)
        # Tiny changes of hue and light, so that the VAE learns colours and not twelve names.
        gain = 1 + 0.06 * torch.randn(len(images), 3, 1, 1, generator=generator, device=device)
        images = (images * gain).clamp(-1, 1)
        with run.bf16():
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
            made = vae.decode(posterior.mean + posterior.std * noise).sample
        error, squares, slopes = picture_loss(made.float(), images)
        posterior = DiagonalGaussianDistribution(posterior.parameters.float())
        kl = 0.5 * (posterior.mean ** 2 + posterior.var - 1 - posterior.logvar).mean()
        loss = error + 2 * squares + slopes + KL_WEIGHT * kl
        return loss, {"l1": error, "squares": squares, "slopes": slopes, "kl": kl}

    def show(weights, step):
        viewer = networks.make_vae().to(device)
        viewer.load_state_dict(weights)
        with torch.no_grad():
            images = to_images(held, device)
            made = viewer.decode(viewer.encode(images).latent_dist.mean).sample
        sheet(run.folder / f"vae-{step:06d}.png", np.concatenate([held, sampling.pixels(made)]))
        error = ((made.clamp(-1, 1) - images) / 2).pow(2).mean()
        return {"held_out_psnr": float(-10 * torch.log10(error))}

    steps_of(run, "vae", vae, plan.vae_steps, Muon(vae, plan.vae_rate, networks.is_edge), advance, show)
    return vae


@torch.no_grad()
def settle_scale(run, vae):
    """Folds the measured mean and deviation of the latents into the VAE."""
    pictures = np.stack([scenes.draw(scenes.random_scene(data.scene_rng(run.seed + 2, i))) for i in range(256)])
    parts = [vae.encode(to_images(part, run.device)).latent_dist for part in np.split(pictures, 16)]
    values = torch.cat([part.mean for part in parts])
    spread = torch.cat([part.var for part in parts]).mean((0, 2, 3))
    networks.fold_scale(vae, values.mean((0, 2, 3)), (values.var((0, 2, 3)) + spread).sqrt())


def encoder(run, vae):
    """Pictures → moments (n, 2, 4, 16, 16) as the UNet sees them."""
    @torch.no_grad()
    def encode(pictures):
        parts = []
        for start in range(0, len(pictures), 64):
            with run.bf16():
                found = vae.encode(to_images(pictures[start:start + 64], run.device)).latent_dist
            parts.append(torch.stack([found.mean, found.std], 1) * networks.SCALE_FACTOR)
        return torch.cat(parts).float().cpu().numpy()

    return encode
