//! Libraries of plugins, built as a stranger builds them, with a C compiler and the header alone; and where a daemon finds them.

use std::path::{Path, PathBuf};
use std::process::Command;

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
