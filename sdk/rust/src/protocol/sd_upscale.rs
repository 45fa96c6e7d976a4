//! `img2img`'s `sd_upscale`: a picture made larger, and drawn anew in tiles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A1111's script "SD upscale", and the extension "Ultimate SD upscale". The picture is made larger by an upscaler, and drawn anew in
/// tiles of the request's `width` and `height`. All is drawn, from one picture, by one prompt if tiles have none of their own, each
/// batch of `n_iter` with the next seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SdUpscaleParams {
    /// The upscaler: "Lanczos", "Nearest", or a plugin's by its name. With "None", "grid" leaves the picture as large as it is, and
    /// the others take Lanczos.
    #[schemars(length(max = 1000))]
    pub upscaler: String,
    /// How many times as large. With "grid" sides come down to what 8 divides, with the others up to what 64 does.
    #[schemars(range(min = 1.0, max = 8.0))]
    pub scale_factor: f64,
    /// Prompts of the tiles, row by row from the upper left, one for each; an empty one is the request's, as seams have it. Styles are
    /// not put around them, and networks (`<lora:…>`) are named in the request's, for all tiles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), inner(length(max = 200_000)))]
    pub prompts: Vec<String>,
    /// How the tiles are drawn.
    pub redraw: RedrawMode,
    /// With "grid": pixels over which tiles fade into one another.
    #[schemars(range(min = 0, max = 1024))]
    pub overlap: u32,
    /// With the others: pixels around a tile that are drawn with it.
    #[schemars(range(min = 0, max = 1024))]
    pub padding: u32,
    /// With the others: how softly a tile ends, sigma in pixels.
    #[schemars(range(min = 0.0, max = 256.0))]
    pub mask_blur: f64,
    /// What is drawn over the seams afterwards; not with "grid", whose tiles overlap.
    pub seams: SeamFixMode,
    /// With "bands": pixels across.
    #[schemars(range(min = 8, max = 1024))]
    pub seams_width: u32,
    /// The `denoising_strength` of seams.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub seams_denoise: f64,
    /// The `mask_blur` of seams, but of bands.
    #[schemars(range(min = 0.0, max = 256.0))]
    pub seams_mask_blur: f64,
    /// The `padding` of seams, but of intersections.
    #[schemars(range(min = 0, max = 1024))]
    pub seams_padding: u32,
}

/// How tiles are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedrawMode {
    /// Each from the enlarged picture, with the next seed; then they are put together. The script.
    #[default]
    Grid,
    /// One after the other, each from what the picture has become, all with one seed. The extension, as those that follow.
    Linear,
    /// The same, every second one first, as on a chessboard.
    Chess,
    /// Not at all: the seams alone are.
    None,
}

impl RedrawMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Grid, Self::Linear, Self::Chess, Self::None];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Linear => "linear",
            Self::Chess => "chess",
            Self::None => "none",
        }
    }
}

/// What is drawn over the seams between tiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SeamFixMode {
    /// Nothing.
    #[default]
    None,
    /// A band along each, as long as the picture.
    Bands,
    /// Tiles that lie half over one and half over the next.
    HalfTile,
    /// These, and those over four at once.
    HalfTileIntersections,
}

impl SeamFixMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Bands, Self::HalfTile, Self::HalfTileIntersections];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bands => "bands",
            Self::HalfTile => "half-tile",
            Self::HalfTileIntersections => "half-tile-intersections",
        }
    }
}

impl Default for SdUpscaleParams {
    fn default() -> Self {
        Self {
            upscaler: "None".into(),
            scale_factor: 2.0,
            prompts: vec![],
            redraw: RedrawMode::Grid,
            overlap: 64,
            padding: 32,
            mask_blur: 8.0,
            seams: SeamFixMode::None,
            seams_width: 64,
            seams_denoise: 0.35,
            seams_mask_blur: 4.0,
            seams_padding: 16,
        }
    }
}
