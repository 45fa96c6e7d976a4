//! What is told of a request is the request: a thousand of them, drawn by lot.

use latentd_client::protocol::{
    LoraParams, OnDisconnect, OutputParams, Precision, Rng, Txt2ImgParams, VaeDecodeMethod,
};
use latentd_models::image::{PictureFormat, RgbImage, read_infotext};
use latentd_models::sampling::{Sampler, Schedule};
use proptest::prelude::*;
use proptest::sample::select;

use super::rows::keys;
use super::{Named, Told, read, write};

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

/// Each field that a text can tell, as a request has it once it is settled.
fn request() -> impl Strategy<Value = Txt2ImgParams> {
    let samplers: Vec<String> = Sampler::all().map(|sampler| sampler.name.to_owned()).collect();
    let schedules: Vec<String> = Schedule::ALL.iter().map(|(_, name)| (*name).to_owned()).collect();
    let seeds = (0..=i64::MAX, -1..=i64::MAX, number(0.0..=1.0), from(), from());
    let texts = (TEXT, TEXT, select(samplers), select(schedules));
    let sizes = (side(), side(), 1..=1000u32, number(0.0..=100.0), 1..=12u32);
    let flags = any::<[bool; 6]>();
    let refiner = (proptest::option::of(name()), proptest::option::of(number(0.0..=1.0)));
    let rest = (
        select(vec![Precision::F32, Precision::Bf16, Precision::F16]),
        proptest::collection::vec(lora(), 0..3),
    );
    (seeds, texts, sizes, flags, refiner, rest).prop_map(
        |(
            (seed, subseed, subseed_strength, seed_resize_from_w, seed_resize_from_h),
            (prompt, negative_prompt, sampler_name, scheduler),
            (width, height, steps, cfg_scale, clip_skip),
            [cpu, pad_cond_uncond, taesd, tiling, tiling_x, tiling_y],
            (refiner_checkpoint, refiner_switch_at),
            (precision, loras),
        )| Txt2ImgParams {
            prompt,
            negative_prompt,
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
            sd_vae_decode_method: if taesd { VaeDecodeMethod::Taesd } else { VaeDecodeMethod::Full },
            tiling,
            tiling_x,
            tiling_y,
            refiner_checkpoint,
            refiner_switch_at,
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
        },
    )
}

fn told() -> impl Strategy<Value = Told> {
    let hypernetwork =
        proptest::option::of((name(), number(0.0..=1.0).prop_map(|strength| strength.to_string())));
    let hashes = || prop_oneof![Just(String::new()), "[a-z]{1,5}: [0-9a-f]{12}(, [a-z]{1,5}: [0-9a-f]{12})?"];
    (request(), named(), named(), hypernetwork, hashes(), hashes()).prop_map(
        |(request, checkpoint, vae, hypernetwork, lora_hashes, embedding_hashes)| Told {
            checkpoint,
            vae,
            hypernetwork,
            lora_hashes,
            embedding_hashes,
            ..Told::of(request)
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
        ])
        .prop_map(|text| serde_json::Value::from(text).to_string()),
        "\"[\\[{]{1,3}[a-z:0-9]{0,5}[\\]}]{1,3}\"",
        "\\PC{0,8}",
    ]
}

fn check(request: &Txt2ImgParams) {
    let schema = crate::schema::of::<Txt2ImgParams>();
    let value = toml::Value::try_from(request).expect("a value");
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
            prompt.prompt = lines(&prompt.prompt);
            prompt.negative_prompt = lines(&prompt.negative_prompt);
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
