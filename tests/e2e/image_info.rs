//! What a picture says of how it was made, and whether that draws it again.

use std::path::{Path, PathBuf};

use latentd_client::protocol::{
    ErrorName, ImageIn, JobListParams, OutputFormat, OutputParams, Precision, Rng, Txt2ImgParams,
};

use crate::harness::{Daemon, map, refused, small, within};

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pictures").join(name)
}

#[tokio::test]
async fn what_a_picture_says_draws_it_again() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let requests = [
        small(7),
        Txt2ImgParams {
            prompt: "a (cat:1.2), 3: \"x\"\nand more".into(),
            negative_prompt: "dog".into(),
            ..small(-1)
        },
        Txt2ImgParams {
            sampler_name: "DPM++ 2M Karras".into(),
            clip_skip: 2,
            cfg_scale: 5.5,
            height: Some(96),
            rng: Rng::Cpu,
            pad_cond_uncond: true,
            precision: Precision::Bf16,
            ..small(1 << 40)
        },
    ];
    for request in &requests {
        let drawn = within(client.txt2img(request)).await.expect("drawn").images.remove(0);
        let png = drawn.png.clone().expect("a PNG").0;
        let info = within(client.image_info(ImageIn::png(png.clone()))).await.expect("read");
        assert_eq!(info.infotext, drawn.infotext);
        let params = info.params.expect("a request");
        assert_eq!((&params.prompt, params.steps), (&request.prompt, request.steps));
        let again = within(client.txt2img(&params)).await.expect("drawn").images.remove(0);
        assert!(again.png == drawn.png, "the same bytes: {params:?}");
        // From a file it is the same.
        let file = daemon.folder.path().join("picture.png");
        std::fs::write(&file, &png).expect("written");
        let of_file =
            within(client.image_info(ImageIn::path(file.display().to_string()))).await.expect("read");
        assert_eq!((of_file.infotext, of_file.params), (drawn.infotext.clone(), Some(params.clone())));
        // And from what was sent once.
        let blob = within(client.put_blob(png)).await.expect("kept").blob;
        let of_blob = within(client.image_info(ImageIn::blob(blob))).await.expect("read");
        assert_eq!((of_blob.infotext, of_blob.params), (drawn.infotext, Some(params)));
    }
    let jobs = within(client.jobs(&JobListParams::default())).await.expect("listed");
    assert_eq!(jobs.len(), 2 * requests.len(), "to look is no job");
}

#[tokio::test]
async fn pictures_of_each_form_are_taken_and_others_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let read = |name: &str| std::fs::read(picture(name)).expect("read");
    let said = std::fs::read_to_string(picture("infotext.txt")).expect("read");
    for image in [
        ImageIn::jpeg(read("infotext.jpg")),
        ImageIn::webp(read("infotext.webp")),
        ImageIn::png(read("infotext-itxt.png")),
        ImageIn::path(std::path::absolute(picture("infotext.jpg")).expect("absolute").display().to_string()),
    ] {
        let info = within(client.image_info(image.clone())).await.expect("read");
        assert_eq!(info.infotext.as_deref().map(str::trim_end), Some(said.trim_end()), "{image:?}");
    }
    for image in [ImageIn::png(read("rgb.png")), ImageIn::raw(vec![0; 2 * 3 * 4], 2, 3, 4)] {
        let info = within(client.image_info(image)).await.expect("read");
        assert_eq!((info.infotext, info.params), (None, None));
    }
    let both =
        ImageIn { jpeg: Some(latentd_client::protocol::Bytes(vec![1])), ..ImageIn::png(read("rgb.png")) };
    for (image, expected) in [
        (ImageIn::default(), "give one of png, jpeg, webp, path, blob, or raw"),
        (both, "more than one picture; give one of png, jpeg, webp, path, blob, or raw"),
        (ImageIn::png(read("rgb.jpg")), "image.png: is jpeg"),
        (ImageIn::png(read("rgb.png")[..20].to_vec()), "image: "),
        (ImageIn::path("picture.png"), "absolute"),
        (ImageIn::path(daemon.socket.display().to_string()), "cannot be read"),
    ] {
        let text = refused(within(client.image_info(image)).await, ErrorName::InvalidParams);
        assert!(text.contains(expected), "{text}");
    }
    let mut raw = crate::harness::Raw::connect(&daemon);
    let blob = map(&[("image", map(&[("pgn", rmpv::Value::Binary(vec![1]))]))]);
    let error = raw.call("image.info", &blob).expect_err("refused");
    assert!(error.text.contains("did you mean 'image.png'?"), "{error}");
}

#[tokio::test]
async fn the_command_line_prints_it() {
    let daemon = Daemon::start();
    let output =
        OutputParams { format: OutputFormat::File, dir: Some(daemon.folder.path().display().to_string()) };
    let params = Txt2ImgParams { output, ..small(3) };
    let drawn = within(daemon.client().await.txt2img(&params)).await.expect("drawn").images.remove(0);
    let path = PathBuf::from(drawn.path.expect("a path"));
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    let run = |arguments: &[&str]| daemon.command(arguments).output().expect("ran");
    let text = run(&["info", name]);
    assert_eq!(String::from_utf8_lossy(&text.stdout), format!("{}\n", drawn.infotext.expect("an infotext")));
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["info", name, "--json"]).stdout).expect("JSON");
    assert_eq!((&json["params"]["seed"], &json["params"]["steps"]), (&3.into(), &2.into()));
    let silent = run(&["info", &picture("rgb.png").display().to_string()]);
    assert_eq!(silent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&silent.stderr).contains("does not say how it was made"));
    assert_eq!(run(&["info", "none.png"]).status.code(), Some(2));
}
