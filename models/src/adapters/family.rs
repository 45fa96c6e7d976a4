//! For which family of models a file was made, as far as it shows.

use crate::files::Tensors;

/// Told by its metadata, by names that only one family has, or by the width of what its cross-attention sees: "SDXL".
pub(super) fn family(file: &Tensors) -> Option<&'static str> {
    of_metadata(file).or_else(|| of_names(file)).or_else(|| of_width(file))
}

/// As families are told.
pub(super) fn of_context_width(width: usize) -> Option<&'static str> {
    match width {
        768 => Some("Stable Diffusion 1"),
        1024 => Some("Stable Diffusion 2"),
        2048 => Some("SDXL"),
        _ => None,
    }
}

fn of_metadata(file: &Tensors) -> Option<&'static str> {
    let said = |key: &str| file.metadata().get(key).map(|text| text.to_lowercase()).unwrap_or_default();
    if said("ss_v2") == "true" {
        return Some("Stable Diffusion 2");
    }
    let rows = [
        ("stable-diffusion-xl", "SDXL"),
        ("sdxl", "SDXL"),
        ("stable-diffusion-v1", "Stable Diffusion 1"),
        ("sd_v1", "Stable Diffusion 1"),
        ("stable-diffusion-v2", "Stable Diffusion 2"),
        ("sd_v2", "Stable Diffusion 2"),
        ("stable-diffusion-3", "Stable Diffusion 3"),
        ("sd3", "Stable Diffusion 3"),
        ("flux", "Flux"),
    ];
    let of = |text: &str| rows.iter().find(|(beginning, _)| text.starts_with(beginning)).map(|row| row.1);
    ["modelspec.architecture", "ss_base_model_version"].iter().find_map(|key| of(&said(key)))
}

fn of_names(file: &Tensors) -> Option<&'static str> {
    let any = |part: &str| file.names().any(|name| name.contains(part));
    if any("double_blocks") || any("single_transformer_blocks") {
        Some("Flux")
    } else if any("joint_blocks") || any("lora_te3_") {
        Some("Stable Diffusion 3")
    } else if any("lora_te2_") || any("text_encoder_2.") || any("lora_te1_") {
        Some("SDXL")
    } else {
        None
    }
}

fn of_width(file: &Tensors) -> Option<&'static str> {
    let is_down = |name: &str| name.contains("lora_down") || name.contains("lora_A");
    let is_key = |name: &str| name.contains("attn2_to_k") || name.contains("attn2.to_k");
    let keys = file.names().find(|name| is_key(name) && is_down(name))?;
    of_context_width(*file.shape(keys)?.get(1)?)
}
