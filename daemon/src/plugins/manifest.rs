//! What a plugin says of itself: TOML text in a section of its library, read without loading it.
//!
//! Nothing of the library runs, and nothing in it is trusted: it may be any file. Which files are looked at is
//! [`search`](super::search)'s business; whether the host has what a manifest asks for is decided where it is loaded.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::fmt;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};
use object::read::macho::{FatArch, MachHeader, Section, Segment};
use object::{elf, macho};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::schema::shorten;
use crate::suggest::advice;

/// The section of an ELF library, and the segment and section of a Mach-O one.
const ELF_SECTION: &[u8] = b".latentd\0";
const MACH_O_SECTION: (&[u8], &[u8]) = (b"__DATA", b"__latentd");

/// Bytes of a manifest, and of the schema in it.
const LARGEST: usize = 1 << 20;
const LARGEST_SCHEMA: usize = 256 << 10;

/// Sections, and parts of a library for several processors, that are looked at. Linkers make some dozen.
const MOST_SECTIONS: usize = 1 << 16;

/// Levels of a schema with what it refers to, and how many schemas all of them are, written out.
const DEEPEST: usize = 128;
const MOST_SCHEMAS: u64 = 100_000;

/// What defaults may add to parameters: values, and bytes of texts.
const MOST_DEFAULTS: usize = 1 << 20;

/// Names that begin the daemon's own methods and fields.
const TAKEN: [&str; 10] =
    ["jobs", "library", "models", "plugins", "styles", "image", "prompt", "blobs", "latentd", "server"];

/// Keys of a manifest that the design has and this version does not.
const NOT_YET: [&str; 4] = ["methods", "engines", "capabilities", "settings"];

/// Keys that are read, of a manifest and of a stage.
const KEYS: [&str; 9] =
    ["name", "version", "abi", "license", "description", "stages", "requires", "uses", "parameters"];
const STAGE_KEYS: [&str; 3] = ["place", "after", "before"];

/// Keywords of a schema that the design has and this version does not.
const KEYWORDS_NOT_YET: [&str; 5] = ["x-image", "x-mask", "x-library", "x-engine", "x-prompt"];

/// Keywords of a schema whose values are no schemas; and those that hold schemas by name.
const DATA_KEYWORDS: [&str; 5] = ["default", "const", "enum", "examples", "required"];
const NAMED_SCHEMAS: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// The draft that schemas are written in, where they say it.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub name: String,
    pub version: String,
    /// The ABI it was built for, major and minor.
    pub abi: (u32, u32),
    pub license: Option<String>,
    pub description: Option<String>,
    /// Sorted by id.
    pub stages: Vec<Stage>,
    /// Ids of what the host must have, and of what it may have.
    pub requires: Vec<String>,
    pub uses: Vec<String>,
    /// A JSON Schema of what a request may give it, which can be compiled.
    pub parameters: Option<Json>,
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

/// Why a file has no manifest that can be used. To be read after its path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    #[error("not a shared library: {0}")]
    NotALibrary(String),
    #[error("is a library for {found}, this latentd is for {here}; install the plugin's build for {here}")]
    Foreign { found: String, here: String },
    #[error("has no manifest (section '.latentd'), so it is not a plugin of latentd")]
    NoManifest,
    #[error("manifest: {0}")]
    Wrong(String),
}

/// The manifest in the bytes of a shared library.
pub(crate) fn read(library: &[u8]) -> Result<Manifest, Unread> {
    read_on(&HERE, library)
}

fn read_on(here: &Machine, library: &[u8]) -> Result<Manifest, Unread> {
    // The tables of a library are looked at in place, where they are aligned only if its beginning is.
    let aligned;
    let library = if library.as_ptr().align_offset(size_of::<u64>()) == 0 {
        library
    } else {
        let mut copy: Vec<u8> = Vec::with_capacity(library.len() + size_of::<u64>());
        let start = copy.as_ptr().align_offset(size_of::<u64>()).min(size_of::<u64>());
        copy.resize(start, 0);
        copy.extend_from_slice(library);
        aligned = copy;
        aligned.get(start..).unwrap_or_default()
    };
    parse(section(here, library)?).map_err(Unread::Wrong)
}

// ---------------------------------------------------------------------------------------------- the library

/// What a library is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Machine {
    system: &'static str,
    /// As Rust calls it.
    processor: &'static str,
    bits: u32,
    little_endian: bool,
}

const LINUX: &str = "Linux";
const MAC_OS: &str = "macOS";

/// What this program is made for.
const HERE: Machine = Machine {
    system: if cfg!(target_vendor = "apple") { MAC_OS } else { LINUX },
    processor: std::env::consts::ARCH,
    bits: usize::BITS,
    little_endian: cfg!(target_endian = "little"),
};

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, processor, bits, little_endian } = self;
        write!(f, "{system} on {processor}")?;
        // Said where the name does not.
        match (*processor, bits, little_endian) {
            ("x86_64" | "aarch64" | "riscv64" | "loongarch64", 64, true) | ("x86" | "arm", 32, true) => {
                Ok(())
            }
            (.., true) => write!(f, " ({bits} bits, little endian)"),
            (.., false) => write!(f, " ({bits} bits, big endian)"),
        }
    }
}

fn not_a_library(why: impl fmt::Display) -> Unread {
    Unread::NotALibrary(why.to_string())
}

fn foreign(found: impl fmt::Display, here: &Machine) -> Unread {
    Unread::Foreign { found: found.to_string(), here: here.to_string() }
}

/// The bytes of the section with the manifest.
fn section<'data>(here: &Machine, library: &'data [u8]) -> Result<&'data [u8], Unread> {
    let beginning = library.get(..4).unwrap_or(library);
    let found = match beginning {
        [] => return Err(not_a_library("the file is empty")),
        [0x7f, b'E', b'L', b'F'] => elf_library(here, library)?,
        [0xcf | 0xce, 0xfa, 0xed, 0xfe] | [0xfe, 0xed, 0xfa, 0xcf | 0xce] => mach_o_library(here, library)?,
        [0xca, 0xfe, 0xba, 0xbe | 0xbf] => mach_o_library(here, mach_o_part(here, library)?)?,
        [b'M', b'Z', ..] => return Err(foreign("Windows", here)),
        _ => return Err(not_a_library("it does not begin as one")),
    };
    found.ok_or(Unread::NoManifest)
}

/// Of the sections with the manifest's name the only one.
fn only<'data>(
    found: impl Iterator<Item = Result<&'data [u8], Unread>>,
) -> Result<Option<&'data [u8]>, Unread> {
    let mut only = None;
    for section in found {
        if only.replace(section?).is_some() {
            return Err(Unread::Wrong("there are two sections of its name; keep one".into()));
        }
    }
    Ok(only)
}

fn elf_library<'data>(here: &Machine, library: &'data [u8]) -> Result<Option<&'data [u8]>, Unread> {
    let (class, order) = (library.get(4).copied(), library.get(5).copied());
    let little_endian = order == Some(elf::ELFDATA2LSB.0);
    if !little_endian && order != Some(elf::ELFDATA2MSB.0) {
        return Err(not_a_library("its header is broken"));
    }
    match class {
        Some(class) if class == elf::ELFCLASS64.0 => {
            elf_sections::<elf::FileHeader64<Endianness>>(here, library, 64, little_endian)
        }
        Some(class) if class == elf::ELFCLASS32.0 => {
            elf_sections::<elf::FileHeader32<Endianness>>(here, library, 32, little_endian)
        }
        _ => Err(not_a_library("its header is broken")),
    }
}

fn elf_sections<'data, Elf: FileHeader<Endian = Endianness>>(
    here: &Machine,
    library: &'data [u8],
    bits: u32,
    little_endian: bool,
) -> Result<Option<&'data [u8]>, Unread> {
    let broken = |error: object::read::Error| not_a_library(format_args!("it is broken: {error}"));
    let header = Elf::parse(library).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let system = match library.get(7).copied() {
        Some(0 | 3) => LINUX,
        Some(9) => "FreeBSD",
        _ => "another system",
    };
    let processor = match header.e_machine(endian) {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_386 => "x86",
        elf::EM_ARM => "arm",
        elf::EM_RISCV if bits == 64 => "riscv64",
        elf::EM_RISCV => "riscv32",
        elf::EM_LOONGARCH => "loongarch64",
        elf::EM_PPC64 => "powerpc64",
        elf::EM_PPC => "powerpc",
        elf::EM_S390 => "s390x",
        elf::EM_MIPS => "mips",
        _ => "another processor",
    };
    let found = Machine { system, processor, bits, little_endian };
    if found != *here {
        return Err(foreign(found, here));
    }
    match header.e_type(endian) {
        elf::ET_DYN => (),
        elf::ET_EXEC => return Err(not_a_library("it is a program")),
        elf::ET_REL => return Err(not_a_library("it is an object file; link it with 'cc -shared'")),
        _ => return Err(not_a_library("it is another kind of ELF file")),
    }
    // As the dynamic linker decides it. One table is looked at: a hostile file has many that are all of its bytes.
    let segments = header.program_headers(endian, library).map_err(broken)?;
    let mut tables = segments.iter().filter_map(|segment| segment.dynamic(endian, library).transpose());
    let Some(table) = tables.next().transpose().map_err(broken)? else {
        return Err(not_a_library("it has nothing for the dynamic linker"));
    };
    let is_program =
        |entry: &Elf::Dyn| entry.tag(endian) == elf::DT_FLAGS_1 && entry.val(endian) & elf::DF_1_PIE.0 != 0;
    if table.iter().any(is_program) {
        return Err(not_a_library("it is a program"));
    }
    let sections = header.section_headers(endian, library).map_err(broken)?;
    if sections.is_empty() {
        return Ok(None);
    }
    if sections.len() > MOST_SECTIONS {
        return Err(not_a_library(format_args!("it is broken: {} sections", sections.len())));
    }
    let names = header.section_strings_index(endian, library).map_err(broken)?;
    let names = sections.get(names.0).map(|names| names.data(endian, library)).transpose().map_err(broken)?;
    // Not by the names' ends: a hostile table has none, and would be gone through for each section.
    let is_ours = |section: &&Elf::SectionHeader| {
        let start = section.sh_name(endian) as usize;
        names.and_then(|names| names.get(start..)).is_some_and(|name| name.starts_with(ELF_SECTION))
    };
    only(sections.iter().filter(is_ours).map(|section| {
        if section.sh_flags(endian).contains(elf::SHF_COMPRESSED) {
            return Err(Unread::Wrong("its section is compressed; link it without that".into()));
        }
        section.data(endian, library).map_err(broken)
    }))
}

/// The part for this machine of a library for several.
fn mach_o_part<'data>(here: &Machine, library: &'data [u8]) -> Result<&'data [u8], Unread> {
    fn find<'data, Fat: FatArch>(here: &Machine, library: &'data [u8]) -> Result<&'data [u8], Unread> {
        let broken = |error| not_a_library(format_args!("it is broken: {error}"));
        let parts = object::read::macho::MachOFatFile::<Fat>::parse(library).map_err(broken)?;
        let mut found = Vec::new();
        for part in parts.arches().iter().take(MOST_SECTIONS) {
            let processor = mach_o_processor(part.cputype());
            if processor == here.processor {
                return part.data(library).map_err(broken);
            }
            if !found.contains(&processor) {
                found.push(processor);
            }
        }
        Err(foreign(format_args!("{MAC_OS} on {}", found.join(", ")), here))
    }
    if here.system != MAC_OS {
        return Err(foreign(MAC_OS, here));
    }
    match library.get(3) {
        Some(0xbe) => find::<macho::FatArch32>(here, library),
        _ => find::<macho::FatArch64>(here, library),
    }
}

fn mach_o_processor(code: macho::CpuType) -> &'static str {
    match code {
        macho::CPU_TYPE_X86_64 => "x86_64",
        macho::CPU_TYPE_ARM64 => "aarch64",
        macho::CPU_TYPE_X86 => "x86",
        macho::CPU_TYPE_ARM => "arm",
        _ => "another processor",
    }
}

fn mach_o_library<'data>(here: &Machine, library: &'data [u8]) -> Result<Option<&'data [u8]>, Unread> {
    if here.system != MAC_OS {
        return Err(foreign(MAC_OS, here));
    }
    let broken = |error| not_a_library(format_args!("it is broken: {error}"));
    let Ok(header) = macho::MachHeader64::<Endianness>::parse(library, 0) else {
        return Err(foreign(format_args!("{MAC_OS} with 32 bits"), here));
    };
    let endian = header.endian().map_err(broken)?;
    let processor = mach_o_processor(header.cputype(endian));
    let found = Machine { system: MAC_OS, processor, bits: 64, little_endian: header.is_little_endian() };
    if found != *here {
        return Err(foreign(found, here));
    }
    if ![macho::MH_DYLIB, macho::MH_BUNDLE].contains(&header.filetype(endian)) {
        return Err(not_a_library("it is another kind of Mach-O file; link it with 'cc -shared'"));
    }
    let mut sections = Vec::new();
    let mut commands = header.load_commands(endian, library, 0).map_err(broken)?;
    while let Some(command) = commands.next().map_err(broken)? {
        let Some((segment, data)) = command.segment_64().map_err(broken)? else {
            continue;
        };
        for section in segment.sections(endian, data).map_err(broken)? {
            if (section.segment_name(), section.name()) == MACH_O_SECTION && sections.len() < 2 {
                let start = u64::from(section.offset(endian));
                sections.push(section.data(endian, library, start).map_err(broken));
            }
        }
    }
    only(sections.into_iter())
}

// ---------------------------------------------------------------------------------------------- the text

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
    #[serde(default)]
    stages: BTreeMap<String, WrittenStage>,
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

/// The manifest that a section holds.
fn parse(section: &[u8]) -> Result<Manifest, String> {
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
    let stages = written.stages.into_iter().map(|(id, stage)| read_stage(id, stage, &written.name));
    let manifest = Manifest {
        abi: read_abi(&written.abi)?,
        stages: stages.collect::<Result<_, _>>()?,
        parameters: parameters.map_err(|error| format!("parameters: {error}"))?,
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
    if let Some(key) = NOT_YET.iter().find(|key| table.contains_key(**key)) {
        return Err(format!("declares {key}, which this version of latentd does not have yet"));
    }
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
        let name = shorten(&self.name);
        if !is_name(&self.name) {
            return Err(format!(
                "name '{name}' must be 1 to 64 of a-z, 0-9 and '-', and begin with a letter or digit"
            ));
        }
        if TAKEN.contains(&self.name.as_str()) {
            return Err(format!("name '{name}' is latentd's own; choose another"));
        }
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

// ---------------------------------------------------------------------------------------------- the parameters

/// A schema that can be compiled and checked against within bounds.
fn read_parameters(text: &str) -> Result<Json, String> {
    if text.len() > LARGEST_SCHEMA {
        return Err(format!("the schema is {} bytes long, {LARGEST_SCHEMA} are allowed", text.len()));
    }
    let schema: Json = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let Some(map) = schema.as_object() else {
        return Err(format!("the schema is {}, it must be a map", show(&schema)));
    };
    match map.get("type") {
        Some(Json::String(kind)) if kind == "object" => (),
        Some(other) => return Err(format!("its type is {}, it must be 'object'", show(other))),
        None => return Err("its type is missing; give \"type\": \"object\"".into()),
    }
    match map.get("$schema") {
        Some(Json::String(draft)) if draft.trim_end_matches('#') == DRAFT => (),
        Some(other) => return Err(format!("its $schema is {}, only '{DRAFT}' is read", show(other))),
        None => (),
    }
    check_keywords(&schema, true)?;
    Extent { root: &schema, known: HashMap::new() }.of(&schema, 0)?;
    let validator = compile(&schema)?;
    let mut defaults = Json::Object(serde_json::Map::new());
    with_defaults(&schema, &mut defaults)?;
    // What is wrong with the whole is what the request leaves out.
    let wrong = validator.iter_errors(&defaults).find(|error| !error.instance_path().as_str().is_empty());
    if let Some(error) = wrong {
        return Err(format!("a default is not what the schema allows: {}", describe(&schema, &error)));
    }
    Ok(schema)
}

/// Nothing that is not in the schema is looked for.
fn compile(schema: &Json) -> Result<Validator, String> {
    // Values come from clients: patterns must not be able to take for ever.
    let patterns = PatternOptions::regex();
    let options =
        jsonschema::options().with_draft(Draft::Draft202012).offline().with_pattern_options(patterns);
    options.build(schema).map_err(|error| {
        let place = error.instance_path().as_str();
        let text = shorten(&error.to_string());
        if place.is_empty() { text } else { format!("{place}: {text}") }
    })
}

/// That a schema has no keyword that is not there yet, and refers to nothing but its own parts, by pointer.
fn check_keywords(schema: &Json, is_root: bool) -> Result<(), String> {
    let Json::Object(map) = schema else {
        return Ok(());
    };
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            (keyword, _) if KEYWORDS_NOT_YET.contains(&keyword) => {
                return Err(format!(
                    "uses the schema keyword {keyword}, which this version of latentd does not have yet"
                ));
            }
            ("$ref", Json::String(to)) if to != "#" && !to.starts_with("#/") => {
                return Err(format!(
                    "refers to '{}'; only its own parts can be referred to, such as '#/$defs/NAME'",
                    shorten(to)
                ));
            }
            // These give names to parts, which would lead around the counting of them.
            ("$id", _) if !is_root => {
                return Err("uses $id within; it may stand at its beginning only".into());
            }
            (name @ ("$dynamicRef" | "$dynamicAnchor" | "$recursiveRef"), _) => {
                return Err(format!("uses {name}; use $ref with '#/$defs/NAME'"));
            }
            (name, _) if DATA_KEYWORDS.contains(&name) => (),
            (name, Json::Object(named)) if NAMED_SCHEMAS.contains(&name) => {
                named.values().try_for_each(|schema| check_keywords(schema, false))?;
            }
            (_, Json::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| check_keywords(schema, false))?;
            }
            (_, schema) => check_keywords(schema, false)?,
        }
    }
    Ok(())
}

/// How large a schema is with all that it refers to: a short one can stand for more than can be gone through.
struct Extent<'a> {
    root: &'a Json,
    /// Of parts that are referred to: how many values and levels. `None` while they are counted: they come round.
    known: HashMap<&'a str, Option<(u64, usize)>>,
}

impl<'a> Extent<'a> {
    /// Values and levels of a part that stands so deep.
    fn of(&mut self, part: &'a Json, depth: usize) -> Result<(u64, usize), String> {
        let mut parts: Vec<&Json> = Vec::new();
        let (mut count, mut levels) = (1_u64, 0);
        match part {
            Json::Object(map) => {
                if let Some(Json::String(to)) = map.get("$ref") {
                    let (referred, below) = self.referred(to, depth + 1)?;
                    count = count.saturating_add(referred);
                    levels = below;
                }
                parts.extend(map.values());
            }
            Json::Array(items) => parts.extend(items),
            _ => return Ok((1, 1)),
        }
        for part in parts {
            let (inner, below) = self.of(part, depth + 1)?;
            count = count.saturating_add(inner);
            levels = levels.max(below);
        }
        if depth + levels > DEEPEST {
            return Err(format!("the schema is more than {DEEPEST} levels deep; make it flatter"));
        }
        if count > MOST_SCHEMAS {
            return Err(format!("the schema is larger than {MOST_SCHEMAS} values with what it refers to"));
        }
        Ok((count, levels + 1))
    }

    fn referred(&mut self, to: &'a str, depth: usize) -> Result<(u64, usize), String> {
        if depth > DEEPEST {
            return Err(format!("the schema is more than {DEEPEST} levels deep; make it flatter"));
        }
        match self.known.entry(to) {
            Entry::Occupied(known) => Ok(known.get().unwrap_or((1, 1))),
            Entry::Vacant(place) => {
                let part = to.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
                let part =
                    part.ok_or_else(|| format!("refers to '{}', which it does not have", shorten(to)))?;
                place.insert(None);
                let extent = self.of(part, depth)?;
                self.known.insert(to, Some(extent));
                Ok(extent)
            }
        }
    }
}

/// Puts the schema's defaults where parameters are left out: of the fields (`properties`) of maps, and of maps that are
/// items of arrays. An error if that were more than can be meant.
pub(crate) fn with_defaults(schema: &Json, params: &mut Json) -> Result<(), String> {
    Defaults { root: schema, left: MOST_DEFAULTS }.fill(schema, params, 0)
}

struct Defaults<'a> {
    root: &'a Json,
    left: usize,
}

impl<'a> Defaults<'a> {
    fn fill(&mut self, schema: &'a Json, value: &mut Json, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("parameters with their defaults are more than {DEEPEST} levels deep"));
        }
        for schema in chain(self.root, schema) {
            match value {
                Json::Object(fields) => {
                    let known = schema.get("properties").and_then(Json::as_object);
                    for (name, schema) in known.into_iter().flatten() {
                        self.spend(1)?;
                        if !fields.contains_key(name)
                            && let Some(default) =
                                chain(self.root, schema).find_map(|schema| schema.get("default"))
                        {
                            self.spend_on(default)?;
                            self.spend(name.len())?;
                            fields.insert(name.clone(), default.clone());
                        }
                        if let Some(field) = fields.get_mut(name) {
                            self.fill(schema, field, depth + 1)?;
                        }
                    }
                }
                Json::Array(items) => {
                    let first = schema.get("prefixItems").and_then(Json::as_array);
                    let first = first.map_or(&[][..], Vec::as_slice);
                    for (index, item) in items.iter_mut().enumerate() {
                        self.spend(1)?;
                        if let Some(schema) = first.get(index).or_else(|| schema.get("items")) {
                            self.fill(schema, item, depth + 1)?;
                        }
                    }
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn spend(&mut self, amount: usize) -> Result<(), String> {
        let left = self.left.checked_sub(amount);
        self.left = left.ok_or("parameters with their defaults are too large; give fewer")?;
        Ok(())
    }

    fn spend_on(&mut self, value: &Json) -> Result<(), String> {
        match value {
            Json::String(text) => self.spend(1 + text.len()),
            Json::Array(items) => {
                self.spend(1)?;
                items.iter().try_for_each(|item| self.spend_on(item))
            }
            Json::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                self.spend(1 + name.len())?;
                self.spend_on(value)
            }),
            _ => self.spend(1),
        }
    }
}

/// A schema, what it refers to, and so on.
fn chain<'a>(root: &'a Json, schema: &'a Json) -> impl Iterator<Item = &'a Json> {
    let next = move |schema: &&'a Json| {
        let to = schema.get("$ref").and_then(Json::as_str)?;
        root.pointer(to.strip_prefix('#')?)
    };
    // Some come round.
    std::iter::successors(Some(schema), next).take(DEEPEST)
}

/// That parameters are what a schema allows; else where they are not, what stands there, and what may. The schema is compiled
/// for each call.
pub(crate) fn validate(schema: &Json, params: &Json) -> Result<(), String> {
    let validator = compile(schema)?;
    validator.validate(params).map_err(|error| describe(schema, &error))
}

/// An error with the pointer to its place and the value there.
fn describe(schema: &Json, error: &ValidationError<'_>) -> String {
    let error = innermost(error);
    let place = error.instance_path().as_str();
    let value = show(error.instance());
    let text = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let keyword = error.schema_path().as_str();
            let parent = keyword.rsplit_once('/').and_then(|(parent, _)| schema.pointer(parent));
            let known = parent.and_then(|parent| parent.get("properties")).and_then(Json::as_object);
            let known: Vec<&str> =
                known.into_iter().flat_map(serde_json::Map::keys).map(String::as_str).collect();
            let name = unexpected.first().map_or("", String::as_str);
            let advice = match advice(name, known.iter().copied()) {
                advice if !advice.is_empty() => advice,
                _ if known.is_empty() => "; it takes none".into(),
                _ => format!("; known: {}", known.join(", ")),
            };
            return format!("{place}: unknown field '{}'{advice}", shorten(name))
                .trim_start_matches(": ")
                .into();
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default().replace('~', "~0").replace('/', "~1");
            return format!("{place}/{}: is missing; give it", shorten(&name));
        }
        ValidationErrorKind::Type { kind } => {
            let kinds: Vec<String> = match kind {
                TypeKind::Single(kind) => vec![kind.to_string()],
                TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind.to_string()).collect(),
            };
            let kinds: Vec<&str> = kinds.iter().map(|kind| article(kind)).collect();
            format!("{value} must be {}", kinds.join(" or "))
        }
        ValidationErrorKind::Enum { options } => {
            let choices = options.as_array().map_or(&[][..], Vec::as_slice);
            let listed: Vec<String> = choices.iter().map(show).collect();
            let name = error.instance().as_str().unwrap_or_default();
            let advice = advice(name, choices.iter().filter_map(Json::as_str));
            format!("{value} is none of {}{advice}", listed.join(", "))
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("{value} must be {}", show(expected_value))
        }
        ValidationErrorKind::Minimum { limit } => format!("{value} is out of range; give {limit} or more"),
        ValidationErrorKind::Maximum { limit } => format!("{value} is out of range; give {limit} or less"),
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            format!("{value} is out of range; give more than {limit}")
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            format!("{value} is out of range; give less than {limit}")
        }
        ValidationErrorKind::FalseSchema => format!("{value} is not allowed; leave it out"),
        _ => error.masked_with(value).to_string(),
    };
    format!("{}: {text}", if place.is_empty() { "parameters" } else { place })
}

/// Of an error in all of several shapes, the one of the shape that came furthest, where one came further than the others.
fn innermost<'a, 'i>(error: &'a ValidationError<'i>) -> &'a ValidationError<'i>
where
    'static: 'i,
{
    let depth = |error: &ValidationError<'_>| error.instance_path().as_str().matches('/').count();
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) =
        error.kind()
    else {
        return error;
    };
    let firsts = context.iter().filter_map(|errors| errors.first());
    let furthest = firsts.max_by_key(|inner| depth(inner)).filter(|inner| depth(inner) > depth(error));
    furthest.map_or(error, |inner| innermost(inner))
}

/// A value as an error shows it.
fn show(value: &Json) -> String {
    match value {
        Json::String(text) => format!("'{}'", shorten(text)),
        Json::Array(items) => format!("an array of {}", items.len()),
        Json::Object(fields) => format!("a map of {}", fields.len()),
        other => other.to_string(),
    }
}

fn article(kind: &str) -> &'static str {
    match kind {
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "boolean" => "true or false",
        "array" => "an array",
        "object" => "a map",
        "null" => "null",
        _ => "something else",
    }
}

/// A shared library with these declarations in C; for tests of whoever finds or loads plugins.
#[cfg(test)]
pub(crate) fn test_library(path: &std::path::Path, code: &str) {
    build(path, code, &["-shared", "-fPIC"]);
}

/// The declaration in C of a manifest.
#[cfg(test)]
pub(crate) fn in_c(manifest: &str) -> String {
    let section = if cfg!(target_vendor = "apple") { "__DATA,__latentd" } else { ".latentd" };
    // By numbers: no byte has to be escaped.
    let bytes: Vec<String> = manifest.bytes().chain([0]).map(|byte| byte.to_string()).collect();
    let bytes = bytes.join(",");
    format!(
        "__attribute__((section(\"{section}\"), used)) const unsigned char latentd_manifest[] = {{{bytes}}};\n"
    )
}

#[cfg(test)]
fn build(path: &std::path::Path, code: &str, options: &[&str]) {
    let source = path.with_extension("c");
    std::fs::write(&source, code).expect("written");
    let built = std::process::Command::new("cc").args(options).arg("-o").arg(path).arg(&source).output();
    let built = built.expect("cc runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::remove_file(source).expect("removed");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::json;

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

[stages."image.post/draft-1"]
place = "innermost"
after = ["controlnet"]
before = ["upscaler"]

[stages."batch.post/1"]
"#;

    fn library(manifest: &str) -> Vec<u8> {
        compiled(&in_c(manifest), &["-shared", "-fPIC"])
    }

    fn compiled(code: &str, options: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("library");
        build(&path, code, options);
        fs::read(path).expect("read")
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
            requires: vec!["subjob.run/draft-1".into()],
            uses: vec!["tensor.ops/2".into()],
            parameters: Some(
                json!({"type": "object", "properties": {"strength": {"type": "number", "default": 0.5}}}),
            ),
        };
        assert_eq!(whole, expected);
        let small = parse(format!("{SMALL}\0\0").as_bytes()).expect("a manifest");
        assert_eq!((small.name.as_str(), small.stages.len(), small.parameters), ("a", 0, None));
    }

    #[test]
    fn it_does_not_matter_where_in_memory_a_library_lies() {
        let library = library(SMALL);
        for start in 0..8 {
            let moved = [vec![0; start], library.clone()].concat();
            read(moved.get(start..).expect("there")).expect("a manifest");
        }
    }

    #[test]
    fn what_is_no_plugin_is_told_apart() {
        let code = in_c(SMALL);
        let library = library(SMALL);
        let said = |bytes: &[u8]| read(bytes).expect_err("no plugin").to_string();
        assert_eq!(said(b""), "not a shared library: the file is empty");
        assert_eq!(said(b"some text"), "not a shared library: it does not begin as one");
        assert!(matches!(read(b"\x7fELF"), Err(Unread::NotALibrary(_))));
        let bare = compiled("int nothing;", &["-shared", "-fPIC"]);
        assert_eq!(read(&bare), Err(Unread::NoManifest));
        let windows = said(b"MZ\x90\0");
        assert!(windows.starts_with("is a library for Windows, this latentd is for "), "{windows}");
        let object = said(&compiled(&code, &["-c"]));
        assert!(object.starts_with("not a shared library: "), "{object}");
        let main = format!("{code}int main(void) {{ return 0; }}");
        for options in [&["-pie", "-fPIE"][..], &["-no-pie"]] {
            assert_eq!(
                said(&compiled(&main, options)),
                "not a shared library: it is a program",
                "{options:?}"
            );
        }
        assert_eq!(read(&library).map(|manifest| manifest.name), Ok("a".into()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_for_another_machine_is_told_apart() {
        let library = library(SMALL);
        let with = |changes: &[(usize, u8)]| {
            let mut library = library.clone();
            for (place, byte) in changes {
                *library.get_mut(*place).expect("within") = *byte;
            }
            read(&library).expect_err("for another machine").to_string()
        };
        // Of the header: class, order of bytes, system, and the low byte of the processor's number.
        let riscv = with(&[(18, 243), (19, 0)]);
        assert!(riscv.starts_with("is a library for Linux on riscv64, this latentd is for "), "{riscv}");
        let (own, other) = if cfg!(target_arch = "x86_64") { (183, "aarch64") } else { (62, "x86_64") };
        let found = with(&[(18, own), (19, 0)]);
        assert!(found.contains(other), "{found}");
        for changes in [[(5, 2)], [(7, 9)], [(4, 1)], [(18, 200)]] {
            let found = with(&changes);
            assert!(found.starts_with("is a library for ") || found.contains("broken"), "{found}");
        }
    }

    /// A library of macOS with one segment and one section, in the file's last bytes.
    fn mach_o(processor: u32, kind: u32, section: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let numbers = |bytes: &mut Vec<u8>, numbers: &[u32]| {
            bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        };
        let name = |bytes: &mut Vec<u8>, name: &[u8]| {
            bytes.extend_from_slice(name);
            bytes.resize(bytes.len() + 16 - name.len(), 0);
        };
        let size = section.len() as u32;
        numbers(&mut bytes, &[0xfeed_facf, processor, 0, kind, 1, 152, 0, 0, 0x19, 152]);
        name(&mut bytes, b"__DATA");
        numbers(&mut bytes, &[0, 0, size, 0, 184, 0, size, 0, 3, 3, 1, 0]);
        name(&mut bytes, b"__latentd");
        name(&mut bytes, b"__DATA");
        numbers(&mut bytes, &[0, 0, size, 0, 184, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(section);
        bytes
    }

    #[test]
    fn a_library_of_mac_os_is_read_on_mac_os() {
        const MAC: Machine = Machine { system: MAC_OS, processor: "aarch64", bits: 64, little_endian: true };
        const ARM: u32 = 0x0100_000c;
        const INTEL: u32 = 0x0100_0007;
        let arm = mach_o(ARM, 6, SMALL.as_bytes());
        let intel = mach_o(INTEL, 6, SMALL.as_bytes());
        assert_eq!(read_on(&MAC, &arm).expect("a manifest").name, "a");
        let told = |bytes: &[u8]| read_on(&MAC, bytes).expect_err("none").to_string();
        assert!(told(&intel).starts_with("is a library for macOS on x86_64, "));
        assert!(told(&mach_o(ARM, 2, SMALL.as_bytes())).starts_with("not a shared library: "));
        let linux = Machine { system: LINUX, ..MAC };
        assert!(read_on(&linux, &arm).expect_err("none").to_string().starts_with("is a library for macOS, "));
        // For both: a header, two entries (processor, its kind, start, size, alignment), the parts.
        let fat = |parts: [(u32, &[u8]); 2]| {
            let mut bytes: Vec<u8> =
                [0xcafe_babe_u32, 2].iter().flat_map(|number| number.to_be_bytes()).collect();
            let mut start = 48;
            for (processor, part) in parts {
                let numbers = [processor, 0, start, part.len() as u32, 0];
                bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
                start += part.len() as u32;
            }
            for (_, part) in parts {
                bytes.extend_from_slice(part);
            }
            bytes
        };
        let both = fat([(INTEL, &intel), (ARM, &arm)]);
        assert_eq!(read_on(&MAC, &both).expect("a manifest").name, "a");
        let neither = told(&fat([(INTEL, &intel), (7, &intel)]));
        assert!(neither.starts_with("is a library for macOS on x86_64, x86, "), "{neither}");
        for end in 0..both.len() {
            assert!(read_on(&MAC, both.get(..end).expect("within")).is_err());
        }
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
            read_parameters(&text).ok();
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
        for key in NOT_YET {
            let expected = format!("declares {key}, which this version of latentd does not have yet");
            check(&format!("{SMALL}[{key}.x]\ny = 1"), &expected);
        }
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

    #[test]
    fn schemas_that_cannot_be_kept_are_refused() {
        let check = |schema: &Json, expected: &str| {
            let found = read_parameters(&schema.to_string()).expect_err(expected);
            assert!(found.contains(expected), "{schema}\n{found}");
        };
        let field = |schema: Json| json!({"type": "object", "properties": {"a": schema}});
        check(&json!([]), "is an array of 0, it must be a map");
        check(&json!({}), "type is missing");
        check(&json!({"type": "array"}), "type is 'array', it must be 'object'");
        check(&json!({"type": ["object", "null"]}), "type is an array of 2");
        check(
            &json!({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}),
            "only 'https:",
        );
        check(&field(json!({"type": "intger"})), "/properties/a/type: ");
        check(&field(json!({"pattern": "("})), "/properties/a/pattern: ");
        check(&field(json!({"pattern": "^(?=x)"})), "/properties/a/pattern: ");
        for to in ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "x.json", "urn:x", DRAFT, "#anchor"] {
            check(&field(json!({"$ref": to})), "only its own parts can be referred to");
        }
        check(&field(json!({"$ref": "#/$defs/none"})), "which it does not have");
        check(&field(json!({"$dynamicRef": "#x"})), "uses $dynamicRef");
        check(&field(json!({"$id": "x"})), "uses $id within");
        for keyword in KEYWORDS_NOT_YET {
            let expected =
                format!("uses the schema keyword {keyword}, which this version of latentd does not have yet");
            check(&field(json!({keyword: true})), &expected);
            check(&field(json!({"anyOf": [{"enum": ["None"]}, {keyword: "x"}]})), &expected);
            check(&json!({"type": "object", "$defs": {"a": {"items": {keyword: "x"}}}}), &expected);
            // A field may be called so.
            let named = json!({"type": "object", "properties": {keyword: {"default": {keyword: 1}}}});
            read_parameters(&named.to_string()).expect("a schema");
        }
        check(
            &field(json!({"type": "number", "default": "x"})),
            "a default is not what the schema allows: /a: 'x'",
        );
        assert!(read_parameters("{").expect_err("none").starts_with("not JSON: "));
        let deep = format!("{{\"type\":\"object\",\"not\":{}{}", "{\"not\":".repeat(100_000), "{}");
        assert!(read_parameters(&deep).is_err());
    }

    #[test]
    fn short_schemas_that_stand_for_very_much_are_refused_at_once() {
        let with = |count: usize, each: &dyn Fn(String) -> Json, last: Json| {
            let next = |index: usize| each(format!("#/$defs/n{}", index + 1));
            let mut parts: serde_json::Map<_, _> =
                (0..count).map(|index| (format!("n{index}"), next(index))).collect();
            parts.insert(format!("n{count}"), last);
            let schema = json!({"type": "object", "$ref": "#/$defs/n0", "$defs": parts});
            read_parameters(&schema.to_string())
        };
        let twice = |to: String| json!({"allOf": [{"$ref": to}, {"$ref": to}]});
        let error = with(28, &twice, json!({})).expect_err("too large");
        assert!(error.contains("is larger than 100000 values"), "{error}");
        with(8, &twice, json!({})).expect("not large");
        let error = with(5000, &|to| json!({"$ref": to}), json!({})).expect_err("too deep");
        assert!(error.contains("levels deep"), "{error}");
        with(40, &|to| json!({"$ref": to}), json!({})).expect("not deep");
        // Those that come round have an end, except where each adds a default.
        with(3, &twice, json!({"$ref": "#/$defs/n0"})).expect("goes round");
        let round = json!({"type": "object", "properties": {"a": {"$ref": "#"}}});
        read_parameters(&round.to_string()).expect("goes round");
        let endless = json!({"type": "object", "properties": {"a": {"$ref": "#", "default": {}}}});
        let error = read_parameters(&endless.to_string()).expect_err("endless");
        assert!(error.contains("levels deep"), "{error}");
    }

    #[test]
    fn defaults_stand_where_nothing_was_given() {
        let schema = json!({
            "type": "object",
            "properties": {
                "strength": {"type": "number", "default": 0.5},
                "none": {"type": "string"},
                "inner": {"default": {}, "properties": {"x": {"default": [1]}}},
                "units": {"items": {"$ref": "#/$defs/unit"}},
                "pair": {
                    "prefixItems": [{"properties": {"first": {"default": 1}}}],
                    "items": {"properties": {"more": {"default": 2}}},
                },
                "unit": {"$ref": "#/$defs/unit", "default": {"weight": 3}},
            },
            "$defs": {"unit": {"type": "object", "default": {"weight": 7}, "properties": {
                "weight": {"type": "number", "default": 1},
                "name": {"type": ["string", "null"], "default": null},
            }}},
        });
        let check = |params: Json, expected: &Json| {
            let mut found = params;
            with_defaults(&schema, &mut found).expect("filled");
            assert_eq!(&found, expected);
        };
        let least = json!({
            "strength": 0.5, "inner": {"x": [1]}, "unit": {"weight": 3, "name": null},
        });
        check(json!({}), &least);
        check(least.clone(), &least);
        check(
            json!({
                "strength": null, "inner": {"x": 2, "y": 3},
                "units": [{}, {"weight": 2}, 4], "pair": [{}, {}], "unit": 1,
            }),
            &json!({
                "strength": null, "inner": {"x": 2, "y": 3},
                "units": [{"weight": 1, "name": null}, {"weight": 2, "name": null}, 4],
                "pair": [{"first": 1}, {"more": 2}], "unit": 1,
            }),
        );
        let each = json!({"properties": {"x": {"default": "y".repeat(100_000)}}});
        let large = json!({"type": "object", "properties": {"a": {"items": each}}});
        let error = with_defaults(&large, &mut json!({"a": vec![json!({}); 1000]})).expect_err("too large");
        assert!(error.contains("too large"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_parameters_is_said_with_its_place() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["on"],
            "properties": {
                "on": {"type": "boolean"},
                "strength": {"type": "number", "minimum": 0, "maximum": 1},
                "above": {"exclusiveMinimum": 0},
                "mode": {"enum": ["fast", "good"]},
                "size": {"type": ["integer", "string"], "multipleOf": 8},
                "text": {"type": "string", "maxLength": 3, "pattern": "^a"},
                "units": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/unit"}},
                "any": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/unit"}]},
                "no": false,
            },
            "$defs": {"unit": {
                "type": "object", "additionalProperties": false, "properties": {"weight": {"type": "number"}},
            }},
        });
        read_parameters(&schema.to_string()).expect("a schema");
        let check = |field: &str, value: Json, expected: &str| {
            let mut params = json!({"on": true});
            params.as_object_mut().expect("a map").insert(field.to_owned(), value);
            assert_eq!(validate(&schema, &params).err().unwrap_or_default(), expected);
        };
        check("strength", json!(0.5), "");
        check("units", json!([{"weight": 1}]), "");
        check("strength", json!(2), "/strength: 2 is out of range; give 1 or less");
        check("strength", json!(-0.5), "/strength: -0.5 is out of range; give 0 or more");
        check("strength", json!("x"), "/strength: 'x' must be a number");
        check("above", json!(0), "/above: 0 is out of range; give more than 0");
        check("mode", json!("fsat"), "/mode: 'fsat' is none of 'fast', 'good'; did you mean 'fast'?");
        check("size", json!(true), "/size: true must be an integer or a string");
        check("size", json!(9), "/size: 9 is not a multiple of 8");
        check("text", json!("bc"), "/text: 'bc' does not match \"^a\"");
        check("text", json!("abcd"), "/text: 'abcd' is longer than 3 characters");
        check("units", json!([{"wieght": 1}]), "/units/0: unknown field 'wieght'; did you mean 'weight'?");
        check("units", json!([{"weight": []}]), "/units/0/weight: an array of 0 must be a number");
        check("units", json!([{}, {}, {}]), "/units: an array of 3 has more than 2 items");
        check("any", json!({"weight": "x"}), "/any/weight: 'x' must be a number");
        check("no", json!(1), "/no: 1 is not allowed; leave it out");
        check("strenght", json!(1), "unknown field 'strenght'; did you mean 'strength'?");
        check("on", json!(1), "/on: 1 must be true or false");
        let missing = validate(&schema, &json!({})).expect_err("missing");
        assert_eq!(missing, "/on: is missing; give it");
        assert_eq!(validate(&schema, &json!(1)).expect_err("none"), "parameters: 1 must be a map");
    }
}
