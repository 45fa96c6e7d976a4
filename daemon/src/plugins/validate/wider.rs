//! A stage called by another host than this one: its structs are longer, its lists' elements lie farther apart, its rows are of
//! kinds that this version does not have. All of that is legal.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::networks::unet_sites::Site;
use latentd_models::pipeline::Stages as _;
use latentd_plugin_api::abi::{
    LATENTD_ATTENTION, LATENTD_BATCH_POST, LATENTD_CONDITIONING, LATENTD_CONTROL_RESIDUALS,
    LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_COMBINE, LATENTD_DENOISE_WRAP, LATENTD_IMAGE_POST,
    LATENTD_INFOTEXT_WRITE, LATENTD_NOISE_INIT, LATENTD_PASS_BEGIN, LATENTD_UNET_BLOCK, latentd_block,
    latentd_denoise, latentd_latents, latentd_list, latentd_pass, latentd_picture, latentd_pictures,
};

use super::bench::Bench;
use super::coding::Coding;
use super::scene::{Block, Made, Scene};
use crate::error::{Class, Error, Result};
use crate::plugins::call::{AtHand, Want};
use crate::plugins::host::text;
use crate::plugins::infotext::pairs;
use crate::plugins::objects::{Content, Image};
use crate::plugins::stages::{self, Called, JobStages, Left};

/// What is other than in this host.
#[derive(Clone, Debug, Default)]
pub(super) struct Wider {
    /// Zero bytes behind each struct that says its size; a multiple of 8.
    pub behind_structs: usize,
    /// Bytes between two elements of a list; a multiple of 8.
    pub between_elements: usize,
    /// Rows that have another role and tag.
    pub rows: Vec<(usize, u32, &'static str)>,
    /// What the network predicts.
    pub prediction: Option<u32>,
    /// Which kind of pass it is.
    pub pass: Option<u32>,
    /// Channels of pictures.
    pub channels: Option<usize>,
}

/// A struct, or a list of them, with more room than it needs.
pub(super) struct Roomy {
    words: Vec<u64>,
    count: usize,
    stride: usize,
}

impl Roomy {
    pub(super) fn new<T>(items: &[T], more: usize) -> Self {
        let stride = (size_of::<T>() + more).next_multiple_of(8);
        let mut words = vec![0_u64; stride * items.len() / 8];
        for (index, item) in items.iter().enumerate() {
            let to = words.as_mut_ptr().cast::<u8>().wrapping_add(index * stride);
            // SAFETY: both have so many bytes, and a number of bytes is a value of whatever stands there.
            unsafe {
                std::ptr::copy_nonoverlapping(std::ptr::from_ref(item).cast::<u8>(), to, size_of::<T>());
            };
        }
        Self { words, count: items.len(), stride }
    }

    /// A struct that begins with its size.
    pub(super) fn of<T>(told: &T, more: usize) -> Self {
        let mut roomy = Self::new(std::slice::from_ref(told), more);
        let size = roomy.stride as u32;
        // SAFETY: there is a word at least, and its first half is the struct's size.
        unsafe { roomy.words.as_mut_ptr().cast::<u32>().write(size) };
        roomy
    }

    pub(super) fn pointer<T>(&self) -> *const T {
        self.words.as_ptr().cast()
    }

    pub(super) fn list(&self) -> latentd_list {
        latentd_list { items: self.pointer(), count: self.count as u32, stride: self.stride as u32 }
    }
}

/// An evaluation with the rows that it points to.
pub(super) struct Eval {
    pub(super) of: Roomy,
    _rows: Roomy,
}

impl Scene {
    /// Calls the stage of the plugin's instance as another host would; gives what it leaves.
    pub(super) fn run_wider(&self, stages: &JobStages<'_>, job: &Bench, wider: &Wider) -> Result<Made> {
        if self.stage == LATENTD_UNET_BLOCK {
            return self.run_blocks_wider(stages, job, wider);
        }
        if [LATENTD_DENOISE_WRAP, LATENTD_ATTENTION].contains(&self.stage) {
            // What it asks or declares is taken by the stage itself.
            return self.run(stages);
        }
        if self.stage == LATENTD_CONTROL_RESIDUALS {
            return self.run_residuals_wider(stages, job, wider);
        }
        if self.stage == LATENTD_PASS_BEGIN {
            return self.begin_pass_wider(stages, job, wider);
        }
        if self.stage == LATENTD_CONDITIONING {
            return self.run_conds_wider(stages, job, wider);
        }
        let mut contents = self.contents(wider)?;
        let is_whole = [LATENTD_BATCH_POST, LATENTD_INFOTEXT_WRITE].contains(&self.stage);
        let slots = if is_whole || self.stage == LATENTD_IMAGE_POST { contents.len() } else { 1 };
        let has_steps = [LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_COMBINE].contains(&self.stage);
        let (step, steps) = (self.evaluation.step, self.evaluation.steps);
        let is_turn = |want: &Want| !has_steps || want.has(step, steps);
        let instance = stages.instances.first();
        if let Some(instance) =
            instance.filter(|instance| instance.member.want(self.stage).is_some_and(is_turn))
        {
            let function = |called: &Called<'_>| self.call_wider(called, wider);
            let at_hand = AtHand {
                coding: Some(&Coding),
                any_size: self.stage == LATENTD_BATCH_POST,
                is_between: true,
                engines: Some(&stages.engines),
                ..AtHand::default()
            };
            let left = stages::call(instance, job, self.stage, (&mut contents, slots), at_hand, &function)?;
            if self.stage == LATENTD_INFOTEXT_WRITE {
                return written(&left);
            }
        }
        Ok(Made::of(contents.get(..slots).unwrap_or_default()))
    }

    fn run_blocks_wider(&self, stages: &JobStages<'_>, job: &Bench, wider: &Wider) -> Result<Made> {
        let mut made = vec![];
        for Block { site, h, skip } in &self.blocks {
            let mut contents: Vec<Content> =
                [Some(h), skip.as_ref()].into_iter().flatten().cloned().map(Content::Tensor).collect();
            let slots = contents.len();
            contents.extend(stages::masks(&self.evaluation)?);
            if stages.wants_site(&self.evaluation, *site)
                && let Some(instance) = stages.instances.first()
            {
                let function =
                    |called: &Called<'_>| self.call_block_wider(called, wider, *site, (h, skip.as_ref()));
                stages::call(
                    instance,
                    job,
                    self.stage,
                    (&mut contents, slots),
                    AtHand::default(),
                    &function,
                )?;
            }
            for content in contents.iter().take(slots) {
                if let Content::Tensor(tensor) = content {
                    made.extend(self.in_order(tensor)?);
                }
            }
        }
        Ok(Made(made))
    }

    fn call_block_wider(
        &self,
        called: &Called<'_>,
        wider: &Wider,
        site: Site,
        (h, skip): (&Tensor, Option<&Tensor>),
    ) -> u32 {
        let slots = 1 + usize::from(skip.is_some());
        let masks = called.handles.get(slots..).unwrap_or_default();
        let eval = self.eval(wider, masks, None);
        let (part, index) = stages::place(site);
        let channels = |tensor: Option<&Tensor>| tensor.map_or(0, |tensor| tensor.dim(1) as u32);
        let args = latentd_block {
            size: 0,
            part,
            index,
            channels: channels(Some(h)),
            skip_channels: channels(skip),
            reserved: 0,
            eval: eval.of.pointer(),
            h: called.handles.first().copied().unwrap_or_default(),
            skip: skip.and_then(|_| called.handles.get(1)).copied().unwrap_or_default(),
        };
        let args = Roomy::of(&args, wider.behind_structs);
        called.tables.unet_block.and_then(|table| table.run).map_or(0, |run| {
            // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
            unsafe { run(called.instance, called.call, args.pointer()) }
        })
    }

    /// What the evaluation is of.
    pub(super) fn eval(&self, wider: &Wider, masks: &[u64], contexts: Option<&[u64]>) -> Eval {
        let mut rows = stages::rows(&self.evaluation, masks);
        if let Some(contexts) = contexts {
            stages::tell_contexts(&mut rows, &self.evaluation, contexts);
        }
        for (at, role, tag) in &wider.rows {
            if let Some(row) = rows.get_mut(*at) {
                (row.role, row.tag) = (*role, text(tag));
            }
        }
        let mut eval = stages::told(&self.evaluation, &rows);
        let rows = Roomy::new(&rows, wider.between_elements);
        eval.rows = rows.list();
        eval.prediction = wider.prediction.unwrap_or(eval.prediction);
        eval.pass_kind = wider.pass.unwrap_or(eval.pass_kind);
        Eval { of: Roomy::of(&eval, wider.behind_structs), _rows: rows }
    }

    /// What is lent, that which may be replaced first.
    fn contents(&self, wider: &Wider) -> Result<Vec<Content>> {
        let tensor = |tensor: &Tensor| Content::Tensor(tensor.clone());
        let mut contents = match self.stage {
            LATENTD_IMAGE_POST | LATENTD_BATCH_POST | LATENTD_INFOTEXT_WRITE => {
                self.pictures.iter().map(|picture| Self::picture(picture, wider)).collect()
            }
            LATENTD_DENOISE_COMBINE => vec![tensor(&self.guided), tensor(&self.x), tensor(&self.outputs)],
            _ => vec![tensor(&self.x)],
        };
        if self.stage == LATENTD_DENOISE_COMBINE || self.stage == LATENTD_DENOISE_BEFORE {
            contents.extend(stages::masks(&self.evaluation)?);
        }
        Ok(contents)
    }

    fn picture(picture: &latentd_models::pipeline::Picture, wider: &Wider) -> Content {
        let image = &picture.image;
        let Some(channels) = wider.channels else { return Content::Image(Image::from(image)) };
        let (width, height) = (image.width, image.height);
        let count = width * height * channels;
        let pixels = image.pixels.iter().cycle().take(count).copied().collect();
        Content::Image(Image { width, height, channels, pixels: Arc::new(pixels) })
    }

    /// The pass's pictures, without pixels.
    pub(super) fn pictures_wider(&self, between: usize) -> Roomy {
        Roomy::new(&stages::pictures(self.pass.first_image, &self.pass.seeds, &[]), between)
    }

    pub(super) fn pass_wider(&self, wider: &Wider, pictures: &Roomy) -> latentd_pass {
        let pass = stages::pass(Some(&self.pass), &[]);
        latentd_pass { kind: wider.pass.unwrap_or(pass.kind), pictures: pictures.list(), ..pass }
    }

    fn call_wider(&self, called: &Called<'_>, wider: &Wider) -> u32 {
        let (more, between) = (wider.behind_structs, wider.between_elements);
        let first = self.pass.first_image;
        let none = self.pictures_wider(between);
        let pass = Roomy::of(&self.pass_wider(wider, &none), more);
        let handle = |place: usize| called.handles.get(place).copied().unwrap_or_default();
        let tables = called.tables;
        match self.stage {
            LATENTD_IMAGE_POST | LATENTD_BATCH_POST | LATENTD_INFOTEXT_WRITE => {
                let is_whole = self.stage != LATENTD_IMAGE_POST;
                let pictures = stages::pictures(first, &self.pass.seeds, called.handles);
                let pictures = Roomy::new::<latentd_picture>(&pictures, between);
                let args = latentd_pictures {
                    size: 0,
                    reserved: 0,
                    pass: if is_whole { std::ptr::null() } else { pass.pointer() },
                    pictures: pictures.list(),
                };
                let args = Roomy::of(&args, more);
                let table = match self.stage {
                    LATENTD_IMAGE_POST => tables.image_post,
                    LATENTD_BATCH_POST => tables.batch_post,
                    _ => tables.infotext_write,
                };
                table.and_then(|table| table.run).map_or(0, |run| {
                    // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                    unsafe { run(called.instance, called.call, args.pointer()) }
                })
            }
            LATENTD_DENOISE_BEFORE | LATENTD_DENOISE_COMBINE => {
                let is_combine = self.stage == LATENTD_DENOISE_COMBINE;
                let masks = called.handles.get(if is_combine { 3 } else { 1 }..).unwrap_or_default();
                let eval = self.eval(wider, masks, None);
                let (x, outputs, guided) =
                    if is_combine { (handle(1), handle(2), handle(0)) } else { (handle(0), 0, 0) };
                let cfg_scale = if is_combine { self.scale } else { 0.0 };
                let (eval, images) = (eval.of.pointer(), none.list());
                let args =
                    latentd_denoise { size: 0, reserved: 0, eval, images, x, outputs, guided, cfg_scale };
                let args = Roomy::of(&args, more);
                let table = if is_combine { tables.denoise_combine } else { tables.denoise_before };
                table.and_then(|table| table.run).map_or(0, |run| {
                    // SAFETY: as above.
                    unsafe { run(called.instance, called.call, args.pointer()) }
                })
            }
            _ => {
                let args = latentd_latents { size: 0, reserved: 0, pass: pass.pointer(), latents: handle(0) };
                let args = Roomy::of(&args, more);
                let is_first = self.stage == LATENTD_NOISE_INIT;
                let table = if is_first { tables.noise_init } else { tables.latent_final };
                table.and_then(|table| table.run).map_or(0, |run| {
                    // SAFETY: as above.
                    unsafe { run(called.instance, called.call, args.pointer()) }
                })
            }
        }
    }
}

/// The pairs that a plugin gave, as a drawing has them.
fn written(left: &Left) -> Result<Made> {
    let mut made = vec![];
    for reply in left.replies.values() {
        let pairs = pairs(reply).map_err(|text| Error::new(Class::Plugin, text))?;
        for (key, value) in pairs {
            made.extend(key.bytes().chain([0]).chain(value.bytes()).chain([0]).map(f32::from));
        }
    }
    Ok(Made(made))
}
