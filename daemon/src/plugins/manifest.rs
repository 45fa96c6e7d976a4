//! What a plugin says of itself: TOML text in a section of its library, read without loading it.
//!
//! Nothing of the library runs, and nothing in it is trusted: it may be any file. Which files are looked at is
//! [`search`](super::search)'s business; whether the host has what a manifest asks for is decided where it is loaded.

use std::collections::BTreeMap;

use latentd_client::protocol::LibraryKind;
use latentd_plugin_api::abi::{LATENTD_ENGINES, LATENTD_RPC_METHODS};
use serde::Deserialize;
use serde_json::Value as Json;

use super::asks::{self, Asks};
use super::engine_kinds::{self, Named};
use super::method_rows::{self, MethodRow};
use super::parameters::read_parameters;
use super::section::{self, Unread};
use super::settings;
use crate::schema::shorten;
use crate::suggest::advice;

/// Bytes of a manifest.
const LARGEST: usize = 1 << 20;

/// Names that begin the daemon's own methods and fields.
const TAKEN: [&str; 10] =
    ["jobs", "library", "models", "plugins", "styles", "image", "prompt", "blobs", "latentd", "server"];

/// Keys of a manifest that the design has and this version does not.
const KEYS: [&str; 13] = [
    "name",
    "version",
    "abi",
    "license",
    "description",
    "stages",
    "methods",
    "engines",
    "requires",
    "uses",
    "parameters",
    "settings",
    "capabilities",
];
const STAGE_KEYS: [&str; 3] = ["place", "after", "before"];

/// What a plugin says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    pub name: String,
    pub version: String,
    /// The ABI it was built for, major and minor.
    pub abi: (u32, u32),
    pub license: Option<String>,
    pub description: Option<String>,
    /// Sorted by id.
    pub stages: Vec<Stage>,
    /// What clients may call, sorted by name.
    pub methods: Vec<MethodRow>,
    /// What others may have it compute, by kind.
    pub engines: Vec<Named>,
    /// Ids of what the host must have, and of what it may have.
    pub requires: Vec<String>,
    pub uses: Vec<String>,
    /// A JSON Schema of what a request may give it, which can be compiled.
    pub parameters: Option<Json>,
    /// The same of what the configuration file may.
    pub settings: Option<Json>,
    /// Kinds of library files that it may write and remove.
    pub saves: Vec<LibraryKind>,
    /// What it asks its user for.
    pub asks: Asks,
}

/// A stage that a plugin takes part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub id: String,
    pub place: Place,
    /// Names of plugins.
    pub after: Vec<String>,
    pub before: Vec<String>,
}

/// Where in a stage's chain a plugin stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// The manifest does not say it.
    #[default]
    #[serde(skip)]
    Usual,
    Outermost,
    Innermost,
}

impl Manifest {
    /// Ids of the tables that it says are there.
    pub(super) fn tables(&self) -> impl Iterator<Item = &str> {
        let methods = (!self.methods.is_empty()).then_some(LATENTD_RPC_METHODS);
        let engines = (!self.engines.is_empty()).then_some(LATENTD_ENGINES);
        self.stages.iter().map(|stage| stage.id.as_str()).chain(methods).chain(engines)
    }
}

/// The manifest in the bytes of a shared library.
pub(crate) fn read(library: &[u8]) -> Result<Manifest, Unread> {
    parse(&section::find(library)?).map_err(Unread::Wrong)
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    version: String,
    abi: String,
    license: Option<String>,
    description: Option<String>,
    #[serde(default)]
    requires: Vec<String>,
    #[serde(default)]
    uses: Vec<String>,
    parameters: Option<String>,
    settings: Option<String>,
    #[serde(default)]
    capabilities: WrittenCapabilities,
    #[serde(default)]
    stages: BTreeMap<String, WrittenStage>,
    #[serde(default)]
    methods: BTreeMap<String, method_rows::Written>,
    #[serde(default)]
    engines: BTreeMap<String, engine_kinds::Written>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCapabilities {
    #[serde(default)]
    save: Vec<String>,
    #[serde(default)]
    network: bool,
    #[serde(default)]
    folders: Vec<String>,
    #[serde(default)]
    write_folders: Vec<String>,
    memory: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStage {
    #[serde(default)]
    place: Place,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    before: Vec<String>,
}

/// The manifest that a section holds, or the file beside an executable.
pub(super) fn parse(section: &[u8]) -> Result<Manifest, String> {
    // A section's end is filled up, and C puts a zero behind each text.
    let end = section.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = section.get(..end).unwrap_or(section);
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > LARGEST {
        return Err(format!("it is {} bytes long, {LARGEST} are allowed; shorten it", text.len()));
    }
    let text = std::str::from_utf8(text)
        .map_err(|error| format!("it is not UTF-8 at byte {}", error.valid_up_to()))?;
    if let Some(zero) = text.find('\0') {
        return Err(format!("there is a zero at byte {zero}; is a second text behind it? keep one"));
    }
    let table: toml::Table = toml::from_str(text).map_err(|error| said(text, &error))?;
    check_keys(&table)?;
    let written: Written = toml::from_str(text).map_err(|error| said(text, &error))?;
    let parameters = written.parameters.map(|text| read_parameters(&text)).transpose();
    let settings = written.settings.map(|text| settings::read_schema(&text)).transpose();
    let WrittenCapabilities { save, network, folders, write_folders, memory } = written.capabilities;
    let asks = asks::read(asks::Written { network, folders, write_folders, memory })?;
    let stages = written.stages.into_iter().map(|(id, stage)| read_stage(id, stage, &written.name));
    let manifest = Manifest {
        abi: read_abi(&written.abi)?,
        stages: stages.collect::<Result<_, _>>()?,
        methods: method_rows::read(written.methods)?,
        engines: engine_kinds::read(written.engines)?,
        parameters: parameters.map_err(|error| format!("parameters: {error}"))?,
        asks,
        saves: save.iter().map(|kind| read_kind(kind)).collect::<Result<_, _>>()?,
        settings: settings.map_err(|error| format!("settings: {error}"))?,
        name: written.name,
        version: written.version,
        license: written.license,
        description: written.description,
        requires: written.requires,
        uses: written.uses,
    };
    manifest.check()?;
    Ok(manifest)
}

/// An error of TOML, with its line.
fn said(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    // What is missing is on no line.
    let span = error.span().filter(|_| !message.starts_with("missing field"));
    let before = span.and_then(|span| text.get(..span.start));
    before.map_or(message.clone(), |before| format!("line {}: {message}", before.matches('\n').count() + 1))
}

fn check_keys(table: &toml::Table) -> Result<(), String> {
    let unknown = |table: &toml::Table, known: &[&str]| {
        let key = table.keys().find(|key| !known.contains(&key.as_str()))?;
        let advice = match advice(key, known.iter().copied()) {
            advice if advice.is_empty() => format!("; known: {}", known.join(", ")),
            advice => advice,
        };
        Some((shorten(key), advice))
    };
    if let Some((key, advice)) = unknown(table, &KEYS) {
        return Err(format!("unknown key '{key}'{advice}"));
    }
    for (id, stage) in table.get("stages").and_then(toml::Value::as_table).into_iter().flatten() {
        if let Some((key, advice)) = stage.as_table().and_then(|stage| unknown(stage, &STAGE_KEYS)) {
            return Err(format!("stage '{}': unknown key '{key}'{advice}", shorten(id)));
        }
    }
    Ok(())
}

fn read_abi(abi: &str) -> Result<(u32, u32), String> {
    // Only digits: Rust would take a sign, too.
    let number = |digits: &str| -> Option<u32> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let parts = abi.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    parts.ok_or_else(|| format!("abi '{}' must be major and minor, such as '0.1'", shorten(abi)))
}

fn read_kind(name: &str) -> Result<LibraryKind, String> {
    let kind = LibraryKind::ALL.iter().find(|(_, own)| *own == name).map(|(kind, _)| *kind);
    kind.ok_or_else(|| {
        let advice = advice(name, LibraryKind::ALL.map(|(_, name)| name));
        format!("capabilities: save: '{}' is no kind of library file{advice}", shorten(name))
    })
}

fn read_stage(id: String, stage: WrittenStage, plugin: &str) -> Result<Stage, String> {
    let WrittenStage { place, after, before } = stage;
    check_id("stage", &id)?;
    for (key, names) in [("after", &after), ("before", &before)] {
        for name in names {
            if !is_name(name) {
                return Err(format!("stage '{id}': {key}: '{}' is no name of a plugin", shorten(name)));
            }
            if name == plugin {
                return Err(format!("stage '{id}': {key}: '{name}' is this plugin itself; remove it"));
            }
        }
    }
    Ok(Stage { id, place, after, before })
}

impl Manifest {
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        let in_version = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
        if !(1..=64).contains(&self.version.len()) || !self.version.bytes().all(in_version) {
            let version = shorten(&self.version);
            return Err(format!(
                "version '{version}' must be 1 to 64 of letters, digits, '.', '+' and '-', such as '1.0.2'"
            ));
        }
        // They are shown as they are.
        for (key, text, most) in [("license", &self.license, 256), ("description", &self.description, 4096)] {
            let Some(text) = text else { continue };
            if text.len() > most {
                return Err(format!("{key} is {} bytes long, {most} are allowed; shorten it", text.len()));
            }
            if let Some(character) =
                text.chars().find(|character| character.is_control() && *character != '\n')
            {
                return Err(format!("{key} has the control character {character:?}; remove it"));
            }
        }
        self.requires.iter().try_for_each(|id| check_id("requires", id))?;
        self.uses.iter().try_for_each(|id| check_id("uses", id))
    }
}

/// Why a plugin cannot be called so.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let shown = shorten(name);
    if !is_name(name) {
        let text =
            format!("name '{shown}' must be 1 to 64 of a-z, 0-9 and '-', and begin with a letter or digit");
        return Err(text);
    }
    if TAKEN.contains(&name) {
        return Err(format!("name '{shown}' is latentd's own; choose another"));
    }
    Ok(())
}

/// Whether a text can be the name of a plugin.
fn is_name(name: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(in_name) && !name.starts_with('-')
}

/// Ids of stages, services and extensions: `NAME/REVISION` or `NAME/draft-REVISION`.
fn check_id(key: &str, id: &str) -> Result<(), String> {
    let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_revision = |text: &str| {
        let digits = text.strip_prefix("draft-").unwrap_or(text);
        (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = id.split_once('/').filter(|_| id.len() <= 128);
    match parts {
        Some((name, revision)) if !name.is_empty() && name.bytes().all(in_name) && is_revision(revision) => {
            Ok(())
        }
        _ => Err(format!("{key}: '{}' must be a name and a revision, such as 'image.post/1'", shorten(id))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::engine_kinds::Kind;
    use super::super::section::{compiled, in_c};
    use super::*;

    const SMALL: &str = "name = 'a'\nversion = '1'\nabi = '0.1'\n";

    const WHOLE: &str = r#"
name = "face-fix"
version = "1.2.0-rc1"
abi = "0.1"
license = "MIT"
description = "Mends faces.\nSlowly."
requires = ["subjob.run/draft-1"]
uses = ["tensor.ops/2"]
parameters = """{"type": "object", "properties": {"strength": {"type": "number", "default": 0.5}}}"""
settings = """{"type": "object", "properties": {"limit": {"type": "integer"}}}"""

[capabilities]
save = ["face", "embedding"]
network = true
folders = ["~/faces"]
memory = "1 GiB"

[stages."image.post/draft-1"]
place = "innermost"
after = ["controlnet"]
before = ["upscaler"]

[stages."batch.post/1"]

[engines.detector]
entries = ["face"]
"#;

    fn library(manifest: &str) -> Vec<u8> {
        compiled(&in_c(manifest), &["-shared", "-fPIC"])
    }

    fn wrong(text: &str) -> String {
        parse(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn all_that_a_manifest_says_is_read_from_a_library() {
        let whole = read(&library(WHOLE)).expect("a manifest");
        let stage = |id: &str, place, after: &[&str], before: &[&str]| Stage {
            id: id.to_owned(),
            place,
            after: after.iter().map(|&name| name.to_owned()).collect(),
            before: before.iter().map(|&name| name.to_owned()).collect(),
        };
        let expected = Manifest {
            name: "face-fix".into(),
            version: "1.2.0-rc1".into(),
            abi: (0, 1),
            license: Some("MIT".into()),
            description: Some("Mends faces.\nSlowly.".into()),
            stages: vec![
                stage("batch.post/1", Place::Usual, &[], &[]),
                stage("image.post/draft-1", Place::Innermost, &["controlnet"], &["upscaler"]),
            ],
            methods: vec![],
            engines: vec![Named { kind: Kind::Detector, entries: vec!["face".into()], library: None }],
            requires: vec!["subjob.run/draft-1".into()],
            uses: vec!["tensor.ops/2".into()],
            parameters: Some(
                json!({"type": "object", "properties": {"strength": {"type": "number", "default": 0.5}}}),
            ),
            saves: vec![LibraryKind::Face, LibraryKind::Embedding],
            asks: Asks {
                network: true,
                folders: vec!["~/faces".into()],
                memory: Some(1 << 30),
                ..Asks::default()
            },
            settings: Some(json!({"type": "object", "properties": {"limit": {"type": "integer"}}})),
        };
        assert_eq!(whole, expected);
        let small = parse(format!("{SMALL}\0\0").as_bytes()).expect("a manifest");
        assert_eq!((small.name.as_str(), small.stages.len(), small.parameters), ("a", 0, None));
    }

    #[test]
    fn damaged_libraries_are_refused_or_read_but_break_nothing() {
        let library = library(WHOLE);
        for end in (0..library.len()).step_by(97) {
            let cut = read(library.get(..end).expect("within"));
            assert!(cut.is_err(), "{end}");
        }
        // The tables at either end, each byte; the rest thinly.
        let last = library.len();
        let places = (0..1024.min(last)).chain((0..last).step_by(97)).chain(last.saturating_sub(2500)..last);
        let mut damaged = library.clone();
        for place in places {
            for flipped in [0xff, 0x80, 0x01] {
                *damaged.get_mut(place).expect("within") ^= flipped;
                if let Ok(manifest) = read(&damaged) {
                    assert!(is_name(&manifest.name));
                }
                *damaged.get_mut(place).expect("within") ^= flipped;
            }
        }
    }

    proptest! {
        #[test]
        fn several_damages_break_nothing_either(
            damages in prop::collection::vec((0usize..20_000, any::<u8>()), 1..8),
            at_the_end in any::<bool>(),
        ) {
            static LIBRARY: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| library(WHOLE));
            let mut damaged = LIBRARY.clone();
            let length = damaged.len();
            for (place, byte) in damages {
                let place = if at_the_end { length.saturating_sub(1 + place % 2500) } else { place % 900 };
                if let Some(there) = damaged.get_mut(place) {
                    *there = byte;
                }
            }
            read(&damaged).ok();
        }

        #[test]
        fn any_text_is_refused_or_read(text in "\\PC{0,200}") {
            parse(text.as_bytes()).ok();
        }
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_said() {
        let check = |text: &str, expected: &str| {
            let found = wrong(text);
            assert!(found.contains(expected), "{text}\n{found}");
        };
        check("", "it is empty");
        check("\0\0", "it is empty");
        check(&format!("{SMALL}#{}", "x".repeat(LARGEST)), "bytes long, 1048576 are allowed");
        check(&format!("{SMALL}\0{SMALL}"), "is a second text behind it?");
        check("name = 'a'\nversion = \n", "line 2: ");
        check("name = 'a'\nversion = 1\nabi = '0.1'", "line 2: invalid type: integer");
        check("name = 'a'\nabi = '0.1'", "missing field `version`");
        check(&format!("{SMALL}nmae = 'x'"), "unknown key 'nmae'; did you mean 'name'?");
        check(&format!("{SMALL}zzzzzz = 'x'"), "unknown key 'zzzzzz'; known: name, version, abi, license");
        check(
            &format!("{SMALL}[stages.'x/1']\nafer = []"),
            "stage 'x/1': unknown key 'afer'; did you mean 'after'?",
        );
        check(&format!("{SMALL}[stages.'x/1']\nplace = 'middle'"), "line 5: unknown variant `middle`");
        check(&format!("{SMALL}[stages.x]"), "stage: 'x' must be a name and a revision");
        check(&format!("{SMALL}[stages.'x/1']\nafter = ['B']"), "stage 'x/1': after: 'B' is no name");
        check(&format!("{SMALL}[stages.'x/1']\nbefore = ['a']"), "before: 'a' is this plugin itself");
        check(
            &format!("{SMALL}capabilities.save = ['fase']"),
            "capabilities: save: 'fase' is no kind of library file",
        );
        check(&format!("{SMALL}capabilities.folders = ['x']"), "capabilities: folders: 'x' must begin with");
        check(&format!("{SMALL}capabilities.netwrok = true"), "line 4: unknown field `netwrok`");
        check(&format!("{SMALL}settings = '{{}}'"), "settings: its type is missing");
        for id in ["x", "x/", "/1", "x/one", "x/draft-", "X/1", "x/1/2", "x y/1", "x/0000000001"] {
            check(&format!("{SMALL}requires = ['{id}']"), "requires: '");
            check(&format!("{SMALL}uses = ['{id}']"), "uses: '");
        }
        for name in ["", "A", "-a", "a_b", "a.b", "ä", &"a".repeat(65)] {
            check(&format!("name = '{name}'\nversion = '1'\nabi = '0.1'"), "must be 1 to 64 of a-z, 0-9");
        }
        for name in TAKEN {
            check(
                &format!("name = '{name}'\nversion = '1'\nabi = '0.1'"),
                "is latentd's own; choose another",
            );
        }
        for version in ["", "1 2", "1/2", "é", &"1".repeat(65)] {
            check(&format!("name = 'a'\nversion = '{version}'\nabi = '0.1'"), "version '");
        }
        for abi in ["", "1", "1.", ".1", "+1.2", "1.2.3", "1.99999999999", "a.b"] {
            check(&format!("name = 'a'\nversion = '1'\nabi = '{abi}'"), "must be major and minor");
        }
        check(&format!("{SMALL}license = \"a\\u001bb\""), "license has the control character '\\u{1b}'");
        check(&format!("{SMALL}description = '{}'", "x".repeat(5000)), "description is 5000 bytes long");
        assert!(
            parse(&[b"name = '", &[0xff][..], b"'"].concat())
                .expect_err("no text")
                .contains("UTF-8 at byte 8")
        );
        // Deep ones.
        assert!(!wrong(&format!("{SMALL}{} = 1", vec!["a"; 300_000].join("."))).is_empty());
        assert!(!wrong(&format!("{SMALL}x = {}", "[".repeat(1_000_000))).is_empty());
    }
}
