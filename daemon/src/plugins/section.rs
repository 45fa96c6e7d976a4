//! The section of a shared library that holds a plugin's manifest, found without loading the library: in the bytes of ELF and
//! of Mach-O files.
//!
//! Nothing in the bytes is trusted: they may be any file's. What stands in the section is not looked at here.

use std::borrow::Cow;
use std::fmt;

use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};
use object::read::macho::{FatArch, MachHeader, Section, Segment};
use object::{elf, macho};

/// The section of an ELF library, and the segment and section of a Mach-O one.
const ELF_SECTION: &[u8] = b".latentd\0";
const MACH_O_SECTION: (&[u8], &[u8]) = (b"__DATA", b"__latentd");

/// Sections, and parts of a library for several processors, that are looked at. Linkers make some dozen.
const MOST_SECTIONS: usize = 1 << 16;

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

/// The bytes of the section with the manifest, in those of a library.
pub(super) fn find(library: &[u8]) -> Result<Cow<'_, [u8]>, Unread> {
    find_on(&HERE, library)
}

fn find_on<'data>(here: &Machine, library: &'data [u8]) -> Result<Cow<'data, [u8]>, Unread> {
    // The tables of a library are looked at in place, where they are aligned only if its beginning is.
    if library.as_ptr().align_offset(size_of::<u64>()) == 0 {
        return section(here, library).map(Cow::Borrowed);
    }
    let mut copy: Vec<u8> = Vec::with_capacity(library.len() + size_of::<u64>());
    let start = copy.as_ptr().align_offset(size_of::<u64>()).min(size_of::<u64>());
    copy.resize(start, 0);
    copy.extend_from_slice(library);
    let found = section(here, copy.get(start..).unwrap_or_default())?;
    Ok(Cow::Owned(found.to_vec()))
}

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

/// The section in a library that is aligned.
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

/// What the compiler makes of these declarations.
#[cfg(test)]
pub(super) fn compiled(code: &str, options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("library");
    build(&path, code, options);
    std::fs::read(path).expect("read")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name = 'a'";
    const SMALL: &[u8] = TEXT.as_bytes();

    fn library() -> Vec<u8> {
        compiled(&in_c(TEXT), &["-shared", "-fPIC"])
    }

    #[test]
    fn it_does_not_matter_where_in_memory_a_library_lies() {
        let library = library();
        for start in 0..8 {
            let moved = [vec![0; start], library.clone()].concat();
            let found = find(moved.get(start..).expect("there")).expect("a section");
            assert_eq!(&found[..], [SMALL, b"\0"].concat());
        }
    }

    #[test]
    fn what_is_no_plugin_is_told_apart() {
        let code = in_c(TEXT);
        let library = library();
        let said = |bytes: &[u8]| find(bytes).expect_err("no plugin").to_string();
        assert_eq!(said(b""), "not a shared library: the file is empty");
        assert_eq!(said(b"some text"), "not a shared library: it does not begin as one");
        assert!(matches!(find(b"\x7fELF"), Err(Unread::NotALibrary(_))));
        let bare = compiled("int nothing;", &["-shared", "-fPIC"]);
        assert_eq!(find(&bare), Err(Unread::NoManifest));
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
        assert_eq!(find(&library).as_deref(), Ok(&[SMALL, b"\0"].concat()[..]));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_for_another_machine_is_told_apart() {
        let library = library();
        let with = |changes: &[(usize, u8)]| {
            let mut library = library.clone();
            for (place, byte) in changes {
                *library.get_mut(*place).expect("within") = *byte;
            }
            find(&library).expect_err("for another machine").to_string()
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
        let arm = mach_o(ARM, 6, SMALL);
        let intel = mach_o(INTEL, 6, SMALL);
        assert_eq!(find_on(&MAC, &arm).as_deref(), Ok(SMALL));
        let told = |bytes: &[u8]| find_on(&MAC, bytes).expect_err("none").to_string();
        assert!(told(&intel).starts_with("is a library for macOS on x86_64, "));
        assert!(told(&mach_o(ARM, 2, SMALL)).starts_with("not a shared library: "));
        let linux = Machine { system: LINUX, ..MAC };
        assert!(find_on(&linux, &arm).expect_err("none").to_string().starts_with("is a library for macOS, "));
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
        assert_eq!(find_on(&MAC, &both).as_deref(), Ok(SMALL));
        let neither = told(&fat([(INTEL, &intel), (7, &intel)]));
        assert!(neither.starts_with("is a library for macOS on x86_64, x86, "), "{neither}");
        for end in 0..both.len() {
            assert!(find_on(&MAC, both.get(..end).expect("within")).is_err());
        }
    }
}
