//! The committed header is what the types give, and a C and a C++ compiler take it without a word.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use latentd_plugin_api::abi::IDS;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The header as it should be.
fn made() -> String {
    let mut config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).expect("cbindgen.toml");
    let mut ids = String::from("/* Ids of stages and services. */\n");
    for (name, id, meaning) in IDS {
        let meaning = meaning.replace("\\[", "[").replace("\\]", "]");
        writeln!(ids, "/*{meaning} */\n#define {name} \"{id}\"").expect("written");
    }
    config.trailer = config.trailer.map(|trailer| format!("{ids}{trailer}"));
    let bindings = cbindgen::Builder::new().with_crate(folder()).with_config(config).generate();
    let mut text = vec![];
    bindings.expect("bindings").write(&mut text);
    // Brackets are escaped for Rust's docs alone.
    let text = String::from_utf8(text).expect("UTF-8").replace("\\[", "[").replace("\\]", "]");
    one_line_comments(&text)
}

/// Comments of one line on one line.
fn one_line_comments(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (mut made, mut at) = (String::new(), 0);
    while at < lines.len() {
        match lines[at..] {
            [begin, said, end, ..] if begin.trim() == "/*" && end.trim() == "*/" => {
                let indent = &begin[..begin.len() - 2];
                writeln!(made, "{indent}/* {} */", said.trim()).expect("written");
                at += 3;
            }
            [line, ..] => {
                writeln!(made, "{line}").expect("written");
                at += 1;
            }
            [] => break,
        }
    }
    made
}

#[test]
fn the_header_is_what_the_types_give() {
    let path = folder().join("include/latentd.h");
    let made = made();
    if std::env::var_os("LATENTD_UPDATE").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    let committed = std::fs::read_to_string(&path).expect("include/latentd.h");
    assert!(
        committed == made,
        "include/latentd.h is stale: LATENTD_UPDATE=1 cargo test -p latentd-plugin-api --test header"
    );
}

fn compiles(compiler: &str, language: &str, source: &Path) {
    let output = Command::new(compiler)
        .args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-x", language, "-I"])
        .arg(folder().join("include"))
        .arg(source)
        .output()
        .expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn compilers_take_the_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("empty.c");
    std::fs::write(
        &source,
        "#include <latentd.h>\n#include <latentd.h>\n#include <latentd_msgpack.h>\nint nothing;\n",
    )
    .expect("written");
    compiles("cc", "c", &source);
    compiles("c++", "c++", &source);
}
