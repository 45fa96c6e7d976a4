"""Whether diffusers loads what `latentd models convert` wrote: by hand, with what tests/fixtures/requirements.txt lists.

    latentd models convert IN.safetensors OUT --layout diffusers
    python tests/layouts/diffusers_loads.py IN.safetensors OUT

All weights must be read, none be missing, and each be equal to the LDM file's as diffusers' own converters map them; the
tokenizer must give CLIP's ids, and the pipeline must draw.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file

TEXT = "cond_stage_model.transformer.text_model."


def same(name, network, wanted):
    found = {key.removeprefix("text_model."): value for key, value in network.state_dict().items()}
    assert found.keys() == wanted.keys(), (name, found.keys() ^ wanted.keys())
    for key, value in wanted.items():
        assert torch.equal(found[key].float(), value.float().reshape(found[key].shape)), (name, key)
    print(f"{name}: {len(wanted)} tensors are equal")


@torch.no_grad()
def main(file, folder):
    state = load_file(file)
    for kind, sub in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        _, info = kind.from_pretrained(Path(folder) / sub, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    same("unet", pipe.unet, convert_ldm_unet_checkpoint(dict(state), dict(pipe.unet.config)))
    same("vae", pipe.vae, convert_ldm_vae_checkpoint(dict(state), dict(pipe.vae.config)))
    text = {key.removeprefix(TEXT): value for key, value in state.items() if key.startswith(TEXT)}
    text.pop("embeddings.position_ids", None)
    same("text encoder", pipe.text_encoder, text)
    ids = pipe.tokenizer("a red circle, naïve 1girl").input_ids
    # As open_clip and transformers' slow tokenizer give them.
    assert ids[:5] == [49406, 320, 736, 7117, 267] and ids[-1] == 49407, ids
    print("tokens:", ids)
    out = pipe("a red circle", num_inference_steps=2, width=64, height=64, output_type="np",
               generator=torch.Generator().manual_seed(1)).images
    print("scheduler:", type(pipe.scheduler).__name__, pipe.scheduler.config.prediction_type, "picture:", out.shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
