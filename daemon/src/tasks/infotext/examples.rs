//! Texts as people have them, of each year of A1111 and of what came of it: each gives a request that can be drawn. Made up
//! in the forms that are found in the documentation and the issues of those programs.

use latentd_client::protocol::{Rng, Txt2ImgParams, VaeDecodeMethod};
use latentd_models::image::Texts;

use super::{infotext, read};

/// What is told, with names of files and without what nobody asked for.
fn request(text: &str) -> (Txt2ImgParams, Vec<String>) {
    let (told, others) = read(text);
    let request = told.into_request(|_| false, |_| false).into_drawing();
    let schema = crate::schema::of::<Txt2ImgParams>();
    let value = toml::Value::try_from(&request).expect("a value");
    crate::schema::check(&schema, &value).unwrap_or_else(|error| panic!("{text}: {error}"));
    (request, others.into_iter().map(|(key, _)| key).collect())
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams::default()
}

/// `(width, height)` for a struct's two fields.
fn sized((width, height): (u32, u32), rest: Txt2ImgParams) -> Txt2ImgParams {
    Txt2ImgParams { width: Some(width), height: Some(height), ..rest }
}

/// A request by what most texts say.
fn said(prompt: &str, negative: &str, steps: u32, sampler: &str, cfg_scale: f64, seed: i64) -> Txt2ImgParams {
    Txt2ImgParams {
        prompt: prompt.into(),
        negative_prompt: negative.into(),
        steps,
        sampler_name: sampler.into(),
        cfg_scale,
        seed,
        ..plain()
    }
}

fn of(checkpoint: &str, rest: Txt2ImgParams) -> Txt2ImgParams {
    Txt2ImgParams { checkpoint: Some(checkpoint.into()), ..rest }
}

#[allow(clippy::too_many_lines, reason = "one row after the other")]
#[test]
fn texts_of_every_year_and_branch_give_a_request() {
    let square = (512, 512);
    let rows: Vec<(&str, Txt2ImgParams, &[&str])> = vec![
        // A1111, 2022.
        (
            "a lighthouse\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b",
            of("45dee52b", sized(square, said("a lighthouse", "", 20, "Euler a", 7.0, 965_400_086))),
            &[],
        ),
        (
            "a lighthouse\nNegative prompt: fog\nSteps: 30, Sampler: DDIM, CFG scale: 9, Seed: 1, Size: 512x704, Model hash: \
             7460a6fa, Batch size: 4, Batch pos: 2, Eta: 0.5",
            Txt2ImgParams {
                eta: Some(0.5),
                ..of("7460a6fa", sized((512, 704), said("a lighthouse", "fog", 30, "DDIM", 9.0, 1)))
            },
            &["Batch size", "Batch pos"],
        ),
        (
            "a lighthouse\nSteps: 28, Sampler: Euler, CFG scale: 12, Seed: 2870305590, Size: 512x512, Model hash: 925997e9, \
             Clip skip: 2, ENSD: 31337",
            Txt2ImgParams {
                clip_skip: 2,
                eta_noise_seed_delta: 31337,
                ..of("925997e9", sized(square, said("a lighthouse", "", 28, "Euler", 12.0, 2_870_305_590)))
            },
            &[],
        ),
        (
            "girl\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x512, Model hash: 925997e9, Hypernet: anime_3, \
             Hypernet strength: 0.6",
            of("925997e9", sized(square, said("girl<hypernet:anime_3:0.6>", "", 20, "Euler a", 7.0, 3))),
            &[],
        ),
        (
            "girl\nSteps: 20, Sampler: LMS, CFG scale: 7, Seed: 3, Size: 512x512, Model hash: 925997e9, Hypernet: anime(1ca3d8f0)",
            of("925997e9", sized(square, said("girl<hypernet:anime:1.0>", "", 20, "LMS", 7.0, 3))),
            &[],
        ),
        (
            "a fox\nSteps: 20, Sampler: Heun, CFG scale: 7, Seed: 5, Size: 512x512, Model hash: 7460a6fa, Variation seed: 99, \
             Variation seed strength: 0.15, Seed resize from: 512x768",
            Txt2ImgParams {
                subseed: 99,
                subseed_strength: 0.15,
                seed_resize_from_w: 512,
                seed_resize_from_h: 768,
                ..of("7460a6fa", sized(square, said("a fox", "", 20, "Heun", 7.0, 5)))
            },
            &[],
        ),
        (
            "a fox\nSteps: 20, Sampler: DPM2 a Karras, CFG scale: 7, Seed: 5, Size: 1024x1024, Model hash: 7460a6fa, Denoising \
             strength: 0.7, First pass size: 0x0",
            of("7460a6fa", sized((1024, 1024), said("a fox", "", 20, "DPM2 a Karras", 7.0, 5))),
            &["Denoising strength", "First pass size"],
        ),
        // A1111, 2023.
        (
            "a fox, <lora:ink:0.8>\nNegative prompt: (worst quality:1.4),\nSteps: 25, Sampler: DPM++ 2M Karras, CFG scale: 7.5, \
             Seed: 12, Size: 512x768, Model hash: e6415c4892, Model: anything-v4.5, Clip skip: 2, Lora hashes: \"ink: 0123456789ab\"",
            Txt2ImgParams {
                clip_skip: 2,
                ..of(
                    "anything-v4.5",
                    sized(
                        (512, 768),
                        said("a fox, <lora:ink:0.8>", "(worst quality:1.4),", 25, "DPM++ 2M Karras", 7.5, 12),
                    ),
                )
            },
            &[],
        ),
        (
            "a fox\nSteps: 25, Sampler: DPM++ SDE Karras, CFG scale: 7, Seed: 12, Face restoration: CodeFormer, Size: 512x768, \
             Model hash: e6415c4892, Model: v1-5-pruned, RNG: CPU, Token merging ratio: 0.3, Version: v1.3.2",
            Txt2ImgParams {
                rng: Rng::Cpu,
                restore_faces: true,
                ..of("v1-5-pruned", sized((512, 768), said("a fox", "", 25, "DPM++ SDE Karras", 7.0, 12)))
            },
            &["Token merging ratio"],
        ),
        (
            "a fox\nSteps: 25, Sampler: UniPC, CFG scale: 7, Seed: 12, Size: 512x768, Model: v1-5-pruned, VAE hash: 735e4c3a44, \
             VAE: vae-ft-mse-840000-ema-pruned.safetensors, NGMS: 2, Version: v1.7.0",
            Txt2ImgParams {
                vae: Some("vae-ft-mse-840000-ema-pruned.safetensors".into()),
                s_min_uncond: 2.0,
                ..of("v1-5-pruned", sized((512, 768), said("a fox", "", 25, "UniPC", 7.0, 12)))
            },
            &[],
        ),
        (
            "a fox\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 12, Size: 512x512, Model: v1-5-pruned, Tiling: True, \
             Hires upscale: 2, Hires steps: 15, Hires upscaler: Latent, Denoising strength: 0.55, Version: v1.6.0",
            Txt2ImgParams {
                tiling: true,
                enable_hr: true,
                hr_scale: 2.0,
                hr_second_pass_steps: 15,
                denoising_strength: Some(0.55),
                ..of("v1-5-pruned", sized(square, said("a fox", "", 20, "DPM++ 2M Karras", 7.0, 12)))
            },
            &[],
        ),
        (
            "a fox\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 12, Size: 512x768, Model: v1-5-pruned, \
             Denoising strength: 0.7, Hires checkpoint: photon [ec41bd2a82], Hires sampler: Euler a, Hires prompt: \"a red fox, snow\", \
             Hires negative prompt: dog, Hires schedule type: Automatic, Hires resize: 1024x0, Hires upscaler: R-ESRGAN 4x+, \
             Version: v1.10.1",
            Txt2ImgParams {
                scheduler: "Karras".into(),
                enable_hr: true,
                hr_resize_x: 1024,
                hr_upscaler: "R-ESRGAN 4x+".into(),
                hr_prompt: "a red fox, snow".into(),
                hr_negative_prompt: "dog".into(),
                hr_sampler_name: Some("Euler a".into()),
                hr_scheduler: Some("Automatic".into()),
                hr_checkpoint_name: Some("photon [ec41bd2a82]".into()),
                denoising_strength: Some(0.7),
                ..of("v1-5-pruned", sized((512, 768), said("a fox", "", 20, "DPM++ 2M", 7.0, 12)))
            },
            &[],
        ),
        (
            "a fox\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 12, Size: 512x512, Model: v1-5-pruned, \
             Denoising strength: 0.4, Hires Module 1: Use same choices, Hires CFG Scale: 5, Hires upscale: 1.5, Hires upscaler: Latent \
             (nearest-exact), Version: f2.0.1v1.10.1-previous-669-gdfdcbab6",
            Txt2ImgParams {
                enable_hr: true,
                hr_scale: 1.5,
                hr_cfg: Some(5.0),
                hr_upscaler: "Latent (nearest-exact)".into(),
                denoising_strength: Some(0.4),
                ..of("v1-5-pruned", sized(square, said("a fox", "", 20, "Euler a", 7.0, 12)))
            },
            &["Hires Module 1"],
        ),
        (
            "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7.0, Seed: 12, Size: 572x1024, Model: v1-5-pruned, ControlNet 0: \
             \"Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1, Resize Mode: Crop and Resize\", Version: v1.6.0",
            of("v1-5-pruned", sized((568, 1024), said("a fox", "", 20, "Euler a", 7.0, 12))),
            &["ControlNet 0"],
        ),
        // A1111, 2024.
        (
            "a fox\nNegative prompt: dog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x512, \
             Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE Decoder: TAESD, Version: v1.10.1",
            Txt2ImgParams {
                scheduler: "Karras".into(),
                sd_vae_decode_method: VaeDecodeMethod::Taesd,
                ..of("v1-5-pruned-emaonly", sized(square, said("a fox", "dog", 20, "DPM++ 2M", 7.0, 42)))
            },
            &[],
        ),
        (
            "a fox\nSteps: 20, Sampler: Euler, Schedule type: Align Your Steps, CFG scale: 7, Seed: 42, Size: 512x512, Model: v1-5, \
             Refiner: photon [ec41bd2a82], Refiner switch at: 0.8, Pad conds: True, Version: v1.9.4",
            Txt2ImgParams {
                scheduler: "Align Your Steps".into(),
                pad_cond_uncond: true,
                refiner_checkpoint: Some("photon [ec41bd2a82]".into()),
                refiner_switch_at: Some(0.8),
                ..of("v1-5", sized(square, said("a fox", "", 20, "Euler", 7.0, 42)))
            },
            &[],
        ),
        (
            "line one\nline two, \"quoted\": yes\nNegative prompt: x\nmore of it\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, \
             CFG scale: 7, Seed: 42, Size: 512x512, Model: \"a, strange: name\", ADetailer model: face_yolov8n.pt, ADetailer prompt: \
             \"face, smile\", Version: v1.10.0",
            of(
                "a, strange: name",
                sized(
                    square,
                    said("line one\nline two, \"quoted\": yes", "x\nmore of it", 20, "Euler a", 7.0, 42),
                ),
            ),
            &["ADetailer model", "ADetailer prompt"],
        ),
        // Without prompts, without a size, with line ends of Windows.
        (
            "Steps: 4, Sampler: LCM, Schedule type: SGM Uniform, CFG scale: 1, Seed: 0, Size: 512x512",
            Txt2ImgParams {
                scheduler: "SGM Uniform".into(),
                ..sized(square, said("", "", 4, "LCM", 1.0, 0))
            },
            &[],
        ),
        (
            "a fox\r\nNegative prompt: dog\r\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42",
            said("a fox", "dog", 20, "Euler a", 7.0, 42),
            &[],
        ),
        // Forge and reForge.
        (
            "a fox\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 7, Size: 896x1152, \
             Model hash: 58725940e3, Model: flux1-dev-Q5, Version: f2.0.1v1.10.1-previous-530-g8bd7e056, Module 1: ae, Module 2: clip_l",
            Txt2ImgParams {
                scheduler: "Simple".into(),
                ..of("flux1-dev-Q5", sized((896, 1152), said("a fox", "", 20, "Euler", 1.0, 7)))
            },
            &["Distilled CFG Scale", "Module 1", "Module 2"],
        ),
        (
            "a fox\nSteps: 25, Sampler: DPM++ 2M SDE, Schedule type: Exponential, CFG scale: 5, Seed: 7, Size: 832x1216, Model hash: \
             d64c08ec07, Model: pony_v6, Denoising strength: 0.37, Hires Module 1: Use same choices, Hires CFG Scale: 5, \
             dynthres_enabled: True, dynthres_mimic_mode: Linear Down, Version: f2.0.1v1.10.1-previous-669-gdfdcbab6",
            Txt2ImgParams {
                scheduler: "Exponential".into(),
                denoising_strength: Some(0.37),
                ..of("pony_v6", sized((832, 1216), said("a fox", "", 25, "DPM++ 2M SDE", 5.0, 7)))
            },
            &["Hires Module 1", "Hires CFG Scale", "dynthres_enabled", "dynthres_mimic_mode"],
        ),
        (
            "a fox\nSteps: 25, Sampler: Euler a CFG++, Schedule type: Beta, CFG scale: 1.4, Seed: 7, Size: 832x1216, Model: illustrious, \
             Skip Early CFG: 0.1, Version: f0.0.17v1.8.0rc-latest-276-g29be1da7",
            Txt2ImgParams {
                scheduler: "Beta".into(),
                skip_early_cond: 0.1,
                ..of("illustrious", sized((832, 1216), said("a fox", "", 25, "Euler a CFG++", 1.4, 7)))
            },
            &[],
        ),
        // SD.Next.
        (
            "a fox\nNegative prompt: dog\nSteps: 20, Size: 1024x1024, Sampler: Default, Seed: 66, CFG scale: 6, CFG rescale: 0.7, App: \
             SD.Next, Version: 8b73cb6, Pipeline: StableDiffusionXLPipeline, Operations: txt2img, Model: sd_xl_base, Model hash: \
             31e35c80fc",
            of("sd_xl_base", sized((1024, 1024), said("a fox", "dog", 20, "Euler a", 6.0, 66))),
            &["Sampler", "CFG rescale", "App", "Pipeline", "Operations"],
        ),
        (
            "a fox\nSteps: 10, Size: 256x256, Sampler: KDPM2 a, Scheduler: karras, Seed: 66, CFG scale: 15.7, CFG end: 0.3, App: SD.Next, \
             Parser: a1111, Model: dreamshaper_8, Clip skip: 2.0, Variation seed: 4, Variation strength: 0.5",
            Txt2ImgParams {
                scheduler: "Karras".into(),
                clip_skip: 2,
                subseed: 4,
                subseed_strength: 0.5,
                ..of("dreamshaper_8", sized((256, 256), said("a fox", "", 10, "DPM2 a", 15.7, 66)))
            },
            &["CFG end", "App", "Parser"],
        ),
        (
            "a fox\nSteps: 20, Seed: 1, Sampler: DPM++ 2M EDM, CFG scale: 6, Size: 512x512, Backend: Diffusers, App: SD.Next",
            sized(square, said("a fox", "", 20, "DPM++ 2M EDM", 6.0, 1)),
            &["Backend", "App"],
        ),
        // Fooocus in A1111's form.
        (
            "a fox\nNegative prompt: dog\nSteps: 30, Sampler: DPM++ 2M SDE, Seed: 77, Size: 1152x896, CFG scale: 4, Sharpness: 2, ADM \
             Guidance: \"(1.5, 0.8, 0.3)\", Model: juggernautXL_v8, Model hash: aeb7e9e689, Performance: Speed, Scheduler: karras, VAE: \
             Default (model), Raw prompt: a fox, Version: Fooocus v2.5.5",
            Txt2ImgParams {
                scheduler: "Karras".into(),
                ..of("juggernautXL_v8", sized((1152, 896), said("a fox", "dog", 30, "DPM++ 2M SDE", 4.0, 77)))
            },
            &["Sharpness", "ADM Guidance", "Performance", "VAE", "Raw prompt"],
        ),
        // Civitai's own generator, and ComfyUI's nodes that write for it.
        (
            "a fox\nNegative prompt: dog\nSteps: 30, CFG scale: 7, Sampler: DPM++ 2M Karras, Seed: 10, Size: 832x1216, Clip skip: 2, \
             Created Date: 2024-04-01T0908:14.9Z, Civitai resources: [{\"type\":\"checkpoint\",\"modelVersionId\":290640}], Civitai \
             metadata: {}",
            Txt2ImgParams {
                clip_skip: 2,
                ..sized((832, 1216), said("a fox", "dog", 30, "DPM++ 2M Karras", 7.0, 10))
            },
            &["Created Date", "Civitai resources", "Civitai metadata"],
        ),
        (
            "a fox\nNegative prompt: \nSteps: 20, Sampler: dpmpp_2m_sde_gpu, Schedule type: sgm_uniform, CFG scale: 8.0, Seed: \
             156680208700286, Size: 512x512, Model: dreamshaper_8, Hashes: {\"model\": \"879db523c3\"}, Version: ComfyUI",
            Txt2ImgParams {
                scheduler: "SGM Uniform".into(),
                ..of(
                    "dreamshaper_8",
                    sized(square, said("a fox", "", 20, "DPM++ 2M SDE", 8.0, 156_680_208_700_286)),
                )
            },
            &["Hashes"],
        ),
        (
            "a fox\nSteps: 20, Sampler: euler_ancestral, Scheduler: normal, CFG scale: 8, Seed: 1, Size: 512x512",
            Txt2ImgParams {
                scheduler: "Normal".into(),
                ..sized(square, said("a fox", "", 20, "Euler a", 8.0, 1))
            },
            &[],
        ),
        // As A1111's API tells it once it has read it.
        (
            "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size-1: 640, Size-2: 384, RNG: GPU",
            sized((640, 384), said("a fox", "", 20, "Euler a", 7.0, 1)),
            &[],
        ),
        // In one line, and with an extension's lines behind.
        (
            "a fox, forest Negative prompt: dog, cat Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512",
            sized(square, said("a fox, forest", "dog, cat", 20, "Euler a", 7.0, 1)),
            &[],
        ),
        (
            "a red fox\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512\nTemplate: a {red|blue} \
             fox\nNegative Template: dog",
            sized(square, said("a red fox", "dog", 20, "Euler a", 7.0, 1)),
            &[],
        ),
        // Values that nobody can draw with are left alone.
        (
            "a fox\nSteps: 5000, Sampler: Euler a, CFG scale: 1e9, Seed: 99999999999999999999, Size: 0x512, Clip skip: 40",
            said("a fox", "", 20, "Euler a", 7.0, -1),
            &["Steps", "CFG scale", "Seed", "Size", "Clip skip"],
        ),
    ];
    assert!(rows.len() >= 30, "{}", rows.len());
    for (text, expected, others) in rows {
        let (found, left) = request(text);
        assert_eq!(found, expected, "{text}");
        // Keys of other fields may be understood by now.
        for key in others {
            assert!(left.iter().any(|left| left == key), "{key} of {text}: {left:?}");
        }
    }
}

fn texts(parameters: Option<&str>, others: &[(&str, &str)]) -> Texts {
    let others = others.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    Texts { infotext: parameters.map(str::to_owned), others }
}

#[test]
fn other_programs_are_understood_where_it_is_clear_what_they_mean() {
    let invoke = r#"{"generation_mode":"txt2img","positive_prompt":"a fox","negative_prompt":"dog","width":512,"height":768,"seed":5,
        "cfg_scale":7.5,"steps":30,"scheduler":"dpmpp_2m_k","model":{"key":"1","name":"dreamshaper-8","base":"sd-1"}}"#;
    let swarm = r#"{"sui_image_params":{"prompt":"a fox","negativeprompt":"","model":"sub/dreamshaper_8.safetensors","seed":5,"steps":20,
        "cfgscale":7.0,"width":512,"height":512,"sampler":"euler","scheduler":"normal"}}"#;
    let fooocus = r#"{"base_model":"juggernautXL_v8","base_model_hash":"aeb7e9e689","prompt":"a fox","negative_prompt":"dog","steps":30,
        "guidance_scale":4.0,"resolution":"(1152, 896)","sampler":"dpmpp_2m_sde_gpu","scheduler":"karras","seed":"77"}"#;
    let xmp = r#"<x:xmpmeta><rdf:Description><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{&quot;c&quot;:&quot;a &lt;fox&gt;&quot;,&quot;uc&quot;:&quot;dog&quot;,
        &quot;steps&quot;:20,&quot;sampler&quot;:&quot;DPM++ 2M Karras&quot;,&quot;scale&quot;:7.5,&quot;seed&quot;:9,&quot;size&quot;:&quot;512x512&quot;,
        &quot;model&quot;:&quot;sd_v1.5_f16.ckpt&quot;}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></x:xmpmeta>"#;
    let novel = r#"{"steps":28,"sampler":"k_euler_ancestral","seed":1234,"strength":0.69,"noise":0.2,"scale":11.0,"uc":"lowres, bad"}"#;
    let easy: &[(&str, &str)] = &[
        ("prompt", "a fox"),
        ("negative_prompt", "dog"),
        ("seed", "5"),
        ("use_stable_diffusion_model", "sd/sd-v1-5.ckpt"),
        ("num_inference_steps", "25"),
        ("guidance_scale", "7.5"),
        ("sampler_name", "dpmpp_2s_a"),
        ("width", "512"),
        ("height", "640"),
    ];
    let karras = |request| Txt2ImgParams { scheduler: "Karras".into(), ..request };
    let known: Vec<(&str, Texts, Txt2ImgParams)> = vec![
        (
            "InvokeAI",
            texts(None, &[("invokeai_metadata", invoke), ("invokeai_graph", "{}")]),
            karras(of("dreamshaper-8", sized((512, 768), said("a fox", "dog", 30, "DPM++ 2M", 7.5, 5)))),
        ),
        (
            "SwarmUI",
            texts(Some(swarm), &[]),
            Txt2ImgParams {
                scheduler: "Normal".into(),
                ..of("dreamshaper_8", sized((512, 512), said("a fox", "", 20, "Euler", 7.0, 5)))
            },
        ),
        (
            "Fooocus",
            texts(Some(fooocus), &[("fooocus_scheme", "fooocus")]),
            karras(of(
                "juggernautXL_v8",
                sized((1152, 896), said("a fox", "dog", 30, "DPM++ 2M SDE", 4.0, 77)),
            )),
        ),
        (
            "Draw Things",
            texts(None, &[("XML:com.adobe.xmp", xmp)]),
            karras(of("sd_v1.5_f16", sized((512, 512), said("a <fox>", "dog", 20, "DPM++ 2M", 7.5, 9)))),
        ),
        (
            "Easy Diffusion",
            texts(None, easy),
            of("sd-v1-5", sized((512, 640), said("a fox", "dog", 25, "DPM++ 2S a", 7.5, 5))),
        ),
        (
            "NovelAI",
            texts(None, &[("Software", "NovelAI"), ("Description", "girl, {smile}"), ("Comment", novel)]),
            Txt2ImgParams {
                clip_skip: 2,
                eta_noise_seed_delta: 31337,
                ..sized((640, 960), said("girl, {smile}", "lowres, bad", 28, "Euler a", 11.0, 1234))
            },
        ),
    ];
    for (program, texts, expected) in known {
        let text = infotext(&texts, (640, 960)).unwrap_or_else(|| panic!("{program}"));
        let (found, _) = request(&text);
        assert_eq!(found, expected, "{program}: {text}");
    }
    // What says nothing that is clear.
    for texts in [
        texts(None, &[("prompt", "{\"3\": {\"class_type\": \"KSampler\"}}"), ("workflow", "{}")]),
        texts(Some("{\"x\": 1}"), &[]),
        texts(None, &[("Software", "NovelAI"), ("Description", "x"), ("Comment", "{")]),
        texts(None, &[("XML:com.adobe.xmp", "<exif:UserComment>{</exif:UserComment>")]),
        texts(None, &[]),
    ] {
        assert_eq!(infotext(&texts, (8, 8)), None, "{texts:?}");
    }
    assert_eq!(infotext(&texts(Some("a fox"), &[("Software", "GIMP")]), (8, 8)).as_deref(), Some("a fox"));
}
