//! Hires fix against k-diffusion, torch, Pillow and A1111's formulas: `tests/fixtures/hires.py`.

use std::collections::BTreeSet;
use std::sync::Arc;

use latentd_models::image::{LatentFilter, resize_latents};
use latentd_models::model::{Model, ModelFacts, TextEncoder};
use latentd_models::networks::unet::UNet;
use latentd_models::networks::vae::Vae;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{
    Components, Hires, HiresSize, HiresUpscaler, NoStages, NoWatch, Output, PassKind, Stages, Txt2Img,
    txt2img,
};
use latentd_models::sampling::{Sampler, SamplerOptions, Schedule, Variation};
use latentd_models::{Result, Tensor};

use crate::drawing::{Trace, sampler};
use crate::golden::{Golden, checkpoint, relative_error, values};

/// What all cases are but for what their keys say.
fn plain() -> (Txt2Img, Hires) {
    let request =
        crate::samplers::request(sampler("Euler"), Schedule::Automatic, 4, SamplerOptions::default());
    let size = HiresSize::new(64, 64, 1.5, 0, 0);
    (request, Hires { steps: 3, denoising_strength: 0.7, ..Hires::to(size) })
}

/// The case of a golden.
fn case(key: &str) -> Txt2Img {
    let (mut request, mut hires) = plain();
    let resized = |x, y| HiresSize::new(64, 64, 1.5, x, y);
    let (upscaler, what) = key.split_once('.').unwrap_or(("Latent", key));
    hires.upscaler = HiresUpscaler::from_name(upscaler).expect("an upscaler");
    match what {
        "cropped rows" => hires.size = resized(96, 72),
        "cropped columns" => hires.size = resized(80, 104),
        "not whole latents" => hires.size = HiresSize::new(64, 64, 1.45, 0, 0),
        "smaller" => hires.size = HiresSize::new(64, 64, 0.75, 0, 0),
        "only x" => hires.size = resized(88, 0),
        "only y" => hires.size = resized(0, 120),
        "as many steps" => hires.steps = 0,
        "little strength" => hires.denoising_strength = 0.1,
        "full strength" => hires.denoising_strength = 1.0,
        "another sampler" => {
            hires.sampler = Some(sampler("DPM++ 2M"));
            hires.schedule = Schedule::from_name("Karras");
        }
        "another scale" => hires.cfg_scale = Some(3.0),
        "another prompt" => {
            hires.prompt = Some("a blue square".into());
            hires.negative_prompt = Some("red".into());
        }
        "variation" => request.variation = Some(Variation { subseed: 43, strength: 0.3 }),
        "seed resize" => request.seed_resize_from = Some((48, 80)),
        "extra noise" => hires.extra_noise = 0.2,
        "extra noise by timesteps" => {
            hires.extra_noise = 0.2;
            request.sampler = sampler("DDIM");
        }
        "another checkpoint" => {}
        "refiner" | "late refiner" => {
            hires.steps = 6;
            request.refiner_switch_at = Some(if what == "refiner" { 0.5 } else { 0.8 });
        }
        name => request.sampler = sampler(name),
    }
    Txt2Img { hires: Some(hires), ..request }
}

/// A model that draws, and one that takes its place in second passes or refines.
struct Both<'a> {
    own: &'a Model,
    other: &'a Model,
    /// Whether second passes begin with the other one.
    takes_second_passes: bool,
    is_others_turn: bool,
}

impl Both<'_> {
    fn now(&self) -> &Model {
        if self.is_others_turn { self.other } else { self.own }
    }
}

impl Components for Both<'_> {
    fn begin_pass(&mut self) {
        self.is_others_turn = false;
    }

    fn begin_hires_pass(&mut self) -> Result<Option<ModelFacts>> {
        self.is_others_turn = self.takes_second_passes;
        Ok(self.takes_second_passes.then(|| self.other.facts()))
    }

    fn refine(&mut self) -> Result<ModelFacts> {
        self.is_others_turn = true;
        Ok(self.other.facts())
    }

    fn text_encoder(&mut self) -> Result<Arc<TextEncoder>> {
        Ok(Arc::clone(self.now().text_encoder()))
    }

    fn unet(&mut self) -> Result<Arc<UNet>> {
        Ok(Arc::clone(self.now().unet()))
    }

    fn vae(&mut self) -> Result<Arc<Vae>> {
        Ok(Arc::clone(self.now().vae()))
    }
}

fn models() -> [Model; 2] {
    ["tiny-sd1", "tiny-sd1-ema"].map(|name| Model::open(&checkpoint(name), Precision::F32).expect("opens"))
}

fn draw(
    [own, other]: &[Model; 2],
    takes_second_passes: bool,
    request: &Txt2Img,
    stages: &mut dyn Stages,
) -> Vec<Output> {
    let mut both = Both { own, other, takes_second_passes, is_others_turn: false };
    txt2img(&own.facts(), &mut both, request, &mut NoWatch, stages).expect("draws")
}

/// Within what `samplers.rs` allows latents, 1e-4, whose steps these are twice; that is 80 dB. Pixels pass through 8 bits in
/// between, where rounding decides some of them: a shade of one in a thousand is 1e-3 of what is drawn on it, 60 dB.
#[test]
fn second_passes_end_where_the_reference_does() {
    let (golden, models) = (Golden::open("hires"), models());
    let (mut compared, mut wrong, mut worst) = (0, vec![], [0f64; 2]);
    for key in golden.names() {
        let request = case(key);
        let mut trace = Trace::default();
        let drawn = draw(&models, key.ends_with("another checkpoint"), &request, &mut trace);
        let [first, found] = &trace.latents[..] else { panic!("{key}: {} passes", trace.latents.len()) };
        assert_eq!(first.dims(), [1, 4, 8, 8]);
        let wanted: &Tensor = golden.get(key);
        assert_eq!(found.dims(), wanted.dims(), "{key}");
        let (rows, columns) = (wanted.dims()[2], wanted.dims()[3]);
        assert_eq!((drawn[0].image.height, drawn[0].image.width), (rows * 8, columns * 8), "{key}");
        assert_eq!(drawn[0].refined, key.ends_with("refiner"), "{key}");
        let error = relative_error(&values(found), &values(wanted));
        println!("{key}: {error:.2e}");
        let of_pixels =
            ["Lanczos", "Nearest", "None"].iter().any(|name| key.starts_with(&format!("{name}.")));
        if error >= if of_pixels { 1e-3 } else { 1e-4 } {
            wrong.push(format!("{key}: {error:.2e}"));
        }
        worst[usize::from(of_pixels)] = worst[usize::from(of_pixels)].max(error);
        compared += 1;
    }
    println!("{compared} ends, at worst {:.2e}, by way of pixels {:.2e}", worst[0], worst[1]);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(compared, 70);
    let upscalers: BTreeSet<&str> = golden.names().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    assert_eq!(upscalers.len(), HiresUpscaler::all().count());
}

/// Each image of a batch is the same alone, with the other checkpoint and a refiner too, and for samplers that take one image
/// after the other; and with it comes what the first pass drew, if asked.
#[test]
fn a_batch_does_not_show() {
    let models = models();
    for (name, upscaler, takes_second_passes) in
        [("Euler a", "Latent", false), ("DPM++ SDE", "Lanczos", true), ("DPM adaptive", "Lanczos", false)]
    {
        let (request, hires) = plain();
        let upscaler = HiresUpscaler::from_name(upscaler).expect("an upscaler");
        let hires = Hires { upscaler, keeps_first: true, ..hires };
        let refiner_switch_at = (!takes_second_passes).then_some(0.6);
        let sampler = sampler(name);
        let request = Txt2Img { sampler, hires: Some(hires), refiner_switch_at, ..request };
        let draw = |request: &Txt2Img| draw(&models, takes_second_passes, request, &mut NoStages);
        let together = draw(&Txt2Img { batch_size: 2, n_iter: 2, ..request.clone() });
        let places: Vec<_> = together.iter().map(|output| (output.pass, output.index)).collect();
        let of_batch =
            |first| [PassKind::Base, PassKind::Hires].map(|pass| [(pass, first), (pass, first + 1)]).concat();
        assert_eq!(places, [of_batch(0), of_batch(2)].concat());
        for index in 0..4 {
            let alone = draw(&Txt2Img { seed: 42 + index as u64, ..request.clone() });
            let of_image: Vec<_> = together.iter().filter(|output| output.index == index).collect();
            for (alone, drawn) in alone.iter().zip(of_image) {
                assert_eq!((&alone.image, alone.seed), (&drawn.image, drawn.seed), "{name}, image {index}");
            }
        }
        let without = draw(&Txt2Img { hires: None, refiner_switch_at: None, ..request });
        assert_eq!(without[0].image, together[0].image, "{name}: the first pass is a picture of its own");
    }
}

/// At strength 0 a second pass draws nothing, whatever the sampler: what was drawn is made larger.
#[test]
fn without_strength_nothing_is_drawn_anew() {
    let models = models();
    for sampler in Sampler::all() {
        let (request, hires) = plain();
        let hires = Some(Hires { denoising_strength: 0.0, ..hires });
        let request = Txt2Img { sampler, steps: 2, hires, ..request };
        let mut trace = Trace::default();
        draw(&models, false, &request, &mut trace);
        let larger = resize_latents(&trace.latents[0], 12, 12, LatentFilter::Bilinear).expect("fits");
        assert_eq!(trace.latents[1], larger, "{sampler}");
    }
}

/// Shares of steps from 1 to 2 are those of the second pass, and its steps are counted on from those of the first.
#[test]
fn prompts_change_in_second_passes() {
    let models = models();
    let (request, hires) = plain();
    let plain = Txt2Img { hires: Some(Hires { steps: 4, ..hires.clone() }), ..request.clone() };
    let draw = |prompt: &str, second: Option<&str>| {
        let hires = Hires { steps: 4, prompt: second.map(Into::into), ..hires.clone() };
        let request = Txt2Img { prompt: prompt.into(), hires: Some(hires), ..plain.clone() };
        draw(&models, false, &request, &mut NoStages).remove(0).image
    };
    let wanted = draw("a red circle", Some("a blue square"));
    assert_eq!(draw("[a red circle:a blue square:1.0]", None), wanted);
    assert_eq!(draw("[a red circle:a blue square:4]", None), wanted);
    let halfway = draw("[a red circle:a blue square:1.5]", None);
    assert_eq!(draw("[a red circle:a blue square:6]", None), halfway);
    assert_eq!(draw("a red circle", Some("[a red circle:a blue square:1.5]")), halfway);
    assert_ne!(halfway, wanted);
    assert_ne!(halfway, draw("a red circle", None));
}
