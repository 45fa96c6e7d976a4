//! What is looked at in each stage: that it does its work on whatever a host may call it with, that it does the same again, and
//! that it gives up in peace.

use std::fmt::Write as _;

use latentd_client::protocol::PluginParams;
use latentd_models::files::Prediction;
use latentd_models::pipeline::PassKind;
use latentd_plugin_api::abi::{
    LATENTD_ATTENTION, LATENTD_BATCH_POST, LATENTD_CONDITIONING, LATENTD_CONTROL_RESIDUALS,
    LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_COMBINE, LATENTD_DENOISE_WRAP, LATENTD_IMAGE_POST,
    LATENTD_INFOTEXT_WRITE, LATENTD_LATENT_FINAL, LATENTD_NOISE_INIT, LATENTD_OTHER, LATENTD_PASS_BEGIN,
    LATENTD_PREDICTS_FLOW, LATENTD_PREDICTS_SAMPLE, LATENTD_UNET_BLOCK,
};

use super::bench::{Bench, Looked, Ready, begin, fail, may, must};
use super::inputs::{Random, Values};
use super::outcome::Outcome;
use super::scene::Shape;
use super::schema;
use super::stage::{StageOf, place};
use super::wider::Wider;
use crate::error::Class;
use crate::plugins::stages::JobStages;

/// Calls of one instance after which what it keeps is counted.
const CALLS: [usize; 3] = [8, 16, 32];
/// Allocations of a call that are refused, each in a call of its own.
const REFUSALS: u32 = 8;
/// Parameters that are made up.
const PARAMS: usize = 48;
/// A code that no version has.
const NO_CODE: u32 = 4711;
/// A tag of another plugin's.
const TAG: &str = "somebody-else/1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// One picture and four, over some steps.
    Usual,
    /// Pictures are not counted from 0.
    LaterImages,
    Sizes,
    Extremes,
    /// Rows come in another order.
    Order,
    /// Several branches with weights and masks.
    Branches,
    /// Nothing is steered away from.
    NoUncond,
    /// Rows of roles that are not known, or another plugin's.
    UnknownRows,
    /// The first of one step, steps in any order, no noise left.
    Steps,
    /// All that a network may predict, and what none does.
    Predictions,
    UnknownPass,
    /// Pictures in grey or with alpha.
    Channels,
    LargerStructs,
    Strides,
    Repeat,
    Interleaved,
    Kept,
    Cancelled,
    NoMemory,
    Params,
    /// There is none for this stage.
    Unknown,
}

/// Those of a stage, by their names.
pub(super) fn of(stage: &'static str) -> impl Iterator<Item = (&'static str, Check)> {
    let is_known = [
        LATENTD_CONDITIONING,
        LATENTD_ATTENTION,
        LATENTD_PASS_BEGIN,
        LATENTD_NOISE_INIT,
        LATENTD_DENOISE_BEFORE,
        LATENTD_DENOISE_COMBINE,
        LATENTD_DENOISE_WRAP,
        LATENTD_CONTROL_RESIDUALS,
        LATENTD_LATENT_FINAL,
        LATENTD_IMAGE_POST,
        LATENTD_BATCH_POST,
        LATENTD_INFOTEXT_WRITE,
        LATENTD_UNET_BLOCK,
    ]
    .contains(&stage);
    let has_rows = [
        LATENTD_DENOISE_BEFORE,
        LATENTD_DENOISE_WRAP,
        LATENTD_DENOISE_COMBINE,
        LATENTD_CONTROL_RESIDUALS,
        LATENTD_UNET_BLOCK,
    ]
    .contains(&stage);
    let has_pictures = [LATENTD_IMAGE_POST, LATENTD_BATCH_POST, LATENTD_INFOTEXT_WRITE].contains(&stage);
    let all = [
        (is_known, "usual", Check::Usual),
        (is_known, "later-images", Check::LaterImages),
        (is_known, "sizes", Check::Sizes),
        (is_known, "extremes", Check::Extremes),
        (has_rows, "order", Check::Order),
        (has_rows, "branches", Check::Branches),
        (has_rows, "no-uncond", Check::NoUncond),
        (has_rows, "unknown-rows", Check::UnknownRows),
        (has_rows, "steps", Check::Steps),
        (has_rows, "predictions", Check::Predictions),
        (is_known, "unknown-pass", Check::UnknownPass),
        (has_pictures, "channels", Check::Channels),
        (is_known, "larger-structs", Check::LargerStructs),
        (is_known, "strides", Check::Strides),
        (is_known, "repeat", Check::Repeat),
        (is_known, "interleaved", Check::Interleaved),
        (is_known, "kept", Check::Kept),
        (is_known, "cancelled", Check::Cancelled),
        (is_known, "no-memory", Check::NoMemory),
        (is_known, "params", Check::Params),
        (!is_known, "calls", Check::Unknown),
    ];
    all.into_iter().filter(|(is_there, ..)| *is_there).map(|(_, name, check)| (name, check))
}

/// Does one.
pub(super) fn run(ready: &Ready, stage: &'static str, check: Check, random: &mut Random) -> Outcome {
    let looked = StageOf::new(ready, stage).look(check, random);
    looked.err().unwrap_or(Outcome::Ok)
}

impl StageOf<'_> {
    fn look(&self, check: Check, random: &mut Random) -> Looked {
        match check {
            Check::Usual => self.usual(random),
            Check::LaterImages => self.must_do(&[Shape { batch: 2, first_image: 6, ..Shape::USUAL }], random),
            Check::Sizes => self.sizes(random),
            Check::Extremes => {
                let shape = |values| Shape { values, batch: 2, ..Shape::USUAL };
                self.may_do(&Values::EXTREME.map(shape), random)
            }
            Check::Order => self.order(random),
            Check::Branches => self.must_do(
                &[
                    Shape { wanted: 2, ..Shape::USUAL },
                    Shape { wanted: 4, batch: 2, latents: (6, 10), ..Shape::USUAL },
                ],
                random,
            ),
            Check::NoUncond => self.must_do(
                &[
                    Shape { has_uncond: false, scale: 1.0, ..Shape::USUAL },
                    Shape { has_uncond: false, scale: 1.0, wanted: 3, batch: 2, ..Shape::USUAL },
                ],
                random,
            ),
            Check::UnknownRows => self.unknown_rows(random),
            Check::Steps => self.steps(random),
            Check::Predictions => self.predictions(random),
            Check::UnknownPass => {
                self.may_do(&[Shape { pass: PassKind::Hires, ..Shape::USUAL }], random)?;
                self.may_do_wider(&Wider { pass: Some(NO_CODE), ..Wider::default() }, random)
            }
            Check::Channels => [1, 4].into_iter().try_for_each(|channels| {
                self.may_do_wider(&Wider { channels: Some(channels), ..Wider::default() }, random)
            }),
            Check::LargerStructs => self.same_wider(
                &Wider { behind_structs: 64, ..Wider::default() },
                "its arguments' structs are larger",
                random,
            ),
            Check::Strides => self.same_wider(
                &Wider { between_elements: 40, ..Wider::default() },
                "elements of lists lie farther apart: is LATENTD_AT used?",
                random,
            ),
            Check::Repeat => self.repeat(random),
            Check::Interleaved => self.interleaved(random),
            Check::Kept => self.kept(random),
            Check::Cancelled => self.cancelled(random),
            Check::NoMemory => self.no_memory(random),
            Check::Params => self.params(random),
            Check::Unknown => Err(Outcome::Skipped("there are no checks of this stage yet".to_owned())),
        }
    }

    fn usual(&self, random: &mut Random) -> Looked {
        let shape = |step| Shape { step, sigma: 14.6 / (step + 1) as f64, ..Shape::USUAL };
        let one: Vec<Shape> = (0..4).map(shape).collect();
        self.must_do(&one, random)?;
        let four: Vec<Shape> = (0..4).map(|step| Shape { batch: 4, ..shape(step) }).collect();
        self.must_do(&four, random)
    }

    fn sizes(&self, random: &mut Random) -> Looked {
        let has_pictures =
            [LATENTD_IMAGE_POST, LATENTD_BATCH_POST, LATENTD_INFOTEXT_WRITE].contains(&self.stage);
        let shapes: Vec<Shape> = if has_pictures {
            let sizes = [(1, 1), (1, 300), (300, 1), (64, 64), (17, 23)];
            sizes.map(|size| Shape { pixels: Some(size), batch: 2, ..Shape::USUAL }).to_vec()
        } else {
            let sizes = [(1, 1), (8, 1), (1, 8), (17, 23), (16, 16)];
            sizes.map(|latents| Shape { latents, wanted: 2, ..Shape::USUAL }).to_vec()
        };
        self.may_do(&shapes, random)
    }

    fn order(&self, random: &mut Random) -> Looked {
        for (batch, wanted) in [(1, 1), (4, 1), (2, 3)] {
            let scene = self.scene(&Shape { batch, wanted, ..Shape::USUAL }, random)?;
            let other = scene.reordered(random).map_err(|error| Outcome::Skipped(error.text))?;
            let expected = self.made_surely(std::slice::from_ref(&scene))?;
            let made = self.made(&[other])?;
            if !expected.iter().zip(&made).all(|(expected, made)| expected.is_alike(made)) {
                let text = "rows in another order give other numbers: tell rows by image, branch and role";
                return fail(format!("{}: {text}", place(&scene)));
            }
        }
        Ok(())
    }

    fn unknown_rows(&self, random: &mut Random) -> Looked {
        let scene = self.scene(&Shape { batch: 2, others: 2, ..Shape::USUAL }, random)?;
        let last = scene.evaluation.rows.len();
        let places = last.saturating_sub(4)..last;
        let changed = |role, tag| Wider {
            rows: places.clone().map(|place| (place, role, tag)).collect(),
            ..Wider::default()
        };
        let run = |wider: &Wider| {
            let job = Bench::new();
            let plugins = self.planned(&job)?;
            may(self.run_wider(&scene, &begin(&plugins, &job)?, &job, wider), &place(&scene))
        };
        // Of the sampler's own, and of a role that a later version may have.
        run(&changed(LATENTD_OTHER, ""))?;
        run(&changed(NO_CODE, ""))?;
        if self.stage == LATENTD_UNET_BLOCK {
            // Rows are changed each by itself there.
            return run(&changed(NO_CODE, TAG)).map(|_| ());
        }
        let without = scene.without_last(places.len()).map_err(|error| Outcome::Skipped(error.text))?;
        let expected = self.made_surely(&[without])?;
        for role in [LATENTD_OTHER, NO_CODE] {
            if let Some(made) = run(&changed(role, TAG))?
                && !expected.first().is_some_and(|expected| expected.is_alike(&made))
            {
                return fail(format!("rows with another's tag, of role {role}, change what it makes"));
            }
        }
        Ok(())
    }

    fn steps(&self, random: &mut Random) -> Looked {
        let shape = |(step, steps, sigma)| Shape { step, steps, sigma, ..Shape::USUAL };
        let steps = [
            (0, 1, 14.6),
            (0, 1, 0.0),
            (7, 9, 1.0),
            (2, 9, 5.0),
            (2, 9, 5.0),
            (8, 9, 0.03),
            (8, 9, 0.0),
            (0, 1000, 1e4),
            (999, 1000, 1e-6),
        ];
        self.may_do(&steps.map(shape), random)
    }

    fn predictions(&self, random: &mut Random) -> Looked {
        let shape = |prediction| Shape { prediction, ..Shape::USUAL };
        self.may_do(&[Prediction::Epsilon, Prediction::Velocity].map(shape), random)?;
        [LATENTD_PREDICTS_SAMPLE, LATENTD_PREDICTS_FLOW, NO_CODE].into_iter().try_for_each(|prediction| {
            self.may_do_wider(&Wider { prediction: Some(prediction), ..Wider::default() }, random)
        })
    }

    /// It does the same where only what it must not look at is other.
    fn same_wider(&self, wider: &Wider, what: &str, random: &mut Random) -> Looked {
        let scene = self.scene(&Shape { batch: 3, wanted: 2, ..Shape::USUAL }, random)?;
        let expected = self.made_surely(std::slice::from_ref(&scene))?;
        let job = Bench::new();
        let plugins = self.planned(&job)?;
        let made = must(self.run_wider(&scene, &begin(&plugins, &job)?, &job, wider), &place(&scene))?;
        if expected.first().is_some_and(|expected| expected.is_same(&made)) {
            return Ok(());
        }
        fail(format!("it makes other numbers where {what}"))
    }

    fn repeat(&self, random: &mut Random) -> Looked {
        let shape = |step| Shape { step, batch: 1 + step % 2, ..Shape::USUAL };
        let scenes = self.scenes(&[0, 1, 2, 3].map(shape), random)?;
        let (one, other) = (self.made(&scenes)?, self.made(&scenes)?);
        match one.iter().zip(&other).position(|(one, other)| !one.is_same(other)) {
            None => Ok(()),
            Some(call) => fail(format!(
                "not repeatable: call {} of a second instance gave other numbers on the same input",
                call + 1
            )),
        }
    }

    /// Two at once do what each does alone.
    fn interleaved(&self, random: &mut Random) -> Looked {
        let shape = |batch| move |step| Shape { batch, step, ..Shape::USUAL };
        let first = self.scenes(&[0, 1, 2].map(shape(1)), random)?;
        let second = self.scenes(&[5, 6, 7].map(shape(2)), random)?;
        let alone = [self.made_surely(&first)?, self.made_surely(&second)?];
        let (job, other_job) = (Bench::new(), Bench::new());
        let (plugins, other_plugins) = (self.planned(&job)?, self.planned(&other_job)?);
        let stages = begin(&plugins, &job)?;
        let mut others = begin(&other_plugins, &other_job)?;
        for call in 0..first.len() {
            for (stages, scenes, alone) in [(&stages, &first, &alone[0]), (&mut others, &second, &alone[1])] {
                let (Some(scene), Some(expected)) = (scenes.get(call), alone.get(call)) else { continue };
                let made = must(self.run(scene, stages), &place(scene))?;
                if !made.is_same(expected) {
                    let text = "two instances at once do not do what each does alone: is something shared?";
                    return fail(format!("call {}: {text}", call + 1));
                }
            }
        }
        Ok(())
    }

    fn kept(&self, random: &mut Random) -> Looked {
        let job = Bench::new();
        let plugins = self.planned(&job)?;
        let stages = begin(&plugins, &job)?;
        let scene = self.scene(&Shape::USUAL, random)?;
        let mut counts = vec![];
        for call in 1..=CALLS[2] {
            must(self.run(&scene, &stages), &place(&scene))?;
            if CALLS.contains(&call) {
                counts.push(kept(&stages));
            }
        }
        if counts.windows(2).all(|pair| pair.first() < pair.last()) {
            let mut text = "what it keeps grows with each call: ".to_owned();
            for (calls, count) in CALLS.iter().zip(&counts) {
                write!(text, "{count} handles after {calls} calls, ").ok();
            }
            text.push_str("release what is done with");
            return Err(Outcome::Warned(text));
        }
        Ok(())
    }

    fn cancelled(&self, random: &mut Random) -> Looked {
        let job = Bench::new();
        let plugins = self.planned(&job)?;
        let stages = begin(&plugins, &job)?;
        job.cancel();
        for batch in [1, 4] {
            let scene = self.scene(&Shape { batch, ..Shape::USUAL }, random)?;
            match self.run(&scene, &stages) {
                Err(error) if error.class == Class::Cancelled => (),
                answer => must(answer, "the job was cancelled").map(|_| ())?,
            }
        }
        Ok(())
    }

    /// It says so, where there is no memory.
    fn no_memory(&self, random: &mut Random) -> Looked {
        let scene = self.scene(&Shape { batch: 2, wanted: 2, ..Shape::USUAL }, random)?;
        for granted in 0..REFUSALS {
            let job = Bench::new();
            let plugins = self.planned(&job)?;
            let stages = begin(&plugins, &job)?;
            job.grant(granted);
            let answer = self.run(&scene, &stages);
            if job.refused() == 0 {
                // It never asks for more.
                return must(answer, &place(&scene)).map(|_| ());
            }
            if answer.is_ok() && stages.notices().is_empty() {
                let text = "answered MEMORY, and it said OK: pass the failure on, or leave a notice";
                return fail(format!("allocation {} {text}", granted + 1));
            }
        }
        Ok(())
    }

    fn params(&self, random: &mut Random) -> Looked {
        let Some(schema) = &self.ready.plugin.manifest.parameters else {
            return Err(Outcome::Skipped("it takes no parameters".to_owned()));
        };
        let usual = Shape { batch: 2, wanted: 2, ..Shape::USUAL };
        let scene = self.scene(&usual, random)?;
        let extremes = self.scenes(&Values::EXTREME.map(|values| Shape { values, ..usual }), random)?;
        for turn in 0..PARAMS {
            let Some(params) = schema::params(schema, random) else { continue };
            let shown = schema::shown(&params);
            self.ready.at(&shown);
            let job = Bench::new();
            let plugins = self.ready.resolve(&PluginParams::from_json(params), &job);
            let Some(plugins) = may(plugins, &shown)? else { continue };
            let Some(stages) = may(JobStages::begin(&plugins, &job), &shown)? else { continue };
            may(scene.run(&stages), &shown)?;
            let number = turn % extremes.len().max(1);
            if let (Some(scene), Some(values)) = (extremes.get(number), Values::EXTREME.get(number)) {
                let shown = format!("{shown}, {values} values");
                self.ready.at(&shown);
                may(scene.run(&stages), &shown)?;
            }
        }
        Ok(())
    }
}

/// Handles that all instances keep.
fn kept(stages: &JobStages<'_>) -> usize {
    stages.instances.iter().map(|instance| instance.objects.borrow().count()).sum()
}
