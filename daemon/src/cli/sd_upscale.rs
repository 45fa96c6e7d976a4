//! Flags of pictures that are made larger and drawn anew in tiles.

use clap::{Args, ValueEnum};
use latentd_client::protocol::{RedrawMode, SdUpscaleParams, SeamFixMode};

/// `sd_upscale`, field by field.
#[derive(Debug, Args)]
pub(super) struct SdUpscaleArgs {
    /// Make the picture larger with this upscaler (None, Lanczos, Nearest, or a plugin's) and draw it anew in tiles of --width and --height
    #[arg(long, value_name = "UPSCALER")]
    sd_upscale: Option<String>,
    /// With --sd-upscale: how many times as large [default: 2]
    #[arg(long, value_name = "X", requires = "sd_upscale")]
    scale_factor: Option<f64>,
    /// With --sd-upscale: the prompt of a tile, once for each, row by row from the upper left; "" is that of all
    #[arg(long, value_name = "PROMPT", requires = "sd_upscale")]
    tile_prompt: Vec<String>,
    /// With --sd-upscale: how tiles are drawn [default: grid]
    #[arg(long, value_name = "MODE", requires = "sd_upscale", ignore_case = true)]
    redraw: Option<RedrawArg>,
    /// With --redraw grid: pixels over which tiles fade into one another [default: 64]
    #[arg(long, value_name = "N", requires = "sd_upscale")]
    tile_overlap: Option<u32>,
    /// With --redraw linear and chess: pixels around a tile that are drawn with it [default: 32]
    #[arg(long, value_name = "N", requires = "sd_upscale")]
    tile_padding: Option<u32>,
    /// With these: how softly a tile ends [default: 8]
    #[arg(long, value_name = "X", requires = "sd_upscale")]
    tile_blur: Option<f64>,
    /// With --redraw linear, chess and none: what is drawn over the seams afterwards [default: none]
    #[arg(long, value_name = "MODE", requires = "sd_upscale", ignore_case = true)]
    seams: Option<SeamsArg>,
    /// With --seams bands: pixels across [default: 64]
    #[arg(long, value_name = "N", requires = "seams")]
    seams_width: Option<u32>,
    /// With --seams: their --denoising-strength [default: 0.35]
    #[arg(long, value_name = "X", requires = "seams")]
    seams_denoise: Option<f64>,
    /// With --seams: how softly they end [default: 4]
    #[arg(long, value_name = "X", requires = "seams")]
    seams_blur: Option<f64>,
    /// With --seams: pixels around them that are drawn with them [default: 16]
    #[arg(long, value_name = "N", requires = "seams")]
    seams_padding: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RedrawArg {
    /// Each for itself, with the next seed, and put together
    Grid,
    /// One after the other, each from what the picture has become
    Linear,
    /// The same, every second one first
    Chess,
    /// Not at all: the seams alone
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SeamsArg {
    /// Nothing
    None,
    /// A band along each
    Bands,
    /// Tiles that lie half over one and half over the next
    HalfTile,
    /// These, and those over four at once
    HalfTileIntersections,
}

impl SdUpscaleArgs {
    /// Whether it is asked for.
    pub(super) fn is_given(&self) -> bool {
        self.sd_upscale.is_some()
    }

    /// What was given, over what was told.
    pub(super) fn over(&self, told: Option<Box<SdUpscaleParams>>) -> Option<Box<SdUpscaleParams>> {
        let Some(upscaler) = self.sd_upscale.clone() else { return told };
        let told = told.unwrap_or_default();
        Some(Box::new(SdUpscaleParams {
            upscaler,
            scale_factor: self.scale_factor.unwrap_or(told.scale_factor),
            prompts: if self.tile_prompt.is_empty() { told.prompts } else { self.tile_prompt.clone() },
            redraw: self.redraw.map_or(told.redraw, |mode| match mode {
                RedrawArg::Grid => RedrawMode::Grid,
                RedrawArg::Linear => RedrawMode::Linear,
                RedrawArg::Chess => RedrawMode::Chess,
                RedrawArg::None => RedrawMode::None,
            }),
            overlap: self.tile_overlap.unwrap_or(told.overlap),
            padding: self.tile_padding.unwrap_or(told.padding),
            mask_blur: self.tile_blur.unwrap_or(told.mask_blur),
            seams: self.seams.map_or(told.seams, |mode| match mode {
                SeamsArg::None => SeamFixMode::None,
                SeamsArg::Bands => SeamFixMode::Bands,
                SeamsArg::HalfTile => SeamFixMode::HalfTile,
                SeamsArg::HalfTileIntersections => SeamFixMode::HalfTileIntersections,
            }),
            seams_width: self.seams_width.unwrap_or(told.seams_width),
            seams_denoise: self.seams_denoise.unwrap_or(told.seams_denoise),
            seams_mask_blur: self.seams_blur.unwrap_or(told.seams_mask_blur),
            seams_padding: self.seams_padding.unwrap_or(told.seams_padding),
        }))
    }
}
