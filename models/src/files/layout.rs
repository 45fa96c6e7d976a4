//! After whose manner a file names Stable Diffusion's networks. Whatever it is, they are asked for by LDM's names, so that
//! nobody above needs to know.

use super::ema;
use super::layout_names::{CLIP, CONTROL, Layout, Names, UNET, VAE};
use super::tensors::Tensors;
use crate::Result;

/// How the oldest checkpoints begin the names of the text encoder's tensors.
const OLD_CLIP: &str = "cond_stage_model.transformer.";

/// Where in a file in diffusers' layout the networks are: what their names begin with, if they are there.
struct Places {
    unet: Option<&'static str>,
    vae: Option<&'static str>,
    text_encoder: Option<&'static str>,
    text_encoder_2: Option<&'static str>,
}

/// The same file, with LDM's names for networks of Stable Diffusion; an error if two of its tensors have one of those.
pub(super) fn recognised(file: Tensors) -> Result<Tensors> {
    if let Some(places) = Places::of(&file) {
        let names = places.names(&file);
        return Ok(file.renamed_apart(names)?.with_layout(Some(Layout::Diffusers)));
    }
    let has = |name: &str| file.shape(name).is_some();
    if has("controlnet_cond_embedding.conv_in.weight") {
        let names = control_names(&file);
        return file.renamed_apart(names);
    }
    if has("input_hint_block.0.weight") {
        return Ok(file.with_prefix("", CONTROL));
    }
    if has("decoder.conv_in.weight") && file.has_under("decoder.up.") {
        let names =
            under(&file, "").map(|name| (format!("{VAE}{name}"), name.to_owned())).collect::<Vec<_>>();
        return Ok(file.renamed_apart(names)?.with_layout(Some(Layout::Ldm)));
    }
    let file = if file.has_under(UNET) { file } else { ema::instead(file)? };
    let is_old = !file.has_under(CLIP) && file.has_under(&format!("{OLD_CLIP}embeddings."));
    let file = if is_old { file.with_prefix(OLD_CLIP, CLIP) } else { file };
    let is_ldm = file.has_under(UNET) || file.has_under(VAE);
    Ok(file.with_layout(is_ldm.then_some(Layout::Ldm)))
}

/// What follows a prefix in the names that begin with it.
fn under<'a>(file: &'a Tensors, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    file.names().filter_map(move |name| name.strip_prefix(prefix))
}

impl Places {
    /// In a folder each network has one; in a single file they may stand side by side, or one alone.
    fn of(file: &Tensors) -> Option<Self> {
        let has = |name: &str| file.shape(name).is_some();
        let within = |prefix: &'static str| file.has_under(prefix).then_some(prefix);
        if file.format() == "folder" {
            let [unet, vae, text_encoder, text_encoder_2] =
                ["unet/", "vae/", "text_encoder/", "text_encoder_2/"].map(within);
            return Some(Self { unet, vae, text_encoder, text_encoder_2 });
        }
        if has("unet.conv_in.weight") || has("vae.decoder.conv_in.weight") {
            let [unet, vae, text_encoder, text_encoder_2] =
                ["unet.", "vae.", "text_encoder.", "text_encoder_2."].map(within);
            return Some(Self { unet, vae, text_encoder, text_encoder_2 });
        }
        let none = Self { unet: None, vae: None, text_encoder: None, text_encoder_2: None };
        if has("decoder.conv_in.weight") && file.has_under("decoder.up_blocks.") {
            return Some(Self { vae: Some(""), ..none });
        }
        // A ControlNet has the same way down.
        let is_unet =
            has("conv_in.weight") && has("time_embedding.linear_1.weight") && has("conv_out.weight");
        (is_unet && file.has_under("up_blocks.")).then_some(Self { unet: Some(""), ..none })
    }

    /// Pairs of LDM's name and the file's own.
    fn names(&self, file: &Tensors) -> Vec<(String, String)> {
        let mut names = vec![];
        let mut add = |prefix: &str, to: &dyn Fn(&str) -> String| {
            names.extend(under(file, prefix).map(|name| (to(name), format!("{prefix}{name}"))));
        };
        if let Some(prefix) = self.unet {
            let unet = Names::of_unet(Layout::Ldm, under(file, prefix));
            add(prefix, &|name| format!("{UNET}{}", unet.translated(name)));
        }
        if let Some(prefix) = self.vae {
            let vae = Names::of_vae(Layout::Ldm, under(file, prefix));
            add(prefix, &|name| format!("{VAE}{}", vae.translated(name)));
        }
        let width = self.unet.and_then(|prefix| context_width(file, prefix));
        let is_sdxl = self.text_encoder_2.is_some() || width == Some(2048);
        if let Some(prefix) = self.text_encoder {
            // What is not drawn with is told apart by how these begin; the rest are not LDM's names.
            let (ldm, has_model) = match (is_sdxl, width) {
                (true, _) => ("conditioner.embedders.0.transformer.text_model.", true),
                (false, Some(1024)) => ("cond_stage_model.model.", false),
                _ => (CLIP, true),
            };
            // transformers 5 leaves `text_model.` away.
            let bare = |name: &str| match name.strip_prefix("text_model.") {
                Some(bare) if has_model => bare.to_owned(),
                _ => name.to_owned(),
            };
            add(prefix, &|name| format!("{ldm}{}", bare(name)));
        }
        if let Some(prefix) = self.text_encoder_2 {
            add(prefix, &|name| format!("conditioner.embedders.1.model.{name}"));
        }
        names
    }
}

/// Begins diffusers' names of what a ControlNet sees its picture with.
const STEM: &str = "controlnet_cond_embedding.";

/// Blocks of that, beside the first convolution and the last.
fn stem_blocks(file: &Tensors) -> usize {
    (0..MOST_BLOCKS).take_while(|index| file.has_under(&format!("{STEM}blocks.{index}."))).count()
}

/// More than any has.
const MOST_BLOCKS: usize = 64;

/// Pairs of LDM's name and diffusers' of a ControlNet, which has a UNet's way down.
fn control_names(file: &Tensors) -> Vec<(String, String)> {
    let down = Names::of_unet(Layout::Ldm, file.names());
    let blocks = stem_blocks(file);
    let translated = |name: &str| {
        if let Some(rest) = name.strip_prefix("controlnet_down_blocks.") {
            let (index, part) = rest.split_once('.').unwrap_or((rest, ""));
            return format!("zero_convs.{index}.0.{part}");
        }
        if let Some(part) = name.strip_prefix("controlnet_mid_block.") {
            return format!("middle_block_out.0.{part}");
        }
        let Some(rest) = name.strip_prefix(STEM) else { return down.translated(name) };
        // Every second layer of LDM's is an activation.
        let layer = |index: usize, part: &str| format!("input_hint_block.{}.{part}", 2 * index);
        let numbered = |rest: &str| {
            let (index, part) = rest.split_once('.')?;
            Some(layer(index.parse::<usize>().ok().filter(|index| *index < blocks)? + 1, part))
        };
        let named = match rest.split_once('.') {
            Some(("conv_in", part)) => Some(layer(0, part)),
            Some(("conv_out", part)) => Some(layer(blocks + 1, part)),
            Some(("blocks", rest)) => numbered(rest),
            _ => None,
        };
        named.unwrap_or_else(|| name.to_owned())
    };
    file.names().map(|name| (format!("{CONTROL}{}", translated(name)), name.to_owned())).collect()
}

/// The same the other way for one of a ControlNet's tensors.
fn control_name(file: &Tensors, name: &str) -> String {
    if let Some((index, part)) = name.strip_prefix("zero_convs.").and_then(|rest| rest.split_once(".0.")) {
        return format!("controlnet_down_blocks.{index}.{part}");
    }
    if let Some(part) = name.strip_prefix("middle_block_out.0.") {
        return format!("controlnet_mid_block.{part}");
    }
    let layer = name.strip_prefix("input_hint_block.").and_then(|rest| rest.split_once('.'));
    if let Some((layer, part)) =
        layer.and_then(|(layer, part)| Some((layer.parse::<usize>().ok()? / 2, part)))
    {
        let blocks = stem_blocks(file);
        return match layer.checked_sub(1) {
            None => format!("{STEM}conv_in.{part}"),
            Some(block) if block < blocks => format!("{STEM}blocks.{block}.{part}"),
            Some(_) => format!("{STEM}conv_out.{part}"),
        };
    }
    let names = file.names_under(CONTROL).into_iter();
    let own = names.filter_map(|(name, _)| name.strip_prefix(CONTROL)).chain([name]);
    Names::of_unet(Layout::Diffusers, own).translated(name)
}

/// What a file in diffusers' layout would call a tensor that it lacks, by LDM's name.
pub(crate) fn would_be(file: &Tensors, name: &str) -> Option<String> {
    let is_control = file.shape("controlnet_cond_embedding.conv_in.weight").is_some();
    if let Some(rest) = name.strip_prefix(CONTROL).filter(|_| is_control) {
        return Some(control_name(file, rest));
    }
    let places = Places::of(file)?;
    let under = |prefix: &'static str| {
        file.names_under(prefix)
            .into_iter()
            .filter_map(move |(name, _)| name.strip_prefix(prefix))
            .chain(name.strip_prefix(prefix))
    };
    if let Some(rest) = name.strip_prefix(UNET) {
        let translated = Names::of_unet(Layout::Diffusers, under(UNET)).translated(rest);
        return places.unet.filter(|_| translated != rest).map(|place| format!("{place}{translated}"));
    }
    if let Some(rest) = name.strip_prefix(VAE) {
        let translated = Names::of_vae(Layout::Diffusers, under(VAE)).translated(rest);
        return places.vae.map(|place| format!("{place}{translated}"));
    }
    name.strip_prefix(CLIP).zip(places.text_encoder).map(|(rest, place)| format!("{place}{rest}"))
}

/// The width of what a UNet attends to.
fn context_width(file: &Tensors, prefix: &str) -> Option<usize> {
    let keys = file.names().find(|name| name.starts_with(prefix) && name.ends_with("attn2.to_k.weight"))?;
    file.shape(keys)?.get(1).copied()
}

/// A network as diffusers has it.
pub(crate) struct Network {
    /// Its folder.
    pub folder: &'static str,
    /// Pairs of its tensors' names and LDM's.
    pub names: Vec<(String, String)>,
}

/// The networks of Stable Diffusion 1.x that a file holds under LDM's names, in the order UNet, VAE, text encoder; without
/// names what it does not hold. What no network is made of is left out: the positions' numbers, and leftovers of training.
pub(crate) fn in_diffusers(file: &Tensors) -> [Network; 3] {
    let under = |prefix: &'static str| {
        let names =
            file.names_under(prefix).into_iter().filter_map(move |(name, _)| name.strip_prefix(prefix));
        let is_left_out = |name: &&str| {
            ["loss.", "model_ema."].iter().any(|prefix| name.starts_with(prefix))
                || *name == "embeddings.position_ids"
        };
        names.filter(move |name| !is_left_out(name)).collect::<Vec<_>>()
    };
    let pairs = |prefix: &str, names: Vec<&str>, translated: &dyn Fn(&str) -> String| {
        names.into_iter().map(|name| (translated(name), format!("{prefix}{name}"))).collect()
    };
    let (unet, vae) = (under(UNET), under(VAE));
    let unet_names = Names::of_unet(Layout::Diffusers, unet.iter().copied());
    let vae_names = Names::of_vae(Layout::Diffusers, vae.iter().copied());
    [
        Network { folder: "unet", names: pairs(UNET, unet, &|name| unet_names.translated(name)) },
        Network { folder: "vae", names: pairs(VAE, vae, &|name| vae_names.translated(name)) },
        Network {
            folder: "text_encoder",
            // With what transformers wrote until version 5: all versions read it.
            names: pairs(CLIP, under(CLIP), &|name| format!("text_model.{name}")),
        },
    ]
}
