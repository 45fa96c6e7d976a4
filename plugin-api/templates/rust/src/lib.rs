//! @NAME@: a plugin that filters finished pictures. It mixes each colour with the grey of its brightness.
//!
//! `cargo build --release` makes target/release/lib@IDENT@.so; `latentd plugins validate` looks for faults in it; in
//! ~/.local/share/latentd/plugins latentd finds it.

#![deny(unsafe_code)]

use latentd_plugin_api::{ImagePost, Job, Pictures, Plugin, Result, export};
use serde::Deserialize;

/// One for each time a job draws: what the request says. By the manifest's schema it is valid, and whole.
#[derive(Deserialize)]
struct Filter {
    amount: f64,
}

impl Plugin for Filter {
    fn new(job: &Job<'_>) -> Result<Self> {
        job.params()
    }
}

impl ImagePost for Filter {
    fn image_post(&self, stage: &Pictures<'_>) -> Result<()> {
        for picture in stage.pictures() {
            let image = picture.image;
            let (old, mut new) = (image.read()?, image.like()?);
            let (old, new_pixels) = (old.chunks(image.channels), new.pixels_mut().chunks_mut(image.channels));
            for (index, (old, new)) in old.zip(new_pixels).enumerate() {
                if index % image.width == 0 {
                    stage.call.check()?;
                }
                let grey = match old {
                    [r, g, b, ..] => 0.299 * f64::from(*r) + 0.587 * f64::from(*g) + 0.114 * f64::from(*b),
                    [only, ..] => f64::from(*only),
                    [] => 0.0,
                };
                let colours = image.channels.min(3);
                for (channel, (old, new)) in old.iter().zip(new).enumerate() {
                    let value = f64::from(*old);
                    let mixed = if channel < colours { value + (grey - value) * self.amount } else { value };
                    *new = (mixed + 0.5) as u8;
                }
            }
            picture.replace(new)?;
        }
        Ok(())
    }
}

export!(Filter, "../@NAME@.toml", [ImagePost]);
