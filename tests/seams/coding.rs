//! The VAE, for those who take part once pictures are decoded.

use latentd_models::image::RgbImage;
use latentd_models::nn::Precision;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::pipeline::{
    DenoiseBefore, Handles, ImagePost, Img2Img, InitImage, MaskedContent, NoWatch, NoiseInit, Stages,
    Txt2Img, Wants, img2img,
};
use latentd_models::{Result, Tensor};

use crate::drawing::{model, request};

/// Compares what a request from a picture begins with, and what its VAE makes of that picture with its seed.
struct Compare {
    picture: RgbImage,
    noise: Vec<f32>,
    begun: Vec<f32>,
    off: Option<f32>,
}

impl Stages for Compare {
    fn wants(&self) -> Wants {
        Wants { noise_init: true, denoise_before: true, image_post: true, ..Wants::default() }
    }

    fn noise_init(&mut self, stage: &NoiseInit, tensors: &mut Handles) -> Result<()> {
        self.noise = tensors.read(stage.noise)?.values().to_vec();
        Ok(())
    }

    fn denoise_before(&mut self, stage: &DenoiseBefore, tensors: &mut Handles) -> Result<()> {
        if stage.evaluation.call == 0 {
            let sigma = stage.evaluation.sigma as f32;
            let x = tensors.read(stage.latents)?.values().iter().zip(&self.noise);
            self.begun = x.map(|(x, noise)| x - sigma * noise).collect();
        }
        Ok(())
    }

    fn image_post(&mut self, stage: &mut ImagePost) -> Result<()> {
        let latents = stage.coding.encode(self.picture.clone(), stage.pictures[0].seed)?;
        assert_eq!(latents.dims(), [1, 4, 8, 9]);
        let off = latents.values().iter().zip(&self.begun).map(|(a, b)| (a - b).abs());
        self.off = Some(off.fold(0.0, f32::max));
        let large = RgbImage { width: 72, height: 72, pixels: vec![0; 72 * 72 * 3] };
        assert!(stage.coding.encode(large, 1).is_err(), "larger than what memory is there for");
        assert!(stage.coding.decode(&Tensor::full(0.0, [1, 4, 9, 9])).is_err());
        assert_eq!(stage.coding.decode(&latents)?.width, 72);
        Ok(())
    }
}

#[test]
fn a_picture_is_encoded_as_a_request_with_its_seed_begins_with_it() {
    let model = model(&cpu(), Precision::F32);
    let pixels: Vec<u8> = (0..72 * 64 * 3).map(|at| (at * 7 % 251) as u8).collect();
    let scaled = |value: &u8| f32::from(*value) / 255.0 * 2.0 - 1.0;
    let planes = (0..3).flat_map(|colour| pixels.iter().skip(colour).step_by(3).map(scaled)).collect();
    let init = Tensor::new(planes, [1, 3, 64, 72]).expect("fits");
    let request = Img2Img {
        drawing: Txt2Img { steps: 4, ..request() },
        init: vec![InitImage::Picture(init)],
        denoising_strength: 0.5,
        img2img_fix_steps: false,
        initial_noise_multiplier: 1.0,
        img2img_extra_noise: 0.0,
        latent_mask: None,
        masked_content: MaskedContent::Picture,
        soft_inpainting: None,
        image_cfg_scale: None,
        conditioning_mask: None,
        inpainting_mask_weight: 1.0,
    };
    let picture = RgbImage { width: 72, height: 64, pixels };
    let mut compare = Compare { picture, noise: vec![], begun: vec![], off: None };
    img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut compare).expect("draws");
    // What adding and taking away noise rounds.
    assert!(compare.off.is_some_and(|off| off < 1e-4), "{:?}", compare.off);
}
