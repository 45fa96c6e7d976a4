//! The names of Stable Diffusion's networks in the two layouts that people have, LDM's and diffusers'. They are computed
//! from the blocks that a file has, of whatever number.

use std::collections::BTreeMap;

/// Begins the names of a UNet in LDM's layout.
pub(crate) const UNET: &str = "model.diffusion_model.";
/// Of a ControlNet.
pub(crate) const CONTROL: &str = "control_model.";
/// Of a VAE.
pub(crate) const VAE: &str = "first_stage_model.";
/// Of CLIP's text encoder.
pub(crate) const CLIP: &str = "cond_stage_model.transformer.text_model.";

/// Whose names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// CompVis's latent diffusion, as checkpoints in one file have it.
    Ldm,
    /// Hugging Face's diffusers, as folders have it.
    Diffusers,
}

impl Layout {
    /// "ldm" or "diffusers".
    pub fn name(self) -> &'static str {
        match self {
            Self::Ldm => "ldm",
            Self::Diffusers => "diffusers",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ldm, Self::Diffusers].into_iter().find(|each| each.name() == name)
    }
}

/// Levels, and blocks of a level, that are believed. Real networks have up to four of each.
const MOST: usize = 32;

/// Parts of a block, as LDM and diffusers name them; other parts have one name.
type Parts = &'static [(&'static str, &'static str)];

const RESIDUAL: Parts = &[
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

const VAE_RESIDUAL: Parts = &[("nin_shortcut", "conv_shortcut")];

/// The last four as diffusers named them until 0.11; of two names in LDM's column the first is written.
const VAE_ATTENTION: Parts = &[
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
    ("q", "query"),
    ("k", "key"),
    ("v", "value"),
    ("proj_out", "proj_attn"),
];

/// The beginning of names, with a dot at the end, in each layout, and what goes on otherwise too.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    ldm: String,
    diffusers: String,
    parts: Parts,
}

/// The blocks of a network, by which its tensors are translated.
pub(crate) struct Names {
    to: Layout,
    blocks: BTreeMap<String, Block>,
}

impl Names {
    /// Those of a UNet whose tensors have these names.
    pub(crate) fn of_unet<'a>(to: Layout, names: impl Iterator<Item = &'a str>) -> Self {
        let mut blocks = vec![];
        for (ldm, diffusers) in [
            ("input_blocks.0.0.", "conv_in."),
            ("time_embed.0.", "time_embedding.linear_1."),
            ("time_embed.2.", "time_embedding.linear_2."),
            ("label_emb.0.0.", "add_embedding.linear_1."),
            ("label_emb.0.2.", "add_embedding.linear_2."),
            ("out.0.", "conv_norm_out."),
            ("out.2.", "conv_out."),
        ] {
            blocks.push(Block { ldm: ldm.into(), diffusers: diffusers.into(), parts: &[] });
        }
        let names: Vec<&str> = names.collect();
        let any_under = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
        let is_attended = match to {
            Layout::Ldm => any_under("mid_block.attentions.0."),
            Layout::Diffusers => any_under("middle_block.2."),
        };
        let mut pair = |ldm: &str, diffusers: &str, parts: Parts| {
            blocks.push(Block { ldm: ldm.to_owned(), diffusers: diffusers.to_owned(), parts });
        };
        pair("middle_block.0.", "mid_block.resnets.0.", RESIDUAL);
        if is_attended {
            pair("middle_block.1.", "mid_block.attentions.0.", &[]);
            pair("middle_block.2.", "mid_block.resnets.1.", RESIDUAL);
        } else {
            // Without a transformer the parts move up.
            pair("middle_block.1.", "mid_block.resnets.1.", RESIDUAL);
        }
        let ways = match to {
            Layout::Ldm => levels_of_diffusers(&names),
            Layout::Diffusers => levels_of_ldm(&names),
        };
        // LDM's first block down is the first convolution.
        let mut place = 1;
        for (level, Level { residuals, attended, sampler }) in ways.down.iter().enumerate() {
            for index in 0..*residuals {
                pair(
                    &format!("input_blocks.{place}.0."),
                    &format!("down_blocks.{level}.resnets.{index}."),
                    RESIDUAL,
                );
                if *attended {
                    pair(
                        &format!("input_blocks.{place}.1."),
                        &format!("down_blocks.{level}.attentions.{index}."),
                        &[],
                    );
                }
                place += 1;
            }
            if *sampler {
                let diffusers = format!("down_blocks.{level}.downsamplers.0.conv.");
                pair(&format!("input_blocks.{place}.0.op."), &diffusers, &[]);
                place += 1;
            }
        }
        place = 0;
        for (level, Level { residuals, attended, sampler }) in ways.up.iter().enumerate() {
            for index in 0..*residuals {
                pair(
                    &format!("output_blocks.{place}.0."),
                    &format!("up_blocks.{level}.resnets.{index}."),
                    RESIDUAL,
                );
                if *attended {
                    pair(
                        &format!("output_blocks.{place}.1."),
                        &format!("up_blocks.{level}.attentions.{index}."),
                        &[],
                    );
                }
                place += 1;
            }
            if *sampler && *residuals > 0 {
                let after = if *attended { 2 } else { 1 };
                let diffusers = format!("up_blocks.{level}.upsamplers.0.conv.");
                pair(&format!("output_blocks.{}.{after}.conv.", place - 1), &diffusers, &[]);
            }
        }
        Self::new(to, blocks)
    }

    /// Those of a VAE whose tensors have these names.
    pub(super) fn of_vae<'a>(to: Layout, names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.collect();
        let mut blocks = vec![];
        let mut pair = |ldm: String, diffusers: String, parts: Parts| {
            blocks.push(Block { ldm, diffusers, parts });
        };
        for (side, ldm_way, way, ldm_sampler, sampler) in [
            ("encoder", "down", "down_blocks", "downsample.conv", "downsamplers.0.conv"),
            ("decoder", "up", "up_blocks", "upsample.conv", "upsamplers.0.conv"),
        ] {
            pair(format!("{side}.norm_out."), format!("{side}.conv_norm_out."), &[]);
            pair(format!("{side}.mid.block_1."), format!("{side}.mid_block.resnets.0."), VAE_RESIDUAL);
            pair(format!("{side}.mid.attn_1."), format!("{side}.mid_block.attentions.0."), VAE_ATTENTION);
            pair(format!("{side}.mid.block_2."), format!("{side}.mid_block.resnets.1."), VAE_RESIDUAL);
            let (prefix, part) = match to {
                Layout::Ldm => (format!("{side}.{way}."), "resnets."),
                Layout::Diffusers => (format!("{side}.{ldm_way}."), "block."),
            };
            let rests: Vec<_> =
                names.iter().filter_map(|name| numbered(name.strip_prefix(prefix.as_str())?, "")).collect();
            let levels = rests.iter().map(|(level, _)| level + 1).max().unwrap_or(0);
            let blocks = rests.iter().filter_map(|(_, rest)| Some(numbered(rest, part)?.0 + 1));
            let blocks = blocks.max().unwrap_or(0);
            for level in 0..levels {
                // LDM counts from the largest size on both ways, diffusers in the order of the layers.
                let ldm_level = if side == "decoder" { levels - 1 - level } else { level };
                let ldm = format!("{side}.{ldm_way}.{ldm_level}.");
                let diffusers = format!("{side}.{way}.{level}.");
                for index in 0..blocks {
                    pair(
                        format!("{ldm}block.{index}."),
                        format!("{diffusers}resnets.{index}."),
                        VAE_RESIDUAL,
                    );
                }
                pair(format!("{ldm}{ldm_sampler}."), format!("{diffusers}{sampler}."), &[]);
            }
        }
        Self::new(to, blocks)
    }

    fn new(to: Layout, blocks: Vec<Block>) -> Self {
        let from = |block: &Block| match to {
            Layout::Ldm => block.diffusers.clone(),
            Layout::Diffusers => block.ldm.clone(),
        };
        Self { to, blocks: blocks.into_iter().map(|block| (from(&block), block)).collect() }
    }

    /// A tensor's name in the other layout; its own where that has no other.
    pub(crate) fn translated(&self, name: &str) -> String {
        let mut blocks = name.match_indices('.').filter_map(|(dot, _)| {
            let (prefix, rest) = name.split_at_checked(dot + 1)?;
            Some((self.blocks.get(prefix)?, rest))
        });
        // The longest one that is known.
        let Some((block, rest)) = blocks.next_back() else { return name.to_owned() };
        let to_ldm = self.to == Layout::Ldm;
        let to = if to_ldm { &block.ldm } else { &block.diffusers };
        for (ldm, diffusers) in block.parts {
            let (from, part) = if to_ldm { (diffusers, ldm) } else { (ldm, diffusers) };
            if let Some(end) = rest.strip_prefix(from).filter(|end| end.starts_with('.')) {
                return format!("{to}{part}{end}");
            }
        }
        format!("{to}{rest}")
    }
}

/// What a level of a UNet has.
#[derive(Clone, Default)]
struct Level {
    residuals: usize,
    attended: bool,
    /// Whether the size changes at its end.
    sampler: bool,
}

#[derive(Default)]
struct Levels {
    down: Vec<Level>,
    up: Vec<Level>,
}

/// The number that `rest` begins with after `prefix`, up to a dot, and what follows. More than is believed is none.
fn numbered<'a>(rest: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = rest.strip_prefix(prefix)?.split_once('.')?;
    let number = number.parse().ok().filter(|number| *number < MOST)?;
    Some((number, rest))
}

/// The level of this number, and those before it.
fn level(levels: &mut Vec<Level>, index: usize) -> Option<&mut Level> {
    if levels.len() <= index {
        levels.resize(index + 1, Level::default());
    }
    levels.get_mut(index)
}

fn levels_of_diffusers(names: &[&str]) -> Levels {
    let mut levels = Levels::default();
    for name in names {
        let (way, rest) = match (name.strip_prefix("down_blocks."), name.strip_prefix("up_blocks.")) {
            (Some(rest), _) => (&mut levels.down, rest),
            (None, Some(rest)) => (&mut levels.up, rest),
            (None, None) => continue,
        };
        let Some((index, rest)) = numbered(rest, "") else { continue };
        let Some(level) = level(way, index) else { continue };
        if let Some((residual, _)) = numbered(rest, "resnets.") {
            level.residuals = level.residuals.max(residual + 1);
        } else if rest.starts_with("attentions.") {
            level.attended = true;
        } else if rest.starts_with("downsamplers.0.") || rest.starts_with("upsamplers.0.") {
            level.sampler = true;
        }
    }
    levels
}

/// A block of LDM's ways, which has no levels: a change of size ends one.
#[derive(Default)]
struct LdmBlock {
    residual: bool,
    attended: bool,
    sampler: bool,
}

fn levels_of_ldm(names: &[&str]) -> Levels {
    let (mut down, mut up) = (BTreeMap::<usize, LdmBlock>::new(), BTreeMap::<usize, LdmBlock>::new());
    for name in names {
        let (blocks, rest) = match (name.strip_prefix("input_blocks."), name.strip_prefix("output_blocks.")) {
            (Some(rest), _) => (&mut down, rest),
            (None, Some(rest)) => (&mut up, rest),
            (None, None) => continue,
        };
        let Some((index, rest)) = numbered(rest, "") else { continue };
        let Some((place, rest)) = numbered(rest, "") else { continue };
        let block = blocks.entry(index).or_default();
        if rest.starts_with("op.") || rest.starts_with("conv.") {
            block.sampler = true;
        } else if place == 0 {
            block.residual = true;
        } else {
            block.attended = true;
        }
    }
    // The first convolution.
    down.remove(&0);
    let levels = |blocks: BTreeMap<usize, LdmBlock>| {
        let mut levels = vec![Level::default()];
        for block in blocks.into_values() {
            if let Some(level) = levels.last_mut() {
                level.residuals += usize::from(block.residual);
                level.attended |= block.attended;
                level.sampler = block.sampler;
            }
            if block.sampler {
                levels.push(Level::default());
            }
        }
        levels
    };
    Levels { down: levels(down), up: levels(up) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_a_name_is_the_same() {
        // Two levels, the first without attention and its middle without a transformer; two residual blocks down.
        let unet = [
            ("conv_in.weight", "input_blocks.0.0.weight"),
            ("down_blocks.0.resnets.0.norm1.weight", "input_blocks.1.0.in_layers.0.weight"),
            ("down_blocks.0.resnets.1.conv_shortcut.bias", "input_blocks.2.0.skip_connection.bias"),
            ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
            ("down_blocks.1.resnets.0.time_emb_proj.weight", "input_blocks.4.0.emb_layers.1.weight"),
            ("down_blocks.1.attentions.0.norm.weight", "input_blocks.4.1.norm.weight"),
            ("down_blocks.1.resnets.1.conv2.weight", "input_blocks.5.0.out_layers.3.weight"),
            (
                "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0.bias",
                "input_blocks.5.1.transformer_blocks.0.attn1.to_out.0.bias",
            ),
            ("mid_block.resnets.0.conv1.weight", "middle_block.0.in_layers.2.weight"),
            ("mid_block.resnets.1.conv1.weight", "middle_block.1.in_layers.2.weight"),
            ("up_blocks.0.resnets.0.norm2.weight", "output_blocks.0.0.out_layers.0.weight"),
            ("up_blocks.0.attentions.0.proj_in.weight", "output_blocks.0.1.proj_in.weight"),
            ("up_blocks.0.resnets.1.norm2.weight", "output_blocks.1.0.out_layers.0.weight"),
            ("up_blocks.0.attentions.1.proj_in.weight", "output_blocks.1.1.proj_in.weight"),
            ("up_blocks.0.upsamplers.0.conv.bias", "output_blocks.1.2.conv.bias"),
            ("up_blocks.1.resnets.0.norm2.weight", "output_blocks.2.0.out_layers.0.weight"),
            ("conv_norm_out.weight", "out.0.weight"),
            ("conv_out.bias", "out.2.bias"),
            ("time_embedding.linear_2.bias", "time_embed.2.bias"),
            ("nobody.knows.this", "nobody.knows.this"),
        ];
        let vae = [
            ("encoder.conv_in.weight", "encoder.conv_in.weight"),
            ("encoder.down_blocks.0.resnets.0.norm1.weight", "encoder.down.0.block.0.norm1.weight"),
            ("encoder.down_blocks.0.downsamplers.0.conv.weight", "encoder.down.0.downsample.conv.weight"),
            (
                "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
                "encoder.down.1.block.0.nin_shortcut.weight",
            ),
            ("decoder.up_blocks.0.resnets.1.conv1.weight", "decoder.up.2.block.1.conv1.weight"),
            ("decoder.up_blocks.0.upsamplers.0.conv.weight", "decoder.up.2.upsample.conv.weight"),
            ("decoder.up_blocks.2.resnets.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"),
            ("decoder.mid_block.attentions.0.group_norm.weight", "decoder.mid.attn_1.norm.weight"),
            ("decoder.mid_block.attentions.0.to_q.weight", "decoder.mid.attn_1.q.weight"),
            ("decoder.mid_block.attentions.0.to_out.0.bias", "decoder.mid.attn_1.proj_out.bias"),
            ("decoder.mid_block.resnets.1.conv2.bias", "decoder.mid.block_2.conv2.bias"),
            ("decoder.conv_norm_out.bias", "decoder.norm_out.bias"),
            ("quant_conv.weight", "quant_conv.weight"),
        ];
        let column = |rows: &[(&'static str, &'static str)], ldm: bool| -> Vec<&'static str> {
            rows.iter().map(|row| if ldm { row.1 } else { row.0 }).collect()
        };
        let names = |of: fn(Layout, std::vec::IntoIter<&'static str>) -> Names, rows| {
            let of = |to, ldm| of(to, column(rows, ldm).into_iter());
            (of(Layout::Ldm, false), of(Layout::Diffusers, true))
        };
        for (rows, (to_ldm, to_diffusers)) in
            [(&unet[..], names(Names::of_unet, &unet)), (&vae[..], names(Names::of_vae, &vae))]
        {
            for (diffusers, ldm) in rows {
                assert_eq!(to_ldm.translated(diffusers), *ldm);
                assert_eq!(to_diffusers.translated(ldm), *diffusers);
            }
        }
        let (to_ldm, _) = names(Names::of_vae, &vae);
        for (old, ldm) in
            [("query.weight", "q.weight"), ("proj_attn.bias", "proj_out.bias"), ("value.bias", "v.bias")]
        {
            let old = format!("encoder.mid_block.attentions.0.{old}");
            assert_eq!(to_ldm.translated(&old), format!("encoder.mid.attn_1.{ldm}"));
        }
    }

    #[test]
    fn numbers_beyond_reason_are_no_blocks() {
        let hostile = [
            "down_blocks.99999999999999999999.resnets.0.x",
            "up_blocks.31.resnets.31.x",
            "down_blocks.7000.resnets.1.x",
        ];
        let names = Names::of_unet(Layout::Ldm, hostile.into_iter());
        assert_eq!(names.translated(hostile[0]), hostile[0]);
        assert!(names.blocks.len() < 2 * MOST * MOST);
    }
}
