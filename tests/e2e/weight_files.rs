//! `latentd models inspect` and `convert`, which need no daemon.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::program;

/// The command's exit code, what it prints and what it says.
fn models(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = program(folder);
    command.arg("models").args(arguments).current_dir(folder);
    let output = command.stdin(Stdio::null()).output().expect("ran");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("listed").map(|entry| entry.expect("listed").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let file = "../tests/fixtures/models/Stable-diffusion/tiny-sd1-ema.safetensors";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::copy(file, folder.path().join("tiny.safetensors")).expect("copied");
    folder
}

#[test]
fn a_file_is_said_to_be_what_it_is_and_why() {
    let folder = fixture();
    let said = |arguments: &[&str]| {
        let (code, out, errors) = models(folder.path(), &[&["inspect"], arguments].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        out
    };
    let text = said(&["tiny.safetensors"]);
    for part in [
        "checkpoint",
        "sd1, by",
        "safetensors",
        "ldm",
        "epsilon (said by nothing",
        "bf16",
        "averaged",
        "yes:",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Value =
        serde_json::from_str(&said(&["tiny.safetensors", "--json", "--tensors"])).expect("JSON");
    assert_eq!(
        (&json["kind"], &json["layout"], &json["loads"], &json["averaged"]),
        (&"checkpoint".into(), &"ldm".into(), &true.into(), &true.into())
    );
    let tensors = json["list"].as_array().expect("a list");
    assert_eq!(Some(tensors.len() as u64), json["tensors"].as_u64());
    assert!(tensors.iter().all(|tensor| tensor["dtype"].is_string() && tensor["shape"].is_array()));

    fs::write(folder.path().join("tiny.yaml"), "parameterization: v").expect("written");
    assert!(said(&["tiny.safetensors"]).contains("v (said by the .yaml beside it)"));

    // What a terminal would obey, in a name and in metadata.
    let header = "{\"__metadata__\":{\"k\":\"\\u001b[31m\"},\"t\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    fs::write(folder.path().join("evil.safetensors"), bytes).expect("written");
    let text = said(&["evil.safetensors", "--tensors"]);
    assert!(text.contains("unknown") && text.contains("\\u{1b}[31m") && !text.contains('\u{1b}'), "{text}");

    fs::write(folder.path().join("page.safetensors"), "<html>").expect("written");
    let (code, out, errors) = models(folder.path(), &["inspect", "page.safetensors"]);
    assert!(code == Some(1) && out.is_empty() && errors.contains("is a web page"), "{errors}");
}

#[test]
fn what_is_converted_is_there_whole_or_not_at_all() {
    let folder = fixture();
    let convert = |arguments: &[&str]| models(folder.path(), &[&["convert"], arguments].concat());
    let done = |arguments: &[&str]| {
        let (code, out, errors) = convert(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        assert!(out.contains(arguments[1]), "{out}");
    };
    let refused = |arguments: &[&str], expected: i32, reason: &str| {
        let before = names(folder.path());
        let (code, _, errors) = convert(arguments);
        assert!(code == Some(expected) && errors.contains(reason), "{arguments:?}: {code:?} {errors}");
        assert_eq!(names(folder.path()), before, "nothing is left");
    };
    fs::write(folder.path().join("file"), "of somebody").expect("written");
    done(&["tiny.safetensors", "folder", "--layout", "diffusers", "--dtype", "f32"]);
    assert!(folder.path().join("folder/model_index.json").is_file());
    let inspected = models(folder.path(), &["inspect", "folder", "--json"]).1;
    let json: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(
        (&json["kind"], &json["layout"], &json["format"], &json["loads"]),
        (&"checkpoint".into(), &"diffusers".into(), &"folder".into(), &true.into())
    );
    done(&["folder", "again.safetensors", "--layout", "ldm"]);
    refused(&["folder", "again.safetensors", "--layout", "ldm"], 2, "exists; --force replaces it");
    done(&["tiny.safetensors", "again.safetensors", "--ema", "--force"]);
    done(&["tiny.safetensors", "folder", "--layout", "diffusers", "--force"]);
    refused(&["tiny.safetensors", "folder", "--force"], 2, "is a folder, and a file is to be written");
    refused(&["folder", "file", "--force"], 2, "is a file, and a folder is to be written");
    refused(&["again.safetensors", "x", "--ema"], 1, "has no averaged weights");
    refused(&["none.safetensors", "x"], 1, "none.safetensors");
    refused(&["tiny.safetensors", "none/x"], 1, "cannot write none/x");
    fs::create_dir(folder.path().join("mine")).expect("made");
    fs::write(folder.path().join("mine/file"), "kept").expect("written");
    refused(&["tiny.safetensors", "mine", "--layout", "diffusers", "--force"], 2, "which is not replaced");
    // In its own place.
    done(&["tiny.safetensors", "tiny.safetensors", "--dtype", "f32", "--force"]);
    assert_eq!(names(folder.path()), ["again.safetensors", "file", "folder", "mine", "tiny.safetensors"]);
    // A limit is as good as a disk that is full halfway.
    for arguments in ["limited --dtype f16", "limited --dtype f16 --layout diffusers"] {
        let limited =
            format!("ulimit -f 1000; trap '' XFSZ; exec \"$0\" models convert tiny.safetensors {arguments}");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_latentd")]).current_dir(folder.path());
        let output = command.stdin(Stdio::null()).output().expect("ran");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && errors.contains("File too large"), "{errors}");
        assert_eq!(names(folder.path()), ["again.safetensors", "file", "folder", "mine", "tiny.safetensors"]);
    }
}
