//! Requests that plugins rewrite: the example that picks prompts, and plugins that answer what nobody should.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, ImageIn, ImageOut, Img2ImgParams, JobListParams, JobState, OutpaintParams, PluginParams,
    Precision, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build, install};

/// Dynamic Prompts, tested and built where it was copied to; gives the library's bytes.
fn dynamic_prompts() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let example = repository.join("plugin-api/examples/dynamic-prompts");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("src")).expect("made");
        for file in
            ["dynamic-prompts.toml", "src/lib.rs", "src/pick.rs", "src/template.rs", "src/wildcards.rs"]
        {
            std::fs::copy(example.join(file), folder.path().join(file)).expect("copied");
        }
        let manifest = std::fs::read_to_string(example.join("Cargo.toml")).expect("read");
        let api = format!("path = \"{}\"", repository.join("plugin-api").display());
        std::fs::write(folder.path().join("Cargo.toml"), manifest.replace("path = \"../..\"", &api))
            .expect("written");
        for command in ["test", "build"] {
            let mut cargo = Command::new(env!("CARGO"));
            // Nor is it built as our own crates are.
            for variable in ["RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS", "RUSTFLAGS"] {
                cargo.env_remove(variable);
            }
            let output = cargo
                .args([command, "--offline"])
                .current_dir(folder.path())
                .env("CARGO_TARGET_DIR", folder.path().join("target"))
                .output()
                .expect("cargo");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        }
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let library = format!("target/debug/{prefix}dynamic_prompts{suffix}");
        std::fs::read(folder.path().join(library)).expect("built")
    })
}

/// The plugin that answers whatever it is told to.
fn rewriter() -> Vec<u8> {
    build("tests/fixtures/plugins/rewriter.c", &["-std=gnu99"])
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams { precision: Precision::F32, ..small(3) }
}

/// A request with a plugin more.
fn with(plugin: &str, params: Json, mut request: Txt2ImgParams) -> Txt2ImgParams {
    let Json::Object(params) = params else { panic!("no object") };
    request.plugins.insert(plugin.to_owned(), PluginParams::from_json(params));
    request
}

/// Answers these patches.
fn rewritten(patches: &[Json], request: Txt2ImgParams) -> Txt2ImgParams {
    with("rewriter", json!({"replies": patches.iter().map(hex).collect::<Vec<_>>()}), request)
}

fn hex(patch: &Json) -> String {
    digits(&rmp_serde::to_vec_named(patch).expect("encodes"))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"))
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

async fn fails(daemon: &Daemon, params: &Txt2ImgParams, name: ErrorName) -> String {
    refused(within(daemon.client().await.txt2img(params)).await, name)
}

fn png(image: &ImageOut) -> &[u8] {
    &image.png.as_ref().expect("a PNG").0
}

fn pixels(image: &ImageOut) -> Vec<u8> {
    Picture::decode(png(image), 1 << 24).expect("decodes").pixels
}

/// The pictures of plain requests with these prompts and seeds.
async fn expected(daemon: &Daemon, prompts: &[(&str, i64)]) -> Vec<Vec<u8>> {
    let mut all = vec![];
    for (prompt, seed) in prompts {
        let request = Txt2ImgParams { prompt: (*prompt).into(), seed: *seed, ..plain() };
        all.push(pixels(&draw(daemon, &request).await.images[0]));
    }
    all
}

fn all_pixels(drawn: &Txt2ImgResult) -> Vec<Vec<u8>> {
    drawn.images.iter().map(pixels).collect()
}

/// The prompt in a picture's text.
fn told_prompt(image: &ImageOut) -> String {
    let text = image.infotext.as_deref().expect("told");
    text.split("\nNegative prompt: ")
        .next()
        .and_then(|text| text.split("\nSteps: ").next())
        .unwrap_or(text)
        .to_owned()
}

#[tokio::test]
async fn each_picture_has_the_prompt_that_its_seed_picks() {
    let daemon = Daemon::start();
    install(&daemon, "dynamic_prompts.so", dynamic_prompts());
    let template = "a {red|blue|green} __shape__ on a {black|white} background";
    let params = json!({"wildcards": {"shape": ["circle", "square", "star"]}});
    let request = |seed| Txt2ImgParams {
        prompt: template.into(),
        negative_prompt: "{blurry|dark}".into(),
        batch_size: 2,
        n_iter: 2,
        ..Txt2ImgParams { seed, ..plain() }
    };
    let drawn = draw(&daemon, &with("dynamic-prompts", params.clone(), request(3))).await;
    assert_eq!((drawn.images.len(), drawn.notices.as_slice()), (4, &[][..]));
    let prompts: Vec<String> = drawn.images.iter().map(told_prompt).collect();
    assert!(prompts.iter().any(|prompt| *prompt != prompts[0]), "{prompts:?}");
    let client = daemon.client().await;
    for (image, prompt) in drawn.images.iter().zip(&prompts) {
        assert!(!prompt.contains(['{', '_']), "{prompt}");
        let text = image.infotext.as_deref().expect("told");
        assert!(text.contains(&format!("Template: {template}")), "{text}");
        assert!(text.contains("Negative Template: {blurry|dark}"), "{text}");
        // Read back it is a request without the plugin, which repeats the picture.
        let info = within(client.image_info(ImageIn::png(png(image).to_vec()))).await.expect("read");
        assert_eq!(info.others.get("Template").map(String::as_str), Some(template));
        let rewriters: Json = serde_json::from_str(&info.others["Rewriters"]).expect("JSON");
        assert_eq!(rewriters["dynamic-prompts"]["version"], "1.0.0");
        assert_eq!(rewriters["dynamic-prompts"]["params"]["wildcards"], params["wildcards"]);
        let again = info.request.expect("a request").into_drawing();
        assert!(again.plugins.is_empty() && again.rewrite && again.prompt.first() == prompt, "{again:?}");
        assert_eq!(pixels(&draw(&daemon, &again).await.images[0]), pixels(image));
        // As it is of the prompt alone.
        let alone = Txt2ImgParams { negative_prompt: again.negative_prompt.clone(), ..plain() };
        let seed = i64::try_from(image.seed.expect("a seed")).expect("a seed");
        let alone = Txt2ImgParams { prompt: prompt.as_str().into(), seed, ..alone };
        assert_eq!(pixels(&draw(&daemon, &alone).await.images[0]), pixels(image));
    }
    // The same again, and picture 1 by its own seed.
    let again = draw(&daemon, &with("dynamic-prompts", params.clone(), request(3))).await;
    assert_eq!(
        again.images.iter().map(png).collect::<Vec<_>>(),
        drawn.images.iter().map(png).collect::<Vec<_>>()
    );
    let second = Txt2ImgParams { batch_size: 1, n_iter: 1, ..request(4) };
    let second = draw(&daemon, &with("dynamic-prompts", params.clone(), second)).await;
    assert_eq!(png(&second.images[0]), png(&drawn.images[1]));
    // Without anything to pick nothing is told of it.
    let none = Txt2ImgParams { prompt: "a circle".into(), ..plain() };
    let untouched = draw(&daemon, &with("dynamic-prompts", json!({}), none.clone())).await;
    assert_eq!(png(&untouched.images[0]), png(&draw(&daemon, &none).await.images[0]));
}

#[test]
fn the_example_keeps_to_the_abi() {
    let daemon = Daemon::start();
    let library = daemon.folder.path().join("dynamic_prompts.so");
    std::fs::write(&library, dynamic_prompts()).expect("written");
    let path = library.to_str().expect("text");
    let output = daemon.command(&["plugins", "validate", path, "--seed", "7"]).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(" 0 warned, 0 failed, 0 skipped\n"), "{text}");
    assert!(text.contains("ok       request.rewrite/texts\n"), "{text}");
}

#[tokio::test]
async fn all_ways_to_pick_make_a_picture_each() {
    let daemon = Daemon::start();
    install(&daemon, "dynamic_prompts.so", dynamic_prompts());
    let request = Txt2ImgParams { prompt: "{red|blue} {circle|square}".into(), ..plain() };
    let drawn =
        draw(&daemon, &with("dynamic-prompts", json!({"mode": "combinatorial"}), request.clone())).await;
    let prompts = [("red circle", 3), ("red square", 4), ("blue circle", 5), ("blue square", 6)];
    assert_eq!(all_pixels(&drawn), expected(&daemon, &prompts).await);
    let three = with("dynamic-prompts", json!({"mode": "combinatorial", "max": 3}), request.clone());
    assert_eq!(draw(&daemon, &three).await.images.len(), 3);
    // One seed for all: a request each.
    let same = json!({"mode": "combinatorial", "same_seed": true});
    let drawn = draw(&daemon, &with("dynamic-prompts", same, request)).await;
    let prompts = [("red circle", 3), ("red square", 3), ("blue circle", 3), ("blue square", 3)];
    assert_eq!(all_pixels(&drawn), expected(&daemon, &prompts).await);
    // What is written of them is one after the other, too.
    let names: Vec<_> = drawn.images.iter().map(|image| image.seed).collect();
    assert_eq!(names, [Some(3); 4]);
    let wrong = Txt2ImgParams { prompt: "a {red|blue".into(), ..plain() };
    let text = fails(&daemon, &with("dynamic-prompts", json!({}), wrong), ErrorName::InvalidParams).await;
    let begins = "plugin 'dynamic-prompts', request.rewrite/draft-1: prompt: a '{' that nothing closes";
    assert!(text.starts_with(begins), "{text}");
    let missing = Txt2ImgParams { prompt: "a __none__".into(), ..plain() };
    let missing = with("dynamic-prompts", json!({}), missing);
    let drawn = draw(&daemon, &missing).await;
    assert!(drawn.notices.iter().any(|text| text.contains("wildcard 'none' has no texts")), "{drawn:?}");
    let strict = Txt2ImgParams { strict: true, ..missing };
    fails(&daemon, &strict, ErrorName::Plugin).await;
}

#[tokio::test]
async fn wildcards_come_from_a_folder() {
    let made = tempfile::tempdir().expect("a folder");
    let folder = made.path().canonicalize().expect("a folder");
    // Its process reads what the user says.
    let config = format!("[plugins.dynamic-prompts]\nreads = [{folder:?}]\n");
    let daemon = Daemon::with(Options { config, ..Options::default() });
    install(&daemon, "dynamic_prompts.so", dynamic_prompts());
    std::fs::create_dir_all(folder.join("colours")).expect("made");
    std::fs::write(folder.join("colours/warm.txt"), "# warm ones\nred\n").expect("written");
    std::fs::write(folder.join("colours/cold.txt"), "blue\n").expect("written");
    let request = Txt2ImgParams { prompt: "{2$$ and $$__colours/*__} circles".into(), ..plain() };
    let params = json!({"mode": "combinatorial", "folder": folder.to_str().expect("text")});
    let drawn = draw(&daemon, &with("dynamic-prompts", params, request.clone())).await;
    let prompts = [("blue and red circles", 3), ("red and blue circles", 4)];
    assert_eq!(all_pixels(&drawn), expected(&daemon, &prompts).await);
    let wrong = with("dynamic-prompts", json!({"folder": "wildcards"}), request);
    let text = fails(&daemon, &wrong, ErrorName::InvalidParams).await;
    assert!(text.contains("folder: 'wildcards' must be an absolute path"), "{text}");
}

#[tokio::test]
async fn patches_change_prompts_count_and_seeds() {
    let daemon = Daemon::start();
    install(&daemon, "rewriter.so", &rewriter());
    let request = Txt2ImgParams { prompt: "a template".into(), ..plain() };
    // One request with a prompt for each of its pictures.
    let list = json!({"prompt": ["a", "b", "c"], "n_iter": 3, "seed": 7});
    let drawn = draw(&daemon, &rewritten(&[list], request.clone())).await;
    assert_eq!(all_pixels(&drawn), expected(&daemon, &[("a", 7), ("b", 8), ("c", 9)]).await);
    // Several requests are one job, whose pictures come one after the other.
    let several = [json!({"prompt": "a", "batch_size": 2}), json!({"/prompt": "b", "seed": 100}), json!({})];
    let drawn = draw(&daemon, &rewritten(&several, request.clone())).await;
    let prompts = [("a", 3), ("a", 4), ("b", 100), ("a template", 3)];
    assert_eq!(all_pixels(&drawn), expected(&daemon, &prompts).await);
    let text = |place: usize| drawn.images[place].infotext.as_deref().expect("told");
    for place in 0..4 {
        assert_eq!(text(place).contains("Template: a template"), place < 3, "{}", text(place));
        assert!(
            text(place).contains(r#"Rewriters: "{\"rewriter\":{\"version\":\"2.3.4\""#),
            "{}",
            text(place)
        );
    }
    // Files of one job have names of their own.
    let output = json!({"format": "file"});
    let files =
        Txt2ImgParams { output: serde_json::from_value(output).expect("a format"), ..request.clone() };
    let drawn = draw(&daemon, &rewritten(&several, files)).await;
    let mut paths: Vec<_> = drawn.images.iter().map(|image| image.path.clone().expect("a path")).collect();
    assert!(paths.iter().all(|path| Path::new(path).is_file()), "{paths:?}");
    paths.dedup();
    assert_eq!(paths.len(), 4);
    // What it is told, and what is left as it was.
    let told = with("rewriter", json!({"fault": "prompts"}), Txt2ImgParams { n_iter: 2, ..request.clone() });
    assert_eq!(all_pixels(&draw(&daemon, &told).await).len(), 2);
    daemon.wait_log("told /prompt kind 1 image -1: a template");
    daemon.wait_log("told /negative_prompt kind 2 image -1: ");
    daemon.wait_log("told seed 1 of 2: 4");
    let list = Txt2ImgParams { prompt: vec!["x".to_owned(), "y".to_owned()].into(), ..told };
    draw(&daemon, &list).await;
    daemon.wait_log("told /prompt/1 kind 1 image 1: y");
    let skip =
        with("rewriter", json!({"fault": "skip", "replies": [hex(&json!({"seed": 9}))]}), request.clone());
    assert_eq!(all_pixels(&draw(&daemon, &skip).await), expected(&daemon, &[("a template", 3)]).await);
    let off = Txt2ImgParams { rewrite: false, ..rewritten(&[json!({"seed": 9})], request) };
    assert_eq!(all_pixels(&draw(&daemon, &off).await), expected(&daemon, &[("a template", 3)]).await);
}

#[tokio::test]
async fn prompts_of_other_plugins_are_rewritten_for_each_picture() {
    let daemon = Daemon::start();
    install(&daemon, "rewriter.so", &rewriter());
    install(&daemon, "prompted.so", &build("tests/fixtures/plugins/prompted.c", &["-std=gnu99"]));
    let request = Txt2ImgParams { n_iter: 3, ..plain() };
    let request = with("prompted", json!({"units": [{"text": "one"}, {"not": "two"}]}), request);
    let told = with("rewriter", json!({"fault": "prompts"}), request.clone());
    let drawn = draw(&daemon, &told).await;
    daemon.wait_log("told /plugins/prompted/units/0/text kind 1 image -1: one");
    daemon.wait_log("told /plugins/prompted/units/1/not kind 2 image -1: two");
    assert_eq!(all_pixels(&drawn).iter().map(|pixels| pixels[0]).collect::<Vec<_>>(), [3, 3, 3]);
    let patch = json!({"/plugins/prompted/units/0/text": ["a", "four", "sevenls"]});
    let drawn = draw(&daemon, &rewritten(&[patch], request.clone())).await;
    assert_eq!(all_pixels(&drawn).iter().map(|pixels| pixels[0]).collect::<Vec<_>>(), [1, 4, 7]);
    // Each picture tells its own, and repeats itself.
    let client = daemon.client().await;
    let info = within(client.image_info(ImageIn::png(png(&drawn.images[1]).to_vec()))).await.expect("read");
    let templates: Json = serde_json::from_str(&info.others["Templates"]).expect("JSON");
    assert_eq!(templates, json!({"/plugins/prompted/units/0/text": "one"}));
    let again = info.request.expect("a request").into_drawing();
    assert_eq!(again.plugins["prompted"].to_json().expect("JSON")["units"][0]["text"], "four");
    assert_eq!(pixels(&draw(&daemon, &again).await.images[0]), pixels(&drawn.images[1]));
    // By the plugin's own schema, as a client's would be.
    for (texts, expected) in [
        (json!(["a", "b"]), "plugins.prompted: /units/0/text: a list of 2 texts for 3 pictures"),
        (json!(["a", "b", "x".repeat(101)]), "plugins.prompted: /units/0/text: "),
        (json!(["a", 5, "c"]), "plugins.prompted: /units/0/text: "),
        (json!(5), "plugins.prompted: /units/0/text: 5 must be a string"),
    ] {
        let patch = json!({"/plugins/prompted/units/0/text": texts});
        let text = fails(&daemon, &rewritten(&[patch], request.clone()), ErrorName::InvalidParams).await;
        assert!(text.starts_with(&format!("as plugin 'rewriter' rewrote it: {expected}")), "{text}");
    }
}

#[tokio::test]
async fn wrong_patches_are_refused_and_queue_nothing() {
    let daemon = Daemon::start();
    install(&daemon, "rewriter.so", &rewriter());
    let expected = all_pixels(&draw(&daemon, &plain()).await);
    let at_stage = "plugin 'rewriter', request.rewrite/draft-1: ";
    let after = "as plugin 'rewriter' rewrote it: ";
    let patch = |patch: Json| json!({"replies": [hex(&patch)]});
    let (plugin, invalid) = (ErrorName::Plugin, ErrorName::InvalidParams);
    let rows = [
        (json!({"replies": [digits(&[0x93, 1, 2, 3])]}), plugin, at_stage, "the patch is a list, not a map"),
        (json!({"replies": [digits(&[0x81, 1, 2])]}), plugin, at_stage, "a number for a key"),
        (json!({"replies": ["81"]}), plugin, at_stage, "the patch cannot be read: it ends too early"),
        (json!({"replies": [""]}), plugin, at_stage, "the patch cannot be read: it ends too early"),
        (json!({"replies": ["c1"]}), plugin, at_stage, "the patch cannot be read: byte 0xc1"),
        (json!({"nest": 100_000}), plugin, at_stage, "the patch cannot be read"),
        (json!({"nest": 20}), plugin, at_stage, "unknown field 'x'"),
        (json!({"nest": -1}), plugin, at_stage, "prompt: text is"),
        (patch(json!({"promt": "x"})), plugin, at_stage, "unknown field 'promt'; did you mean 'prompt'?"),
        (patch(json!({"steps": "many"})), plugin, at_stage, "steps: 'many' must be an integer"),
        (patch(json!({"steps": 0})), plugin, at_stage, "steps: 0 is out of range"),
        (patch(json!({"seed": -2})), plugin, at_stage, "seed: -2 is out of range"),
        (patch(json!({"prompt": []})), invalid, after, "prompt: the list is empty"),
        (patch(json!({"/none/0": 1})), plugin, at_stage, "'/none/0' leads nowhere in the request"),
        (patch(json!({"/plugins/vignette/x": 1})), plugin, at_stage, "leads nowhere in the request"),
        (patch(json!({"/regions/3/prompt": 1})), plugin, at_stage, "leads nowhere in the request"),
        (patch(json!({"init_images": []})), plugin, at_stage, "unknown field 'init_images'"),
        (patch(json!({"output": {"format": "raw"}})), plugin, at_stage, "output: is the user's"),
        (patch(json!({"on_disconnect": "cancel"})), plugin, at_stage, "on_disconnect: is the user's"),
        (json!({"slot": 1, "replies": ["80"]}), plugin, at_stage, "it gives no request 0, but later ones"),
        (json!({"slot": 4_000_000_000_u32, "replies": ["80"]}), plugin, at_stage, "slot 4000000000 is none"),
        (
            json!({"replies": vec!["80"; 257]}),
            plugin,
            at_stage,
            "it makes 257 requests of one, 256 are allowed",
        ),
        (json!({"fault": "fail"}), invalid, at_stage, "as asked"),
        (json!({"fault": "replace"}), plugin, at_stage, "there are no tensors where a job is planned"),
        (patch(json!({"prompt": ["a", "b"]})), invalid, after, "prompt"),
        (patch(json!({"checkpoint": "none"})), ErrorName::NotFound, after, "none"),
        (patch(json!({"plugins": {"none": {}}})), ErrorName::NotFound, after, "no plugin is called 'none'"),
        (patch(json!({"plugins": {"rewriter": {"x": 1}}})), invalid, after, "unknown field 'x'"),
        (
            patch(json!({"n_iter": 1000, "batch_size": 64, "width": 4096, "height": 4096})),
            invalid,
            after,
            "are allowed",
        ),
    ];
    for (params, name, begins, words) in rows {
        let text = fails(&daemon, &with("rewriter", params.clone(), plain()), name).await;
        assert!(text.starts_with(begins) && text.contains(words), "{params}: {text}");
    }
    // Of several the second.
    let two = [json!({}), json!({"steps": 0})];
    let text = fails(&daemon, &rewritten(&two, plain()), plugin).await;
    assert!(text.starts_with(&format!("{at_stage}request 1: steps: 0 is out of range")), "{text}");
    let two = [json!({}), json!({"checkpoint": "none"})];
    let text = fails(&daemon, &rewritten(&two, plain()), ErrorName::NotFound).await;
    assert!(text.starts_with("as plugin 'rewriter' rewrote it, request 1: "), "{text}");
    // Too much all together, though each is not.
    let many = vec![json!({"n_iter": 1000, "batch_size": 1}); 65];
    let text = fails(&daemon, &rewritten(&many, plain()), plugin).await;
    assert!(text.contains("its requests are 65000 pictures, 64000 are allowed"), "{text}");
    let large = vec![json!({"n_iter": 1000, "width": 1024, "height": 1024}); 3];
    let text = fails(&daemon, &rewritten(&large, plain()), invalid).await;
    assert!(text.contains("bytes, ") && text.contains("are allowed"), "{text}");
    let strict = with("rewriter", json!({"fault": "notice"}), Txt2ImgParams { strict: true, ..plain() });
    let text = fails(&daemon, &strict, plugin).await;
    assert!(text.contains("from the rewriter"), "{text}");
    // None of them was queued; a notice is no failure.
    let jobs = within(daemon.client().await.jobs(&JobListParams::default())).await.expect("listed");
    assert!(jobs.iter().all(|job| [JobState::Finished, JobState::Failed].contains(&job.state)), "{jobs:?}");
    let said = draw(&daemon, &with("rewriter", json!({"fault": "notice"}), plain())).await;
    assert_eq!(said.notices, ["plugin 'rewriter': from the rewriter"]);
    assert_eq!(all_pixels(&said), expected);
}

#[tokio::test]
async fn who_takes_too_long_or_is_cancelled_costs_that_request() {
    let daemon = Daemon::start();
    install(&daemon, "rewriter.so", &rewriter());
    let client = daemon.client().await;
    // Within the daemon nobody can end it: it is told of as it returns. Others are drawn meanwhile.
    let slow = with("rewriter", json!({"fault": "sleep"}), plain());
    let job = within(client.submit("txt2img", &slow, None)).await.expect("submitted");
    let drawn = all_pixels(&draw(&daemon, &plain()).await);
    let text = refused(within(client.wait(&job)).await, ErrorName::Plugin);
    assert!(text.starts_with("plugin 'rewriter', request.rewrite/draft-1: it took 6."), "{text}");
    assert!(text.ends_with(" s, 5 are allowed"), "{text}");
    let waits = with("rewriter", json!({"fault": "wait"}), plain());
    let job = within(client.submit("txt2img", &waits, None)).await.expect("submitted");
    daemon.wait_log("waits in the rewriter");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    // Between the requests of one job, too.
    let many = vec![json!({"steps": 1000, "width": 256, "height": 256}); 3];
    let job = within(client.submit("txt2img", &rewritten(&many, plain()), None)).await.expect("submitted");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    assert_eq!(all_pixels(&draw(&daemon, &plain()).await), drawn);
}

#[tokio::test]
async fn a_rewriter_that_does_more_is_not_asked_again_by_its_picture() {
    let daemon = Daemon::start();
    install(&daemon, "rewriter.so", &build("tests/fixtures/plugins/rewriter.c", &["-std=gnu99", "-DPOST"]));
    let params = json!({"replies": [hex(&json!({"prompt": "a circle", "seed": 11}))]});
    let drawn = draw(&daemon, &with("rewriter-post", params, plain())).await;
    let image = &drawn.images[0];
    assert_eq!(pixels(image)[..3], [255, 255, 255]);
    let client = daemon.client().await;
    let info = within(client.image_info(ImageIn::png(png(image).to_vec()))).await.expect("read");
    let again = info.request.expect("a request").into_drawing();
    assert!(!again.rewrite && again.plugins.contains_key("rewriter-post"), "{again:?}");
    // It would have another seed and prompt.
    let other = Txt2ImgParams { prompt: "a square".into(), seed: 12, ..again.clone() };
    assert_ne!(pixels(&draw(&daemon, &other).await.images[0]), pixels(image));
    assert_eq!(pixels(&draw(&daemon, &again).await.images[0]), pixels(image));
}

#[tokio::test]
async fn pictures_from_pictures_are_rewritten_too() {
    let daemon = Daemon::start();
    install(&daemon, "dynamic_prompts.so", dynamic_prompts());
    install(&daemon, "rewriter.so", &rewriter());
    let client = daemon.client().await;
    let begun = png(&draw(&daemon, &plain()).await.images[0]).to_vec();
    let from = |drawing: Txt2ImgParams| Img2ImgParams {
        drawing: Txt2ImgParams { denoising_strength: Some(0.6), ..drawing },
        init_images: vec![ImageIn::png(begun.clone())],
        ..Img2ImgParams::default()
    };
    let several = [json!({"prompt": "a"}), json!({"prompt": "b", "seed": 9})];
    let drawn = within(client.img2img(&from(rewritten(&several, plain())))).await.expect("drawn");
    for (image, (prompt, seed)) in drawn.images.iter().zip([("a", 3), ("b", 9)]) {
        let alone = from(Txt2ImgParams { prompt: prompt.into(), seed, ..plain() });
        let alone = within(client.img2img(&alone)).await.expect("drawn");
        assert_eq!(pixels(image), pixels(&alone.images[0]), "{prompt}");
    }
    assert_eq!(drawn.images.len(), 2);
    let two = Img2ImgParams {
        init_images: vec![ImageIn::png(begun.clone()), ImageIn::png(begun.clone())],
        ..from(rewritten(&several, Txt2ImgParams { n_iter: 2, ..plain() }))
    };
    let text = refused(within(client.img2img(&two)).await, ErrorName::InvalidParams);
    assert!(text.starts_with("init_images: there are 2, and plugins make several requests"), "{text}");
    // Outpaint takes no lists: a request for each picture.
    let drawing = Txt2ImgParams { prompt: "a {red|blue} {sky|sea}".into(), n_iter: 2, ..plain() };
    let outpaint = |drawing: Txt2ImgParams| OutpaintParams {
        drawing: Txt2ImgParams { denoising_strength: Some(0.8), ..drawing },
        image: ImageIn::png(begun.clone()),
        up: 64,
        ..OutpaintParams::default()
    };
    let drawn = within(client.outpaint(&outpaint(with("dynamic-prompts", json!({}), drawing)))).await;
    let drawn = drawn.expect("drawn");
    assert_eq!(drawn.images.len(), 2);
    for image in &drawn.images {
        let seed = i64::try_from(image.seed.expect("a seed")).expect("a seed");
        let alone = outpaint(Txt2ImgParams { prompt: told_prompt(image).into(), seed, ..plain() });
        let alone = within(client.outpaint(&alone)).await.expect("drawn");
        assert_eq!(pixels(image), pixels(&alone.images[0]));
    }
    let list = rewritten(&[json!({"prompt": ["a", "b"]})], Txt2ImgParams { n_iter: 2, ..plain() });
    let text = refused(within(client.outpaint(&outpaint(list))).await, ErrorName::InvalidParams);
    assert!(text.contains("outpaint draws from one prompt, not from a list"), "{text}");
}
