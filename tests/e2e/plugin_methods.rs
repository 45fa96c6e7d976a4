//! Methods that plugins have, through the socket: found by their names, their parameters settled, called at once or as jobs.

use latentd_client::Client;
use latentd_client::protocol::{
    Artifact, ErrorName, EventKind, ImageIn, InitializeParams, JobState, PluginMethod, PluginMethodKind,
    PluginState,
};
use latentd_models::image::Picture;
use rmpv::Value;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Raw, map, refused, within};
use crate::plugin_library::{build, folder_of, install};

fn installed() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "methods.so", &build("tests/fixtures/plugins/methods.c", &["-std=gnu99"]));
    daemon
}

async fn called(client: &Client, method: &str, params: &impl Serialize) -> Value {
    within(client.call_value(method, params)).await.expect(method)
}

async fn fails(client: &Client, method: &str, params: &impl Serialize, name: ErrorName) -> String {
    refused(within(client.call_value(method, params)).await, name)
}

#[derive(Serialize)]
struct WithImage {
    act: &'static str,
    image: ImageIn,
}

/// A picture of 5 by 3.
fn picture() -> Vec<u8> {
    let pixels = (0..45).map(|number| number * 5).collect();
    Picture::from_raw(pixels, 5, 3, 3).and_then(|picture| picture.to_png()).expect("a PNG")
}

fn with_image(act: &'static str) -> WithImage {
    WithImage { act, image: ImageIn::png(picture()) }
}

fn decoded(image: &Value) -> Picture {
    let Value::Binary(png) = &image["png"] else { panic!("no PNG: {image}") };
    Picture::decode(png, 1 << 20).expect("a picture")
}

#[tokio::test]
async fn methods_are_listed_with_their_schemas_and_load_nothing() {
    let daemon = installed();
    let client = daemon.client().await;
    let listed = within(client.plugins()).await.expect("listed").plugins;
    assert_eq!(listed[0].state, PluginState::Ready);
    let (since, description) = (Some("1.0.0".into()), Some("Gives back what it is given.".into()));
    let at_once = PluginMethod { kind: PluginMethodKind::Quick, since, description };
    assert_eq!(listed[0].methods["at-once"], at_once);
    assert_eq!(listed[0].methods["work"].kind, PluginMethodKind::Job);
    let info = within(client.api_info()).await.expect("told").methods;
    let work = &info["methods.work"];
    assert_eq!((work.job, work.plugin.as_deref()), (true, Some("methods")));
    assert_eq!(work.params["properties"]["image"]["x-image"], true);
    assert_eq!(work.result["properties"]["width"]["type"], "integer");
    assert_eq!(work.result["properties"]["job"]["type"], "string");
    assert!(!info["methods.at-once"].job && info["txt2img"].job && info["txt2img"].plugin.is_none());
    assert_eq!(info["methods.deep.er_one"].params["additionalProperties"], false);
    let schema = within(client.plugin_schema("methods")).await.expect("told");
    assert_eq!(schema.methods["work"].params, work.params);
    assert_eq!(within(client.plugins()).await.expect("listed").plugins[0].state, PluginState::Ready);
    let shown = daemon.command(&["plugins", "list"]).output().expect("ran");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("methods.work"), "{shown:?}");
}

#[tokio::test]
async fn a_quick_one_answers_at_once_with_pictures_as_pngs() {
    let daemon = installed();
    let client = daemon.client().await;
    let result = called(&client, "methods.at-once", &with_image("good")).await;
    assert_eq!((&result["name"], &result["width"]), (&"at-once".into(), &5.into()));
    let image = decoded(&result["image"]);
    assert_eq!((image.width, image.height, image.pixels[1]), (5, 3, 5));
    assert_eq!((&result["image"]["width"], &result["image"]["height"]), (&5.into(), &3.into()));
    // An array that is empty, and no parameters at all, are none.
    let mut raw = Raw::connect(&daemon);
    let result = raw.call("methods.deep.er_one", &Value::Array(vec![])).expect("called");
    assert_eq!(result["name"], "deep.er_one".into());
    let result = called(&client, "methods.at-once", &json!({"act": "tensor"})).await;
    let numbers: Vec<u8> = [0.5f32, 2.0].into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!(result["numbers"]["raw"], Value::Binary(numbers));
    let result = called(&client, "methods.at-once", &json!({"act": "notice"})).await;
    let notices = Value::Array(vec!["plugin 'methods': from the method".into()]);
    assert_eq!(result["notices"], notices);
    // None of it became a job.
    assert!(
        within(client.jobs(&latentd_client::protocol::JobListParams::default()))
            .await
            .expect("listed")
            .is_empty()
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_said_as_it_comes() {
    let daemon = installed();
    let client = daemon.client().await;
    let nothing = json!({});
    let rows = [
        ("methods.at-onc", "no method 'at-onc'; did you mean 'methods.at-once'?"),
        (
            "method.at-once",
            "no method 'method.at-once': no plugin is called 'method'; did you mean 'methods'?",
        ),
        ("prompts.tokens", "did you mean 'prompt.tokens'?"),
        ("txt2imgg", "no method 'txt2imgg'; api_info lists all; did you mean 'txt2img'?"),
        ("jobs.gett", "no method 'jobs.gett'; api_info lists all"),
        ("Methods.at-once", "no method 'Methods.at-once'; api_info lists all"),
    ];
    for (method, expected) in rows {
        let text = fails(&client, method, &nothing, ErrorName::NotFound).await;
        assert!(text.contains(expected), "{method}: {text}");
        let submitted = within(client.submit(method, &nothing, None)).await;
        refused(submitted, ErrorName::NotFound);
    }
    for method in ["methods.at-once", "methods.work"] {
        for (params, name, expected) in [
            (json!({"ac": 1}), ErrorName::InvalidParams, "unknown field 'ac'; did you mean 'act'?"),
            (json!({"act": 1}), ErrorName::InvalidParams, "/act: 1 must be a string"),
            (json!({"image": {"path": "/none.png"}}), ErrorName::InvalidParams, "/image"),
            (json!({"image": 7}), ErrorName::InvalidParams, "/image: is no picture"),
            (json!({"file": "none"}), ErrorName::NotFound, "/file"),
        ] {
            let text = fails(&client, method, &params, name).await;
            assert!(text.starts_with(method) && text.contains(expected), "{method} {params}: {text}");
            let submitted = within(client.submit(method, &params, None)).await;
            let error = if method == "methods.work" { name } else { ErrorName::InvalidParams };
            refused(submitted, error);
        }
    }
    let text =
        refused(within(client.submit("methods.at-once", &nothing, None)).await, ErrorName::InvalidParams);
    assert!(text.contains("is a quick one, which is no job"), "{text}");
    let mut raw = Raw::connect(&daemon);
    let twice = Value::Map(vec![("act".into(), "a".into()), ("act".into(), "b".into())]);
    let error = raw.call("methods.at-once", &twice).expect_err("refused");
    assert!(error.text.contains("duplicate field `act`"), "{error}");
    let error = raw.call("methods.work", &1.into()).expect_err("refused");
    assert!(error.text.contains("params"), "{error}");
}

#[tokio::test]
async fn a_job_is_planned_queued_followed_and_kept() {
    let daemon = installed();
    let client = daemon.client().await;
    let result = called(&client, "methods.work", &json!({})).await;
    assert_eq!((&result["planned"], &result["width"]), (&true.into(), &0.into()));
    assert_eq!(result["notices"], Value::Array(vec!["plugin 'methods': planned".into()]));
    let skipped = called(&client, "methods.work", &json!({"act": "plan-skips"})).await;
    assert_eq!(skipped["planned"], false.into());

    let job =
        within(client.submit("methods.work", &with_image("progress"), Some("mine"))).await.expect("queued");
    assert_eq!(job, "mine");
    let again = within(client.submit("methods.work", &with_image("progress"), Some("mine"))).await;
    assert_eq!(again.expect("the same"), "mine");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    let (mut shares, mut shown) = (vec![], 0);
    while let Some(event) = within(events.next()).await {
        match event.kind {
            EventKind::Progress { plugin: Some(plugin), stage, .. } => {
                assert_eq!((stage.as_deref(), plugin.what.as_str()), (Some("work"), "half"));
                shares.push(plugin.share);
            }
            EventKind::Preview { plugin, .. } => {
                assert_eq!(plugin.as_deref(), Some("methods"));
                shown += 1;
            }
            EventKind::Failed { error } => panic!("{error}"),
            _ => (),
        }
    }
    // Who reads late has the latest alone.
    assert!(shares.iter().all(|share| *share == 0.5), "{shares:?}");
    assert_eq!(shown, 1);
    for _ in 0..2 {
        let result: Value = within(client.wait_for(&job)).await.expect("done");
        assert_eq!((&result["job"], &result["method"]), (&"mine".into(), &"methods.work".into()));
        assert_eq!(decoded(&result["image"]).pixels.len(), 45);
        let artifacts: Vec<Artifact> = rmpv::ext::from_value(result["artifacts"].clone()).expect("artifacts");
        assert_eq!((artifacts.len(), artifacts[0].name.as_str()), (1, "before"));
    }
    let view = within(client.job(&job)).await.expect("known");
    assert_eq!((view.method.as_str(), view.state), ("methods.work", JobState::Finished));
    // It is another request under the id.
    let other = within(client.submit("methods.work", &json!({}), Some("mine"))).await;
    other.expect_err("refused");
}

#[tokio::test]
async fn a_fault_costs_one_call_which_names_plugin_and_method() {
    let daemon = installed();
    let client = daemon.client().await;
    let of_both = [
        ("fail", ErrorName::InvalidParams, "as asked"),
        ("nothing", ErrorName::Plugin, "it gave no result; it answers by reply 0"),
        ("skip", ErrorName::Plugin, "it answered SKIP"),
        ("replace", ErrorName::Plugin, "it replaces what no stage gave it"),
        ("slot", ErrorName::Plugin, "reply 1 is none of a method's"),
        ("list", ErrorName::Plugin, "its result is no map, but a list"),
        ("broken", ErrorName::Plugin, "its result cannot be read"),
        ("short", ErrorName::Plugin, "its result ends too early"),
        ("dead", ErrorName::Plugin, "its result at '/image': 12345 is no handle"),
        ("nan", ErrorName::Plugin, "number 1 of a tensor [2] is not finite"),
        ("own", ErrorName::Plugin, "its result has 'job', which is latentd's own"),
        ("file", ErrorName::Plugin, "an extension of type 2 at '/file'"),
    ];
    let good = called(&client, "methods.at-once", &with_image("good")).await;
    for (act, name, words) in of_both {
        for method in ["at-once", "work"] {
            let text = fails(&client, &format!("methods.{method}"), &json!({"act": act}), name).await;
            assert!(text.starts_with(&format!("plugin 'methods', method '{method}': ")), "{act}: {text}");
            assert!(text.contains(words), "{act}: {text}");
        }
        assert_eq!(called(&client, "methods.at-once", &with_image("good")).await, good);
    }
    for (act, name, words) in [
        ("schema", ErrorName::Plugin, "method 'work': its result is not what its schema allows: /width"),
        ("create", ErrorName::Plugin, "create: no instance, as asked"),
        ("plan-refuses", ErrorName::InvalidParams, "job.plan: not this one"),
        ("plan-wants", ErrorName::Plugin, "job.plan: it wants image.post/draft-1 in 'methods.work'"),
    ] {
        let text = fails(&client, "methods.work", &json!({"act": act}), name).await;
        assert!(text.starts_with("plugin 'methods', ") && text.contains(words), "{act}: {text}");
        called(&client, "methods.work", &json!({})).await;
    }
    // There is no model at hand.
    let text = fails(&client, "methods.work", &with_image("vae"), ErrorName::Unsupported).await;
    assert!(text.contains("there is no VAE at hand"), "{text}");
    // What is late is told so as it returns; what hangs on the daemon's word is cancelled by then.
    let text = fails(&client, "methods.at-once", &json!({"act": "late"}), ErrorName::Plugin).await;
    assert!(text.contains("method 'at-once': it took 5.") && text.contains("5 are allowed"), "{text}");
    called(&client, "methods.at-once", &json!({})).await;
}

#[tokio::test]
async fn quick_ones_that_get_stuck_leave_room_for_others() {
    let daemon = installed();
    let client = daemon.client().await;
    let late = json!({"act": "late"});
    let call = || within(client.call_value("methods.at-once", &late));
    let (a, b, c, d, e, f, g, h, i) =
        tokio::join!(call(), call(), call(), call(), call(), call(), call(), call(), call());
    let names = [a, b, c, d, e, f, g, h, i].map(|answer| {
        let error = answer.expect_err("refused");
        error.wire().expect("from the daemon").name
    });
    assert_eq!(names.iter().filter(|name| **name == ErrorName::Busy).count(), 1, "{names:?}");
    assert_eq!(names.iter().filter(|name| **name == ErrorName::Plugin).count(), 8, "{names:?}");
    called(&client, "methods.at-once", &json!({})).await;
}

#[tokio::test]
async fn what_a_method_says_has_an_end_and_clients_are_told_which_there_are() {
    let daemon = installed();
    let client = daemon.client().await;
    // One call says 64 at most; what was said while it was planned is beside those.
    for (method, last) in
        [("methods.at-once", "line 63"), ("methods.work", "it has more to say, which is left out")]
    {
        let result = called(&client, method, &json!({"act": "talks"})).await;
        let notices: Vec<String> = rmpv::ext::from_value(result["notices"].clone()).expect("texts");
        assert_eq!(notices.last(), Some(&format!("plugin 'methods': {last}")), "{method}");
    }
    let told = within(client.initialize(&InitializeParams::default())).await.expect("initialized");
    for method in ["methods.at-once", "methods.work", "txt2img"] {
        assert!(told.capabilities.methods.iter().any(|name| name == method), "{method}");
    }
}

#[tokio::test]
async fn a_job_is_cancelled_within_a_method() {
    let daemon = installed();
    let client = daemon.client().await;
    let job = within(client.submit("methods.work", &json!({"act": "wait"}), None)).await.expect("submitted");
    daemon.wait_log("waits in a method");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    let told = loop {
        let event = within(events.next()).await.expect("it goes on");
        if let EventKind::Progress { plugin: Some(plugin), stage, .. } = event.kind {
            break (plugin.share, plugin.what, stage);
        }
    };
    assert_eq!(told, (0.5, "half".to_owned(), Some("work".to_owned())));
    // Jobs wait for their turn, quick ones do not.
    let next = within(client.submit("methods.work", &json!({}), None)).await.expect("submitted");
    called(&client, "methods.at-once", &json!({})).await;
    assert_eq!(within(client.job(&next)).await.expect("known").state, JobState::Queued);
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait_for::<Value>(&job)).await, ErrorName::Cancelled);
    let done: Value = within(client.wait_for(&next)).await.expect("done");
    assert_eq!(done["job"], Value::from(next));
}

#[tokio::test]
async fn a_plugin_that_goes_takes_its_methods_along_and_none_shadows_ours() {
    let daemon = installed();
    let client = daemon.client().await;
    called(&client, "methods.work", &json!({})).await;
    std::fs::remove_file(folder_of(&daemon).join("methods.so")).expect("removed");
    fails(&client, "methods.work", &json!({}), ErrorName::NotFound).await;
    fails(&client, "methods.at-once", &json!({}), ErrorName::NotFound).await;
    // A name that begins ours is no plugin's.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.toml");
    let manifest = "name = 'prompt'\nversion = '1'\nabi = '0.1'\n[methods.tokens]\nkind = 'quick'\n";
    std::fs::write(&path, manifest).expect("written");
    let define = format!("-DMANIFEST=\"{}\"", path.display());
    install(&daemon, "prompt.so", &build("tests/fixtures/plugins/methods.c", &["-std=gnu99", &define]));
    let listed = within(client.plugins()).await.expect("listed").plugins;
    assert_eq!(listed[0].state, PluginState::Refused);
    let tokens = called(&client, "prompt.tokens", &json!({"text": "a cat"})).await;
    assert!(tokens["name"].is_nil(), "{tokens}");
}

#[tokio::test]
async fn the_command_line_calls_any_method() {
    let daemon = installed();
    let path = daemon.folder.path().join("in.png");
    std::fs::write(&path, picture()).expect("written");
    let call = |arguments: &[&str]| {
        let output = daemon.command(&[&["call"], arguments].concat()).output().expect("ran");
        let json = serde_json::from_slice::<Json>(&output.stdout).unwrap_or_default();
        (output.status.code(), json, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for method in ["methods.at-once", "methods.work"] {
        let (code, result, said) = call(&[method, r#"{"image": {"path": "in.png"}}"#, "-o", "out"]);
        assert_eq!((code, result["width"].as_u64()), (Some(0), Some(5)), "{said}");
        let written = result["image"]["path"].as_str().expect("a path");
        assert_eq!(written, format!("out/{method}-image.png"));
        let bytes = std::fs::read(daemon.folder.path().join(written)).expect("written");
        assert_eq!(Picture::decode(&bytes, 1 << 20).expect("a picture").width, 5);
    }
    let (code, result, _) = call(&["prompt.tokens", r#"{"text": "a cat"}"#]);
    assert!(code == Some(0) && result["parts"].is_array(), "{result}");
    let (code, result, said) = call(&[
        "txt2img",
        r#"{"prompt": "x", "checkpoint": "tiny-sd1", "steps": 1, "width": 64, "height": 64}"#,
    ]);
    assert_eq!(
        (code, result["images"][0]["path"].as_str()),
        (Some(0), Some("txt2img-images-0.png")),
        "{said}"
    );
    for (arguments, expected, words) in [
        (&["methods.none"][..], 1, "has no method 'none'"),
        (&["methods.work", "[]"], 2, "give a JSON object"),
        (&["methods.work", r#"{"act": "fail"}"#], 2, "method 'work': as asked"),
        (&["methods.at-once", r#"{"act": "nothing"}"#], 1, "gave no result"),
    ] {
        let (code, _, said) = call(arguments);
        assert!(code == Some(expected) && said.contains(words), "{arguments:?}: {code:?} {said}");
    }
}

#[tokio::test]
async fn whatever_comes_as_parameters_is_answered() {
    let daemon = installed();
    let mut raw = Raw::connect(&daemon);
    let deep = (0..40).fold(Value::Nil, |inner, _| Value::Array(vec![inner]));
    let strange = [
        Value::Map(vec![(1.into(), 2.into())]),
        map(&[("act", Value::Binary(vec![0; 100]))]),
        map(&[("act", Value::Ext(1, vec![0; 8]))]),
        map(&[("image", Value::Ext(1, vec![0, 0, 0, 0, 0, 0, 0, 1]))]),
        map(&[("act", deep)]),
        map(&[("act", Value::F64(f64::NAN))]),
        map(&[("image", map(&[("raw", Value::Binary(vec![])), ("width", 1.into())]))]),
    ];
    for method in ["methods.at-once", "methods.work"] {
        for params in &strange {
            let error = raw.call(method, params).expect_err("refused");
            assert_eq!(error.name, ErrorName::InvalidParams, "{params}: {error}");
        }
    }
    raw.call("methods.at-once", &Value::Array(vec![])).expect("called");
}
