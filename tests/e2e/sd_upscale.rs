//! A picture made larger and drawn anew in tiles, through the socket: the bytes are those of the same drawings asked for one by one.

use std::fs;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, Img2ImgParams, LoopbackParams, Masks, Precision, RedrawMode,
    RepeatRequest, SdUpscaleParams, SeamFixMode, Txt2ImgParams, Txt2ImgResult, UpscaleParams,
};
use latentd_models::image::grid::Grid;
use latentd_models::image::{
    Channels, Filter, Picture, PictureFormat, Redraw, RedrawOrder, RedrawPart, SeamFix,
};

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build, install};

/// With colours that say where they are.
fn ramp(width: usize, height: usize) -> Picture {
    let pixel = |x: usize, y: usize| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90];
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Picture { width, height, channels: Channels::Rgb, pixels }
}

fn png(picture: &Picture) -> ImageIn {
    ImageIn::png(picture.encode(PictureFormat::Png, "").expect("encodes"))
}

fn drawing() -> Txt2ImgParams {
    Txt2ImgParams {
        precision: Precision::F32,
        steps: 4,
        width: Some(64),
        height: Some(64),
        denoising_strength: Some(0.5),
        ..small(5)
    }
}

fn request(picture: &Picture, sd_upscale: SdUpscaleParams) -> Img2ImgParams {
    Img2ImgParams {
        drawing: drawing(),
        init_images: vec![png(picture)],
        sd_upscale: Some(Box::new(sd_upscale)),
        ..Img2ImgParams::default()
    }
}

async fn draw(daemon: &Daemon, params: &Img2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.img2img(params)).await.expect("drawn")
}

fn picture(result: &Txt2ImgResult, index: usize) -> Picture {
    let file = &result.images[index].png.as_ref().expect("a PNG").0;
    Picture::decode(file, 1 << 24).expect("decodes")
}

#[tokio::test]
async fn a_grid_is_its_tiles_put_together() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &build("tests/fixtures/plugins/engines.c", &["-std=gnu99"]));
    let given = ramp(64, 48);
    for upscaler in ["Lanczos", "good", "None"] {
        let sd_upscale =
            SdUpscaleParams { upscaler: upscaler.into(), overlap: 16, ..SdUpscaleParams::default() };
        let mut params = request(&given, sd_upscale);
        params.drawing.n_iter = 2;
        let (tile, overlap) = if upscaler == "None" { ((32, 48), 16) } else { ((64, 64), 16) };
        (params.drawing.width, params.drawing.height) = (Some(tile.0 as u32), Some(tile.1 as u32));
        let drawn = draw(&daemon, &params).await;
        assert_eq!(drawn.images.len(), 2);
        // The same by other methods.
        let large = if upscaler == "None" {
            given.clone()
        } else {
            let params = UpscaleParams::new(png(&given), upscaler);
            let made = within(daemon.client().await.upscale(&params)).await.expect("made");
            Picture::decode(&made.images[0].png.as_ref().expect("a PNG").0, 1 << 24).expect("decodes")
        };
        let grid = Grid::new((large.width, large.height), tile, overlap).expect("a grid");
        for batch in 0..2usize {
            let mut tiles = vec![];
            for (number, region) in grid.regions().enumerate() {
                let cut = large.cropped(region).expect("inside");
                let mut one =
                    Img2ImgParams { sd_upscale: None, init_images: vec![png(&cut)], ..params.clone() };
                one.drawing.n_iter = 1;
                one.drawing.seed = 5 + (batch + number) as i64;
                tiles.push(picture(&draw(&daemon, &one).await, 0));
            }
            assert!(tiles.len() > 1);
            let wanted = grid.combined(&tiles).expect("tiles");
            assert!(picture(&drawn, batch) == wanted, "{upscaler}, batch {batch}");
        }
        let text = drawn.images[1].infotext.as_deref().expect("told");
        assert!(
            text.contains(&format!("SD upscale overlap: 16, SD upscale upscaler: {upscaler}, ")),
            "{text}"
        );
        assert_eq!(drawn.images[1].seed, Some(6));
        // What is told repeats it.
        let client = daemon.client().await;
        let file = drawn.images[1].png.clone().expect("a PNG").0;
        let info = within(client.image_info(ImageIn::png(file.clone()))).await.expect("read");
        assert!(info.others.is_empty(), "{:?}", info.others);
        let Some(RepeatRequest::Img2Img(mut again)) = info.request else { panic!("no img2img") };
        again.drawing.precision = Precision::F32;
        assert_eq!(draw(&daemon, &again).await.images[0].png.as_ref().expect("a PNG").0, file);
    }
}

#[tokio::test]
async fn tiles_have_prompts_of_their_own() {
    let daemon = Daemon::start();
    let given = ramp(64, 64);
    let large = given.resized(128, 128, Filter::Lanczos).expect("made");
    let prompts =
        ["a red circle", "", "a (blue:1.2) star", "four words of it # and a comment"].map(str::to_owned);
    let own = |tile: usize| {
        let prompt = prompts[tile].split(" #").next().expect("a text");
        if prompt.is_empty() { drawing().prompt } else { prompt.into() }
    };
    let sd_upscale = SdUpscaleParams {
        upscaler: "Lanczos".into(),
        overlap: 0,
        prompts: prompts.to_vec(),
        ..SdUpscaleParams::default()
    };
    let params = request(&given, sd_upscale.clone());
    let drawn = draw(&daemon, &params).await;
    let grid = Grid::new((128, 128), (64, 64), 0).expect("a grid");
    let mut tiles = vec![];
    for (number, region) in grid.regions().enumerate() {
        let cut = large.cropped(region).expect("inside");
        let mut one = Img2ImgParams { sd_upscale: None, init_images: vec![png(&cut)], ..params.clone() };
        (one.drawing.seed, one.drawing.prompt) = (5 + number as i64, own(number));
        tiles.push(picture(&draw(&daemon, &one).await, 0));
    }
    assert!(picture(&drawn, 0) == grid.combined(&tiles).expect("tiles"));
    let text = drawn.images[0].infotext.as_deref().expect("told");
    assert!(text.contains("SD upscale prompts: ") && text.contains("a (blue:1.2) star"), "{text}");
    // One after the other, in the order of a chessboard: they are counted row by row all the same.
    let chess = request(
        &given,
        SdUpscaleParams { redraw: RedrawMode::Chess, padding: 8, mask_blur: 3.0, ..sd_upscale },
    );
    let drawn_so = draw(&daemon, &chess).await;
    let whole = Redraw { size: (128, 128), tile: (64, 64) };
    let mut made = large;
    for part in whole.tiles(RedrawOrder::Chess, 8).expect("tiles") {
        let own = Txt2ImgParams { prompt: own(whole.place(&part)), ..drawing() };
        made = by_hand(&daemon, made, &[(part, 0.5, 3.0)], &own).await;
    }
    assert!(picture(&drawn_so, 0) == made);
    for (drawn, text) in [(drawn, "a grid"), (drawn_so, "a chessboard")] {
        let file = drawn.images[0].png.clone().expect("a PNG").0;
        let client = daemon.client().await;
        let info = within(client.image_info(ImageIn::png(file.clone()))).await.expect("read");
        assert!(info.others.is_empty(), "{:?}", info.others);
        let Some(RepeatRequest::Img2Img(mut again)) = info.request else { panic!("no img2img") };
        again.drawing.precision = Precision::F32;
        assert_eq!(draw(&daemon, &again).await.images[0].png.as_ref().expect("a PNG").0, file, "{text}");
    }
}

#[tokio::test]
async fn what_making_it_larger_takes_is_refused_as_it_is_submitted() {
    let daemon = Daemon::with(Options { config: "memory_bytes = 268435456\n".into(), ..Options::default() });
    let mut params = request(
        &ramp(1024, 1024),
        SdUpscaleParams { upscaler: "Lanczos".into(), scale_factor: 8.0, ..SdUpscaleParams::default() },
    );
    (params.drawing.width, params.drawing.height) = (Some(512), Some(512));
    let text = refused(within(daemon.client().await.img2img(&params)).await, ErrorName::Memory);
    assert!(text.contains("sd_upscale: to make the picture larger takes"), "{text}");
}

/// The same drawing by explicit requests.
async fn by_hand(
    daemon: &Daemon,
    from: Picture,
    parts: &[(RedrawPart, f64, f64)],
    drawing: &Txt2ImgParams,
) -> Picture {
    let mut made = from;
    for (part, strength, blur) in parts {
        let mask = part.mask((made.width, made.height)).expect("a mask");
        let mut params = Img2ImgParams {
            drawing: drawing.clone(),
            init_images: vec![png(&made)],
            mask: Some(Masks::All(png(&mask))),
            mask_blur: Some(*blur),
            inpainting_fill: 1,
            inpaint_full_res: true,
            inpaint_full_res_padding: part.padding as u32,
            ..Img2ImgParams::default()
        };
        (params.drawing.width, params.drawing.height) =
            (Some(part.drawn.0 as u32), Some(part.drawn.1 as u32));
        params.drawing.denoising_strength = Some(*strength);
        made = picture(&draw(daemon, &params).await, 0);
    }
    made
}

#[tokio::test]
async fn tiles_and_seams_are_drawn_one_after_the_other() {
    let daemon = Daemon::start();
    let given = ramp(64, 60);
    // Up to whole 64s.
    let large = given.resized(128, 128, Filter::Lanczos).expect("made");
    let whole = Redraw { size: (128, 128), tile: (64, 64) };
    let tiles = |order| {
        let tiles = whole.tiles(order, 8).expect("tiles").into_iter();
        tiles.map(|part| (part, 0.5, 3.0)).collect::<Vec<_>>()
    };
    let seams = |fix, blur| {
        let parts = whole.seams(fix, 4).expect("parts").into_iter();
        parts.map(|part| (part, 0.35, blur)).collect::<Vec<_>>()
    };
    for (redraw, seams_mode, parts) in [
        (RedrawMode::Linear, SeamFixMode::None, tiles(RedrawOrder::Linear)),
        (RedrawMode::None, SeamFixMode::Bands, seams(SeamFix::Bands { width: 16 }, 0.0)),
        (RedrawMode::None, SeamFixMode::HalfTile, seams(SeamFix::HalfTile, 2.0)),
        (
            RedrawMode::Chess,
            SeamFixMode::HalfTileIntersections,
            [tiles(RedrawOrder::Chess), seams(SeamFix::HalfTileIntersections, 2.0)].concat(),
        ),
    ] {
        let params = request(
            &given,
            SdUpscaleParams {
                redraw,
                padding: 8,
                mask_blur: 3.0,
                seams: seams_mode,
                seams_width: 16,
                seams_padding: 4,
                seams_mask_blur: 2.0,
                ..SdUpscaleParams::default()
            },
        );
        let drawn = draw(&daemon, &params).await;
        let wanted = by_hand(&daemon, large.clone(), &parts, &drawing()).await;
        assert!(picture(&drawn, 0) == wanted, "{redraw:?} {seams_mode:?}");
        let text = drawn.images[0].infotext.as_deref().expect("told");
        assert!(
            text.contains("Ultimate SD upscale upscaler: None, Ultimate SD upscale tile_width: 64, "),
            "{text}"
        );
        let client = daemon.client().await;
        let file = drawn.images[0].png.clone().expect("a PNG").0;
        let info = within(client.image_info(ImageIn::png(file.clone()))).await.expect("read");
        let Some(RepeatRequest::Img2Img(mut again)) = info.request else { panic!("no img2img") };
        again.drawing.precision = Precision::F32;
        assert_eq!(draw(&daemon, &again).await.images[0].png.as_ref().expect("a PNG").0, file, "{redraw:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_steps_are_told_over_all_tiles() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let usual = || request(&ramp(64, 64), SdUpscaleParams::default());
    let with = |change: &dyn Fn(&mut Img2ImgParams)| {
        let mut params = usual();
        change(&mut params);
        params
    };
    let sd = |change: &dyn Fn(&mut SdUpscaleParams)| {
        with(&|params| change(params.sd_upscale.as_mut().expect("there")))
    };
    for (params, class, words) in [
        (
            with(&|params| params.drawing.batch_size = 2),
            ErrorName::InvalidParams,
            "batch_size: sd_upscale draws",
        ),
        (
            with(&|params| params.mask = Some(png(&ramp(64, 64)).into())),
            ErrorName::InvalidParams,
            "mask: sd_upscale draws all",
        ),
        (
            with(&|params| params.loopback = Some(LoopbackParams::default())),
            ErrorName::InvalidParams,
            "loopback: sd_upscale",
        ),
        (
            sd(&|sd| sd.seams = SeamFixMode::Bands),
            ErrorName::InvalidParams,
            "sd_upscale.seams: tiles of a grid overlap",
        ),
        (
            sd(&|sd| sd.redraw = RedrawMode::None),
            ErrorName::InvalidParams,
            "sd_upscale.redraw: nothing is drawn",
        ),
        (
            sd(&|sd| (sd.upscaler, sd.overlap, sd.prompts) = ("Lanczos".into(), 16, vec!["a".into(); 4])),
            ErrorName::InvalidParams,
            "sd_upscale.prompts: 4 are given, and there are 9 tiles, 3 across and 3 down",
        ),
        (
            sd(&|sd| sd.prompts = vec!["a".into(), "b <lora:c:1>".into()]),
            ErrorName::InvalidParams,
            "sd_upscale.prompts[1]: names <lora:c:1>, and networks change all tiles",
        ),
        (
            sd(&|sd| {
                (sd.redraw, sd.seams, sd.prompts) = (RedrawMode::None, SeamFixMode::Bands, vec!["a".into()]);
            }),
            ErrorName::InvalidParams,
            "sd_upscale.prompts: no tiles are drawn",
        ),
        (sd(&|sd| sd.scale_factor = 0.0), ErrorName::InvalidParams, "scale_factor: 0.0 is out of range"),
        (
            sd(&|sd| sd.upscaler = "Lanczoz".into()),
            ErrorName::NotFound,
            "sd_upscale.upscaler: 'Lanczoz' is not known",
        ),
        (
            sd(&|sd| (sd.upscaler, sd.overlap) = ("Lanczos".into(), 64)),
            ErrorName::InvalidParams,
            "cannot overlap by 64",
        ),
    ] {
        let text = refused(within(client.img2img(&params)).await, class);
        assert!(text.contains(words), "{words}: {text}");
    }
    let params = sd(&|sd| (sd.upscaler, sd.overlap) = ("Nearest".into(), 16));
    let mut told = vec![];
    within(client.img2img_with(&params, |event| {
        if let EventKind::Progress { step, steps, .. } = &event.kind {
            told.push((*step, *steps));
        }
    }))
    .await
    .expect("drawn");
    // The filter, and three by three tiles of three calls each.
    assert_eq!(told.last(), Some(&(28, 28)), "{told:?}");
    assert!(told.iter().map(|(step, _)| step).is_sorted(), "{told:?}");
    // By the command.
    fs::write(daemon.folder.path().join("in.png"), ramp(64, 64).to_png().expect("encodes")).expect("written");
    let arguments = [
        "generate",
        "a circle",
        "--checkpoint",
        "tiny-sd1",
        "--steps",
        "4",
        "--init-image",
        "in.png",
        "--width",
        "64",
        "--height",
        "64",
        "--sd-upscale",
        "Nearest",
        "--redraw",
        "chess",
        "--tile-padding",
        "0",
        "--tile-prompt",
        "a star",
        "--tile-prompt",
        "",
        "--tile-prompt",
        "a heart",
        "--tile-prompt",
        "a ring",
        "--seams",
        "bands",
        "--seams-width",
        "16",
        "-o",
        "out.png",
    ];
    let output = daemon.command(&arguments).output().expect("ran");
    assert!(output.status.success(), "{output:?}");
    let made = fs::read(daemon.folder.path().join("out.png")).expect("read");
    let made = Picture::decode(&made, 1 << 24).expect("decodes");
    assert_eq!((made.width, made.height), (128, 128));
}
