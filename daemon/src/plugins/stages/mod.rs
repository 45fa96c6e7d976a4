//! Plugins in the pipeline: at each stage those whose turn it is are called one after the other, each with what the one before
//! left.

mod attention;
mod batch;
pub(in crate::plugins) mod conditioning;
mod infotext;
mod pass_begin;
mod replacing;
mod residuals;
mod restore;
mod sources;
mod told;
mod upscale;
mod wrap;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd_models::Tensor;
use latentd_models::image::inpaint::Prepared;
use latentd_models::image::{Picture, RgbImage};
use latentd_models::model::ModelShape;
use latentd_models::networks::unet_sites::Site;
use latentd_models::pipeline::{
    AttentionStage, ConditioningStage, ControlResiduals, DenoiseBefore, DenoiseCombine, DenoiseWrap,
    Evaluate, Evaluation, Exchanged, FaceRestoration, Handle, Handles, ImagePost, LatentFinal, NoiseInit,
    PassBegin, Residual, Rule, Stages, UNetBlock, Wants,
};
use latentd_plugin_api::abi::{
    LATENTD_ATTENTION, LATENTD_CONDITIONING, LATENTD_CONTROL_RESIDUALS, LATENTD_DENOISE_BEFORE,
    LATENTD_DENOISE_COMBINE, LATENTD_DENOISE_WRAP, LATENTD_IMAGE_POST, LATENTD_LATENT_FINAL,
    LATENTD_NOISE_INIT, LATENTD_UNET_BLOCK, latentd_block, latentd_call, latentd_denoise, latentd_latents,
    latentd_pass, latentd_picture, latentd_pictures,
};

use crate::error::{Class, Error, Result};
use crate::plugins::artifact::Artifact;
use crate::plugins::call::{AtHand, Job, Recorded, Want};
use crate::plugins::engines::Engines;
use crate::plugins::given::Decoded;
use crate::plugins::job::{JobPlugins, Member};
use crate::plugins::lending::{Lending, Made};
use crate::plugins::notices;
use crate::plugins::objects::{Content, Image, Objects};
use crate::plugins::opened::Opened;
use crate::plugins::tables::Tables;
pub(crate) use batch::Whole;
pub(in crate::plugins) use pass_begin::{begun_contents, begun_pictures};
use replacing::replace_all;
pub(crate) use sources::PassSources;
use told::list;
pub(in crate::plugins) use told::{contexts, masks, pass, pictures, place, rows, tell_contexts, told};

/// The plugins of a request while it is drawn. Stages may be called within others: what changes is in cells, none of which
/// is held while a plugin's function runs.
pub(crate) struct JobStages<'a> {
    plugins: &'a JobPlugins,
    job: &'a dyn Job,
    pub(in crate::plugins) instances: Vec<Instance<'a>>,
    pub(in crate::plugins) engines: Engines<'a>,
    /// The pass that goes on.
    pass: RefCell<Option<PassBegin>>,
    /// What its pictures begin with, and what plugins put in the place of that, by the pictures' places.
    sources: Option<PassSources<'a>>,
    exchanged: RefCell<BTreeMap<usize, Prepared>>,
    /// Why the request ended, if a plugin ended it.
    failure: RefCell<Option<Error>>,
    /// What plugins want to be told.
    notices: RefCell<Vec<String>>,
    /// Pictures that they leave beside the results.
    artifacts: RefCell<Vec<Artifact>>,
}

impl Drop for JobStages<'_> {
    fn drop(&mut self) {
        for instance in &self.instances {
            let (calls, spent) = (instance.calls.get(), instance.spent.get());
            self.record(instance, &Recorded::Ran { calls, spent });
        }
    }
}

/// What a plugin made for this drawing.
pub(in crate::plugins) struct Instance<'a> {
    pub(in crate::plugins) member: &'a Member,
    made: Made,
    pub(in crate::plugins) objects: RefCell<Objects>,
    /// The files that it knows.
    opened: RefCell<Opened>,
    /// Room for what a call's arguments are called.
    handles: Cell<Vec<u64>>,
    /// The pictures of its parameters.
    _given: Vec<Arc<Decoded>>,
    /// What it took, without what it waited for.
    spent: Cell<Duration>,
    /// How often it was called.
    calls: Cell<u64>,
}

/// What a stage's function is called with.
pub(in crate::plugins) struct Called<'a> {
    pub(in crate::plugins) instance: *mut c_void,
    pub(in crate::plugins) call: *mut latentd_call,
    pub(in crate::plugins) tables: &'a Tables,
    /// What stands for the stage's tensors and images, in their order.
    pub(in crate::plugins) handles: &'a [u64],
}

impl<'a> JobStages<'a> {
    /// Makes an instance of each.
    pub(crate) fn begin(plugins: &'a JobPlugins, job: &'a dyn Job) -> Result<Self> {
        let mut begun = Self {
            plugins,
            job,
            instances: vec![],
            engines: Engines::new(plugins.of_engines(), job),
            pass: RefCell::default(),
            sources: None,
            exchanged: RefCell::default(),
            failure: RefCell::default(),
            notices: RefCell::default(),
            artifacts: RefCell::default(),
        };
        for member in &plugins.members {
            let objects = RefCell::<Objects>::default();
            let opened = RefCell::new(member.opened.clone());
            let (given, handles) = member.given.give(member.name(), &objects, job)?;
            let params = member.given.packed(&handles);
            let since = Instant::now();
            let told = plugins.described(member, &params);
            let created = Made::by(&member.plugin, &told, job, (&objects, &opened));
            let (made, said) = created.inspect_err(|error| {
                let manifest = &member.plugin.manifest;
                job.record(&manifest.name, &manifest.version, &Recorded::Failed(&error.text));
            })?;
            let spent = Cell::new(since.elapsed());
            begun.instances.push(Instance {
                member,
                made,
                objects,
                opened,
                handles: Cell::default(),
                _given: given,
                spent,
                calls: Cell::new(1),
            });
            begun.artifacts.borrow_mut().extend(said.artifacts);
            begun.hear(member.name(), said.notices)?;
        }
        Ok(begun)
    }

    /// Seconds that each has taken.
    pub(crate) fn spent(&self) -> impl Iterator<Item = (String, f64)> {
        let spent =
            |instance: &Instance| (instance.member.name().to_owned(), instance.spent.get().as_secs_f64());
        self.instances.iter().map(spent).chain(self.engines.spent())
    }

    /// Why the request ended, if a plugin ended it.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.take()
    }

    /// What plugins want to be told.
    pub(crate) fn notices(&self) -> Vec<String> {
        self.notices.take()
    }

    /// Pictures that they leave beside the results.
    pub(crate) fn artifacts(&self) -> Vec<Artifact> {
        self.artifacts.take()
    }

    /// Whether somebody takes part in a stage.
    fn has(&self, stage: &str) -> bool {
        self.plugins.chains.contains_key(stage)
    }

    /// Calls those whose turn it is at a stage. `contents` are what they are lent, of which the first `slots` may be replaced;
    /// whether any was.
    fn chain(
        &self,
        stage: &'static str,
        is_turn: impl Fn(&Want) -> bool,
        contents: &mut [Content],
        slots: usize,
        function: impl Fn(&Called<'_>) -> u32,
    ) -> latentd_models::Result<bool> {
        self.chain_with(stage, is_turn, contents, slots, AtHand::default(), function)
    }

    /// The same, with something for services to work on.
    fn chain_with(
        &self,
        stage: &'static str,
        is_turn: impl Fn(&Want) -> bool,
        contents: &mut [Content],
        slots: usize,
        at_hand: AtHand<'_>,
        function: impl Fn(&Called<'_>) -> u32,
    ) -> latentd_models::Result<bool> {
        let mut changed = false;
        for index in self.plugins.chains.get(stage).into_iter().flatten() {
            let Some(instance) = self.instances.get(*index) else { continue };
            if !instance.member.want(stage).is_some_and(&is_turn) {
                continue;
            }
            changed |= self.called(instance, stage, (contents, slots), at_hand, &function)?.is_changed;
        }
        Ok(changed)
    }

    /// Calls one plugin at a stage, as [`Self::chain`] does; what it left beside notices and artifacts.
    fn called(
        &self,
        instance: &Instance<'_>,
        stage: &'static str,
        (contents, slots): (&mut [Content], usize),
        at_hand: AtHand<'_>,
        function: impl Fn(&Called<'_>) -> u32,
    ) -> latentd_models::Result<Left> {
        let (begun, waited) = (Instant::now(), self.job.waited());
        let at_hand = AtHand { engines: Some(&self.engines), ..at_hand };
        let called = call(instance, self.job, stage, (contents, slots), at_hand, &function);
        // What others drew for it is not its own time.
        let own = begun.elapsed().saturating_sub(self.job.waited().saturating_sub(waited));
        instance.spent.set(instance.spent.get() + own);
        instance.calls.set(instance.calls.get() + 1);
        self.hear_engines()?;
        match called {
            Ok(mut left) => {
                self.artifacts.borrow_mut().append(&mut left.artifacts);
                let heard = self.hear(instance.member.name(), std::mem::take(&mut left.notices));
                heard.map(|()| left).map_err(|error| self.fail(error))
            }
            // Not its fault: another range of numbers may hold what this one does not.
            Err(_) if !contents.iter().all(Content::is_finite) => {
                let name = instance.member.name();
                let reason = format!(
                    "what came to plugin '{name}' at {stage} was NaN: the checkpoint's weights overflow, or are broken"
                );
                Err(latentd_models::Error::NotFinite(reason))
            }
            Err(error) => {
                if error.class != Class::Cancelled {
                    self.record(instance, &Recorded::Failed(&error.text));
                }
                Err(self.fail(error))
            }
        }
    }

    fn record(&self, instance: &Instance<'_>, event: &Recorded<'_>) {
        let manifest = &instance.member.plugin.manifest;
        self.job.record(&manifest.name, &manifest.version, event);
    }

    /// Keeps what a plugin wants to be told, each once; an error if nothing may be.
    fn hear(&self, plugin: &str, said: Vec<String>) -> Result<()> {
        for text in said {
            if self.plugins.strict {
                return Err(Error::new(Class::Plugin, notices::of(plugin, &text)));
            }
            notices::keep(&mut self.notices.borrow_mut(), plugin, &text);
        }
        Ok(())
    }

    /// Keeps why the request ends.
    fn fail(&self, error: Error) -> latentd_models::Error {
        if error.class == Class::Cancelled {
            return latentd_models::Error::Cancelled;
        }
        let text = error.text.clone();
        *self.failure.borrow_mut() = Some(error);
        latentd_models::Error::Stage(text)
    }

    /// The pass with its pictures.
    fn pass(&self) -> Told<latentd_pass, latentd_picture> {
        let pass = self.pass.borrow();
        let pass = pass.as_ref();
        let pictures = pass.map_or_else(Vec::new, |pass| pictures(pass.first_image, &pass.seeds, &[]));
        let told = told::pass(pass, &pictures);
        Told { told, _parts: pictures }
    }

    /// A stage whose one tensor may be replaced.
    fn latents(
        &self,
        stage: &'static str,
        handle: Handle,
        tensors: &mut Handles,
    ) -> latentd_models::Result<()> {
        let mut contents = [Content::Tensor(tensors.read(handle)?.clone())];
        let pass = self.pass();
        let function = |called: &Called<'_>| {
            let args = latentd_latents {
                size: size_of::<latentd_latents>() as u32,
                reserved: 0,
                pass: &raw const pass.told,
                latents: called.handles.first().copied().unwrap_or_default(),
            };
            let Tables { noise_init, latent_final, .. } = called.tables;
            let table = if stage == LATENTD_NOISE_INIT { noise_init } else { latent_final };
            table.and_then(|table| table.run).map_or(0, |run| {
                // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                unsafe { run(called.instance, called.call, &raw const args) }
            })
        };
        if self.chain(stage, |_| true, &mut contents, 1, function)? {
            replace(tensors, handle, contents)?;
        }
        Ok(())
    }
}

/// A struct that is lent, with what its lists point to.
struct Told<T, P> {
    told: T,
    _parts: Vec<P>,
}

/// What a call of a stage left, beside what it replaced.
#[derive(Default)]
pub(in crate::plugins) struct Left {
    notices: Vec<String>,
    artifacts: Vec<Artifact>,
    /// Whether it replaced something.
    pub(in crate::plugins) is_changed: bool,
    /// MessagePack by its slot.
    pub(in crate::plugins) replies: BTreeMap<u32, Vec<u8>>,
}

/// Calls one plugin, which may replace the first `slots` of `contents`.
pub(in crate::plugins) fn call(
    instance: &Instance<'_>,
    job: &dyn Job,
    stage: &str,
    (contents, slots): (&mut [Content], usize),
    at_hand: AtHand<'_>,
    function: &impl Fn(&Called<'_>) -> u32,
) -> Result<Left> {
    let Instance { member, made, objects, opened, handles: room, .. } = instance;
    let name = member.name();
    let wrong = |text: String| Error::new(Class::Plugin, format!("plugin '{name}', {stage}: {text}"));
    let _ends = Lending::begin(objects);
    // A call within this one finds none, and makes its own.
    let mut handles = room.take();
    handles.clear();
    for content in contents.iter() {
        let lent = objects.borrow_mut().lend(content.clone());
        handles.push(lent.map_err(|misuse| wrong(misuse.to_string()))?);
    }
    let call = member.plugin.call(job, Some(objects), None);
    let call = call.with_at_hand(at_hand).with_opened(opened);
    let called = Called {
        instance: made.pointer(),
        call: call.pointer(),
        tables: &member.plugin.tables,
        handles: &handles,
    };
    let status = function(&called);
    room.set(handles);
    let state = call.end(status, stage)?;
    // What is skipped is as if it had never been called.
    if status != 0 {
        return Ok(Left::default());
    }
    let is_changed =
        replace_all(&mut objects.borrow_mut(), state.replaced, (contents, slots), at_hand.any_size)
            .map_err(wrong)?;
    let (notices, artifacts, replies) = (state.notices, state.artifacts, state.replies);
    Ok(Left { notices, artifacts, is_changed, replies })
}

fn replace<const N: usize>(
    tensors: &mut Handles,
    handle: Handle,
    contents: [Content; N],
) -> latentd_models::Result<()> {
    match contents.into_iter().next() {
        Some(Content::Tensor(tensor)) => tensors.replace(handle, tensor),
        _ => Ok(()),
    }
}

/// A stage within the sampler's loop.
struct Denoising<'a> {
    stage: &'static str,
    evaluation: &'a Evaluation,
    images: &'a Range<usize>,
    seeds: &'a [u64],
    scale: f64,
}

impl Denoising<'_> {
    /// Calls one plugin; `x`, `outputs` and `guided` are places in the handles that it is lent, masks stand behind `of_masks`.
    fn run(
        &self,
        called: &Called<'_>,
        (x, outputs, guided): (Option<usize>, Option<usize>, Option<usize>),
        of_masks: usize,
    ) -> u32 {
        let rows = rows(self.evaluation, called.handles.get(of_masks..).unwrap_or_default());
        let eval = told(self.evaluation, &rows);
        let images = pictures(self.images.start, self.seeds, &[]);
        let handle = |place: Option<usize>| {
            place.and_then(|place| called.handles.get(place)).copied().unwrap_or_default()
        };
        let args = latentd_denoise {
            size: size_of::<latentd_denoise>() as u32,
            reserved: 0,
            eval: &raw const eval,
            images: list(&images),
            x: handle(x),
            outputs: handle(outputs),
            guided: handle(guided),
            cfg_scale: self.scale,
        };
        let Tables { denoise_before, denoise_combine, .. } = called.tables;
        let table = if self.stage == LATENTD_DENOISE_BEFORE { denoise_before } else { denoise_combine };
        table.and_then(|table| table.run).map_or(0, |run| {
            // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
            unsafe { run(called.instance, called.call, &raw const args) }
        })
    }
}

impl Stages for &JobStages<'_> {
    fn wants(&self) -> Wants {
        Wants {
            pass_begin: !self.plugins.is_empty(),
            conditioning: self.has(LATENTD_CONDITIONING),
            noise_init: self.has(LATENTD_NOISE_INIT),
            denoise_before: self.has(LATENTD_DENOISE_BEFORE),
            denoise_wrap: self.has(LATENTD_DENOISE_WRAP),
            control_residuals: self.has(LATENTD_CONTROL_RESIDUALS),
            attention: self.has(LATENTD_ATTENTION),
            unet_block: self.has(LATENTD_UNET_BLOCK),
            denoise_combine: self.has(LATENTD_DENOISE_COMBINE),
            latent_final: self.has(LATENTD_LATENT_FINAL),
            image_post: self.has(LATENTD_IMAGE_POST),
        }
    }

    fn pass_begin(&mut self, stage: &PassBegin) -> latentd_models::Result<Vec<Exchanged>> {
        *self.pass.borrow_mut() = Some(stage.clone());
        self.pass_begun(stage, self.sources)
    }

    fn conditioning(&mut self, stage: &mut ConditioningStage) -> latentd_models::Result<()> {
        self.conditioning_stage(stage)
    }

    fn noise_init(&mut self, stage: &NoiseInit, tensors: &mut Handles) -> latentd_models::Result<()> {
        self.latents(LATENTD_NOISE_INIT, stage.noise, tensors)
    }

    fn latent_final(&mut self, stage: &LatentFinal, tensors: &mut Handles) -> latentd_models::Result<()> {
        self.latents(LATENTD_LATENT_FINAL, stage.latents, tensors)
    }

    fn denoise_before(&mut self, stage: &DenoiseBefore, tensors: &mut Handles) -> latentd_models::Result<()> {
        let DenoiseBefore { evaluation, images, seeds, latents } = stage;
        let mut contents = vec![Content::Tensor(tensors.read(*latents)?.clone())];
        contents.extend(masks(evaluation)?);
        let (name, scale) = (LATENTD_DENOISE_BEFORE, 0.0);
        let denoising = Denoising { stage: name, evaluation, images, seeds, scale };
        let function = |called: &Called<'_>| denoising.run(called, (Some(0), None, None), 1);
        let is_turn = |want: &Want| want.has(evaluation.step, evaluation.steps);
        if self.chain(name, is_turn, &mut contents, 1, function)? {
            replace(tensors, *latents, [contents.swap_remove(0)])?;
        }
        Ok(())
    }

    fn denoise_wrap(
        &mut self,
        stage: &DenoiseWrap,
        model: &mut dyn Evaluate,
    ) -> latentd_models::Result<Option<Tensor>> {
        self.wrapped(0, stage.evaluation, stage.x, &RefCell::new(model))
    }

    fn model(&mut self, model: &Arc<ModelShape>) {
        self.job.model_is(model);
    }

    fn attention(&mut self, stage: &AttentionStage) -> latentd_models::Result<Vec<Rule>> {
        self.rules(stage)
    }

    fn control_residuals(
        &mut self,
        stage: &ControlResiduals,
        tensors: &mut Handles,
    ) -> latentd_models::Result<Vec<Residual>> {
        self.residuals(stage, tensors)
    }

    fn wants_site(&self, evaluation: &Evaluation, site: Site) -> bool {
        let mut chain = self.plugins.chains.get(LATENTD_UNET_BLOCK).into_iter().flatten();
        chain.any(|index| {
            let member = self.instances.get(*index).map(|instance| instance.member);
            let want = member.and_then(|member| member.want(LATENTD_UNET_BLOCK));
            want.is_some_and(|want| want.has(evaluation.step, evaluation.steps) && want.is_at(place(site)))
        })
    }

    fn unet_block(&mut self, stage: &UNetBlock, tensors: &mut Handles) -> latentd_models::Result<()> {
        let mut evaluation = stage.evaluation.clone();
        // Of the rows those that are here.
        evaluation.rows = evaluation.rows.get(stage.rows.clone()).unwrap_or_default().to_vec();
        let evaluation = &evaluation;
        let mut contents = vec![Content::Tensor(tensors.read(stage.h)?.clone())];
        if let Some(skip) = stage.skip {
            contents.push(Content::Tensor(tensors.read(skip)?.clone()));
        }
        let slots = contents.len();
        contents.extend(masks(evaluation)?);
        let channels =
            contents[..slots].iter().map(|content| content.dims().get(1).map_or(0, |count| *count as u32));
        let channels: Vec<u32> = channels.collect();
        let (part, index) = place(stage.site);
        let function = |called: &Called<'_>| {
            let (own, of_masks) = called.handles.split_at_checked(slots).unwrap_or_default();
            let rows = rows(evaluation, of_masks);
            let mut eval = told(evaluation, &rows);
            (eval.group, eval.groups) = (stage.group as u32, stage.groups as u32);
            let args = latentd_block {
                size: size_of::<latentd_block>() as u32,
                part,
                index,
                channels: channels.first().copied().unwrap_or_default(),
                skip_channels: channels.get(1).copied().unwrap_or_default(),
                reserved: 0,
                eval: &raw const eval,
                h: own.first().copied().unwrap_or_default(),
                skip: own.get(1).copied().unwrap_or_default(),
            };
            called.tables.unet_block.and_then(|table| table.run).map_or(0, |run| {
                // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                unsafe { run(called.instance, called.call, &raw const args) }
            })
        };
        let is_turn = |want: &Want| want.has(evaluation.step, evaluation.steps) && want.is_at((part, index));
        if self.chain(LATENTD_UNET_BLOCK, is_turn, &mut contents, slots, function)? {
            for (handle, content) in [Some(stage.h), stage.skip].into_iter().flatten().zip(contents) {
                replace(tensors, handle, [content])?;
            }
        }
        Ok(())
    }

    fn denoise_combine(
        &mut self,
        stage: &DenoiseCombine,
        tensors: &mut Handles,
    ) -> latentd_models::Result<()> {
        let DenoiseCombine { evaluation, images, seeds, scale, latents, rows, guided } = stage;
        let mut contents = vec![];
        for handle in [guided, latents, rows] {
            contents.push(Content::Tensor(tensors.read(*handle)?.clone()));
        }
        contents.extend(masks(evaluation)?);
        let name = LATENTD_DENOISE_COMBINE;
        let denoising = Denoising { stage: name, evaluation, images, seeds, scale: *scale };
        let function = |called: &Called<'_>| denoising.run(called, (Some(1), Some(2), Some(0)), 3);
        let is_turn = |want: &Want| want.has(evaluation.step, evaluation.steps);
        if self.chain(name, is_turn, &mut contents, 1, function)? {
            replace(tensors, *guided, [contents.swap_remove(0)])?;
        }
        Ok(())
    }

    fn upscale(
        &mut self,
        name: &str,
        picture: &Picture,
        told: &mut dyn FnMut(usize, usize),
    ) -> latentd_models::Result<Picture> {
        self.upscaled(name, picture, told)
    }

    fn restore(
        &mut self,
        restoration: &FaceRestoration,
        picture: &Picture,
    ) -> latentd_models::Result<Picture> {
        self.restored(restoration, picture)
    }

    fn image_post(&mut self, stage: &mut ImagePost) -> latentd_models::Result<()> {
        let mut contents: Vec<Content> =
            stage.pictures.iter().map(|picture| Content::Image(Image::from(&picture.image))).collect();
        let pass = self.pass();
        let whose: Vec<(usize, u64)> =
            stage.pictures.iter().map(|picture| (picture.index, picture.seed)).collect();
        let function = |called: &Called<'_>| {
            let pictures = told::with_pixels(&whose, called.handles);
            let args = latentd_pictures {
                size: size_of::<latentd_pictures>() as u32,
                reserved: 0,
                pass: &raw const pass.told,
                pictures: list(&pictures),
            };
            called.tables.image_post.and_then(|table| table.run).map_or(0, |run| {
                // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                unsafe { run(called.instance, called.call, &raw const args) }
            })
        };
        let slots = contents.len();
        let at_hand = AtHand { coding: Some(stage.coding), is_between: true, ..AtHand::default() };
        if self.chain_with(LATENTD_IMAGE_POST, |_| true, &mut contents, slots, at_hand, function)? {
            for (picture, content) in stage.pictures.iter_mut().zip(contents) {
                if let Content::Image(Image { width, height, pixels, .. }) = content {
                    let pixels = Arc::unwrap_or_clone(pixels);
                    picture.image = RgbImage { width, height, pixels };
                }
            }
        }
        Ok(())
    }
}
