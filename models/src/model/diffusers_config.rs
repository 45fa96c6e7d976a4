//! What stands beside the weights in a folder as diffusers saves it: configurations by which diffusers builds the networks,
//! and CLIP's tokenizer.

use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoint;
use crate::files::{Prediction, UNET};
use crate::networks::clip::ClipConfig;
use crate::networks::unet::{Block, UNetConfig};
use crate::networks::vae::VaeConfig;
use crate::prompt::{merges, vocabulary};
use crate::{Error, Result};

/// The folder's files and what is in them; an error where diffusers has no configuration for a network.
pub(super) fn texts(checkpoint: &Checkpoint) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let refused = |reason: &str| {
        let path = checkpoint.file().map(|file| file.path().display().to_string()).unwrap_or_default();
        Error::Unsupported(format!("{path}: {reason}, which diffusers' layout does not have"))
    };
    let is_linear = checkpoint.file().is_some_and(|file| {
        let names = file.names_under(UNET);
        let mut proj = names.iter().filter(|(name, _)| name.ends_with(".proj_in.weight"));
        proj.next().is_some_and(|(name, _)| file.shape(name).is_some_and(|shape| shape.len() == 2))
    });
    if !checkpoint.vae().encoder {
        return Err(refused("its VAE has no encoder"));
    }
    let levels =
        levels(checkpoint.unet()).ok_or_else(|| refused("its UNet is of blocks in another order"))?;
    let (width, height) = checkpoint.native_size;
    let failed = |error: std::io::Error| Error::Compute(format!("the tokenizer cannot be had: {error}"));
    let merges = merges().map_err(failed)?;
    let vocabulary: Map<String, Value> =
        vocabulary(&merges).into_iter().map(|(token, id)| (token, json!(id))).collect();
    let merges: Vec<_> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    let text = |value: Value| serde_json::to_vec_pretty(&value).map_err(|error| failed(error.into()));
    Ok(vec![
        ("model_index.json", text(model_index())?),
        ("scheduler/scheduler_config.json", text(scheduler(checkpoint.prediction))?),
        ("unet/config.json", text(unet(checkpoint.unet(), &levels, (width / 8, height / 8), is_linear))?),
        ("vae/config.json", text(vae(checkpoint.vae(), width.max(height), checkpoint.family.latent_scale))?),
        ("text_encoder/config.json", text(text_encoder(checkpoint.clip()))?),
        ("tokenizer/vocab.json", text(Value::Object(vocabulary))?),
        ("tokenizer/merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n")).into_bytes()),
        ("tokenizer/tokenizer_config.json", text(tokenizer(checkpoint.clip()))?),
        ("tokenizer/special_tokens_map.json", text(special_tokens())?),
    ])
}

/// One level of a UNet, the largest size first.
#[derive(Debug, PartialEq, Eq)]
struct Level {
    channels: usize,
    residuals: usize,
    depth: usize,
}

/// A UNet's levels, if its blocks are in the order of Stable Diffusion's: as many of one kind in each level, one more on the
/// way up, and a transformer in the middle as deep as those of the last level, or of any depth where that has none.
fn levels(config: &UNetConfig) -> Option<Vec<Level>> {
    let mut levels = vec![];
    let ways = config.input_blocks.split(|block| *block == Block::Downsample);
    for blocks in ways {
        let Some(Block::Residual { channels, depth, .. }) = blocks.first() else { return None };
        let first = Block::Residual { channels: *channels, depth: *depth, upsample: false };
        let is_same = blocks.iter().all(|block| *block == first);
        levels.push(Level { channels: *channels, residuals: blocks.len(), depth: *depth });
        is_same.then_some(())?;
    }
    let residuals = levels.first()?.residuals;
    let mut up = vec![];
    for (index, level) in levels.iter().enumerate().rev() {
        let block = |upsample| Block::Residual { channels: level.channels, depth: level.depth, upsample };
        up.extend((0..residuals).map(|_| block(false)));
        up.push(block(index > 0));
    }
    let last = levels.last()?.depth;
    let middle = config.middle_depth?;
    let is_known = up == config.output_blocks
        && levels.iter().all(|level| level.residuals == residuals)
        && (last == 0 || last == middle)
        && config.time_width == 4 * config.channels;
    is_known.then_some(levels)
}

fn model_index() -> Value {
    let none = [Value::Null, Value::Null];
    json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": none,
        "image_encoder": none,
        "requires_safety_checker": false,
        "safety_checker": none,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

fn scheduler(prediction: Prediction) -> Value {
    json!({
        "_class_name": "DDIMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": match prediction {
            Prediction::Epsilon => "epsilon",
            Prediction::Velocity => "v_prediction",
        },
        "set_alpha_to_one": false,
        "steps_offset": 1,
    })
}

fn unet(config: &UNetConfig, levels: &[Level], (width, height): (usize, usize), is_linear: bool) -> Value {
    let kind = |level: &Level, plain: &'static str, attended: &'static str| {
        if level.depth > 0 { attended } else { plain }
    };
    let down = |level| kind(level, "DownBlock2D", "CrossAttnDownBlock2D");
    let up = |level| kind(level, "UpBlock2D", "CrossAttnUpBlock2D");
    // The middle's is the last one's, which needs none of its own where it has no transformer.
    let middle = config.middle_depth.unwrap_or(1);
    let depth = |level: &Level| if level.depth > 0 { level.depth } else { middle };
    json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        // So diffusers calls the number of heads.
        "attention_head_dim": config.heads,
        "block_out_channels": levels.iter().map(|level| level.channels).collect::<Vec<_>>(),
        "center_input_sample": false,
        "cross_attention_dim": config.context_width,
        "down_block_types": levels.iter().map(down).collect::<Vec<_>>(),
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": config.in_channels,
        "layers_per_block": levels.first().map_or(0, |level| level.residuals),
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": config.out_channels,
        "sample_size": if width == height { json!(width) } else { json!([height, width]) },
        "transformer_layers_per_block": levels.iter().map(depth).collect::<Vec<_>>(),
        "up_block_types": levels.iter().rev().map(up).collect::<Vec<_>>(),
        "use_linear_projection": is_linear,
    })
}

fn vae(config: &VaeConfig, sample_size: usize, latent_scale: f64) -> Value {
    let levels = config.widths.len();
    json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": config.widths,
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "in_channels": 3,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.blocks,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": sample_size,
        "scaling_factor": latent_scale,
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
    })
}

fn text_encoder(config: &ClipConfig) -> Value {
    json!({
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": crate::prompt::BOS,
        "eos_token_id": crate::prompt::EOS,
        "hidden_act": "quick_gelu",
        "hidden_size": config.width,
        "intermediate_size": config.intermediate,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": config.positions,
        "model_type": "clip_text_model",
        "num_attention_heads": config.heads(),
        "num_hidden_layers": config.layers,
        "pad_token_id": 1,
        "projection_dim": config.width,
        "vocab_size": config.vocabulary,
    })
}

fn tokenizer(config: &ClipConfig) -> Value {
    json!({
        "add_prefix_space": false,
        "bos_token": "<|startoftext|>",
        "do_lower_case": true,
        "eos_token": "<|endoftext|>",
        "errors": "replace",
        "model_max_length": config.positions,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": "<|endoftext|>",
    })
}

fn special_tokens() -> Value {
    json!({
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_where_there_are_any() {
        let sd15 = UNetConfig::sd15();
        let level = |channels, depth| Level { channels, residuals: 2, depth };
        assert_eq!(levels(&sd15), Some(vec![level(320, 1), level(640, 1), level(1280, 1), level(1280, 0)]));
        let mut odd = sd15.clone();
        odd.middle_depth = None;
        assert_eq!(levels(&odd), None);
        let mut odd = sd15.clone();
        odd.output_blocks.pop();
        assert_eq!(levels(&odd), None);
        let mut odd = sd15.clone();
        odd.input_blocks.push(Block::Downsample);
        assert_eq!(levels(&odd), None);
        let mut odd = sd15;
        odd.input_blocks.swap(0, 3);
        assert_eq!(levels(&odd), None);
    }
}
