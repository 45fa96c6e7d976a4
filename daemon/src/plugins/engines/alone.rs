//! Engines that a method of ours runs by itself, where nothing is drawn.

use latentd_models::image::{Picture, Sample, Tiling};

use super::engine::Engine;
use super::restore::{bytes_beside, restore};
use super::running::{Engines, JobOf};
use super::upscale::{bytes_on_the_way, upscale_rounds};
use crate::error::{Error, Result};
use crate::plugins::artifact::Artifact;
use crate::plugins::call::Job;

/// The engines of a job that is nothing but engines.
pub(crate) struct Alone<'a>(Engines<'a>);

impl Engine {
    /// How it cuts pictures, with what is wanted otherwise: sides of tiles, and what they share. An error says which of both cannot
    /// be.
    pub(crate) fn tiling(&self, tile: Option<usize>, overlap: Option<usize>) -> Result<Tiling> {
        let mut tiling = Tiling { size: tile.unwrap_or(self.tiling.size), ..self.tiling };
        // What was its own is as much as there can be.
        tiling.overlap =
            if tiling.size == 0 { self.tiling.overlap } else { tiling.overlap.min(tiling.size / 2) };
        if let Some(overlap) = overlap {
            let most = tiling.size / 2;
            if tiling.size > 0 && overlap > most {
                let (entry, size) = (&self.entry, tiling.size);
                return Err(Error::invalid(format!(
                    "overlap: {overlap} of tiles of {size}, which '{entry}' has; give at most {most}, or a larger tile"
                )));
            }
            tiling.overlap = overlap;
        }
        Ok(tiling)
    }

    /// Bytes that its networks take, and what it says that it takes beside.
    pub(crate) fn planned_bytes(&self) -> u64 {
        self.planned_bytes
    }

    /// Bytes that it takes to upscale a picture once, beside the picture and its result of `size`.
    pub(crate) fn bytes_on_the_way<S: Sample>(
        tiling: Tiling,
        of: (usize, usize),
        size: (usize, usize),
    ) -> u64 {
        bytes_on_the_way::<S>(tiling, of, size)
    }

    /// Bytes that it takes to restore the faces of a picture of this size, beside the picture and its result.
    pub(crate) fn bytes_to_restore(size: (usize, usize)) -> u64 {
        bytes_beside(size)
    }
}

impl<'a> Alone<'a> {
    /// Those of a request (MessagePack) of this method.
    pub(crate) fn new(
        (method, request): (&'a str, &'a [u8]),
        pictures: u32,
        engines: &'a [Engine],
        job: &'a dyn Job,
    ) -> Self {
        Self(Engines::new(JobOf { method, request, pictures, batch: 1, engines, depth: 0 }, job))
    }

    /// A picture larger, one time after the other of the sizes of `rounds`, and brought to this size; what is made is counted by
    /// whoever asks. `told` is told after each tile how many are done.
    pub(crate) fn upscaled<S: Sample>(
        &self,
        with: (&Engine, Tiling),
        picture: &Picture<S>,
        rounds: (&[(usize, usize)], (usize, usize)),
        told: &mut dyn FnMut(usize),
    ) -> Result<Picture<S>> {
        upscale_rounds(&self.0, with, picture, rounds, &mut |done, _| told(done))
    }

    /// A picture with its faces restored: see [`restore`].
    pub(crate) fn restored(
        &self,
        engine: &Engine,
        picture: &Picture,
        weight: Option<f64>,
    ) -> Result<Picture> {
        restore(&self.0, engine, picture, weight)
    }

    /// What plugins wanted to be told since this was asked last, with their names.
    pub(crate) fn notices(&self) -> Vec<(String, String)> {
        self.0.notices()
    }

    /// What they left beside the results since this was asked last.
    pub(crate) fn artifacts(&self) -> Vec<Artifact> {
        self.0.artifacts()
    }

    /// Seconds that each has taken.
    pub(crate) fn spent(&self) -> Vec<(String, f64)> {
        self.0.spent()
    }
}
