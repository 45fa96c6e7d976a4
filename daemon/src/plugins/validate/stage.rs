//! One stage of a plugin, called with made-up scenes.

use latentd_plugin_api::abi::{
    LATENTD_BATCH_POST, LATENTD_CONDITIONING, LATENTD_IMAGE_POST, LATENTD_INFOTEXT_WRITE,
    LATENTD_LATENT_FINAL, LATENTD_NOISE_INIT, LATENTD_PASS_BEGIN,
};

use super::bench::{Bench, Looked, Ready, begin, may, must};
use super::inputs::Random;
use super::outcome::Outcome;
use super::scene::{Made, Scene, Shape};
use super::wider::Wider;
use crate::error::Result;
use crate::plugins::job::JobPlugins;
use crate::plugins::stages::JobStages;

/// A plugin's part in a stage.
pub(super) struct StageOf<'a> {
    pub ready: &'a Ready,
    pub stage: &'static str,
    /// The usual step.
    step: usize,
}

/// A step that the plugin asks for, of the usual number.
fn wanted_step(ready: &Ready, stage: &str) -> usize {
    let Shape { step: usual, steps, .. } = Shape::USUAL;
    let plugins = ready.planned(&Bench::new()).ok();
    let want = plugins.as_ref().and_then(|plugins| plugins.members.first()?.want(stage));
    (usual..steps)
        .chain(0..usual)
        .find(|step| want.is_some_and(|want| want.has(*step, steps)))
        .unwrap_or(usual)
}

impl<'a> StageOf<'a> {
    pub(super) fn new(ready: &'a Ready, stage: &'static str) -> Self {
        Self { ready, stage, step: wanted_step(ready, stage) }
    }

    /// The plan, if the plugin takes part in this stage.
    pub(super) fn planned(&self, job: &Bench) -> Looked<JobPlugins> {
        let plugins = self.ready.planned(job)?;
        if plugins.chains.contains_key(self.stage) {
            return Ok(plugins);
        }
        Err(Outcome::Skipped("by its job.plan it takes no part with these parameters".to_owned()))
    }

    pub(super) fn scene(&self, shape: &Shape, random: &mut Random) -> Looked<Scene> {
        let is_usual = (shape.step, shape.steps) == (Shape::USUAL.step, Shape::USUAL.steps);
        let shape = Shape { step: if is_usual { self.step } else { shape.step }, ..*shape };
        Scene::new(self.stage, &shape, random).map_err(|error| Outcome::Skipped(error.text))
    }

    pub(super) fn scenes(&self, shapes: &[Shape], random: &mut Random) -> Looked<Vec<Scene>> {
        shapes.iter().map(|shape| self.scene(shape, random)).collect()
    }

    pub(super) fn run(&self, scene: &Scene, stages: &JobStages<'_>) -> Result<Made> {
        self.ready.at(&place(scene));
        scene.run(stages)
    }

    pub(super) fn run_wider(
        &self,
        scene: &Scene,
        stages: &JobStages<'_>,
        job: &Bench,
        wider: &Wider,
    ) -> Result<Made> {
        self.ready.at(&place(scene));
        scene.run_wider(stages, job, wider)
    }

    /// What one new instance makes of these, one after the other.
    pub(super) fn made(&self, scenes: &[Scene]) -> Looked<Vec<Made>> {
        let job = Bench::new();
        let plugins = self.planned(&job)?;
        let stages = begin(&plugins, &job)?;
        scenes.iter().map(|scene| must(self.run(scene, &stages), &place(scene))).collect()
    }

    /// As [`Self::made`], if it does so each time.
    pub(super) fn made_surely(&self, scenes: &[Scene]) -> Looked<Vec<Made>> {
        let (one, other) = (self.made(scenes)?, self.made(scenes)?);
        if one.iter().zip(&other).all(|(one, other)| one.is_same(other)) {
            return Ok(one);
        }
        Err(Outcome::Skipped("what it does is not repeatable: there is nothing to compare with".to_owned()))
    }

    /// It does its work.
    pub(super) fn must_do(&self, shapes: &[Shape], random: &mut Random) -> Looked {
        self.made(&self.scenes(shapes, random)?).map(|_| ())
    }

    /// It does its work, or says that it cannot.
    pub(super) fn may_do(&self, shapes: &[Shape], random: &mut Random) -> Looked {
        let job = Bench::new();
        let plugins = self.planned(&job)?;
        let stages = begin(&plugins, &job)?;
        for shape in shapes {
            let scene = self.scene(shape, random)?;
            may(self.run(&scene, &stages), &format!("{}, {} values", place(&scene), shape.values))?;
        }
        Ok(())
    }

    pub(super) fn may_do_wider(&self, wider: &Wider, random: &mut Random) -> Looked {
        let job = Bench::new();
        let plugins = self.planned(&job)?;
        let stages = begin(&plugins, &job)?;
        let scene = self.scene(&Shape { batch: 2, ..Shape::USUAL }, random)?;
        may(self.run_wider(&scene, &stages, &job, wider), &place(&scene)).map(|_| ())
    }
}

/// What a scene is, for people.
pub(super) fn place(scene: &Scene) -> String {
    let batch = scene.pass.seeds.len();
    let pictures = if batch == 1 { "one picture".to_owned() } else { format!("{batch} pictures") };
    if [LATENTD_IMAGE_POST, LATENTD_BATCH_POST, LATENTD_INFOTEXT_WRITE].contains(&scene.stage) {
        return format!("{pictures} of {} × {}", scene.pass.size.0, scene.pass.size.1);
    }
    if scene.stage == LATENTD_CONDITIONING {
        let tokens = scene.conds.conds.iter().map(|cond| cond.conditioning.tokens.dim(1)).max();
        let count = scene.conds.conds.len();
        return format!("{pictures} told {count} texts of up to {} tokens", tokens.unwrap_or_default());
    }
    let (height, width) = scene.evaluation.latents;
    let of = format!("{pictures} of {width} × {height} latents");
    if scene.stage == LATENTD_PASS_BEGIN {
        return format!("a pass of {pictures} of {} × {}", scene.pass.size.0, scene.pass.size.1);
    }
    if scene.stage == LATENTD_NOISE_INIT || scene.stage == LATENTD_LATENT_FINAL {
        return of;
    }
    let (step, steps, sigma) = (scene.evaluation.step, scene.evaluation.steps, scene.evaluation.sigma);
    format!("{of}, step {step} of {steps}, sigma {sigma}")
}
