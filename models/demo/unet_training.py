"""Text encoder and UNet: stage 2; the pairs; guidance built in."""

from copy import deepcopy

import numpy as np
import torch
from safetensors import safe_open

import captions
import contrast
import data
import judge
import networks
import pairs
import phrasings
import sampling
import scenes
import tokens
from optimiser import Muon
from runs import sheet, steps_of
from vae_training import encoder

EMPTY_CAPTIONS = 0.1
UNKNOWN_WORDS = 0.12
OFFSET_NOISE = 0.1
TERMINAL = 990
# Of samples that are at the start of drawing.
STARTING = 1 / 8
# The part of a batch that are pairs, and the weight of their contrast: with more, its gradient is the larger one.
PAIRED, CONTRAST = 1 / 4, 0.1
# The share of the weights before the pairs in those that go on: colours and faces stay what they were.
BEFORE_PAIRS = 1 / 3
# The guidance that training builds in, and the share of the weights before it in those that are written: with all of it
# words say a little less than they should.
TRAINED_IN, BEFORE_GUIDANCE = 3, 1 / 10
# The part of a batch whose captions are in other orders than those of the stages before.
REPHRASED = 1 / 3
# The part of a batch in which a word has another weight, and what weights: those that people give, as `(word:1.3)`.
EMPHASISED, WEAKEST, STRONGEST = 1 / 4, 0.5, 1.6
# So guidance of n draws as n / BUILT_IN would, and the 5 to 7 that people use overdo nothing.
BUILT_IN = 1 / ((1 - BEFORE_GUIDANCE) / TRAINED_IN + BEFORE_GUIDANCE)
# Where a file says that it is.
MARK = {"latentd_demo.guidance": f"{BUILT_IN:g}"}
# Words are learned while the UNet still changes slowly: the README has the figures.
UNET_WARM_UP = 1_000
# (from, below, share): most samples are where a thing can hardly be seen, for there it is learned which word means it.
# A compromise: by `visible.py` that is at some 560 to 950 for most things, 340 to 800 for mouths.
TIMESTEPS = ((0, 1000, 0.3), (780, 970, 0.35), (300, 800, 0.35))


def has_guidance(path):
    """Whether the file was finished by `train.py`, with guidance built in."""
    with safe_open(path, "pt") as file:
        return MARK.items() <= (file.metadata() or {}).items()


class Drawer(torch.nn.Module):
    """What is trained together: the text encoder and the UNet."""

    def __init__(self, rows):
        super().__init__()
        self.text = networks.make_text(rows)
        self.unet = networks.make_unet()

    def context(self, rows):
        """(n, 77) rows of the vocabulary → (n, 77, width)."""
        return self.text(input_ids=rows).last_hidden_state

    def forward(self, x, t, rows, weights=None):
        """`weights` (n, 77): of each token, as emphasis gives them."""
        context = self.context(rows)
        if weights is not None:
            context = context * weights[..., None].to(context.dtype)
        return self.unet(x, t, context).sample


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
    return picked, x0, timesteps(count, generator), words


def timesteps(count, generator):
    """(count,) by lot."""
    device = generator.device
    ranges = torch.tensor(TIMESTEPS, device=device)
    low, high, _ = ranges[torch.multinomial(ranges[:, 2], count, replacement=True, generator=generator)].unbind(1)
    t = (low + (high - low) * torch.rand(count, generator=generator, device=device)).long()
    starting = torch.rand(count, generator=generator, device=device) < STARTING
    return torch.where(starting, sampling.STEPS - 1, t)


def couples_of(moments, rows, count, generator):
    """(latents (count, 4, 16, 16), words (2, count, 77): as training has them, otherwise) of `count` scenes by lot."""
    device = moments.device
    picked = torch.randint(len(rows), (count,), generator=generator, device=device)
    spoken = torch.randint(rows.shape[2], (count,), generator=generator, device=device)
    mean, deviation = moments[picked, 0].float().unbind(1)
    x0 = mean + deviation * torch.randn(mean.shape, generator=generator, device=device)
    return x0, rows[picked, :, spoken].long().transpose(0, 1)


def emphasis_of(words, end, count, generator):
    """Of the first `count` captions a word and its weight: (the word's place (count,), weight (count,))."""
    device = words.device
    last = (words[:count] == end).int().argmax(1)
    part = torch.rand(count, generator=generator, device=device)
    # Empty captions have no word; the end stands for one, to no effect.
    at = 1 + (part * (last - 1)).long()
    weight = WEAKEST + (STRONGEST - WEAKEST) * torch.rand(count, generator=generator, device=device)
    return at, torch.where(last > 1, weight, 1.0)


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
    if finished(run, "unet", drawer):
        return drawer
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
        drawer.eval().requires_grad_(False)
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


@torch.no_grad()
def move(network, weights, share):
    """Moves the network's weights by this share of the way to others."""
    for name, weight in network.state_dict().items():
        if weight.dtype.is_floating_point:
            weight.lerp_(weights[name], share)


def with_guidance(plain, made, words, empty, strength=BUILT_IN):
    """The eps that guidance makes of eps without words and with `words`; of empty captions what they told."""
    captioned = (words != empty).any(1)[:, None, None, None]
    return torch.where(captioned, plain + strength * (made - plain), made)


def train_guidance(run, vae, vocabulary, drawer):
    """Leaves between words and none one part in TRAINED_IN of the difference. What to tell is what was told before:
    with pictures to tell, guidance would strengthen the noise of training by as much, and words would be forgotten. So
    captions in another order are read too, as those were that say the same in the order that is known. And a word's
    weight becomes how much of its own effect there is: without that, 1.2 times red made white backgrounds pink."""
    plan = run.plan
    teacher = deepcopy(drawer).eval().requires_grad_(False)
    if finished(run, "guidance", drawer):
        return
    samples = Samples(run, vae, vocabulary)
    with run.team.leader_first():
        found = phrasings.latents(run.folder / "phrasings.npz", plan.phrasings, run.seed + 7, run.workers,
                                  encoder(run, vae), vocabulary)
    rephrased = [torch.from_numpy(part).to(run.device) for part in found]

    def advance(step):
        _, generator = run.generators(10, step)
        count = plan.guidance_batch // run.team.size
        others = max(1, round(REPHRASED * count))
        x0, t, words = samples.batch(count - others, generator)
        x0_others, (known, other) = couples_of(*rephrased, others, generator)
        x0, t = torch.cat([x0, x0_others]), torch.cat([t, timesteps(others, generator)])
        known, words = torch.cat([words, known]), torch.cat([words, other])
        x, _, weight = noised(x0, t, samples.products, generator)
        some = max(1, round(EMPHASISED * count))
        at, strength = emphasis_of(words, samples.end, some, generator)
        without = known[:some].scatter(1, at[:, None], 0)
        weights = torch.ones(2 * count, words.shape[1], device=x.device)
        weights[torch.arange(some), at] = strength
        empty = samples.empty.expand(count, -1)
        x, t = torch.cat([x, x]), torch.cat([t, t])
        with run.bf16(), torch.no_grad():
            wanted = teacher(torch.cat([x, x[:some]]), torch.cat([t, t[:some]]),
                             torch.cat([known, empty, without])).float()
        wanted, unsaid = wanted[:-some], wanted[-some:]
        # What the word makes of eps, as often as it weighs.
        wanted[:some] += (strength - 1)[:, None, None, None] * (wanted[:some] - unsaid)
        with run.bf16():
            made, plain = drawer(x, t, torch.cat([words, empty]), weights).float().chunk(2)
        made = torch.cat([with_guidance(plain, made, words, samples.empty, TRAINED_IN), plain])
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
