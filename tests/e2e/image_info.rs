//! What a picture says of how it was made, and whether that draws it again.

use std::path::{Path, PathBuf};

use latentd_client::protocol::{
    ErrorName, ImageIn, JobListParams, OutputFormat, OutputParams, Precision, RepeatRequest, Rng,
    Txt2ImgParams,
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
        let params = info.request.expect("a request").into_drawing();
        assert_eq!((&params.prompt, params.steps), (&request.prompt, request.steps));
        let again = within(client.txt2img(&params)).await.expect("drawn").images.remove(0);
        assert!(again.png == drawn.png, "the same bytes: {params:?}");
        // From a file it is the same.
        let file = daemon.folder.path().join("picture.png");
        std::fs::write(&file, &png).expect("written");
        let of_file =
            within(client.image_info(ImageIn::path(file.display().to_string()))).await.expect("read");
        assert_eq!(
            (of_file.infotext, of_file.request.map(RepeatRequest::into_drawing)),
            (drawn.infotext.clone(), Some(params.clone()))
        );
        // And from what was sent once.
        let blob = within(client.put_blob(png)).await.expect("kept").blob;
        let of_blob = within(client.image_info(ImageIn::blob(blob))).await.expect("read");
        assert_eq!(
            (of_blob.infotext, of_blob.request.map(RepeatRequest::into_drawing)),
            (drawn.infotext, Some(params))
        );
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
        assert_eq!((info.infotext, info.request), (None, None));
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

#[tokio::test]
async fn generate_repeats_a_picture_but_for_its_flags() {
    let daemon = Daemon::start();
    let folder = daemon.folder.path();
    let run = |arguments: &[&str]| daemon.command(arguments).output().expect("ran");
    let pixels = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).expect("read");
        latentd_models::image::Picture::decode(&bytes, 1 << 20).expect("decodes").pixels
    };
    let first = [
        "generate",
        "a red circle",
        "-n",
        "a dog",
        "-o",
        "a.webp",
        "--steps",
        "2",
        "-W",
        "64",
        "-H",
        "80",
        "--seed",
        "7",
        "--subseed-strength",
        "0.25",
        "--sampler-name",
        "DPM++ 2M Karras",
        "--rng",
        "CPU",
        "--clip-skip",
        "2",
        "--tiling",
        "--cfg-scale",
        "5.5",
    ];
    let drawn = run(&first);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    // In each format, from each.
    for (from, to) in [("a.webp", "b.png"), ("b.png", "c.webp"), ("c.webp", "d.jpg"), ("d.jpg", "e.png")] {
        let again = run(&["generate", "--from", from, "-o", to]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(!String::from_utf8_lossy(&again.stderr).contains("is not drawn"), "all of it is drawn");
        if !to.ends_with("jpg") {
            assert!(pixels(to) == pixels("a.webp"), "{to}");
        }
    }
    let text = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).expect("read");
        latentd_models::image::read_infotext(&bytes).expect("a picture").expect("a text")
    };
    assert_eq!(text("e.png"), text("a.webp"));
    let changed = run(&[
        "generate",
        "a blue square",
        "--from",
        "a.webp",
        "-o",
        "f.png",
        "--seed",
        "8",
        "--tiling=false",
    ]);
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    let (before, after) = (text("a.webp"), text("f.png"));
    assert!(before.contains("Seed: 7, ") && before.contains("Tiling: True"), "{before}");
    let expected = before
        .replace("a red circle", "a blue square")
        .replace("Seed: 7, ", "Seed: 8, ")
        .replace("Tiling: True, ", "");
    assert_eq!(after, expected);

    // What nobody can ask for is said.
    let white = latentd_models::image::RgbImage { width: 8, height: 8, pixels: vec![255; 192] };
    let foreign =
        "a fox\nSteps: 1, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, ADetailer model: face.pt";
    let png = latentd_models::image::encode_png(&white, foreign).expect("encodes");
    std::fs::write(folder.join("foreign.png"), png).expect("written");
    let drawn = run(&["generate", "--from", "foreign.png", "-o", "g.png"]);
    let said = String::from_utf8_lossy(&drawn.stderr).into_owned();
    assert!(drawn.status.success() && said.contains("this is not drawn: ADetailer model"), "{said}");
    for (arguments, code, expected) in [
        (&["generate", "--from", "foreign.png", "--sampler-name", "none"][..], 2, "'none' is not known"),
        (&["generate", "--from", &picture("rgb.png").display().to_string()], 1, "give a prompt"),
        (&["generate", "--from", "nothing.png"], 2, "cannot be read"),
        (&["generate"], 2, "PROMPT"),
    ] {
        let refused = run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(code) && said.contains(expected), "{arguments:?}: {said}");
    }
}

/// Chunks of a PNG behind its header.
fn with_texts(texts: &[(&str, &str)]) -> Vec<u8> {
    let white = latentd_models::image::RgbImage { width: 64, height: 64, pixels: vec![255; 64 * 64 * 3] };
    let mut png = latentd_models::image::encode_png(&white, "").expect("encodes");
    for (keyword, text) in texts {
        let chunk = [b"tEXt", keyword.as_bytes(), b"\0", text.as_bytes()].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&chunk);
        let length = (chunk.len() as u32 - 4).to_be_bytes();
        png.splice(33..33, [&length[..], &chunk, &crc.sum().to_be_bytes()].concat());
    }
    png
}

#[tokio::test]
async fn pictures_of_other_programs_are_told_as_they_are() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let ask = async |texts: &[(&str, &str)]| {
        within(client.image_info(ImageIn::png(with_texts(texts)))).await.expect("read")
    };
    let graph = r#"{"3": {"class_type": "KSampler"}}"#;
    let comfy = ask(&[("prompt", graph), ("workflow", "{}")]).await;
    assert_eq!((comfy.infotext, comfy.request), (None, None));
    assert_eq!(comfy.texts.get("prompt").map(String::as_str), Some(graph));

    let comment = r#"{"steps": 2, "sampler": "k_euler", "seed": 5, "scale": 6.0, "uc": "bad"}"#;
    let novel = ask(&[("Software", "NovelAI"), ("Description", "a fox"), ("Comment", comment)]).await;
    let text = "a fox\nNegative prompt: bad\nSteps: 2, Sampler: Euler, CFG scale: 6.0, Seed: 5, Size: 64x64, Clip skip: 2, ENSD: 31337";
    assert_eq!(novel.infotext.as_deref(), Some(text));
    let params = novel.request.expect("a request").into_drawing();
    assert_eq!((params.sampler_name.as_str(), params.steps, params.clip_skip), ("Euler", 2, 2));
    assert_eq!(novel.texts.get("Comment").map(String::as_str), Some(comment));
    within(client.txt2img(&params)).await.expect("can be drawn");

    let said = "a fox\nSteps: 2, Sampler: Euler, CFG scale: 6, Seed: 5, Size: 64x64, ControlNet 0: \"a, b\"";
    let a1111 = ask(&[("parameters", said), ("Title", "x")]).await;
    assert_eq!(a1111.others.into_iter().collect::<Vec<_>>(), [("ControlNet 0".into(), "a, b".into())]);
    assert_eq!(a1111.texts.into_iter().collect::<Vec<_>>(), [("Title".into(), "x".into())]);
}

/// Prompts that look like a text's other parts, in each format: what is read draws the same bytes.
#[tokio::test]
async fn hostile_prompts_come_back_and_draw_the_same() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let steps = "Steps: 20, Sampler: DDIM, CFG scale: 1, Seed: 99, Size: 128x128";
    let requests = [
        Txt2ImgParams { prompt: format!("a cat\nNegative prompt: dog\n{steps}").into(), ..small(1) },
        Txt2ImgParams {
            negative_prompt: format!("{steps}\n\n🗼 \"x\", <lora>:").into(),
            subseed_strength: 0.1,
            ..small(2)
        },
        Txt2ImgParams {
            prompt: "Negative prompt: ".into(),
            negative_prompt: "Exact prompt: \"y\"".into(),
            seed_resize_from_w: 48,
            seed_resize_from_h: 72,
            rng: Rng::Cpu,
            tiling_x: true,
            ..small(3)
        },
        Txt2ImgParams { prompt: "\\ \nb, \\\\n \u{3000}\t".into(), sampler_name: "DDIM".into(), ..small(4) },
    ];
    for request in &requests {
        for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Webp] {
            let output = OutputParams { format, dir: None };
            let params = Txt2ImgParams { output: output.clone(), ..request.clone() };
            let drawn = within(client.txt2img(&params)).await.expect("drawn").images.remove(0);
            let (png, jpeg, webp) = (drawn.png.clone(), drawn.jpeg.clone(), drawn.webp.clone());
            let image = ImageIn { png, jpeg, webp, ..ImageIn::default() };
            let info = within(client.image_info(image)).await.expect("read");
            assert_eq!(info.infotext, drawn.infotext);
            assert!(info.others.is_empty() && info.texts.is_empty(), "{info:?}");
            let said = Txt2ImgParams { output, ..info.request.expect("a request").into_drawing() };
            let lines = |text: &str| text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
            assert_eq!(lines(said.prompt.first()), lines(request.prompt.first()));
            assert_eq!(lines(said.negative_prompt.first()), lines(request.negative_prompt.first()));
            let again = within(client.txt2img(&said)).await.expect("drawn").images.remove(0);
            assert_eq!(again, drawn, "{request:?}");
        }
    }
    // Such prompts stand in a text twice.
    let params = Txt2ImgParams {
        prompt: "\nNegative prompt: x".repeat(1000).into(),
        output: OutputParams { format: OutputFormat::Jpeg, dir: None },
        ..small(1)
    };
    let text = refused(within(client.txt2img(&params)).await, ErrorName::InvalidParams);
    assert!(text.contains("use png or webp"), "{text}");
}
