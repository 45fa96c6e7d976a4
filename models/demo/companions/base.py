"""What all companions need: the finished model, frozen; training sets of their own; a step's samples; drawing."""

import hashlib
import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import captions
import data
import networks
import runs
import sampling
import tokens
import unet_training
from optimiser import Muon


# What pictures of training sets are made with, beside what is in the file of the function that makes one.
DRAWN_WITH = ("masks", "edges", "styles")


@dataclass(frozen=True)
class Plan:
    """How much one companion is trained; `rate` is that of its optimiser, reached after `warm_up` steps."""

    scenes: int
    steps: int
    batch: int
    rate: float
    ema: float
    save_every: int
    sample_every: int
    judged: int
    warm_up: int = 100


def check_finished(path):
    """Refuses a file without the guidance that companions are trained with."""
    if not unet_training.has_guidance(path):
        raise SystemExit(f"{path} was not finished by train.py: it says nothing of the guidance built into it")


class Base:
    """The demo model of a finished file. `smoke` knows fewer words, to begin sooner."""

    def __init__(self, path, device, seed, smoke):
        self.path, self.device = path, device
        # The first ten hex digits of the file's SHA-256, by which A1111 names a checkpoint.
        self.short_hash = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
        self.vocabulary = unet_training.make_vocabulary(seed, 200 if smoke else 8_000)
        found = networks.load(path, self.vocabulary)
        self.text, self.unet, self.vae = (part.to(device).eval().requires_grad_(False) for part in found)
        self.products = sampling.alphas_cumprod().to(device)
        self.empty = self.rows([captions.UNCONDITIONAL])[0]

    @property
    def name(self):
        return self.path.stem

    def rows(self, texts):
        """Texts → (n, 77) rows of the vocabulary."""
        return torch.tensor([self.vocabulary.encode(text) for text in texts], device=self.device)

    def context(self, rows):
        """(n, 77) rows → (n, 77, width)."""
        return self.text(input_ids=rows).last_hidden_state

    @torch.no_grad()
    def moments(self, run, images):
        """(n, 3, 128, 128) in [-1, 1] → means and deviations (n, 2, 4, 16, 16) f16, as the UNet sees them."""
        with run.bf16():
            found = self.vae.encode(images.to(self.device)).latent_dist
        return (torch.stack([found.mean, found.std], 1) * networks.SCALE_FACTOR).half().cpu().numpy()

    def samples(self, run, stage, step, examples):
        """(scenes' numbers, noised latents, timesteps, contexts, eps, weights, generator) of one step."""
        _, generator = run.generators(stage, step)
        picked, x0, t, words = unet_training.batch_of(
            examples["moments"], examples["rows"], self.empty, self.vocabulary.row[tokens.END],
            run.plan.batch // run.team.size, generator)
        x, eps, weight = unet_training.noised(x0, t, self.products, generator)
        return SimpleNamespace(picked=picked, x=x, t=t, words=words, eps=eps, weight=weight, generator=generator)

    @torch.no_grad()
    def draw(self, rows, predict, seed=0):
        """Pictures (n, 128, 128, 3) uint8; `predict(x, t, context)` tells eps for 2n latents, uncond last."""
        contexts = self.context(torch.cat([rows, self.empty[None]]))
        return sampling.draw(lambda *inputs: SimpleNamespace(sample=predict(*inputs)), self.vae, contexts[:-1],
                             contexts[-1:], seed=seed)

    def eps(self, x, t, context):
        return self.unet(x, t, context).sample

    def guided(self, run, one, predict):
        """What `predict(x, t, context)` tells of the samples, with the guidance that is built into the demo model."""
        with run.bf16():
            made = predict(one.x, one.t, self.context(one.words)).float()
        # A block of its own: after one without gradients, weights that were cast to bf16 there would get none.
        with run.bf16(), torch.no_grad():
            empty = self.context(self.empty[None]).expand(len(one.words), -1, -1)
            plain = predict(one.x, one.t, empty).float()
        return unet_training.with_guidance(plain, made, one.words, self.empty)


def told(made, wanted, weight):
    """(loss, what to log of it)."""
    error = (made - wanted).pow(2)
    return (error * weight).mean(), {"loss": (error * weight).mean(), "eps_mse": error.mean()}


def adam(network, rate):
    """AdamW alone, with the face of the optimiser that `runs.steps_of` wants: for few or finished weights."""
    return Muon(network, 0.0, lambda name: True, adam_rate=rate)


def examples(run, base, path, draw, encode=None):
    """The training set in `path`, made if it is not there: moments (n, 2, 4, 16, 16), rows (n, captions, 77) and
    whatever else `draw` gives, as tensors.

    `draw(number)` → a dict with `picture` (128, 128, 3) uint8, `texts` and arrays; each array of the name
    `masked`, a picture too, becomes moments. `encode` takes a text to its rows.
    """
    count, encode, source = run.plan.scenes, encode or base.vocabulary.encode, made_from(run, draw)
    with run.team.leader_first():
        if not path.exists():
            parts = {}
            with data.pool(run.workers) as pool:
                ahead = pool.map_async(draw, range(min(count, 64)))
                for start in range(64, count + 64, 64):
                    # The next ones are drawn while these are encoded.
                    chunk, ahead = ahead.get(), pool.map_async(draw, range(start, min(count, start + 64)))
                    for name in chunk[0]:
                        values = [one[name] for one in chunk]
                        if name in ("picture", "masked"):
                            values = base.moments(run, sampling.to_images(np.stack(values), "cpu"))
                            name = {"picture": "moments"}.get(name, name)
                        elif name == "texts":
                            name, values = "rows", np.array([[encode(text) for text in texts] for texts in values])
                            values = values.astype(np.int16)
                        parts.setdefault(name, []).append(np.stack(values))
            parts = {name: np.concatenate(values) for name, values in parts.items()}
            parts["made_from"] = np.array(source)
            data.save(path, lambda file: np.savez(file, **parts))
    found = dict(np.load(path))
    if len(found["rows"]) != count or str(found.pop("made_from", "")) != source:
        raise ValueError(f"{path} was made by another program or plan; remove it to make it anew")
    return {name: torch.from_numpy(values).to(base.device) for name, values in found.items()}


def made_from(run, draw):
    """Tells training sets apart: several kinds share one, and rows of words mean nothing to another vocabulary."""
    here = Path(__file__).parent
    paths = [Path(inspect.getfile(getattr(draw, "func", draw))), *(here / f"{name}.py" for name in DRAWN_WITH)]
    sources = [path.read_bytes() for path in paths]
    return hashlib.sha256(repr([run.seed, runs.made_from(), sources]).encode()).hexdigest()


@contextmanager
def wearing(network, weights):
    """The network has these weights for a while."""
    own = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(weights)
    try:
        yield
    finally:
        network.load_state_dict(own)


@torch.no_grad()
def round_to_f16(network):
    """Gives the network the very values that its file will have."""
    for name, value in network.state_dict().items():
        rounded = value.half()
        if not torch.isfinite(rounded).all():
            raise ValueError(f"{name} has values that f16 cannot hold")
        value.copy_(rounded)


def halves(state):
    return {key: value.detach().cpu().half().contiguous() for key, value in state.items()}


def same(found, wanted, what):
    """Fails if two sets of weights differ in any name or value."""
    if found.keys() != wanted.keys():
        raise ValueError(f"{what}: weights lost or invented: {sorted(found.keys() ^ wanted.keys())}")
    for key, value in wanted.items():
        if not torch.equal(found[key].float().cpu(), value.detach().float().cpu()):
            raise ValueError(f"{what}: another weight under the name of {key}")
