//! Families of models, one row each.

use crate::files::{CLIP, Prediction, Tensors, UNET, VAE, architecture};

/// What all checkpoints of a family have in common.
#[derive(Debug)]
pub struct Family {
    /// As [`inspect`](crate::files::inspect) names it.
    pub name: &'static str,
    /// How people call it.
    pub title: &'static str,
    /// Begins the names of the text encoder's tensors.
    pub text_prefix: &'static str,
    /// Begins the names of the UNet's tensors.
    pub unet_prefix: &'static str,
    /// Begins the names of the VAE's tensors.
    pub vae_prefix: &'static str,
    /// Latents are multiplied by this before the UNet sees them.
    pub latent_scale: f64,
    /// Channels of its latents.
    pub latent_channels: usize,
    /// What each latent channel adds to red, green and blue, in [−1, 1]: A1111's "Approx cheap".
    pub preview: &'static [[f32; 3]],
    /// Width and height of the pictures it was trained on, in pixels.
    pub native_size: (usize, usize),
    /// What its UNet predicts unless a file says otherwise.
    pub prediction: Prediction,
    /// Longest sequence and smallest vocabulary of its text encoder.
    pub text_positions: usize,
    /// Tensors that real files carry beside the networks: a second copy of the weights, the schedule, and leftovers of
    /// training. Names of the networks' own that no network uses are errors instead.
    pub harmless: &'static [&'static str],
}

/// Those that can be drawn with.
static FAMILIES: [Family; 1] = [Family {
    name: "sd1",
    title: "SD 1.x",
    text_prefix: CLIP,
    unet_prefix: UNET,
    vae_prefix: VAE,
    latent_scale: 0.18215,
    latent_channels: 4,
    preview: &[
        [0.298, 0.207, 0.208],
        [0.187, 0.286, 0.173],
        [-0.158, 0.189, 0.264],
        [-0.184, -0.271, -0.473],
    ],
    native_size: (512, 512),
    prediction: Prediction::Epsilon,
    text_positions: 77,
    harmless: &[
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "cond_stage_model.transformer.embeddings.position_ids",
        "first_stage_model.loss.",
        "first_stage_model.model_ema.",
    ],
}];

impl Family {
    /// All of them.
    pub fn all() -> &'static [Self] {
        &FAMILIES
    }

    /// The names of all of them, for a sentence.
    pub fn names() -> String {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        names.join(" or ")
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }

    /// That of an architecture, as [`FileInfo::architecture`](crate::files::FileInfo::architecture) has it, whose checkpoints
    /// can be drawn with: an inpainting checkpoint's and an InstructPix2Pix one's too.
    pub fn of_architecture(name: &str) -> Option<&'static Self> {
        let plain = ["-inpainting", "-pix2pix"].into_iter().find_map(|end| name.strip_suffix(end));
        Self::from_name(plain.unwrap_or(name))
    }

    /// That of a checkpoint, or what it is instead, if that can be told.
    pub(super) fn of(file: &Tensors) -> Result<&'static Self, Option<String>> {
        let architecture = architecture(file);
        let family = architecture.as_deref().and_then(Self::of_architecture);
        family.ok_or(architecture)
    }
}
