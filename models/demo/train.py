"""Trains the demo model: `python train.py --run FOLDER`. Start it again after an interruption and it goes on.

Stages: the VAE; text encoder and UNet together; the same with pairs of scenes, for words that are hard to learn; then
guidance is built in; then the file. Every random draw of a step is seeded by the stage and the step's number, so a run
that was stopped and resumed takes the same steps as one that was not.
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

import captions
import contrast
import data
import judge
import networks
import pairs
import sampling
import scenes
import tokens
from optimiser import Muon
from team import Team


@dataclass(frozen=True)
class Plan:
    """What a full run does; the presets differ in how much."""

    vae_pictures: int
    vae_steps: int
    vae_batch: int
    vae_crop: int
    vae_rate: float
    unet_scenes: int
    unet_steps: int
    unet_batch: int
    unet_rate: float
    pairs: int
    pairs_steps: int
    pairs_batch: int
    pairs_rate: float
    guidance_steps: int
    guidance_batch: int
    guidance_rate: float
    ema: float
    save_every: int
    sample_every: int
    judged: int


PLANS = {
    "gpu": Plan(
        vae_pictures=40_000, vae_steps=10_000, vae_batch=128, vae_crop=48, vae_rate=0.012,
        unet_scenes=200_000, unet_steps=30_000, unet_batch=512, unet_rate=0.02,
        pairs=40_000, pairs_steps=10_000, pairs_batch=512, pairs_rate=0.01,
        guidance_steps=2_000, guidance_batch=256, guidance_rate=0.005,
        ema=0.999, save_every=1_000, sample_every=3_000, judged=96),
    "cpu": Plan(
        vae_pictures=12_000, vae_steps=10_000, vae_batch=16, vae_crop=48, vae_rate=0.012,
        unet_scenes=24_000, unet_steps=11_000, unet_batch=64, unet_rate=0.02,
        pairs=8_000, pairs_steps=5_000, pairs_batch=64, pairs_rate=0.01,
        guidance_steps=750, guidance_batch=32, guidance_rate=0.005,
        ema=0.998, save_every=250, sample_every=1_500, judged=48),
    "smoke": Plan(
        vae_pictures=64, vae_steps=6, vae_batch=8, vae_crop=48, vae_rate=0.02,
        unet_scenes=64, unet_steps=6, unet_batch=8, unet_rate=0.02,
        pairs=32, pairs_steps=3, pairs_batch=12, pairs_rate=0.005,
        guidance_steps=3, guidance_batch=8, guidance_rate=0.005,
        ema=0.9, save_every=3, sample_every=6, judged=4),
}

SEED = 20_26
KL_WEIGHT = 1e-3
WHOLE_PICTURES = 0.85
EMPTY_CAPTIONS = 0.1
UNKNOWN_WORDS = 0.12
OFFSET_NOISE = 0.1
TERMINAL = 990
# Of samples that are at the start of drawing.
STARTING = 1 / 8
# The part of a batch that are pairs, and the weight of their contrast: with more, its gradient is the larger one.
PAIRED, CONTRAST = 1 / 4, 0.1
# Guidance of n draws as n / BUILT_IN would, so that the 5 to 7 that people use overdo nothing.
BUILT_IN = 3
# Where a file says that it is.
MARK = "latentd_demo.guidance"
# Words are learned while the UNet still changes slowly: the README has the figures.
UNET_WARM_UP = 1_000
# (from, below, share): most samples are where a thing can hardly be seen, for there it is learned which word means it.
# A compromise: by `visible.py` that is at some 610 to 950 for shapes and most of a face, 350 to 720 for its mouth.
TIMESTEPS = ((0, 1000, 0.3), (780, 970, 0.35), (300, 800, 0.35))
# What training sets and vocabulary are made from: changed in the middle of a run, words would become other rows.
SOURCES = ("captions.py", "data.py", "scenes.py", "tokens.py")


class Stop(Exception):
    """The time given to this call is used up, or it was told to end; everything is saved."""


class Run:
    """One run folder: its plan, its clock, its logs and its checkpoints."""

    def __init__(self, folder, plan, device, minutes, workers, seed, team):
        self.folder, self.plan, self.device, self.workers, self.seed = folder, plan, device, workers, seed
        self.team = team
        self.deadline = time.monotonic() + 60 * minutes if minutes else None
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "plan.json"
        wanted = {"plan": asdict(plan), "seed": seed, "processes": team.size, **made_from()}
        if about.exists():
            check(about, wanted)
        elif team.leads:
            data.save(about, lambda file: file.write(json.dumps(wanted, indent=1).encode()))

    @classmethod
    def reopened(cls, folder, device):
        """A run whose checkpoints are only read."""
        about = folder / "plan.json"
        if not about.exists():
            raise SystemExit(f"{folder} is no run folder: it has no plan.json")
        known = check(about, made_from())
        run = cls.__new__(cls)
        run.folder, run.device, run.seed = folder, device, known["seed"]
        # All of the plan that the vocabulary depends on; the rest may have changed.
        run.plan = SimpleNamespace(unet_scenes=known["plan"]["unet_scenes"])
        return run

    def generators(self, stage, step):
        """(numpy's, torch's on the device) for this process's share of one step."""
        numbers = [self.seed, stage, step, self.team.rank]
        return np.random.default_rng(numbers), torch.Generator(self.device).manual_seed(hash_of(*numbers))

    def log(self, stage, row):
        """Appends to the stage's CSV, without rows that a stopped run wrote after its last checkpoint."""
        path = self.folder / f"log-{stage}.csv"
        rows = read_log(path)
        rows = [old for old in rows if int(old["step"]) < row["step"]] + [row]
        names = list(dict.fromkeys(name for old in rows for name in old))
        with open(path.with_suffix(".part"), "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        path.with_suffix(".part").replace(path)
        print(stage, *(f"{name} {value:.5g}" for name, value in row.items()), flush=True)

    def save(self, stage, state):
        data.save(self.folder / f"{stage}.pt", lambda file: torch.save(state, file))

    def load(self, stage):
        path = self.folder / f"{stage}.pt"
        return torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None

    def stop(self):
        """Ends the run after the step it is in."""
        self.deadline = time.monotonic()

    def bf16(self):
        """Products in bf16 where the hardware has units for them."""
        fast = self.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)

    def out_of_time(self):
        return self.deadline is not None and time.monotonic() >= self.deadline


def made_from():
    """Name → what it has to be as long as a run's checkpoints and training sets are of use."""
    here = Path(__file__).parent
    hashes = {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in SOURCES}
    return {"sizes": asdict(networks.SIZES), **hashes}


def check(about, wanted):
    """What plan.json says; refuses one that has another value than `wanted` under any of its names."""
    known = json.loads(about.read_text())
    others = [name for name, value in json.loads(json.dumps(wanted)).items() if known.get(name) != value]
    if others:
        raise SystemExit(f"{about.parent} was begun with another {', '.join(others)}: see {about}; give another --run")
    return known


def hash_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def read_log(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def rate_at(step, steps, warm_up):
    """The share of the peak rate: warm-up, a plateau, then a fall along a cosine over the last 60 %."""
    warm = min(1.0, (step + 1) / min(warm_up, max(1, steps // 10)))
    along = max(0.0, (step / steps - 0.4) / 0.6)
    return float(warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * along))))


class Average:
    """An exponential moving average of a network's weights."""

    def __init__(self, network, decay):
        self.decay = decay
        self.weights = {key: value.clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network, step):
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.weights[key], value) for key, value in network.state_dict().items()
                 if value.dtype.is_floating_point]
        torch._foreach_lerp_([mine for mine, _ in pairs], [value for _, value in pairs], 1 - decay)


def steps_of(run, stage, network, steps, optimiser, advance, show, warm_up=100):
    """Trains `network` from its last checkpoint to `steps`. `advance(step)` is the loss and what to log of it;
    `show(average, step)` looks at the averaged weights now and then and may log more."""
    plan = run.plan
    average, start, spent, sums, count = Average(network, plan.ema), 0, 0.0, {}, 0
    if saved := run.load(stage):
        network.load_state_dict(saved["network"])
        if saved["optimiser"]:
            optimiser.load_state_dict(saved["optimiser"])
        average.weights, start, spent = saved["average"], saved["step"], saved["seconds"]
        # Of steps that are not logged yet; older checkpoints have lost them.
        sums, count = saved.get("sums", {}), saved.get("count", 0)
    begun = time.monotonic()

    def save(step):
        run.save(stage, {"network": network.state_dict(), "optimiser": optimiser.state_dict(),
                         "average": average.weights, "step": step, "seconds": spent + time.monotonic() - begun,
                         "sums": sums, "count": count, "done": step == steps})

    for step in range(start, steps):
        loss, facts = advance(step)
        optimiser.zero_grad()
        loss.backward()
        numbers = [float(run.out_of_time()), *(float(fact.detach()) for fact in facts.values())]
        numbers = run.team.average(network.parameters(), numbers)
        stopping = numbers.pop(0) > 0
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step(rate_at(step, steps, warm_up))
        average.update(network, step)
        for name, value in zip(facts, numbers):
            sums[name] = sums.get(name, 0) + value
        count += 1
        done = step + 1
        if run.team.leads and (done % plan.save_every == 0 or done == steps):
            means = {name: value / count for name, value in sums.items()}
            if not all(np.isfinite(value) for value in means.values()):
                raise SystemExit(f"{stage}: the loss is no number any more at step {done}: {means}")
            row = {"step": done, "seconds": spent + time.monotonic() - begun, **means}
            run.log(stage, row)
            sums, count = {}, 0
            save(done)
            if done % plan.sample_every == 0 or done == steps:
                with run.team.all_threads():
                    run.log(stage, row | show(average.weights, done))
        if stopping and done < steps:
            if run.team.leads:
                save(done)
            raise Stop(f"{stage}: stopped after step {done} of {steps}")
    network.load_state_dict(average.weights)
    network.eval().requires_grad_(False)


def sheet(path, pictures, columns=8, colours=None):
    """Writes pictures (n, h, w, 3) as one, side by side; with a palette of `colours` in a third of the bytes."""
    padded = np.pad(pictures, ((0, -len(pictures) % columns), (1, 1), (1, 1), (0, 0)))
    rows = padded.reshape(-1, columns, *padded.shape[1:])
    image = Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows]))
    (image.quantize(colours) if colours else image).save(path, optimize=True)


# --- stage 1: the VAE -----------------------------------------------------------------------------------------------

def to_images(pictures, device):
    """(n, h, w, 3) uint8 → (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


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


# --- stage 2: text encoder and UNet ---------------------------------------------------------------------------------

class Drawer(torch.nn.Module):
    """What is trained together: the text encoder and the UNet."""

    def __init__(self, rows):
        super().__init__()
        self.text = networks.make_text(rows)
        self.unet = networks.make_unet()

    def context(self, rows):
        """(n, 77) rows of the vocabulary → (n, 77, width)."""
        return self.text(input_ids=rows).last_hidden_state

    def forward(self, x, t, rows):
        return self.unet(x, t, self.context(rows)).sample


def make_vocabulary(seed, count=8_000):
    """The tokens of the first captions of a set: every word that captions can have is among them."""
    used = set(tokens.encode(captions.UNCONDITIONAL))
    for index in range(count):
        rng = data.scene_rng(seed + 3, index)
        scene = scenes.random_scene(rng)
        for _ in range(3):
            used.update(tokens.encode(captions.phrase(rng, scene)))
    return networks.Vocabulary(used)


def vocabulary_of(run):
    return make_vocabulary(run.seed, min(8_000, 4 * run.plan.unet_scenes))


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


class Samples:
    """The training set of text encoder and UNet, and what its samples need."""

    def __init__(self, run, vae, vocabulary):
        device = run.device
        with run.team.leader_first():
            found = data.latents(run.folder / "latents.npz", run.plan.unet_scenes, run.seed + 3, run.workers,
                                 encoder(run, vae), vocabulary)
        self.moments, self.rows = (torch.from_numpy(part).to(device) for part in found)
        self.products = sampling.alphas_cumprod().to(device)
        self.empty = torch.tensor(vocabulary.encode(captions.UNCONDITIONAL), device=device)
        self.end = vocabulary.row[tokens.END]

    def batch(self, count, generator):
        """(latents, timesteps, words) by lot."""
        return batch_of(self.moments, self.rows, self.empty, self.end, count, generator)[1:]


def batch_of(moments, rows, empty, end, count, generator):
    """(scenes' numbers, latents, timesteps, words) of `count` samples by lot."""
    device = moments.device

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, device=device)

    picked = torch.randint(len(rows), (count,), generator=generator, device=device)
    spoken = torch.randint(rows.shape[1], (count,), generator=generator, device=device)
    words = rows[picked, spoken].long()
    # Words that no caption has mean nothing: now and then one of ours becomes such a word, or one is added.
    stray = (uniform(*words.shape) < 0.06) & (uniform(count, 1) < UNKNOWN_WORDS)
    first_end = (words == end).int().argmax(1, keepdim=True)
    at = torch.arange(words.shape[1], device=device)
    added = (at == first_end) & (uniform(count, 1) < UNKNOWN_WORDS) & (at < words.shape[1] - 1)
    words = torch.where((stray & (at > 0) & (at < first_end)) | added, 0, words)
    words = torch.where(uniform(count, 1) < EMPTY_CAPTIONS, empty, words)
    mean, deviation = moments[picked].float().unbind(1)
    x0 = mean + deviation * torch.randn(mean.shape, generator=generator, device=device)
    ranges = torch.tensor(TIMESTEPS, device=device)
    low, high, _ = ranges[torch.multinomial(ranges[:, 2], count, replacement=True, generator=generator)].unbind(1)
    t = (low + (high - low) * uniform(count)).long()
    t = torch.where(uniform(count) < STARTING, sampling.STEPS - 1, t)
    return picked, x0, t, words


def noised(x0, t, products, generator):
    """(what the UNet sees, the eps it should tell, the weight of each sample's error).

    Three things make flat backgrounds come out in the wanted colour on the standard schedule, which at its last step
    still shows 7 % of the picture. From step 990 on the UNet sees noise alone, as it does when drawing begins, but
    should tell the eps that leads to this picture: it learns to take colour from the words, not from the remainder.
    Half of the noise has a random mean per channel, so that guidance may overshoot. And errors at high noise, where
    colour and place are decided but eps is hardly moved by them, weigh more.
    """
    def draw(*shape):
        return torch.randn(*shape, generator=generator, device=x0.device)

    product = products[t][:, None, None, None]
    signal, level = product.sqrt(), (1 - product).sqrt()
    count = len(x0)
    offset = (torch.rand(count, 1, 1, 1, generator=generator, device=x0.device) < 0.5) * OFFSET_NOISE
    terminal = (t >= TERMINAL)[:, None, None, None]
    noise = draw(*x0.shape) + torch.where(terminal, 0, offset) * draw(count, x0.shape[1], 1, 1)
    x = torch.where(terminal, level * noise, signal * x0 + level * noise)
    eps = (x - signal * x0) / level
    ratio = product / (1 - product)
    return x, eps, ratio.clamp(0.1, 5) / ratio


def train_unet(run, vae, vocabulary, compiled):
    plan, device = run.plan, run.device
    torch.manual_seed(run.seed + 1)
    drawer = Drawer(len(vocabulary)).to(device)
    saved = run.load("unet")
    if saved and saved["done"]:
        drawer.load_state_dict(saved["average"])
        return drawer.eval().requires_grad_(False)
    samples = Samples(run, vae, vocabulary)
    forward = torch.compile(drawer) if compiled else drawer

    def advance(step):
        _, generator = run.generators(2, step)
        x0, t, words = samples.batch(plan.unet_batch // run.team.size, generator)
        x, eps, weight = noised(x0, t, samples.products, generator)
        with run.bf16():
            made = forward(x, t, words)
        error = (made.float() - eps).pow(2)
        return (error * weight).mean(), {"loss": (error * weight).mean(), "eps_mse": error.mean()}

    optimiser = Muon(drawer, plan.unet_rate, adam_keeps)
    steps_of(run, "unet", drawer, plan.unet_steps, optimiser, advance, viewer_of("unet", run, vae, vocabulary),
             UNET_WARM_UP)
    return drawer


def viewer_of(stage, run, vae, vocabulary, cfg=6.0):
    """`steps_of`'s `show` for text encoder and UNet."""
    def show(weights, step):
        viewer = Drawer(len(vocabulary)).to(run.device).eval()
        viewer.load_state_dict(weights)
        return look(run, viewer, vae, vocabulary, step, stage, cfg)

    return show


def finished(run, stage, drawer):
    """Whether the stage is done, whose weights `drawer` then has; else these are to be trained on."""
    saved = run.load(stage)
    if saved and saved["done"]:
        drawer.load_state_dict(saved["average"])
        return True
    drawer.train().requires_grad_(True)
    return False


def train_pairs(run, vae, vocabulary, drawer):
    """Teaches words for what is hard to see: a part of each batch are pairs of scenes that differ in one thing."""
    plan = run.plan
    if finished(run, "pairs", drawer):
        return
    samples = Samples(run, vae, vocabulary)
    with run.team.leader_first():
        found = pairs.latents(run.folder / "pairs.npz", plan.pairs, run.seed + 5, run.workers, encoder(run, vae),
                              vocabulary)
    paired = [torch.from_numpy(part).to(run.device) for part in found]

    def advance(step):
        _, generator = run.generators(9, step)
        count = plan.pairs_batch // run.team.size
        twos = max(1, round(PAIRED * count))
        x0, t, words = samples.batch(count - twos, generator)
        both, when, said = contrast.batch_of(*paired, samples.products, TERMINAL - 1, twos, generator)
        # The first of each pair is a sample like others.
        t, words = torch.cat([t, when]), torch.cat([words, said[0]])
        x, eps, weight = noised(torch.cat([x0, both[0]]), t, samples.products, generator)
        with run.bf16():
            made = drawer(torch.cat([x, x[-twos:]]), torch.cat([t, when]), torch.cat([words, said[1]])).float()
        error = (made[:-twos] - eps).pow(2)
        apart = contrast.error(made[-2 * twos:-twos], made[-twos:], both, when, samples.products)
        loss = (error * weight).mean()
        return loss + CONTRAST * apart, {"loss": loss, "eps_mse": error.mean(), "contrast": apart}

    optimiser = Muon(drawer, plan.pairs_rate, adam_keeps)
    steps_of(run, "pairs", drawer, plan.pairs_steps, optimiser, advance,
             viewer_of("pairs", run, vae, vocabulary, 6.0 / BUILT_IN))


def with_guidance(plain, made, words, empty):
    """The eps that guidance of BUILT_IN makes of eps without words and with `words`; of empty captions what they told.
    """
    captioned = (words != empty).any(1)[:, None, None, None]
    return torch.where(captioned, plain + BUILT_IN * (made - plain), made)


def train_guidance(run, vae, vocabulary, drawer):
    """Leaves between words and none one part in BUILT_IN of the difference. What to tell is what was told before: with
    pictures to tell, guidance would strengthen the noise of training by as much, and words would be forgotten."""
    plan = run.plan
    teacher = deepcopy(drawer).eval().requires_grad_(False)
    if finished(run, "guidance", drawer):
        return
    samples = Samples(run, vae, vocabulary)

    def advance(step):
        _, generator = run.generators(10, step)
        x0, t, words = samples.batch(plan.guidance_batch // run.team.size, generator)
        x, _, weight = noised(x0, t, samples.products, generator)
        both = torch.cat([x, x]), torch.cat([t, t]), torch.cat([words, samples.empty.expand(len(x), -1)])
        with run.bf16(), torch.no_grad():
            wanted = teacher(*both).float()
        with run.bf16():
            made, plain = drawer(*both).float().chunk(2)
        made = torch.cat([with_guidance(plain, made, words, samples.empty), plain])
        error = (made - wanted).pow(2)
        loss = (error * torch.cat([weight, weight])).mean()
        return loss, {"loss": loss, "eps_mse": error.mean()}

    optimiser = Muon(drawer, plan.guidance_rate, adam_keeps)
    steps_of(run, "guidance", drawer, plan.guidance_steps, optimiser, advance,
             viewer_of("guidance", run, vae, vocabulary))


def adam_keeps(weight):
    """Whether AdamW trains it: under Muon the text encoder changes faster than the UNet can learn to read it."""
    return weight.startswith("text.") or networks.is_edge(weight)


@torch.no_grad()
def look(run, drawer, vae, vocabulary, step, stage, cfg):
    """Draws the judge's held-out scenes, keeps a sheet of them, and scores them."""
    wanted = judge.exam(run.plan.judged)
    rows = [vocabulary.encode(captions.prompt(scene)) for scene in wanted]
    rows = torch.tensor([*rows, vocabulary.encode(captions.UNCONDITIONAL)], device=run.device)
    contexts = drawer.context(rows)
    pictures = np.concatenate([
        sampling.draw(drawer.unet, vae, contexts[:-1][start:start + 32], contexts[-1:], cfg=cfg, seed=start)
        for start in range(0, len(wanted), 32)])
    sheet(run.folder / f"{stage}-{step:06d}.png", pictures[:48])
    return judge.tally([judge.judge(picture, scene) for picture, scene in zip(pictures, wanted)])


# --- all of it ------------------------------------------------------------------------------------------------------

STAGES = ("vae", "unet", "pairs", "guidance")
LOSSES = ("l1", "squares", "slopes", "kl", "loss", "eps_mse", "v_mse", "contrast")


def panel_of(name):
    """Where a column of the logs is plotted."""
    if name in LOSSES:
        return "losses"
    return "held-out pictures, dB" if name.endswith("psnr") else "held-out pictures"


def plot(run, stages=STAGES):
    """Every column of the logs over its steps."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {stage: read_log(run.folder / f"log-{stage}.csv") for stage in stages}
    panels = {}
    for stage, rows in logs.items():
        for name in dict.fromkeys(name for row in rows for name in row):
            if name not in ("step", "seconds"):
                panels.setdefault(stage, {}).setdefault(panel_of(name), []).append(name)
    if not panels:
        return
    height = max(map(len, panels.values()))
    figure, axes = pyplot.subplots(height, len(panels), figsize=(7 * len(panels), 4 * height), squeeze=False)
    for column, (stage, names_of) in zip(axes.T, panels.items()):
        for axis, (panel, names) in zip(column, names_of.items()):
            for name in names:
                points = [(int(row["step"]), float(row[name])) for row in logs[stage] if row.get(name)]
                axis.plot(*zip(*points), label=name, marker=None if panel == "losses" else ".")
            axis.set(title=f"{stage}: {panel}", xlabel="step", yscale="log" if panel == "losses" else "linear")
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small", ncols=2)
        for axis in column[len(names_of):]:
            axis.set_axis_off()
    figure.tight_layout()
    path = run.folder / "curves.png"
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    # With a palette it is a third as large.
    Image.open(path).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def processes(wanted, device, smallest_batch):
    """How many train together: each needs a sample of every batch."""
    default = 1 if device.type == "cuda" else len(os.sched_getaffinity(0))
    return min(wanted or default, smallest_batch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints, logs, samples and the result")
    parser.add_argument("--plan", choices=PLANS, help="how much to train [default: gpu with CUDA, else cpu]")
    parser.add_argument("--smoke", action="store_true", help="the smallest plan: a few steps of each stage")
    parser.add_argument("--stage", choices=STAGES[:-1],
                        help="stop after this stage [default: all four, and the file]")
    parser.add_argument("--start", type=Path, metavar="FILE",
                        help="begin a new run with the weights of a finished file, at the pairs, or with --unet-steps at "
                             "stage 2")
    parser.add_argument("--export", action="store_true",
                        help="train nothing: write the file as far as the run has come")
    parser.add_argument("--train-vae", action="store_true", help="with --start: train its VAE on, and all that follows")
    parser.add_argument("--vae-steps", type=int, metavar="N", help="steps of the VAE [default: the plan's]")
    parser.add_argument("--unet-steps", type=int, metavar="N",
                        help="steps of text encoder and UNet [default: the plan's]")
    parser.add_argument("--minutes", type=float, help="save and stop after this time")
    parser.add_argument("--processes", type=int,
                        help="processes of one thread that train together, at most as many as a batch has samples "
                             "[default: one a core; one on a GPU]")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw the training set")
    parser.add_argument("--no-compile", action="store_true", help="do not compile the UNet on a GPU")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    if args.train_vae and not args.start:
        parser.error("--train-vae goes with --start")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = "smoke" if args.smoke else args.plan or ("gpu" if device.type == "cuda" else "cpu")
    own = {"vae_steps": args.vae_steps, "unet_steps": args.unet_steps}
    plan = replace(PLANS[name], **{key: value for key, value in own.items() if value})
    batch = min(plan.vae_batch, plan.unet_batch, plan.pairs_batch // 2, plan.guidance_batch)
    team = Team(1 if args.export else processes(args.processes, device, batch))
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    if args.export:
        return write_as_it_is(Run.reopened(args.run, device))
    run = Run(args.run, plan, device, args.minutes, args.workers, args.seed, team)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, (lambda *_: run.stop()) if team.leads else signal.SIG_IGN)
    if args.start:
        with team.leader_first():
            if team.leads:
                # The same command again after an interruption.
                if (args.run / "vae.pt").exists():
                    print(f"{args.run} has begun already and goes on")
                else:
                    begin_from(run, args.start, args.train_vae, args.train_vae or args.unet_steps)
    try:
        train(run, args.stage, device.type == "cuda" and not args.no_compile)
    except Stop as stop:
        if team.leads:
            print(stop, "— start again to go on")
    if team.leads:
        plot(run)
        team.end()


def begin_from(run, path, vae_too, unet_too):
    """Makes the checkpoints of a run folder from a finished file: of stages that are done, but for those that are to be
    trained on."""
    vocabulary = vocabulary_of(run)
    text, unet, vae = networks.load(path, vocabulary)
    if vae_too:
        # Latents as the KL term wants them, of variance 1; `settle_scale` will undo it.
        networks.fold_scale(vae, torch.zeros(4), torch.full((4,), networks.SCALE_FACTOR ** -2))
    drawer = Drawer(len(vocabulary))
    drawer.text, drawer.unet = text, unet
    # The VAE last: a run that has one has begun.
    for stage, network, done in (("unet", drawer, not unet_too), ("vae", vae, not vae_too)):
        weights = network.state_dict()
        run.save(stage, {"network": weights, "average": weights, "optimiser": None, "step": 0, "seconds": 0.0,
                         "done": done})


def train(run, last_stage, compiled):
    vae = train_vae(run)
    settle_scale(run, vae)
    if last_stage == "vae":
        return
    vocabulary = vocabulary_of(run)
    drawer = train_unet(run, vae, vocabulary, compiled)
    if last_stage == "unet":
        return
    train_pairs(run, vae, vocabulary, drawer)
    if last_stage == "pairs":
        return
    train_guidance(run, vae, vocabulary, drawer)
    if run.team.leads:
        write(run, vae, drawer, vocabulary)


def write(run, vae, drawer, vocabulary, whole=True):
    path = run.folder / "latentd-demo.safetensors"
    about = networks.ABOUT | ({MARK: str(BUILT_IN)} if whole else {})
    size = networks.export(path, drawer.text, drawer.unet, vae, vocabulary, about=about)
    print(f"{path}: {size} bytes")


def write_as_it_is(run):
    """The file of a run that is not finished, from the averages of its last checkpoints."""
    vae, vocabulary = networks.make_vae(), vocabulary_of(run)
    drawer = Drawer(len(vocabulary))
    last = next((stage for stage in reversed(STAGES[1:]) if (run.folder / f"{stage}.pt").exists()), "unet")
    for stage, network in (("vae", vae), (last, drawer)):
        saved = run.load(stage)
        if saved is None:
            raise SystemExit(f"{run.folder} has no {stage}.pt yet")
        network.load_state_dict(saved["average"])
        network.to(run.device).eval()
    settle_scale(run, vae)
    write(run, vae, drawer, vocabulary, last == STAGES[-1] and saved["done"])
    plot(run)


if __name__ == "__main__":
    main()
