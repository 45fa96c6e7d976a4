//! Who takes part in a picture: every stage, what it is told, and what it may change.

use std::collections::BTreeSet;
use std::sync::Arc;

use latentd_models::model::{Model, Network, TextEncoder};
use latentd_models::networks::unet::UNet;
use latentd_models::networks::unet_residuals::ResidualPlace;
use latentd_models::networks::vae::Vae;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Patch, Precision};
use latentd_models::pipeline::{
    Components, ConditioningStage, ControlResiduals, DenoiseBefore, DenoiseCombine, Exchanged, Handles, Held,
    ImagePost, LatentFinal, NoStages, NoiseInit, PassBegin, PassKind, Residual, Role, Stages, Txt2Img, Wants,
};
use latentd_models::prompt::Conditioning;
use latentd_models::{Error, Result, Tensor};

use crate::drawing::{checkpoint, components, draw, draw_with, model, request};

/// Writes down what it is told and changes nothing.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    rows: BTreeSet<(usize, u64, usize)>,
}

impl Stages for Log {
    fn wants(&self) -> Wants {
        Wants::ALL
    }

    fn pass_begin(&mut self, stage: &PassBegin) -> Result<Vec<Exchanged>> {
        self.lines.push(format!(
            "pass {} from {} seeds {:?} {:?}",
            stage.index, stage.first_image, stage.seeds, stage.size
        ));
        Ok(vec![])
    }

    fn conditioning(&mut self, stage: &mut ConditioningStage) -> Result<()> {
        for cond in &*stage.conds {
            let tokens = cond.conditioning.tokens.dim(1);
            self.lines.push(format!("conditioning {} {} {tokens}", cond.image, cond.branch));
        }
        Ok(())
    }

    fn noise_init(&mut self, stage: &NoiseInit, tensors: &mut Handles) -> Result<()> {
        self.lines.push(format!("noise {:?}", tensors.read(stage.noise)?.dims()));
        Ok(())
    }

    fn denoise_before(&mut self, stage: &DenoiseBefore, tensors: &mut Handles) -> Result<()> {
        let of = stage.evaluation;
        assert_eq!((of.pass, of.depth), (PassKind::Base, 0));
        assert_eq!(of.latents, (8, 9));
        for row in &of.rows {
            assert_eq!(&*row.tag, "");
            assert_eq!(row.role, if row.branch == 0 { Role::Cond } else { Role::Uncond });
            assert_eq!((row.region.canvas_width, row.region.height), (72, 64));
            self.rows.insert((row.image, row.seed, row.branch));
        }
        let images = tensors.read(stage.latents)?.dim(0);
        self.lines.push(format!("before {}/{} call {} images {images}", of.step, of.steps, of.call));
        Ok(())
    }

    fn control_residuals(
        &mut self,
        stage: &ControlResiduals,
        tensors: &mut Handles,
    ) -> Result<Vec<Residual>> {
        let rows = tensors.read(stage.latents)?.dim(0);
        assert_eq!(rows, stage.evaluation.rows.len());
        self.lines.push(format!("control {rows}"));
        Ok(vec![])
    }

    fn denoise_combine(&mut self, stage: &DenoiseCombine, tensors: &mut Handles) -> Result<()> {
        let (rows, images) = (tensors.read(stage.rows)?.dim(0), tensors.read(stage.guided)?.dim(0));
        self.lines.push(format!("combine {rows} to {images}"));
        Ok(())
    }

    fn latent_final(&mut self, stage: &LatentFinal, tensors: &mut Handles) -> Result<()> {
        self.lines.push(format!("final {:?}", tensors.read(stage.latents)?.dims()));
        Ok(())
    }

    fn image_post(&mut self, stage: &mut ImagePost) -> Result<()> {
        let seeds: Vec<u64> = stage.pictures.iter().map(|picture| picture.seed).collect();
        self.lines.push(format!("images {seeds:?}"));
        Ok(())
    }
}

#[test]
fn stages_come_in_order_and_say_what_they_are_of() {
    let model = model(&cpu(), Precision::F32);
    let request = Txt2Img { batch_size: 2, n_iter: 2, steps: 2, ..request() };
    let mut log = Log::default();
    let watched = draw_with(&model, &mut &model, &request, &mut log).expect("draws");
    assert_eq!(watched, draw(&model, &request).expect("draws"), "who only looks changes nothing");
    let pass = |index: usize, first: u64| {
        let (a, b, image) = (11 + first, 12 + first, first);
        let call = |step| {
            [format!("before {step}/2 call {step} images 2"), "control 4".into(), "combine 4 to 2".into()]
        };
        let mut lines = vec![format!("pass {index} from {first} seeds [{a}, {b}] (72, 64)")];
        for image in [image, image + 1] {
            lines.extend([format!("conditioning {image} 0 77"), format!("conditioning {image} 1 77")]);
        }
        lines.push("noise [2, 4, 8, 9]".into());
        lines.extend(call(0).into_iter().chain(call(1)));
        lines.extend(["final [2, 4, 8, 9]".into(), format!("images [{a}, {b}]")]);
        lines
    };
    assert_eq!(log.lines, [pass(0, 0), pass(1, 2)].concat());
    let rows: Vec<_> =
        (0..4).flat_map(|image| [(image, 11 + image as u64, 0), (image, 11 + image as u64, 1)]).collect();
    assert_eq!(log.rows.into_iter().collect::<Vec<_>>(), rows);
}

/// One stage changes something; which, is told by a number.
struct Change(usize);

impl Stages for Change {
    fn wants(&self) -> Wants {
        Wants::ALL
    }

    fn conditioning(&mut self, stage: &mut ConditioningStage) -> Result<()> {
        if self.0 == 0 {
            for cond in &mut *stage.conds {
                let mut changed = Conditioning::clone(&cond.conditioning);
                changed.tokens = changed.tokens.scaled(1.5);
                cond.conditioning = Arc::new(changed);
            }
        }
        Ok(())
    }

    fn noise_init(&mut self, stage: &NoiseInit, tensors: &mut Handles) -> Result<()> {
        if self.0 == 1 {
            tensors.write(stage.noise)?.reverse();
        }
        Ok(())
    }

    fn denoise_before(&mut self, stage: &DenoiseBefore, tensors: &mut Handles) -> Result<()> {
        if self.0 == 2 {
            tensors.write(stage.latents)?.iter_mut().for_each(|value| *value *= 0.75);
        }
        Ok(())
    }

    fn control_residuals(&mut self, stage: &ControlResiduals, _: &mut Handles) -> Result<Vec<Residual>> {
        let rows = stage.evaluation.rows.len();
        let [channels, height, width] = stage.sizes.at(ResidualPlace::Middle).expect("a size");
        let (place, dims) = match self.0 {
            // Of a shape that the network does not have, of too many rows, and nowhere.
            3 => (ResidualPlace::Middle, [rows, 1, 1, 1]),
            4 => (ResidualPlace::Middle, [rows + 1, channels, height, width]),
            5 => (ResidualPlace::Skip(99), [rows, channels, height, width]),
            _ => return Ok(vec![]),
        };
        let tensor = Tensor::full(1.0, dims);
        Ok(vec![Residual {
            owner: "a".into(),
            place,
            rows: None,
            tensor,
            mask: None,
            scale: 1.0,
            held: Held::default(),
        }])
    }

    fn denoise_combine(&mut self, stage: &DenoiseCombine, tensors: &mut Handles) -> Result<()> {
        match self.0 {
            6 => {
                let zeros = tensors.read(stage.guided)?.scaled(0.0);
                tensors.replace(stage.guided, zeros)
            }
            7 => tensors.replace(stage.guided, Tensor::full(0.0, [1])),
            _ => Ok(()),
        }
    }

    fn latent_final(&mut self, stage: &LatentFinal, tensors: &mut Handles) -> Result<()> {
        if self.0 == 8 {
            tensors.write(stage.latents)?.fill(0.0);
        }
        Ok(())
    }

    fn image_post(&mut self, stage: &mut ImagePost) -> Result<()> {
        if self.0 == 9 {
            stage.pictures.iter_mut().for_each(|picture| picture.image.pixels.fill(7));
        }
        Ok(())
    }
}

#[test]
fn each_stage_can_change_the_picture_or_end_it() {
    let model = model(&cpu(), Precision::F32);
    let request = Txt2Img { batch_size: 2, steps: 2, ..request() };
    let plain = draw(&model, &request).expect("draws");
    let changed = |number| draw_with(&model, &mut &model, &request, &mut Change(number));
    for number in [0, 1, 2, 6, 8, 9] {
        let found = changed(number).expect("draws");
        assert_eq!(found.len(), 2);
        assert!(found[0].image != plain[0].image && found[1].image != plain[1].image, "{number}");
    }
    for number in [3, 4, 5, 7] {
        assert!(matches!(changed(number), Err(Error::Stage(_))), "{number}");
    }
    assert_eq!(changed(10).expect("draws"), plain, "and nothing is left behind");
}

/// Each pass has the next UNet.
struct Changing<'a> {
    model: &'a Model,
    unets: Vec<Arc<UNet>>,
}

impl Components for Changing<'_> {
    fn text_encoder(&mut self) -> Result<Arc<TextEncoder>> {
        Ok(Arc::clone(self.model.text_encoder()))
    }

    fn unet(&mut self) -> Result<Arc<UNet>> {
        Ok(self.unets.remove(0))
    }

    fn vae(&mut self) -> Result<Arc<Vae>> {
        Ok(Arc::clone(self.model.vae()))
    }
}

/// Turns all weights of some tensors, told by a part of their names.
struct Negative(&'static str);

impl Patch for Negative {
    fn digest(&self) -> [u8; 32] {
        [7; 32]
    }

    fn touches(&self, name: &str) -> bool {
        name.contains(self.0)
    }

    fn apply(&self, _name: &str, _shape: &[usize], weights: &mut [f32]) -> Result<()> {
        for weight in weights {
            *weight = -*weight;
        }
        Ok(())
    }
}

/// What is kept from pass to pass is of the network that made it.
#[test]
fn another_network_in_the_next_pass_draws_as_it_does_alone() {
    let model = model(&cpu(), Precision::F32);
    let checkpoint = checkpoint();
    let [_, base, _] = components(&checkpoint, &cpu(), Precision::F32);
    let one = request();
    let two = Txt2Img { n_iter: 2, ..request() };
    // What contexts are made of, and what time embeddings are.
    for name in ["attn2.to_v.weight", "emb_layers.1.weight"] {
        let patches: Vec<Arc<dyn Patch>> = vec![Arc::new(Negative(name))];
        let patched = checkpoint.load_patched(&base, &[], &patches, &cpu(), Precision::F32, &|| false);
        let Network::UNet(patched) = patched.expect("loads").network else { panic!("a UNet") };
        let drawn = |unets: Vec<Arc<UNet>>, request: &Txt2Img| {
            draw_with(&model, &mut Changing { model: &model, unets }, request, &mut NoStages).expect("draws")
        };
        let alone = drawn(vec![Arc::clone(&patched)], &Txt2Img { seed: one.seed + 1, ..one.clone() });
        let both = drawn(vec![Arc::clone(model.unet()), patched], &two);
        assert_eq!(both[1].image, alone[0].image, "{name}");
        assert_ne!(both[1].image, draw(&model, &two).expect("draws")[1].image, "{name} does something");
    }
}
