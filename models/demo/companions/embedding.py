"""A textual inversion: one word for a mascot, in both of the formats that people exchange.

The word's vectors stand in the text where its tokens stood, and are trained through the text encoder.
"""

from functools import partial

import torch
from safetensors.torch import load_file, save_file

import captions
import data
import judge
import scenes
import tokens
from scenes import Face

from . import pickles
from .base import Plan, adam, examples, round_to_f16, told
from .mascot import WORD, mascot_scene, prompt

VECTORS = 8
# The word begins as a face of no kind: all that makes it this one has to be learned.
FIRST = "face with hair, glasses and a hat"
CAPTIONS = 6


def name_of(rng, thing):
    if not isinstance(thing, Face):
        return captions.thing_words(rng, thing)
    return f"small {WORD}" if thing.size == "small" and rng.random() < 0.5 else WORD


def phrase(rng, scene):
    """A caption by lot in which the word says all of the head."""
    things = list(scene.things)
    words = [name_of(rng, thing) for thing in things]
    places = [captions.PLACE_WORDS[thing.position] for thing in things]
    if len(things) == 2 and rng.random() < 0.4:
        text = captions.join([words[0], scenes.choose(rng, captions.RELATION[things[0].position]), words[1]])
    else:
        place = 0.15 if things[0].size == "large" and len(things) == 1 else 0.7
        text = captions.listing([captions.join([word, scenes.choose(rng, where) if rng.random() < place else ""])
                                 for word, where in zip(words, places)])
    if rng.random() < 0.85:
        text += captions.background_words(rng, scene)
    return f"{scenes.choose(rng, captions.OPENINGS)} {text}" if rng.random() < 0.25 else text


def draw(seed, number):
    rng = data.scene_rng(seed, number)
    scene = mascot_scene(rng)
    return {"picture": scenes.draw(scene), "texts": [phrase(rng, scene) for _ in range(CAPTIONS)]}


def encode(vocabulary, text):
    """(77,) rows; the word's tokens become the rows from the vocabulary's end on, one for each vector."""
    ids, word = tokens.encode(text), list(tokens.split(WORD))
    rows = [vocabulary.row.get(token, 0) for token in ids]
    at = 0
    while at <= len(ids) - len(word):
        if ids[at:at + len(word)] == word:
            ids[at:at + len(word)] = [None] * VECTORS
            rows[at:at + len(word)] = range(len(vocabulary), len(vocabulary) + VECTORS)
            at += VECTORS
        else:
            at += 1
    end = vocabulary.row[tokens.END]
    return [*rows[:tokens.LENGTH - 1], *[end] * (tokens.LENGTH - len(rows)), end][:tokens.LENGTH]


class Word(torch.nn.Module):
    """The vectors, and the text encoder's table made longer by them."""

    def __init__(self, base):
        super().__init__()
        table = base.text.get_input_embeddings()
        first = [base.vocabulary.row.get(token, 0) for token in tokens.encode(FIRST)[1:]]
        first = first[:first.index(base.vocabulary.row[tokens.END])]
        chosen = [first[at * len(first) // VECTORS] for at in range(VECTORS)]
        self.vectors = torch.nn.Parameter(table.weight[chosen].detach().clone())
        table.forward = lambda rows: torch.nn.functional.embedding(rows, torch.cat([table.weight, self.vectors]))


class Embedding:
    NAME, FOLDER, STAGE = "embedding", "embeddings", 4
    PLAN = Plan(4_000, 1_000, 32, 5e-3, 0.99, 100, 200, 32)
    SMOKE = Plan(32, 3, 8, 5e-3, 0.5, 3, 3, 4)

    def __init__(self, run, base):
        self.run, self.base = run, base
        self.encode = partial(encode, base.vocabulary)
        self.examples = examples(run, base, run.folder / "mascot.npz", partial(draw, run.seed + 11), self.encode)
        self.network = Word(base)
        self.optimiser = adam(self.network, run.plan.rate)

    def advance(self, step):
        one = self.base.samples(self.run, self.STAGE, step, self.examples)
        return told(self.base.guided(self.run, one, self.base.eps), one.eps, one.weight)

    def look(self):
        """Whether heads asked for by the word alone look as it means."""
        rng = data.scene_rng(self.run.seed + 21, 0)
        wanted = [mascot_scene(rng) for _ in range(self.run.plan.judged)]
        rows = [self.encode(prompt(scene)) for scene in wanted]
        pictures = self.base.draw(torch.tensor(rows, device=self.base.device), self.base.eps)
        return pictures, judge.tally([judge.judge(picture, scene) for picture, scene in zip(pictures, wanted)])

    def write(self, folder):
        """As `emb_params`, and as A1111 writes it."""
        plain, pickled = folder / f"{WORD}.safetensors", folder / f"{WORD}.pt"
        round_to_f16(self.network)
        vectors = self.network.vectors.detach().cpu().half().contiguous()
        save_file({"emb_params": vectors}, plain)
        pickles.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": WORD,
                      "step": self.run.plan.steps, "sd_checkpoint": self.base.short_hash,
                      "sd_checkpoint_name": self.base.name}, pickled)
        found = torch.load(pickled, weights_only=True)["string_to_param"]["*"]
        if not torch.equal(found, load_file(plain)["emb_params"]) or not torch.equal(found, vectors):
            raise ValueError(f"{plain} and {pickled} do not hold the vectors that were trained")
        return [plain, pickled]
