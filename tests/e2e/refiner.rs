//! A refiner through the socket: another checkpoint that goes on where the own one ends.

use std::fs;

use latentd_client::protocol::{
    ErrorName, ImageIn, OutputFormat, OutputParams, Precision, Txt2ImgParams, Txt2ImgResult,
};

use crate::harness::{Daemon, Options, fixtures, refused, small, within};

fn start(options: Options) -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    let folder = models.path().join("Stable-diffusion");
    fs::create_dir_all(&folder).expect("made");
    for name in ["tiny-sd1.safetensors", "tiny-sd1-ema.safetensors"] {
        fs::copy(fixtures().join("Stable-diffusion").join(name), folder.join(name)).expect("copied");
    }
    (Daemon::with(Options { models: Some(models.path().to_owned()), ..options }), models)
}

async fn try_draw(
    daemon: &Daemon,
    change: impl FnOnce(&mut Txt2ImgParams),
) -> Result<Txt2ImgResult, latentd_client::Error> {
    let mut params = Txt2ImgParams {
        prompt: "a red circle".into(),
        checkpoint: Some("tiny-sd1".into()),
        steps: 6,
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(7)
    };
    change(&mut params);
    within(daemon.client().await.txt2img(&params)).await
}

async fn pixels(daemon: &Daemon, change: impl FnOnce(&mut Txt2ImgParams)) -> Vec<u8> {
    let drawn = try_draw(daemon, change).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images[0].raw.clone().expect("pixels").0
}

fn refined(share: Option<f64>) -> impl FnOnce(&mut Txt2ImgParams) {
    move |params| {
        params.refiner_checkpoint = Some("tiny-sd1-ema".into());
        params.refiner_switch_at = share;
    }
}

#[tokio::test]
async fn it_goes_on_from_its_share_on_and_is_told() {
    let (daemon, _models) = start(Options::default());
    let own = pixels(&daemon, |_| ()).await;
    let others = pixels(&daemon, |params| params.checkpoint = Some("tiny-sd1-ema".into())).await;
    let half = pixels(&daemon, refined(Some(0.5))).await;
    assert!(half != own && half != others);
    assert!(pixels(&daemon, refined(None)).await == pixels(&daemon, refined(Some(0.8))).await);
    // From the beginning on it draws alone, and never if its share is all.
    assert!(pixels(&daemon, refined(Some(0.0))).await == others);
    assert!(pixels(&daemon, refined(Some(1.0))).await == own);
    // The checkpoint itself is no other one.
    assert!(pixels(&daemon, |params| params.refiner_checkpoint = Some("tiny-sd1".into())).await == own);
    assert!(pixels(&daemon, |_| ()).await == own, "it leaves no trace");

    let client = daemon.client().await;
    let png = |params: &mut Txt2ImgParams| params.output = OutputParams::default();
    for (share, told) in [(0.5, true), (1.0, false)] {
        let drawn = try_draw(&daemon, |params| {
            refined(Some(share))(params);
            png(params);
        });
        let image = drawn.await.expect("drawn").images.remove(0);
        let text = image.infotext.clone().expect("an infotext");
        let says = text.contains("Refiner: tiny-sd1-ema [") && text.contains("], Refiner switch at: 0.5");
        assert_eq!(says, told, "{text}");
        let bytes = image.png.clone().expect("a PNG").0;
        let said = within(client.image_info(ImageIn::png(bytes)))
            .await
            .expect("read")
            .request
            .expect("a request")
            .into_drawing();
        let again = within(client.txt2img(&said)).await.expect("drawn").images.remove(0);
        assert!(again.png == image.png, "{text}");
    }
}

#[tokio::test]
async fn what_cannot_go_on_is_refused_by_name() {
    let (daemon, _models) = start(Options::default());
    let nothing = try_draw(&daemon, |params| params.refiner_checkpoint = Some("nothing".into())).await;
    let text = refused(nothing, ErrorName::NotFound);
    assert!(text.starts_with("refiner_checkpoint 'nothing' is not in the library"), "{text}");
    let alone = |params: &mut Txt2ImgParams| params.refiner_switch_at = Some(0.5);
    let drawn = try_draw(&daemon, alone).await.expect("drawn");
    assert!(
        matches!(&drawn.notices[..], [one] if one.starts_with("refiner_switch_at without")),
        "{:?}",
        drawn.notices
    );
    let strict = try_draw(&daemon, |params| {
        alone(params);
        params.strict = true;
    });
    refused(strict.await, ErrorName::InvalidParams);
    let beyond = try_draw(&daemon, refined(Some(1.5))).await;
    let text = refused(beyond, ErrorName::InvalidParams);
    assert!(text.contains("refiner_switch_at"), "{text}");
}

/// With room for little beside one of them each leaves for the other, and the picture is the same.
#[tokio::test]
async fn both_come_and_go_within_the_budget() {
    let (wide, _models) = start(Options::default());
    let batch = |params: &mut Txt2ImgParams| {
        refined(Some(0.5))(params);
        params.batch_size = 2;
        params.n_iter = 2;
    };
    let wanted = try_draw(&wide, batch).await.expect("drawn");
    let mut bytes = 1u64 << 20;
    let (narrow, _narrow_models) = loop {
        let (narrow, models) =
            start(Options { config: format!("memory_bytes = {bytes}\n"), ..Options::default() });
        let Err(error) = try_draw(&narrow, batch).await else { break (narrow, models) };
        let text = refused::<()>(Err(error), ErrorName::Memory);
        let needed = text.split_once("needs about ").and_then(|(_, rest)| rest.split_once(" bytes"));
        bytes = needed.and_then(|(needed, _)| needed.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    };
    for _ in 0..2 {
        let drawn = try_draw(&narrow, batch).await.expect("drawn");
        let same = drawn.images.iter().zip(&wanted.images).all(|(a, b)| a.raw == b.raw);
        assert!(same && drawn.images.len() == 4);
    }
    assert!(narrow.log().contains("unloaded to make room"), "{}", narrow.log());
}

/// Its text encoder may be of another width than the embeddings in the prompt.
#[tokio::test]
async fn an_embedding_that_is_not_for_it_is_words_to_it() {
    let models = tempfile::tempdir().expect("a folder");
    let folder = models.path().join("embeddings");
    fs::create_dir_all(&folder).expect("made");
    fs::copy(fixtures().join("../adapters/emb-style.pt"), folder.join("emb-style.pt")).expect("copied");
    let flag = format!("--embeddings-dir={}", folder.display());
    let (daemon, _models) = start(Options { flags: vec![flag], ..Options::default() });
    let with = |prompt: &'static str, strict| {
        move |params: &mut Txt2ImgParams| {
            refined(Some(0.5))(params);
            (params.prompt, params.strict) = (prompt.into(), strict);
        }
    };
    let drawn = try_draw(&daemon, with("a emb-style", false)).await.expect("drawn");
    let [notice] = &drawn.notices[..] else { panic!("{:?}", drawn.notices) };
    assert!(
        notice.starts_with("embedding 'emb-style' ") && notice.contains("refiner_checkpoint"),
        "{notice}"
    );
    let words = try_draw(&daemon, with("a emb style", false)).await.expect("drawn");
    assert_ne!(words.images[0].raw, drawn.images[0].raw, "the own checkpoint has it");
    refused(try_draw(&daemon, with("a emb-style", true)).await, ErrorName::Model);
}
