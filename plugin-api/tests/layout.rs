//! The ABI does not change by accident: where each field lies is written down, and compared with what a C compiler makes of the
//! header. Functions are compared by their signatures, codes by their values.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use syn::{Fields, Item};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Structs with their fields' names and types.
type Structs = BTreeMap<String, Vec<(String, String)>>;

/// Structs, and constants with their values, as the sources have them.
fn sources() -> (Structs, BTreeMap<String, String>) {
    let (mut structs, mut constants) = (BTreeMap::new(), BTreeMap::new());
    let files = std::fs::read_dir(folder().join("src/abi")).expect("src/abi");
    for path in files.map(|entry| entry.expect("an entry").path()) {
        let text = std::fs::read_to_string(&path).expect("a source");
        for item in syn::parse_file(&text).expect("Rust").items {
            match item {
                Item::Struct(item) => {
                    let is_c = item.attrs.iter().any(|attribute| {
                        attribute.path().is_ident("repr")
                            && attribute.parse_args::<syn::Ident>().is_ok_and(|repr| repr == "C")
                    });
                    let Fields::Named(fields) = item.fields else { panic!("{}: no names", item.ident) };
                    if !is_c {
                        // What is opaque has no layout.
                        continue;
                    }
                    let fields = fields.named.iter().map(|field| {
                        let name = field.ident.as_ref().expect("a name").to_string();
                        let of = &field.ty;
                        let text = quote::quote!(#of)
                            .to_string()
                            .replace(' ', "")
                            .replace(",)", ")")
                            .replace(",>", ">");
                        (name.trim_start_matches("r#").to_owned(), text)
                    });
                    structs.insert(item.ident.to_string(), fields.collect());
                }
                Item::Const(item) if item.ident.to_string().starts_with("LATENTD_") => {
                    let value = &item.expr;
                    constants.insert(item.ident.to_string(), quote::quote!(#value).to_string());
                }
                _ => (),
            }
        }
    }
    for (name, id, _) in latentd_plugin_api::abi::IDS {
        constants.insert((*name).to_owned(), format!("{id:?}"));
    }
    (structs, constants)
}

/// A line for each thing that plugins rely on.
fn table() -> String {
    let (structs, constants) = sources();
    let mut program = String::from("#include <stdio.h>\n#include <latentd.h>\nint main(void) {\n");
    for (name, fields) in &structs {
        writeln!(program, "printf(\"{name} size %zu\\n\", sizeof({name}));").expect("written");
        for (field, of) in fields {
            let line = format!("{name}.{field} at %zu: {}", of.replace('"', "\\\""));
            writeln!(program, "printf(\"{line}\\n\", offsetof({name}, {field}));").expect("written");
        }
    }
    program.push_str("return 0; }\n");
    let build = tempfile::tempdir().expect("a folder");
    let (source, binary) = (build.path().join("layout.c"), build.path().join("layout"));
    std::fs::write(&source, program).expect("written");
    let include = folder().join("include");
    let compiled =
        Command::new("cc").arg("-I").arg(include).arg(&source).arg("-o").arg(&binary).output().expect("cc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&binary).output().expect("the table");
    let mut table = String::from_utf8(output.stdout).expect("UTF-8");
    for (name, value) in constants.iter().filter(|(name, _)| !name.starts_with("LATENTD_ABI_")) {
        writeln!(table, "{name} = {value}").expect("written");
    }
    table
}

#[test]
fn what_plugins_rely_on_is_as_it_was() {
    let path = folder().join("abi/draft-1.txt");
    let made = table();
    if std::env::var_os("LATENTD_UPDATE").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    let kept = std::fs::read_to_string(&path).expect("abi/draft-1.txt");
    let key = |line: &str| {
        line.split_once(" at ")
            .or_else(|| line.split_once(" = "))
            .or_else(|| line.split_once(" size "))
            .map_or_else(|| line.to_owned(), |(name, _)| name.to_owned())
    };
    let now: BTreeMap<String, &str> = made.lines().map(|line| (key(line), line)).collect();
    let broken: Vec<String> = kept
        .lines()
        .filter(|line| !line.contains(" size "))
        .filter(|line| now.get(&key(line)) != Some(line))
        .map(|line| match now.get(&key(line)) {
            Some(new) => format!(
                "{line}\n  became {new}: a plugin that was built before reads or calls something else"
            ),
            None => format!("{line}\n  is gone: a plugin that was built before still uses it"),
        })
        .collect();
    assert!(broken.is_empty(), "the ABI changed; such a change needs a new id:\n{}", broken.join("\n"));
    // What came to it, at the ends.
    assert!(
        kept == made,
        "the ABI grew: look at it, then LATENTD_UPDATE=1 cargo test -p latentd-plugin-api --test layout"
    );
}
