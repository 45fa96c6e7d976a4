//! The same request gives the same bytes, whatever else happens.

use latentd_client::protocol::{
    EventKind, ImageOut, LibraryListParams, OutputFormat, OutputParams, Precision, PreviewKind,
    PreviewParams, Txt2ImgParams,
};

use latentd_models::image::Picture;

use crate::harness::{Daemon, Options, small, within};

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<ImageOut> {
    let client = daemon.client().await;
    within(client.txt2img(params)).await.expect("drawn").images
}

#[tokio::test]
async fn alone_in_a_batch_after_others_and_on_any_number_of_threads() {
    let daemon = Daemon::with_flags(&["--threads", "1"]);
    let mut reference = Vec::new();
    for seed in 100..104 {
        reference.extend(draw(&daemon, &small(seed)).await);
    }
    let same_pixels = |images: &[ImageOut]| {
        assert_eq!(images.len(), reference.len());
        for (image, alone) in images.iter().zip(&reference) {
            assert_eq!(image.seed, alone.seed);
            assert!(pixels(image) == pixels(alone), "seed {:?} differs", image.seed);
        }
    };
    same_pixels(&draw(&daemon, &Txt2ImgParams { batch_size: 4, ..small(100) }).await);
    same_pixels(&draw(&daemon, &Txt2ImgParams { batch_size: 2, n_iter: 2, ..small(100) }).await);
    let other = Txt2ImgParams { checkpoint: Some("tiny-sd1-ema".into()), width: Some(96), ..small(5) };
    draw(&daemon, &other).await;
    assert!(draw(&daemon, &small(100)).await == reference[..1], "after other jobs, the whole file");
    let two = Daemon::with_flags(&["--threads", "2"]);
    assert!(draw(&two, &small(100)).await == reference[..1], "with two threads, the whole file");
}

fn pixels(image: &ImageOut) -> Vec<u8> {
    let png = image.png.as_ref().expect("a PNG");
    latentd_models::image::Picture::decode(&png.0, 1 << 20).expect("decodes").pixels
}

#[tokio::test]
async fn forms_and_texts() {
    let daemon = Daemon::start();
    let image = draw(&daemon, &small(7)).await.remove(0);
    let infotext = image.infotext.clone().expect("an infotext");
    for part in [
        "a red circle",
        "Steps: 2",
        "Sampler: Euler a",
        "Seed: 7",
        "Size: 64x64",
        "Model: tiny-sd1",
        "Version: latentd v",
    ] {
        assert!(infotext.contains(part), "{infotext}");
    }
    let hash = daemon.client().await.library(&LibraryListParams::default()).await.expect("listed");
    let hash =
        hash.entries.iter().find(|entry| entry.name == "tiny-sd1").and_then(|entry| entry.hash.clone());
    assert!(infotext.contains(&format!("Model hash: {}", &hash.expect("known by now")[..10])), "{infotext}");
    let png = &image.png.as_ref().expect("a PNG").0;
    assert_eq!(latentd_models::image::read_infotext(png).expect("a picture"), Some(infotext));

    let with = |format| Txt2ImgParams { output: OutputParams { format, dir: None }, ..small(7) };
    let raw = draw(&daemon, &with(OutputFormat::Raw)).await.remove(0);
    assert_eq!((raw.channels, raw.raw.map(|raw| raw.0)), (Some(3), Some(pixels(&image))));
    let file = draw(&daemon, &with(OutputFormat::File)).await.remove(0);
    assert_eq!(&std::fs::read(file.path.expect("a path")).expect("there"), png);
    let own = tempfile::tempdir().expect("a folder");
    let mut params = with(OutputFormat::File);
    params.output.dir = Some(own.path().display().to_string());
    let file = draw(&daemon, &params).await.remove(0);
    assert!(file.path.expect("a path").starts_with(&own.path().display().to_string()));

    let drawn = draw(&daemon, &small(-1)).await.remove(0);
    let seed = drawn.seed.expect("reported");
    assert!(seed < 1 << 32);
    let again = draw(&daemon, &small(i64::try_from(seed).expect("small"))).await.remove(0);
    assert_eq!(again.png, drawn.png, "a drawn seed draws the same again");
}

#[tokio::test]
async fn texts_of_any_kind_are_drawn() {
    let daemon = Daemon::start();
    let long = "a cat, ".repeat(15_000);
    for prompt in ["", "(", "猫と🌊", "(a:1.3) BREAK [b]", &long] {
        let images = draw(&daemon, &Txt2ImgParams { prompt: prompt.into(), steps: 1, ..small(1) }).await;
        assert_eq!(images.len(), 1);
    }
}

#[tokio::test]
async fn precision_is_the_requests_else_the_configurations() {
    let options = Options { config: "precision = \"bf16\"".into(), ..Options::default() };
    let (bf16, auto) = (Daemon::with(options), Daemon::start());
    let drawn = async |daemon: &Daemon, precision| {
        let params = Txt2ImgParams { precision, ..small(3) };
        let result = within(daemon.client().await.txt2img(&params)).await.expect("drawn");
        (result.precision, pixels(&result.images[0]))
    };
    let in_bf16 = drawn(&bf16, Precision::Auto).await;
    let in_f32 = drawn(&bf16, Precision::F32).await;
    assert_eq!((in_bf16.0.as_str(), in_f32.0.as_str()), ("bf16", "f32"));
    assert!(in_bf16.1 != in_f32.1, "computed in something else");
    let resident = within(bf16.client().await.loaded_models()).await.expect("listed");
    let precisions: Vec<&str> = resident.iter().map(|model| model.precision.as_str()).collect();
    assert_eq!(precisions, ["bf16", "f32"], "both stay, the last used last");
    // What is loaded beforehand is what the configuration says, and that is what is told of.
    assert_eq!(within(bf16.client().await.load_model("tiny-sd1")).await.expect("loaded").precision, "bf16");
    assert!(drawn(&auto, Precision::Bf16).await == in_bf16 && drawn(&auto, Precision::F32).await == in_f32);
    let best = latentd_models::nn::Precision::best().name();
    assert_eq!(drawn(&auto, Precision::Auto).await.0, best, "what this machine is quickest in");
}

#[tokio::test]
async fn previews_by_the_vae_end_with_the_picture() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let preview = PreviewParams { every: 1, kind: PreviewKind::Full };
    let request =
        Txt2ImgParams { preview: Some(preview), sampler_name: "Euler".into(), tiling: true, ..small(3) };
    let mut events = within(client.subscribe_all()).await.expect("subscribed");
    let job = within(client.submit("txt2img", &request, None)).await.expect("submitted");
    let (mut last, mut count) = (None, 0);
    loop {
        match within(events.next()).await.expect("an event").kind {
            EventKind::Preview { image, .. } => {
                count += 1;
                last = Some(image);
            }
            EventKind::Finished => break,
            _ => (),
        }
    }
    let drawn = within(client.wait(&job)).await.expect("drawn");
    assert!(drawn.notices.is_empty() && count > 0, "{:?}", drawn.notices);
    let pixels = |image: &ImageOut| {
        Picture::decode(&image.png.as_ref().expect("a PNG").0, 1 << 24).expect("decodes").into_rgb()
    };
    assert!(pixels(&last.expect("a preview")) == pixels(&drawn.images[0]), "the last is the picture");
}
