//! What prompts mean beside their words, and what pictures say of them.

use latentd_client::protocol::{
    ErrorName, ImageIn, LibraryListParams, Precision, Txt2ImgParams, Txt2ImgResult,
};

use crate::harness::{Daemon, refused, small, within};

async fn draw(daemon: &Daemon, prompt: &str, change: impl FnOnce(&mut Txt2ImgParams)) -> Txt2ImgResult {
    let mut params = Txt2ImgParams { prompt: prompt.into(), precision: Precision::F32, ..small(7) };
    change(&mut params);
    within(daemon.client().await.txt2img(&params)).await.expect("drawn")
}

fn infotext(drawn: &Txt2ImgResult) -> &str {
    drawn.images[0].infotext.as_deref().expect("an infotext")
}

fn pixels(drawn: &Txt2ImgResult) -> Vec<u8> {
    let png = drawn.images[0].png.as_ref().expect("a PNG");
    latentd_models::image::Picture::decode(&png.0, 1 << 20).expect("decodes").pixels
}

#[tokio::test]
async fn a_picture_says_what_a1111_says_in_its_order() {
    let daemon = Daemon::start();
    let drawn = draw(&daemon, " a cat, 3: x", |params| {
        params.negative_prompt = "dog BREAK cat".into();
        params.clip_skip = 2;
        params.sampler_name = "DPM++ 2M".into();
        params.pad_cond_uncond = true;
    })
    .await;
    let library = daemon.client().await.library(&LibraryListParams::default()).await.expect("listed");
    let hash =
        library.entries.iter().find(|entry| entry.name == "tiny-sd1").and_then(|entry| entry.hash.clone());
    let hash = &hash.expect("known by now")[..10];
    let version = concat!("latentd v", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        infotext(&drawn),
        format!(
            "a cat, 3: x\nNegative prompt: dog BREAK cat\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, \
             Size: 64x64, Model hash: {hash}, Model: tiny-sd1, Clip skip: 2, RNG: NV, Pad conds: True, Version: {version}"
        )
    );
    // Prompts of the same length are not padded.
    let drawn = draw(&daemon, "a", |params| params.pad_cond_uncond = true).await;
    assert!(!infotext(&drawn).contains("Pad conds"), "{}", infotext(&drawn));
    // A schedule that nobody chose has no name of its own where it is uniform.
    for (sampler, scheduler, named) in [
        ("Euler", "Automatic", "Automatic"),
        ("Euler", "Uniform", "Uniform"),
        ("DPM++ 2M", "Exponential", "Exponential"),
        ("DDIM", "Automatic", "Automatic"),
    ] {
        let drawn = draw(&daemon, "", |params| {
            params.sampler_name = sampler.into();
            params.scheduler = scheduler.into();
        })
        .await;
        let beginning = format!("Steps: 2, Sampler: {sampler}, Schedule type: {named}, ");
        assert!(infotext(&drawn).starts_with(&beginning), "no line for no prompt: {}", infotext(&drawn));
    }
}

#[tokio::test]
async fn a_weight_at_the_end_multiplies_the_guidance_scale() {
    let daemon = Daemon::start();
    let scale = |scale| move |params: &mut Txt2ImgParams| params.cfg_scale = scale;
    let plain = draw(&daemon, "a red circle", scale(6.0)).await;
    let weighted = draw(&daemon, "a red circle : 1.5 ", scale(4.0)).await;
    assert!(pixels(&weighted) == pixels(&plain));
    assert!(infotext(&weighted).starts_with("a red circle : 1.5 \nSteps"), "{}", infotext(&weighted));
    // What is steered away from has none: there it is words.
    let negative =
        |text: &'static str| move |params: &mut Txt2ImgParams| params.negative_prompt = text.into();
    let words = draw(&daemon, "a", negative("b :1.5")).await;
    assert!(pixels(&words) != pixels(&draw(&daemon, "a", negative("b")).await));
}

#[tokio::test]
async fn comments_are_not_drawn() {
    let daemon = Daemon::start();
    let plain = draw(&daemon, "a red circle", |_| ()).await;
    let commented = "# what I want\na red #not a blue\ncircle# end";
    let drawn = draw(&daemon, commented, |params| params.negative_prompt = "#nothing".into()).await;
    assert!(pixels(&drawn) == pixels(&plain));
    assert!(
        infotext(&drawn).starts_with("a red \ncircle\n\nNegative prompt: \n\nSteps: 2"),
        "{}",
        infotext(&drawn)
    );
}

#[tokio::test]
async fn what_is_not_applied_is_told_and_in_no_picture() {
    let daemon = Daemon::start();
    let prompt = "a cat <lora:x:0.8> <hypernet:y> <wildcard:z> [red:blue:0.5] [a|b] AND dog";
    let drawn = draw(&daemon, prompt, |params| params.negative_prompt = "[c:d:2] <lora:n>".into()).await;
    let beginnings =
        ["lora 'x' is not", "hypernetwork 'y' is not", "<wildcard:z>: networks of", "<lora:n>: networks are"];
    assert_eq!(drawn.notices.len(), beginnings.len(), "{:?}", drawn.notices);
    for (notice, beginning) in drawn.notices.iter().zip(beginnings) {
        assert!(notice.starts_with(beginning), "{notice}");
    }
    let told = "a cat    [red:blue:0.5] [a|b] AND dog\nNegative prompt: [c:d:2] <lora:n>\nSteps: ";
    assert!(infotext(&drawn).starts_with(told), "{}", infotext(&drawn));
    let png = drawn.images[0].png.clone().expect("a PNG").0;
    let client = daemon.client().await;
    let said = within(client.image_info(ImageIn::png(png)))
        .await
        .expect("read")
        .request
        .expect("a request")
        .into_drawing();
    let again = within(client.txt2img(&said)).await.expect("drawn");
    assert!(again.images[0].png == drawn.images[0].png, "{said:?}");
    assert_eq!(again.notices.len(), 1, "networks in the negative prompt are words: {:?}", again.notices);
}

#[tokio::test]
async fn a_weight_that_is_no_number_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let params = Txt2ImgParams { prompt: "a (cat:1.1.1)".into(), ..small(1) };
    let text = refused(within(client.txt2img(&params)).await, ErrorName::InvalidParams);
    assert!(text.contains("'1.1.1'") && text.contains("is no number; give one"), "{text}");
}
