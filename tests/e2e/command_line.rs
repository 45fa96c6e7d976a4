//! The commands, as a person types them.

use std::process::{Command, Stdio};

use crate::harness::{Daemon, fixtures, program};

const SMALL: [&str; 6] = ["--width=64", "--height=64", "--steps=2", "--seed=7", "--checkpoint", "tiny-sd1"];

fn output(mut command: Command) -> (Option<i32>, Vec<u8>, String) {
    let output = command.stdin(Stdio::null()).output().expect("ran");
    (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn generate_writes_files_and_prints_their_paths() {
    let daemon = Daemon::start();
    let generate = |arguments: &[&str]| {
        let mut command = daemon.command(&["generate", "a cat"]);
        command.args(SMALL).args(arguments);
        output(command)
    };
    let here = daemon.folder.path();
    let (code, out, errors) = generate(&["-o", "a.png"]);
    assert_eq!((code, out.as_slice()), (Some(0), &b"a.png\n"[..]), "{errors}");
    assert!(errors.contains("step 2/2"), "{errors}");
    let file = std::fs::read(here.join("a.png")).expect("written");
    assert_eq!(generate(&["-o", "-"]).1, file, "the same on stdout");
    assert_eq!(generate(&[]).1, b"latentd-7.png\n");
    assert_eq!(generate(&["-o", "b.png", "--n-iter", "2"]).1, b"b-1.png\nb-2.png\n");
    assert_eq!(std::fs::read(here.join("b-1.png")).expect("written"), file);
    let (code, _, errors) = generate(&["-o", "nowhere/a.png"]);
    assert!(code == Some(1) && errors.contains("cannot write nowhere/a.png"), "{errors}");
    let (code, _, errors) = generate(&["--width=63"]);
    assert!(code == Some(2) && errors.contains("give 56 or 64"), "{errors}");
    let (code, _, errors) = generate(&["--no-such-flag"]);
    assert!(code == Some(2) && errors.contains("--no-such-flag"), "{errors}");
}

#[test]
fn generate_starts_a_daemon_if_none_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(folder.path());
    command.args(["generate", "a cat", "-o", "a.png", "--models-dir"]).arg(fixtures()).args(SMALL);
    let (code, _, errors) = output({
        command.current_dir(folder.path());
        command
    });
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("starting a daemon"), "{errors}");
    let mut list = program(folder.path());
    list.args(["jobs", "list"]);
    let (code, out, errors) = output(list);
    assert!(code == Some(0) && String::from_utf8_lossy(&out).contains("finished"), "{errors}");
    let client =
        latentd_client::blocking::Client::connect(Some(&folder.path().join("run/latentd/latentd.sock")));
    let ended: latentd_client::protocol::Empty =
        client.expect("it stays").call("shutdown", &latentd_client::protocol::Empty {}).expect("ends");
    assert_eq!(ended, latentd_client::protocol::Empty {});
}

#[test]
fn jobs_models_and_doctor_answer() {
    let daemon = Daemon::start();
    let text = |arguments: &[&str]| {
        let (code, out, errors) = output(daemon.command(arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        String::from_utf8_lossy(&out).into_owned()
    };
    assert!(text(&["models", "list"]).contains("tiny-sd1"));
    assert!(text(&["models", "load", "tiny-sd1"]).contains("tiny-sd1"));
    assert!(text(&["models", "pin", "tiny-sd1"]).contains("pinned"));
    assert!(text(&["models", "loaded", "--json"]).contains("\"pinned\": true"));
    assert!(text(&["models", "unload", "tiny-sd1"]).contains("unloaded"));
    assert!(text(&["models", "rescan"]).contains("usable"));
    let mut draw = daemon.command(&["generate", "x", "-o", "x.png"]);
    draw.args(SMALL);
    assert_eq!(output(draw).0, Some(0));
    let jobs = text(&["jobs", "list"]);
    let job = jobs.split_whitespace().next().expect("a job");
    assert!(text(&["jobs", "get", job]).contains("finished"));
    assert!(text(&["jobs", "wait", job]).contains("64x64  seed 7"));
    assert!(text(&["jobs", "watch", job]).contains("finished"));
    assert!(text(&["jobs", "cancel", job]).contains("finished"));
    let report: serde_json::Value = serde_json::from_str(&text(&["doctor", "--json"])).expect("JSON");
    assert_eq!(report["library_entries"].as_u64(), Some(2));
    assert!(text(&["doctor"]).contains("socket"));
    let (code, _, errors) = output(daemon.command(&["jobs", "get", "nothing"]));
    assert!(code == Some(1) && errors.contains("E_NOT_FOUND"), "{errors}");
    assert!(text(&["--version"]).starts_with("latentd "));
}
