//! Parts of a picture with prompts of their own.

use std::sync::Arc;

use latentd_models::nn::Precision;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::pipeline::{
    DenoiseCombine, Guidance, Handles, Output, RegionPrompt, Stages, Txt2Img, Wants,
};
use latentd_models::sampling::Sampler;
use latentd_models::{Result, Tensor};

use crate::drawing::{draw, draw_with, model, request};

/// Latents of the pictures here.
const ROWS: usize = 8;
const COLUMNS: usize = 9;

/// Where `is_in` says so of rows and columns of latents.
fn region(prompt: &str, weight: f64, is_in: impl Fn(usize, usize) -> bool) -> RegionPrompt {
    let places = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
    let mask = places.map(|(row, column)| f32::from(u8::from(is_in(row, column)))).collect();
    let mask = Tensor::new(mask, [ROWS, COLUMNS]).expect("fits");
    RegionPrompt { prompt: prompt.to_owned(), mask: Arc::new(mask), weight }
}

fn with(regions: Vec<RegionPrompt>) -> Txt2Img {
    Txt2Img { regions, ..request() }
}

/// What guidance made of the rows of each call, beside these.
#[derive(Default)]
struct Combined(Vec<(Tensor, Tensor)>);

impl Stages for Combined {
    fn wants(&self) -> Wants {
        Wants { denoise_combine: true, ..Wants::default() }
    }

    fn denoise_combine(&mut self, stage: &DenoiseCombine, tensors: &mut Handles) -> Result<()> {
        self.0.push((tensors.read(stage.rows)?.clone(), tensors.read(stage.guided)?.clone()));
        Ok(())
    }
}

fn combined(request: &Txt2Img) -> Vec<(Tensor, Tensor)> {
    let model = model(&cpu(), Precision::F32);
    let mut combined = Combined::default();
    draw_with(&model, &mut &model, request, &mut combined).expect("draws");
    combined.0
}

fn pictures(request: &Txt2Img) -> Vec<Output> {
    draw(&model(&cpu(), Precision::F32), request).expect("draws")
}

#[test]
fn a_region_that_is_nowhere_is_none_and_one_that_is_everywhere_is_the_prompt() {
    let plain = pictures(&request());
    assert_eq!(pictures(&with(vec![region("a dog", 1.0, |_, _| false)])), plain);
    assert_eq!(pictures(&with(vec![region("a dog", 0.0, |_, _| true)])), plain);
    let dog = pictures(&Txt2Img { prompt: "a dog".into(), ..request() });
    assert_ne!(dog, plain);
    let everywhere = with(vec![region("a dog", 1.0, |_, _| true)]);
    assert_eq!(pictures(&everywhere), dog);
    // Two halves are the whole; and nobody's turn is wasted on the prompt, which guides nowhere.
    let halves =
        [region("a dog", 1.0, |_, column| column < 4), region("a dog", 1.0, |_, column| column >= 4)];
    assert_eq!(combined(&with(halves.to_vec()))[0].0.dim(0), 3);
}

#[test]
fn each_place_is_guided_by_its_own_prompt() {
    let regions = vec![
        region("a dog", 1.0, |_, column| column < 3),
        region("a cat AND a tree :0.5", 0.25, |row, _| row < 2),
    ];
    let scale = request().cfg_scale;
    for (rows, guided) in combined(&with(regions)) {
        // The prompt, the dog, the cat, the tree, and what is steered away from.
        assert_eq!(rows.dim(0), 5);
        let at = |row: usize, index: usize| rows.narrow(0, row, 1).expect("there").values()[index];
        for (index, guided) in guided.values().iter().enumerate() {
            let (row, column) = (index / COLUMNS % ROWS, index % COLUMNS);
            let (dog, others) = (f64::from(u8::from(column < 3)), if row < 2 { 0.25 } else { 0.0 });
            let all = (dog + others).max(1.0);
            let shares = [(1.0 - dog - others).max(0.0), dog / all, others / all, 0.5 * others / all];
            let uncond = f64::from(at(4, index));
            let towards = shares.iter().enumerate();
            let expected: f64 =
                towards.map(|(row, share)| share * scale * (f64::from(at(row, index)) - uncond)).sum();
            let expected = uncond + expected;
            assert!((f64::from(*guided) - expected).abs() < 1e-4, "{row}, {column}: {guided} for {expected}");
        }
    }
}

/// Beside what is steered away from, without it, in batches, and as it changes from step to step.
#[test]
fn regions_go_with_all_else() {
    let regions = || {
        vec![
            region("[a dog:a cat:0.5]", 1.0, |_, column| column < 4),
            region("a tree", 0.5, |row, _| row > 3),
        ]
    };
    let base = with(regions());
    let plain = pictures(&base);
    for other in [
        Txt2Img { regions: vec![], ..base.clone() },
        Txt2Img { regions: regions()[..1].to_vec(), ..base.clone() },
    ] {
        assert_ne!(pictures(&other), plain);
    }
    let scale_1 = Txt2Img { cfg_scale: 1.0, ..base.clone() };
    let (rows, guided) = combined(&scale_1).swap_remove(0);
    assert_eq!(rows.dim(0), 3);
    // In the lower left corner the first of them counts 2/3, the other 1/3.
    let corner = (ROWS - 1) * COLUMNS;
    let at = |row: usize| rows.narrow(0, row, 1).expect("there").values()[corner];
    assert!((guided.values()[corner] - (2.0 * at(1) + at(2)) / 3.0).abs() < 1e-5);
    for sampler in ["Euler a", "DPM++ 2M", "DPM++ SDE"] {
        let sampler = Sampler::from_name(sampler).expect("a sampler");
        let batch = Txt2Img { batch_size: 3, sampler, ..base.clone() };
        let together = pictures(&batch);
        for at_once in [1, 2, 5] {
            assert_eq!(pictures(&Txt2Img { samples_at_once: Some(at_once), ..batch.clone() }), together);
        }
        for (index, picture) in together.iter().enumerate() {
            let alone = Txt2Img { batch_size: 1, seed: base.seed + index as u64, sampler, ..base.clone() };
            assert_eq!(pictures(&alone)[0].image, picture.image, "{}", sampler.name);
        }
    }
}

/// What is masked is what guidance is made of, not the picture: places see each other.
#[test]
fn masks_are_of_guidance() {
    let cond = |value: f32| Tensor::full(value, [1, 4, 2, 2]);
    let mask = Arc::new(Tensor::new(vec![1.0, 0.0, 0.5, 0.0], [2, 2]).expect("fits"));
    let conditioning = || {
        let tokens = Tensor::full(0.0, [1, 77, 1]);
        Arc::new(latentd_models::prompt::Conditioning { tokens, pooled: None })
    };
    let mut guidance = Guidance::of(conditioning(), conditioning());
    guidance.branches[0].mask = Some(mask);
    let guided = guidance.combine(&[cond(3.0), cond(1.0)], 2.0).expect("combines");
    assert_eq!(&guided.values()[..4], [5.0, 1.0, 3.0, 1.0]);
}
