//! What must hold for the source itself: no circles between files or folders, arrows between crates that point one way, a
//! module doc in each file.

mod circles;
mod tree;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use circles::{Circle, circles};
use tree::Tree;

/// A crate of ours: its folder, and which others of ours it may name.
struct Crate {
    source: &'static str,
    may_name: &'static [&'static str],
}

const CRATES: &[Crate] = &[
    Crate { source: "models/kernels/src", may_name: &[] },
    Crate { source: "models/src", may_name: &["latentd_kernels"] },
    Crate { source: "sdk/rust/src", may_name: &[] },
    Crate { source: "plugin-api/src", may_name: &[] },
    Crate { source: "daemon/src", may_name: &["latentd_models", "latentd_client", "latentd_plugin_api"] },
];

/// Our crates, as code names them. (What the C ABI calls so is a type.)
const OURS: &[&str] =
    &["latentd", "latentd_client", "latentd_kernels", "latentd_models", "latentd_plugin_api"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files of a crate by their path in it.
fn sources(folder: &Path) -> BTreeMap<String, String> {
    fn add(folder: &Path, prefix: &str, sources: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                add(&path, &format!("{prefix}{name}/"), sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.insert(format!("{prefix}{name}"), fs::read_to_string(&path).expect("text"));
            }
        }
    }
    let mut sources = BTreeMap::new();
    add(folder, "", &mut sources);
    assert!(!sources.is_empty(), "{}", folder.display());
    sources
}

fn tree(source: &str) -> Tree {
    Tree::parse(&sources(&root().join(source))).unwrap_or_else(|error| panic!("{source}: {error}"))
}

#[test]
fn nothing_imports_in_a_circle() {
    let mut text = String::new();
    for Crate { source, .. } in CRATES {
        for Circle { name, lines } in circles(&tree(source)) {
            let _ = write!(text, "\n{source}: {name}\n  {}\n", lines.join("\n  "));
        }
    }
    assert!(text.is_empty(), "circles of files or folders:\n{text}");
}

#[test]
fn arrows_between_crates_point_one_way() {
    for Crate { source, may_name } in CRATES {
        for (file, line, name) in tree(source).foreign() {
            assert!(!OURS.contains(&name) || may_name.contains(&name), "{source}/{file}:{line} names {name}");
        }
    }
}

#[test]
fn each_file_says_what_lives_in_it() {
    for Crate { source, .. } in CRATES {
        for (file, text) in sources(&root().join(source)) {
            assert!(text.starts_with("//! "), "{source}/{file} begins without a module doc");
        }
    }
}
