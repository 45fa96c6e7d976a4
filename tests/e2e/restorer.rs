//! Faces restored by the plugin that comes with latentd, through the socket: GFPGAN and `CodeFormer` over facexlib's networks, held
//! against A1111's order of work over spandrel's and facexlib's (`tests/fixtures/restore_reference.py`); the same bytes wherever it
//! runs; and what is missing told as a request comes.

use std::fs;
use std::path::Path;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, Img2ImgParams, LibraryKind, LibraryListParams, Precision,
    Txt2ImgParams, Txt2ImgResult, UpscaleParams,
};
use latentd_models::image::{Channels, Picture, PictureFormat};

use crate::harness::{Daemon, Options, fixtures, refused, small, within};
use crate::plugin_library::install;
use crate::reference::decibels;
use crate::upscaler::library;
use crate::vae::models;

/// What pictures reach whose networks differ in the last bits, after both cut off what is beyond a level.
const LEAST_DECIBELS: f64 = 50.0;

const FILES: [(&str, &str); 4] = [
    ("detection_Resnet50_Final", "GFPGAN"),
    ("parsing_parsenet", "GFPGAN"),
    ("GFPGANv1.4", "GFPGAN"),
    ("codeformer-v0.1.0", "Codeformer"),
];

/// A library with networks of faces where A1111 has them, but for those left out.
fn library_of_faces(without: &[&str]) -> tempfile::TempDir {
    let folder = models();
    for (name, inside) in FILES.iter().filter(|(name, _)| !without.contains(name)) {
        let to = folder.path().join(inside);
        fs::create_dir_all(&to).expect("made");
        let file = format!("{name}.pth");
        fs::copy(fixtures().join("../restorers").join(&file), to.join(&file)).expect("copied");
    }
    folder
}

fn start(models: &Path, environment: &[(&str, &str)], config: &str) -> Daemon {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let daemon = Daemon::with(Options {
        models: Some(models.to_owned()),
        config: format!("precision = \"f32\"\n{config}"),
        environment: environment.collect(),
        ..Options::default()
    });
    install(&daemon, "upscaler.so", library());
    daemon
}

/// The picture, and what comes of it by GFPGAN, and by `CodeFormer` with weights of 0.5 and 1.
fn pictures() -> [Picture; 4] {
    let all = fs::read(fixtures().join("../plugins/restored.png")).expect("read");
    let Picture { width, height, channels, pixels } = Picture::decode(&all, 1 << 22).expect("decodes");
    let part = pixels.len() / 4;
    let picture = |at: usize| {
        let pixels = pixels[at * part..][..part].to_vec();
        Picture { width, height: height / 4, channels, pixels }
    };
    [picture(0), picture(1), picture(2), picture(3)]
}

fn of(picture: &Picture) -> UpscaleParams {
    let png = picture.encode(PictureFormat::Png, "").expect("encodes");
    UpscaleParams { image: Some(ImageIn::png(png)), ..UpscaleParams::default() }
}

async fn made(daemon: &Daemon, params: &UpscaleParams) -> Picture {
    let made = within(daemon.client().await.upscale(params)).await.expect("made");
    Picture::decode(&made.images[0].png.as_ref().expect("a PNG").0, 1 << 22).expect("decodes")
}

fn wishes(picture: &Picture) -> [UpscaleParams; 3] {
    let weighed =
        |codeformer_weight| UpscaleParams { codeformer_visibility: 1.0, codeformer_weight, ..of(picture) };
    [UpscaleParams { gfpgan_visibility: 1.0, ..of(picture) }, weighed(0.5), weighed(1.0)]
}

#[tokio::test]
#[allow(clippy::print_stderr)]
async fn faces_are_restored_as_by_a1111_and_the_same_wherever_it_runs() {
    let models = library_of_faces(&[]);
    let [picture, wanted @ ..] = pictures();
    let here = start(models.path(), &[], "");
    let apart = start(models.path(), &[], "[plugins.upscaler]\nisolation = \"process\"\n");
    let there = start(models.path(), &[("LATENTD_DEVICE", "fake")], "");
    for (params, wanted) in wishes(&picture).iter().zip(&wanted) {
        let found = made(&here, params).await;
        let reached = decibels(&found.pixels, &wanted.pixels);
        let differ = found.pixels.iter().zip(&picture.pixels).filter(|(a, b)| a != b).count();
        eprintln!("{reached:.1} dB, {differ} levels changed");
        assert!(reached >= LEAST_DECIBELS && differ > 1000, "{reached:.1} dB, {differ} levels changed");
        assert!(made(&apart, params).await == found, "in a process of its own");
        assert!(made(&there, params).await == found, "on a device of its own");
    }
    // Nothing that is a face: as it was.
    let flat = Picture { width: 48, height: 32, channels: Channels::Rgb, pixels: vec![90; 48 * 32 * 3] };
    let params = UpscaleParams { gfpgan_visibility: 1.0, ..of(&flat) };
    let found = made(&here, &params).await;
    assert!(found.pixels.iter().all(|level| *level == 90), "a flat picture is changed");
    // So long a picture is not looked at: the shorter side would become 640.
    let long = Picture { width: 4096, height: 8, channels: Channels::Rgb, pixels: vec![90; 4096 * 8 * 3] };
    let params = UpscaleParams { gfpgan_visibility: 1.0, ..of(&long) };
    let found = within(here.client().await.upscale(&params)).await.expect("made larger");
    let told = |notice: &String| notice.contains("too long to look for faces in");
    assert!(found.notices.iter().any(told), "{:?}", found.notices);
    assert_eq!(made(&here, &params).await.pixels, long.pixels);
}

#[tokio::test]
async fn what_is_missing_is_told_as_a_request_comes() {
    let [picture, ..] = pictures();
    let [params, weighed, _] = wishes(&picture);
    for (without, params, name, expected) in [
        (
            "detection_Resnet50_Final",
            &params,
            ErrorName::Model,
            "it needs detection_Resnet50_Final.pth, which finds faces: 'GFPGANv1.4' restores what it finds. Put that file",
        ),
        (
            "parsing_parsenet",
            &weighed,
            ErrorName::Model,
            "it needs parsing_parsenet.pth, which tells the parts of a face: 'codeformer-v0.1.0' restores what it finds",
        ),
        ("GFPGANv1.4", &params, ErrorName::NotFound, "gfpgan_visibility: 'GFPGAN' is not known"),
    ] {
        let models = library_of_faces(&[without]);
        let daemon = start(models.path(), &[], "");
        let text = refused(within(daemon.client().await.upscale(params)).await, name);
        assert!(text.contains(expected), "{text}");
    }
    // The files are there, and nothing that runs them.
    let models = library_of_faces(&[]);
    let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() });
    let text = refused(within(daemon.client().await.upscale(&params)).await, ErrorName::NotFound);
    assert!(text.contains("the library has GFPGAN's file, which the plugin 'upscaler' would run"), "{text}");
}

#[tokio::test]
async fn files_are_known_by_what_is_in_them() {
    let models = library_of_faces(&["GFPGANv1.4"]);
    let astray = models.path().join("ESRGAN");
    fs::create_dir_all(&astray).expect("made");
    for name in ["GFPGANv1.4", "parsing_parsenet"] {
        let file = format!("{name}.pth");
        fs::copy(fixtures().join("../restorers").join(&file), astray.join(format!("in_{file}")))
            .expect("copied");
    }
    let daemon = start(models.path(), &[], "");
    let client = daemon.client().await;
    for (kind, wanted) in [
        (LibraryKind::Restorer, vec!["codeformer-v0.1.0", "in_GFPGANv1.4"]),
        (LibraryKind::FaceModel, vec!["detection_Resnet50_Final", "in_parsing_parsenet", "parsing_parsenet"]),
        (LibraryKind::Upscaler, vec![]),
    ] {
        let listed = within(client.library(&LibraryListParams { kind: Some(kind) })).await.expect("listed");
        let mut names: Vec<_> = listed.entries.iter().map(|entry| entry.name.clone()).collect();
        names.sort();
        assert_eq!(names, wanted, "{kind:?}");
    }
}

/// A drawing in which the networks, whose weights are drawn by lot, take something for a face.
fn drawing(model: &str, code_former_weight: f64) -> Txt2ImgParams {
    Txt2ImgParams {
        restore_faces: true,
        face_restoration_model: model.into(),
        code_former_weight,
        width: Some(128),
        height: Some(96),
        precision: Precision::F32,
        ..small(2)
    }
}

fn without(params: &Txt2ImgParams) -> Txt2ImgParams {
    Txt2ImgParams { restore_faces: false, ..params.clone() }
}

async fn drawn(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

fn decoded(image: &ImageOut) -> Picture {
    Picture::decode(&image.png.as_ref().expect("a PNG").0, 1 << 26).expect("decodes")
}

/// What `image.upscale` makes of pictures that were drawn without restored faces.
async fn restored(daemon: &Daemon, images: &[ImageOut], params: &Txt2ImgParams) -> Vec<Picture> {
    let mut all = vec![];
    for image in images {
        let is_gfpgan = params.face_restoration_model.starts_with("GFPGAN");
        let wish = UpscaleParams {
            gfpgan_visibility: if is_gfpgan { 1.0 } else { 0.0 },
            codeformer_visibility: if is_gfpgan { 0.0 } else { 1.0 },
            codeformer_weight: params.code_former_weight,
            ..of(&decoded(image))
        };
        all.push(made(daemon, &wish).await);
    }
    all
}

fn text_of(image: &ImageOut) -> &str {
    image.infotext.as_deref().expect("an infotext")
}

#[tokio::test]
async fn what_is_drawn_is_restored_as_given_pictures_are_and_tells_so() {
    let models = library_of_faces(&[]);
    let here = start(models.path(), &[], "[plugins.upscaler]\nisolation = \"inline\"\n");
    let apart = start(models.path(), &[], "[plugins.upscaler]\nisolation = \"process\"\n");
    let there = start(models.path(), &[("LATENTD_DEVICE", "fake")], "");
    for (params, words) in [
        (
            Txt2ImgParams { batch_size: 2, ..drawing("CodeFormer", 0.5) },
            "Seed: 2, Face restoration: CodeFormer, Size: ",
        ),
        (drawing("CodeFormer", 0.0), "Face restoration weight: 0, "),
        (drawing("codeformer-v0.1.0", 0.25), "Face restoration: codeformer-v0.1.0, "),
        (drawing("GFPGAN", 0.25), "Face restoration: GFPGAN, "),
    ] {
        let plain = drawn(&here, &without(&params)).await;
        let wanted = restored(&here, &plain.images, &params).await;
        let found = drawn(&here, &params).await;
        assert_eq!(found.notices, Vec::<String>::new());
        for ((found, wanted), plain) in found.images.iter().zip(&wanted).zip(&plain.images) {
            assert!(decoded(found) == *wanted, "{words}");
            assert!(!text_of(plain).contains("Face restoration"), "{}", text_of(plain));
        }
        assert!(wanted[0] != decoded(&plain.images[0]), "{words}: nothing was taken for a face");
        let text = text_of(&found.images[0]);
        assert!(text.contains(words) && text.contains("Engines: "), "{text}");
        assert_eq!(
            text.contains("restoration weight"),
            words.contains("v0") || words.contains("weight"),
            "{text}"
        );
        for daemon in [&apart, &there] {
            let other = drawn(daemon, &params).await;
            assert!(decoded(&other.images[0]) == wanted[0], "{words}");
        }
        let client = here.client().await;
        let file = found.images[0].png.as_ref().expect("a PNG").0.clone();
        let info = within(client.image_info(ImageIn::png(file.clone()))).await.expect("read");
        let again = info.request.expect("a request").into_drawing();
        let again = drawn(&here, &Txt2ImgParams { precision: Precision::F32, ..again }).await;
        assert!(again.images[0].png.as_ref().is_some_and(|png| png.0 == file), "{words}");
    }
}

#[tokio::test]
async fn last_passes_are_restored_and_the_users_picture_is_laid_over_that() {
    let models = library_of_faces(&[]);
    let daemon = start(models.path(), &[], "");
    let client = daemon.client().await;
    // Two passes: pictures of the first stay as they are.
    let hires = Txt2ImgParams {
        enable_hr: true,
        save_images_before_highres_fix: true,
        denoising_strength: Some(0.5),
        hr_upscaler: "Lanczos".into(),
        hr_scale: 1.5,
        ..drawing("GFPGAN", 0.5)
    };
    let [plain, found] = [drawn(&daemon, &without(&hires)).await, drawn(&daemon, &hires).await];
    assert!(decoded(&found.images[0]) == decoded(&plain.images[0]));
    let of_first = restored(&daemon, &plain.images[..1], &hires).await;
    assert!(of_first[0] != decoded(&plain.images[0]), "nothing was taken for a face");
    let wanted = restored(&daemon, &plain.images[1..], &hires).await;
    assert!(decoded(&found.images[1]) == wanted[0]);
    for (image, is_told) in found.images.iter().zip([false, true]) {
        let text = text_of(image);
        assert_eq!(text.contains("Face restoration: GFPGAN"), is_told, "{text}");
        assert_eq!(text.contains("Engines: "), is_told, "{text}");
    }
    // Drawn from a picture, where a mask says so: beside it all stays, and what is drawn there is restored as it is decoded.
    let given = decoded(&plain.images[0]);
    let half = |at: usize| if at % given.width < given.width / 2 { 255 } else { 0 };
    let mask = Picture {
        width: given.width,
        height: given.height,
        channels: Channels::Grey,
        pixels: (0..given.width * given.height).map(half).collect(),
    };
    let png = |picture: &Picture| ImageIn::png(picture.encode(PictureFormat::Png, "").expect("encodes"));
    let begun = |drawing: Txt2ImgParams, mask: Option<ImageIn>| Img2ImgParams {
        drawing: Txt2ImgParams { denoising_strength: Some(0.6), ..drawing },
        init_images: vec![png(&given)],
        mask: mask.map(Into::into),
        mask_blur: Some(0.0),
        inpaint_full_res: false,
        ..Img2ImgParams::default()
    };
    let params = drawing("GFPGAN", 0.5);
    let img2img = async |params: &Img2ImgParams| within(client.img2img(params)).await.expect("drawn");
    let whole = img2img(&begun(without(&params), None)).await;
    let wanted = restored(&daemon, &whole.images, &params).await;
    let found = img2img(&begun(params.clone(), None)).await;
    assert!(decoded(&found.images[0]) == wanted[0] && wanted[0] != decoded(&whole.images[0]));
    let masked = img2img(&begun(params.clone(), Some(png(&mask)))).await;
    let masked = decoded(&masked.images[0]);
    for (at, (pixel, of_given)) in masked.pixels.chunks(3).zip(given.pixels.chunks(3)).enumerate() {
        assert!(half(at) == 255 || pixel == of_given, "pixel {at}");
    }
}

#[tokio::test]
async fn faces_are_told_one_by_one_and_what_cannot_be_restored_is_refused_as_it_is_submitted() {
    let models = library_of_faces(&[]);
    let daemon = start(models.path(), &[], "");
    let client = daemon.client().await;
    let (mut faces, mut restoring) = (vec![], 0);
    within(client.txt2img_with(&drawing("CodeFormer", 0.5), |event| {
        if let EventKind::Progress { stage, plugin, .. } = &event.kind {
            restoring += usize::from(stage.as_deref() == Some("restoring"));
            faces.extend(plugin.iter().filter(|plugin| plugin.name == "upscaler").cloned());
        }
    }))
    .await
    .expect("drawn");
    assert!(restoring > 0, "no picture is told of");
    assert!(faces.iter().any(|plugin| plugin.what.starts_with("face ")), "{faces:?}");
    for (params, error, words) in [
        (drawing("CodeFormer", f64::NAN), ErrorName::InvalidParams, "code_former_weight"),
        (drawing("CodeFormer", 1.5), ErrorName::InvalidParams, "code_former_weight"),
        (drawing("", 0.5), ErrorName::InvalidParams, "face_restoration_model"),
        (
            drawing("CodeFromer", 0.5),
            ErrorName::NotFound,
            "face_restoration_model: 'CodeFromer' is not known; known: GFPGAN, CodeFormer, GFPGANv1.4, codeformer-v0.1.0; did you \
             mean 'CodeFormer'?",
        ),
    ] {
        let text = refused(within(client.txt2img(&params)).await, error);
        assert!(text.contains(words), "{text}");
    }
    for (without, name, error, words) in [
        (
            "GFPGANv1.4",
            "GFPGAN",
            ErrorName::NotFound,
            "GFPGAN needs GFPGANv1.4.pth in the folder GFPGAN of the models",
        ),
        (
            "codeformer-v0.1.0",
            "CodeFormer",
            ErrorName::NotFound,
            "CodeFormer needs codeformer-v0.1.0.pth in the folder Codeformer of the models",
        ),
        (
            "detection_Resnet50_Final",
            "CodeFormer",
            ErrorName::Model,
            "it needs detection_Resnet50_Final.pth, which finds faces",
        ),
    ] {
        let models = library_of_faces(&[without]);
        let daemon = start(models.path(), &[], "");
        let text = refused(within(daemon.client().await.txt2img(&drawing(name, 0.5))).await, error);
        assert!(text.contains(words), "{text}");
    }
}
