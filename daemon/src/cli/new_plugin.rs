//! `latentd plugins new`: a folder with a plugin that works, to begin from.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::failure::Failure;
use super::output::say;
use crate::plugins;

/// What it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// C, with the header alone
    C,
    /// Rust, with the safe wrapper
    Rust,
}

/// The manifest, whatever the language.
const MANIFEST: &str = include_str!("../../../plugin-api/templates/plugin.toml");

const HEADERS: [(&str, &str); 2] = [
    ("latentd.h", include_str!("../../../plugin-api/include/latentd.h")),
    ("latentd_msgpack.h", include_str!("../../../plugin-api/include/latentd_msgpack.h")),
];

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("latentd-plugin-api/", $name), include_str!(concat!("../../../plugin-api/", $name)))),*]
    };
}

/// The wrapper, which is built with the plugin.
const WRAPPER: &[(&str, &str)] = sources![
    "src/abi/attention.rs",
    "src/abi/basic.rs",
    "src/abi/conditioning.rs",
    "src/abi/control.rs",
    "src/abi/engine_needs.rs",
    "src/abi/engines.rs",
    "src/abi/entry.rs",
    "src/abi/evals.rs",
    "src/abi/evaluation.rs",
    "src/abi/ids.rs",
    "src/abi/infotext.rs",
    "src/abi/inputs.rs",
    "src/abi/library.rs",
    "src/abi/methods.rs",
    "src/abi/mod.rs",
    "src/abi/models.rs",
    "src/abi/networks.rs",
    "src/abi/onnx.rs",
    "src/abi/ops.rs",
    "src/abi/plan.rs",
    "src/abi/registry.rs",
    "src/abi/rewrite.rs",
    "src/abi/tags.rs",
    "src/abi/services.rs",
    "src/abi/stages.rs",
    "src/abi/subjobs.rs",
    "src/abi/vae.rs",
    "src/call.rs",
    "src/engine_calls.rs",
    "src/engine_tables.rs",
    "src/engines.rs",
    "src/error.rs",
    "src/export.rs",
    "src/given.rs",
    "src/handed_over.rs",
    "src/host.rs",
    "src/image.rs",
    "src/inputs.rs",
    "src/job.rs",
    "src/lib.rs",
    "src/library.rs",
    "src/methods.rs",
    "src/mask.rs",
    "src/models.rs",
    "src/networks.rs",
    "src/onnx.rs",
    "src/ops.rs",
    "src/running.rs",
    "src/services.rs",
    "src/stages/conditioning.rs",
    "src/stages/attention.rs",
    "src/stages/batch.rs",
    "src/stages/control.rs",
    "src/stages/infotext.rs",
    "src/stages/mod.rs",
    "src/stages/pass_begin.rs",
    "src/stages/wrap.rs",
    "src/stages/rewrite.rs",
    "src/stages/tags.rs",
    "src/subjobs.rs",
    "src/tensor.rs",
    "src/vae.rs",
];

/// Its manifest, which stands alone.
const WRAPPER_MANIFEST: &str = concat!(
    "[package]\nname = \"latentd-plugin-api\"\nversion = \"",
    env!("CARGO_PKG_VERSION"),
    "\"\nedition = \"2024\"\nlicense = \"MIT OR Apache-2.0\"\npublish = false\n\n",
    "[dependencies]\nrmp-serde = \"1.3\"\nserde = \"1\"\n"
);

/// The files of a plugin of this name, with their paths in its folder.
fn files(name: &str, language: Language) -> Vec<(String, String)> {
    let file = |path: &str, text: &str| {
        let fill = |text: &str| text.replace("@NAME@", name).replace("@IDENT@", &name.replace('-', "_"));
        (fill(path), fill(text))
    };
    let as_it_is = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    let mut files = vec![file("@NAME@.toml", MANIFEST)];
    match language {
        Language::C => {
            files.push(file("@NAME@.c", include_str!("../../../plugin-api/templates/c/plugin.c")));
            files.push(file("Makefile", include_str!("../../../plugin-api/templates/c/Makefile")));
            files.extend(HEADERS.iter().map(as_it_is));
        }
        Language::Rust => {
            files.push(file("Cargo.toml", include_str!("../../../plugin-api/templates/rust/Cargo.toml")));
            files.push(file("src/lib.rs", include_str!("../../../plugin-api/templates/rust/src/lib.rs")));
            files.push(("latentd-plugin-api/Cargo.toml".to_owned(), WRAPPER_MANIFEST.to_owned()));
            files.extend(WRAPPER.iter().map(as_it_is));
        }
    }
    files
}

/// Makes the folder NAME here, or at `folder`.
pub(super) fn run(name: &str, language: Language, folder: Option<PathBuf>) -> Result<(), Failure> {
    plugins::check_name(name).map_err(Failure::usage)?;
    let folder = folder.unwrap_or_else(|| PathBuf::from(name));
    let shown = folder.display();
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(Failure::new(format!("{shown} is there already; give another --folder")));
    }
    for (path, text) in files(name, language) {
        let path = folder.join(path);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))
            .and_then(|()| std::fs::write(&path, text));
        written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    let next = match language {
        Language::C => "make && make install".to_owned(),
        Language::Rust => {
            let library =
                format!("target/release/lib{}{}", name.replace('-', "_"), std::env::consts::DLL_SUFFIX);
            format!("cargo build --release && latentd plugins validate {library}")
        }
    };
    say(&format!("latentd: made {shown}; next: cd {shown} && {next}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        for language in [Language::C, Language::Rust] {
            for (path, text) in files("soft-light", language) {
                assert!(
                    !path.contains('@') && !text.contains("@NAME@") && !text.contains("@IDENT@"),
                    "{path}"
                );
            }
        }
    }
}
