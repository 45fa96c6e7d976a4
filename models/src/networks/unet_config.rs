//! What a UNet is made of, read from the names and shapes of its tensors.

use super::detect::{MOST_IN_A_ROW, count, dim};
use super::unet_residuals::{ResidualPlace, ResidualSizes};
use crate::error::Result;
use crate::files::Tensors;

/// One step of the path down or up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A residual block to `channels`, then a transformer of `depth` blocks (0: none), then, on the way up, an
    /// enlargement.
    Residual {
        /// Output channels.
        channels: usize,
        /// Transformer blocks.
        depth: usize,
        /// Whether the size doubles at the end.
        upsample: bool,
    },
    /// Half the size.
    Downsample,
}

/// What can be told from the tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UNetConfig {
    /// Latent channels in.
    pub in_channels: usize,
    /// Latent channels out.
    pub out_channels: usize,
    /// Channels after the first convolution.
    pub channels: usize,
    /// Width of the time embedding.
    pub time_width: usize,
    /// Width of a conditioning token; 0 if no block attends to one.
    pub context_width: usize,
    /// The way down, after the first convolution.
    pub input_blocks: Vec<Block>,
    /// Transformer blocks in the middle; `None` if it has no transformer.
    pub middle_depth: Option<usize>,
    /// The way up.
    pub output_blocks: Vec<Block>,
    /// Attention heads of every transformer.
    pub heads: usize,
}

impl UNetConfig {
    /// Heads of SD 1.x, whatever the width.
    const HEADS: usize = 8;

    /// Stable Diffusion 1.5.
    pub fn sd15() -> Self {
        let residual = |channels, depth| Block::Residual { channels, depth, upsample: false };
        let mut input_blocks = vec![];
        let mut output_blocks = vec![];
        for (level, (channels, depth)) in [(320, 1), (640, 1), (1280, 1), (1280, 0)].into_iter().enumerate() {
            if level > 0 {
                input_blocks.push(Block::Downsample);
            }
            input_blocks.extend([residual(channels, depth), residual(channels, depth)]);
            let up = Block::Residual { channels, depth, upsample: level > 0 };
            output_blocks.splice(0..0, [residual(channels, depth), residual(channels, depth), up]);
        }
        Self {
            in_channels: 4,
            out_channels: 4,
            channels: 320,
            time_width: 1280,
            context_width: 768,
            input_blocks,
            middle_depth: Some(1),
            output_blocks,
            heads: Self::HEADS,
        }
    }

    /// Channels of all attentions to the conditioning together.
    pub fn context_channels(&self) -> usize {
        let blocks = self.input_blocks.iter().chain(&self.output_blocks);
        let of_blocks = blocks.map(|block| match block {
            Block::Residual { channels, depth, .. } => channels * depth,
            Block::Downsample => 0,
        });
        let middle =
            self.widths().last().copied().unwrap_or_default() * self.middle_depth.unwrap_or_default();
        of_blocks.sum::<usize>() + middle
    }

    /// Sizes of what residuals are added to, for latents `(height, width)`.
    pub fn residual_sizes(&self, (mut height, mut width): (usize, usize)) -> ResidualSizes {
        let mut channels = self.channels;
        let mut sizes = vec![[channels, height, width]];
        for block in &self.input_blocks {
            match block {
                Block::Residual { channels: out, .. } => channels = *out,
                Block::Downsample => (height, width) = (height.div_ceil(2), width.div_ceil(2)),
            }
            sizes.push([channels, height, width]);
        }
        ResidualSizes::new(sizes)
    }

    /// Numbers that the self-attentions of all blocks together are made of, for one row of latents `(height, width)`.
    pub fn attention_source_values(&self, latents: (usize, usize)) -> usize {
        let sizes = self.residual_sizes(latents);
        let at = |index: usize| sizes.at(ResidualPlace::Skip(index)).unwrap_or_default();
        let of = |block: &Block, [_, height, width]: [usize; 3]| match block {
            Block::Residual { channels, depth, .. } => channels * depth * height * width,
            Block::Downsample => 0,
        };
        let input = self.input_blocks.iter().enumerate().map(|(index, block)| of(block, at(index + 1)));
        let output = self.output_blocks.iter().rev().enumerate().map(|(index, block)| of(block, at(index)));
        let [channels, height, width] = at(self.input_blocks.len());
        let middle = self.middle_depth.unwrap_or_default() * channels * height * width;
        input.chain(output).sum::<usize>() + middle
    }

    /// Channels of every level, more than once where blocks share them.
    pub fn widths(&self) -> Vec<usize> {
        let blocks = self.input_blocks.iter().chain(&self.output_blocks).filter_map(|block| match block {
            Block::Residual { channels, .. } => Some(*channels),
            Block::Downsample => None,
        });
        std::iter::once(self.channels).chain(blocks).collect()
    }

    /// Reads it from the tensors under `prefix`.
    pub fn detect(file: &Tensors, prefix: &str) -> Result<Self> {
        let name = |part: &str| format!("{prefix}{part}");
        let has = |part: &str| file.shape(&name(part)).is_some();
        let mut output_blocks = vec![];
        for part in blocks_of(file, prefix, "output_blocks", 0) {
            let upsample = has(&format!("{part}.1.conv.weight")) || has(&format!("{part}.2.conv.weight"));
            output_blocks.push(residual_of(file, prefix, &part, upsample)?);
        }
        let out_channels = dim(file, &name("out.2.weight"), 0)?;
        Ok(Self { out_channels, output_blocks, ..Self::detect_down(file, prefix)? })
    }

    /// Reads the way down with its middle, as a ControlNet has them: no way up, and no channels that come out.
    pub(super) fn detect_down(file: &Tensors, prefix: &str) -> Result<Self> {
        let name = |part: &str| format!("{prefix}{part}");
        let mut input_blocks = vec![];
        for part in blocks_of(file, prefix, "input_blocks", 1) {
            let downsample = file.has_under(&name(&format!("{part}.0.op.")));
            let residual = || residual_of(file, prefix, &part, false);
            input_blocks.push(if downsample { Block::Downsample } else { residual()? });
        }
        let mut names = file.names_under(prefix).into_iter().map(|(name, _)| name);
        let keys = names.find(|name| name.ends_with("transformer_blocks.0.attn2.to_k.weight"));
        let middle = depth_of(file, prefix, "middle_block.1");
        Ok(Self {
            in_channels: dim(file, &name("input_blocks.0.0.weight"), 1)?,
            out_channels: 0,
            channels: dim(file, &name("input_blocks.0.0.weight"), 0)?,
            time_width: dim(file, &name("time_embed.0.weight"), 0)?,
            context_width: keys.map_or(Ok(0), |keys| dim(file, keys, 1))?,
            input_blocks,
            middle_depth: (middle > 0).then_some(middle),
            output_blocks: vec![],
            heads: Self::HEADS,
        })
    }
}

/// The blocks of a way that a file has any tensor of, from one on.
fn blocks_of(file: &Tensors, prefix: &str, way: &str, from: usize) -> Vec<String> {
    let parts = (from..MOST_IN_A_ROW).map(|index| format!("{way}.{index}"));
    parts.take_while(|part| file.has_under(&format!("{prefix}{part}."))).collect()
}

/// Transformer blocks of a part.
fn depth_of(file: &Tensors, prefix: &str, part: &str) -> usize {
    count(file, |i| format!("{prefix}{part}.transformer_blocks.{i}."))
}

fn residual_of(file: &Tensors, prefix: &str, part: &str, upsample: bool) -> Result<Block> {
    let channels = dim(file, &format!("{prefix}{part}.0.in_layers.2.weight"), 0)?;
    Ok(Block::Residual { channels, depth: depth_of(file, prefix, &format!("{part}.1")), upsample })
}
