//! `image.info`: from the text in a picture to the request that repeats it.

use latentd_client::protocol::{
    ImageInfo, ImageInfoParams, LibraryKind, Precision, Rng, Txt2ImgParams, VaeDecodeMethod,
};
use latentd_models::image::{Infotext, read_infotext};

use super::given::{Given, wrong};
use super::studio::Studio;
use super::told::LORAS;
use crate::error::Result;
use crate::library::OWN_VAE;

/// What the picture says of how it was made.
pub(crate) fn image_info(params: ImageInfoParams, studio: &Studio) -> Result<ImageInfo> {
    let most_bytes = studio.settings.get().picture_bytes;
    let infotext = match Given::new("image", params.image, most_bytes, &studio.folders)? {
        Given::Encoded(bytes) => read_infotext(&bytes).map_err(|error| wrong("image", &error))?,
        // Pixels have no text with them.
        Given::Pixels => None,
    };
    let params = infotext.as_deref().map(|text| {
        let parsed = Infotext::parse(text);
        let is_known = |hash: &str| studio.library.find(LibraryKind::Checkpoint, hash).is_ok();
        let checkpoint = checkpoint(&parsed, is_known);
        let is_known = |hash: &str| studio.library.find(LibraryKind::Vae, hash).is_ok();
        let vae = vae(&parsed, is_known);
        Txt2ImgParams { checkpoint, vae, ..request(&parsed) }
    });
    Ok(ImageInfo { infotext, params })
}

/// The checkpoint by its hash where the library knows that, which tells more, else by its name.
fn checkpoint(infotext: &Infotext, is_known: impl Fn(&str) -> bool) -> Option<String> {
    let (hash, name) = (infotext.get("Model hash"), infotext.get("Model"));
    hash.filter(|hash| is_known(hash)).or(name).or(hash).map(str::to_owned)
}

/// The VAE in the same way. A picture of ours that names none was drawn with the checkpoint's own, whatever lies beside
/// that by now.
fn vae(infotext: &Infotext, is_known: impl Fn(&str) -> bool) -> Option<String> {
    let (hash, name) = (infotext.get("VAE hash"), infotext.get("VAE"));
    let named = hash.filter(|hash| is_known(hash)).or(name).or(hash);
    named.or(is_ours(infotext).then_some(OWN_VAE)).map(str::to_owned)
}

/// Whether latentd drew it.
fn is_ours(infotext: &Infotext) -> bool {
    infotext.get("Version").is_some_and(|version| version.starts_with("latentd"))
}

/// The request, as far as our fields can say it; checkpoint and VAE are left out.
fn request(infotext: &Infotext) -> Txt2ImgParams {
    fn number<T: std::str::FromStr>(infotext: &Infotext, key: &str, default: T) -> T {
        infotext.get(key).and_then(|value| value.parse().ok()).unwrap_or(default)
    }
    let default = Txt2ImgParams::default();
    let text = |key: &str, default: String| infotext.get(key).map_or(default, str::to_owned);
    let size = infotext.size("Size");
    Txt2ImgParams {
        prompt: prompt(infotext),
        negative_prompt: infotext.negative_prompt.clone(),
        seed: number(infotext, "Seed", default.seed),
        steps: number(infotext, "Steps", default.steps),
        cfg_scale: number(infotext, "CFG scale", default.cfg_scale),
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        sampler_name: text("Sampler", default.sampler_name),
        scheduler: text("Schedule type", default.scheduler),
        clip_skip: number(infotext, "Clip skip", default.clip_skip),
        pad_cond_uncond: infotext.get("Pad conds").is_some_and(|value| value == "True"),
        sd_vae_decode_method: match infotext.get("VAE Decoder") {
            Some("TAESD") => VaeDecodeMethod::Taesd,
            _ => VaeDecodeMethod::Full,
        },
        rng: match infotext.get("RNG") {
            Some("CPU") => Rng::Cpu,
            _ => Rng::Nv,
        },
        precision: precision(infotext),
        loras: infotext.get(LORAS).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        ..default
    }
}

/// The prompt, and behind it, as in A1111, a hypernetwork that is told apart.
fn prompt(infotext: &Infotext) -> String {
    let strength = infotext.get("Hypernet strength").unwrap_or("1.0");
    let hypernetwork = infotext.get("Hypernet").map(|name| format!("<hypernet:{name}:{strength}>"));
    infotext.prompt.clone() + &hypernetwork.unwrap_or_default()
}

/// Our own pictures say when they were not computed in f32; those of others say nothing.
fn precision(infotext: &Infotext) -> Precision {
    match infotext.get("Precision") {
        Some("bf16") => Precision::Bf16,
        Some("f16") => Precision::F16,
        Some("f32") => Precision::F32,
        _ if is_ours(infotext) => Precision::F32,
        _ => Precision::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_asked_for() {
        let text = "a cat, sitting\nNegative prompt: dog\nSteps: 7, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: \
                    5.5, Seed: 12, Size: 64x96, Model hash: 0123456789, Model: good, Clip skip: 2, Pad conds: True, \
                    RNG: CPU, Precision: bf16, Version: latentd v9";
        let expected = Txt2ImgParams {
            prompt: "a cat, sitting".into(),
            negative_prompt: "dog".into(),
            seed: 12,
            steps: 7,
            cfg_scale: 5.5,
            width: Some(64),
            height: Some(96),
            sampler_name: "DPM++ 2M".into(),
            scheduler: "Karras".into(),
            clip_skip: 2,
            pad_cond_uncond: true,
            rng: Rng::Cpu,
            precision: Precision::Bf16,
            ..Default::default()
        };
        assert_eq!(request(&Infotext::parse(text)), expected);
    }

    #[test]
    fn what_is_not_said_is_left_to_its_default() {
        let a1111 = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: -x, Denoising strength: 0.4";
        let expected = Txt2ImgParams { prompt: "a cat".into(), ..Default::default() };
        assert_eq!(request(&Infotext::parse(a1111)), expected);
        let ours = "\nSteps: 20, Sampler: Euler a, Seed: 1, Version: latentd v0.1.0";
        assert_eq!(request(&Infotext::parse(ours)).precision, Precision::F32);
    }

    #[test]
    fn a_checkpoint_is_named_so_that_it_is_found() {
        let parsed = |text: &str| Infotext::parse(&format!("x\nSteps: 1, Seed: 1, CFG scale: 1{text}"));
        let both = parsed(", Model hash: 0123456789, Model: good");
        assert_eq!(checkpoint(&both, |hash| hash == "0123456789").as_deref(), Some("0123456789"));
        assert_eq!(checkpoint(&both, |_| false).as_deref(), Some("good"));
        assert_eq!(checkpoint(&parsed(", Model hash: 0123456789"), |_| false).as_deref(), Some("0123456789"));
        assert_eq!(checkpoint(&parsed(""), |_| true), None);
        let both = parsed(", VAE hash: 0123456789, VAE: good.vae.pt");
        assert_eq!(vae(&both, |hash| hash == "0123456789").as_deref(), Some("0123456789"));
        assert_eq!(vae(&both, |_| false).as_deref(), Some("good.vae.pt"));
        assert_eq!(vae(&parsed(""), |_| true), None);
        assert_eq!(vae(&parsed(", Version: latentd v0.1.0"), |_| true).as_deref(), Some("None"));
    }
}
