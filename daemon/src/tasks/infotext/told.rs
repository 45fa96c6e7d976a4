//! What a picture's text tells.

use std::collections::BTreeMap;

use latentd_client::protocol::{
    Img2ImgParams, Masks, OutpaintMethod, OutpaintParams, OutputParams, PluginParams, Prompt, RepeatRequest,
    SdUpscaleParams, SoftInpaintingParams, Txt2ImgParams,
};
use serde::{Deserialize, Serialize};

use crate::library::OWN_VAE;

/// The request that draws one picture alone, and what its text says beside.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::tasks) struct Told {
    /// The request; `checkpoint` and `vae` are left out of it, and the hypernetwork that is told apart.
    pub(in crate::tasks) request: Txt2ImgParams,
    /// What it began with, if not with noise alone: all but the drawing, which is `request`.
    pub(in crate::tasks) begun: Option<Box<Img2ImgParams>>,
    /// How that was continued, if it was: what `begun` does not say of it. See [`told_outpaint`].
    pub(in crate::tasks) outpaint: Option<Box<OutpaintParams>>,
    pub(in crate::tasks) checkpoint: Named,
    /// The VAE that took the place of the checkpoint's own.
    pub(in crate::tasks) vae: Named,
    /// The hypernetwork that A1111 puts behind the prompt, and its strength.
    pub(in crate::tasks) hypernetwork: Option<(String, String)>,
    /// `NAME: HASH, …`.
    pub(in crate::tasks) lora_hashes: String,
    /// As `lora_hashes`.
    pub(in crate::tasks) embedding_hashes: String,
    /// The versions of the request's `plugins`, by their names.
    pub(in crate::tasks) plugin_versions: BTreeMap<String, String>,
    /// How its request was rewritten. No request says it: what is read of it are pairs.
    pub(in crate::tasks) rewriting: ToldRewriting,
    /// The plugins' engines that had a hand in it.
    pub(in crate::tasks) engines: Vec<ToldEngine>,
    /// The program that drew it.
    pub(in crate::tasks) version: Option<String>,
}

/// An engine, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tasks) struct ToldEngine {
    pub(in crate::tasks) kind: String,
    pub(in crate::tasks) name: String,
    pub(in crate::tasks) plugin: String,
    pub(in crate::tasks) version: String,
}

/// How a request was rewritten before it was drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::tasks) struct ToldRewriting {
    /// The texts that were there before, by JSON pointers into the request.
    pub(in crate::tasks) templates: BTreeMap<String, String>,
    /// The plugins that did it, and what they were given.
    pub(in crate::tasks) rewriters: BTreeMap<String, PluginParams>,
    pub(in crate::tasks) versions: BTreeMap<String, String>,
}

impl ToldRewriting {
    /// The fields that have rows of their own.
    pub(super) const PROMPT: &str = "/prompt";
    pub(super) const NEGATIVE: &str = "/negative_prompt";

    /// The templates of all others, as JSON.
    pub(super) fn others(&self) -> Option<String> {
        let others = self
            .templates
            .iter()
            .filter(|(field, _)| ![Self::PROMPT, Self::NEGATIVE].contains(&field.as_str()));
        let others: BTreeMap<&String, &String> = others.collect();
        (!others.is_empty()).then(|| serde_json::to_string(&others).ok())?
    }
}

/// A file by its name and the first digits of its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tasks) struct Named {
    pub(in crate::tasks) hash: Option<String>,
    pub(in crate::tasks) name: Option<String>,
}

/// How our own version begins.
const OURS: &str = "latentd";

/// The largest `mask_blur` of `outpaint`.
const MOST_BLUR: f64 = 256.0;

impl Told {
    /// What is told of a request that says all that is drawn; what it says of how its pictures are made and sent is left
    /// out. `loras` are those that its prompt does not say.
    pub(in crate::tasks) fn of(request: Txt2ImgParams) -> Self {
        let default = Txt2ImgParams::default();
        let is_resized = request.seed_resize_from_w > 0 && request.seed_resize_from_h > 0;
        let request = Txt2ImgParams {
            checkpoint: None,
            vae: None,
            // In the prompts.
            styles: vec![],
            batch_size: 1,
            n_iter: 1,
            strict: false,
            keep_alive: None,
            output: OutputParams::default(),
            preview: None,
            on_disconnect: default.on_disconnect,
            // What does nothing is not told.
            subseed: if request.subseed_strength == 0.0 { default.subseed } else { request.subseed },
            seed_resize_from_w: if is_resized {
                request.seed_resize_from_w
            } else {
                default.seed_resize_from_w
            },
            seed_resize_from_h: if is_resized {
                request.seed_resize_from_h
            } else {
                default.seed_resize_from_h
            },
            ..request
        };
        let version = Some(concat!("latentd v", env!("CARGO_PKG_VERSION")).to_owned());
        Self { request, version, ..Self::default() }
    }

    /// The same of the picture of this number, which began with a picture of its own.
    pub(in crate::tasks) fn of_image(mut self, index: usize) -> Self {
        if let Some(begun) = &mut self.begun {
            let own = |count: usize| index % count.max(1);
            begun.init_images =
                begun.init_images.get(own(begun.init_images.len())).cloned().into_iter().collect();
            let masks = begun.mask.as_ref().map(Masks::images).unwrap_or_default();
            begun.mask = masks.get(own(masks.len())).cloned().map(Masks::from);
        }
        self
    }

    /// What it began with, to be read from its text: what A1111 does not write when it is so.
    pub(super) fn begun(&mut self) -> &mut Img2ImgParams {
        self.begun.get_or_insert_with(|| {
            Box::new(Img2ImgParams {
                mask_blur_x: 0.0,
                mask_blur_y: 0.0,
                inpainting_fill: 1,
                inpaint_full_res: false,
                ..Img2ImgParams::default()
            })
        })
    }

    /// How it was blended, to be read from its text: softly, without rounding.
    pub(super) fn soft(&mut self) -> &mut SoftInpaintingParams {
        let begun = self.begun();
        begun.mask_round = false;
        begun.soft_inpainting.get_or_insert_default()
    }

    /// How it was made larger and drawn anew, to be read from its text.
    pub(super) fn sd_upscale(&mut self) -> &mut SdUpscaleParams {
        self.begun().sd_upscale.get_or_insert_default()
    }

    /// How that was continued, to be read from its text.
    pub(super) fn outpaint(&mut self) -> &mut OutpaintParams {
        self.begun();
        self.outpaint.get_or_insert_default()
    }

    /// Whether latentd drew it.
    pub(in crate::tasks) fn is_ours(&self) -> bool {
        self.version.as_ref().is_some_and(|version| version.starts_with(OURS))
    }

    /// Versions of the plugins that its request names, in whatever way.
    pub(in crate::tasks) fn versions_of_plugins(&self) -> BTreeMap<String, String> {
        let engines = self.engines.iter().map(|engine| (engine.plugin.clone(), engine.version.clone()));
        self.plugin_versions.clone().into_iter().chain(engines).collect()
    }

    /// The request that repeats the picture, where the library knows the hashes of which is said so. A picture of ours that
    /// names no VAE was drawn with the checkpoint's own, whatever lies beside that by now.
    pub(in crate::tasks) fn into_request(
        self,
        is_checkpoint: impl Fn(&str) -> bool,
        is_vae: impl Fn(&str) -> bool,
    ) -> RepeatRequest {
        let own_vae = self.is_ours().then(|| OWN_VAE.to_owned());
        let (checkpoint, vae) = (self.checkpoint.found(is_checkpoint), self.vae.found(is_vae).or(own_vae));
        // As in A1111, it stands behind the prompt.
        let hypernetwork = self.hypernetwork.map(|(name, strength)| format!("<hypernet:{name}:{strength}>"));
        let prompt = self.request.prompt.first().to_owned() + &hypernetwork.unwrap_or_default();
        let prompt = Prompt::All(prompt);
        let drawing = Txt2ImgParams { prompt, checkpoint, vae, ..self.request };
        match (self.begun, self.outpaint) {
            (Some(begun), Some(outpaint)) => {
                RepeatRequest::Outpaint(Box::new(continued(drawing, *begun, &outpaint)))
            }
            (Some(begun), None) => RepeatRequest::Img2Img(Box::new(Img2ImgParams { drawing, ..*begun })),
            (None, _) => RepeatRequest::Txt2Img(Box::new(drawing)),
        }
    }
}

/// What is told of how a picture was continued: the rest is told as `img2img` is.
pub(in crate::tasks) fn told_outpaint(params: &OutpaintParams) -> OutpaintParams {
    let OutpaintParams { left, right, up, down, method, noise_q, color_variation, .. } = *params;
    let told = OutpaintParams { left, right, up, down, method, ..OutpaintParams::default() };
    match method {
        OutpaintMethod::Mk2 => OutpaintParams { noise_q, color_variation, ..told },
        OutpaintMethod::PoorMans => told,
    }
}

/// How much more than its `mask_blur` a method softens its masks.
pub(in crate::tasks) fn blurs(method: OutpaintMethod) -> u32 {
    match method {
        OutpaintMethod::PoorMans => 2,
        OutpaintMethod::Mk2 => 4,
    }
}

/// The request that continues a picture, of what is told of it.
fn continued(drawing: Txt2ImgParams, begun: Img2ImgParams, told: &OutpaintParams) -> OutpaintParams {
    let blur = (begun.mask_blur_x / f64::from(blurs(told.method))).clamp(0.0, MOST_BLUR);
    let inpainting_fill = match told.method {
        OutpaintMethod::PoorMans => begun.inpainting_fill,
        OutpaintMethod::Mk2 => 0,
    };
    OutpaintParams {
        drawing,
        image: begun.init_images.into_iter().next().unwrap_or_default(),
        mask_blur: Some(blur as u32),
        inpainting_fill,
        ..told.clone()
    }
}

impl Named {
    /// What to ask the library for: the hash where that is known, for it tells more, else the name.
    fn found(self, is_known: impl Fn(&str) -> bool) -> Option<String> {
        let Self { hash, name } = self;
        match (hash, name) {
            (Some(hash), _) if is_known(&hash) => Some(hash),
            (hash, name) => name.or(hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(hash: Option<&str>, name: Option<&str>) -> Named {
        Named { hash: hash.map(str::to_owned), name: name.map(str::to_owned) }
    }

    #[test]
    fn a_file_is_named_so_that_it_is_found() {
        let hash = Some("0123456789");
        for (hash, name, known, found) in [
            (hash, Some("good"), true, hash),
            (hash, Some("good"), false, Some("good")),
            (hash, None, false, hash),
            (None, Some("good"), true, Some("good")),
            (None, None, true, None),
        ] {
            assert_eq!(named(hash, name).found(|_| known).as_deref(), found, "{hash:?}, {name:?}, {known}");
        }
        let request = |told: Told| told.into_request(|_| true, |_| true).into_drawing();
        assert_eq!(request(Told::default()).vae, None);
        assert_eq!(request(Told::of(Txt2ImgParams::default())).vae.as_deref(), Some("None"));
        let told = Told { hypernetwork: Some(("autumn".into(), "0.5".into())), ..Told::default() };
        assert_eq!(request(told).prompt, "<hypernet:autumn:0.5>".into());
    }
}
