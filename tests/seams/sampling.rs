//! What samplers and options of sampling do to the model's evaluations: which rows they have, at which levels; and what is
//! told on the way.

use latentd_models::model::ModelFacts;
use latentd_models::nn::Precision;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::pipeline::{
    DenoiseCombine, Evaluation, Handles, NoStages, Output, Phase, Progress, Role, SamplingOptions,
    SkipOptions, Skipped, Stages, Txt2Img, Wants, Watch, txt2img,
};
use latentd_models::sampling::{Sampler, SamplerOptions};
use latentd_models::{Error, Result};

use crate::drawing::{draw_with, model, request};

/// Collects what the model was asked, and its first prediction under guidance.
#[derive(Default)]
struct Asked(Vec<Evaluation>, Vec<f32>);

impl Stages for Asked {
    fn wants(&self) -> Wants {
        Wants { denoise_combine: true, ..Wants::default() }
    }

    fn denoise_combine(&mut self, stage: &DenoiseCombine, tensors: &mut Handles) -> Result<()> {
        assert_eq!(tensors.read(stage.rows)?.dim(0), stage.evaluation.rows.len());
        if self.0.is_empty() {
            self.1 = tensors.read(stage.guided)?.values().to_vec();
        }
        self.0.push(stage.evaluation.clone());
        Ok(())
    }
}

fn ask(request: &Txt2Img) -> (Vec<Evaluation>, Output) {
    let model = model(&cpu(), Precision::F32);
    let mut asked = Asked::default();
    let outputs = draw_with(&model, &mut &model, request, &mut asked).expect("draws");
    (asked.0, outputs[0].clone())
}

fn with(sampler: &str, sampling: SamplingOptions) -> Txt2Img {
    let sampler = Sampler::from_name(sampler).expect("a sampler");
    Txt2Img { sampler, sampling, steps: 6, ..request() }
}

/// Which calls had rows of what is steered away from.
fn steered(evaluations: &[Evaluation]) -> Vec<bool> {
    let is_uncond = |evaluation: &Evaluation| evaluation.rows.iter().any(|row| row.role == Role::Uncond);
    evaluations.iter().map(is_uncond).collect()
}

#[test]
fn scale_1_asks_half() {
    let at_scale = |sampler, cfg_scale| Txt2Img { cfg_scale, ..with(sampler, SamplingOptions::default()) };
    let (asked, output) = ask(&at_scale("Euler", 1.0));
    assert!(steered(&asked).iter().all(|steered| !steered), "{:?}", steered(&asked));
    assert!(asked.iter().all(|evaluation| evaluation.rows.len() == 1));
    assert_eq!(output.skipped, Skipped::default(), "that is no option's doing");
    // Nor does the negative prompt show.
    let other = Txt2Img { negative_prompt: "a blue square".into(), ..at_scale("Euler", 1.0) };
    assert_eq!(ask(&other).1, output);
    for (sampler, scale) in [("Euler", 1.5), ("Euler CFG++", 1.0), ("DDIM CFG++", 12.5)] {
        let (asked, _) = ask(&at_scale(sampler, scale));
        assert!(steered(&asked).iter().all(|steered| *steered), "{sampler} looks at it on its own");
    }
}

/// At scale 1 what is steered away from counts nothing: no sampler asks for it but those that look at it on its own, and what
/// is left is what comes of both, but for rounding.
#[test]
fn scale_1_is_what_is_wanted_alone() {
    let model = model(&cpu(), Precision::F32);
    let first = |sampler: Sampler, scale: f64| {
        let cfg_scale = scale / sampler.guidance_factor;
        let request = Txt2Img { cfg_scale, steps: 2, ..with(sampler.name, SamplingOptions::default()) };
        let mut asked = Asked::default();
        draw_with(&model, &mut &model, &request, &mut asked).expect("draws");
        (steered(&asked.0), asked.1)
    };
    for sampler in Sampler::all() {
        let ((alone, found), (both, wanted)) = (first(sampler, 1.0), first(sampler, 1.0 + 1e-9));
        assert!(both.iter().all(|steered| *steered), "{sampler}: {both:?}");
        assert!(alone.iter().all(|steered| *steered == sampler.uses_uncond), "{sampler}: {alone:?}");
        let most = wanted.iter().fold(0f32, |most, value| most.max(value.abs()));
        let off = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(off <= 1e-5 * most, "{sampler}: {off} of {most}");
    }
}

#[test]
fn the_negative_prompt_is_left_out_when_asked() {
    let skip = |skip| SamplingOptions { skip, ..SamplingOptions::default() };
    let none = SkipOptions::default();
    let (asked, plain) = ask(&with("Euler", skip(none)));
    let levels: Vec<f64> = asked.iter().map(|evaluation| evaluation.sigma).collect();
    assert_eq!(steered(&asked), [true; 6]);
    assert_eq!(plain.skipped, Skipped::default());

    let (asked, early) = ask(&with("Euler", skip(SkipOptions { skip_early_cond: 0.4, ..none })));
    assert_eq!(steered(&asked), [false, false, false, true, true, true]);
    assert_eq!(early.skipped, Skipped { early: true, below: false });
    assert_ne!(early.image, plain.image);

    let below = SkipOptions { s_min_uncond: levels[1], ..none };
    let (asked, output) = ask(&with("Euler", skip(below)));
    assert_eq!(steered(&asked), [true, true, true, false, true, false]);
    assert_eq!(output.skipped, Skipped { early: false, below: true });
    let (asked, _) = ask(&with("Euler", skip(SkipOptions { s_min_uncond_all: true, ..below })));
    assert_eq!(steered(&asked), [true, true, false, false, false, false]);
    let (_, never) = ask(&with("Euler", skip(SkipOptions { s_min_uncond: 1e-3, ..none })));
    assert_eq!(never, plain, "no level is below that");

    // Of samplers with two calls a step, shares are of both; of those that go by timesteps, levels are those.
    let (asked, _) = ask(&with("Heun", skip(SkipOptions { skip_early_cond: 0.25, ..none })));
    assert_eq!(steered(&asked).iter().filter(|steered| !**steered).count(), 4, "calls 0 to 3 of 12");
    let (asked, _) =
        ask(&with("DDIM", skip(SkipOptions { s_min_uncond: 400.0, s_min_uncond_all: true, ..none })));
    let timesteps: Vec<bool> = asked.iter().map(|evaluation| evaluation.timestep >= 400.0).collect();
    assert_eq!(steered(&asked), timesteps);
}

#[test]
fn zero_terminal_snr_begins_at_noise_alone() {
    let rescaled = SamplingOptions { zero_terminal_snr: true, ..SamplingOptions::default() };
    let (asked, output) = ask(&with("Euler", rescaled.clone()));
    assert!((asked[0].sigma - 4518.7).abs() < 0.5 && asked[0].timestep == 999.0, "{}", asked[0].sigma);
    let (_, plain) = ask(&with("Euler", SamplingOptions::default()));
    assert_ne!(output.image, plain.image);
    // As if its file said so.
    let model = model(&cpu(), Precision::F32);
    let facts = ModelFacts { zero_terminal_snr: true, ..model.facts() };
    assert_eq!(facts.sigmas(false), model.facts().sigmas(true));
    for sampler in Sampler::all() {
        ask(&Txt2Img { steps: 3, ..with(sampler.name, rescaled.clone()) });
    }
}

#[test]
fn what_is_said_of_sampling_is_refused_by_name() {
    let facts = model(&cpu(), Precision::F32).facts();
    let default = SamplerOptions::default;
    for (sampler, options, text) in [
        ("Euler", SamplerOptions { eta: Some(f64::NAN), ..default() }, "eta is NaN"),
        ("Euler", SamplerOptions { s_noise: -1.0, ..default() }, "s_noise is -1"),
        ("DPM++ 2M", SamplerOptions { sigma_min: Some(30.0), ..default() }, "sigma_min is 30"),
        ("DPM++ 2M", SamplerOptions { sigma_max: Some(0.01), ..default() }, "sigma_max 0.01"),
    ] {
        let sampling = SamplingOptions { sampler: options, ..SamplingOptions::default() };
        let error = with(sampler, sampling).check(&facts).expect_err("refused");
        assert!(matches!(&error, Error::Request(_)) && error.to_string().contains(text), "{error}");
    }
    // Where it has no effect, nothing is wrong with it.
    let wide = SamplerOptions { sigma_min: Some(30.0), ..default() };
    let sampling = SamplingOptions { sampler: wide, ..SamplingOptions::default() };
    assert!(with("DDIM", sampling).check(&facts).is_ok());
}

/// Collects what is told of progress.
#[derive(Default)]
struct Told(Vec<Progress>);

impl Watch for Told {
    fn progress(&mut self, progress: Progress) {
        self.0.push(progress);
    }
}

/// Two passes of two images, whatever the sampler: steps never fall, are all told at the end of each pass, and never more.
#[test]
fn progress_goes_on_to_the_end_in_every_sampler() {
    let model = model(&cpu(), Precision::F32);
    for sampler in Sampler::all() {
        let request =
            Txt2Img { batch_size: 2, n_iter: 2, steps: 7, ..with(sampler.name, SamplingOptions::default()) };
        let mut told = Told::default();
        txt2img(&model.facts(), &mut &model, &request, &mut told, &mut NoStages).expect("draws");
        let all = told.0[0].steps;
        assert!(told.0.iter().all(|told| told.steps == all && told.step <= all), "{sampler}");
        assert!(told.0.is_sorted_by_key(|told| told.step), "{sampler}: {:?}", told.0);
        let passes: Vec<Vec<usize>> = told
            .0
            .split(|told| told.phase != Phase::Denoising)
            .map(|pass| pass.iter().map(|told| told.step).collect::<Vec<_>>())
            .filter(|pass| !pass.is_empty())
            .collect();
        let ends: Vec<usize> = passes.iter().filter_map(|pass| pass.last().copied()).collect();
        assert_eq!(ends, [all / 2, all], "{sampler}");
        match sampler.name {
            // As many model calls as steps were asked for, three a step.
            "DPM fast" => assert_eq!(passes, [[3, 6, 7], [10, 13, 14]]),
            // As many steps as it likes, told as shares of those that were asked for: of each image the half of a pass.
            "DPM adaptive" => {
                let steps = passes[0].clone();
                assert!(steps.len() > 14 && (1..=7).all(|step| steps.contains(&step)), "{steps:?}");
            }
            _ => assert_eq!(passes.concat(), (1..=all).collect::<Vec<_>>(), "{sampler}"),
        }
    }
}
