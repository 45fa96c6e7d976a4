//! The upscaler plugin as the step after a drawing: what is drawn, made larger as `image.upscale` makes it.

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, Img2ImgParams, OutputFormat, OutputParams, PluginParams,
    Precision, SdUpscaleParams, Txt2ImgParams, Txt2ImgResult, UpscaleParams,
};
use latentd_models::image::Picture;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, refused, small, within};
use crate::upscaler::{everywhere, library_of_models, start};

fn with(request: Txt2ImgParams, params: &Json) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("a map").clone());
    Txt2ImgParams { plugins: [("upscaler".to_owned(), params)].into(), ..request }
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams { precision: Precision::F32, batch_size: 2, ..small(5) }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

fn file(image: &ImageOut) -> Vec<u8> {
    image.png.as_ref().expect("a PNG").0.clone()
}

fn decoded(image: &ImageOut) -> Picture {
    Picture::decode(&file(image), 1 << 26).expect("decodes")
}

#[tokio::test]
async fn what_is_drawn_is_made_larger_as_image_upscale_does_it() {
    let models = library_of_models();
    let daemon = start(models.path(), &[]);
    let drawn = draw(&daemon, &plain()).await;
    for params in [
        json!({"upscaler_1": "4x_Small", "scale": 4}),
        // Twice over, and down to whole eighths.
        json!({"upscaler_1": "R-ESRGAN 2x+", "scale": 3.3, "tile": 32, "overlap": 4}),
        json!({"upscaler_1": "4x_Small", "width": 200, "height": 96}),
        json!({"upscaler_1": "4x_Small", "width": 200, "height": 96, "crop": false}),
        json!({"upscaler_1": "R-ESRGAN 2x+", "upscaler_2": "4x_Small", "extras_upscaler_2_visibility": 0.3}),
    ] {
        let larger = draw(&daemon, &with(plain(), &params)).await;
        assert_eq!(larger.notices, Vec::<String>::new(), "{params}");
        for (image, before) in larger.images.iter().zip(&drawn.images) {
            let mut wanted: UpscaleParams = serde_json::from_value(params.clone()).expect("its fields");
            wanted.image = Some(ImageIn::png(file(before)));
            let wanted = within(daemon.client().await.upscale(&wanted)).await.expect("made");
            assert!(decoded(image) == decoded(&wanted.images[0]), "{params}");
            assert_eq!((image.width, image.height), (wanted.images[0].width, wanted.images[0].height));
            assert_eq!(image.seed, before.seed);
        }
    }
}

#[tokio::test]
async fn pictures_tell_of_it_and_repeat_it_and_so_does_img2img() {
    let models = library_of_models();
    let daemons = everywhere(models.path());
    let params = json!({"upscaler_1": "4x_Small", "scale": 2});
    let (_, here) = &daemons[0];
    let drawn = draw(here, &with(plain(), &params)).await;
    let text = drawn.images[0].infotext.as_deref().expect("told");
    for words in ["Plugins: ", "Engines: ", "\\\"upscaler\\\"", "\\\"version\\\":\\\"1.0.0\\\"", "4x_Small"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let client = here.client().await;
    let info = within(client.image_info(ImageIn::png(file(&drawn.images[0])))).await.expect("read");
    let again =
        Txt2ImgParams { precision: Precision::F32, ..info.request.expect("a request").into_drawing() };
    assert_eq!(file(&draw(here, &again).await.images[0]), file(&drawn.images[0]));
    for (place, daemon) in &daemons[1..] {
        let there = draw(daemon, &with(plain(), &params)).await;
        assert!(decoded(&there.images[1]) == decoded(&drawn.images[1]), "{place}");
    }
    let hires =
        Txt2ImgParams { enable_hr: true, hr_upscaler: "R-ESRGAN 2x+".into(), ..with(plain(), &params) };
    let hires = draw(here, &hires).await;
    assert_eq!((hires.images[0].width, hires.images[0].height), (4 * 64, 4 * 64));
    let begun = Img2ImgParams {
        drawing: Txt2ImgParams { denoising_strength: Some(0.5), ..with(plain(), &params) },
        init_images: vec![ImageIn::png(file(&drawn.images[0]))],
        ..Img2ImgParams::default()
    };
    let begun = within(client.img2img(&begun)).await.expect("drawn");
    assert_eq!((begun.images[0].width, begun.images[0].height), (2 * 64, 2 * 64));
}

#[tokio::test]
async fn tiles_are_told_and_what_cannot_be_is_refused_as_it_is_submitted() {
    let models = library_of_models();
    let daemon = start(models.path(), &[]);
    let client = daemon.client().await;
    // Of 64x64 nine tiles of 24; two pictures.
    let params = json!({"upscaler_1": "4x_Small", "tile": 24, "overlap": 2});
    let mut shares = vec![];
    within(client.txt2img_with(&with(plain(), &params), |event| {
        if let EventKind::Progress { plugin: Some(plugin), .. } = &event.kind
            && plugin.name == "upscaler"
        {
            shares.push(plugin.share);
        }
    }))
    .await
    .expect("drawn");
    assert!(shares.is_sorted() && shares.last() == Some(&1.0), "{shares:?}");
    // What comes too quickly is told together.
    assert!(shares.len() >= 2, "{shares:?}");
    for (params, error, words) in [
        (json!({}), ErrorName::InvalidParams, "upscaler_1"),
        (json!({"upscaler_1": "4x_Smal"}), ErrorName::NotFound, "did you mean '4x_Small'?"),
        (json!({"upscaler_1": "nan"}), ErrorName::Model, "holds NaN or infinite weights"),
        (json!({"upscaler_1": "unknown"}), ErrorName::Model, "of upscalers it runs RRDBNet"),
        (json!({"upscaler_1": "4x_Small", "scale": 0}), ErrorName::InvalidParams, "scale"),
        (json!({"upscaler_1": "4x_Small", "scale": 0.1}), ErrorName::InvalidParams, "give at least 0.125"),
        (
            json!({"upscaler_1": "4x_Small", "width": 60_000, "height": 60_000}),
            ErrorName::InvalidParams,
            "would become 60000x60000",
        ),
        (
            json!({"upscaler_1": "4x_Small", "width": 64}),
            ErrorName::InvalidParams,
            "height: is missing beside width",
        ),
        (
            json!({"upscaler_1": "4x_Small", "scale": 2, "width": 64, "height": 64}),
            ErrorName::InvalidParams,
            "give scale, or these",
        ),
        (
            json!({"upscaler_1": "4x_Small", "overlap": 9}),
            ErrorName::InvalidParams,
            "tile: is missing beside overlap",
        ),
        (
            json!({"upscaler_1": "4x_Small", "tile": 16, "overlap": 9}),
            ErrorName::InvalidParams,
            "give at most 8",
        ),
    ] {
        let text = refused(within(client.txt2img(&with(plain(), &params))).await, error);
        assert!(text.contains(words), "{params}: {text}");
    }
    // What is a part of something keeps its size.
    let begun = Img2ImgParams {
        drawing: with(Txt2ImgParams { batch_size: 1, ..plain() }, &params),
        init_images: vec![ImageIn::raw(vec![9; 64 * 64 * 3], 64, 64, 3)],
        sd_upscale: Some(Box::new(SdUpscaleParams { overlap: 16, ..SdUpscaleParams::default() })),
        ..Img2ImgParams::default()
    };
    let text = refused(within(client.img2img(&begun)).await, ErrorName::Plugin);
    assert!(text.contains("batch.post") && text.contains("in the place of"), "{text}");
    // A job that is cancelled within it ends, and the next goes on.
    let output = OutputParams { format: OutputFormat::Raw, dir: None };
    let long = with(
        Txt2ImgParams { output, ..plain() },
        &json!({"upscaler_1": "4x_Small", "tile": 2, "overlap": 1, "scale": 16}),
    );
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let drawing = within(client.txt2img_with(&long, |event| {
        if matches!(&event.kind, EventKind::Progress { plugin: Some(plugin), .. } if plugin.name == "upscaler") {
            send.send(event.job.clone()).expect("heard");
        }
    }));
    let other = daemon.client().await;
    let cancelling = async {
        let job = within(receive.recv()).await.expect("it is upscaled");
        within(other.cancel(&job)).await.expect("cancelled");
    };
    let (drawn, ()) = tokio::join!(drawing, cancelling);
    refused(drawn, ErrorName::Cancelled);
    draw(&daemon, &with(plain(), &json!({"upscaler_1": "4x_Small"}))).await;
}
