//! What a run tells while it draws: progress with an estimate of what is left, previews, and where the time went. What is
//! told while a request is resolved.

use std::cell::Cell;
use std::time::{Duration, Instant};

use latentd_client::protocol::{Bytes, ImageOut, Pass, Timings};
use latentd_models::image::{RgbImage, encode_png};
use latentd_models::pipeline::{PassKind, Phase, Progress, Watch};
use tracing::warn;

use super::task::{self, Run};
use crate::library::Waiter;

/// How often progress is told of that has no steps.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Watches a request that waits for hashes, for the library.
pub(super) struct Hashing<'a> {
    watch: &'a dyn task::Watch,
    started: Instant,
    /// When something was told last.
    told: Cell<Instant>,
}

impl<'a> Hashing<'a> {
    pub(super) fn new(watch: &'a dyn task::Watch) -> Self {
        let now = Instant::now();
        Self { watch, started: now, told: Cell::new(now) }
    }
}

impl Waiter for Hashing<'_> {
    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }

    fn hashed(&self, done: u64, total: u64) {
        if self.told.get().elapsed() < TELL_EVERY {
            return;
        }
        self.told.set(Instant::now());
        let share = done as f64 / total.max(1) as f64;
        let eta_s = (done > 0).then(|| self.started.elapsed().as_secs_f64() * (1.0 - share) / share);
        self.watch.progress("hashing", (share * 100.0) as u32, 100, eta_s);
    }
}

/// Watches one run for the pipeline.
pub(super) struct RunHooks<'a> {
    run: &'a Run<'a>,
    /// Steps from one preview to the next; none if `None`.
    preview_every: Option<u32>,
    /// When the last stage or step was done, and how long the run had waited for jobs within it by then.
    last: Instant,
    waited: Duration,
    /// Steps done, over all passes.
    step: u32,
    pass: Pass,
    /// Steps that were done by runs before, and those of all.
    before: u32,
    all: u32,
    pub(super) timings: Timings,
    /// What the pipeline wants to be told, once each.
    pub(super) notices: Vec<String>,
}

impl<'a> RunHooks<'a> {
    /// Of `all` steps so many were done `before`.
    pub(super) fn new(
        run: &'a Run<'a>,
        preview_every: Option<u32>,
        timings: Timings,
        (before, all): (u32, u32),
    ) -> Self {
        Self {
            run,
            preview_every,
            last: Instant::now(),
            waited: run.watch.waited(),
            step: before,
            pass: Pass::Base,
            before,
            all,
            timings,
            notices: Vec::new(),
        }
    }
}

impl RunHooks<'_> {
    /// Steps that are done, with those before.
    pub(super) fn steps_done(&self) -> u32 {
        self.step
    }

    /// Seconds since this was asked last, without what jobs within it took.
    fn elapsed(&mut self) -> f64 {
        let waited = self.run.watch.waited();
        let elapsed = self.last.elapsed().saturating_sub(waited.saturating_sub(self.waited)).as_secs_f64();
        (self.last, self.waited) = (Instant::now(), waited);
        elapsed
    }
}

impl Watch for RunHooks<'_> {
    fn cancelled(&self) -> bool {
        self.run.watch.is_cancelled()
    }

    fn progress(&mut self, progress: Progress) {
        let elapsed = self.elapsed();
        let (stage, spent) = match progress.phase {
            Phase::Conditioning => ("conditioning", &mut self.timings.conditioning_s),
            Phase::Denoising => ("denoising", &mut self.timings.denoise_s),
            Phase::Decoding => ("decoding", &mut self.timings.decode_s),
        };
        *spent += elapsed;
        self.pass = match progress.pass {
            PassKind::Base => Pass::Base,
            PassKind::Hires => Pass::Hires,
        };
        // Steps are nearly all of the time, and all alike.
        self.step = self.before + progress.step as u32;
        let all = self.all.max(self.before + progress.steps as u32);
        let per_step = self.timings.denoise_s / f64::from(self.step.max(1));
        let eta_s = (self.step > 0).then(|| per_step * f64::from(all.saturating_sub(self.step)));
        self.run.watch.progress_of(Some(self.pass), stage, (self.step, all), eta_s);
    }

    fn upscaled(&mut self, part: usize, parts: usize) {
        self.run.watch.progress_of(Some(self.pass), "upscaling", (part as u32, parts as u32), None);
    }

    fn restored(&mut self) {
        // It is a part of how latents become pictures.
        self.timings.decode_s += self.elapsed();
        self.run.watch.progress_of(Some(self.pass), "restoring", (self.step, self.all.max(self.step)), None);
    }

    fn notice(&mut self, text: &str) {
        if !self.notices.iter().any(|told| told == text) {
            self.notices.push(text.to_owned());
        }
    }

    fn wants_preview(&self, step: usize) -> bool {
        self.preview_every.is_some_and(|every| step.is_multiple_of(every as usize))
    }

    fn preview(&mut self, _step: usize, images: Vec<RgbImage>) {
        let Some(image) = images.first() else {
            return;
        };
        match encode_png(image, "") {
            Ok(png) => {
                let image = ImageOut {
                    png: Some(Bytes(png)),
                    width: image.width as u32,
                    height: image.height as u32,
                    ..Default::default()
                };
                self.run.watch.preview(self.pass, self.step, image);
            }
            Err(error) => warn!(job = self.run.job, %error, "preview"),
        }
    }
}
