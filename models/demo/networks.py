"""The three networks of the demo model, in Stable Diffusion 1's architecture, and their file in the LDM layout."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

import tokens

SCALE_FACTOR = 0.18215
LARGEST_FILE = 16_000_000
# After Stability AI's model metadata standard; the engine takes its default size of pictures from there.
ABOUT = {"format": "pt", "modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "stable-diffusion-v1",
         "modelspec.title": "latentd-demo", "modelspec.license": "MIT OR Apache-2.0",
         "modelspec.resolution": "128x128"}


@dataclass(frozen=True)
class Sizes:
    """Widths and depths; the README says why these."""

    text_width: int = 32
    text_layers: int = 3
    unet_channels: tuple = (96, 128)
    unet_blocks: int = 1
    vae_channels: tuple = (64, 32, 32, 96)
    vae_blocks: int = 1


SIZES = Sizes()


def make_vae(sizes=SIZES):
    return AutoencoderKL(
        block_out_channels=sizes.vae_channels, layers_per_block=sizes.vae_blocks, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=128, scaling_factor=SCALE_FACTOR)


@torch.no_grad()
def begin_simple(vae):
    """Starts the VAE as little more than a blur: residual branches add nothing, the rest passes channels through.

    From the usual start colours take thousands of steps to find a way past the norms.
    """
    for name, layer in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            layer.weight.zero_()
            layer.bias.zero_()
        elif name.endswith(("conv_shortcut", "samplers.0.conv")):
            out, inside, height, width = layer.weight.shape
            channel = torch.arange(max(out, inside))
            layer.weight *= 0.3
            layer.bias.zero_()
            if "downsamplers" in name:
                layer.weight[channel % out, channel % inside, :2, :2] += 0.25
            else:
                layer.weight[channel % out, channel % inside, height // 2, width // 2] += 1
    # Hardly any noise on the first latents.
    vae.quant_conv.weight[4:] *= 0.1
    vae.quant_conv.bias[4:] = -5


EDGES = ("encoder.conv_in", "encoder.conv_out", "quant_conv", "decoder.conv_in", "decoder.conv_out",
         "unet.conv_in", "unet.conv_out", "token_embedding", "position_embedding")


def is_edge(weight):
    """Whether a weight is a table, or of a layer where pictures or latents enter or leave."""
    return any(edge in weight for edge in EDGES)


def make_unet(sizes=SIZES, in_channels=4):
    levels = len(sizes.unet_channels)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=in_channels, block_out_channels=sizes.unet_channels,
        layers_per_block=sizes.unet_blocks,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        attention_head_dim=8, cross_attention_dim=sizes.text_width)  # diffusers' name for eight heads
    if not torch.cuda.is_available():
        # On a CPU PyTorch's own attention is slow backwards when heads are narrow.
        unet.set_attn_processor(AttnProcessor())
    with torch.no_grad():
        # As Stable Diffusion's training did: every residual branch begins by adding nothing.
        for name, layer in unet.named_modules():
            if name.endswith(("conv2", "proj_out", "conv_out")):
                layer.weight.zero_()
                layer.bias.zero_()
    return unet


def make_text(rows, sizes=SIZES):
    """CLIP's text encoder over `rows` tokens only: training keeps no weights for words that no caption has."""
    width = sizes.text_width
    # Plain attention: on a CPU PyTorch's own is slow backwards when heads are narrow.
    return CLIPTextModel(CLIPTextConfig(
        attn_implementation="eager",
        vocab_size=rows, hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_hidden_layers=sizes.text_layers, num_attention_heads=max(1, width // 64),
        max_position_embeddings=tokens.LENGTH, hidden_act="quick_gelu", bos_token_id=0, eos_token_id=1))


class Vocabulary:
    """The tokens that captions use, as rows of a small table; row 0 stands for every other token."""

    def __init__(self, ids):
        self.ids = sorted(ids)
        self.row = {token: 1 + i for i, token in enumerate(self.ids)}

    def __len__(self):
        return 1 + len(self.ids)

    def encode(self, caption):
        """(77,) rows."""
        return [self.row.get(token, 0) for token in tokens.encode(caption)]

    def spread(self, table):
        """(rows, width) → (49408, width): words never seen get the trained vector of row 0."""
        full = table[:1].expand(tokens.VOCABULARY, -1).clone()
        full[self.ids] = table[1:]
        return full


# --- latents of unit variance under the loader's fixed factor -------------------------------------------------------

@torch.no_grad()
def fold_scale(vae, mean, std):
    """Changes quant_conv and post_quant_conv so that latents · 0.18215 have mean 0 and variance 1 per channel.

    `mean` and `std`, (4,) each, are those of the latents before. Decoded pictures stay the same.
    """
    scale = std * SCALE_FACTOR
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:4] /= scale[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) / scale
    quant.bias[4:] -= 2 * scale.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= scale[None, :, None, None]


# --- LDM keys -------------------------------------------------------------------------------------------------------

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
          "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET_ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}


def unet_key(key, blocks):
    """The LDM name, below `model.diffusion_model.`, of a diffusers weight of a UNet with `blocks` blocks a level."""
    module, leaf = key.rsplit(".", 1)
    if module in UNET_ENDS:
        return f"{UNET_ENDS[module]}.{leaf}"
    parts = key.split(".")
    if parts[0] == "mid_block":
        place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return ".".join([f"middle_block.{place}", *unet_inside(parts[1], parts[3:])])
    level, kind, block = int(parts[1]), parts[2], int(parts[3])
    if parts[0] == "down_blocks":
        first = 1 + level * (blocks + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + blocks}.0.op.{leaf}"
        name = f"input_blocks.{first + block}.{int(kind == 'attentions')}"
    else:
        first = level * (blocks + 1)
        if kind == "upsamplers":
            return f"output_blocks.{first + blocks}.{2 if level == 0 else 1}.conv.{leaf}"
        name = f"output_blocks.{first + block}.{int(kind == 'attentions')}"
    return ".".join([name, *unet_inside(kind, parts[4:])])


def unet_inside(kind, parts):
    return [RESNET[parts[0]], *parts[1:]] if kind == "resnets" else parts


def vae_key(key):
    """The LDM name, below `first_stage_model.`, of a diffusers weight of the VAE."""
    half, *rest = key.split(".")
    match rest:
        case ["mid_block", "resnets", block, *inside]:
            return ".".join([half, "mid", f"block_{int(block) + 1}", *inside])
        case ["mid_block", "attentions", _, name, *_]:
            return f"{half}.mid.attn_1.{VAE_ATTENTION[name]}.{rest[-1]}"
        case ["down_blocks" | "up_blocks" as way, level, kind, block, *inside]:
            side = way.removesuffix("_blocks")
            at = int(level) if side == "down" else 3 - int(level)
            if kind != "resnets":
                return f"{half}.{side}.{at}.{side}sample.conv.{rest[-1]}"
            inside = ["nin_shortcut" if part == "conv_shortcut" else part for part in inside]
            return ".".join([half, side, str(at), "block", block, *inside])
        case ["conv_norm_out", leaf]:
            return f"{half}.norm_out.{leaf}"
    return key


TEXT_PREFIX = "cond_stage_model.transformer.text_model."
UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."


def named(text, unet, vae, vocabulary, sizes):
    """(LDM name, network's weight in the file's shape) of every weight."""
    for key, value in text.state_dict().items():
        key = key.removeprefix("text_model.")
        if key.endswith("position_ids"):
            continue
        if key == "embeddings.token_embedding.weight":
            value = vocabulary.spread(value)
        yield TEXT_PREFIX + key, value
    for key, value in unet.state_dict().items():
        yield UNET_PREFIX + unet_key(key, sizes.unet_blocks), value
    for key, value in vae.state_dict().items():
        key = vae_key(key)
        square = ".attn_1." in key and key.endswith(".weight") and ".norm." not in key
        yield VAE_PREFIX + key, value[:, :, None, None] if square else value


def verify(state, unet, vae):
    """diffusers' own reader of LDM files must find the very weights that were written."""
    plain = {key: value.float() for key, value in state.items()}
    for got, network in ((convert_ldm_unet_checkpoint(dict(plain), dict(unet.config)), unet),
                         (convert_ldm_vae_checkpoint(dict(plain), dict(vae.config)), vae)):
        wanted = network.state_dict()
        if got.keys() != wanted.keys():
            raise ValueError(f"weights lost or invented: {sorted(got.keys() ^ wanted.keys())}")
        for key, value in wanted.items():
            if not torch.equal(got[key], value.cpu().half().float()):
                raise ValueError(f"another weight under the name of {key}")


def load(path, vocabulary, sizes=SIZES):
    """(text encoder, UNet, VAE) of a file that `export` wrote; `vocabulary` may have words that it did not know."""
    state = {key: value.float() for key, value in load_file(path).items()}
    text, unet, vae = make_text(len(vocabulary), sizes), make_unet(sizes), make_vae(sizes)
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(state), dict(unet.config)))
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(state), dict(vae.config)))
    words = {key.removeprefix(TEXT_PREFIX): value for key, value in state.items() if key.startswith(TEXT_PREFIX)}
    own = {key: key.removeprefix("text_model.") for key in text.state_dict() if not key.endswith("position_ids")}
    if missing := sorted(set(own.values()) - words.keys()):
        raise ValueError(f"{path} lacks weights of the text encoder: {', '.join(missing)}")
    table = words["embeddings.token_embedding.weight"]
    known = torch.zeros(tokens.VOCABULARY, dtype=torch.bool)
    known[vocabulary.ids] = True
    # Row 0 is that of all other words.
    words["embeddings.token_embedding.weight"] = torch.cat([table[~known][:1], table[vocabulary.ids]])
    text.load_state_dict({key: words[name] for key, name in own.items()}, strict=False)
    return text, unet, vae


def export(path, text, unet, vae, vocabulary, sizes=SIZES, about=ABOUT, largest=LARGEST_FILE):
    """Writes the f16 checkpoint, whole or not at all; its size in bytes."""
    state = {key: value.detach().cpu().half().contiguous() for key, value in named(text, unet, vae, vocabulary, sizes)}
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"weights that f16 cannot hold: {broken}")
    verify(state, unet, vae)
    path = Path(path)
    part = path.with_suffix(".part")
    save_file(state, part, about)
    written = load_file(part)
    if written.keys() != state.keys() or not all(torch.equal(written[key], value) for key, value in state.items()):
        raise ValueError(f"{part} does not hold the weights that were written")
    size = part.stat().st_size
    if size > largest:
        raise ValueError(f"{path} would have {size} bytes, more than {largest}")
    part.chmod(0o644)
    os.replace(part, path)
    return size
