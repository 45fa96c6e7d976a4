//! `latentd plugins validate`: what it finds in plugins that are as they should be, and in those that are not.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value as Json;

use crate::harness::program;
use crate::plugin_library::{build, build_crate};

/// A library in a folder of its own.
struct Library {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Library {
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plugin.so");
        std::fs::write(&path, bytes).expect("written");
        Self { folder, path }
    }

    /// `crashes.c`, compiled with these.
    fn crashes(defines: &[&str]) -> Self {
        let defines: Vec<String> = defines.iter().map(|define| format!("-D{define}")).collect();
        let flags: Vec<&str> = ["-std=gnu99"].into_iter().chain(defines.iter().map(String::as_str)).collect();
        Self::new(&build("tests/fixtures/plugins/crashes.c", &flags))
    }

    /// `faults.c`, compiled with these.
    fn faults(flags: &[&str]) -> Self {
        Self::new(&build("tests/fixtures/plugins/faults.c", &[&["-std=gnu99"], flags].concat()))
    }

    fn validate(&self, flags: &[&str]) -> Output {
        let mut command = program(self.folder.path());
        command.args(["plugins", "validate"]).arg(&self.path).args(flags).stdin(Stdio::null());
        command.output().expect("ran")
    }

    /// What each check came to, those that are ok left out: `outcome name: why`.
    fn found(&self, flags: &[&str]) -> (Option<i32>, Vec<String>) {
        let output = self.validate(&[&["--json", "--seed", "1"], flags].concat());
        let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let line = |check: &Json| {
            let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
            (text("outcome") != "ok")
                .then(|| format!("{} {}: {}", text("outcome"), text("name"), text("why")))
        };
        let lines = report["checks"].as_array().expect("checks").iter().filter_map(line).collect();
        (output.status.code(), lines)
    }
}

/// The examples in C and C++.
fn examples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api/examples");
    let names = std::fs::read_dir(&folder).expect("examples").filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let sources = ["c", "cpp"].map(|extension| format!("{name}/{name}.{extension}"));
        let source = sources.into_iter().find(|source| folder.join(source).is_file())?;
        Some(format!("plugin-api/examples/{source}"))
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn examples_pass_and_a_seed_gives_the_same_report() {
    let examples = examples();
    assert!(examples.len() >= 3, "{examples:?}");
    for source in examples {
        let is_c = Path::new(&source).extension().is_some_and(|extension| extension == "c");
        let library = Library::new(&build(&source, if is_c { &["-std=gnu99"] } else { &[] }));
        let output = library.validate(&["--seed", "7", "--limit", "60"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.contains("FAILED"), "{source}\n{text}");
        let path = library.path.to_string_lossy();
        let again = format!("again with: latentd plugins validate {path} --seed 7 --limit 60\n");
        assert!(text.starts_with(&format!("{path}, seed 7\nok       manifest\n")), "{text}");
        assert!(text.contains(" 0 warned, 0 failed, 0 skipped\n") && text.ends_with(&again), "{text}");
        assert_eq!(library.validate(&["--seed", "7", "--limit", "60"]).stdout, output.stdout);
    }
}

#[test]
fn a_seed_is_drawn_and_told() {
    let library = Library::crashes(&["DIVIDES"]);
    let text = |flags: &[&str]| String::from_utf8_lossy(&library.validate(flags).stdout).into_owned();
    let first = text(&[]);
    let (_, seed) = first.trim_end().rsplit_once(' ').expect("a seed");
    assert_eq!(text(&["--seed", seed]), first);
    assert!(first.contains("FAILED   denoise.combine/extremes: "), "{first}");
    assert_ne!(text(&[]), first, "another seed");
}

#[test]
fn a_plugin_that_ends_the_process_fails_the_check_it_was_in() {
    for (how, at, check, words) in [
        ("fault_now", "AT_LOAD", "load", "it was ended by SIGSEGV"),
        ("abort_now", "AT_INIT", "init", "it was ended by SIGABRT"),
        ("exit_now", "AT_EXTENSION", "extension-null", "it ended the process, with exit code 0"),
        ("abort_now", "AT_CREATE", "params-default", "it was ended by SIGABRT"),
        ("fault_now", "AT_STRONG", "params-fuzz", "{\"strength\":2.0}: it was ended by SIGSEGV"),
        ("abort_now", "AT_STAGE", "denoise.combine/usual", "it was ended by SIGABRT"),
        ("exit_now", "AT_SMALL", "denoise.combine/sizes", "it ended the process, with exit code 0"),
        (
            "fault_now",
            "AT_SMALL",
            "denoise.combine/sizes",
            "of 1 × 1 latents, step 3 of 20, sigma 4.5: it was",
        ),
        ("fault_now", "AT_EXIT", "exit", "it was ended by SIGSEGV"),
        ("hang_now", "AT_SMALL", "denoise.combine/sizes", "it did not return within 2 s"),
        ("hang_now", "AT_EXIT", "exit", "it did not return within 2 s"),
        ("hang_now", "AT_INIT", "init", "it did not return within 2 s"),
    ] {
        let library = Library::crashes(&[&format!("HOW={how}"), &format!("AT={at}")]);
        let limit = if how == "hang_now" { "2" } else { "60" };
        let (code, found) = library.found(&["--limit", limit]);
        let first = found.first().expect("something");
        assert_eq!(code, Some(1), "{found:?}");
        assert!(
            first.starts_with(&format!("failed {check}: ")) && first.contains(words),
            "{how} {at}: {found:?}"
        );
        if at == "AT_SMALL" || at == "AT_EXIT" {
            assert_eq!(found.len(), 1, "the others are looked at: {found:?}");
        }
    }
}

#[test]
fn what_a_plugin_does_wrong_is_found_by_the_check_for_it() {
    for (define, expected) in [
        ("ROWS_BY_INDEX", &["failed denoise.combine/order: ", "failed denoise.combine/unknown-rows: "][..]),
        ("ROWS_AS_ARRAY", &["failed denoise.combine/strides: "]),
        ("KNOWN_ROLES_ONLY", &["failed denoise.combine/unknown-rows: "]),
        ("KNOWN_SIZE_ONLY", &["failed denoise.combine/larger-structs: "]),
        ("SHARED_STATE", &["failed denoise.combine/interleaved: "]),
        ("KEEPS", &["warned denoise.combine/kept: "]),
        ("SWALLOWS", &["failed denoise.combine/no-memory: "]),
        ("DIVIDES", &["failed denoise.combine/extremes: ", "failed denoise.combine/params: "]),
        ("PREFIX_TABLE", &["failed extension-null: "]),
        ("NOTHING", &[]),
    ] {
        let (code, found) = Library::crashes(&[define]).found(&["--limit", "60"]);
        let is_so = found.len() == expected.len()
            && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
        assert!(is_so, "{define}: {found:?}");
        let fails = expected.iter().any(|expected| expected.starts_with("failed"));
        assert_eq!(code, Some(i32::from(fails)), "{define}");
    }
    for (define, expected) in [
        ("NOT_REPEATABLE", "failed denoise.combine/repeat: not repeatable"),
        ("ANY_TABLE", "failed extension-null: "),
        ("NO_SIZE", "failed tables: denoise.combine/draft-1: its table's size is 0"),
        ("NO_RUN", "failed tables: denoise.combine/draft-1: its table's function is null"),
    ] {
        let (_, found) = Library::crashes(&[define]).found(&["--limit", "60"]);
        let failed = found.iter().find(|line| line.starts_with("failed"));
        assert!(failed.is_some_and(|line| line.starts_with(expected)), "{define}: {found:?}");
    }
}

#[test]
fn faults_of_libraries_and_parameters_are_named() {
    for (flags, expected) in [
        (&["-DFAULT_INIT"][..], "failed init: its init failed"),
        (&["-DNULL_ENTRIES"], "failed load: its entry has no init"),
        (&["-DNEWER_MAJOR"], "failed load: it was built for ABI 99.1"),
        (&["-DNO_EXTENSION"], "failed tables: its manifest names denoise.combine/draft-1"),
        (&["-DFAULT_CREATE"], "failed params-default: plugin 'faults', create: create fails, as asked"),
        (&["-DNEWER_MINOR"], "warned load: its manifest says ABI 0.1, its entry 0.99"),
        (&["-DPLAN_SKIP"], "skipped create-larger-structs: by its job.plan it takes no part"),
    ] {
        let (_, found) = Library::faults(flags).found(&["--limit", "3"]);
        assert!(found.first().is_some_and(|line| line.starts_with(expected)), "{flags:?}: {found:?}");
    }
    let library = Library::faults(&[]);
    for (fault, check, words) in [
        ("fail", "noise.init/usual", "as asked"),
        ("unknown-status", "denoise.combine/usual", "it answered status 4711, which is none"),
        ("wrong-shape", "image.post/usual", "in the place of"),
        ("nan", "denoise.combine/usual", "number 0 of [1, 4, 8, 8] is NaN"),
        ("dead-handle", "noise.init/usual", "12345 is no handle"),
        ("huge", "image.post/usual", "bytes"),
    ] {
        let stage = check.split('/').next().expect("a stage");
        let params = format!("{{\"fault\": \"{fault}\", \"at\": \"{stage}/draft-1\"}}");
        let (code, found) = library.found(&["--limit", "2", "--params", &params]);
        let line = found.iter().find(|line| line.starts_with(&format!("failed {check}: ")));
        assert!(code == Some(1) && line.is_some_and(|line| line.contains(words)), "{fault}: {found:?}");
    }
    // It waits until it is cancelled, which the check for that does.
    let waits = "{\"fault\": \"wait\", \"at\": \"noise.init/draft-1\"}";
    let (_, found) = library.found(&["--limit", "2", "--params", waits]);
    let of = |name: &str| found.iter().find(|line| line.contains(&format!(" noise.init/{name}: ")));
    assert!(of("usual").is_some_and(|line| line.ends_with("it did not return within 2 s")), "{found:?}");
    assert!(
        of("sizes").is_some_and(|line| line.starts_with("skipped")) && of("cancelled").is_none(),
        "{found:?}"
    );
}

#[test]
fn what_is_no_plugin_is_said_as_a_search_says_it() {
    let library = Library::new(b"not a library");
    let output = library.validate(&["--seed", "1"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("FAILED   manifest: not a shared library"), "{text}");
    let output = library.validate(&["--params", "[]"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn engines_and_methods_are_looked_at_too() {
    let library = Library::new(&build_crate("plugin-api/examples/bright-spots"));
    let flags = ["--seed", "7", "--limit", "60"];
    let output = library.validate(&flags);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(" 0 warned, 0 failed, 0 skipped\n"), "{text}");
    for check in ["preprocessor/wishes", "detector/no-image", "outline/usual", "brightness/params"] {
        assert!(text.contains(&format!("ok       {check}\n")), "{check}: {text}");
    }
    assert_eq!(library.validate(&flags).stdout, output.stdout);
    // Of each kind the first entry that does what it must not is told.
    let library = Library::new(&build("tests/fixtures/plugins/finders.c", &["-std=gnu99"]));
    let (code, found) = library.found(&[]);
    for (check, words) in [
        ("detector/usual", "detector 'no number': a box [NaN"),
        ("preprocessor/usual", "preprocessor 'nan': number 0 of [1, 3, 40, 72] is NaN"),
        (
            "preprocessor/wishes",
            "preprocessor 'good': an image [1, 3, 24, 40] where an image [1, 3, 64, 40] was wanted",
        ),
        (
            "restorer/usual",
            "restorer 'small': an image [1, 3, 4, 4] where an image [1, 3, 40, 72] was wanted",
        ),
        ("tagger/usual", "a tagger's things have no boxes"),
        ("upscaler/usual", "upscaler 'no image': it gave no image in slot 0"),
    ] {
        let line = found.iter().find(|line| line.starts_with(&format!("failed {check}: ")));
        assert!(line.is_some_and(|line| line.contains(words)), "{check}: {found:?}");
    }
    assert!(code == Some(1) && !found.iter().any(|line| line.contains("upscaler 'twice'")), "{found:?}");
    assert!(!found.iter().any(|line| line.contains(" image.post/")), "{found:?}");
    let library = Library::new(&build("tests/fixtures/plugins/methods.c", &["-std=gnu99"]));
    let (_, found) = library.found(&[]);
    assert!(
        !found.iter().any(|line| line.contains("at-once/usual") || line.contains("work/usual")),
        "{found:?}"
    );
}
