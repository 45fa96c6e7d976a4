"""Tests of the demo model's data, captions and judge; those of the networks run where torch and diffusers are."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import captions  # noqa: E402
import data  # noqa: E402
import judge  # noqa: E402
import pairs  # noqa: E402
import phrasings  # noqa: E402
import scenes  # noqa: E402
import tokens  # noqa: E402


def sample(count, kind=None, seed=7):
    return [scenes.random_scene(np.random.default_rng([seed, i]), kind) for i in range(count)]


def test_the_same_seed_draws_the_same_picture():
    first, second = sample(3), sample(3)
    assert first == second
    assert all(np.array_equal(scenes.draw(a), scenes.draw(b)) for a, b in zip(first, second))


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_everything_is_wholly_inside_the_picture(kind):
    for scene in sample(30, kind):
        picture = scenes.draw(scene)
        rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (rim == scenes.COLOURS[scene.background]).all(), scene


def test_fills_are_flat_and_edges_are_antialiased():
    scene = scenes.Scene("blue", (scenes.Shape("circle", "red", "plain", "medium", "centre", 64.0, 64.0, 25.0),))
    colours = {tuple(c) for c in scenes.draw(scene).reshape(-1, 3).tolist()}
    flat = {scenes.COLOURS["red"], scenes.COLOURS["blue"]}
    assert flat < colours and len(colours) > 10
    between = scenes.draw(scene).reshape(-1, 3)
    assert sum(tuple(c) not in flat for c in between.tolist()) < 260, "an edge is one pixel wide"


def test_training_never_sees_what_is_held_out():
    assert not any(any(scenes.are_held_out(scene)) for scene in sample(300))
    asked = judge.exam(40)
    assert all(all(scenes.are_held_out(scene)) for scene in asked)
    every = [(a, b, c, d) for a in scenes.SHAPES for b in scenes.COLOURS for c in scenes.COLOURS if b != c
             for d in scenes.POSITIONS]
    share = np.mean([scenes.held_out(*one) for one in every])
    assert 0.08 < share < 0.12


def test_pairs_differ_in_one_thing_and_keep_the_rules_of_scenes():
    differing = set()
    for number in range(400):
        scene, other = pairs.random_pair(np.random.default_rng([8, number]))
        assert scene.background == other.background and not any(scenes.are_held_out(other))
        changes = [(a, b) for a, b in zip(scene.things, other.things, strict=True) if a != b]
        assert len(changes) == 1
        before, after = (vars(thing) for thing in changes[0])
        names = [name for name in before if before[name] != after[name]]
        assert len(names) == 1
        differing.update(names)
        face = other.face
        if face:
            skin, hair, behind = scenes.SKINS[face.skin], scenes.HAIR[face.hair], scenes.COLOURS[other.background]
            assert scenes.far_apart(skin, hair, 66) and scenes.far_apart(skin, behind, 66)
            assert scenes.far_apart(hair, behind, 60) and face.hat != other.background
            assert not face.hat or scenes.far_apart(scenes.COLOURS[face.hat], hair, 60)
        for thing in other.shapes:
            assert thing.colour != other.background
            assert thing.fill == "plain" or scenes.far_apart(
                scenes.tint(thing.colour), scenes.COLOURS[other.background], 95)
    assert differing == set(pairs.CHANCES)


def test_captions_of_a_pair_differ_in_the_words_for_what_differs():
    moods = {"smile": {"smiling", "happy", "smile"}, "frown": {"frowning", "sad", "frown"}}
    told = 0
    for number in range(200):
        both = pairs.random_pair(data.scene_rng(9, number))
        texts = pairs.captions_of(9, number, both)
        assert len(texts) == pairs.CAPTIONS_PER_PAIR
        plain = tuple(map(captions.prompt, both))
        assert all(0 < pairs.words_apart(*two) <= pairs.MOST_APART or two == plain for two in texts)
        if both[0].face and both[0].face.mouth != both[1].face.mouth:
            for two in texts:
                for scene, text, other in zip(both, two, reversed(two)):
                    only = set(re.findall(r"\w+", text)) - set(re.findall(r"\w+", other))
                    assert only and only <= moods[scene.face.mouth], two
                    told += 1
    assert told > 100


def test_a_pair_is_drawn_and_told_the_same_way_each_time():
    pictures, texts = pairs.draw(9, 4)
    again, said = pairs.draw(9, 4)
    assert pictures.shape == (2, 128, 128, 3) and (pictures[0] != pictures[1]).any()
    assert np.array_equal(pictures, again) and texts == said and len(texts) == 2


def test_captions_say_it_in_several_ways():
    thing = scenes.Shape("circle", "red", "plain", "medium", "centre", 64.0, 64.0, 25.0)
    scene = scenes.Scene("blue", (thing,))
    rng = np.random.default_rng(0)
    said = {captions.phrase(rng, scene) for _ in range(600)}
    assert "a red circle on a blue background" in said
    assert len(said) > 100
    assert captions.prompt(scene) == "a red circle in the centre on a blue background"
    assert captions.UNCONDITIONAL == ""


def test_captions_are_true_and_short_enough():
    rng = np.random.default_rng(1)
    for scene in sample(400):
        for text in (captions.phrase(rng, scene), captions.prompt(scene)):
            assert tokens.encode(text)[-1] == tokens.END and len(tokens.encode(text)) == tokens.LENGTH
            assert text == text.strip() and "  " not in text and not re.search(r"\ba [aeiou](?!ni)", text), text
            named = [word for word in re.findall(r"[a-z]+(?= background)", text) if word in scenes.COLOURS]
            assert all(word == scene.background for word in named), (text, scene)
            if not scene.face:
                assert not re.search(r"face|hair|hat\b|glasses", text), text


@pytest.mark.parametrize(("text", "ids"), [
    ("", []),
    ("a red circle on a blue background", [320, 736, 7117, 525, 320, 1746, 5994]),
])
def test_tokens_are_those_of_clip(text, ids):
    assert tokens.encode(text) == [tokens.START, *ids] + [tokens.END] * (tokens.LENGTH - 1 - len(ids))


MARKS = {"background", "count", "colour", "shape", "position", "fill", "face", "hair", "cut", "glasses", "mouth", "hat",
         "skin"}


@pytest.mark.parametrize(("spoil", "least"), [(False, 0.985), (True, 0.96)])
def test_the_judge_reads_pictures_whose_contents_are_known(spoil, least):
    rng = np.random.default_rng(2)
    answers = []
    for kind, count in (("one", 60), ("two", 12), ("three", 6), ("face", 14), ("small face", 8)):
        for scene in sample(count, kind, seed=9):
            picture = scenes.draw(scene)
            answers.append(judge.judge(judge.degrade(picture, rng) if spoil else picture, scene))
    marks = judge.tally(answers)
    assert marks.keys() == MARKS
    # A few small classes: one wrong answer there is more than the bound, so one may be wrong.
    for name, share in marks.items():
        count = sum(name in answer for answer in answers)
        assert share >= min(least, 1 - 1 / count), (name, marks)


def test_the_judge_does_not_believe_wrong_pictures():
    asked = sample(90, "one", seed=11)
    marks = judge.tally([judge.judge(scenes.draw(b), a) for a, b in zip(asked, asked[1:] + asked[:1])])
    for name, most in (("background", 0.2), ("colour", 0.2), ("shape", 0.25), ("position", 0.35)):
        assert marks[name] < most, marks
    faces = sample(20, "face", seed=12)
    shapes = sample(20, "one", seed=13)
    assert judge.tally([judge.judge(scenes.draw(b), a) for a, b in zip(faces, shapes)])["face"] <= 0.05
    empty = np.full((128, 128, 3), 128)
    noise = np.random.default_rng(3).integers(0, 256, (128, 128, 3))
    for picture in (empty, noise):
        answers = judge.judge(picture, asked[0])
        assert not answers["colour"] and not answers["shape"]


@pytest.mark.parametrize("skin", [(129, 83, 56), scenes.COLOURS["brown"]])
def test_a_face_is_one_also_where_its_skin_is_between_the_tones(monkeypatch, skin):
    faces = [scene for scene in sample(90, "face", seed=14) + sample(90, "small face", seed=14)
             if scene.face.skin in ("brown", "dark") and scene.background != "brown"][:12]
    with monkeypatch.context() as patch:
        for tone in ("brown", "dark"):
            patch.setitem(scenes.SKINS, tone, skin)
        pictures = [scenes.draw(scene) for scene in faces]
    marks = judge.tally([judge.judge(picture, scene) for picture, scene in zip(pictures, faces)])
    assert len(faces) == 12 and marks["face"] >= 0.9 and marks["mouth"] >= 0.9, marks


@pytest.mark.parametrize("fill", ["striped", "dotted", "gradient"])
def test_gray_without_its_pattern_is_gray(fill):
    thing = scenes.Shape("square", "gray", "plain", "medium", "centre", 64.0, 64.0, 25.0)
    picture = scenes.draw(scenes.Scene("yellow", (thing,))).astype(int)
    # A little darker than gray, where another colour's way to its tint passes nearer.
    picture[39:89, 39:89] -= 10
    answers = judge.judge(picture, scenes.Scene("yellow", (replace(thing, fill=fill),)))
    assert answers["colour"] and answers["shape"] and not answers["fill"]


def test_the_judge_has_marks_for_any_picture():
    """What a network draws before it has learned much: noise, stripes and threads of all widths."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:scenes.SIZE, :scenes.SIZE]
    for number, scene in enumerate(judge.exam(24)):
        thread = np.abs(x - 64 - 50 * np.sin(y / (5 + number))) < 0.5 + number / 16
        stripes = x // (1 + number) % 2 == 0
        flat = [np.where(mask[..., None], 200, 10) * np.ones(3) for mask in (thread, stripes, stripes & False)]
        for picture in (rng.integers(0, 256, (*x.shape, 3)), *flat):
            marks = judge.judge(picture.astype(np.uint8), scene)
            assert set(marks.values()) <= {True, False}


def test_shapes_are_told_apart():
    """A confusion matrix: every shape is read as itself, small or large."""
    for shape in scenes.SHAPES:
        for radius in (15.0, 24.0, 37.0):
            thing = scenes.Shape(shape, "yellow", "plain", "medium", "centre", 63.3, 64.8, radius)
            picture = scenes.draw(scenes.Scene("blue", (thing,))).astype(float)
            found = judge.blobs(picture, judge.border(picture))
            assert [judge.shape_of(blob)[0] for blob in found] == [shape]


def test_the_scale_is_folded_without_changing_pictures():
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("networks")
    torch.manual_seed(0)
    vae = networks.make_vae().eval().requires_grad_(False)
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    before = vae.encode(images).latent_dist
    made = vae.decode(before.mean).sample
    networks.fold_scale(vae, before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3)))
    after = vae.encode(images).latent_dist
    assert torch.allclose(vae.decode(after.mean).sample, made, atol=1e-4)
    scaled = after.mean * networks.SCALE_FACTOR
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-3)
    ratio = (after.logvar - before.logvar).exp().sqrt() * before.mean.std((0, 2, 3))[:, None, None]
    assert torch.allclose(ratio * networks.SCALE_FACTOR, torch.ones_like(ratio), atol=1e-2)


def test_the_largest_file_is_large_enough(tmp_path):
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("networks")
    torch.manual_seed(0)
    vocabulary = networks.Vocabulary({tokens.START, tokens.END, 320, 736})
    text = networks.make_text(len(vocabulary))
    size = networks.export(tmp_path / "demo.safetensors", text, networks.make_unet(), networks.make_vae(), vocabulary)
    assert size <= networks.LARGEST_FILE
    table = vocabulary.spread(text.get_input_embeddings().weight)
    assert torch.equal(table[736], text.get_input_embeddings().weight[vocabulary.row[736]])
    assert torch.equal(table[1000], table[2000])


def test_a_run_goes_on_only_with_what_it_was_begun_with(tmp_path):
    pytest.importorskip("torch")
    runs = pytest.importorskip("runs")
    about, begun = tmp_path / "plan.json", {"seed": 1, **runs.made_from()}
    about.write_text(json.dumps(begun))
    runs.check(about, begun)
    with pytest.raises(SystemExit, match="another seed, captions.py:"):
        runs.check(about, begun | {"seed": 2, "captions.py": "changed"})


def test_other_phrasings_say_the_same(monkeypatch):
    """Of each thing that what is known says, and no other place; in orders that training's captions never have."""
    monkeypatch.setattr(captions, "thing_words", lambda rng, thing: f"the {thing.position} thing")
    seen = {"turned": 0, "open": 0, "background first": 0, "place first": 0}
    for number in range(400):
        rng = np.random.default_rng([12, number])
        scene = scenes.random_scene(rng, "three" if number % 2 else "two")
        if captions.alike(scene.things):
            continue
        known, other = phrasings.couple(rng, scene)
        names = [f"the {thing.position} thing" for thing in scene.things]
        assert [known.index(name) for name in names] == sorted(known.index(name) for name in names)
        seen["turned"] += other.index(names[0]) > other.index(names[-1])
        seen["background first"] += scene.background in other[:other.index(" thing") - 8]
        if any(f"{names[1 - i]} {words} {names[i]}" in other for i in range(2)
               for words in captions.RELATION.get(scene.things[1 - i].position, ())):
            continue
        places = 0
        for thing, name in zip(scene.things, names):
            assert other.count(name) == 1
            for place, words in captions.PLACE_WORDS.items():
                beside = [f"{name} {said}" for said in words] + [f"{said} {name}" for said in words]
                said = any(text in other for text in beside)
                places += said
                seen["place first"] += any(f"{text} {name}" in other for text in words)
                # After a thing may come the place that the next one's words begin with.
                assert not said or place == thing.position or re.search(f"{name} .*the .* thing", other), other
        seen["open"] += places < len(names)
        assert places >= len(names) - (len(names) == 2)
    assert all(count > 25 for count in seen.values()), seen


def test_other_phrasings_have_no_words_but_those_of_captions():
    pytest.importorskip("torch")
    unet_training = pytest.importorskip("unet_training")
    vocabulary = unet_training.make_vocabulary(1, 3_000)
    for number in range(60):
        pictures, (known, other) = phrasings.draw(3, number)
        assert pictures.shape == (1, 128, 128, 3) and len(known) == len(other) == phrasings.CAPTIONS_PER_SCENE
        for text in (*known, *other):
            assert 0 not in vocabulary.encode(text), text


def test_emphasis_is_of_a_word():
    torch = pytest.importorskip("torch")
    unet_training = pytest.importorskip("unet_training")
    end = 9
    words = torch.tensor([[1, 5, 6, 7, end, end], [1, 5, end, end, end, end], [1, end, end, end, end, end]] * 40)
    at, weight = unet_training.emphasis_of(words, end, 120, torch.Generator().manual_seed(0))
    assert set(at[0::3].tolist()) == {1, 2, 3} and set(at[1::3].tolist()) == {1}
    said = torch.arange(120) % 3 < 2
    assert (weight[~said] == 1).all()
    assert (weight[said] >= unet_training.WEAKEST).all() and (weight[said] < unet_training.STRONGEST).all()
    assert weight[said].min() < 0.7 and weight[said].max() > 1.4


def test_the_exam_names_things_in_either_order():
    first = [scene.things[0].position for scene in judge.exam(300) if len(scene.things) == 2
             and not captions.alike(scene.things)]
    turned = sum(position in ("right", "bottom") for position in first)
    assert len(first) > 30 and 0.35 < turned / len(first) < 0.65


def test_contrast_is_nothing_when_words_do_what_they_should():
    torch = pytest.importorskip("torch")
    contrast, sampling = pytest.importorskip("contrast"), pytest.importorskip("sampling")
    products = sampling.alphas_cumprod()
    generator = torch.Generator().manual_seed(3)
    moments = (0.1 * torch.randn(5, 2, 2, 4, 16, 16, generator=generator).abs()).half()
    rows = torch.randint(100, (5, 2, 4, 77), generator=generator).to(torch.uint8)
    x0, t, words = contrast.batch_of(moments, rows, products, 989, 64, generator)
    assert x0.shape == (2, 64, 4, 16, 16) and words.shape == (2, 64, 77)
    half = (x0[0] - x0[1]).flatten(1).norm(dim=1) / 2
    ratio = half / ((1 - products) / products).sqrt()[t]
    assert (t < 989).all() and (ratio > 0.98 * contrast.HARDEST).all() and (ratio <= contrast.EASIEST).all()
    assert ratio.min() < 0.5 < 1.5 < ratio.max()
    far = contrast.batch_of(100 * moments, rows, products, 989, 64, generator)[1]
    assert (far == 989).all(), "what is seen at any noise is asked for at the most there is"
    product = products[t][:, None, None, None]
    x = torch.randn(64, 4, 16, 16, generator=generator)
    first, second = ((x - product.sqrt() * one) / (1 - product).sqrt() for one in x0)
    assert contrast.error(first, second, x0, t, products) < 1e-6
    assert abs(contrast.error(first, first, x0, t, products) - 1) < 1e-5
    assert contrast.error(second, first, x0, t, products) > 3


def test_with_the_share_of_before_guidance_is_the_one_that_files_tell():
    torch = pytest.importorskip("torch")
    unet_training = pytest.importorskip("unet_training")
    before, after = (torch.nn.Linear(4, 4) for _ in range(2))
    after.load_state_dict({name: weight / unet_training.TRAINED_IN for name, weight in before.state_dict().items()})
    unet_training.move(after, before.state_dict(), unet_training.BEFORE_GUIDANCE)
    assert torch.allclose(after.weight * unet_training.BUILT_IN, before.weight)
    assert unet_training.MARK == {"latentd_demo.guidance": "2.5"}


def test_guidance_that_is_built_in_is_what_guidance_does():
    torch = pytest.importorskip("torch")
    unet_training = pytest.importorskip("unet_training")
    generator = torch.Generator().manual_seed(4)
    plain, right = (torch.randn(3, 4, 16, 16, generator=generator) for _ in range(2))
    empty = torch.tensor([7, 8, 8])
    words = torch.tensor([[7, 1, 8], [7, 8, 8], [7, 2, 8]])
    # What a finished model should tell.
    made = (plain + (right - plain) / unet_training.BUILT_IN).requires_grad_(True)
    found = unet_training.with_guidance(plain, made, words, empty)
    assert torch.allclose(found[[0, 2]], right[[0, 2]], atol=1e-5)
    assert torch.equal(found[1], made[1]), "of an empty caption what it told"
