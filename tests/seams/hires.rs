//! Hires fix: what those who look on are told of both passes, and what is refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use latentd_models::image::{Filter, LatentFilter, Picture, Upscaler};
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::pipeline::{
    DenoiseBefore, Exchanged, Handles, Hires, HiresSize, HiresUpscaler, ImagePost, LatentFinal, NoStages,
    NoiseInit, PassBegin, PassKind, Phase, Progress, RegionPrompt, Stages, Txt2Img, Wants, Watch, txt2img,
};
use latentd_models::sampling::{Sampler, Variation};
use latentd_models::{Error, Result, Tensor};

use crate::drawing::{draw, draw_with, model, request};

/// 72x64 to 96x88: of 99 columns 12 latents, and of 88 rows 11.
fn hires() -> Hires {
    Hires { steps: 2, ..Hires::to(HiresSize::new(72, 64, 1.0, 99, 0)) }
}

fn by(upscaler: &str) -> HiresUpscaler {
    HiresUpscaler::from_name(upscaler).expect("an upscaler")
}

/// Writes down what it is told.
#[derive(Default)]
struct Log(Vec<String>);

impl Stages for Log {
    fn wants(&self) -> Wants {
        Wants { control_residuals: false, conditioning: false, denoise_combine: false, ..Wants::ALL }
    }

    fn pass_begin(&mut self, stage: &PassBegin) -> Result<Vec<Exchanged>> {
        let PassBegin { pass, index, first_image, seeds, size, steps, strength, .. } = stage;
        assert_eq!((stage.base, stage.hires), ((72, 64), Some((96, 88))));
        let of = format!("{size:?}, {steps} steps of {strength:?}");
        self.0.push(format!("{pass:?} {index} from {first_image} seeds {seeds:?} {of}"));
        Ok(vec![])
    }

    fn noise_init(&mut self, stage: &NoiseInit, tensors: &mut Handles) -> Result<()> {
        self.0.push(format!("noise {:?}", tensors.read(stage.noise)?.dims()));
        Ok(())
    }

    fn denoise_before(&mut self, stage: &DenoiseBefore, _tensors: &mut Handles) -> Result<()> {
        let of = stage.evaluation;
        let region = of.rows[0].region;
        let size = (region.width, region.canvas_height);
        self.0.push(format!("{:?} {} {}/{} {size:?}", of.pass, of.pass_index, of.step, of.steps));
        Ok(())
    }

    fn latent_final(&mut self, stage: &LatentFinal, tensors: &mut Handles) -> Result<()> {
        self.0.push(format!("final {:?}", tensors.read(stage.latents)?.dims()));
        Ok(())
    }

    fn image_post(&mut self, stage: &mut ImagePost) -> Result<()> {
        let first = &stage.pictures[0];
        let (count, image) = (stage.pictures.len(), &first.image);
        self.0.push(format!("images {count} from {} {}x{}", first.index, image.width, image.height));
        Ok(())
    }
}

#[test]
fn stages_are_told_of_both_passes() {
    let model = model(&cpu(), Precision::F32);
    let request = Txt2Img { batch_size: 2, n_iter: 2, steps: 1, hires: Some(hires()), ..request() };
    let mut log = Log::default();
    let watched = draw_with(&model, &mut &model, &request, &mut log).expect("draws");
    assert_eq!(watched, draw(&model, &request).expect("draws"), "who only looks changes nothing");
    let passes = |index: usize, first: u64| {
        let seeds = format!("seeds [{}, {}]", 11 + first, 12 + first);
        [
            format!("Base {index} from {first} {seeds} (72, 64), 1 steps of None"),
            "noise [2, 4, 8, 9]".into(),
            format!("Base {index} 0/1 (72, 64)"),
            "final [2, 4, 8, 9]".into(),
            format!("Hires {index} from {first} {seeds} (96, 88), 2 steps of Some(0.75)"),
            "noise [2, 4, 11, 12]".into(),
            format!("Hires {index} 0/2 (96, 88)"),
            format!("Hires {index} 1/2 (96, 88)"),
            "final [2, 4, 11, 12]".into(),
            format!("images 2 from {first} 96x88"),
        ]
    };
    assert_eq!(log.0, [passes(0, 0), passes(1, 2)].concat());
}

/// Keeps progress, and ends the request at a poll.
#[derive(Default)]
struct Watcher {
    told: Vec<Progress>,
    polls: AtomicUsize,
    /// Of polls; never if `None`.
    ends_at: Option<usize>,
}

impl Watch for Watcher {
    fn cancelled(&self) -> bool {
        let poll = self.polls.fetch_add(1, Ordering::Relaxed);
        self.ends_at.is_some_and(|end| poll >= end)
    }

    fn progress(&mut self, progress: Progress) {
        self.told.push(progress);
    }
}

fn watched(model: &Model, request: &Txt2Img, watcher: &mut Watcher) -> Result<usize> {
    txt2img(&model.facts(), &mut &*model, request, watcher, &mut NoStages).map(|drawn| drawn.len())
}

#[test]
fn progress_is_of_both_passes_and_cancelling_ends_either() {
    let model = model(&cpu(), Precision::F32);
    for upscaler in ["Latent", "Lanczos"] {
        let hires = Hires { upscaler: by(upscaler), ..hires() };
        let request = Txt2Img { n_iter: 2, steps: 3, hires: Some(hires), ..request() };
        let mut watcher = Watcher::default();
        watched(&model, &request, &mut watcher).expect("draws");
        let steps: Vec<usize> = watcher.told.iter().map(|progress| progress.step).collect();
        assert!(steps.is_sorted() && steps.last() == Some(&10), "{steps:?}");
        for progress in &watcher.told {
            assert_eq!(progress.steps, 10);
            // Of a batch three steps are the first pass's, and two the second's.
            let step = progress.step % 5;
            if progress.phase == Phase::Denoising {
                let is_base = if step == 0 { false } else { step <= 3 };
                assert_eq!(progress.pass == PassKind::Base, is_base, "{progress:?}");
            }
        }
        let polls = watcher.polls.into_inner();
        for ends_at in [0, 1, polls / 4, polls * 2 / 5, polls / 2, polls * 3 / 4, polls * 9 / 10] {
            let mut watcher = Watcher { ends_at: Some(ends_at), ..Watcher::default() };
            let ended = watched(&model, &request, &mut watcher);
            assert!(
                matches!(ended, Err(Error::Cancelled)),
                "{upscaler}, poll {ends_at} of {polls}: {ended:?}"
            );
            let after = watcher.polls.into_inner() - ends_at;
            assert!(after < 20, "{upscaler}: {after} polls after the one that said so");
        }
    }
}

/// What it is asked for, of one side, and whether it says that it was cancelled.
struct Threefold(Mutex<Vec<(usize, f64)>>);

impl Upscaler for Threefold {
    fn name(&self) -> &'static str {
        "Threefold"
    }

    fn upscale(&self, picture: &Picture, scale: f64, _cancelled: &dyn Fn() -> bool) -> Result<Picture> {
        self.0.lock().expect("no panic").push((picture.width, scale));
        picture.resized(picture.width * 3, picture.height * 3, Filter::Nearest)
    }
}

#[test]
fn any_upscaler_can_be_lent() {
    let model = model(&cpu(), Precision::F32);
    let threefold = Arc::new(Threefold(Mutex::default()));
    let upscaler = HiresUpscaler::Picture(Some(Arc::clone(&threefold) as Arc<dyn Upscaler + Send + Sync>));
    assert_eq!((upscaler.name(), format!("{upscaler:?}")), ("Threefold", "\"Threefold\"".to_owned()));
    let hires = Hires { upscaler, ..hires() };
    let request = Txt2Img { batch_size: 2, steps: 1, hires: Some(hires), ..request() };
    let drawn = draw(&model, &request).expect("draws");
    assert_eq!((drawn.len(), drawn[0].image.width, drawn[0].image.height), (2, 96, 88));
    assert_eq!(*threefold.0.lock().expect("no panic"), [(72, 99.0 / 72.0); 2]);
}

/// A region that is everywhere is the prompt, and one that is nowhere makes no difference, in both passes.
#[test]
fn regions_are_where_they_were() {
    let model = model(&cpu(), Precision::F32);
    let region = |shown: f32| {
        let mask = Arc::new(Tensor::full(shown, [8, 9]));
        RegionPrompt { prompt: "a green square".into(), mask, weight: 1.0 }
    };
    let of = |prompt: &str, regions: Vec<RegionPrompt>| {
        let hires = Hires { size: HiresSize::new(72, 64, 1.0, 104, 72), ..hires() };
        let request = Txt2Img { prompt: prompt.into(), regions, steps: 2, hires: Some(hires), ..request() };
        draw(&model, &request).expect("draws").remove(0).image
    };
    assert_eq!(of("a red circle", vec![region(1.0)]), of("a green square", vec![]));
    assert_eq!(of("a red circle", vec![region(0.0)]), of("a red circle", vec![]));
    let mut half = Tensor::full(0.0, [8, 9]);
    for row in half.values_mut().chunks_exact_mut(9) {
        row[..4].fill(1.0);
    }
    let half = RegionPrompt { mask: Arc::new(half), ..region(1.0) };
    let drawn = of("a red circle", vec![half]);
    assert!(drawn != of("a red circle", vec![]) && drawn != of("a green square", vec![]));
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let model = model(&cpu(), Precision::F32);
    let size = |scale, x, y| Hires { size: HiresSize::new(72, 64, scale, x, y), ..hires() };
    let sampler = |name| Some(Sampler::from_name(name).expect("a sampler"));
    let second = "the second pass of hires fix: ";
    for (hires, words) in [
        (Hires { denoising_strength: 1.5, ..hires() }, ["denoising_strength is 1.5", "0 to 1"]),
        (Hires { denoising_strength: f64::NAN, ..hires() }, ["denoising_strength is NaN", "0 to 1"]),
        (
            Hires { denoising_strength: 1e-4, ..hires() },
            ["denoising_strength is 0.0001; 2 steps", "more strength"],
        ),
        (Hires { steps: 10_001, ..hires() }, [second, "steps is 10001; 1 to 10000"]),
        (Hires { extra_noise: f64::INFINITY, ..hires() }, ["extra_noise is inf", "finite"]),
        (Hires { cfg_scale: Some(f64::NAN), ..hires() }, [second, "cfg_scale is NaN"]),
        (
            Hires { prompt: Some(latentd_models::pipeline::Texts::Each(vec![String::new(); 3])), ..hires() },
            [second, "prompt is a list of 3"],
        ),
        (Hires { sampler: sampler("DPM fast"), steps: 1, ..hires() }, [second, "DPM fast has no way to go"]),
        (
            Hires { sampler: sampler("DDIM"), steps: 1001, ..hires() },
            [second, "1000 of 1334 steps cannot be drawn"],
        ),
        (size(0.05, 0, 0), ["goes by 3x3 to 0x0", "hr_scale"]),
        (size(400.0, 0, 0), ["28800x25600", "8 to 16384"]),
        (size(2.0, 0, 4), ["hr_resize_y", "8 to 16384"]),
    ] {
        let request = Txt2Img { hires: Some(hires.clone()), ..request() };
        match draw(&model, &request) {
            Err(Error::Request(text)) => {
                assert!(words.iter().all(|word| text.contains(word)), "{hires:?}: {text}");
            }
            other => panic!("{hires:?}: {other:?}"),
        }
    }
    let low = Txt2Img {
        variation: Some(Variation { subseed: 1, strength: 0.5 }),
        hires: Some(Hires { upscaler: HiresUpscaler::Latent(LatentFilter::Nearest), ..size(0.2, 0, 0) }),
        ..request()
    };
    assert!(draw(&model, &low).expect_err("refused").to_string().contains("subseed_strength"));
}

/// What memory is reckoned by.
#[test]
fn a_second_pass_is_reckoned_with() {
    let with = |prompt: Option<&str>| {
        let hires = Hires { prompt: prompt.map(Into::into), ..hires() };
        Txt2Img { hires: Some(hires), ..request() }
    };
    let plain = request().text_needs().expect("read");
    assert_eq!(with(None).text_needs().expect("read"), plain);
    let other = with(Some("[a blue square:a green one:1.5]")).text_needs().expect("read");
    assert_eq!((other.tokens, other.more_contexts, other.branches), ([77, 77], 2, plain.branches));
    assert!(with(Some(&"a blue square, ".repeat(60))).text_needs().expect("read").tokens[0] > 77);
    assert_eq!(with(Some("a b")).texts_of(0).expect("read").last().map(String::as_str), Some("blurry"));
    assert!(with(Some("a b")).texts_of(0).expect("read").contains(&"a b".to_owned()));
    assert!(with(Some("(a b)")).text_facts(0).expect("read").is_emphasised);
    assert_eq!((request().largest(), with(None).largest()), ((72, 64), (99, 88)));
    let cropped = Hires { size: HiresSize::new(72, 64, 1.0, 16, 128), ..hires() };
    assert_eq!(Txt2Img { hires: Some(cropped), ..request() }.largest(), (144, 128));
}
