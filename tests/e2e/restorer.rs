//! Faces restored by the plugin that comes with latentd, through the socket: GFPGAN and `CodeFormer` over facexlib's networks, held
//! against A1111's order of work over spandrel's and facexlib's (`tests/fixtures/restore_reference.py`); the same bytes wherever it
//! runs; and what is missing told as a request comes.

use std::fs;
use std::path::Path;

use latentd_client::protocol::{ErrorName, ImageIn, LibraryKind, LibraryListParams, UpscaleParams};
use latentd_models::image::{Channels, Picture, PictureFormat};

use crate::harness::{Daemon, Options, fixtures, refused, within};
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
    let text = refused(within(here.client().await.upscale(&params)).await, ErrorName::InvalidParams);
    assert!(text.contains("too long to look for faces in"), "{text}");
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
