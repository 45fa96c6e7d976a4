//! Plugins that are installed and removed by the command line, what their users agree to, and those that are used again.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use latentd_client::protocol::{ErrorName, PluginEntry, PluginParams, PluginState, Txt2ImgParams};
use serde_json::json;

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build, folder_of, install};

/// The plugin in a version whose number is `major`; it asks for this.
fn library(major: u32, capabilities: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("asking.toml");
    let manifest = format!(
        "name = 'asking'\nversion = '{major}.0'\nabi = '0.1'\nlicense = 'MIT'\ndescription = 'Asks.'\n\
         {capabilities}\n[stages.'image.post/draft-1']\n[methods.settings]\nkind = 'quick'\n"
    );
    fs::write(&path, manifest).expect("written");
    let flags = [format!("-DMANIFEST=\"{}\"", path.display()), format!("-DMAJOR={major}")];
    build("tests/fixtures/plugins/configured.c", &["-std=gnu99", flags[0].as_str(), flags[1].as_str()])
}

const MUCH: &str = "[capabilities]\nnetwork = true\nfolders = ['~/wildcards']\nmemory = '1.5 GiB'";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("started");
    (status.code(), text(&stdout), text(&stderr))
}

/// As on a terminal, where somebody types this.
fn typed(mut command: Command, answer: &str) -> (Option<i32>, String, String) {
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: it writes two descriptors, and takes null for all else.
    let opened = unsafe {
        let name = std::ptr::null_mut();
        libc::openpty(&raw mut ours, &raw mut theirs, name, std::ptr::null(), std::ptr::null())
    };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: they were made just now.
    let (mut ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    ours.write_all(answer.as_bytes()).expect("typed");
    command.stdin(theirs);
    run(command)
}

async fn listed(daemon: &Daemon) -> Vec<PluginEntry> {
    within(daemon.client().await.plugins()).await.expect("listed").plugins
}

/// The library as a file somewhere.
fn file(folder: &Path, library: &[u8]) -> PathBuf {
    let path = folder.join("downloaded.so");
    fs::write(&path, library).expect("written");
    path
}

#[tokio::test]
async fn what_is_installed_was_shown_and_agreed_to() {
    let daemon = Daemon::start();
    let folder = daemon.folder.path().to_owned();
    let path = file(&folder, &library(1, MUCH));
    let path = path.to_str().expect("UTF-8");
    let installed = folder.join("data/latentd/plugins/asking.so");
    let shown = "asking 1.0 (MIT)\n  Asks.\n  stages    image.post/draft-1\n  methods   asking.settings\n  engines   none\n  \
                 asks for  the network, reading ~/wildcards, 1.5 GiB of memory\n";

    let (code, out, err) = run(daemon.command(&["plugins", "install", path]));
    assert_eq!((code, out.as_str()), (Some(2), shown));
    assert!(err.contains("no terminal to ask on; say --yes"), "{err}");
    let (code, _, err) = typed(daemon.command(&["plugins", "install", path]), "n\n");
    assert!(
        code == Some(1) && err.contains("install it? [y/N]") && err.contains("nothing was installed"),
        "{err}"
    );
    assert!(err.contains("wildcards is not there yet"), "{err}");
    assert!(!installed.exists());

    let (code, out, err) = typed(daemon.command(&["plugins", "install", path]), "y\n");
    assert_eq!((code, out), (Some(0), format!("{shown}installed {}\n", installed.display())), "{err}");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(installed.parent().expect("a folder")), 0o700);
    let [entry] = &listed(&daemon).await[..] else { panic!("one") };
    assert!(entry.agreed && entry.asks.network && entry.state == PluginState::Ready, "{entry:?}");
    assert_eq!(
        (&entry.asks.folders[..], entry.asks.memory_bytes),
        (&["~/wildcards".to_owned()][..], Some(3 << 29))
    );

    // Another content in its place was not agreed to.
    install(&daemon, "asking.so", &library(2, MUCH));
    let [entry] = &listed(&daemon).await[..] else { panic!("one") };
    assert_eq!((entry.version.as_deref(), entry.agreed), (Some("2.0"), false));
    let (_, out, _) = run(daemon.command(&["plugins", "list"]));
    assert!(
        out.contains("asks for the network, reading ~/wildcards, 1.5 GiB of memory (not agreed to"),
        "{out}"
    );
    let (code, _, err) = run(daemon.command(&["plugins", "enable", "asking"]));
    assert!(code == Some(2) && err.contains("say --yes"), "{err}");
    let (code, _, err) = typed(daemon.command(&["plugins", "enable", "asking"]), "no\n");
    assert!(code == Some(0) && err.contains("does without"), "{err}");
    assert!(!listed(&daemon).await[0].agreed);
    let (code, out, err) = run(daemon.command(&["plugins", "enable", "asking", "--yes"]));
    assert!(code == Some(0) && out.starts_with("asking 2.0"), "{out}{err}");
    assert!(listed(&daemon).await[0].agreed);

    // The next version takes the place of all that were there.
    install(&daemon, "other.so", &library(3, ""));
    let path = file(&folder, &library(4, ""));
    let (code, out, err) =
        run(daemon.command(&["plugins", "install", "--yes", path.to_str().expect("UTF-8")]));
    assert!(code == Some(0) && out.contains("in place of the one that was there"), "{out}{err}");
    let [entry] = &listed(&daemon).await[..] else { panic!("one") };
    assert_eq!((entry.version.as_deref(), entry.agreed), (Some("4.0"), true));
    assert_eq!(entry.path, installed.to_str().expect("UTF-8"));

    let (code, out, err) = run(daemon.command(&["plugins", "remove", "asking"]));
    assert_eq!((code, out), (Some(0), format!("removed {}\n", installed.display())), "{err}");
    assert!(listed(&daemon).await.is_empty() && !installed.exists());
    let kept = fs::read_to_string(folder.join("data/latentd/plugin-agreements.json")).expect("there");
    assert_eq!(kept.trim(), "{}");
    let (code, _, err) = run(daemon.command(&["plugins", "remove", "asking"]));
    assert!(code == Some(1) && err.contains("no plugin is called 'asking'"), "{err}");
}

/// What plugin `hostile` is told when it tries that.
async fn tried(daemon: &Daemon, how: &str) -> String {
    let params = PluginParams::from_json(json!({"how": how}).as_object().expect("a map").clone());
    let params = Txt2ImgParams { plugins: [("hostile".to_owned(), params)].into(), ..small(1) };
    refused(within(daemon.client().await.txt2img(&params)).await, ErrorName::Plugin)
}

/// What is agreed to is there for its processes, the next ones at once; and nothing beside it.
#[tokio::test]
async fn what_was_agreed_to_reaches_its_processes() {
    let daemon = Daemon::start();
    let granted = daemon.folder.path().join("granted");
    for folder in ["read", "write"] {
        fs::create_dir_all(granted.join(folder)).expect("made");
    }
    let manifest = daemon.folder.path().join("hostile.toml");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/plugins/hostile.toml");
    let asks = format!(
        "\n[capabilities]\nnetwork = true\nfolders = ['{0}/read']\nwrite_folders = ['{0}/write']\n",
        granted.display()
    );
    fs::write(&manifest, fs::read_to_string(own).expect("there") + &asks).expect("written");
    let flags = [
        "-pthread".to_owned(),
        format!("-DMANIFEST=\"{}\"", manifest.display()),
        format!("-DGRANTED=\"{}\"", granted.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    install(&daemon, "hostile.so", &build("tests/fixtures/plugins/hostile.cpp", &flags));

    for how in ["socket", "granted-read", "granted-read-write", "granted-write", "beside-granted"] {
        let text = tried(&daemon, how).await;
        assert!(text.contains("refused: "), "{how}: {text}");
    }
    let (code, out, err) = run(daemon.command(&["plugins", "enable", "hostile", "--yes"]));
    assert!(code == Some(0) && out.contains("the network, reading"), "{out}{err}");
    for how in ["socket", "granted-read", "granted-write"] {
        let text = tried(&daemon, how).await;
        assert!(text.contains("was let"), "{how}: {text}");
    }
    for how in ["granted-read-write", "beside-granted", "home", "fork", "ptrace"] {
        let text = tried(&daemon, how).await;
        assert!(text.contains("refused: "), "{how}: {text}");
    }
    assert!(granted.join("write/new").exists() && !granted.join("read/new").exists());
}

#[test]
fn what_is_no_plugin_is_not_installed() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    for (path, expected) in [
        (at("a.txt", b""), "does not end in .so"),
        (at("a.so", b"text"), "not a shared library"),
        (
            at("b.so", &library(1, "[capabilities]\nfolders = ['/']")),
            "manifest: capabilities: folders: '/' is everything",
        ),
        (folder.path().join("none.so"), "No such file"),
        (PathBuf::from("/"), "does not end in .so"),
    ] {
        let mut command = crate::harness::program(folder.path());
        command.args(["plugins", "install", "--yes"]).arg(&path);
        let (code, _, err) = run(command);
        assert!(code == Some(1) && err.contains(expected), "{}: {err}", path.display());
    }
    assert!(!folder.path().join("data/latentd/plugins").exists());
}

#[tokio::test]
async fn a_plugin_that_failed_is_used_again() {
    let daemon = Daemon::start();
    // Its manifest is all that it has.
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("empty.c");
    let manifest = "name = 'empty'\\nversion = '1'\\nabi = '0.1'\\n[stages.'image.post/draft-1']\\n";
    let section = format!(
        "__attribute__((section(\".latentd\"), used, retain)) static const char m[] = \"{manifest}\";\n"
    );
    fs::write(&source, section).expect("written");
    let empty = build(source.to_str().expect("UTF-8"), &["-Wno-attributes"]);
    fs::write(folder_of(&daemon).join("empty.so"), empty).expect("written");
    let client = daemon.client().await;
    let params =
        Txt2ImgParams { plugins: [("empty".to_owned(), PluginParams::default())].into(), ..small(3) };
    let text = refused(within(client.txt2img(&params)).await, ErrorName::Plugin);
    assert!(text.contains("'empty' cannot be loaded"), "{text}");
    let entry = listed(&daemon).await.remove(0);
    assert_eq!(entry.state, PluginState::Refused);
    let entry = within(client.enable_plugin("empty")).await.expect("enabled");
    assert_eq!((entry.state, entry.reason), (PluginState::Ready, None));
    refused(within(client.txt2img(&params)).await, ErrorName::Plugin);
    let (code, _, err) = run(daemon.command(&["plugins", "enable", "empty"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let text = refused(within(client.enable_plugin("emty")).await, ErrorName::NotFound);
    assert!(text.contains("did you mean 'empty'?"), "{text}");
    let (code, _, err) = run(daemon.command(&["plugins", "enable", "emty"]));
    assert!(code == Some(1) && err.contains("did you mean 'empty'?"), "{err}");
}
