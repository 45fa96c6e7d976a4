"""Tests of the companions' pictures, masks, edges and files; those of the files run where torch and diffusers are."""

import copy
import re
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import judge  # noqa: E402
import scenes  # noqa: E402
from companions import edges, masks, patches, styles  # noqa: E402


def sample(count, kind=None, seed=17):
    return [scenes.random_scene(np.random.default_rng([seed, i]), kind) for i in range(count)]


def test_pencil_drawings_are_paper_and_graphite():
    for scene in sample(20):
        assert styles.pencil_share(styles.pencil(scene)) > 0.85, scene
        assert styles.pencil_share(scenes.draw(scene)) < 0.2, scene


def test_the_judge_reads_shapes_of_pencil_drawings():
    wanted = [scene for scene in sample(40, "one") if scene.shapes[0].shape != "ring"]
    marks = judge.tally([judge.judge(styles.coloured_in(styles.pencil(scene)), scene) for scene in wanted])
    assert marks["shape"] >= 0.97 and marks["position"] >= 0.97, marks


def test_autumn_has_warm_colours_that_can_be_told_apart():
    warm = [(scene, styles.autumn(scene)) for scene in sample(60)]
    assert all(styles.autumn(found) == found for _, found in warm if found)
    changed = [(scene, found) for scene, found in warm if found not in (None, scene)]
    assert len(changed) >= 30
    for scene, found in changed:
        colours = {found.background, *(getattr(thing, "colour", None) for thing in found.things)}
        assert not colours & styles.AUTUMN.keys(), scene
        assert all(judge.judge(scenes.draw(found), found).values()), scene
        # What is not in warm colours is marked as wrong.
        assert not all(judge.judge(scenes.draw(scene), found).values()), scene


@pytest.mark.parametrize("kind", masks.KINDS)
def test_masks_cover_something(kind):
    rng = np.random.default_rng(4)
    for scene in sample(15):
        mask = masks.random_mask(rng, scene, kind)
        assert mask.shape == (scenes.SIZE,) * 2 and mask.dtype == bool
        assert mask.all() if kind == "whole" else 0.005 < mask.mean() <= 1, kind
        assert np.array_equal(masks.latent(mask), mask[::8, ::8])


def test_masks_around_a_thing_hide_it():
    rng = np.random.default_rng(5)
    for scene in sample(20, "one"):
        mask = masks.random_mask(rng, scene, "thing")
        drawn = (scenes.draw(scene) != scenes.COLOURS[scene.background]).any(-1)
        assert (drawn & ~mask).sum() <= 0.1 * drawn.sum(), scene


def test_edges_lie_where_shapes_end():
    thing = scenes.Shape("square", "red", "plain", "medium", "centre", 64.0, 64.0, 30.0)
    found = edges.canny(scenes.draw(scenes.Scene("blue", (thing,))))
    rows, columns = np.nonzero(found)
    reach = 0.86 * 30
    far = np.maximum(np.abs(columns + 0.5 - 64), np.abs(rows + 0.5 - 64))
    assert np.abs(far - reach).max() < 1.5
    assert found.sum() > 8 * reach - 12
    assert not edges.canny(np.full((32, 32, 3), 77, np.uint8)).any()


def test_edges_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(6).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    for picture in [noise, *(scenes.draw(scene) for scene in sample(6))]:
        assert np.array_equal(edges.canny(picture), cv2.Canny(picture, edges.LOW, edges.HIGH) > 0)


def test_agreement_of_edges():
    first, second = (edges.canny(scenes.draw(scene)) for scene in sample(2, "one", seed=18))
    assert edges.agreement(first, first) == 1
    assert edges.agreement(np.roll(first, 1, 0), first) == 1
    assert edges.agreement(second, first) < 0.5
    assert edges.agreement(np.zeros_like(first), first) == 0


def test_patches_are_drawn_again_alike_and_held_out():
    large, small = patches.pair(192, 3, 5)
    assert large.shape == (192, 192, 3) and small.shape == (48, 48, 3) and large.dtype == small.dtype == np.uint8
    assert np.array_equal(patches.pair(192, 3, 5)[0], large)
    assert not np.array_equal(patches.pair(192, 3, 6)[0], large)
    wanted, smaller = patches.exam(3)
    assert wanted.shape == (3, 256, 256, 3) and smaller.shape == (3, 64, 64, 3)
    # What is drawn whole, at its own size, is what the scene draws.
    scene = sample(1, "one")[0]
    whole = np.clip(patches.enlarged(scene, 1.0, 0, 0, scenes.SIZE) + 0.5, 0, 255).astype(np.uint8)
    assert np.array_equal(whole, scenes.draw(scene))


def test_spandrel_reads_the_upscaler_as_training_did():
    torch = pytest.importorskip("torch")
    spandrel = pytest.importorskip("spandrel")
    from safetensors.torch import load_file

    from companions.upscaler import Compact

    path = Path(__file__).parent / "library" / "ESRGAN" / "latentd-demo-x4.safetensors"
    found = spandrel.ModelLoader("cpu").load_from_file(path)
    assert (found.scale, found.architecture.name) == (4, "RealESRGAN Compact")
    ours = Compact()
    ours.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    picture = torch.from_numpy(patches.exam(1)[1]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        assert torch.allclose(found.model(picture), ours(picture), atol=1e-5)


def a1111_takes(path):
    """Whether the archive has the names that A1111's releases allow in one; newer PyTorch puts others there too."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return "archive/data.pkl" in names and all(
        re.fullmatch(r"[^/]+/(data/\d+|version|data\.pkl)", name) for name in names)


def test_a1111_takes_the_pickles_here():
    found = list((Path(__file__).parent / "library").glob("*/*.pt"))
    assert {path.name for path in found} == {"autumn.pt", "zippy.pt"}
    assert all(map(a1111_takes, found))


# --- files ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def base(tmp_path):
    """A demo model of random weights."""
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("networks")
    import unet_training
    from companions.base import Base

    torch.manual_seed(0)
    vocabulary = networks.Vocabulary({networks.tokens.START, networks.tokens.END})
    unet = networks.make_unet()
    for weight in unet.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    path = tmp_path / "latentd-demo.safetensors"
    networks.export(path, networks.make_text(len(vocabulary)), unet, networks.make_vae(), vocabulary,
                    about=networks.ABOUT | unet_training.MARK)
    return Base(path, torch.device("cpu"), 1, smoke=True)


def bare(kind, base, network):
    """A companion that is not trained, only written."""
    one = object.__new__(kind)
    one.base, one.network, one.run = base, network, SimpleNamespace(plan=kind.SMOKE)
    return one


def shaken(network, by=0.1):
    """The network with all its weights moved."""
    import torch

    for weight in network.parameters():
        weight.data += by * torch.randn_like(weight)
    return network


def inputs():
    import torch

    return torch.randn(2, 4, 16, 16), torch.tensor([10, 700]), torch.randn(2, 77, 32)


def test_diffusers_applies_the_lora_as_training_did(base, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as loader

    from companions import lora

    plain_unet, plain_text = copy.deepcopy(base.unet), copy.deepcopy(base.text)
    one = bare(lora.Lora, base, lora.attach(base.unet, base.text))
    given = inputs()
    rows = base.rows(["a red circle on a blue background"])
    with torch.no_grad():
        assert torch.equal(base.eps(*given), plain_unet(*given).sample), "it begins by changing nothing"
        before = base.context(rows)
        shaken(one.network)
        [path] = one.write(tmp_path)
        assert path.stat().st_size < 1_000_000
        state, alphas = loader.lora_state_dict(path, unet_config=plain_unet.config)
        state = {key: value.float() for key, value in state.items()}
        loader.load_lora_into_unet(state, alphas, plain_unet)
        loader.load_lora_into_text_encoder(state, alphas, plain_text)
        made = base.eps(*given)
        assert torch.allclose(plain_unet(*given).sample, made, atol=1e-4 * float(made.abs().max()))
        assert torch.allclose(plain_text(input_ids=rows).last_hidden_state, base.context(rows), atol=1e-4)
        assert not torch.allclose(before, base.context(rows), atol=1e-2)


def test_a_word_stands_for_its_vectors(base, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    from companions import embedding

    spelled = "a smiling face with long black hair"
    rows = base.rows([spelled])
    assert len(embedding.tokens.tables()[1]) and (rows != 0).all()
    before = base.context(rows)
    table = base.text.get_input_embeddings().weight
    one = bare(embedding.Embedding, base, embedding.Word(base))
    one.network.vectors.data[:7] = table[rows[0, 1:8]]
    one.network.vectors.data[7] = table[rows[0, 8]]
    said = torch.tensor([embedding.encode(base.vocabulary, embedding.WORD)])
    assert torch.allclose(base.context(said), before, atol=1e-5)
    plain, pickled = one.write(tmp_path)
    whole = torch.load(pickled, weights_only=True)
    assert torch.equal(load_file(plain)["emb_params"], whole["string_to_param"]["*"])
    assert whole.keys() == {"string_to_token", "string_to_param", "name", "step", "sd_checkpoint", "sd_checkpoint_name"}
    assert len(whole["sd_checkpoint"]) == 10
    assert a1111_takes(pickled)


def test_the_word_is_found_anywhere_and_texts_stay_77_long(base):
    from companions import embedding

    vectors = list(range(len(base.vocabulary), len(base.vocabulary) + embedding.VECTORS))
    for text, at in ((embedding.WORD, [1]), (f"a {embedding.WORD} and {embedding.WORD}", [2, 11]), ("a face", [])):
        rows = embedding.encode(base.vocabulary, text)
        assert len(rows) == 77 and rows[-1] == base.vocabulary.row[embedding.tokens.END]
        assert [i for i in range(77) if rows[i:i + embedding.VECTORS] == vectors] == at
    assert len(embedding.encode(base.vocabulary, f"{embedding.WORD} " * 70)) == 77


def test_the_mascot_looks_as_it_should_and_captions_do_not_tell():
    pytest.importorskip("torch")
    from companions import embedding

    rng = np.random.default_rng(3)
    wanted = [embedding.mascot_scene(rng) for _ in range(10)]
    marks = judge.tally([judge.judge(scenes.draw(scene), scene) for scene in wanted])
    assert all(share >= 0.9 for share in marks.values()), marks
    for scene in wanted:
        assert {name: getattr(scene.face, name) for name in embedding.LOOK} == embedding.LOOK
        text = embedding.phrase(rng, scene)
        assert embedding.WORD in text and not any(word in text for word in ("hair", "hat", "glasses", "face")), text


def test_the_hypernetwork_changes_keys_and_values_as_its_file_says(base, tmp_path):
    torch = pytest.importorskip("torch")
    from companions import hypernetwork

    layers = [layer for path, layer in base.unet.named_modules() if path.endswith((".to_k", ".to_v"))]
    one = bare(hypernetwork.Hypernetwork, base, shaken(hypernetwork.attach(base.unet)))
    [path] = one.write(tmp_path)
    assert path.stat().st_size < 1_000_000 and a1111_takes(path)
    found = torch.load(path, weights_only=True)
    assert {key for key in found if isinstance(key, int)} == {32, 128} == {layer.in_features for layer in layers}
    assert found["layer_structure"] == [1, 2, 1] and found["activation_func"] == "relu"
    for path, layer in base.unet.named_modules():
        for which, name in enumerate((".to_k", ".to_v")):
            if path.endswith(name):
                side = {key: value.float() for key, value in found[layer.in_features][which].items()}
                x = torch.randn(2, 3, layer.in_features)
                inner = torch.relu(x @ side["linear.0.weight"].T + side["linear.0.bias"])
                changed = x + inner @ side["linear.2.weight"].T + side["linear.2.bias"]
                assert torch.allclose(layer(x), changed @ layer.weight.T, atol=1e-4)


@pytest.mark.parametrize(("kind", "channels"), [("inpainting", 9), ("velocity", 4)])
def test_whole_checkpoints_are_small_enough(base, tmp_path, kind, channels):
    pytest.importorskip("torch")
    from safetensors import safe_open
    from safetensors.torch import load_file

    import train_companions
    from companions import small

    one = bare(train_companions.KINDS[kind], base, small.Painter(channels))
    path, *sidecars = one.write(tmp_path)
    assert path.stat().st_size <= 12_000_000
    state, whole = load_file(path), load_file(base.path)
    assert state["model.diffusion_model.input_blocks.0.0.weight"].shape[1] == channels
    with safe_open(path, "pt") as file:
        assert not [key for key in file.metadata() if "prediction" in key], "only the yaml says it"
    shared = [key for key in whole if not key.startswith("model.diffusion_model.")]
    assert shared and all((state[key] == whole[key]).all() for key in shared)
    assert [file.name for file in sidecars] == (["latentd-demo-v.yaml"] if kind == "velocity" else [])
    assert all('parameterization: "v"' in file.read_text() for file in sidecars)


def test_a_smaller_unet_begins_as_a_part_of_the_demo_models():
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("networks")

    from companions import small

    assert small.kept(8, 4).tolist() == [0, 2, 4, 6]
    # What is concatenated: four of eight channels, then three of three.
    assert small.kept(11, 7).tolist() == [0, 2, 4, 6, 8, 9, 10]
    vocabulary = networks.Vocabulary({networks.tokens.START, networks.tokens.END})
    text, unet, _ = networks.load(Path(__file__).parent / "latentd-demo.safetensors", vocabulary)
    painter = small.Painter(4).begin_with(unet)
    inpainter = small.Painter(9).begin_with(unet)
    torch.manual_seed(0)
    x, beside = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 16, 16)
    with torch.no_grad():
        context = text(input_ids=torch.tensor([vocabulary.encode("")] * 2)).last_hidden_state
        for t, error in ((500, 0.1), (900, 0.01)):
            whole = unet(x, t, context).sample
            part = painter.unet(x, t, context).sample
            # Without its structure intact it would tell nothing: an error of 1.
            assert (part - whole).pow(2).mean() < error * whole.pow(2).mean()
            # A mask says nothing yet.
            assert torch.allclose(inpainter.unet(torch.cat([x, beside], 1), t, context).sample, part, atol=1e-5)


def test_eps_and_v_say_the_same(base):
    torch = pytest.importorskip("torch")
    from companions import velocity

    t = torch.tensor([3, 500, 999])
    signal, level = velocity.ends(base.products, t.float())
    assert torch.allclose(signal.flatten(), base.products[t].sqrt(), atol=1e-5)
    x0, eps = torch.randn(3, 4, 16, 16), torch.randn(3, 4, 16, 16)
    x = signal * x0 + level * eps
    unet = lambda *_: SimpleNamespace(sample=signal * eps - level * x0)  # noqa: E731
    one = bare(velocity.Velocity, base, SimpleNamespace(unet=unet))
    assert torch.allclose(one.eps(x, t.float(), None), eps, atol=1e-4)


def test_the_v_variant_is_taught_by_the_demo_model(base):
    torch = pytest.importorskip("torch")
    from contextlib import nullcontext

    from companions import velocity

    one = bare(velocity.Velocity, base, None)
    one.run = SimpleNamespace(bf16=nullcontext)
    t = torch.tensor([3, 500, 999])
    signal, level = velocity.ends(base.products, t.float())
    x, words = torch.randn(3, 4, 16, 16), base.rows(["a red circle", "", "a face"])
    base.samples = lambda *_: SimpleNamespace(x=x, t=t, words=words, weight=torch.ones(3, 1, 1, 1))
    one.examples = None
    student = lambda x, t, context: SimpleNamespace(  # noqa: E731
        sample=(base.eps(x, t, context) - level * x) / signal)
    one.network = SimpleNamespace(unet=student)
    loss, facts = one.advance(0)
    assert loss < 1e-8 and facts["v_mse"] < 1e-6
    one.network = SimpleNamespace(unet=lambda *inputs: SimpleNamespace(sample=student(*inputs).sample + 1 / signal))
    assert abs(one.advance(0)[0] - 1) < 1e-3, "an error of v weighs as the error of eps that it makes"


def test_the_inpainting_model_is_taught_by_the_demo_model_where_all_is_masked(base):
    torch = pytest.importorskip("torch")
    from contextlib import nullcontext

    from companions import inpainting

    one = bare(inpainting.Inpainting, base, None)
    one.run = SimpleNamespace(bf16=nullcontext)
    x, t, _ = inputs()
    words, eps, mask = base.rows(["a red circle", "a face"]), torch.randn_like(x), torch.ones(2, 1, 16, 16)
    samples = SimpleNamespace(x=x, t=t, words=words, eps=eps)
    with torch.no_grad():
        taught = base.guided(one.run, samples, base.eps)
    assert torch.allclose(one.wanted(samples, mask), taught, atol=1e-4)
    mask[0, 0, 3, 3] = 0
    made = one.wanted(samples, mask)
    assert torch.equal(made[0], eps[0]) and torch.allclose(made[1], taught[1], atol=1e-4)
    mask[:] = 0
    assert torch.equal(one.wanted(samples, mask), eps)


def test_guidance_is_built_into_companions_too(base):
    torch = pytest.importorskip("torch")
    from contextlib import nullcontext

    import unet_training
    from companions import lora

    network = shaken(lora.attach(base.unet, base.text))
    x, t, _ = inputs()
    words = base.rows(["a red circle", ""])
    run, one = SimpleNamespace(bf16=nullcontext), SimpleNamespace(x=x, t=t, words=words)
    made = base.guided(run, one, base.eps)
    told, plain = (base.eps(x, t, base.context(rows)) for rows in (words, base.rows(["", ""])))
    assert torch.allclose(made[0], plain[0] + unet_training.BUILT_IN * (told[0] - plain[0]), atol=1e-4)
    assert torch.allclose(made[1], plain[1], atol=1e-5)
    made.pow(2).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters())


def test_the_controlnet_begins_by_changing_nothing_and_has_its_layout(base, tmp_path):
    torch = pytest.importorskip("torch")
    from diffusers import ControlNetModel
    from safetensors.torch import load_file

    from companions import controlnet

    one = bare(controlnet.ControlNet, base, ControlNetModel.from_unet(base.unet))
    given, hint = inputs(), torch.ones(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.allclose(one.eps(*given, hint), base.eps(*given), atol=1e-5)
        shaken(one.network)
        assert not torch.allclose(one.eps(*given, hint), base.eps(*given), atol=1e-2)
        [path] = one.write(tmp_path)
    assert path.stat().st_size <= 12_000_000
    keys = load_file(path).keys()
    stem = {f"control_model.input_hint_block.{at}.weight" for at in range(0, 16, 2)}
    zeros = {f"control_model.zero_convs.{at}.0.weight" for at in range(4)} | {"control_model.middle_block_out.0.weight"}
    assert stem | zeros | {"control_model.time_embed.0.weight"} <= keys
    # Everything else is named as in the base.
    ours = {key.removeprefix("control_model.") for key in keys - stem - zeros if key.endswith(".weight")}
    theirs = {key.removeprefix("model.diffusion_model.") for key in load_file(base.path)}
    assert ours <= theirs


def test_hints_are_the_edges_again():
    torch = pytest.importorskip("torch")
    from companions import controlnet

    found = np.stack([edges.canny(scenes.draw(scene)) for scene in sample(2)])
    hint = controlnet.hints(torch.from_numpy(np.packbits(found, -1)))
    assert hint.shape == (2, 3, 128, 128) and torch.equal(hint[:, 1].bool(), torch.from_numpy(found))


def test_a_base_without_its_guidance_is_refused(base, tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from companions.base import check_finished

    check_finished(base.path)
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(base.path), plain, {"format": "pt"})
    with pytest.raises(SystemExit, match="says nothing of the guidance"):
        check_finished(plain)
