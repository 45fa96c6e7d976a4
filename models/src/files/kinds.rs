//! Which kinds of models a file holds, told by the names and shapes of its tensors.

use super::tensors::Tensors;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A whole model.
    Checkpoint,
    /// A VAE alone.
    Vae,
    /// A LoRA, or another adapter of its family: LoHa, LoKr, OFT, IA3, GLoRA, DoRA, differences.
    Lora,
    /// A textual-inversion embedding.
    Embedding,
    /// A hypernetwork.
    Hypernetwork,
    /// A ControlNet, or what is used like one: T2I and IP adapters, control LoRAs.
    ControlNet,
    /// A network that enlarges pictures.
    Upscaler,
    /// A network that restores faces: GFPGAN, CodeFormer.
    Restorer,
    /// A network that finds faces, or tells what of a face is what: `RetinaFace`, `ParseNet`.
    FaceModel,
    /// A small decoder or encoder in a VAE's place.
    Taesd,
    /// The half of a CLIP that sees pictures.
    ClipVision,
    /// A network that finds what should not be seen.
    Safety,
    /// None of these.
    Unknown,
}

/// A checkpoint's first convolution: (channels, input channels, 3, 3).
pub(super) const FIRST: &str = "model.diffusion_model.input_blocks.0.0.weight";

/// Parts of the names in adapters: LoRA as kohya, diffusers and PEFT write it, and what LyCORIS has.
const ADAPTERS: [&str; 12] = [
    "lora_up.",
    "lora_down.",
    "lora_A.",
    "lora_B.",
    ".lora.up.",
    "_lora.up.",
    "lora_linear_layer.up.",
    ".hada_w1_",
    ".lokr_w1",
    ".oft_blocks",
    ".oft_diag",
    ".on_input",
];

/// Beginnings of the names that kohya's kind of adapters has.
const KOHYA: [&str; 4] = ["lora_unet_", "lora_te_", "lora_te1_", "lora_te2_"];

/// Ends of the names in such an adapter that are nothing by themselves: GLoRA's, and whole differences.
const KOHYA_ENDS: [&str; 5] = [".a1.weight", ".b1.weight", ".diff", ".diff_b", ".w_norm"];

/// Parts of the names in ControlNets and their kin, where they begin so.
const CONTROL: [&str; 7] = [
    "lora_controlnet",
    "lllite_unet",
    "ip_adapter.",
    "image_proj.",
    "body.0.in_conv.",
    "body.0.resnets.",
    "adapter.body.0.",
];

/// Sizes of keys and values that A1111's hypernetworks have a pair of networks for.
const HYPERNETWORK: [&str; 5] = ["320.", "640.", "768.", "1024.", "1280."];

/// All that a file holds, what it is for first.
pub(super) fn kinds(file: &Tensors) -> Vec<FileKind> {
    let has = |name: &str| file.shape(name).is_some();
    let any = |test: &dyn Fn(&str) -> bool| file.names().any(test);
    let is_checkpoint = has(FIRST);
    let rows = [
        (FileKind::Checkpoint, is_checkpoint),
        (FileKind::Lora, any(&is_of_adapter)),
        (FileKind::ControlNet, any(&|name| is_of_control(file, name))),
        // A checkpoint's own is part of it.
        (
            FileKind::Vae,
            has("decoder.conv_in.weight")
                || (!is_checkpoint && has("first_stage_model.decoder.conv_in.weight")),
        ),
        (
            FileKind::Embedding,
            has("emb_params") || (has("clip_l") && has("clip_g")) || file.has_under("string_to_param"),
        ),
        (FileKind::Hypernetwork, any(&is_of_hypernetwork)),
        (FileKind::Taesd, is_taesd(file)),
        (FileKind::Restorer, any(&is_of_restorer)),
        (FileKind::FaceModel, any(&is_of_face_model)),
        (FileKind::Upscaler, any(&is_of_upscaler)),
        (FileKind::Safety, has("concept_embeds")),
        (
            FileKind::ClipVision,
            !is_checkpoint
                && (has("vision_model.embeddings.patch_embedding.weight") || has("visual.conv1.weight")),
        ),
    ];
    rows.into_iter().filter_map(|(kind, holds)| holds.then_some(kind)).collect()
}

fn is_of_adapter(name: &str) -> bool {
    ADAPTERS.iter().any(|part| name.contains(part))
        || (KOHYA.iter().any(|start| name.starts_with(start))
            && KOHYA_ENDS.iter().any(|end| name.ends_with(end)))
}

fn is_of_control(file: &Tensors, name: &str) -> bool {
    name.contains("input_hint_block.")
        || name.contains("controlnet_cond_embedding.")
        || CONTROL.iter().any(|start| name.starts_with(start))
        // The other T2I adapters: residual blocks of two convolutions. An upscaler's are of other names.
        || (name == "body.0.block1.weight" && file.shape("body.0.block2.weight").is_some())
}

/// `SIZE.0.linear.0.weight`: for keys the first network, for values the second.
fn is_of_hypernetwork(name: &str) -> bool {
    let rest = HYPERNETWORK.iter().find_map(|size| name.strip_prefix(size));
    let linear = rest.and_then(|rest| rest.strip_prefix("0.").or_else(|| rest.strip_prefix("1.")));
    linear.is_some_and(|linear| linear.starts_with("linear"))
}

/// GFPGAN has a StyleGAN in it; CodeFormer a codebook and a transformer over it.
fn is_of_restorer(name: &str) -> bool {
    let name = without_wrapper(name);
    name.starts_with("stylegan_decoder.") || name.starts_with("ft_layers.0.")
}

/// `RetinaFace`'s head for classes; what `ParseNet` tells the parts by.
fn is_of_face_model(name: &str) -> bool {
    let name = without_wrapper(name);
    name == "ClassHead.0.conv1x1.weight" || name == "out_mask_conv.conv2d.weight"
}

/// ESRGAN's dense blocks by all their names, `SwinIR`'s and DAT's groups, SPAN's first block, the compact Real-ESRGAN.
fn is_of_upscaler(name: &str) -> bool {
    let name = without_wrapper(name);
    name.contains(".rdb1.conv1.")
        || name.contains(".RDB1.conv1.")
        || (name.starts_with("layers.0.") && name.contains("relative_position_bias_table"))
        || name.starts_with("layers.0.blocks.0.attn.attns.")
        || name.starts_with("block_1.c1_r.")
        || name == "body.0.weight"
}

/// BasicSR wraps its weights in a table by how they were averaged; where several devices trained, `module` is around them.
fn without_wrapper(name: &str) -> &str {
    let wrappers = ["params_ema.", "params-ema.", "params.", "state_dict.", "model_state_dict."];
    let inner = wrappers.iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name);
    inner.strip_prefix("module.").unwrap_or(inner)
}

/// TAESD's halves as its author, diffusers and ComfyUI name them, and A1111's old approximation.
fn is_taesd(file: &Tensors) -> bool {
    let is = |name: &str, output: usize, inputs: &[usize], kernel: usize| {
        file.shape(name).is_some_and(|shape| {
            matches!(shape, [out, input, height, width]
                if *out == output && inputs.contains(input) && (*height, *width) == (kernel, kernel))
        })
    };
    let decodes = |prefix: &str| is(&format!("{prefix}1.weight"), 64, &[4, 16], 3);
    let encodes = |prefix: &str| {
        is(&format!("{prefix}0.weight"), 64, &[3], 3) && is(&format!("{prefix}1.conv.0.weight"), 64, &[64], 3)
    };
    decodes("")
        || encodes("")
        || ["decoder.", "taesd_decoder."].into_iter().any(decodes)
        || ["encoder.", "taesd_encoder."].into_iter().any(encodes)
        // diffusers has the clamp before the first convolution, which has no weights, elsewhere.
        || is("decoder.layers.0.weight", 64, &[4, 16], 3)
        || is("decoder.layers.1.weight", 64, &[4, 16], 3)
        || (is("conv1.weight", 8, &[4], 7) && is("conv8.weight", 3, &[8], 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::from_bytes;

    /// A tensor's name and shape.
    type Named<'a> = (&'a str, &'a [usize]);

    /// A file with tensors of these names and shapes.
    fn file(tensors: &[Named<'_>]) -> Tensors {
        let (mut entries, mut end) = (Vec::new(), 0);
        for (name, shape) in tensors {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            entries.push(format!(
                r#""{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
            ));
        }
        let header = format!("{{{}}}", entries.join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat();
        from_bytes("table", bytes).expect("sound")
    }

    #[test]
    fn each_kind_is_told_by_its_names() {
        use FileKind as K;
        let one: &[usize] = &[1];
        let rows: [(&[Named<'_>], &[FileKind]); 42] = [
            (&[(FIRST, &[1, 4, 3, 3])], &[K::Checkpoint]),
            (
                &[(FIRST, &[1, 4, 3, 3]), ("control_model.input_hint_block.0.weight", one)],
                &[K::Checkpoint, K::ControlNet],
            ),
            (&[("lora_unet_mid_block.lora_up.weight", one)], &[K::Lora]),
            (&[("unet.mid_block.attn.processor.to_q_lora.up.weight", one)], &[K::Lora]),
            (&[("unet.mid_block.to_q.lora.up.weight", one)], &[K::Lora]),
            (&[("text_encoder.a.lora_linear_layer.up.weight", one)], &[K::Lora]),
            (&[("base_model.model.a.lora_A.weight", one)], &[K::Lora]),
            (&[("lora_unet_a.hada_w1_a", one)], &[K::Lora]),
            (&[("lora_unet_a.lokr_w1", one)], &[K::Lora]),
            (&[("lora_unet_a.lokr_w1_a", one)], &[K::Lora]),
            (&[("lora_unet_a.oft_blocks", one)], &[K::Lora]),
            (&[("lora_unet_a.oft_diag", one)], &[K::Lora]),
            (&[("lora_unet_a.weight", one), ("lora_unet_a.on_input", one)], &[K::Lora]),
            (&[("lora_unet_a.a1.weight", one)], &[K::Lora]),
            (&[("lora_te_a.diff", one)], &[K::Lora]),
            (&[("other.diff", one)], &[]),
            (&[("emb_params", &[1, 768])], &[K::Embedding]),
            (&[("clip_l", &[1, 768]), ("clip_g", &[1, 1280])], &[K::Embedding]),
            (&[("string_to_param.*", &[1, 768])], &[K::Embedding]),
            (&[("768.0.linear.0.weight", one)], &[K::Hypernetwork]),
            (&[("1280.1.linear1.weight", one)], &[K::Hypernetwork]),
            (&[("768.linear.weight", one)], &[]),
            (&[("decoder.conv_in.weight", one)], &[K::Vae]),
            (&[("1.weight", &[64, 4, 3, 3])], &[K::Taesd]),
            (&[("0.weight", &[64, 3, 3, 3]), ("1.conv.0.weight", &[64, 64, 3, 3])], &[K::Taesd]),
            (&[("decoder.layers.0.weight", &[64, 4, 3, 3])], &[K::Taesd]),
            (&[("taesd_decoder.1.weight", &[64, 16, 3, 3])], &[K::Taesd]),
            (&[("conv1.weight", &[8, 4, 7, 7]), ("conv8.weight", &[3, 8, 3, 3])], &[K::Taesd]),
            (&[("model.1.sub.0.RDB1.conv1.0.weight", one)], &[K::Upscaler]),
            (&[("params_ema.body.0.rdb1.conv1.weight", one)], &[K::Upscaler]),
            (&[("params.body.0.weight", one)], &[K::Upscaler]),
            (&[("state_dict.module.body.0.weight", one)], &[K::Upscaler]),
            (&[("block_1.c1_r.sk.weight", one)], &[K::Upscaler]),
            (&[("params_ema.stylegan_decoder.a", one)], &[K::Restorer]),
            (&[("params_ema.ft_layers.0.norm1.weight", one)], &[K::Restorer]),
            (&[("module.ClassHead.0.conv1x1.weight", one)], &[K::FaceModel]),
            (&[("out_mask_conv.conv2d.weight", one)], &[K::FaceModel]),
            (&[("body.0.in_conv.weight", one), ("body.0.block1.weight", one)], &[K::ControlNet]),
            (&[("lora_controlnet", one)], &[K::ControlNet]),
            (&[("vision_model.embeddings.patch_embedding.weight", one)], &[K::ClipVision]),
            (&[("concept_embeds", one)], &[K::Safety]),
            (&[("weight", &[1, 768])], &[]),
        ];
        for (tensors, expected) in rows {
            assert_eq!(kinds(&file(tensors)), expected, "{tensors:?}");
        }
    }
}
