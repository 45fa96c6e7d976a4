//! What an engine is asked and what it answers, between those who ask and those who have it.

use std::sync::Arc;

use serde::Deserialize;

use super::engine_kinds::Kind;
use super::objects::{Content, Image};
use crate::error::{Error, Result};
use crate::memory::Lease;

/// An engine that somebody will run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    pub kind: Kind,
    pub name: String,
    /// Who says so, for errors.
    pub by: String,
}

/// What an engine is to do.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub kind: Kind,
    pub entry: String,
    pub image: Image,
    /// Of one channel, as large.
    pub mask: Option<Image>,
    /// Wanted; 0 if it is the engine's choice.
    pub width: u32,
    pub height: u32,
    pub strength: f64,
    pub threshold: f64,
    /// MessagePack.
    pub params: Vec<u8>,
}

/// One thing that was found.
#[derive(Clone, Debug)]
pub(super) struct Detection {
    pub label: String,
    pub class_id: u32,
    pub score: f32,
    /// Left, top, right and bottom in pixels, half open; zeros if there is no box.
    pub bounds: [f32; 4],
    /// x, y, x, y, ….
    pub points: Vec<f32>,
    /// Of one channel.
    pub mask: Option<Image>,
    /// A tensor (width).
    pub embedding: Option<Content>,
    /// MessagePack, a map; or nothing.
    pub data: Vec<u8>,
    /// What is counted for mask and embedding until somebody has them.
    pub room: Option<Arc<Lease>>,
}

/// What an engine answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    /// Of kinds that have one.
    pub image: Option<Image>,
    pub detections: Vec<Detection>,
    /// MessagePack, a map; or nothing.
    pub data: Vec<u8>,
}

/// What an upscaler may be told in `params`; it does not see it itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UpscalerWish {
    /// Sides of tiles, where they are not to be its own.
    pub tile: Option<u32>,
    /// Pixels that they share, likewise.
    pub overlap: Option<u32>,
    /// The share of its work that this is to whoever asks, told tile by tile.
    pub share: f64,
}

impl Asked {
    /// What an upscaler is told beside the picture and a size; nothing of another kind.
    pub(super) fn upscaler_wish(&self) -> Result<UpscalerWish> {
        if self.kind != Kind::Upscaler || self.params.is_empty() {
            return Ok(UpscalerWish::default());
        }
        let wish: UpscalerWish = rmp_serde::from_slice(&self.params)
            .map_err(|error| Error::invalid(format!("params of the upscaler '{}': {error}", self.entry)))?;
        if !(0.0..=1.0).contains(&wish.share) {
            return Err(Error::invalid(format!("share is {}; 0 to 1 is meant", wish.share)));
        }
        Ok(wish)
    }
}

/// Who has engines, or finds them.
pub(super) trait RunsEngines {
    /// Runs one on a whole picture, tile by tile where it is to be.
    fn run(&self, asked: &Asked) -> Result<Answered> {
        self.run_telling(asked, &|_| ())
    }

    /// The same; after each tile of an upscaler it is `told` which share is done.
    fn run_telling(&self, asked: &Asked, told: &dyn Fn(f64)) -> Result<Answered>;
}
