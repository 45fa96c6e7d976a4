//! Sigmas of every schedule against k-diffusion's, within 1e-5 relative (f32 logarithms and powers).

use latentd_models::sampling::{
    Denoise, Denoised, ModelSigmas, Sampler, SamplerOptions, Schedule, levels, sample,
};
use latentd_models::{Result, Tensor};

use crate::drawing::sampler;
use crate::golden::{Golden, values};

#[track_caller]
fn check(name: &str, found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((found - wanted).abs() <= 1e-5 * wanted.abs(), "{name}[{index}]: {found} for {wanted}");
    }
}

#[test]
fn the_models_levels() {
    let golden = Golden::open("sigmas");
    let model = ModelSigmas::default();
    check("alphas", model.alphas_cumprod(), &golden.floats("alphas_cumprod"));
    check("sigmas", model.sigmas(), &golden.floats("model_sigmas"));
}

#[test]
fn levels_and_timesteps_turn_into_each_other() {
    let golden = Golden::open("sigmas");
    let model = ModelSigmas::default();
    let t: Vec<f32> =
        golden.floats("sigma_to_t.sigma").iter().map(|s| model.sigma_to_t(f64::from(*s))).collect();
    // A timestep is log σ over a slope of about 0.006 per step, in f32: absolute error 1e-3 at worst.
    for (found, wanted) in t.iter().zip(golden.floats("sigma_to_t.t")) {
        assert!((found - wanted).abs() <= 1e-3, "{found} for {wanted}");
    }
    let sigmas: Vec<f32> =
        golden.floats("t_to_sigma.t").iter().map(|t| model.t_to_sigma(f64::from(*t))).collect();
    check("t_to_sigma", &sigmas, &golden.floats("t_to_sigma.sigma"));
}

#[test]
fn every_schedule() {
    let golden = Golden::open("sigmas");
    let model = ModelSigmas::default();
    let options = SamplerOptions::default();
    let levels =
        |name, schedule, n| levels(&sampler(name), &model, schedule, n, &options).expect("schedule").levels;
    for n in [1, 2, 5, 20, 31, 50] {
        for (schedule, name) in [
            (Schedule::Uniform, "uniform"),
            (Schedule::Karras, "karras"),
            (Schedule::Exponential, "exponential"),
        ] {
            let name = format!("{name}.{n}");
            check(&name, &levels("Euler", schedule, n), &golden.floats(&name));
        }
        let (karras, uniform) = (format!("karras.{n}"), format!("uniform.{n}"));
        check("automatic", &levels("DPM++ 2M", Schedule::Automatic, n), &golden.floats(&karras));
        check("automatic", &levels("Heun", Schedule::Automatic, n), &golden.floats(&uniform));
    }
    for n in [1, 2, 5, 6, 8, 20, 31, 50] {
        let found: Vec<i64> = model.ddim_timesteps(n).iter().map(|t| *t as i64).collect();
        assert_eq!(found, golden.integers(&format!("ddim_timesteps.{n}")), "ddim, {n} steps");
    }
}

/// All of A1111's at once, over the model's range and another, over LCM's timesteps, with exponents and shapes.
#[test]
fn every_schedule_of_a1111() {
    let golden = Golden::open("schedules");
    let model = ModelSigmas::default();
    let default = SamplerOptions::default();
    let mut compared = 0;
    for name in golden.names().filter(|name| !name.starts_with("ztsnr")) {
        let parts: Vec<&str> = name.split('.').collect();
        let [what, schedule, steps] = [&["plain"], &*parts].concat()[parts.len() - 2..] else {
            panic!("{name}")
        };
        let steps = steps.parse().expect("steps");
        let options = match what {
            "range" => SamplerOptions { sigma_min: Some(0.1), sigma_max: Some(10.0), ..default.clone() },
            "rho" => SamplerOptions { rho: Some(3.5), ..default.clone() },
            "shape" => SamplerOptions { beta_dist_alpha: 0.3, beta_dist_beta: 0.9, ..default.clone() },
            _ => default.clone(),
        };
        let (by, schedule) = match what {
            "discards" => (schedule, Schedule::Automatic),
            "lcm" => ("LCM", Schedule::from_name(schedule).expect("a schedule")),
            _ => ("Euler", Schedule::from_name(schedule).expect("a schedule")),
        };
        let found = levels(&sampler(by), &model, schedule, steps, &options).expect("levels");
        check(name, &found.levels, &golden.floats(name));
        compared += 1;
    }
    assert!(compared > 90, "only {compared} were compared");
    let rescaled = model.zero_terminal_snr();
    // The difference of two roots near each other: as many units in the last place as there are digits lost.
    for (found, wanted) in rescaled.alphas_cumprod().iter().zip(golden.floats("ztsnr.alphas_cumprod")) {
        assert!((found - wanted).abs() <= 1e-5 * wanted + 1e-9, "{found} for {wanted}");
    }
}

/// Levels for Brownian motions are to the bit those of torch, but where its own powers and exponentials are off by one. Those of
/// the model's table are not among them: torch's roots are off by one in places that differ from processor to processor.
#[test]
fn levels_for_brownian_motions_are_torchs() {
    let (golden, model) = (Golden::open("schedules"), ModelSigmas::default());
    let (mut equal, mut all) = (0, 0);
    for name in ["Karras", "Exponential", "Polyexponential", "Beta", "KL Optimal", "Align Your Steps"] {
        for steps in [2, 7, 10, 20, 30] {
            let schedule = Schedule::from_name(name).expect("a schedule");
            let found = levels(&sampler("DPM++ SDE"), &model, schedule, steps, &SamplerOptions::default());
            let found = found.expect("levels").levels;
            let wanted = golden.floats(&format!("{name}.{steps}"));
            check(name, &found, &wanted);
            all += wanted.len();
            equal += found.iter().zip(&wanted).filter(|(found, wanted)| found == wanted).count();
        }
    }
    println!("{equal} of {all} levels are equal to the bit");
    assert!(equal * 100 >= all * 95, "{equal} of {all}");
}

/// A model that finds nothing but noise, and noise that is always one.
struct Nothing;

impl Denoise for Nothing {
    fn predict(&mut self, x: &Tensor, sigma: f64, _timestep: Option<f32>) -> Result<Denoised> {
        assert!(sigma > 0.0, "there is nothing to denoise at {sigma}");
        let guided = Tensor::full(0.0, x.dims());
        Ok(Denoised { uncond: guided.clone(), guided })
    }

    fn noise(&mut self, _from: f64, _to: f64) -> Result<Tensor> {
        Ok(Tensor::full(1.0, [1, 4, 1, 1]))
    }

    fn advance(&mut self, _steps: usize, x: &Tensor, _denoised: &Tensor) -> Result<()> {
        assert!(values(x).iter().all(|value| value.is_finite()));
        Ok(())
    }
}

#[test]
fn any_number_of_steps_ends_in_numbers() {
    let (model, options) = (ModelSigmas::default(), SamplerOptions::default());
    let noise = Tensor::full(1.0, [1, 4, 1, 1]);
    for sampler in Sampler::all() {
        for (schedule, _) in Schedule::ALL {
            for steps in [1, 2, 3, 501, 1000, 1001, 10_000] {
                let sigmas = levels(&sampler, &model, *schedule, steps, &options).expect("schedule");
                assert!(sigmas.levels.is_sorted_by(|a, b| a >= b), "{sampler}, {steps} steps: levels fall");
                let last = values(
                    &sample(&sampler, &noise, &sigmas, &model, &options, &mut Nothing).expect("samples"),
                );
                assert!(last.iter().all(|value| value.is_finite()), "{sampler}, {steps} steps: {last:?}");
            }
        }
    }
}
