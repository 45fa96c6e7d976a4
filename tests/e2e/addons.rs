//! LoRAs, embeddings and hypernetworks through the socket: what is applied, what is told, and what it costs.

use std::fs;
use std::path::Path;

use latentd_client::protocol::{
    ErrorName, ImageIn, LibraryKind, LibraryListParams, LoraParams, OutpaintMethod, OutpaintParams,
    OutputFormat, OutputParams, Precision, Rng, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;
use serde_json::Value;

use crate::harness::{Daemon, Options, fixtures, refused, small, within};

/// A models folder with a tiny checkpoint and what the packages wrote for it.
struct Shop {
    daemon: Daemon,
    models: tempfile::TempDir,
}

const FILES: [(&str, &str); 16] = [
    ("lycoris-locon.safetensors", "Lora/style.safetensors"),
    ("lycoris-lokr.safetensors", "Lora/kr.safetensors"),
    ("kohya.pt", "Lora/old.pt"),
    ("kohya-dyn.safetensors", "Lora/dyn.safetensors"),
    ("kohya-unmatched.safetensors", "Lora/partial.safetensors"),
    ("other-sdxl.safetensors", "Lora/sdxl.safetensors"),
    ("broken-no-down.safetensors", "Lora/half.safetensors"),
    ("broken-nan.safetensors", "Lora/nan.safetensors"),
    ("broken-alpha-huge.safetensors", "Lora/huge.safetensors"),
    ("broken-shape.safetensors", "Lora/wide.safetensors"),
    ("broken-truncated.safetensors", "Lora/cut.safetensors"),
    ("emb-style.pt", "embeddings/emb-style.pt"),
    ("emb-wide.pt", "embeddings/emb-wide.pt"),
    ("hypernet-picture.pt", "hypernetworks/hyper.pt"),
    ("hypernet-linear.pt", "hypernetworks/linear.pt"),
    // What training leaves beside it, which is a pickle too.
    ("hypernet-linear.pt", "hypernetworks/linear.pt.optim"),
];

impl Shop {
    fn start() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let models = tempfile::tempdir().expect("a folder");
        let put = |from: &Path, to: &str| {
            let to = models.path().join(to);
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            fs::copy(from, to).expect("copied");
        };
        put(
            &fixtures().join("Stable-diffusion/tiny-sd1.safetensors"),
            "Stable-diffusion/tiny-sd1.safetensors",
        );
        for (from, to) in FILES {
            put(&fixtures().join("../adapters").join(from), to);
        }
        let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..options });
        Self { daemon, models }
    }

    async fn try_draw(
        &self,
        prompt: &str,
        change: impl FnOnce(&mut Txt2ImgParams),
    ) -> Result<Txt2ImgResult, latentd_client::Error> {
        let mut params = Txt2ImgParams {
            prompt: prompt.into(),
            precision: Precision::F32,
            output: OutputParams { format: OutputFormat::Raw, dir: None },
            ..small(7)
        };
        change(&mut params);
        within(self.daemon.client().await.txt2img(&params)).await
    }

    async fn draw(&self, prompt: &str) -> Txt2ImgResult {
        self.try_draw(prompt, |_| ()).await.expect("drawn")
    }

    async fn pixels(&self, prompt: &str) -> Vec<u8> {
        let drawn = self.draw(prompt).await;
        assert_eq!(drawn.notices, Vec::<String>::new(), "{prompt}");
        pixels(&drawn)
    }
}

fn pixels(drawn: &Txt2ImgResult) -> Vec<u8> {
    drawn.images[0].raw.clone().expect("pixels").0
}

fn infotext(drawn: &Txt2ImgResult) -> &str {
    drawn.images[0].infotext.as_deref().expect("an infotext")
}

fn farthest(a: &[u8], b: &[u8]) -> u8 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or_default()
}

fn lora(name: &str, te: f64, unet: f64) -> LoraParams {
    LoraParams { name: name.into(), te: Some(te), unet: Some(unet), dynamic: None }
}

#[tokio::test]
async fn off_is_the_bytes_of_never_on_and_the_same_is_said_in_several_ways() {
    let shop = Shop::start();
    let plain = shop.pixels("a red circle").await;
    let on = shop.pixels("a red circle<lora:style:0.8:0.6>").await;
    assert!(farthest(&on, &plain) > 8);
    for off in ["a red circle", "a red circle<lora:style:0>", "a red circle<lora:style:te=0:unet=0>"] {
        assert!(shop.pixels(off).await == plain, "{off}");
    }
    for same in [
        "<lora:style:0.8:0.6>a red circle",
        "a red circle<lyco:style:0.8:0.6>",
        "a red circle<lora:style:0.8:unet=0.6>",
        "a red circle<lora:Tiny Alias:0.8:0.6>",
        "a red circle<lora:style:0.8:0.6><lora:kr:0>",
    ] {
        assert!(shop.pixels(same).await == on, "{same}");
    }
    let field = |params: &mut Txt2ImgParams| params.loras = vec![lora("style", 0.8, 0.6)];
    let beside = shop.try_draw("a red circle", field).await.expect("drawn");
    assert!(pixels(&beside) == on);
    assert!(infotext(&beside).starts_with("a red circle<lora:style:0.8:0.6>\n"), "{}", infotext(&beside));
    // Twice half of it is nearly the whole; and neither network by itself is.
    let twice = shop.pixels("a red circle<lora:style:0.4:0.3><lora:style:0.4:0.3>").await;
    assert!(farthest(&twice, &on) <= 1);
    for part in ["a red circle<lora:style:0.8:0>", "a red circle<lora:style:0:0.6>"] {
        let part = shop.pixels(part).await;
        assert!(farthest(&part, &on) > 1 && part != plain);
    }
    // As many ranks as it is told.
    assert!(shop.pixels("x<lora:dyn:1:1:2>").await != shop.pixels("x<lora:dyn:1>").await);
    assert!(shop.pixels("x<lora:dyn:1:dyn=99>").await == shop.pixels("x<lora:dyn:1>").await);
}

#[tokio::test]
async fn a_picture_names_what_was_applied_and_is_drawn_again_from_that() {
    let shop = Shop::start();
    let prompt =
        "<lora:old:0.5> an emb-style circle <lora:nothing:1> <hypernet:linear:0.5> <hypernet:hyper:0.8>";
    let png = |params: &mut Txt2ImgParams| {
        params.output = OutputParams::default();
        params.loras = vec![lora("kr", 0.7, 0.9), lora("style", 1.0, 0.0)];
    };
    let drawn = shop.try_draw(prompt, png).await.expect("drawn");
    assert_eq!(drawn.notices.len(), 1, "{:?}", drawn.notices);
    assert!(drawn.notices[0].starts_with("lora 'nothing' is not in the library"), "{:?}", drawn.notices);
    let text = infotext(&drawn);
    let first =
        "<lora:old:0.5> an emb-style circle  <hypernet:linear:0.5> <lora:kr:0.7:0.9><lora:style:1:0>\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("Hypernet: hyper, Hypernet strength: 0.8, Lora hashes: \"old: "), "{text}");
    let hash = |name: &str| {
        let (_, rest) = text.split_once(&format!("{name}: ")).expect(name);
        rest.split([',', '"']).next().expect("a hash").to_owned()
    };
    for name in ["old", "kr", "style", "emb-style"] {
        assert!(
            hash(name).len() == 12 && hash(name).bytes().all(|digit| digit.is_ascii_hexdigit()),
            "{text}"
        );
    }
    // Of what follows the header; of a pickle of all of it.
    let of = |path: &str, from_header: bool| {
        let bytes = fs::read(shop.models.path().join(path)).expect("read");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let hashed = if from_header { &bytes[8 + header..] } else { &bytes[..] };
        let sha256 = <sha2::Sha256 as sha2::Digest>::digest(hashed);
        sha256.iter().take(6).fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
    };
    assert_eq!(hash("kr"), of("Lora/kr.safetensors", true));
    assert_eq!(hash("old"), of("Lora/old.pt", false));
    assert_eq!(hash("emb-style"), of("embeddings/emb-style.pt", false));

    let client = shop.daemon.client().await;
    let png = drawn.images[0].png.clone().expect("a PNG").0;
    let said = within(client.image_info(ImageIn::png(png)))
        .await
        .expect("read")
        .request
        .expect("a request")
        .into_drawing();
    assert!(said.prompt.first().ends_with("<hypernet:hyper:0.8>"), "{:?}", said.prompt);
    let again = within(client.txt2img(&said)).await.expect("drawn");
    assert!(again.notices.is_empty(), "{:?}", again.notices);
    assert!(again.images[0].png == drawn.images[0].png, "{}", infotext(&again));
}

#[tokio::test]
async fn what_is_not_applied_is_told_or_refused_as_the_request_wants_it() {
    let shop = Shop::start();
    let plain = shop.pixels("a red circle").await;
    let (missing, model, wrong, unsupported) =
        (ErrorName::NotFound, ErrorName::Model, ErrorName::InvalidParams, ErrorName::Unsupported);
    for (more, name, beginning, is_plain) in [
        ("<lora:nothing:1>", missing, "lora 'nothing' is not in the library", true),
        ("<hypernet:nothing:1>", missing, "hypernetwork 'nothing' is not in the library", true),
        ("<lora:style:1e39>", wrong, "<lora:style:1e39>: 1e39 is beyond what can be computed with", true),
        ("<hypernet:hyper:0:te=3:9>", unsupported, "<hypernet:hyper:0:te=3:9>: te=3, 9 is not known", true),
        ("<lora:style:strong>", wrong, "<lora:style:strong>: 'strong' is no number", true),
        ("<hypernet:hyper:x>", wrong, "<hypernet:hyper:x>: 'x' is no number", true),
        ("<lora:style:0:lbw=IN>", unsupported, "<lora:style:0:lbw=IN>: lbw=IN is not known", true),
        (
            "<lora:sdxl:1>",
            model,
            "lora 'sdxl' is for SDXL and was left out: this model has no place for any of its 9",
            true,
        ),
        (
            "<lora:wide:1>",
            model,
            "lora 'wide' was left out: 2 of its 2 tensors do not fit this model, the first lora_unet_",
            true,
        ),
        (
            "<lora:partial:1>",
            model,
            "lora 'partial' was applied in part: this model has no place for 6 of its 12",
            false,
        ),
        ("<other:x:1>", unsupported, "<other:x:1>: networks of extensions cannot be applied", true),
        (" emb-wide", model, "embedding 'emb-wide' ", false),
    ] {
        let prompt = format!("a red circle{more}");
        let drawn = shop.draw(&prompt).await;
        assert_eq!(drawn.notices.len(), 1, "{prompt}: {:?}", drawn.notices);
        assert!(drawn.notices[0].starts_with(beginning), "{prompt}: {:?}", drawn.notices);
        assert_eq!(pixels(&drawn) == plain, is_plain, "{prompt}");
        let strict = shop.try_draw(&prompt, |params| params.strict = true).await;
        let text = refused(strict, name);
        assert!(text.starts_with(beginning), "{text}");
    }
    let strict = shop.try_draw("a red circle", |params| params.strict = true).await.expect("drawn");
    assert!(pixels(&strict) == plain);
}

/// Names that no prompt can say, brackets that nothing closes: what a picture tells draws it again all the same.
#[tokio::test]
async fn what_a_picture_tells_draws_it_again_whatever_the_names() {
    let shop = Shop::start();
    let loras = shop.models.path().join("Lora");
    for name in ["eq=name", "co:lon", "gt>x", "nope>y"] {
        fs::copy(loras.join("style.safetensors"), loras.join(format!("{name}.safetensors"))).expect("copied");
    }
    let client = shop.daemon.client().await;
    within(client.rescan()).await.expect("scanned");
    let path = loras.join("style.safetensors");
    let whole = path.to_str().expect("a path");
    for (prompt, beside, told) in [
        ("a cat", &["eq=name", "style"][..], "a cat\n"),
        ("a cat", &["co:lon"], "a cat\n"),
        ("a cat", &["gt>x"], "a cat\n"),
        ("a cat", &[whole], "a cat<lora:style:0.5>\n"),
        ("a <foo:bar, dog", &["style"], "a <foo:bar, dog\n"),
        (
            "<hypernet:linear:0.5> a <hypernet:hyper:0.7> b <foo:1",
            &[],
            "<hypernet:linear:0.5> a <hypernet:hyper:0.7> b <foo:1\n",
        ),
        ("<hypernet:hyper:0.7> b <foo:1", &["kr"], "<hypernet:hyper:0.7> b <foo:1\n"),
        ("<lo<lora:nope:1>ra:style> a cat", &[], "<lo<lora:nope:1>ra:style> a cat\n"),
        ("<hypernet:hyper:0.7> a cat", &["kr"], " a cat<lora:kr:0.5>\n"),
    ] {
        let png = |params: &mut Txt2ImgParams| {
            params.output = OutputParams::default();
            params.loras = beside.iter().map(|name| lora(name, 0.5, 0.5)).collect();
        };
        let drawn = shop.try_draw(prompt, png).await.expect("drawn");
        let text = infotext(&drawn);
        assert!(text.trim_start().starts_with(told.trim_start()) && !text.contains(whole), "{text}");
        let png = drawn.images[0].png.clone().expect("a PNG").0;
        let said = within(client.image_info(ImageIn::png(png)))
            .await
            .expect("read")
            .request
            .expect("a request")
            .into_drawing();
        let again = within(client.txt2img(&said)).await.expect("drawn");
        assert!(again.images[0].png == drawn.images[0].png, "{text}\n{}", infotext(&again));
    }
}

/// Of names that overlap only those are told that were meant; what is broken is no silence.
#[tokio::test]
async fn an_embedding_that_was_meant_and_cannot_be_used_is_told() {
    let shop = Shop::start();
    let folder = shop.models.path().join("embeddings");
    fs::copy(folder.join("emb-wide.pt"), folder.join("cat.pt")).expect("copied");
    fs::copy(folder.join("emb-style.pt"), folder.join("cat house.pt")).expect("copied");
    fs::write(folder.join("hollow.pt"), b"").expect("written");
    let whole = fs::read(fixtures().join("../adapters/emb-params.safetensors")).expect("read");
    fs::write(folder.join("trunky.safetensors"), &whole[..whole.len() - 3]).expect("written");
    within(shop.daemon.client().await.rescan()).await.expect("scanned");
    let drawn = shop.try_draw("a cat house", |params| params.strict = true).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    assert!(
        infotext(&drawn).contains("TI hashes: \"cat house: ")
            || infotext(&drawn).contains("TI hashes: cat house")
    );
    for (prompt, beginning) in [
        ("a cat", "embedding 'cat' "),
        ("a hollow", "embedding 'hollow' cannot be used: "),
        ("a trunky tree", "embedding 'trunky' cannot be used: "),
    ] {
        let drawn = shop.draw(prompt).await;
        assert!(matches!(&drawn.notices[..], [one] if one.starts_with(beginning)), "{:?}", drawn.notices);
        refused(shop.try_draw(prompt, |params| params.strict = true).await, ErrorName::Model);
    }
}

/// A few bytes may claim any number of ranks.
#[tokio::test]
async fn more_ranks_than_make_sense_are_refused() {
    let shop = Shop::start();
    let (up, down) = ("lora_up.weight", "lora_down.weight");
    let layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
    let tensor = |from: usize| format!(r#""dtype":"F16","data_offsets":[{from},{}]"#, from + 5000 * 32 * 2);
    let header = format!(
        r#"{{"{layer}.{up}":{{"shape":[32,5000],{}}},"{layer}.{down}":{{"shape":[5000,32],{}}}}}"#,
        tensor(0),
        tensor(5000 * 32 * 2)
    );
    let bytes =
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; 5000 * 32 * 4]].concat();
    fs::write(shop.models.path().join("Lora/broad.safetensors"), bytes).expect("written");
    within(shop.daemon.client().await.rescan()).await.expect("scanned");
    let text = refused(shop.try_draw("a cat<lora:broad:1>", |_| ()).await, ErrorName::Model);
    assert!(text.contains("has rank 5000; up to 4096"), "{text}");
}

#[tokio::test]
async fn what_is_broken_is_named_and_costs_one_request() {
    let shop = Shop::start();
    let plain = shop.pixels("a red circle").await;
    for (name, part) in [
        (
            "half",
            "has lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight without",
        ),
        ("nan", "lora_up.weight holds NaN or infinite weights"),
        ("huge", "infinite at a strength of 1"),
    ] {
        let text =
            refused(shop.try_draw(&format!("a red circle<lora:{name}:1>"), |_| ()).await, ErrorName::Model);
        assert!(text.contains(&format!("{name}.safetensors")) && text.contains(part), "{text}");
        assert!(shop.pixels("a red circle").await == plain, "after {name}");
    }
    // A file that is cut off is no entry; that it is there is said.
    let drawn = shop.draw("a red circle<lora:cut:1>").await;
    assert!(
        drawn.notices[0].contains("cut.safetensors: ") && drawn.notices[0].contains("is cut off"),
        "{:?}",
        drawn.notices
    );
    // Together with one that is sound nothing is applied.
    refused(shop.try_draw("a red circle<lora:style:1><lora:nan:1>", |_| ()).await, ErrorName::Model);
    assert!(shop.pixels("a red circle").await == plain);
}

#[tokio::test]
async fn a_change_costs_what_changed() {
    let shop = Shop::start();
    let made = || {
        let log = shop.daemon.log();
        let of = |kind: &str| log.matches(&format!("changed name=\"tiny-sd1\" kind={kind}")).count();
        (of("text encoder"), of("UNet"))
    };
    for (prompt, expected) in [
        ("<lora:style:0.8:0.6>", (1, 1)),
        ("<lora:style:0.8:0.6>", (1, 1)),
        ("other words <lora:style:0.8:0.6>", (1, 1)),
        ("", (1, 1)),
        ("<lora:style:0.5:0.6>", (2, 1)),
        ("<lora:style:0.8:0.6>", (2, 1)),
        ("<lora:style:0:0.6>", (2, 1)),
        ("<lora:style:0.8:0.7>", (2, 2)),
        ("<lora:style:0.8:0.7><lora:kr:1>", (3, 3)),
        ("<lora:kr:1><lora:style:0.8:0.7>", (4, 4)),
        ("<lora:style:0.8:0.6>", (4, 4)),
    ] {
        shop.pixels(prompt).await;
        shop.daemon.client().await.ping().await.expect("answered");
        assert_eq!(made(), expected, "{prompt}");
    }
}

/// With room for little beside the checkpoint what lies idle goes, and every picture is the same as with more.
#[tokio::test]
async fn sets_come_and_go_within_the_budget() {
    let wide = Shop::start();
    let sets: Vec<String> = (1..=6).map(|step| format!("x<lora:style:{}>", f64::from(step) * 0.25)).collect();
    let mut expected = vec![];
    for set in &sets {
        expected.push(wide.pixels(set).await);
    }
    let plain = wide.pixels("x").await;
    // As little as one of them can be drawn with.
    let mut bytes = 1u64 << 20;
    let narrow = loop {
        let config = format!("memory_bytes = {bytes}\n");
        let narrow = Shop::with(Options { config, ..Options::default() });
        let Err(error) = narrow.try_draw(&sets[0], |_| ()).await else { break narrow };
        let text = refused::<()>(Err(error), ErrorName::Memory);
        let needed = text.split_once("needs about ").and_then(|(_, rest)| rest.split_once(" bytes"));
        bytes = needed.and_then(|(needed, _)| needed.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    };
    for round in 0..3 {
        for (set, expected) in sets.iter().zip(&expected) {
            assert!(narrow.pixels(set).await == *expected, "{set} in round {round}");
        }
        assert!(narrow.pixels("x").await == plain, "round {round}");
    }
    assert!(narrow.daemon.log().contains("unloaded to make room"), "{}", narrow.daemon.log());
}

#[tokio::test]
async fn what_an_optimiser_left_is_neither_an_entry_nor_a_problem() {
    let shop = Shop::start();
    let list =
        within(shop.daemon.client().await.library(&LibraryListParams::default())).await.expect("listed");
    let names = list.entries.iter().filter(|entry| entry.kind == LibraryKind::Hypernetwork);
    assert_eq!(names.map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["hyper", "linear"]);
    assert!(list.problems.iter().all(|problem| !problem.path.contains("optim")), "{:?}", list.problems);
}

/// Whatever they come in: pickles, safetensors, pictures with a text or with the numbers in their pixels.
#[tokio::test]
async fn embeddings_are_found_by_the_tokens_of_their_names() {
    let shop = Shop::start();
    for name in [
        "Emb One.pt",
        "emb-three.bin",
        "emb-params.safetensors",
        "emb-text.png",
        "emb-pixels.webp",
        "emb-plain.png",
        "emb-broken-bomb.png",
        "emb-text.preview.png",
    ] {
        let (from, to) = (fixtures().join("../adapters").join(name), shop.models.path().join("embeddings"));
        fs::copy(from, to.join(name)).expect("copied");
    }
    within(shop.daemon.client().await.rescan()).await.expect("rescanned");
    let plain = shop.pixels("a red circle").await;
    for (words, name) in [
        ("emb one", "Emb One"),
        ("EMB ONE", "Emb One"),
        ("(emb-three:1.3)", "emb-three"),
        ("a emb-params, b", "emb-params"),
        ("in emb-text.png", "in emb-text.png"),
        ("in emb-pixels.webp", "in emb-pixels.webp"),
    ] {
        let told = format!("TI hashes: \"{name}: ");
        let drawn = shop.draw(&format!("a red circle {words}")).await;
        assert_eq!(drawn.notices, Vec::<String>::new());
        assert!(infotext(&drawn).contains(&told) && pixels(&drawn) != plain, "{}", infotext(&drawn));
        // What is steered away from has them too.
        let negative = |params: &mut Txt2ImgParams| params.negative_prompt = words.into();
        let drawn = shop.try_draw("a red circle", negative).await.expect("drawn");
        assert!(infotext(&drawn).contains(&told) && pixels(&drawn) != plain, "{}", infotext(&drawn));
    }
    for words in ["emb", "emb-thre", "emb (one:1.2)", "emb-plain"] {
        assert!(!infotext(&shop.draw(words).await).contains("TI hashes"), "{words}");
    }
}

/// The whole way, against pictures of the reference pipeline: a hypernetwork at 0.8, an embedding, two LoRAs.
#[tokio::test]
async fn pictures_are_those_of_the_reference_pipeline() {
    let shop = Shop::start();
    let folder = fixtures().join("../adapters");
    let rows: Value =
        serde_json::from_slice(&fs::read(folder.join("pictures.json")).expect("read")).expect("JSON");
    for row in rows.as_array().expect("rows") {
        let name = row["name"].as_str().expect("a name");
        let networks = match name {
            "hypernetwork" => "<hypernet:hyper:0.8>",
            "networks" => "<lora:style:0.8:0.6><lora:kr:0.7:0.9>",
            _ => "",
        };
        let prompt = format!("{}{networks}", row["prompt"].as_str().expect("a prompt"));
        let as_there = |params: &mut Txt2ImgParams| {
            params.negative_prompt = row["negative_prompt"].as_str().expect("text").into();
            params.seed = row["seed"].as_i64().expect("a seed");
            params.steps = 6;
            params.sampler_name = "Euler".into();
            params.pad_cond_uncond = true;
        };
        let drawn = shop.try_draw(&prompt, as_there).await.expect("drawn");
        assert_eq!(drawn.notices, Vec::<String>::new());
        let png = fs::read(folder.join(row["file"].as_str().expect("a file"))).expect("read");
        let wanted = Picture::decode(&png, 1 << 20).expect("decodes").pixels;
        let found = pixels(&drawn);
        assert_eq!(found.len(), wanted.len());
        let squares: f64 =
            found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let decibels = 10.0 * (255.0f64.powi(2) / (squares / found.len() as f64).max(1e-9)).log10();
        assert!(decibels >= 60.0, "{name}: {decibels:.1} dB");
    }
}

/// Jobs compute on the daemon's own threads, whose number its user chose.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_job_starts_threads_of_its_own() {
    let shop = Shop::start();
    let client = shop.daemon.client().await;
    let tasks = format!("/proc/{}/task", shop.daemon.process.id());
    // A pool's threads have the name of the one that starts it, which is that of jobs.
    let engines = || {
        let threads = fs::read_dir(&tasks).expect("it lives");
        let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).ok();
        threads.filter_map(|thread| name(thread.ok()?)).filter(|name| name.trim() == "engine").count()
    };
    assert_eq!(engines(), 1);
    for (prompt, sampler) in [
        ("[red:blue:0.5] (circle:1.2)", "Euler a"),
        ("red <lora:style:0.5>", "Euler a"),
        ("red <hypernet:hyper:0.5>", "Euler a"),
        ("red emb-style", "Euler a"),
        ("red", "DPM++ SDE"),
        ("red", "DPM++ 3M SDE"),
    ] {
        for rng in [Rng::Nv, Rng::Cpu] {
            let params = Txt2ImgParams {
                prompt: prompt.into(),
                sampler_name: sampler.into(),
                rng,
                subseed_strength: 0.5,
                ..small(2)
            };
            within(client.txt2img(&params)).await.expect("drawn");
            assert_eq!(engines(), 1, "{prompt}, {sampler}, {rng:?}");
        }
    }
    for method in OutpaintMethod::ALL {
        let image = ImageIn::raw(vec![90; 64 * 64 * 3], 64, 64, 3);
        let drawing = small(2);
        let params = OutpaintParams {
            drawing,
            image,
            right: 32,
            method,
            mask_blur: Some(1),
            ..OutpaintParams::default()
        };
        within(client.outpaint(&params)).await.expect("drawn");
        assert_eq!(engines(), 1, "{method:?}");
    }
}
