//! A checkpoint that goes on where another one ends, against the reference's pipeline with both.

use std::sync::Arc;

use latentd_models::model::{Model, ModelFacts, TextEncoder};
use latentd_models::networks::unet::UNet;
use latentd_models::networks::vae::Vae;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{
    Components, Handles, LatentFinal, NoWatch, Output, Stages, Txt2Img, Wants, txt2img,
};
use latentd_models::{Result, Tensor};

use crate::drawing::sampler;
use crate::golden::{Golden, assert_close, checkpoint};

/// Two models that are in memory, and whose turn it is.
pub struct Both<'a> {
    own: &'a Model,
    refiner: &'a Model,
    is_refined: bool,
    /// How often each was begun with.
    turns: (usize, usize),
}

impl<'a> Both<'a> {
    pub fn new(own: &'a Model, refiner: &'a Model) -> Self {
        Self { own, refiner, is_refined: false, turns: (0, 0) }
    }

    fn now(&self) -> &Model {
        if self.is_refined { self.refiner } else { self.own }
    }
}

impl Components for Both<'_> {
    fn begin_pass(&mut self) {
        self.is_refined = false;
        self.turns.0 += 1;
    }

    fn refine(&mut self) -> Result<ModelFacts> {
        self.is_refined = true;
        self.turns.1 += 1;
        Ok(self.refiner.facts())
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

/// Keeps the last latents.
#[derive(Default)]
struct Last(Option<Tensor>);

impl Stages for Last {
    fn wants(&self) -> Wants {
        Wants { latent_final: true, ..Wants::default() }
    }

    fn latent_final(&mut self, stage: &LatentFinal, tensors: &mut Handles) -> Result<()> {
        self.0 = Some(tensors.read(stage.latents)?.clone());
        Ok(())
    }
}

fn request(name: &str, share: f64) -> Txt2Img {
    Txt2Img {
        prompt: "a red circle".into(),
        negative_prompt: "blurry".into(),
        seed: 42,
        steps: 6,
        width: 64,
        height: 64,
        sampler: sampler(name),
        refiner_switch_at: Some(share),
        ..Txt2Img::default()
    }
}

fn draw(models: &[Model; 2], request: &Txt2Img) -> (Vec<Output>, Tensor, (usize, usize)) {
    let [own, refiner] = models;
    let mut both = Both::new(own, refiner);
    let mut last = Last::default();
    let drawn = txt2img(&own.facts(), &mut both, request, &mut NoWatch, &mut last).expect("draws");
    (drawn, last.0.expect("latents"), both.turns)
}

fn models() -> [Model; 2] {
    ["tiny-sd1", "tiny-sd1-ema"].map(|name| Model::open(&checkpoint(name), Precision::F32).expect("opens"))
}

/// Six steps at guidance 7: as in `drawing`.
#[test]
fn it_goes_on_where_the_reference_does() {
    let (golden, models) = (Golden::open("refiner"), models());
    for name in ["Euler", "DPM++ 2M", "Heun", "DDIM"] {
        for share in [0.0, 0.5, 0.8, 1.0] {
            let (drawn, latents, turns) = draw(&models, &request(name, share));
            assert_close(
                &format!("{name} {share}"),
                &latents,
                golden.get(&format!("{name}.{share:.1}")),
                1e-4,
            );
            assert_eq!(
                (drawn[0].refined, turns),
                (share < 1.0, (1, usize::from(share < 1.0))),
                "{name} {share}"
            );
        }
    }
}

/// In a batch, in later passes, and where a sampler takes one image after the other.
#[test]
fn every_image_begins_with_the_own_checkpoint() {
    let models = models();
    for name in ["Euler a", "DPM adaptive"] {
        let alone = Txt2Img { seed: 43, ..request(name, 0.6) };
        let (wanted, ..) = draw(&models, &alone);
        let batch = Txt2Img { seed: 42, batch_size: 2, ..alone.clone() };
        assert!(draw(&models, &batch).0[1].image == wanted[0].image, "{name} in a batch");
        let passes = Txt2Img { seed: 42, n_iter: 2, ..alone };
        let (drawn, _, turns) = draw(&models, &passes);
        assert!(drawn[1].image == wanted[0].image, "{name} in a later pass");
        assert_eq!(turns, (2, 2), "{name}");
    }
}
