//! Libraries of plugins, built as a stranger builds them, with a C compiler and the header alone; and where a daemon finds them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::harness::Daemon;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Builds a plugin's source, named from the repository's root, with these flags; gives the library's bytes.
pub(crate) fn build(source: &str, flags: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let source = repository().join(source);
    let library = folder.path().join("plugin.so");
    let is_c = source.extension().is_some_and(|extension| extension == "c");
    let output = Command::new(if is_c { "cc" } else { "c++" })
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"])
        .arg(if is_c { "-std=c99" } else { "-std=c++17" })
        .arg("-I")
        .arg(repository().join("plugin-api/include"))
        .args(flags)
        .arg(source.file_name().expect("a name"))
        .arg("-o")
        .arg(&library)
        .arg("-lm")
        // Manifests are named from where sources are.
        .current_dir(source.parent().expect("a folder"))
        .output()
        .expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(&library).expect("built")
}

/// Builds a plugin in Rust whose crate is this folder, named from the repository's root, in a copy of it outside of the workspace;
/// gives the library's bytes. Each is built once, one after the other.
pub(crate) fn build_crate(source: &str) -> Vec<u8> {
    static BUILT: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(source.to_owned()).or_insert_with(|| built_crate(source)).clone()
}

fn built_crate(source: &str) -> Vec<u8> {
    let copy = tempfile::tempdir().expect("a folder");
    copy_folder(&repository().join(source), copy.path());
    let manifest = copy.path().join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let api = format!("latentd-plugin-api = {{ path = '{}' }}", repository().join("plugin-api").display());
    // What it names from where it lies.
    let line =
        text.lines().find(|line| line.starts_with("latentd-plugin-api = ")).expect("what it depends on");
    std::fs::write(&manifest, text.replace(line, &api)).expect("written");
    build_rust(copy.path())
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        // What somebody built there stays there.
        if path.is_dir() && name != "target" {
            std::fs::create_dir(to.join(&name)).expect("made");
            copy_folder(&path, &to.join(name));
        } else if path.is_file() && name != "Cargo.lock" {
            std::fs::copy(&path, to.join(name)).expect("copied");
        }
    }
}

/// Builds the crate in a folder outside of the workspace; gives its one library's bytes. What crates share is built once.
pub(crate) fn build_rust(folder: &Path) -> Vec<u8> {
    let cargo = || {
        let mut cargo = Command::new(env!("CARGO"));
        // Nor is it built as our own crates are.
        for variable in ["RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS", "RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo.current_dir(folder);
        cargo
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    // What it depends on is there already, since the tests themselves are built with it.
    let output = cargo()
        .args(["build", "--offline", "--message-format=json"])
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A plugin computes in the host: it links neither our kernels nor what they stand on.
    let tree =
        cargo().args(["tree", "--offline", "--edges=normal,build", "--prefix=none"]).output().expect("cargo");
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.contains("latentd-plugin-api "), "{tree}");
    for ours in ["latentd-models", "latentd-kernels", "candle"] {
        assert!(!tree.contains(ours), "a plugin links {ours}:\n{tree}");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let libraries =
        messages.filter(|message| message["target"]["crate_types"] == serde_json::json!(["cdylib"]));
    let paths: Vec<String> =
        libraries.filter_map(|message| message["filenames"][0].as_str().map(str::to_owned)).collect();
    std::fs::read(paths.last().expect("a library")).expect("built")
}

/// Where a daemon looks without being told.
pub(crate) fn folder_of(daemon: &Daemon) -> PathBuf {
    let folder = daemon.folder.path().join("data/latentd/plugins");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Puts a library where the daemon finds it; whole or not at all, as a user's `mv` does.
pub(crate) fn install(daemon: &Daemon, name: &str, library: &[u8]) {
    let folder = folder_of(daemon);
    let new = folder.join("new");
    std::fs::write(&new, library).expect("written");
    std::fs::rename(new, folder.join(name)).expect("in place");
}
