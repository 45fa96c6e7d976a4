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
    let built_in = u64::from(cfg!(feature = "demo"));
    assert_eq!(report["library_entries"].as_u64(), Some(2 + built_in));
    assert_eq!(report["default_checkpoint"].as_str(), Some("tiny-sd1"));
    let (precision, why) = latentd_models::nn::Precision::best_and_why();
    assert_eq!(report["kernels"].as_str(), Some(latentd_models::nn::kernels()));
    assert_eq!(report["auto_precision"].as_str(), Some(precision.name()));
    assert_eq!(report["auto_precision_reason"].as_str(), Some(why.as_str()));
    assert!(text(&["doctor"]).contains(&format!("auto is {}: {why}", precision.name())));
    assert!(text(&["doctor"]).contains("socket"));
    let (code, _, errors) = output(daemon.command(&["jobs", "get", "nothing"]));
    assert!(code == Some(1) && errors.contains("E_NOT_FOUND"), "{errors}");
    assert!(text(&["--version"]).starts_with("latentd "));
}

#[test]
fn signals_cancel_the_job_that_generate_waits_for() {
    use std::io::BufRead;
    let daemon = Daemon::start();
    for (signal, job) in [(libc::SIGINT, 0), (libc::SIGTERM, 1)] {
        let mut command = daemon.command(&["generate", "x", "-o", "x.png", "--steps=60"]);
        command.args(["--width=256", "--height=256", "--checkpoint", "tiny-sd1"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("spawned");
        let mut errors = std::io::BufReader::new(child.stderr.take().expect("piped"));
        // A step is done: it draws.
        let mut line = String::new();
        while !line.starts_with("step") {
            line.clear();
            assert!(errors.read_line(&mut line).expect("read") > 0, "it ended");
        }
        let process = i32::try_from(child.id()).expect("a process id");
        // SAFETY: the process is our child and not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut errors, &mut rest).expect("read");
        assert!(rest.contains("cancelled (job "), "{rest}");
        assert_eq!(child.wait().expect("ended").code(), Some(130));
        let id = rest.split("(job ").nth(1).and_then(|rest| rest.split(')').next()).expect("an id");
        let (_, out, _) = output(daemon.command(&["jobs", "wait", id]));
        assert!(out.is_empty());
        let (_, out, _) = output(daemon.command(&["jobs", "list", "--state", "cancelled"]));
        assert_eq!(String::from_utf8_lossy(&out).lines().count(), job + 1);
    }
    assert!(!daemon.folder.path().join("x.png").exists());
}

#[test]
fn odd_arguments_do_what_they_say() {
    let daemon = Daemon::start();
    let generate = |arguments: &[&str]| {
        let mut command = daemon.command(&["generate"]);
        command.args(SMALL).args(arguments);
        output(command)
    };
    let here = daemon.folder.path();
    // Several on stdout follow each other.
    let (code, out, errors) = generate(&["x", "-o", "-", "--n-iter=2"]);
    let starts = out.windows(8).filter(|bytes| *bytes == b"\x89PNG\r\n\x1a\n").count();
    assert_eq!((code, starts), (Some(0), 2), "{errors}");
    assert_eq!(generate(&["x", "-o", "plain"]).1, b"plain\n");
    assert_eq!(generate(&["x", "-o", "plain", "--n-iter=2"]).1, b"plain-1.png\nplain-2.png\n");
    assert_eq!(generate(&["", "-o", "empty.png"]).0, Some(0), "an empty prompt is one");
    assert_eq!(generate(&["-o", "dash.png", "--", "-x"]).0, Some(0));
    let (code, _, errors) = generate(&["-x"]);
    assert!(code == Some(2) && errors.contains("-- -x"), "{errors}");
    for prompt in ["- a cat", "--a cat", "-a cat=x", "-1", "-- a cat"] {
        assert_eq!(generate(&[prompt, "-o", "dash.png"]).0, Some(0), "{prompt}");
    }
    let (code, _, errors) = generate(&["--stepz", "5", "a cat"]);
    assert!(code == Some(2) && errors.contains("'--steps'"), "{errors}");
    assert_eq!(generate(&["a cat", "--negative-prompt", "- a dog", "-o", "dash.png"]).0, Some(0));
    // Nothing is drawn for a place that cannot be written to.
    std::fs::create_dir(here.join("folder")).expect("made");
    for (target, expected) in [("folder", "directory"), ("nowhere/a.png", "No such file"), ("plain/a", "")] {
        let (code, _, errors) = generate(&["never drawn", "-o", target]);
        assert!(code == Some(1) && errors.contains(&format!("cannot write {target}")), "{errors}");
        assert!(errors.contains(expected) && !errors.contains("step"), "{errors}");
    }
    // A reader that went away.
    let mut command = daemon.command(&["generate", "x", "-o", "-"]);
    let mut child = command.args(SMALL).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ran");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("ended");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("cannot write to stdout"));
    assert!(
        std::fs::read_dir(here)
            .expect("read")
            .all(|entry| { !entry.expect("read").file_name().to_string_lossy().ends_with(".part") })
    );
}

#[test]
fn what_cannot_be_said_stops_nothing() {
    let daemon = Daemon::start();
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("opened");
    let (reader, closed) = std::io::pipe().expect("made");
    drop(reader);
    for (stderr, file) in [(Stdio::from(full()), "full.png"), (Stdio::from(closed), "closed.png")] {
        let mut command = daemon.command(&["generate", "x", "-o", file, "--models-dir", "/"]);
        let output = command.args(SMALL).stdout(Stdio::null()).stderr(stderr).output().expect("ran");
        assert_eq!(output.status.code(), Some(0), "{file}");
        assert!(daemon.folder.path().join(file).exists());
    }
    // An error that cannot be told has its exit code all the same.
    let status = daemon.command(&["generate", "x", "--width=63"]).stderr(full()).status().expect("ran");
    assert_eq!(status.code(), Some(2));
    let output =
        daemon.command(&["jobs", "list"]).stdout(full()).stderr(Stdio::piped()).output().expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
}

#[test]
fn a_reader_that_went_away_ends_what_goes_on() {
    let daemon = Daemon::start();
    let (reader, closed) = std::io::pipe().expect("made");
    drop(reader);
    let mut watching = daemon.command(&["jobs", "watch"]).stdout(closed).spawn().expect("spawned");
    let mut ended = None;
    // It may not follow yet when the first job ends.
    for _ in 0..1000 {
        let mut command = daemon.command(&["generate", "x", "-o", "x.png"]);
        assert_eq!(
            output({
                command.args(SMALL);
                command
            })
            .0,
            Some(0)
        );
        ended = watching.try_wait().expect("a child");
        if ended.is_some() {
            break;
        }
    }
    watching.kill().ok();
    watching.wait().expect("ended");
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

#[test]
fn what_a_terminal_would_obey_is_shown_instead() {
    let daemon = Daemon::start();
    let mut command =
        daemon.command(&["generate", "a \u{1b}[31mred\u{9b}0m cat", "-n", "-dog", "-o", "x.png"]);
    assert_eq!(
        output({
            command.args(SMALL);
            command
        })
        .0,
        Some(0)
    );
    let (code, out, errors) = output(daemon.command(&["info", "x.png"]));
    let text = String::from_utf8(out).expect("UTF-8");
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.starts_with("a \\u{1b}[31mred\\u{9b}0m cat\nNegative prompt: -dog\nSteps: 2"), "{text}");
    let (_, out, _) = output(daemon.command(&["info", "--json", "x.png"]));
    assert!(!out.contains(&0x1b));
    let info: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(info["params"]["prompt"].as_str(), Some("a \u{1b}[31mred\u{9b}0m cat"));
    let (code, _, errors) = output(daemon.command(&["jobs", "get", "\u{1b}[2J"]));
    assert!(code == Some(1) && errors.contains("\\u{1b}[2J") && !errors.contains('\u{1b}'), "{errors}");
}

#[test]
fn a_models_folder_that_is_not_there_is_said_to_be_missing_and_not_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--models-dir=~/misspelt", "--models-dir=here/too"].map(str::to_owned).to_vec();
    let config = format!("models_dirs = [{:?}]\n", folder.path().join("unused"));
    let daemon = Daemon::with(crate::harness::Options { flags, config, ..Default::default() });
    let missing = daemon.folder.path().join("misspelt");
    assert!(!missing.exists() && !std::path::Path::new("here/too").exists());
    assert!(!daemon.folder.path().join("~").exists() && !std::path::Path::new("~").exists());
    let (_, out, _) = output(daemon.command(&["models", "list"]));
    let text = String::from_utf8(out).expect("UTF-8");
    for missing in [missing.as_path(), &std::path::absolute("here/too").expect("a folder")] {
        let expected = format!("{}: this models folder is not there", missing.display());
        assert!(text.contains(&expected), "{text}");
        daemon.wait_log(&missing.display().to_string());
    }
    let (_, out, _) = output(daemon.command(&["doctor"]));
    assert!(String::from_utf8_lossy(&out).contains("misspelt: this models folder is not there"));
    let (code, _, errors) = output(daemon.command(&["serve", "--models-dir", "~you/models"]));
    assert!(code == Some(2) && errors.contains("home folder of another user"), "{errors}");
    let threads = output(daemon.command(&["bench", "--threads", "100000"]));
    assert!(threads.0 == Some(2) && threads.2.contains("is out of range with"), "{}", threads.2);
    // The default one is made.
    let alone = tempfile::tempdir().expect("a folder");
    let mut command = program(alone.path());
    let mut process = command.arg("serve").stdout(Stdio::piped()).spawn().expect("spawned");
    crate::harness::first_line(&mut process).expect("ready");
    process.kill().ok();
    process.wait().ok();
    assert!(alone.path().join("data/latentd/models/Stable-diffusion").is_dir());
}

#[test]
fn a_file_is_what_its_name_says() {
    let daemon = Daemon::start();
    let here = daemon.folder.path();
    let generate = |arguments: &[&str]| {
        let mut command = daemon.command(&["generate", "a cat „so“"]);
        output({
            command.args(SMALL).args(arguments);
            command
        })
    };
    std::os::unix::fs::symlink("real.png", here.join("link.png")).expect("linked");
    for (name, start) in [
        ("a.png", &b"\x89PNG"[..]),
        ("a.JPG", b"\xff\xd8\xff"),
        ("a.jpeg", b"\xff\xd8\xff"),
        ("a.webp", b"RIFF"),
        ("link.png", b"\x89PNG"),
        ("link.png", b"\x89PNG"),
    ] {
        let (code, out, errors) = generate(&["-o", name]);
        assert_eq!((code, out), (Some(0), format!("{name}\n").into_bytes()), "{errors}");
        assert!(std::fs::read(here.join(name)).expect("written").starts_with(start), "{name}");
        let (code, out, errors) = output(daemon.command(&["info", name]));
        assert_eq!(code, Some(0), "{name}: {errors}");
        assert!(String::from_utf8_lossy(&out).starts_with("a cat „so“\nSteps: 2"), "{name}");
    }
    assert!(here.join("link.png").is_symlink() && here.join("real.png").is_file());
    assert_eq!(std::fs::read(here.join("real.png")).ok(), std::fs::read(here.join("a.png")).ok());
    assert_eq!(generate(&["-o", "b.webp", "--n-iter=2"]).1, b"b-1.webp\nb-2.webp\n");
    for name in ["a.gif", "a.png.txt", "v1.5"] {
        let (code, _, errors) = generate(&["-o", name]);
        assert!(code == Some(2) && errors.contains("is none of .png, .jpg, .jpeg, .webp"), "{errors}");
        assert!(!errors.contains("step"), "{errors}");
    }
}

#[test]
fn what_could_not_be_written_can_be_fetched() {
    use std::io::BufRead;
    let daemon = Daemon::start();
    let here = daemon.folder.path();
    std::fs::create_dir(here.join("gone")).expect("made");
    let mut command = daemon.command(&["generate", "x", "-o", "gone/x.png", "--steps=60", "--seed=7"]);
    command.args(["--width=128", "--height=128", "--checkpoint", "tiny-sd1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("spawned");
    let mut errors = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("step") {
        line.clear();
        assert!(errors.read_line(&mut line).expect("read") > 0, "it ended");
    }
    std::fs::remove_dir(here.join("gone")).expect("removed");
    let said = errors.lines().map_while(Result::ok).last().expect("an error");
    assert_eq!(child.wait().expect("ended").code(), Some(1));
    assert!(said.contains("cannot write gone/x.png: No such file") && !said.contains(".part"), "{said}");
    let fetch = said.split("is kept: latentd ").nth(1).expect("how to fetch it");
    let fetch: Vec<_> = fetch.split_whitespace().collect();
    for (name, start) in [("y.png", &b"\x89PNG"[..]), ("y.jpg", b"\xff\xd8"), ("y.webp", b"RIFF")] {
        let arguments: Vec<_> = fetch.iter().map(|part| if *part == "FILE" { name } else { part }).collect();
        let (code, out, errors) = output(daemon.command(&arguments));
        assert_eq!((code, out), (Some(0), format!("{name}\n").into_bytes()), "{errors}");
        assert!(std::fs::read(here.join(name)).expect("written").starts_with(start));
        assert!(output(daemon.command(&["info", name])).0 == Some(0));
    }
    assert_eq!(output(daemon.command(&fetch[..3])).1, b"latentd-7.png\n");
    let (code, _, errors) = output({
        let mut command = daemon.command(&["generate", "x", "-o", "/dev/full"]);
        command.args(SMALL);
        command
    });
    assert!(
        code == Some(1) && errors.contains("No space left on device") && errors.contains("jobs fetch"),
        "{errors}"
    );
    let (code, _, errors) = output(daemon.command(&["jobs", "fetch", "none", "-o", "z.png"]));
    assert!(code == Some(1) && errors.contains("E_NOT_FOUND"), "{errors}");
}

#[test]
fn the_configuration_file_is_where_it_is_said_to_be() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("mine")).expect("made");
    std::fs::write(folder.path().join("mine/latentd.toml"), "queue = 7\nmodels_dirs = ['models']\n")
        .expect("written");
    let settings = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = program(folder.path());
        command.args(["doctor", "--json"]).args(arguments).current_dir(folder.path());
        let (code, out, errors) = output({
            command.envs(variables.iter().copied());
            command
        });
        assert_eq!(code, Some(0), "{errors}");
        let report: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        report["settings"].clone()
    };
    let models = folder.path().join("mine/models");
    for (variables, arguments) in [
        (vec![("LATENTD_CONFIG", "~/mine/latentd.toml")], vec![]),
        (vec![("LATENTD_CONFIG", "mine/latentd.toml")], vec![]),
        (vec![("LATENTD_CONFIG", "none")], vec!["--config=~/mine/latentd.toml"]),
    ] {
        let settings = settings(&variables, &arguments);
        assert_eq!(settings["queue"], 7);
        assert_eq!(settings["models_dirs"][0].as_str(), models.to_str(), "beside the file");
    }
    // Empty, or relative where that may not be: as if it were not set.
    let unset = [
        ("LATENTD_CONFIG", ""),
        ("XDG_CONFIG_HOME", "mine"),
        ("XDG_RUNTIME_DIR", "mine"),
        ("TMPDIR", "mine"),
    ];
    let settings = settings(&unset, &[]);
    assert_eq!(settings["queue"], 512);
    assert!(settings["socket"].as_str().is_some_and(|path| path.starts_with("/tmp/latentd-")), "{settings}");
}

#[test]
fn without_home_and_xdg_there_are_still_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(folder.path());
    for name in ["HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env_remove(name);
    }
    let (code, out, errors) = output({
        command.args(["doctor", "--json"]);
        command
    });
    assert_eq!(code, Some(0), "{errors}");
    let report: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    let socket = report["settings"]["socket"].as_str().expect("a path");
    assert!(socket.ends_with(&format!("latentd-{}/latentd.sock", latentd_client::socket::effective_user())));
    assert!(report["settings"]["state_dir"].as_str().is_some_and(|path| path.starts_with('/')));
}

#[test]
fn a_lesser_kernel_set_has_its_own_best_precision() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(folder.path());
    command.arg("doctor").env("LATENTD_KERNELS", "portable").env("LATENTD_PRECISION", "bf16");
    let (code, out, errors) = output(command);
    assert_eq!(code, Some(0), "{errors}");
    let text = String::from_utf8_lossy(&out);
    let expected = "bf16 as configured (auto is f32: the kernels portable have no product of bf16)";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn kernels_that_do_not_exist_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(folder.path());
    command.arg("doctor").env("LATENTD_KERNELS", "AVX2");
    let (code, _, errors) = output(command);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("LATENTD_KERNELS") && errors.contains("avx2, avx512"), "{errors}");
}

/// What an editor shows of a prompt, texts around prompts, and parts of a picture, at the command line.
#[test]
fn prompts_styles_and_regions_are_at_hand() {
    let mut daemon = Daemon::start();
    let run = |arguments: &[&str]| {
        let (code, out, errors) = output(daemon.command(arguments));
        (code, String::from_utf8(out).expect("UTF-8"), errors)
    };
    let (code, out, errors) =
        run(&["prompt", "a [red:blue:0.5] cat\u{1b} AND -dog :0.5 <lora:none:1>", "--steps", "4"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("\nweight 1, steps 1-3, ") && out.contains(": a red cat\\u{1b}"), "{out}");
    assert!(out.contains("\nweight 1, step 4, ") && out.contains(": a blue cat\\u{1b}"), "{out}");
    assert!(
        out.contains("\nweight 0.5, steps 1-4, ") && out.contains("\nlora none, which the library has not\n"),
        "{out}"
    );
    let (_, out, _) = run(&["prompt", "[red:blue:2]", "--steps", "3"]);
    assert!(out.contains("\nsteps 1-3, 1 token: red\nat no step, 1 token: blue\n"), "{out}");
    let (_, out, _) = run(&["prompt", "--json", "--negative", "a AND b"]);
    let read: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(read["parts"].as_array().map(Vec::len), Some(1));

    let (code, out, errors) = run(&["styles", "list"]);
    assert!(code == Some(0) && out.is_empty() && errors.contains("styles save NAME"), "{out}{errors}");
    assert_eq!(run(&["styles", "save", "ink", "{prompt}, ink\u{1b}", "-n", "-colour"]).0, Some(0));
    let (_, out, _) = run(&["styles", "list"]);
    assert_eq!(out, "ink\n  prompt: {prompt}, ink\\u{1b}\n  negative prompt: -colour\n");
    let draw = |arguments: &[&str]| {
        let (code, _, errors) = run(&[&["generate"], arguments, &SMALL].concat());
        assert_eq!(code, Some(0), "{errors}");
    };
    draw(&["a cat", "--style", "ink", "-o", "ink.png"]);
    let (_, out, _) = run(&["info", "ink.png"]);
    assert!(out.starts_with("a cat, ink\\u{1b}\nNegative prompt: -colour\n"), "{out}");
    assert_eq!(run(&["styles", "delete", "ink"]), (Some(0), "deleted ink\n".into(), String::new()));
    let (code, _, errors) = run(&["styles", "delete", "ink"]);
    assert!(code == Some(1) && errors.contains("no style 'ink'"), "{errors}");

    // The picture that was just drawn will do as a mask.
    draw(&["a cat", "--region", "ink.png", "a dog", "--region-weight", "0.5", "-o", "region.png"]);
    let (_, out, _) = run(&["info", "--json", "region.png"]);
    let info: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let region = &info["params"]["regions"][0];
    assert_eq!((region["prompt"].as_str(), region["weight"].as_f64()), (Some("a dog"), Some(0.5)));
    let (code, _, errors) = run(&["generate", "a cat", "--region", "none.png", "a dog"]);
    assert!(
        code == Some(2) && errors.contains("regions[0].mask.path") && errors.contains("none.png"),
        "{errors}"
    );
    // What a picture tells of a mask is its hash, which a daemon knows while it keeps the mask.
    daemon.signal(libc::SIGTERM);
    daemon.ended();
    daemon.restart();
    let (code, _, errors) = output(daemon.command(&["generate", "--from", "region.png"]));
    assert!(code == Some(1) && errors.contains("not any more; give --region MASK TEXT again"), "{errors}");
}
