//! A picture made larger, and its faces restored.

use std::time::Instant;

use latentd_models::image::{Channels, Filter, Picture, Resize, Sample, Tiling};

use super::super::task::Watch;
use super::plan::{Named, Plan, Restorer, Upscaler};
use crate::error::{Class, Error, Result};
use crate::plugins::{Alone, Engine};

/// How far a job is.
pub(super) struct Steps<'a> {
    watch: &'a dyn Watch,
    started: Instant,
    done: u32,
    all: u32,
}

impl<'a> Steps<'a> {
    pub(super) fn new(watch: &'a dyn Watch, all: u32) -> Self {
        Self { watch, started: Instant::now(), done: 0, all }
    }

    /// So many more are done of a stage that began with `before`.
    fn at(&mut self, stage: &str, done: u32) {
        self.done = done.min(self.all);
        let left = f64::from(self.all - self.done) / f64::from(self.done.max(1));
        let eta = (self.done > 0).then(|| self.started.elapsed().as_secs_f64() * left);
        self.watch.progress(stage, self.done, self.all, eta);
    }

    /// An error if it is to end.
    fn check(&self, what: &str) -> Result<()> {
        if self.watch.is_cancelled() {
            return Err(Error::new(Class::Cancelled, format!("cancelled before {what}")));
        }
        Ok(())
    }
}

/// What is made of a picture.
pub(super) fn made<S: Sample>(
    plan: &Plan,
    alone: &Alone<'_>,
    picture: Picture<S>,
    steps: &mut Steps<'_>,
) -> Result<Picture<S>> {
    let mut made = match (&plan.first, &plan.second) {
        (None, _) => picture,
        (Some(first), None) => larger(plan, alone, first, &picture, steps)?,
        (Some(first), Some((second, share))) => {
            let mut made = larger(plan, alone, first, &picture, steps)?;
            let other = larger(plan, alone, second, &picture, steps)?;
            made.blend(&other, *share as f32);
            made
        }
    };
    for restorer in &plan.restorers {
        made = restored(plan, alone, restorer, made, steps)?;
    }
    Ok(made)
}

fn larger<S: Sample>(
    plan: &Plan,
    alone: &Alone<'_>,
    named: &Named,
    picture: &Picture<S>,
    steps: &mut Steps<'_>,
) -> Result<Picture<S>> {
    steps.check(&named.name)?;
    let by = match named.by {
        Upscaler::Filter(filter) => By::Filter(filter),
        Upscaler::Engine(place, tiling) => By::Engine(plan.engine(place)?, tiling),
    };
    let before = steps.done;
    let made =
        filled(plan.resize, by, alone, picture, &mut |done| steps.at("upscaling", before + done as u32))?;
    let (width, height) = plan.resize.result((picture.width, picture.height));
    Ok(made.middle(width, height))
}

/// What makes a picture larger.
#[derive(Clone, Copy)]
pub(in crate::tasks) enum By<'a> {
    Filter(Filter),
    /// In these tiles.
    Engine(&'a Engine, Tiling),
}

/// A picture as large as [`Resize::filled`] says. `told` is told how many steps are done.
pub(in crate::tasks) fn filled<S: Sample>(
    resize: Resize,
    by: By<'_>,
    alone: &Alone<'_>,
    picture: &Picture<S>,
    told: &mut dyn FnMut(usize),
) -> Result<Picture<S>> {
    let size = (picture.width, picture.height);
    let (wide, high) = resize.filled(size);
    let finished = |made: &Picture<S>| made.resized(wide, high, Filter::Lanczos);
    match by {
        By::Filter(filter) => {
            let (width, height) = resize.filtered(size);
            let made = if (width, height) == size {
                finished(picture)?
            } else {
                let made = picture.resized(width, height, filter)?;
                if (width, height) == (wide, high) { made } else { finished(&made)? }
            };
            told(1);
            Ok(made)
        }
        By::Engine(engine, tiling) => {
            let rounds = resize.rounds(size, engine.scale());
            let made = alone.upscaled((engine, tiling), picture, (&rounds, (wide, high)), told)?;
            if rounds.is_empty() {
                told(1);
            }
            Ok(made)
        }
    }
}

fn restored<S: Sample>(
    plan: &Plan,
    alone: &Alone<'_>,
    restorer: &Restorer,
    picture: Picture<S>,
    steps: &mut Steps<'_>,
) -> Result<Picture<S>> {
    steps.check(restorer.name)?;
    let mut seen = picture.to_8_bits();
    let mut picture = picture;
    if seen.channels == Channels::Grey {
        // It sees three colours, and may give three.
        let coloured = Picture { channels: Channels::Rgb, pixels: tripled(&seen.pixels), ..seen };
        picture = Picture {
            channels: Channels::Rgb,
            pixels: tripled(&picture.pixels),
            width: picture.width,
            height: picture.height,
        };
        seen = coloured;
    }
    let mut made = alone.restored(plan.restores(restorer)?, &seen, restorer.weight)?;
    if restorer.visibility < 1.0 {
        seen.blend(&made, restorer.visibility as f32);
        made = seen;
    }
    let before = steps.done;
    steps.at("restoring", before + 1);
    Ok(picture.with_changes(made))
}

fn tripled<S: Sample>(pixels: &[S]) -> Vec<S> {
    pixels.iter().flat_map(|value| [*value; 3]).collect()
}
