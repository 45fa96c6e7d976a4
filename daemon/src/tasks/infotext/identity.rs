//! What is told of a request is the request: a thousand of them, drawn by lot.

use std::collections::BTreeMap;

use latentd_client::protocol::{
    Emphasis, ImageIn, Img2ImgParams, LoraParams, NoiseSchedule, OnDisconnect, OutpaintMethod,
    OutpaintParams, OutputParams, PluginParams, Precision, RegionParams, RepeatRequest, Rng,
    SoftInpaintingParams, Txt2ImgParams, UniPcSkipType, UniPcVariant, VaeDecodeMethod,
};
use latentd_models::image::{PictureFormat, RgbImage, read_infotext};
use latentd_models::sampling::{Sampler, Schedule};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value as Json;

use super::rows::keys;
use super::{Named, Told, ToldEngine, read, told_outpaint, write};
use crate::tasks::continuation::as_img2img;
use crate::tasks::sampling::settled;

/// Texts that look like parts of an infotext.
const TEXT: &str = "(\\PC|[ \t\r\n,:\"\\\\#]|Negative prompt:|Steps: 20, |\nSampler: Euler a, Seed: 1, Size: 8x8|Exact prompt: |🗼|[a-z]{3}){0,10}";

/// A name of a file, whatever is in it.
fn name() -> impl Strategy<Value = String> {
    "([a-z0-9]{3}|[ ,:\"(){}\\\\ü雪=<>']|\\PC){1,6}".prop_filter("says something", |name| !name.is_empty())
}

fn named() -> impl Strategy<Value = Named> {
    (proptest::option::of("[0-9a-f]{10}"), proptest::option::of(name()))
        .prop_map(|(hash, name)| Named { hash, name })
}

fn side() -> impl Strategy<Value = u32> {
    (1..=512u32).prop_map(|eighth| eighth * 8)
}

/// A side of the size that a seed draws at.
fn from() -> impl Strategy<Value = i32> {
    prop_oneof![-1..=0, 8..=4096]
}

/// A number as people write them, or any.
fn number(range: std::ops::RangeInclusive<f64>) -> impl Strategy<Value = f64> {
    let hundredths = (range.start() * 100.0) as i32..=(range.end() * 100.0) as i32;
    prop_oneof![range, hundredths.prop_map(|hundredths| f64::from(hundredths) / 100.0)]
}

fn lora() -> impl Strategy<Value = LoraParams> {
    let strength = || proptest::option::of(number(-2.0..=2.0));
    (name(), strength(), strength(), proptest::option::of(1..=128u32))
        .prop_map(|(name, unet, te, dynamic)| LoraParams { name, unet, te, dynamic })
}

/// What JSON can carry.
fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-1e9..1e9).prop_map(Json::from),
        TEXT.prop_map(Json::from),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            proptest::collection::btree_map(name(), inner, 0..3)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

/// Plugins by their names, each with what it is given and, mostly, its version.
fn plugins() -> impl Strategy<Value = BTreeMap<String, (PluginParams, Option<String>)>> {
    let params = proptest::collection::btree_map(name(), json(), 0..3)
        .prop_map(|params| PluginParams::from_json(params.into_iter().collect()));
    let version = proptest::option::weighted(0.8, prop_oneof!["[0-9]\\.[0-9]\\.[0-9]".boxed(), TEXT.boxed()]);
    proptest::collection::btree_map(name(), (params, version), 0..3)
}

fn region() -> impl Strategy<Value = RegionParams> {
    ("[0-9a-f]{64}", TEXT, number(0.0..=1.0)).prop_map(|(mask, prompt, weight)| RegionParams {
        mask: ImageIn::blob(mask),
        prompt,
        weight,
    })
}

/// What a request says of sampling; the rest of it is the default.
fn sampling() -> impl Strategy<Value = Txt2ImgParams> {
    let noise = (
        proptest::option::of(number(0.0..=1.0)),
        (number(0.0..=100.0), number(0.0..=20.0), number(0.0..=20.0), number(0.0..=10.0)),
        prop_oneof![Just(0), -100_000..=100_000i64],
    );
    let levels = (
        number(0.0..=20.0),
        number(0.0..=20.0),
        number(0.0..=100.0),
        number(0.01..=10.0),
        number(0.01..=10.0),
    );
    let uni_pc = (select(UniPcVariant::ALL.to_vec()), select(UniPcSkipType::ALL.to_vec()), 1..=50u32);
    let guidance = (number(0.0..=20.0), number(0.0..=1.0), select(NoiseSchedule::ALL.to_vec()));
    (noise, levels, uni_pc, guidance, any::<[bool; 4]>()).prop_map(
        |(
            (eta, (s_churn, s_tmin, s_tmax, s_noise), eta_noise_seed_delta),
            (sigma_min, sigma_max, rho, beta_dist_alpha, beta_dist_beta),
            (uni_pc_variant, uni_pc_skip_type, uni_pc_order),
            (s_min_uncond, skip_early_cond, sd_noise_schedule),
            [
                always_discard_next_to_last_sigma,
                sgm_noise_multiplier,
                uni_pc_lower_order_final,
                s_min_uncond_all,
            ],
        )| Txt2ImgParams {
            eta,
            s_churn,
            s_tmin,
            s_tmax,
            s_noise,
            eta_noise_seed_delta,
            sigma_min,
            sigma_max,
            rho,
            beta_dist_alpha,
            beta_dist_beta,
            always_discard_next_to_last_sigma,
            sgm_noise_multiplier,
            uni_pc_variant,
            uni_pc_skip_type,
            uni_pc_order,
            uni_pc_lower_order_final,
            s_min_uncond,
            s_min_uncond_all: s_min_uncond_all && s_min_uncond > 0.0,
            skip_early_cond,
            sd_noise_schedule,
            ..Txt2ImgParams::default()
        },
    )
}

/// Each field that a text can tell, as a request has it once it is settled.
fn request() -> impl Strategy<Value = Txt2ImgParams> {
    let samplers: Vec<String> = Sampler::all().map(|sampler| sampler.name.to_owned()).collect();
    let schedules: Vec<String> = Schedule::ALL.iter().map(|(_, name)| (*name).to_owned()).collect();
    let seeds = (0..=i64::MAX, -1..=i64::MAX, number(0.0..=1.0), from(), from());
    let texts = (TEXT, TEXT, select(samplers), select(schedules), select(Emphasis::ALL.to_vec()), 0..=74u32);
    let sizes = (side(), side(), 1..=1000u32, number(0.0..=100.0), 1..=12u32);
    let flags = any::<[bool; 8]>();
    let rest = (
        select(vec![Precision::F32, Precision::Bf16, Precision::F16]),
        proptest::collection::vec(lora(), 0..3),
        proptest::collection::vec(region(), 0..3),
        proptest::option::of((name(), number(0.0..=1.0))),
        proptest::option::of((name(), number(0.0..=1.0))),
    );
    (seeds, texts, sizes, flags, rest, sampling()).prop_map(
        |(
            (seed, subseed, subseed_strength, seed_resize_from_w, seed_resize_from_h),
            (prompt, negative_prompt, sampler_name, scheduler, emphasis, comma_padding_backtrack),
            (width, height, steps, cfg_scale, clip_skip),
            [cpu, pad_cond_uncond, pad_cond_uncond_v0, use_old_scheduling, taesd, tiling, tiling_x, tiling_y],
            (precision, loras, regions, refiner, restorer),
            sampling,
        )| {
            let sampler = Sampler::from_name(&sampler_name).expect("a sampler");
            let schedule = Schedule::from_name(&scheduler).expect("a schedule");
            let usual = Txt2ImgParams::default();
            let restore_faces = restorer.is_some();
            let (face_restoration_model, code_former_weight) =
                restorer.unwrap_or((usual.face_restoration_model, usual.code_former_weight));
            let params = Txt2ImgParams {
                prompt: prompt.into(),
                negative_prompt: negative_prompt.into(),
                regions,
                styles: vec![],
                emphasis,
                comma_padding_backtrack,
                use_old_scheduling,
                seed,
                subseed,
                subseed_strength,
                seed_resize_from_w,
                seed_resize_from_h,
                steps,
                cfg_scale,
                width: Some(width),
                height: Some(height),
                sampler_name,
                scheduler,
                clip_skip,
                pad_cond_uncond,
                pad_cond_uncond_v0,
                sd_vae_decode_method: if taesd { VaeDecodeMethod::Taesd } else { VaeDecodeMethod::Full },
                refiner_checkpoint: refiner.as_ref().map(|(name, _)| name.clone()),
                refiner_switch_at: refiner.map(|(_, share)| share),
                tiling,
                tiling_x,
                tiling_y,
                restore_faces,
                face_restoration_model,
                code_former_weight,
                loras,
                rng: if cpu { Rng::Cpu } else { Rng::Nv },
                precision,
                // How pictures are made and sent, of which a text says nothing, and what is told beside.
                batch_size: 1,
                n_iter: 1,
                checkpoint: None,
                vae: None,
                strict: false,
                keep_alive: None,
                output: OutputParams::default(),
                preview: None,
                on_disconnect: OnDisconnect::Keep,
                ..sampling
            };
            settled(params, sampler, schedule)
        },
    )
}

/// What it began with, and how far it went from that.
fn begun() -> impl Strategy<Value = (Img2ImgParams, f64)> {
    let blob = || "[0-9a-f]{64}".prop_map(ImageIn::blob);
    let blurs = (number(0.0..=1024.0), number(0.0..=1024.0), any::<bool>())
        .prop_map(|(x, y, alike)| if alike { (x, x) } else { (x, y) });
    let share = || number(1.0..=8.0);
    let soft = (share(), share(), number(1.0..=32.0), number(0.0..=1.0), share(), share()).prop_map(
        |(power, scale, detail, influence, threshold, contrast)| SoftInpaintingParams {
            mask_blend_power: power,
            mask_blend_scale: scale,
            inpaint_detail_preservation: detail,
            composite_mask_influence: influence,
            composite_difference_threshold: threshold,
            composite_difference_contrast: contrast,
        },
    );
    let soft = proptest::option::of(soft);
    let mask = (blob(), blurs, any::<[bool; 2]>(), 0..=3u8, proptest::option::of(0..=65_536u32), soft);
    let plain = (
        blob(),
        0..=3u8,
        any::<[bool; 2]>(),
        proptest::option::of(number(1.5..=10.0)),
        number(0.0..=10.0),
        "#[0-9a-e]{6}",
        number(0.0..=1.0),
        (proptest::option::of(number(0.0..=100.0)), number(0.0..=1.0)),
    );
    (plain, proptest::option::of(mask)).prop_map(
        |(
            (
                image,
                resize_mode,
                [fixed, corrected],
                multiplier,
                extra,
                background,
                strength,
                (image_cfg_scale, weight),
            ),
            mask,
        )| {
            let unmasked = Told::default().begun().clone();
            let begun = Img2ImgParams {
                init_images: vec![image],
                resize_mode,
                img2img_fix_steps: fixed,
                initial_noise_multiplier: multiplier,
                img2img_extra_noise: extra,
                img2img_color_correction: corrected,
                img2img_background_color: background,
                image_cfg_scale,
                inpainting_mask_weight: weight,
                ..unmasked
            };
            let Some((mask, (x, y), [round, inverted], fill, padding, soft)) = mask else {
                return (begun, strength);
            };
            let begun = Img2ImgParams {
                mask: Some(mask.into()),
                mask_blur_x: x,
                mask_blur_y: y,
                mask_round: round && soft.is_none(),
                soft_inpainting: soft,
                inpainting_fill: fill,
                inpaint_full_res: padding.is_some(),
                inpaint_full_res_padding: padding.unwrap_or_default(),
                inpainting_mask_invert: u8::from(inverted),
                ..begun
            };
            (begun, strength)
        },
    )
}

/// A picture that was continued, and how far that went from what it began with.
fn continued() -> impl Strategy<Value = (Img2ImgParams, OutpaintParams, f64)> {
    let sides = [0..=65_536u32, 0..=65_536, 0..=9, 0..=9];
    let noise = (number(0.0..=4.0), number(0.0..=1.0));
    let more = (0..=256u32, 0..=3u8, number(0.0..=1.0));
    ("[0-9a-f]{64}", select(OutpaintMethod::ALL.to_vec()), sides, noise, more).prop_map(
        |(image, method, [left, right, up, down], (noise_q, color_variation), (blur, fill, strength))| {
            let outpaint = OutpaintParams {
                image: ImageIn::blob(image),
                left,
                right,
                up,
                down,
                method,
                mask_blur: Some(blur),
                inpainting_fill: fill,
                noise_q,
                color_variation,
                ..OutpaintParams::default()
            };
            let begun = as_img2img(&outpaint, &Txt2ImgParams::default());
            (begun, told_outpaint(&outpaint), strength)
        },
    )
}

/// What it says of a second pass, as it is once it is settled; of the request alone what no pass changes is left.
fn hires() -> impl Strategy<Value = Txt2ImgParams> {
    let size = prop_oneof![
        number(0.0..=64.0).prop_map(|scale| (scale, 0, 0)),
        (1..=16_384u32, 0..=16_384u32).prop_map(|(x, y)| (2.0, x, y)),
    ];
    let samplers: Vec<String> = Sampler::all().map(|sampler| sampler.name.to_owned()).collect();
    let schedules: Vec<String> = Schedule::ALL.iter().map(|(_, name)| (*name).to_owned()).collect();
    let names = (
        name(),
        proptest::option::of(select(samplers)),
        proptest::option::of(select(schedules)),
        proptest::option::of(name()),
    );
    let numbers = (number(0.0..=1.0), 0..=1000u32, proptest::option::of(number(0.0..=100.0)));
    (size, names, numbers, TEXT, TEXT).prop_map(
        |(
            (hr_scale, x, y),
            (upscaler, sampler, schedule, checkpoint),
            (strength, steps, hr_cfg),
            wanted,
            unwanted,
        )| {
            Txt2ImgParams {
                denoising_strength: Some(strength),
                enable_hr: true,
                hr_scale,
                hr_resize_x: x,
                hr_resize_y: y,
                hr_second_pass_steps: steps,
                hr_upscaler: upscaler,
                hr_prompt: wanted.into(),
                hr_negative_prompt: unwanted.into(),
                hr_sampler_name: sampler,
                hr_scheduler: schedule,
                hr_checkpoint_name: checkpoint,
                hr_cfg,
                ..Txt2ImgParams::default()
            }
        },
    )
}

/// How a picture began, with how it was continued, and how far from that it went.
type Beginning = (Box<Img2ImgParams>, Option<Box<OutpaintParams>>, f64);

/// What a picture began with, whatever that was. In boxes: by value it takes all of a thread's stack.
fn beginning() -> impl Strategy<Value = Option<Beginning>> {
    prop_oneof![
        Just(None),
        begun().prop_map(|(begun, strength)| Some((Box::new(begun), None, strength))).boxed(),
        continued()
            .prop_map(|(begun, outpaint, strength)| Some((
                Box::new(begun),
                Some(Box::new(outpaint)),
                strength
            )))
            .boxed(),
    ]
}

/// The request with that second pass.
fn with_hires(request: Txt2ImgParams, hires: Txt2ImgParams) -> Txt2ImgParams {
    Txt2ImgParams {
        denoising_strength: hires.denoising_strength,
        enable_hr: hires.enable_hr,
        hr_scale: hires.hr_scale,
        hr_resize_x: hires.hr_resize_x,
        hr_resize_y: hires.hr_resize_y,
        hr_second_pass_steps: hires.hr_second_pass_steps,
        hr_upscaler: hires.hr_upscaler,
        hr_prompt: hires.hr_prompt,
        hr_negative_prompt: hires.hr_negative_prompt,
        hr_sampler_name: hires.hr_sampler_name,
        hr_scheduler: hires.hr_scheduler,
        hr_checkpoint_name: hires.hr_checkpoint_name,
        hr_cfg: hires.hr_cfg,
        ..request
    }
}

fn told() -> impl Strategy<Value = Told> {
    let hypernetwork =
        proptest::option::of((name(), number(0.0..=1.0).prop_map(|strength| strength.to_string())));
    let hashes = || prop_oneof![Just(String::new()), "[a-z]{1,5}: [0-9a-f]{12}(, [a-z]{1,5}: [0-9a-f]{12})?"];
    // Boxed: together they are too large for a test's stack.
    let begun = (beginning().boxed(), proptest::option::of(hires().boxed()));
    let hashes = (hashes(), hashes());
    let engine = (name(), TEXT, name(), TEXT).prop_map(|(kind, name, plugin, version)| ToldEngine {
        kind,
        name,
        plugin,
        version,
    });
    let plugins = (plugins().boxed(), proptest::collection::vec(engine, 0..3).boxed());
    (request().boxed(), begun, named(), named(), hypernetwork, hashes, plugins).prop_map(
        |(
            mut request,
            (begun, hires),
            checkpoint,
            vae,
            hypernetwork,
            (lora_hashes, embedding_hashes),
            (plugins, engines),
        )| {
            let mut plugin_versions = BTreeMap::new();
            for (name, (params, version)) in plugins {
                plugin_versions.extend(version.map(|version| (name.clone(), version)));
                request.plugins.insert(name, params);
            }
            request.denoising_strength = begun.as_ref().map(|(_, _, strength)| *strength);
            if let Some(hires) = hires.filter(|_| begun.is_none()) {
                request = with_hires(request, hires);
            }
            let (begun, outpaint) = begun.map(|(begun, outpaint, _)| (begun, outpaint)).unzip();
            Told {
                begun,
                outpaint: outpaint.flatten(),
                checkpoint,
                vae,
                hypernetwork,
                lora_hashes,
                embedding_hashes,
                plugin_versions,
                engines,
                ..Told::of(request)
            }
        },
    )
}

/// White space around lines says nothing.
fn lines(prompt: &str) -> String {
    let lines: Vec<&str> = prompt.trim().lines().map(str::trim).collect();
    lines.join("\n")
}

/// Values as they are meant, or nearly, and others.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{1,20}",
        "-?[0-9]{1,4}\\.[0-9]{0,3}(e[0-9]{1,3})?",
        "[0-9]{1,5}x[0-9]{1,5}",
        "(inf|-inf|nan|NaN|True|False|true|None|CPU|TAESD|bf16)",
        select(vec![
            r#"[{"name": "x", "te": 1e4}]"#,
            r#"[{"name": ""}]"#,
            r#"[{"name": "x", "dyn": 0}]"#,
            r#"[{"name": "x"}]"#,
            r#"{"x": {"version": "1", "params": {"deep": [null, 1e4]}}}"#,
            r#"{"x": {"params": []}}"#,
            r#"{"x": {}, "x": {"version": 1}}"#,
        ])
        .prop_map(|text| serde_json::Value::from(text).to_string()),
        "\"[\\[{]{1,3}[a-z:0-9]{0,5}[\\]}]{1,3}\"",
        "\\PC{0,8}",
    ]
}

fn check(request: &RepeatRequest) {
    // As it is sent.
    let (schema, bytes) = match request {
        RepeatRequest::Txt2Img(params) => {
            (crate::schema::of::<Txt2ImgParams>(), rmp_serde::to_vec_named(params))
        }
        RepeatRequest::Outpaint(params) => {
            (crate::schema::of::<OutpaintParams>(), rmp_serde::to_vec_named(params))
        }
        RepeatRequest::Img2Img(params) => {
            (crate::schema::of::<Img2ImgParams>(), rmp_serde::to_vec_named(params))
        }
    };
    let value = rmpv::decode::read_value(&mut bytes.expect("encodes").as_slice()).expect("decodes");
    crate::schema::check(&schema, &value).unwrap_or_else(|error| panic!("{error}: {request:?}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_told_and_read_as_it_was(
        mut told in told(),
        format in select(vec![PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::WebP]),
    ) {
        let text = write(&told).to_string();
        let image = RgbImage { width: 2, height: 1, pixels: vec![0; 6] };
        let file = image.encode(format, &text).expect("encodes");
        prop_assert_eq!(read_infotext(&file).expect("a picture"), Some(text.clone()));
        let (mut found, others) = read(&text);
        prop_assert_eq!(others, vec![]);
        for prompt in [&mut told.request, &mut found.request] {
            prompt.prompt = lines(prompt.prompt.first()).into();
            prompt.negative_prompt = lines(prompt.negative_prompt.first()).into();
        }
        prop_assert_eq!(&found, &told, "{}", text);
        check(&found.into_request(|_| false, |_| false));
    }

    /// Whatever is said, what comes of it can be asked for.
    #[test]
    fn anything_gives_a_request(
        pairs in proptest::collection::vec((select(keys().collect::<Vec<_>>()), value()), 3..12),
        text in TEXT,
    ) {
        let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let (told, _) = read(&format!("{text}\n{}", pairs.join(", ")));
        check(&told.into_request(|_| true, |_| true));
        read(&text);
    }
}
