//! What `txt2img`, `img2img` and `outpaint` do: prompts, networks, sizes and memory are settled alike, whatever pictures begin with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd_client::protocol::{
    Emphasis, ImageIn, ImageOut, Img2ImgParams, OutpaintParams, PreviewKind, Prompt, Timings, Txt2ImgParams,
    Txt2ImgResult, VaeDecodeMethod,
};
use latentd_models::image::outpaint::Job;
use latentd_models::image::{Picture, RgbImage};
use latentd_models::model::PictureSize;
use latentd_models::nn::{Precision, Wrap};
use latentd_models::pipeline::{self, LatentDecoder, MaskedContent, PassKind, PreviewDecoder};

use super::continuation::{self, Continuation, Draws};
use super::device::DeviceId;
use super::embeddings::RequestEmbeddings;
use super::from_pictures::{FromPictures, Ready, Way};
use super::given::{Given, Sources};
use super::hires::{self, HiresFields, HiresNetworks};
use super::hooks::{Hashing, RunHooks};
use super::hypernetworks::Hypernetworks;
use super::infotext::{self, Named, Told};
use super::loras::Loras;
use super::names;
use super::noise::Noise;
use super::notices::Notices;
use super::output::Output;
use super::packing::Packing;
use super::plugins::{self, Asking};
use super::prompts::RequestPrompts;
use super::refiner;
use super::regions;
use super::sampling;
use super::studio::Studio;
use super::task::{Run, Watch};
use super::told_prompt::ToldPrompt;
use crate::error::{Class, Error, Result};
use crate::library::{ModelFiles, Pinned};
use crate::memory::{Beside, HiresWish, Known, Lent, TaesdWish, Wishes};
use crate::plugins::{JobPlugins, JobStages};

/// A request with everything settled.
pub(super) struct Draw {
    studio: Arc<Studio>,
    files: ModelFiles,
    known: Arc<Known>,
    /// What decides how much memory it takes.
    picture: PictureSize,
    /// What is drawn; how many latents go together is settled in its turn.
    drawing: pipeline::Txt2Img,
    /// What it begins with, if not with noise alone.
    from: Option<FromPictures>,
    /// A second pass, if there is one.
    hires: Option<SecondPass>,
    output: Output,
    preview_every: Option<u32>,
    wishes: Wishes,
    loras: Loras,
    embeddings: RequestEmbeddings,
    /// What the pictures' texts tell, without what is known of each once it is drawn.
    told: Told,
    /// What it was asked with: of these the pictures' texts tell.
    prompts: RequestPrompts,
    hypernetworks: Hypernetworks,
    plugins: JobPlugins,
    notices: Vec<String>,
}

/// What pictures tell of a second pass.
struct SecondPass {
    fields: HiresFields,
    networks: HiresNetworks,
    /// What those of the first pass tell: the request without a second one.
    first: Told,
}

impl Draw {
    /// Settles everything of a request from text, or, if `begun` is there, from pictures: its own `drawing` is not looked at.
    pub(super) fn resolve(
        mut params: Txt2ImgParams,
        begun: Option<Begun>,
        studio: &Arc<Studio>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let settings = studio.settings.get();
        let (sampler, schedule) = names::sampler_and_schedule(&params.sampler_name, &params.scheduler)?;
        let precision = names::precision(params.precision)?.unwrap_or(settings.precision);
        let mut notices = Notices::new(params.strict);
        let pictures = u64::from(params.batch_size) * u64::from(params.n_iter);
        let noise = Noise::resolve(&params, pictures, &mut notices)?;
        let sources = Sources::of(studio);
        let method = begun.as_ref().map_or("txt2img", Begun::method);
        let (outpaint, begun) = match begun {
            Some(Begun::Pictures(begun)) => (None, Some(Img2ImgParams { drawing: params.clone(), ..begun })),
            Some(Begun::Continued(outpaint)) => {
                let begun = continuation::as_img2img(&outpaint, &params);
                (Some(outpaint), Some(begun))
            }
            None => (None, None),
        };
        let (from, begun) = match begun {
            Some(_) if params.enable_hr => {
                let text = "enable_hr: hires fix belongs to txt2img; img2img draws at width and height, from whatever size";
                return Err(Error::invalid(text));
            }
            Some(mut begun) => {
                let mut from = FromPictures::resolve(&mut begun, &sources, &mut notices)
                    .map_err(|error| in_field(error, outpaint.is_some()))?;
                let continues =
                    |outpaint: &OutpaintParams| Continuation::resolve(outpaint, &params, &mut notices);
                from.continuation = outpaint.as_ref().map(continues).transpose()?;
                params.denoising_strength = begun.drawing.denoising_strength;
                (Some(from), Some(Box::new(Img2ImgParams { drawing: Txt2ImgParams::default(), ..begun })))
            }
            None => (None, None),
        };
        let output = Output::resolve(&params.output, &studio.outputs_dir, &studio.folders)?;
        let styles = studio.styles.named(&params.styles, &settings.styles_dirs, &studio.folders)?;
        let prompts = RequestPrompts::resolve(&params, &styles, &output)?;
        let hires = HiresFields::resolve(&mut params, &styles, &output)?;

        let name = params.checkpoint.as_deref();
        let files = studio.files(name, params.vae.as_deref(), &Hashing::new(watch))?;
        studio.built_in_notice(name, files.checkpoint.item()).into_iter().for_each(|text| notices.tell(text));
        let known = studio.device.memory.known(&files, precision)?;
        let library = &studio.library;
        let loras = Loras::resolve(prompts.first()?, &params.loras, &known, library, &mut notices)?;
        let hypernetworks = Hypernetworks::resolve(prompts.first()?, &known, library, &mut notices)?;
        let hashing = Hashing::new(watch);
        let networks = |hires: &HiresFields| {
            let (own, first) = ((&files, &known), (precision, prompts.first()?));
            hires.networks(&params, own, first, (studio, &hashing), &mut notices)
        };
        let (hires_networks, hires_wish) = hires.as_ref().map(networks).transpose()?.unwrap_or_default();
        let last_prompts = hires.as_ref().and_then(HiresFields::prompts).unwrap_or(&prompts);
        let refiner = refiner::resolve(
            &params,
            (&files, &known),
            precision,
            last_prompts.first()?,
            studio,
            &hashing,
            &mut notices,
        )?;
        let native = from.as_ref().and_then(FromPictures::usual_size).unwrap_or(known.native_size);
        let given = |side: Option<u32>| side.map(|side| side as usize);
        let size = (given(params.width).unwrap_or(native.0), given(params.height).unwrap_or(native.1));
        let from = from.map(|from| from.drawn_at(size, &mut notices)).transpose()?;
        let finished = from.as_ref().map_or(size, FromPictures::finished_size);
        let all = pictures * from.as_ref().map_or(1, |from| from.pictures_each(params.n_iter));
        check_size((size.0.max(finished.0), size.1.max(finished.1)), all, settings.result_bytes)?;
        let second = hires.as_ref().map(|hires| hires.pass(&params, size));
        if let Some(second) = &second {
            // Those of the first pass count as if they were as large.
            let all = if second.keeps_first { pictures * 2 } else { pictures };
            check_size(second.size.target(), all, settings.result_bytes)?;
        }
        let asked = std::mem::take(&mut params.regions);
        let (regions, told_regions) = regions::resolve(asked, size, &sources, &mut notices)?;
        let reading = names::reading(&params);
        let [prompt, negative_prompt] = prompts.texts();
        let foreseen = sampler.foreseen_calls(params.steps as usize);
        let texts = if second.is_some() {
            hires::texts_of(&pipeline::Txt2Img {
                prompt: prompt.clone(),
                negative_prompt: negative_prompt.clone(),
                regions: regions.clone(),
                reading,
                steps: params.steps as usize,
                width: size.0,
                height: size.1,
                sampler,
                hires: second.clone(),
                ..pipeline::Txt2Img::default()
            })?
        } else {
            pipeline::texts_of(&prompt, &negative_prompt, &regions, &reading, foreseen)?
        };
        let embeddings = RequestEmbeddings::resolve(&texts, &reading, &known, library, &mut notices)?;
        if let Some((wish, _)) = &refiner {
            embeddings.tell_misfits("refiner_checkpoint", &wish.known, &mut notices)?;
        }
        if let Some(wish) = hires_wish.as_ref().filter(|wish| wish.is_other) {
            embeddings.tell_misfits("hr_checkpoint_name", &wish.known, &mut notices)?;
        }
        prompts.tell_unapplied(&mut notices)?;
        if let Some(second) = hires.as_ref().and_then(HiresFields::prompts) {
            second.tell_unapplied(&mut notices)?;
        }
        let wants_taesd_previews = params.preview.is_some_and(|preview| preview.kind == PreviewKind::Taesd);
        let taesd = match params.sd_vae_decode_method {
            VaeDecodeMethod::Taesd => Some(studio.library.pin_taesd()?),
            VaeDecodeMethod::Full if wants_taesd_previews => {
                let found = studio.library.pin_taesd();
                found
                    .inspect_err(|error| {
                        notices.tell(format!("previews are of latents alone: {}", error.text));
                    })
                    .ok()
            }
            VaeDecodeMethod::Full => None,
        };
        let drawing = pipeline::Txt2Img {
            prompt,
            negative_prompt,
            regions,
            reading,
            embeddings: Arc::clone(&embeddings.found),
            seed: noise.seed,
            variation: noise.variation,
            seed_resize_from: noise.resized_from,
            steps: params.steps as usize,
            cfg_scale: params.cfg_scale,
            width: size.0,
            height: size.1,
            sampler,
            schedule,
            sampling: sampling::options(&params),
            batch_size: params.batch_size as usize,
            n_iter: params.n_iter as usize,
            clip_skip: params.clip_skip as usize,
            rng: names::noise_source(params.rng),
            pad_cond_uncond: params.pad_cond_uncond,
            pad_cond_uncond_v0: params.pad_cond_uncond_v0,
            decoder: match params.sd_vae_decode_method {
                VaeDecodeMethod::Full => LatentDecoder::Vae,
                VaeDecodeMethod::Taesd => LatentDecoder::Taesd,
            },
            previews: match params.preview.map(|preview| preview.kind) {
                Some(PreviewKind::Full) => PreviewDecoder::Vae,
                Some(PreviewKind::Taesd) if taesd.is_some() => PreviewDecoder::Taesd,
                _ => PreviewDecoder::Latents,
            },
            refiner_switch_at: refiner.as_ref().map(|(_, share)| *share),
            hires: second,
            tiling: Wrap { x: params.tiling || params.tiling_x, y: params.tiling || params.tiling_y },
            samples_at_once: None,
        };
        match &from {
            Some(from) => from.check(&drawing, &known.facts)?,
            None => drawing.check(&known.facts)?,
        }
        let text_needs = drawing.text_needs()?;
        let tiles_all = drawing.tiling == Wrap { x: true, y: true };
        let told = Txt2ImgParams {
            // Each picture tells its own.
            prompt: Prompt::default(),
            negative_prompt: Prompt::default(),
            loras: vec![],
            regions: told_regions,
            width: Some(size.0 as u32),
            height: Some(size.1 as u32),
            sampler_name: sampler.name.to_owned(),
            scheduler: drawing.named_schedule().to_string(),
            refiner_checkpoint: None,
            refiner_switch_at: None,
            // One key for both, as in A1111.
            tiling: tiles_all,
            tiling_x: params.tiling_x && !tiles_all,
            tiling_y: params.tiling_y && !tiles_all,
            ..sampling::settled(params.clone(), sampler, schedule)
        };
        let plugins = plugins::resolve(&params, &told, &drawing, method, (studio, watch), &mut notices)?;
        let told = plugins::told(told, &plugins);
        let outpaint = outpaint.map(|outpaint| Box::new(infotext::told_outpaint(&outpaint)));
        // It is of what began with a picture, or of a second pass.
        let told = if begun.is_some() { told } else { hires::without(told) };
        let second_told = hires.as_ref().map(|hires| hires.told(told.clone(), &params, &drawing));
        let plugin_versions = plugins.versions();
        let first_told = Told { begun, outpaint, plugin_versions, ..Told::of(told) };
        let told = second_told.map_or_else(
            || first_told.clone(),
            |told| Told { plugin_versions: first_told.plugin_versions.clone(), ..Told::of(told) },
        );
        let hires = hires.map(|fields| SecondPass { fields, networks: hires_networks, first: first_told });
        // A prompt that A1111's lines cannot carry stands in them twice.
        for index in 0..if output.limits_texts() { drawing.told_apart() } else { 0 } {
            let in_prompt = prompts.told(index, &loras, &hypernetworks)?;
            let mut told = with_prompts(&told, &in_prompt, drawing.negative_prompt.of(index));
            if let Some(SecondPass { fields, networks, .. }) = &hires {
                told = fields.with_prompts(told, index, networks, in_prompt.loras.is_empty())?;
            }
            output.check_prompts([infotext::write(&told).to_string().as_str()])?;
            if watch.is_cancelled() {
                return Err(Error::new(Class::Cancelled, "cancelled while its prompts were looked at"));
            }
        }
        let more = from.as_ref().map_or(0, |from| from.more_branches(&drawing, &known.facts));
        let branches = text_needs.branches + more;
        let (wide, high) = from.as_ref().map_or_else(|| drawing.largest(), FromPictures::largest);
        let picture = PictureSize {
            width: wide.next_multiple_of(8),
            height: high.next_multiple_of(8),
            images: params.batch_size as usize,
            rows: params.batch_size as usize * branches,
            samples: params.batch_size as usize * branches,
            tokens: text_needs.tokens,
            more_contexts: text_needs.more_contexts,
            held_tokens: text_needs.held_tokens,
            threads: studio.threads(),
        };
        let decodes = drawing.decoder == LatentDecoder::Taesd;
        let taesd = taesd.map(|file| TaesdWish {
            file,
            previews: drawing.previews == PreviewDecoder::Taesd,
            decodes,
        });
        let keep_alive = keep_alive(params.keep_alive.or(settings.keep_alive_s))?;
        let wishes = Wishes {
            keep_alive,
            taesd,
            previews_by_vae: drawing.previews == PreviewDecoder::Vae,
            changes: loras.changes.clone(),
            hypernetworks: hypernetworks.wishes.clone(),
            refiner: refiner.map(|(wish, _)| wish),
            hires: hires_wish,
        };
        check_fits(studio, &wishes, &known, &picture)?;
        let preview_every = params.preview.map(|preview| preview.every);
        Ok(Self {
            studio: Arc::clone(studio),
            files,
            known,
            picture,
            drawing,
            from,
            hires,
            output,
            preview_every,
            wishes,
            told,
            prompts,
            hypernetworks,
            loras,
            embeddings,
            plugins,
            notices: notices.into_texts(),
        })
    }

    pub(super) fn device(&self) -> DeviceId {
        self.studio.device.id
    }

    pub(super) fn steps(&self) -> u32 {
        let steps = self.drawing.steps;
        let second = match &self.drawing.hires {
            Some(hires) if hires.denoising_strength > 0.0 => {
                if hires.steps == 0 {
                    steps
                } else {
                    hires.steps
                }
            }
            _ => 0,
        };
        let steps = self.from.as_ref().map_or(steps + second, |from| from.steps(steps));
        u32::try_from(steps.saturating_mul(self.drawing.n_iter)).unwrap_or(u32::MAX)
    }

    pub(super) fn run(&self, run: &Run<'_>) -> Result<Txt2ImgResult> {
        let started = Instant::now();
        let timings = Timings { queue_s: run.waited_s, ..Default::default() };
        run.watch.progress("loading", 0, self.steps(), None);
        // Also where the model is in memory: a job draws with the file as it was, or not at all.
        self.files.check()?;
        self.wishes.changes.check()?;
        if let Some(refiner) = &self.wishes.refiner {
            refiner.files.check()?;
            refiner.changes.check()?;
        }
        if let Some(hires) = &self.wishes.hires {
            hires.files.check()?;
            hires.changes.check()?;
        }
        let cancelled = || run.watch.is_cancelled();
        let mut course = Course {
            started,
            known: Arc::clone(&self.known),
            wishes: self.wishes.clone(),
            has_emptied: false,
            timings,
            notices: self.notices.clone(),
            spent: BTreeMap::new(),
            steps: 0,
        };
        let Studio { outputs_dir, folders, .. } = &*self.studio;
        let mut packing = Packing::new(&self.output, outputs_dir, folders, run.job, &cancelled);
        let whole = self.from.as_ref().filter(|from| from.continuation.is_none());
        let ready = whole.map(|from| from.ready(&self.studio, &cancelled)).transpose()?;
        course.notices.extend(ready.iter().flat_map(|ready| ready.notices.clone()));
        let images = match (&self.from, ready) {
            (Some(from), Some(ready)) if from.loopback.is_some() => {
                self.looped(from, &ready, run, &mut course, &mut packing)?
            }
            (Some(from), None) => self.continued(from, run, &mut course, &mut packing)?,
            (from, ready) => {
                let from = from.as_ref().zip(ready.as_ref()).map(|(from, ready)| (from, ready, from.way()));
                let drawn = self.round(&self.drawing, from, run, &mut course)?;
                let images = drawn.into_iter().enumerate().map(|(index, drawn)| {
                    if cancelled() {
                        let text = "cancelled while its pictures were put together";
                        return Err(Error::new(Class::Cancelled, text));
                    }
                    let told = self.told.clone().of_image(drawn.index);
                    let infotext = self.infotext(&drawn, &told, &course.known, run)?;
                    let (seed, subseed) = (drawn.seed, drawn.subseed);
                    let image = match ready.as_ref().and_then(|ready| ready.of(drawn.index)) {
                        Some(begun) => begun.finish(drawn.image, drawn.seen.as_ref())?,
                        None => drawn.image,
                    };
                    Ok(ImageOut { subseed, ..packing.pack(image, seed, infotext, index)? })
                });
                images.collect::<Result<Vec<_>>>()?
            }
        };
        let Course { known, mut timings, mut notices, spent, .. } = course;
        notices.extend(packing.finish()?);
        timings.total_s = started.elapsed().as_secs_f64();
        Ok(Txt2ImgResult {
            images,
            job: run.job.to_owned(),
            precision: known.precision.name().to_owned(),
            timings,
            plugin_timings: spent,
            notices,
        })
    }

    /// Each picture from the one before, with the next seed.
    fn looped(
        &self,
        from: &FromPictures,
        first: &Ready,
        run: &Run<'_>,
        course: &mut Course,
        packing: &mut Packing<'_>,
    ) -> Result<Vec<ImageOut>> {
        let Some(loopback) = from.loopback else { return Ok(vec![]) };
        let sources = Sources::of(&self.studio);
        let batches = self.drawing.n_iter;
        let mut images = vec![];
        for batch in 0..batches {
            let mut ready = first.one(batch);
            let mut told = self.told.clone().of_image(batch);
            for number in 0..loopback.loops {
                let way = Way {
                    strength: loopback.strength(from.way().strength, number),
                    masked_content: if number == 0 {
                        from.way().masked_content
                    } else {
                        MaskedContent::Picture
                    },
                };
                let drawing = pipeline::Txt2Img {
                    seed: self.drawing.seed.wrapping_add((batch * loopback.loops + number) as u64),
                    n_iter: 1,
                    ..self.drawing.clone()
                };
                let drawn = self.round(&drawing, Some((from, &ready, way)), run, course)?;
                let drawn = drawn.into_iter().next();
                let mut drawn = drawn.ok_or_else(|| Error::internal("a loop drew nothing"))?;
                told.request.denoising_strength = Some(way.strength);
                let infotext = self.infotext(&drawn, &told, &course.known, run)?;
                let blank = RgbImage { width: 0, height: 0, pixels: vec![] };
                let image = std::mem::replace(&mut drawn.image, blank);
                let image = match ready.of(0) {
                    Some(begun) => begun.finish(image, drawn.seen.as_ref())?,
                    None => image,
                };
                if number + 1 < loopback.loops {
                    let given = Given::of_image(&image)?;
                    ready = from.looped(&given, batch, &self.studio)?;
                    if let Some(begun) = &mut told.begun {
                        begun.init_images = vec![ImageIn::blob(given.keep(&sources))];
                        begun.inpainting_fill = 1;
                    }
                }
                if batches == 1 || number + 1 == loopback.loops {
                    let packed = packing.pack(image, drawn.seed, infotext, images.len())?;
                    images.push(ImageOut { subseed: drawn.subseed, ..packed });
                }
            }
        }
        Ok(images)
    }

    /// Pictures that are continued, each with the next seed.
    fn continued(
        &self,
        from: &FromPictures,
        run: &Run<'_>,
        course: &mut Course,
        packing: &mut Packing<'_>,
    ) -> Result<Vec<ImageOut>> {
        let Some(continuation) = &from.continuation else { return Ok(vec![]) };
        let picture = from.first(&Sources::of(&self.studio)).map_err(|error| in_field(error, true))?;
        let mut images = vec![];
        for number in 0..self.drawing.n_iter as u64 {
            let mut drawing = pipeline::Txt2Img { n_iter: 1, ..self.drawing.clone() };
            match &mut drawing.variation {
                Some(variation) => variation.subseed = variation.subseed.wrapping_add(number),
                None => drawing.seed = drawing.seed.wrapping_add(number),
            }
            let mut parts = Parts { draw: self, from, drawing: &drawing, run, course, last: None };
            let made = continuation.continued(&picture, &mut parts)?;
            let drawn = parts.last.ok_or_else(|| Error::internal("nothing was drawn"))?;
            // That of the first part draws them all.
            let drawn = pipeline::Output { seed: drawing.seed, ..drawn };
            let told = self.told.clone().of_image(0);
            let infotext = self.infotext(&drawn, &told, &course.known, run)?;
            let packed = packing.pack(made.into_rgb(), drawn.seed, infotext, images.len())?;
            images.push(ImageOut { subseed: drawn.subseed, ..packed });
        }
        Ok(images)
    }

    /// Draws once, in another precision or with other memory where it must be.
    fn round(
        &self,
        drawing: &pipeline::Txt2Img,
        from: Option<(&FromPictures, &Ready, Way)>,
        run: &Run<'_>,
        course: &mut Course,
    ) -> Result<Vec<pipeline::Output>> {
        let cancelled = || run.watch.is_cancelled();
        let memory = &run.device.memory;
        loop {
            let known = Arc::clone(&course.known);
            let picture = match &self.from {
                // Its parts have sizes of their own.
                Some(FromPictures { continuation: Some(_), .. }) => {
                    PictureSize { width: drawing.width, height: drawing.height, ..self.picture }
                }
                _ => self.picture,
            };
            let mut lent = Lent::new(memory, &self.files, &known, picture, &course.wishes, &cancelled)?;
            let drawing =
                pipeline::Txt2Img { samples_at_once: Some(lent.samples_at_once()), ..drawing.clone() };
            if course.steps == 0 {
                course.timings.load_s = course.started.elapsed().as_secs_f64();
            }
            let steps = (course.steps, self.steps());
            let mut hooks = RunHooks::new(run, self.preview_every, course.timings, steps);
            let begun = from.map(|(from, ready, way)| from.begun(drawing.clone(), ready, way)).transpose()?;
            let asking = Asking { watch: run.watch, memory };
            let (facts, mut stages) = (&known.facts, JobStages::begin(&self.plugins, &asking)?);
            let drawn = match &begun {
                Some(begun) => pipeline::img2img(facts, &mut lent, begun, &mut hooks, &mut stages),
                None => pipeline::txt2img(facts, &mut lent, &drawing, &mut hooks, &mut stages),
            };
            let failure = stages.failure.take().or(lent.failure.take());
            let said = std::mem::take(&mut stages.notices);
            for (plugin, seconds) in stages.spent() {
                *course.spent.entry(plugin.to_owned()).or_default() += seconds;
            }
            drop((stages, lent));
            match drawn {
                Ok(drawn) => {
                    course.steps = hooks.steps_done();
                    course.timings = hooks.timings;
                    course.tell(hooks.notices);
                    course.tell(said);
                    return Ok(drawn);
                }
                // What is free may be in pieces, none of them large enough, until what lies idle is gone.
                Err(latentd_models::Error::OutOfMemory { .. })
                    if !course.has_emptied && memory.drop_idle() =>
                {
                    course.has_emptied = true;
                }
                // Another range of numbers may hold what this one does not.
                Err(latentd_models::Error::NotFinite(reason)) if known.precision != Precision::F32 => {
                    course.notices.push(format!("{reason}; drawn again in f32"));
                    course.known = memory.known(&self.files, Precision::F32)?;
                    if let Some(refiner) = &mut course.wishes.refiner {
                        refiner.known = memory.known(&refiner.files, Precision::F32)?;
                    }
                    if let Some(hires) = &mut course.wishes.hires {
                        hires.known = memory.known(&hires.files, Precision::F32)?;
                    }
                    check_fits(&self.studio, &course.wishes, &course.known, &self.picture)?;
                }
                Err(latentd_models::Error::NotFinite(reason)) if self.is_changed() => {
                    let text = format!(
                        "{reason}, or a LoRA or hypernetwork is too strong; give it a smaller strength"
                    );
                    return Err(Error::new(Class::Model, text));
                }
                Err(error) => return Err(failure.unwrap_or_else(|| error.into())),
            }
        }
    }

    /// Whether something changes what the checkpoint computes.
    fn is_changed(&self) -> bool {
        let of_hires = |hires: &HiresWish| !hires.changes.files.is_empty() || !hires.hypernetworks.is_empty();
        let is_changed = !self.wishes.changes.files.is_empty() || !self.wishes.hypernetworks.is_empty();
        is_changed || self.wishes.hires.as_ref().is_some_and(of_hires)
    }

    /// The refiner as A1111 writes it, if it drew.
    fn told_refiner(&self, drawn: &pipeline::Output, cancelled: &dyn Fn() -> bool) -> Result<Option<String>> {
        let Some(refiner) = self.wishes.refiner.as_ref().filter(|_| drawn.refined) else { return Ok(None) };
        told_file(&refiner.files.checkpoint, cancelled).map(Some)
    }

    /// The checkpoint of the second pass as A1111 writes it, if that has one of its own.
    fn told_hires(&self, is_first: bool, cancelled: &dyn Fn() -> bool) -> Result<Option<String>> {
        let hires = self.wishes.hires.as_ref().filter(|hires| hires.is_other && !is_first);
        hires.map(|hires| told_file(&hires.files.checkpoint, cancelled)).transpose()
    }

    /// What a picture's text tells of the embeddings in its prompts.
    fn embedding_hashes(
        &self,
        drawing: &pipeline::Txt2Img,
        index: usize,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<String> {
        if self.embeddings.names().next().is_none() {
            return Ok(String::new());
        }
        self.embeddings.hashes(&drawing.texts_of(index)?, &drawing.reading, cancelled)
    }

    /// The picture's text. Waits for the hashes of the files that drew it.
    fn infotext(
        &self,
        drawn: &pipeline::Output,
        told: &Told,
        known: &Known,
        run: &Run<'_>,
    ) -> Result<String> {
        let cancelled = || run.watch.is_cancelled();
        let named = |file: &Pinned, name: String| {
            let sha256 = file.sha256(&cancelled)?;
            let hash = sha256.get(..10).unwrap_or(&sha256).to_owned();
            Ok::<_, Error>(Named { hash: Some(hash), name: Some(name) })
        };
        let ModelFiles { checkpoint, vae } = &self.files;
        // One of the first of two passes tells nothing of the second.
        let first = self.hires.as_ref().filter(|_| drawn.pass == PassKind::Base);
        let alone = first.map(|_| pipeline::Txt2Img { hires: None, ..self.drawing.clone() });
        let drawing = alone.as_ref().unwrap_or(&self.drawing);
        let told = first.map_or(told, |pass| &pass.first);
        let in_prompt = self.prompts.told(drawn.index, &self.loras, &self.hypernetworks)?;
        let facts = drawing.text_facts(drawn.index)?;
        let mut told = with_prompts(told, &in_prompt, drawing.negative_prompt.of(drawn.index));
        let mut lora_hashes = self.loras.hashes(&cancelled)?;
        if let Some(SecondPass { fields, networks, .. }) = self.hires.as_ref().filter(|_| first.is_none()) {
            told = fields.with_prompts(told, drawn.index, networks, in_prompt.loras.is_empty())?;
            lora_hashes = networks.lora_hashes(&lora_hashes, &cancelled)?;
        }
        let request = told.request.clone();
        let request = Txt2ImgParams {
            // What makes no difference is not told.
            emphasis: if facts.is_emphasised { request.emphasis } else { Emphasis::Original },
            use_old_scheduling: request.use_old_scheduling && facts.is_scheduled_otherwise,
            pad_cond_uncond: facts.pads,
            pad_cond_uncond_v0: facts.pads_v0,
            seed: i64::try_from(drawn.seed).unwrap_or(i64::MAX),
            subseed: drawn.subseed.map_or(-1, |seed| i64::try_from(seed).unwrap_or(i64::MAX)),
            precision: names::wire_precision(known.precision),
            refiner_checkpoint: self.told_refiner(drawn, &cancelled)?,
            refiner_switch_at: self.drawing.refiner_switch_at.filter(|_| drawn.refined),
            hr_checkpoint_name: self.told_hires(first.is_some(), &cancelled)?,
            ..sampling::drawn(request, drawn.skipped)
        };
        let told = Told {
            request,
            checkpoint: named(checkpoint, checkpoint.item().name.clone())?,
            vae: vae.as_ref().map_or(Ok(Named::default()), |vae| named(vae, vae.item().file_name()))?,
            lora_hashes,
            embedding_hashes: self.embedding_hashes(drawing, drawn.index, &cancelled)?,
            ..told
        };
        Ok(infotext::write(&told).to_string())
    }
}

/// What pictures begin with, beside the fields of `txt2img`.
pub(super) enum Begun {
    Pictures(Img2ImgParams),
    Continued(OutpaintParams),
}

impl Begun {
    /// Whose request it is.
    fn method(&self) -> &'static str {
        match self {
            Self::Pictures(_) => "img2img",
            Self::Continued(_) => "outpaint",
        }
    }
}

/// An error with the picture's field as it was given.
fn in_field(error: Error, is_continued: bool) -> Error {
    if !is_continued {
        return error;
    }
    let text = error.text.replace("init_images[0]", "image").replace("init_images", "image");
    Error { text, ..error }
}

/// The parts of one continued picture.
struct Parts<'a, 'b> {
    draw: &'a Draw,
    from: &'a FromPictures,
    /// What is drawn, but for the size and the seed of each.
    drawing: &'a pipeline::Txt2Img,
    run: &'a Run<'b>,
    course: &'a mut Course,
    /// What was drawn last, without its picture.
    last: Option<pipeline::Output>,
}

impl Draws for Parts<'_, '_> {
    fn compute<T: Send>(&self, bytes: u64, work: impl FnOnce() -> T + Send) -> Result<T> {
        let cancelled = || self.run.watch.is_cancelled();
        if cancelled() {
            return Err(Error::new(Class::Cancelled, "cancelled before the next side"));
        }
        let memory = &self.run.device.memory;
        let name = &self.draw.files.checkpoint.item().name;
        let _room = memory.reserve_for_job(bytes, name, &cancelled)?;
        Ok(memory.device().run(work))
    }

    fn draw(&mut self, job: &Job, more: u64) -> Result<Picture> {
        let Self { draw, from, run, .. } = self;
        let drawing = pipeline::Txt2Img {
            width: job.picture.width,
            height: job.picture.height,
            seed: self.drawing.seed.wrapping_add(more),
            ..self.drawing.clone()
        };
        let ready = from.part(job)?;
        let drawn = draw.round(&drawing, Some((from, &ready, from.way())), run, self.course)?;
        let drawn = drawn.into_iter().next();
        let mut drawn = drawn.ok_or_else(|| Error::internal("a part was not drawn"))?;
        let blank = RgbImage { width: 0, height: 0, pixels: vec![] };
        let image = std::mem::replace(&mut drawn.image, blank);
        let image = match ready.of(0) {
            Some(begun) => begun.finish(image, drawn.seen.as_ref())?,
            None => image,
        };
        self.last = Some(drawn);
        Ok(image.into())
    }
}

/// What a run goes through, however often it draws.
struct Course {
    started: Instant,
    known: Arc<Known>,
    wishes: Wishes,
    /// Whether what lay idle was let go of.
    has_emptied: bool,
    timings: Timings,
    notices: Vec<String>,
    /// Seconds of each plugin.
    spent: BTreeMap<String, f64>,
    /// Steps that are done.
    steps: u32,
}

impl Course {
    /// Tells each once.
    fn tell(&mut self, notices: Vec<String>) {
        for text in notices {
            if !self.notices.contains(&text) {
                self.notices.push(text);
            }
        }
    }
}

/// What is told of a picture that was drawn from these.
fn with_prompts(told: &Told, prompt: &ToldPrompt, negative_prompt: &str) -> Told {
    let request = Txt2ImgParams {
        prompt: prompt.prompt.as_str().into(),
        loras: prompt.loras.clone(),
        negative_prompt: negative_prompt.into(),
        ..told.request.clone()
    };
    Told { request, hypernetwork: prompt.hypernetwork.clone(), ..told.clone() }
}

/// An error if it can never be drawn here. Previews are made without TAESD where there is no room for it.
fn check_fits(studio: &Studio, wishes: &Wishes, known: &Known, picture: &PictureSize) -> Result<()> {
    let memory = &studio.device.memory;
    let check = |known: &Known, mut needs: Beside| {
        needs.taesd.beside_unet = 0;
        memory.check_fits(known, picture, &needs)
    };
    check(known, wishes.needs(known, picture)?)?;
    if let Some(hires) = &wishes.hires {
        check(&hires.known, wishes.needs_hires(hires, picture)?)?;
    }
    match &wishes.refiner {
        Some(refiner) => check(&refiner.known, wishes.needs_refining(refiner, picture)?),
        None => Ok(()),
    }
}

/// A checkpoint as A1111 writes it, with the first digits of its hash.
fn told_file(file: &Pinned, cancelled: &dyn Fn() -> bool) -> Result<String> {
    let sha256 = file.sha256(cancelled)?;
    Ok(format!("{} [{}]", file.item().name, sha256.get(..10).unwrap_or(&sha256)))
}

/// How long a checkpoint stays in memory; for ever if `None`.
fn keep_alive(seconds: Option<f64>) -> Result<Option<Duration>> {
    match seconds {
        None | Some(-1.0) => Ok(None),
        Some(seconds) => Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| {
            Error::invalid(format!(
                "keep_alive: {seconds} is not a time; give seconds from 0 on, or -1 for ever"
            ))
        }),
    }
}

fn check_size((width, height): (usize, usize), pictures: u64, allowed: u64) -> Result<()> {
    let bytes = (width as u64) * (height as u64) * 3 * pictures;
    if bytes > allowed {
        return Err(Error::new(
            Class::InvalidParams,
            format!(
                "{pictures} pictures of {width}×{height} are {bytes} bytes, {allowed} are allowed; lower n_iter or \
                 batch_size"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_pixels_are_refused() {
        assert_eq!(check_size((128, 128), 20, 1 << 20), Ok(()));
        let error = check_size((192, 128), 20, 1 << 20).expect_err("refused");
        assert!(
            error.text.contains("20 pictures of 192×128") && error.text.contains("lower n_iter"),
            "{error}"
        );
    }
}
