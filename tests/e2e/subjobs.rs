//! Jobs that plugins draw within a job, through the socket: the same bytes as the explicit calls give.

use std::fs;
use std::path::Path;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, Img2ImgParams, OutputFormat, OutputParams, PluginParams,
    Precision, RepeatRequest, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;
use rmpv::Value;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, Raw, fixtures, map, program, refused, small, within};
use crate::plugin_library::{build, build_crate, install};
use crate::vae::{read, write};

const ONE: &str = "tiny-sd1";
const OTHER: &str = "tiny-sd1-ema";
/// What is drawn anew: left, top, right and bottom.
const PLACE: [usize; 4] = [12, 20, 40, 52];
/// Bytes for one of both checkpoints and what it computes for a small picture.
const TIGHT: &str = "16500000";

/// With two checkpoints, a LoRA, and the plugin.
struct Shop {
    daemon: Daemon,
    _models: tempfile::TempDir,
}

impl Shop {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(flags: &[&str]) -> Self {
        Self::configured(flags, "")
    }

    fn configured(flags: &[&str], config: &str) -> Self {
        let models = tempfile::tempdir().expect("a folder");
        let put = |from: &Path, to: &str| {
            let to = models.path().join(to);
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            fs::copy(from, to).expect("copied");
        };
        for name in [ONE, OTHER] {
            let name = format!("Stable-diffusion/{name}.safetensors");
            put(&fixtures().join(&name), &name);
        }
        let broken = models.path().join("Stable-diffusion/nan.safetensors");
        write_broken(&fixtures().join("Stable-diffusion/tiny-sd1.safetensors"), &broken);
        let adapters = fixtures().join("../adapters");
        put(&adapters.join("lycoris-locon.safetensors"), "Lora/style.safetensors");
        put(&adapters.join("emb-style.pt"), "embeddings/emb-style.pt");
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let daemon = Daemon::with(Options {
            models: Some(models.path().to_owned()),
            flags,
            config: config.into(),
            ..Options::default()
        });
        install(&daemon, "librust_subjobs.so", &build_crate("tests/fixtures/plugins/rust_subjobs"));
        Self { daemon, _models: models }
    }

    async fn txt2img(&self, params: &Txt2ImgParams) -> Result<Txt2ImgResult, latentd_client::Error> {
        within(self.daemon.client().await.txt2img(params)).await
    }

    async fn drawn(&self, params: &Txt2ImgParams) -> Txt2ImgResult {
        self.txt2img(params).await.expect("drawn")
    }

    async fn img2img(&self, params: &Img2ImgParams) -> Txt2ImgResult {
        within(self.daemon.client().await.img2img(params)).await.expect("drawn")
    }

    async fn pixels(&self, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
        self.drawn(params).await.images.iter().map(pixels).collect()
    }

    /// How often a checkpoint's UNet was read.
    fn loads(&self, name: &str) -> usize {
        self.daemon.log().matches(&format!(" loaded name=\"{name}\" kind=UNet")).count()
    }
}

/// A checkpoint whose UNet gives nothing that is a number.
fn write_broken(of: &Path, to: &Path) {
    let mut tensors = read(of);
    for (name, _, _, bytes) in &mut tensors {
        if name == "model.diffusion_model.out.2.bias" {
            bytes.as_chunks_mut().0.fill(0x7e00_u16.to_le_bytes());
        }
    }
    write(to, &tensors);
}

fn pixels(image: &ImageOut) -> Vec<u8> {
    image.raw.clone().expect("pixels").0
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams {
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        steps: 4,
        ..small(7)
    }
}

fn asking(params: &Json, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("a map").clone());
    Txt2ImgParams { plugins: [("subjobs".to_owned(), params)].into(), ..request }
}

/// What a mask of so many pixels says.
fn mask((width, height): (usize, usize), [left, top, right, bottom]: [usize; 4]) -> ImageIn {
    let is_in = |at: usize| (left..right).contains(&(at % width)) && (top..bottom).contains(&(at / width));
    let values = (0..width * height).map(|at| if is_in(at) { 255 } else { 0 }).collect();
    ImageIn::raw(values, width as u32, height as u32, 1)
}

fn image(image: &ImageOut) -> ImageIn {
    ImageIn::raw(pixels(image), image.width, image.height, 3)
}

/// What plans a sub-job that draws a place of each picture anew, and what is said of it.
fn face(patch: &Json) -> Json {
    let mut whole = json!({
        "denoising_strength": 0.6, "inpainting_fill": 1, "inpaint_full_res": true,
        "inpaint_full_res_padding": 8, "mask_blur": 2, "enable_hr": false, "n_iter": 1, "batch_size": 1,
    });
    let more = patch.as_object().expect("a map").clone();
    whole.as_object_mut().expect("a map").extend(more);
    json!({
        "plans": [{"key": 5, "method": "img2img", "patch": whole, "expected": 1, "most": 4, "batch": 4}],
        "runs": [{"key": 5, "mask": PLACE, "more": 3}],
        "tells": true,
    })
}

/// The call that does the same to a picture.
fn explicit(picture: &ImageOut, seed: u64, drawing: Txt2ImgParams) -> Img2ImgParams {
    Img2ImgParams {
        init_images: vec![image(picture)],
        mask: Some(mask((picture.width as usize, picture.height as usize), PLACE).into()),
        inpainting_fill: 1,
        inpaint_full_res: true,
        inpaint_full_res_padding: 8,
        mask_blur: Some(2.0),
        drawing: Txt2ImgParams {
            seed: seed as i64 + 3,
            denoising_strength: Some(0.6),
            batch_size: 1,
            n_iter: 1,
            enable_hr: false,
            ..drawing
        },
        ..Img2ImgParams::default()
    }
}

/// What the plugin told of what its sub-jobs' files would tell, in order.
fn told(result: &Txt2ImgResult) -> Vec<String> {
    let told = result.notices.iter().filter_map(|notice| notice.strip_prefix("plugin 'subjobs': "));
    told.filter_map(|notice| Some(notice.split_once(": ")?.1.to_owned())).collect()
}

type Change = fn(Txt2ImgParams) -> Txt2ImgParams;

#[tokio::test]
async fn what_is_drawn_within_a_job_is_what_the_calls_draw() {
    let shop = Shop::start();
    let hires = Txt2ImgParams {
        enable_hr: true,
        hr_upscaler: "Latent".into(),
        hr_scale: 1.5,
        denoising_strength: Some(0.7),
        ..plain()
    };
    let sampler = |request: Txt2ImgParams| Txt2ImgParams {
        sampler_name: "DPM++ 2M".into(),
        scheduler: "Karras".into(),
        steps: 6,
        cfg_scale: 4.0,
        ..request
    };
    let other = |request| Txt2ImgParams { checkpoint: Some(OTHER.into()), ..request };
    let prompted = |request| Txt2ImgParams {
        prompt: "a face <lora:style:0.8>".into(),
        negative_prompt: "blue".into(),
        ..request
    };
    let rows: [(&str, Txt2ImgParams, Json, Change); 8] = [
        ("plain", plain(), json!({}), |request| request),
        (
            "sampler",
            plain(),
            json!({"sampler_name": "DPM++ 2M", "scheduler": "Karras", "steps": 6, "cfg_scale": 4}),
            sampler,
        ),
        ("checkpoint", plain(), json!({"checkpoint": OTHER}), other),
        ("lora", plain(), json!({"prompt": "a face <lora:style:0.8>", "negative_prompt": "blue"}), prompted),
        (
            "the job's own lora",
            Txt2ImgParams { prompt: "a circle<lora:style:1>".into(), ..plain() },
            json!({}),
            |request| request,
        ),
        ("hires", hires, json!({}), |request| Txt2ImgParams { denoising_strength: None, ..request }),
        ("batch", Txt2ImgParams { batch_size: 2, n_iter: 2, ..plain() }, json!({}), |request| request),
        (
            "variation",
            Txt2ImgParams { subseed: 5, subseed_strength: 0.4, ..plain() },
            json!({"subseed_strength": 0}),
            |request| Txt2ImgParams { subseed: -1, subseed_strength: 0.0, ..request },
        ),
    ];
    for (name, request, patch, change) in rows {
        let before = shop.drawn(&request).await;
        let within = shop.drawn(&asking(&face(&patch), request.clone())).await;
        assert_eq!(within.images.len(), before.images.len());
        let (mut texts, mut same) = (vec![], 0);
        for (new, old) in within.images.iter().zip(&before.images) {
            let call = explicit(old, old.seed.expect("a seed"), change(request.clone()));
            let expected = shop.img2img(&call).await;
            assert!(pixels(new) == pixels(&expected.images[0]), "{name}");
            assert_ne!(pixels(new), pixels(old), "{name}");
            texts.push(expected.images[0].infotext.clone().expect("a text").replace('\n', " "));
            same += 1;
        }
        assert_eq!(told(&within), texts, "{name}");
        assert!(same > 0);
    }
}

#[tokio::test]
async fn of_pictures_as_well_and_from_noise_alone() {
    let shop = Shop::start();
    let first = shop.drawn(&plain()).await.images.remove(0);
    let of_pictures = |drawing: Txt2ImgParams| Img2ImgParams {
        init_images: vec![image(&first)],
        initial_noise_multiplier: Some(0.9),
        drawing: Txt2ImgParams { denoising_strength: Some(0.5), ..drawing },
        ..Img2ImgParams::default()
    };
    let before = shop.img2img(&of_pictures(plain())).await.images.remove(0);
    let found = shop.img2img(&of_pictures(asking(&face(&json!({})), plain()))).await;
    // What the job says of pictures holds within it, too, where nothing else is said.
    let call = Img2ImgParams {
        initial_noise_multiplier: Some(0.9),
        ..explicit(&before, before.seed.expect("a seed"), plain())
    };
    assert!(pixels(&found.images[0]) == pixels(&shop.img2img(&call).await.images[0]));
    // Of what lies over what it was drawn from, too.
    let part = Img2ImgParams {
        mask: Some(mask((64, 64), [0, 0, 30, 64]).into()),
        inpaint_full_res: true,
        ..of_pictures(plain())
    };
    let before = shop.img2img(&part).await.images.remove(0);
    let mut params = face(&json!({}));
    params["stage"] = json!("batch.post");
    let found = Img2ImgParams { drawing: asking(&params, part.drawing.clone()), ..part };
    let found = shop.img2img(&found).await;
    let call = Img2ImgParams {
        initial_noise_multiplier: Some(0.9),
        ..explicit(&before, before.seed.expect("a seed"), plain())
    };
    assert!(pixels(&found.images[0]) == pixels(&shop.img2img(&call).await.images[0]));
    let params = json!({
        "plans": [{"key": 1, "method": "txt2img", "patch": {"prompt": "a cat", "steps": 3}, "expected": 1}],
        "runs": [{"key": 1, "images": [{"seed": 99, "init": "nothing"}]}],
        "tells": true,
    });
    let found = shop.drawn(&asking(&params, plain())).await;
    let cat = Txt2ImgParams { prompt: "a cat".into(), steps: 3, seed: 99, ..plain() };
    let cat = shop.drawn(&cat).await;
    assert!(pixels(&found.images[0]) == pixels(&cat.images[0]));
    assert_eq!(told(&found), [cat.images[0].infotext.clone().expect("a text").replace('\n', " ")]);
    // What is not planned is resolved as it is run.
    let params = json!({"runs": [{
        "key": 0, "method": "txt2img", "patch": {"prompt": "a cat", "steps": 3},
        "images": [{"seed": 99, "init": "nothing"}],
    }]});
    let found = shop.drawn(&asking(&params, plain())).await;
    assert!(pixels(&found.images[0]) == pixels(&cat.images[0]));
    // The picture tells of the plugin, and what it tells draws it again.
    let infotext = found.images[0].infotext.clone().expect("a text");
    let png = Txt2ImgParams { output: OutputParams::default(), ..asking(&params, plain()) };
    let png = shop.drawn(&png).await.images.remove(0).png.expect("a PNG").0;
    let read = within(shop.daemon.client().await.image_info(ImageIn::png(png))).await.expect("read");
    let Some(RepeatRequest::Txt2Img(mut again)) = read.request else { panic!("{infotext}") };
    again.output = OutputParams { format: OutputFormat::Raw, dir: None };
    assert!(again.plugins.contains_key("subjobs"), "{infotext}");
    assert!(pixels(&shop.drawn(&again).await.images[0]) == pixels(&found.images[0]));
}

#[tokio::test]
async fn several_pictures_in_one_run_each_with_its_own() {
    let shop = Shop::start();
    let two = Txt2ImgParams {
        batch_size: 2,
        prompt: vec!["a dog".to_owned(), "a <lora:style:1> cat".to_owned()].into(),
        ..plain()
    };
    let before = shop.drawn(&two).await;
    let plan = json!({
        "key": 2, "method": "img2img", "expected": 1, "batch": 2,
        "patch": {"denoising_strength": 0.9, "steps": 6, "prompt": ["one", "two"]},
    });
    let run = json!({
        "key": 2, "patch": {"denoising_strength": 0.5, "steps": 4, "mask_blur": 1},
        "images": [
            {"seed": 100, "mask": PLACE, "image": 0, "prompt": "a face (emb-style:1.2)"},
            {"seed": 3, "mask": [0, 0, 32, 32], "image": 1},
        ],
    });
    let found = shop.drawn(&asking(&json!({"plans": [plan], "runs": [run]}), two)).await;
    for (place, (seed, prompt, at)) in
        [(100, "a face (emb-style:1.2)", PLACE), (3, "two", [0, 0, 32, 32])].into_iter().enumerate()
    {
        let call = Img2ImgParams {
            init_images: vec![image(&before.images[place])],
            mask: Some(mask((64, 64), at).into()),
            mask_blur: Some(1.0),
            drawing: Txt2ImgParams { seed, denoising_strength: Some(0.5), prompt: prompt.into(), ..plain() },
            ..Img2ImgParams::default()
        };
        assert!(pixels(&found.images[place]) == pixels(&shop.img2img(&call).await.images[0]), "{place}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_plan_refuses_the_request() {
    let shop = Shop::start();
    let refuse = async |plan: Json, name: ErrorName| {
        let params = json!({"plans": [plan]});
        refused(shop.txt2img(&asking(&params, plain())).await, name)
    };
    for (patch, name, words) in [
        (json!({"checkpoint": "nothing"}), ErrorName::NotFound, "checkpoint 'nothing' is not in the library"),
        (json!({"vae": "nothing"}), ErrorName::NotFound, "'nothing'"),
        (json!({"sampler_name": "Oiler"}), ErrorName::InvalidParams, "Oiler"),
        (json!({"width": 60}), ErrorName::InvalidParams, "width"),
        (json!({"steps": 0}), ErrorName::InvalidParams, "steps"),
        (json!({"mask_blurr": 1}), ErrorName::InvalidParams, "mask_blur"),
        (json!({"mask": 1}), ErrorName::InvalidParams, "mask: pictures are given with each run"),
        (json!({"/loopback/loops": 3}), ErrorName::InvalidParams, "is not for a job within a job"),
        (json!({"/regions/0/prompt": "x"}), ErrorName::InvalidParams, "leads nowhere in the request"),
        (json!({"plugins": {"none": {}}}), ErrorName::NotFound, "no plugin is called 'none'"),
        (json!({"prompt": "<lora:gone:1>", "strict": true}), ErrorName::NotFound, "gone"),
    ] {
        let text = refuse(json!({"key": 5, "method": "img2img", "patch": patch}), name).await;
        assert!(text.starts_with("plugin 'subjobs', sub-job 5 (img2img): "), "{text}");
        assert!(text.contains(words), "{text}");
    }
    for (plan, words) in [
        (json!({"key": 1, "method": "outpaint"}), "no method 'outpaint' is drawn within a job"),
        (json!({"key": 1, "method": "txt2img", "expected": 3, "most": 2}), "is run 3 times, 2 at most"),
        (json!({"key": 1, "method": "txt2img", "batch": 1_000}), "batch_size"),
        (
            json!({"key": 1, "method": "txt2img", "batch": 4_294_967_295_u32}),
            "4294967295 pictures of one run; 1024 are possible",
        ),
    ] {
        let text = refuse(plan, ErrorName::InvalidParams).await;
        assert!(text.contains("plugin 'subjobs'") && text.contains(words), "{text}");
    }
    let text = refuse(json!({"key": 0, "method": "txt2img"}), ErrorName::Plugin).await;
    assert!(text.contains("a sub-job's key is 0"), "{text}");
    // One that plans what it is itself, deeper and deeper.
    let recursion = json!({
        "recurses": true,
        "plans": [{"key": 9, "method": "txt2img", "expected": 1, "patch": {"plugins": {"subjobs": {}}}}],
    });
    let text = refused(shop.txt2img(&asking(&recursion, plain())).await, ErrorName::Unsupported);
    assert!(text.contains("jobs lie 3 deep within one another at most"), "{text}");
    assert_eq!(text.matches("sub-job 9").count(), 4, "{text}");
    // What could never fit.
    let small = Shop::with(&["--memory-bytes", "40000000"]);
    let expected = small.pixels(&plain()).await;
    let large = json!({"plans": [{
        "key": 5, "method": "txt2img", "patch": {"width": 1024, "height": 1024}, "expected": 1,
    }]});
    let text = refused(small.txt2img(&asking(&large, plain())).await, ErrorName::Memory);
    assert!(text.starts_with("plugin 'subjobs', sub-job 5 (txt2img): needs about"), "{text}");
    assert!(small.pixels(&plain()).await == expected);
}

#[tokio::test]
async fn what_is_not_as_planned_is_refused_as_it_is_run() {
    let shop = Shop::start();
    let expected = shop.pixels(&plain()).await;
    let plan = json!({
        "key": 5, "method": "img2img", "patch": {"steps": 4}, "expected": 1, "most": 2, "batch": 1,
    });
    let one = json!({"seed": 1});
    let two = json!([{"seed": 1}, {"seed": 2}]);
    for (run, words) in [
        (json!({"key": 6}), "sub-job 6 was not planned: 5"),
        (json!({"key": 5, "images": two}), "2 images; sub-job 5 was planned for 1 at a time"),
        (json!({"key": 5, "images": []}), "a sub-job without images"),
        (json!({"key": 5, "images": [{"init": "nothing"}]}), "images[0].init: img2img begins with an image"),
        (
            json!({"key": 5, "images": [one], "patch": {"checkpoint": OTHER}}),
            "checkpoint: was settled with the plan",
        ),
        (json!({"key": 5, "images": [one], "patch": {"width": 64}}), "width: was settled with the plan"),
        (
            json!({"key": 5, "images": [one], "patch": {"/plugins/x": 1}}),
            "/plugins/x: was settled with the plan",
        ),
        (json!({"key": 5, "images": [one], "patch": {"steps": 5}}), "steps: 5 are more than the 4"),
        (json!({"key": 5, "images": [one], "patch": {"steps": null}}), "steps: nil; give a value"),
        (
            json!({"key": 5, "images": [{"prompt": "<lora:style:1>"}]}),
            "images[0].prompt: '<lora:style:1>' was not planned",
        ),
        (json!({"key": 5, "times": 1000}), "sub-job 5 was run 2 times, which is the most"),
        (json!({"key": 0, "method": "upscale"}), "no method 'upscale'"),
        (
            json!({"key": 0, "method": "txt2img", "images": [{"init": "nothing"}], "times": 1000, "patch": {"steps": 1}}),
            "256 sub-jobs",
        ),
    ] {
        let params = json!({"plans": [plan], "runs": [run]});
        let text = refused(shop.txt2img(&asking(&params, plain())).await, ErrorName::InvalidParams);
        assert!(text.starts_with("plugin 'subjobs', image.post/draft-1: ") && text.contains(words), "{text}");
    }
    for stage in ["noise.init", "unet.block"] {
        let params = json!({"plans": [plan], "runs": [{"key": 5}], "stage": stage});
        let text = refused(shop.txt2img(&asking(&params, plain())).await, ErrorName::Unsupported);
        assert!(
            text.contains(&format!(
                "plugin 'subjobs', {stage}/draft-1: no job is drawn within this function"
            )),
            "{text}"
        );
    }
    assert!(shop.pixels(&plain()).await == expected, "and the daemon goes on");
}

#[tokio::test]
async fn a_failure_is_told_and_the_job_goes_on() {
    let shop = Shop::with(&["--memory-bytes", "40000000"]);
    let expected = shop.pixels(&plain()).await;
    let fails = |skips: bool| {
        json!({"runs": [{
            "key": 0, "method": "txt2img", "patch": {"width": 1024, "height": 1024}, "images": [{"init": "nothing"}],
            "skips": skips,
        }]})
    };
    let drawn = shop.drawn(&asking(&fails(true), plain())).await;
    assert!(pixels(&drawn.images[0]) == expected[0]);
    assert!(drawn.notices[0].contains("plugin 'subjobs': failed with 5: needs about"), "{:?}", drawn.notices);
    let text = refused(shop.txt2img(&asking(&fails(false), plain())).await, ErrorName::Memory);
    assert!(text.starts_with("plugin 'subjobs', image.post/draft-1: needs about"), "{text}");
    assert!(shop.pixels(&plain()).await == expected);
}

#[tokio::test]
async fn a_checkpoint_that_overflows_within_a_job_is_told_and_the_job_goes_on() {
    let shop = Shop::start();
    let expected = shop.pixels(&plain()).await;
    let fails = |skips: bool| {
        json!({"runs": [{
            "key": 0, "method": "txt2img", "patch": {"checkpoint": "nan"}, "images": [{"init": "nothing"}],
            "skips": skips,
        }]})
    };
    let drawn = shop.drawn(&asking(&fails(true), plain())).await;
    assert!(pixels(&drawn.images[0]) == expected[0]);
    let told = &drawn.notices[0];
    assert!(told.starts_with("plugin 'subjobs': failed with 8: ") && told.contains("NaN"), "{told}");
    let text = refused(shop.txt2img(&asking(&fails(false), plain())).await, ErrorName::Model);
    assert!(text.starts_with("plugin 'subjobs', image.post/draft-1: ") && text.contains("NaN"), "{text}");
    assert!(shop.pixels(&plain()).await == expected);
}

#[tokio::test]
async fn what_clients_left_stays_whatever_is_drawn_within_jobs() {
    let shop = Shop::configured(&[], "blobs_bytes = 30_000");
    let client = shop.daemon.client().await;
    let four = Txt2ImgParams { batch_size: 4, ..plain() };
    let first = shop.drawn(&plain()).await.images.remove(0);
    let png = Picture::from_raw(pixels(&first), 64, 64, 3).and_then(|picture| picture.to_png());
    let png = png.expect("a PNG");
    // With those of four pictures more than are kept.
    assert!((6_000..30_000).contains(&png.len()), "{}", png.len());
    let blob = within(client.put_blob(png)).await.expect("kept");
    let found = shop.pixels(&asking(&face(&json!({})), four.clone())).await;
    assert_ne!(found, shop.pixels(&four).await);
    let from = |init: ImageIn| Img2ImgParams {
        init_images: vec![init],
        drawing: Txt2ImgParams { denoising_strength: Some(0.5), ..plain() },
        ..Img2ImgParams::default()
    };
    let again = shop.img2img(&from(ImageIn::blob(blob.blob))).await;
    assert_eq!(pixels(&again.images[0]), pixels(&shop.img2img(&from(image(&first))).await.images[0]));
}

#[tokio::test]
async fn the_jobs_networks_go_for_the_time_where_there_is_no_room_for_both() {
    let free = Shop::start();
    let params = |checkpoint: &str| {
        let mut params = face(&json!({"checkpoint": checkpoint}));
        params["runs"] = json!([{"key": 5, "mask": PLACE, "times": 3}]);
        asking(&params, Txt2ImgParams { keep_alive: Some(0.0), ..plain() })
    };
    let (same, other) = (free.pixels(&params(ONE)).await, free.pixels(&params(OTHER)).await);
    assert_ne!(same, other);
    drop(free);
    // The networks of one checkpoint and what they compute, not those of both.
    let tight = Shop::with(&["--memory-bytes", TIGHT]);
    assert!(tight.pixels(&params(ONE)).await == same);
    assert_eq!(tight.loads(ONE), 1, "{}", tight.daemon.log());
    assert!(!tight.daemon.log().contains("unloaded to make room"), "{}", tight.daemon.log());
    for jobs in [1, 2] {
        assert!(tight.pixels(&params(OTHER)).await == other);
        assert!(tight.daemon.log().contains("unloaded to make room"), "{}", tight.daemon.log());
        // Once for three, though nothing is kept beyond its job.
        assert_eq!(tight.loads(OTHER), jobs, "{}", tight.daemon.log());
    }
}

#[tokio::test]
async fn steps_within_count_and_end_with_the_job() {
    let shop = Shop::start();
    let expected = shop.pixels(&plain()).await;
    let client = shop.daemon.client().await;
    let params = |steps: u32| {
        let plan = json!({
            "key": 5, "method": "txt2img", "patch": {"steps": steps}, "expected": 2,
        });
        let image = json!({"seed": 1, "init": "nothing"});
        asking(
            &json!({"plans": [plan], "runs": [{"key": 5, "images": [image], "times": 2, "share": 0.5}]}),
            plain(),
        )
    };
    let job = within(client.submit("txt2img", &params(8), None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    let (mut steps, mut shares) = (vec![], vec![]);
    while let Some(event) = within(events.next()).await {
        match event.kind {
            EventKind::Progress { step, steps: all, plugin, .. } => {
                assert_eq!(all, 20);
                steps.push(step);
                shares.extend(plugin.map(|plugin| plugin.share));
            }
            EventKind::Finished => break,
            EventKind::Failed { error } => panic!("{error}"),
            _ => (),
        }
    }
    assert!(steps.is_sorted() && steps.last() == Some(&20), "{steps:?}");
    assert!(shares.is_sorted() && shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
    let drawn: Txt2ImgResult = within(client.wait(&job)).await.expect("drawn");
    // What was drawn within the job is not the plugin's own time.
    let own = drawn.plugin_timings["subjobs"];
    assert!(own < drawn.timings.total_s / 2.0, "{own} of {}", drawn.timings.total_s);
    // Cancelled within a step of the sub-job.
    let job = within(client.submit("txt2img", &params(1000), None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    while let Some(event) = within(events.next()).await {
        match event.kind {
            EventKind::Progress { step: 6.., .. } => {
                within(client.cancel(&job)).await.expect("cancelled");
            }
            EventKind::Cancelled => break,
            EventKind::Finished | EventKind::Failed { .. } => panic!("{:?}", event.kind),
            _ => (),
        }
    }
    assert!(shop.pixels(&plain()).await == expected);
}

#[tokio::test]
async fn methods_draw_too_and_passes_that_begin() {
    let shop = Shop::start();
    let plain_pixels = shop.pixels(&plain()).await;
    let first = shop.drawn(&plain()).await.images.remove(0);
    let patch = json!({
        "checkpoint": ONE, "prompt": "a face", "steps": 4, "width": 64, "height": 64, "precision": "f32",
        "denoising_strength": 0.6,
    });
    let plans = json!([{"key": 5, "method": "img2img", "patch": patch, "expected": 2}]);
    let runs = json!([{"key": 5, "more": 3}, {"key": 5, "more": 4}]);
    let value = |json: &Json| -> Value { rmpv::ext::to_value(json).expect("MessagePack") };
    let given = map(&[
        ("raw", Value::Binary(pixels(&first))),
        ("width", 64.into()),
        ("height", 64.into()),
        ("channels", 3.into()),
    ]);
    let mut raw = Raw::connect(&shop.daemon);
    let asked = map(&[("image", given.clone()), ("plans", value(&plans)), ("runs", value(&runs))]);
    let result = raw.call("subjobs.fix", &asked).expect("fixed");
    let png = result["image"]["png"].as_slice().expect("a PNG");
    let found = Picture::decode(png, 1 << 24).expect("decodes").pixels;
    let mut expected = first;
    for seed in [3, 4] {
        let call = Img2ImgParams {
            init_images: vec![image(&expected)],
            drawing: Txt2ImgParams {
                prompt: "a face".into(),
                seed,
                denoising_strength: Some(0.6),
                ..plain()
            },
            ..Img2ImgParams::default()
        };
        expected = shop.img2img(&call).await.images.remove(0);
    }
    assert!(found == pixels(&expected));
    // What is wrong in it is told as the method is called.
    let plans = json!([{"key": 5, "method": "img2img", "patch": {"checkpoint": "nothing"}, "expected": 2}]);
    let asked = map(&[("image", given), ("plans", value(&plans)), ("runs", value(&runs))]);
    let error = raw.call("subjobs.fix", &asked).expect_err("refused");
    assert!(error.text.starts_with("plugin 'subjobs', sub-job 5 (img2img): checkpoint 'nothing'"), "{error}");
    let params = json!({
        "plans": [{"key": 1, "method": "txt2img", "patch": {"steps": 1}, "expected": 1}],
        "runs": [{"key": 1}], "stage": "pass.begin",
    });
    assert!(shop.pixels(&asking(&params, plain())).await == plain_pixels);
}

#[tokio::test]
async fn other_plugins_take_part_unless_they_are_left_out() {
    let shop = Shop::start();
    let vignette = build("plugin-api/examples/vignette/vignette.c", &["-std=gnu99"]);
    install(&shop.daemon, "vignette.so", &vignette);
    let both = |params: &Json| {
        let mut request = asking(params, plain());
        request.plugins.insert("vignette".to_owned(), PluginParams::default());
        request
    };
    let dark = |request: Txt2ImgParams| Txt2ImgParams {
        plugins: [("vignette".to_owned(), PluginParams::default())].into(),
        ..request
    };
    let cat = Txt2ImgParams { seed: 99, ..plain() };
    let (light, dark) = (shop.pixels(&cat).await, shop.pixels(&dark(cat)).await);
    assert_ne!(light, dark);
    for (without, expected) in [(json!([]), dark), (json!(["vignette"]), light)] {
        let params = json!({
            "plans": [{"key": 1, "method": "txt2img", "expected": 1, "without": without}],
            "runs": [{"key": 1, "images": [{"seed": 99, "init": "nothing"}]}],
            "stage": "batch.post",
        });
        let found = shop.pixels(&both(&params)).await;
        assert!(found == expected, "{without}");
    }
}

#[tokio::test]
async fn whatever_a_plugin_hands_over_is_answered() {
    let shop = Shop::start();
    install(&shop.daemon, "nested.so", &build("tests/fixtures/plugins/nested.c", &["-std=gnu99"]));
    let before = shop.drawn(&plain()).await.images.remove(0);
    let nested = [("nested".to_owned(), PluginParams::default())].into();
    let found = shop.pixels(&Txt2ImgParams { plugins: nested, ..plain() }).await;
    let call = Img2ImgParams {
        init_images: vec![image(&before)],
        drawing: Txt2ImgParams { seed: 5, ..plain() },
        ..Img2ImgParams::default()
    };
    assert!(found[0] == pixels(&shop.img2img(&call).await.images[0]));
    assert!(shop.pixels(&plain()).await[0] == pixels(&before));
}

#[test]
fn a_plugin_that_draws_is_validated_without_a_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("plugin.so");
    fs::write(&library, build_crate("tests/fixtures/plugins/rust_subjobs")).expect("written");
    let validate = |batch: u32| {
        let params = json!({
            "plans": [{"key": 5, "method": "img2img", "patch": {"steps": 3}, "expected": 1, "most": 1000, "batch": batch}],
            "runs": [{"key": 5, "share": 0.5}],
        });
        let mut command = program(folder.path());
        command.args(["plugins", "validate"]).arg(&library);
        command.args(["--seed", "1", "--limit", "60", "--params", &params.to_string()]);
        String::from_utf8(command.output().expect("ran").stdout).expect("text")
    };
    let text = validate(64);
    for check in ["usual", "sizes", "repeat", "cancelled", "no-memory", "larger-structs", "strides"] {
        assert!(text.contains(&format!("ok       image.post/{check}\n")), "{check}\n{text}");
    }
    assert!(text.contains(" 0 failed"), "{text}");
    // Four pictures are more than it planned for.
    let text = validate(1);
    assert!(text.contains("sub-job 5 was planned for 1 at a time"), "{text}");
}
