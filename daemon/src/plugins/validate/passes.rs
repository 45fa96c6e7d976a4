//! Passes that begin: made-up pictures that are drawn from, every other one with a mask.

use latentd_models::image::inpaint::{Inpaint, Preparation, Prepared};
use latentd_models::image::{Channels, Fit, Picture};

use super::bench::Bench;
use super::scene::{Made, Scene};
use super::wider::{Roomy, Wider};
use crate::error::Result;
use crate::plugins::call::AtHand;
use crate::plugins::stages::{self, Called, JobStages, PassSources};

impl Scene {
    /// What its pictures are drawn from.
    fn prepared(&self) -> latentd_models::Result<Vec<Prepared>> {
        let preparation = Preparation {
            size: self.pass.size,
            fit: Some(Fit::Stretch),
            background: [255; 3],
            corrects_colour: false,
            inpaint: Inpaint { keeps_original: true, ..Inpaint::default() },
        };
        let one = |(index, picture): (usize, &latentd_models::pipeline::Picture)| {
            let picture = Picture::from(picture.image.clone());
            let mask = || Picture {
                channels: Channels::Grey,
                pixels: picture.pixels.iter().step_by(3).copied().collect(),
                ..picture
            };
            let mask = index.is_multiple_of(2).then(mask);
            preparation.prepare(&picture, mask.as_ref())
        };
        self.pictures.iter().enumerate().map(one).collect()
    }

    /// Begins the pass as a drawing does; gives what its pictures begin with then.
    pub(super) fn begin_pass(&self, stages: &JobStages<'_>) -> latentd_models::Result<Made> {
        let prepared = self.prepared()?;
        let sources = PassSources { prepared: &prepared, rounds: true };
        stages.pass_begun(&self.pass, Some(sources))?;
        let first = self.pass.first_image;
        let all = prepared.iter().enumerate();
        let all: Vec<Prepared> = all
            .map(|(index, prepared)| stages.exchanged(first + index).unwrap_or_else(|| prepared.clone()))
            .collect();
        Ok(Made::of(&stages::begun_contents(&all.iter().collect::<Vec<_>>(), self.pass.size)))
    }

    /// Likewise as another host would.
    pub(super) fn begin_pass_wider(
        &self,
        stages: &JobStages<'_>,
        job: &Bench,
        wider: &Wider,
    ) -> Result<Made> {
        let prepared = self.prepared()?;
        let prepared: Vec<&Prepared> = prepared.iter().collect();
        let mut contents = stages::begun_contents(&prepared, self.pass.size);
        let slots = contents.len();
        let function = |called: &Called<'_>| {
            let pictures = stages::begun_pictures(&self.pass, &prepared, called.handles);
            let pictures = Roomy::new(&pictures, wider.between_elements);
            let pass = Roomy::of(&self.pass_wider(wider, &pictures), wider.behind_structs);
            called.tables.pass_begin.and_then(|table| table.run).map_or(0, |run| {
                // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                unsafe { run(called.instance, called.call, pass.pointer()) }
            })
        };
        if let Some(instance) = stages.instances.first() {
            let lent = (contents.as_mut_slice(), slots);
            stages::call(instance, job, self.stage, lent, AtHand::default(), &function)?;
        }
        Ok(Made::of(&contents))
    }
}
