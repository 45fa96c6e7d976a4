//! What `txt2img`, `img2img` and `outpaint` do: prompts, networks, sizes and memory are settled alike, whatever pictures begin with.

use std::sync::Arc;
use std::time::Duration;

use latentd_client::protocol::{
    Img2ImgParams, OutpaintParams, PreviewKind, Prompt, Txt2ImgParams, VaeDecodeMethod,
};
use latentd_models::model::PictureSize;
use latentd_models::nn::Wrap;
use latentd_models::pipeline::{self, LatentDecoder, PreviewDecoder, Texts};

use super::continuation::{self, Continuation};
use super::device::DeviceId;
use super::embeddings::RequestEmbeddings;
use super::from_pictures::FromPictures;
use super::given::Sources;
use super::hires::{self, HiresFields, HiresNetworks};
use super::hooks::Hashing;
use super::hypernetworks::Hypernetworks;
use super::infotext::{self, Told};
use super::loras::Loras;
use super::names;
use super::noise::Noise;
use super::notices::Notices;
use super::output::Output;
use super::plugins;
use super::prompts::RequestPrompts;
use super::refiner;
use super::regions;
use super::restorers;
use super::rewriting::{Rewritten, Templates};
use super::sampling;
use super::sd_upscale::SdUpscale;
use super::studio::Studio;
use super::subrequest::SubRequest;
use super::tag_questions::ask_tags;
use super::task::Watch;
use super::told_prompt::with_prompts;
use crate::error::{Class, Error, Result};
use crate::library::ModelFiles;
use crate::memory::{Base, Beside, Known, TaesdWish, Wishes};
use crate::plugins::{Engine, JobPlugins};

/// A request with everything settled.
pub(super) struct Draw {
    pub(super) studio: Arc<Studio>,
    pub(super) files: ModelFiles,
    pub(super) known: Arc<Known>,
    /// What decides how much memory it takes.
    pub(super) picture: PictureSize,
    /// What is drawn; how many latents go together is settled in its turn.
    pub(super) drawing: pipeline::Txt2Img,
    /// What it begins with, if not with noise alone.
    pub(super) from: Option<FromPictures>,
    /// A second pass, if there is one.
    pub(super) hires: Option<SecondPass>,
    pub(super) output: Output,
    pub(super) preview_every: Option<u32>,
    pub(super) wishes: Wishes,
    pub(super) loras: Loras,
    pub(super) embeddings: RequestEmbeddings,
    /// What the pictures' texts tell, without what is known of each once it is drawn.
    pub(super) told: Told,
    /// The same of how it was rewritten.
    pub(super) templates: Templates,
    /// Of all its pictures, as they are drawn.
    pub(super) result_bytes: u64,
    /// What it was asked with: of these the pictures' texts tell.
    pub(super) prompts: RequestPrompts,
    pub(super) hypernetworks: Hypernetworks,
    pub(super) plugins: JobPlugins,
    pub(super) notices: Vec<String>,
    /// How deep it lies within other requests.
    pub(super) depth: u32,
    /// Steps before the first that is drawn.
    steps_before: u32,
    /// What its plugins draw within it.
    pub(super) subjobs: Vec<Planned>,
}

/// A request that a plugin will draw within another one.
pub(super) struct Planned {
    pub(super) plugin: String,
    /// The plugin's number for it.
    pub(super) key: u32,
    /// What is run over with the pictures of each time.
    pub(super) request: SubRequest,
    /// How often: about, and at most.
    pub(super) expected: u32,
    pub(super) most: u32,
    /// Pictures of one run, at most.
    pub(super) batch: u32,
    /// The same with everything settled, of as many pictures that are nothing yet.
    pub(super) draw: Draw,
}

/// What a request has of those that it is drawn within.
#[derive(Clone, Copy, Default)]
pub(super) struct Within<'a> {
    /// How deep it lies.
    pub(super) depth: u32,
    /// Bytes that are taken beside it.
    pub(super) beside: u64,
    /// The plugins around it: what they were given stays as it was settled.
    pub(super) around: Option<&'a JobPlugins>,
    /// The same request as it was planned: what it names stays what it was.
    pub(super) planned: Option<&'a Draw>,
    /// Seed and subseed of each of its pictures.
    pub(super) seeds: Option<&'a [(u64, u64)]>,
}

/// What pictures tell of a second pass.
pub(super) struct SecondPass {
    pub(super) fields: HiresFields,
    pub(super) networks: HiresNetworks,
    /// What those of the first pass tell: the request without a second one.
    pub(super) first: Told,
}

impl Draw {
    /// Settles everything of a request from text, or, if `begun` is there, from pictures: its own `drawing` is not looked at.
    pub(super) fn resolve(
        rewritten: Rewritten,
        begun: Option<Begun>,
        studio: &Arc<Studio>,
        watch: &dyn Watch,
        within: Within<'_>,
    ) -> Result<Self> {
        let planned = within.planned;
        let Rewritten { mut params, lists, notices: said, templates, .. } = rewritten;
        let settings = studio.settings.get();
        let (sampler, schedule) = names::sampler_and_schedule(&params.sampler_name, &params.scheduler)?;
        let precision = names::precision(params.precision)?.unwrap_or(settings.precision);
        let mut notices = Notices::new(params.strict);
        said.into_iter().try_for_each(|text| notices.not_applied(Class::Plugin, text))?;
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
                // What a plugin draws within a job, nobody draws again.
                let stay = within.depth == 0;
                let mut from = FromPictures::resolve(&mut begun, &sources, stay, &mut notices)
                    .map_err(|error| in_field(error, outpaint.is_some()))?;
                let continues =
                    |outpaint: &OutpaintParams| Continuation::resolve(outpaint, &params, &mut notices);
                from.continuation = outpaint.as_ref().map(continues).transpose()?;
                from.enlargement =
                    SdUpscale::resolve(&begun, (&params, from.loopback.is_some()), (studio, watch))?;
                params.denoising_strength = begun.drawing.denoising_strength;
                (Some(from), Some(Box::new(Img2ImgParams { drawing: Txt2ImgParams::default(), ..begun })))
            }
            None => (None, None),
        };
        let output = Output::resolve(&params.output, &studio.outputs_dir, &studio.folders)?;
        let styles = studio.styles.named(&params.styles, &settings.styles_dirs, &studio.folders)?;
        let prompts = RequestPrompts::resolve(&params, &styles, &output)?;
        let mut hires = HiresFields::resolve(&mut params, &styles, &output, (studio, watch))?;
        let restoring = restorers::resolve(&mut params, (studio, watch))?;
        let (restoration, restorer) = restoring.unzip();

        let name = params.checkpoint.as_deref();
        let files = match planned {
            Some(planned) => planned.files.clone(),
            None => studio.files(name, params.vae.as_deref(), &Hashing::new(watch))?,
        };
        studio.built_in_notice(name, files.checkpoint.item()).into_iter().for_each(|text| notices.tell(text));
        let known = studio.device.memory.known(&files, precision)?;
        let library = &studio.library;
        let hires_prompts = hires.as_ref().and_then(HiresFields::prompts);
        let own = [Some(prompts.first()?), hires_prompts.map(RequestPrompts::first).transpose()?];
        let own: Vec<_> = own.into_iter().flatten().collect();
        let tags = ask_tags(&mut params, &own, (studio, watch), &mut notices)?;
        let files_of = (&**library, &tags);
        let (loras, hypernetworks) = match planned {
            Some(planned) => (planned.loras.clone(), planned.hypernetworks.clone()),
            None => (
                Loras::resolve(prompts.first()?, &params.loras, &known, files_of, &mut notices)?,
                Hypernetworks::resolve(prompts.first()?, &known, library, &mut notices)?,
            ),
        };
        let hashing = Hashing::new(watch);
        let networks = |hires: &HiresFields| {
            let (own, first) = ((&files, &known), (precision, prompts.first()?));
            hires.networks(&params, own, first, (studio, &hashing, &tags), &mut notices)
        };
        let (hires_networks, hires_wish) = match planned {
            Some(planned) => {
                let networks = planned.hires.as_ref().map(|hires| hires.networks.clone());
                (networks.unwrap_or_default(), planned.wishes.hires.clone())
            }
            None => hires.as_ref().map(networks).transpose()?.unwrap_or_default(),
        };
        let last_prompts = hires.as_ref().and_then(HiresFields::prompts).unwrap_or(&prompts);
        let refiner = match planned {
            Some(planned) => planned.wishes.refiner.clone().zip(planned.drawing.refiner_switch_at),
            None => refiner::resolve(
                &params,
                (&files, &known),
                precision,
                last_prompts.first()?,
                (studio, &hashing, &tags),
                &mut notices,
            )?,
        };
        let native = from.as_ref().and_then(FromPictures::usual_size).unwrap_or(known.native_size);
        let given = |side: Option<u32>| side.map(|side| side as usize);
        let size = (given(params.width).unwrap_or(native.0), given(params.height).unwrap_or(native.1));
        let mut from = from.map(|from| from.drawn_at(size, &mut notices)).transpose()?;
        let enlargement = from.as_mut().and_then(|from| from.enlargement.as_mut());
        let upscaler = enlargement.and_then(SdUpscale::take_engine);
        let finished = from.as_ref().map_or(size, FromPictures::finished_size);
        let all = pictures * from.as_ref().map_or(1, |from| from.pictures_each(params.n_iter));
        let largest = (size.0.max(finished.0), size.1.max(finished.1));
        let mut result_bytes = check_size(largest, all, settings.result_bytes)?;
        let second = hires.as_ref().map(|hires| hires.pass(&params, size));
        if let Some(second) = &second {
            // Those of the first pass count as if they were as large.
            let all = if second.keeps_first { pictures * 2 } else { pictures };
            result_bytes = check_size(second.size.target(), all, settings.result_bytes)?;
            hires.as_ref().map_or(Ok(()), |hires| hires.check_engine(size, second))?;
        }
        let asked = std::mem::take(&mut params.regions);
        let (regions, told_regions) = match planned {
            Some(planned) => (planned.drawing.regions.clone(), planned.told.request.regions.clone()),
            None => regions::resolve(asked, size, &sources, &mut notices)?,
        };
        let reading = names::reading(&params);
        let [prompt, negative_prompt] = prompts.texts();
        let foreseen = sampler.foreseen_calls(params.steps as usize);
        let mut texts = if second.is_some() {
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
        let tiles = from.as_ref().and_then(|from| from.enlargement.as_ref());
        let tiles: Vec<Texts> =
            tiles.map(SdUpscale::prompts).unwrap_or_default().into_iter().map(Texts::from).collect();
        for tile in &tiles {
            texts.extend(pipeline::texts_of(tile, &negative_prompt, &[], &reading, foreseen)?);
        }
        let embeddings = RequestEmbeddings::resolve(&texts, &reading, &known, library, &mut notices)?;
        if let Some((wish, _)) = &refiner {
            embeddings.tell_misfits("refiner_checkpoint", &wish.known, &mut notices)?;
        }
        if let Some(wish) = hires_wish.as_ref().filter(|wish| wish.is_other) {
            embeddings.tell_misfits("hr_checkpoint_name", &wish.known, &mut notices)?;
        }
        prompts.tell_unapplied(&tags, &mut notices)?;
        if let Some(second) = hires.as_ref().and_then(HiresFields::prompts) {
            second.tell_unapplied(&tags, &mut notices)?;
        }
        let wants_taesd_previews = params.preview.is_some_and(|preview| preview.kind == PreviewKind::Taesd);
        let taesd = match params.sd_vae_decode_method {
            _ if planned.is_some() => {
                planned.and_then(|planned| planned.wishes.taesd.as_ref().map(|taesd| Arc::clone(&taesd.file)))
            }
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
            seeds: within.seeds.map(Arc::from),
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
            restoration,
            tiling: Wrap { x: params.tiling || params.tiling_x, y: params.tiling || params.tiling_y },
            samples_at_once: None,
            depth: within.depth,
        };
        match &from {
            Some(from) => from.check(&drawing, &known.facts)?,
            None => drawing.check(&known.facts)?,
        }
        let of_tile = |prompt: Texts| pipeline::Txt2Img { prompt, ..drawing.clone() }.text_needs();
        let mut text_needs = drawing.text_needs()?;
        for tile in tiles {
            text_needs = text_needs.before(&of_tile(tile)?);
        }
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
        let engines =
            hires.as_mut().and_then(HiresFields::take_engine).into_iter().chain(upscaler).chain(restorer);
        let engines = engines.collect();
        let (asked, asking) = ((&params, &lists), (studio, watch));
        let before = planned.map(|planned| &planned.plugins).or(within.around);
        let mut bases = vec![Base::new(&files, &known.shape, &loras.changes)];
        bases.extend(hires_wish.iter().map(|wish| Base::new(&wish.files, &wish.known.shape, &wish.changes)));
        bases
            .extend(refiner.iter().map(|(wish, _)| Base::new(&wish.files, &wish.known.shape, &wish.changes)));
        let (of, asking) = ((&drawing, bases), (asking, before));
        let plugins = plugins::resolve(asked, &told, of, (method, engines), asking, &mut notices)?;
        let told = plugins::told(told, &plugins);
        let outpaint = outpaint.map(|outpaint| Box::new(infotext::told_outpaint(&outpaint)));
        // It is of what began with a picture, or of a second pass.
        let told = if begun.is_some() { told } else { hires::without(told) };
        let second_told = hires.as_ref().map(|hires| hires.told(told.clone(), &params, &drawing));
        let plugin_versions = plugins.versions();
        // What the request itself names has a hand in the last pass.
        let engines = plugins::told_engines(&plugins, hires.is_none());
        let told = if hires.is_some() { restorers::without(told) } else { told };
        let first_told = Told { begun, outpaint, plugin_versions, engines, ..Told::of(told) };
        let told = second_told.map_or_else(
            || first_told.clone(),
            |told| {
                let plugin_versions = first_told.plugin_versions.clone();
                Told { plugin_versions, engines: plugins::told_engines(&plugins, true), ..Told::of(told) }
            },
        );
        let hires = hires.map(|fields| SecondPass { fields, networks: hires_networks, first: first_told });
        // A prompt that A1111's lines cannot carry stands in them twice.
        for index in 0..if output.limits_texts() { drawing.told_apart() } else { 0 } {
            let in_prompt = prompts.told(index, &loras, &hypernetworks)?;
            let told = with_prompts(&told, &in_prompt, drawing.negative_prompt.of(index));
            let mut told = templates.tell(told, index, &plugins);
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
        let restoring = drawing.restoration.as_ref().map_or(0, |_| Engine::bytes_to_restore((wide, high)));
        let keep_alive = keep_alive(params.keep_alive.or(settings.keep_alive_s))?;
        let wishes = Wishes {
            keep_alive,
            taesd,
            previews_by_vae: drawing.previews == PreviewDecoder::Vae,
            changes: loras.changes.clone(),
            hypernetworks: hypernetworks.wishes.clone(),
            refiner: refiner.map(|(wish, _)| wish),
            hires: hires_wish,
            plugins: plugins.planned_bytes().saturating_add(restoring).saturating_add(within.beside),
        };
        check_fits(studio, &wishes, &known, &picture)?;
        let steps_before = from.as_ref().map_or(Ok(0), |from| from.steps_before(&plugins.engines))?;
        let before = from.as_ref().map_or(Ok(0), |from| from.bytes_before(&plugins.engines))?;
        let (needed, budget) =
            (before.saturating_add(plugins.planned_bytes()), studio.device.memory.budget());
        if needed > budget {
            return Err(Error::new(
                Class::Memory,
                format!(
                    "sd_upscale: to make the picture larger takes {needed} bytes, the budget is {budget}; raise memory_bytes, or give a \
                     smaller picture or scale_factor"
                ),
            ));
        }
        let preview_every = params.preview.map(|preview| preview.every);
        let exchanges = plugins.may_exchange();
        let from = from.map(|from| if exchanges { from.keeping_originals() } else { from });
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
            templates,
            result_bytes,
            prompts,
            hypernetworks,
            loras,
            embeddings,
            plugins,
            notices: notices.into_texts(),
            depth: within.depth,
            steps_before: u32::try_from(steps_before).unwrap_or(u32::MAX),
            subjobs: vec![],
        })
    }

    pub(super) fn device(&self) -> DeviceId {
        self.studio.device.id
    }

    /// With those of what is drawn within it.
    pub(super) fn steps(&self) -> u32 {
        let within = self.subjobs.iter();
        let within = within.map(|planned| planned.draw.steps().saturating_mul(planned.expected));
        within.fold(self.own_steps(), u32::saturating_add)
    }

    /// Steps before the first that is drawn.
    pub(super) fn steps_before(&self) -> u32 {
        self.steps_before
    }

    fn own_steps(&self) -> u32 {
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
        let steps = u32::try_from(steps.saturating_mul(self.drawing.n_iter)).unwrap_or(u32::MAX);
        steps.saturating_add(self.steps_before())
    }
}

/// What pictures begin with, beside the fields of `txt2img`.
#[derive(Clone)]
pub(super) enum Begun {
    Pictures(Img2ImgParams),
    Continued(OutpaintParams),
}

impl Begun {
    /// Whose request it is.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Pictures(_) => "img2img",
            Self::Continued(_) => "outpaint",
        }
    }
}

/// An error with the picture's field as it was given.
pub(super) fn in_field(error: Error, is_continued: bool) -> Error {
    if !is_continued {
        return error;
    }
    let text = error.text.replace("init_images[0]", "image").replace("init_images", "image");
    Error { text, ..error }
}

/// An error if it can never be drawn here. Previews are made without TAESD where there is no room for it.
pub(super) fn check_fits(
    studio: &Studio,
    wishes: &Wishes,
    known: &Known,
    picture: &PictureSize,
) -> Result<()> {
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

fn check_size((width, height): (usize, usize), pictures: u64, allowed: u64) -> Result<u64> {
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
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_pixels_are_refused() {
        assert_eq!(check_size((128, 128), 20, 1 << 20), Ok(983_040));
        let error = check_size((192, 128), 20, 1 << 20).expect_err("refused");
        assert!(
            error.text.contains("20 pictures of 192×128") && error.text.contains("lower n_iter"),
            "{error}"
        );
    }
}
