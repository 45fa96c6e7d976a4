//! Samplers, schedules and what is said of them, through the socket: drawn, told, drawn again, refused by name.

use std::collections::BTreeMap;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, InitializeParams, NoiseSchedule, Txt2ImgParams, UniPcSkipType,
    UniPcVariant,
};

use crate::harness::{Daemon, refused, small, within};

fn with(sampler: &str, scheduler: &str) -> Txt2ImgParams {
    Txt2ImgParams { sampler_name: sampler.into(), scheduler: scheduler.into(), steps: 4, ..small(5) }
}

/// Requests, and what their pictures tell of sampling: from the sampler to the schedule, and the options.
fn requests() -> Vec<(Txt2ImgParams, &'static str, &'static str)> {
    vec![
        (with("k_euler_a", "karras"), "Sampler: Euler a, Schedule type: Karras, ", ""),
        (
            with("DPM++ 2M SDE Heun", "Automatic"),
            "Sampler: DPM++ 2M SDE Heun, Schedule type: Exponential, ",
            "",
        ),
        (with("DPM++ SDE SGM Uniform", "Automatic"), "Sampler: DPM++ SDE, Schedule type: SGM Uniform, ", ""),
        (
            Txt2ImgParams {
                eta: Some(0.5),
                eta_noise_seed_delta: 31337,
                s_churn: 3.0,
                ..with("Euler a", "SGMUniform")
            },
            "Sampler: Euler a, Schedule type: SGM Uniform, ",
            "ENSD: 31337, RNG: NV, Eta: 0.5, ",
        ),
        (
            Txt2ImgParams {
                s_churn: 3.0,
                s_tmin: 0.5,
                s_tmax: 9.0,
                s_noise: 1.01,
                eta: Some(0.5),
                ..with("Heun", "Automatic")
            },
            "Sampler: Heun, Schedule type: Automatic, ",
            "RNG: NV, Sigma churn: 3, Sigma tmin: 0.5, Sigma tmax: 9, Sigma noise: 1.01, ",
        ),
        (
            Txt2ImgParams {
                sigma_min: 0.1,
                sigma_max: 10.0,
                rho: 5.0,
                always_discard_next_to_last_sigma: true,
                sgm_noise_multiplier: true,
                sd_noise_schedule: NoiseSchedule::ZeroTerminalSnr,
                ..with("DPM++ 2M", "Automatic")
            },
            "Sampler: DPM++ 2M, Schedule type: Karras, ",
            "RNG: NV, Noise Schedule: Zero Terminal SNR, Discard penultimate sigma: True, Schedule min sigma: 0.1, Schedule \
             max sigma: 10, Schedule rho: 5, SGM noise multiplier: True, ",
        ),
        (
            Txt2ImgParams { beta_dist_alpha: 0.5, rho: 5.0, ..with("IPNDM_V", "Beta") },
            "Sampler: IPNDM_V, Schedule type: Beta, ",
            "RNG: NV, Beta schedule alpha: 0.5, Beta schedule beta: 0.6, ",
        ),
        (
            Txt2ImgParams { eta: Some(0.3), rho: 5.0, ..with("DDIM", "Karras") },
            "Sampler: DDIM, Schedule type: Automatic, ",
            "RNG: NV, Eta DDIM: 0.3, ",
        ),
        (
            Txt2ImgParams {
                uni_pc_variant: UniPcVariant::VaryCoeff,
                uni_pc_skip_type: UniPcSkipType::LogSnr,
                uni_pc_order: 2,
                uni_pc_lower_order_final: false,
                ..with("unipc", "Automatic")
            },
            "Sampler: UniPC, Schedule type: Automatic, ",
            "RNG: NV, UniPC variant: vary_coeff, UniPC skip type: logSNR, UniPC order: 2, UniPC lower order final: False, ",
        ),
        (
            Txt2ImgParams {
                s_min_uncond: 5.0,
                s_min_uncond_all: true,
                skip_early_cond: 0.1,
                ..with("Euler", "Automatic")
            },
            "Sampler: Euler, Schedule type: Automatic, ",
            "RNG: NV, Skip Early CFG: 0.1, NGMS: 5, NGMS all steps: True, ",
        ),
        (
            Txt2ImgParams { s_min_uncond: 0.001, ..with("TCD", "Automatic") },
            "Sampler: TCD, Schedule type: Simple, ",
            "RNG: NV, ",
        ),
    ]
}

#[tokio::test]
async fn what_is_said_of_sampling_is_told_and_draws_again() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for (request, first, options) in requests() {
        let drawn = within(client.txt2img(&request)).await.expect("drawn").images.remove(0);
        let infotext = drawn.infotext.clone().expect("a text");
        assert!(infotext.contains(first) && infotext.contains(options), "{infotext}");
        let info = within(client.image_info(ImageIn::png(drawn.png.clone().expect("a PNG").0))).await;
        let params = info.expect("read").request.expect("a request").into_drawing();
        let again = within(client.txt2img(&params)).await.expect("drawn").images.remove(0);
        assert!(again.png == drawn.png, "the same bytes: {infotext}\n{params:?}");
    }
}

#[tokio::test]
async fn every_sampler_that_is_listed_draws() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let capabilities =
        within(client.initialize(&InitializeParams::default())).await.expect("answered").capabilities;
    assert!(capabilities.samplers.len() >= 25 && capabilities.schedulers.len() >= 12);
    for sampler in &capabilities.samplers {
        let request = Txt2ImgParams { steps: 2, ..with(sampler, "Automatic") };
        let drawn =
            within(client.txt2img(&request)).await.unwrap_or_else(|error| panic!("{sampler}: {error}"));
        let infotext = drawn.images[0].infotext.clone().unwrap_or_default();
        assert!(infotext.contains(&format!("Sampler: {sampler}, ")), "{infotext}");
    }
    for scheduler in &capabilities.schedulers {
        let request = Txt2ImgParams { steps: 2, ..with("Euler", scheduler) };
        within(client.txt2img(&request)).await.unwrap_or_else(|error| panic!("{scheduler}: {error}"));
    }
}

/// The demo model, one sampler of each kind: a batch of two is each alone, and steps are told up to the last, however many
/// a sampler takes.
#[tokio::test]
async fn the_demo_models_pictures_stand_alone_whatever_the_sampler() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for sampler in ["DPM++ SDE", "DPM adaptive", "DPM fast", "Restart", "UniPC", "Euler a CFG++", "TCD"] {
        let alone = Txt2ImgParams {
            checkpoint: Some("latentd-demo".into()),
            cfg_scale: 2.0,
            steps: 5,
            ..with(sampler, "Automatic")
        };
        let second = Txt2ImgParams { seed: 6, ..alone.clone() };
        let wanted = within(client.txt2img(&second)).await.expect("drawn").images.remove(0);
        let batch = Txt2ImgParams { batch_size: 2, ..alone };
        let mut told = vec![];
        let drawn = client.txt2img_with(&batch, |event| {
            if let EventKind::Progress { step, steps, .. } = event.kind {
                told.push((step, steps));
            }
        });
        let images = within(drawn).await.expect("drawn").images;
        assert!(images[1].png == wanted.png, "{sampler}: the same bytes");
        assert!(told.is_sorted() && told.iter().all(|(step, steps)| step <= steps), "{sampler}: {told:?}");
        assert!(told.last().is_some_and(|(step, steps)| step == steps), "{sampler}: {told:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for (request, words) in [
        (with("Eular a", "Automatic"), ["sampler_name: 'Eular a' is not known", "did you mean 'Euler a'?"]),
        (with("Euler", "Karas"), ["scheduler: 'Karas' is not known", "did you mean 'Karras'?"]),
        (Txt2ImgParams { eta: Some(1.5), ..with("Euler a", "Automatic") }, ["eta", "1.5"]),
        (Txt2ImgParams { s_churn: -1.0, ..with("Euler", "Automatic") }, ["s_churn", "-1"]),
        (Txt2ImgParams { s_tmin: -0.5, ..with("Heun", "Automatic") }, ["s_tmin", "-0.5"]),
        (Txt2ImgParams { s_tmax: 1e6, ..with("Heun", "Automatic") }, ["s_tmax", "10000"]),
        (Txt2ImgParams { s_noise: 11.0, ..with("DPM2", "Automatic") }, ["s_noise", "11"]),
        (
            Txt2ImgParams { eta_noise_seed_delta: i64::MAX, ..with("Euler a", "Automatic") },
            ["eta_noise_seed_delta", "9007199254740991"],
        ),
        (Txt2ImgParams { rho: 101.0, ..with("DPM++ 2M", "Karras") }, ["rho", "101"]),
        (Txt2ImgParams { s_min_uncond: -1.0, ..with("Euler", "Automatic") }, ["s_min_uncond", "-1"]),
        (Txt2ImgParams { skip_early_cond: 1.5, ..with("Euler", "Automatic") }, ["skip_early_cond", "1.5"]),
        (Txt2ImgParams { uni_pc_order: 0, ..with("UniPC", "Automatic") }, ["uni_pc_order", "0"]),
        (Txt2ImgParams { uni_pc_order: 51, ..with("UniPC", "Automatic") }, ["uni_pc_order", "51"]),
        (Txt2ImgParams { beta_dist_alpha: 11.0, ..with("Euler", "Beta") }, ["beta_dist_alpha", "11"]),
        (Txt2ImgParams { beta_dist_beta: 0.0, ..with("Euler", "Beta") }, ["beta_dist_beta", "0.01"]),
        (
            Txt2ImgParams { sigma_min: 20.0, ..with("DPM++ 2M", "Automatic") },
            ["sigma_min is 20", "sigma_max 14.6"],
        ),
        (
            Txt2ImgParams { sigma_max: 0.01, ..with("LMS", "Exponential") },
            ["sigma_max 0.01", "sigma_min below"],
        ),
    ] {
        let error = refused(within(client.txt2img(&request)).await, ErrorName::InvalidParams);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    for (field, value, known) in [
        ("uni_pc_variant", "bh3", "vary_coeff"),
        ("uni_pc_skip_type", "lambda", "logSNR"),
        ("sd_noise_schedule", "Zero SNR", "Zero Terminal SNR"),
    ] {
        let request: BTreeMap<_, _> = [(field, value)].into();
        let error = refused(within(client.call_value("txt2img", &request)).await, ErrorName::InvalidParams);
        assert!([value, known].iter().all(|word| error.contains(word)), "{error}");
    }
}
