//! The folder of results: a file for each, which begins with what tells a sound one from a damaged one.
//!
//! [`MAGIC`], the version, lengths and texts of the job's id and method, the result's length and its SHA-256; numbers are
//! big-endian. Then the result. Files of the first version are the result alone, which begins with a MessagePack map.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use latentd_client::codec::{Limits, Scanner};
use sha2::{Digest, Sha256};

use crate::{state_dir, whole_file};

const EXTENSION: &str = "msgpack";
/// No MessagePack map begins so.
const MAGIC: &[u8; 8] = b"latentd\0";
const VERSION: u16 = 2;
/// Magic and version, which every version has.
const START: usize = MAGIC.len() + size_of::<u16>();
/// The one method whose results the first version wrote.
const FIRST_METHOD: &str = "txt2img";
/// No result of the first version was larger.
const FIRST_BYTES: u64 = 1 << 30;
const CHECKSUM: usize = 32;

/// The folder.
#[derive(Clone)]
pub(super) struct Results {
    folder: PathBuf,
}

/// A file of the folder.
pub(super) struct ResultFile {
    /// The job's id.
    pub id: String,
    /// When it was written, in seconds since 1970.
    pub modified: f64,
}

/// What a file says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub method: String,
    /// Bytes of the result.
    pub bytes: u64,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It cannot be read, or is not there.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What is there is not what was written.
    #[error("it is damaged on the disk: {0}")]
    Damaged(&'static str),
    /// A newer latentd wrote it.
    #[error("it is of version {0}, and this latentd knows up to {VERSION}: a newer one wrote it")]
    Newer(u16),
}

impl Results {
    /// In this folder.
    pub(super) fn open(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Writes a job's result, whole or not at all.
    pub(super) fn write(&self, id: &str, method: &str, result: &[u8]) -> io::Result<()> {
        state_dir::make_private(&self.folder)?;
        whole_file::write_parts(&self.path(id), &[&header(id, method, result), result])
    }

    /// Reads a job's result, of as many bytes as its row says.
    pub(super) fn read(&self, id: &str, method: &str, bytes: u64) -> Result<Vec<u8>, ReadError> {
        const LENGTH: &str = "it has another length than was written";
        let mut file = self.open_file(id)?;
        let mut start = Vec::new();
        file.by_ref().take(START as u64).read_to_end(&mut start)?;
        let has_header = start.starts_with(MAGIC);
        let version = start.last_chunk().map_or(0, |version| u16::from_be_bytes(*version));
        if has_header && start.len() == START && version > VERSION {
            return Err(ReadError::Newer(version));
        }
        let header_length = if has_header { header(id, method, &[]).len() as u64 } else { 0 };
        // Before memory is taken.
        if file.metadata()?.len() != header_length.saturating_add(bytes) {
            return Err(ReadError::Damaged(LENGTH));
        }
        if !has_header {
            file.read_to_end(&mut start)?;
            return whole_value(start);
        }
        file.by_ref().take(header_length - START as u64).read_to_end(&mut start)?;
        let mut result = Vec::new();
        file.read_to_end(&mut result)?;
        if start != header(id, method, &result) {
            return Err(ReadError::Damaged("its checksum is another, or it is another job's"));
        }
        Ok(result)
    }

    /// Forgets a result, if there is one.
    pub(super) fn remove(&self, id: &str) {
        fs::remove_file(self.path(id)).ok();
    }

    /// The files that may be results, the oldest first.
    pub(super) fn files(&self) -> Vec<ResultFile> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.path();
                let ours = path.extension().is_some_and(|extension| extension == EXTENSION);
                let id = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| ours)?.to_owned();
                let modified =
                    entry.metadata().and_then(|metadata| metadata.modified()).unwrap_or(UNIX_EPOCH);
                Some(ResultFile { id, modified: seconds(modified) })
            })
            .collect();
        found.sort_by(|a, b| a.modified.total_cmp(&b.modified));
        found
    }

    /// What the file of this id says that it is. Its checksum is left to [`Self::read`].
    pub(super) fn identify(&self, id: &str) -> Result<Identity, ReadError> {
        const HEADER: &str = "its header makes no sense";
        let mut file = self.open_file(id)?;
        let length = file.metadata()?.len();
        // Two texts of at most 64 KiB.
        let mut start = Vec::new();
        file.by_ref().take(1 << 18).read_to_end(&mut start)?;
        let Some(rest) = start.strip_prefix(MAGIC) else {
            if length > FIRST_BYTES {
                return Err(ReadError::Damaged(HEADER));
            }
            file.read_to_end(&mut start)?;
            let bytes = whole_value(start)?.len() as u64;
            return Ok(Identity { method: FIRST_METHOD.to_owned(), bytes });
        };
        let mut fields = Fields(rest);
        let parsed = (|| {
            let version = u16::from_be_bytes(fields.take()?);
            if version > VERSION {
                return Some(Err(ReadError::Newer(version)));
            }
            let (named, method) = (fields.text()?, fields.text()?);
            let bytes = u64::from_be_bytes(fields.take()?);
            Some(Ok((named, method, bytes)))
        })();
        let (named, method, bytes) = parsed.unwrap_or(Err(ReadError::Damaged(HEADER)))?;
        let header = (start.len() - fields.0.len() + CHECKSUM) as u64;
        if named != id || header.checked_add(bytes) != Some(length) {
            return Err(ReadError::Damaged(HEADER));
        }
        Ok(Identity { method, bytes })
    }

    /// Waits for nobody: what stands there may be a pipe.
    fn open_file(&self, id: &str) -> Result<File, ReadError> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(self.path(id))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(ReadError::Damaged("it is no file")) }
    }

    fn path(&self, id: &str) -> PathBuf {
        // Ids are checked when they come in: no separators, no leading dot.
        self.folder.join(format!("{id}.{EXTENSION}"))
    }
}

/// Fields of a header, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn text(&mut self) -> Option<String> {
        let length = u16::from_be_bytes(self.take()?);
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// A result without a checksum is sent to clients only if it is one value: more or less would put the stream out of step.
fn whole_value(bytes: Vec<u8>) -> Result<Vec<u8>, ReadError> {
    let limits = Limits { bytes: usize::MAX, elements: u64::MAX, ..Limits::default() };
    match Scanner::new(limits).scan(&bytes) {
        Ok(Some(length)) if length == bytes.len() && is_map(&bytes) => Ok(bytes),
        _ => Err(ReadError::Damaged("it is no result")),
    }
}

fn is_map(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf))
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// What a job's file begins with. Ids and methods are shorter than 64 KiB.
fn header(id: &str, method: &str, result: &[u8]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_be_bytes());
    for text in [id, method] {
        header.extend((text.len() as u16).to_be_bytes());
        header.extend(text.as_bytes());
    }
    header.extend((result.len() as u64).to_be_bytes());
    header.extend(Sha256::digest(result));
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &[u8] = b"\x81\xa6images\xb4and what else there ";

    fn results() -> (tempfile::TempDir, Results) {
        let folder = tempfile::tempdir().expect("a folder");
        let results = Results::open(folder.path().join("results"));
        fs::create_dir(&results.folder).expect("made");
        (folder, results)
    }

    fn read(results: &Results) -> Result<Vec<u8>, ReadError> {
        results.read("j1", "txt2img", RESULT.len() as u64)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_folder, results) = results();
        results.write("j1", "txt2img", RESULT).expect("written");
        assert_eq!(read(&results).expect("sound"), RESULT);
        fs::write(results.path("j1"), RESULT).expect("as the first version writes it");
        assert_eq!(read(&results).expect("sound"), RESULT);
        results.write("empty", "ping", &[]).expect("written");
        assert_eq!(results.read("empty", "ping", 0).expect("sound"), b"");
    }

    #[test]
    fn damage_of_any_kind_is_noticed() {
        let (_folder, results) = results();
        results.write("j1", "txt2img", RESULT).expect("written");
        let sound = fs::read(results.path("j1")).expect("read");
        let mut damaged: Vec<Vec<u8>> = (0..sound.len()).map(|length| sound[..length].to_vec()).collect();
        damaged.extend((0..sound.len()).filter(|at| !(8..10).contains(at)).map(|at| {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            bytes
        }));
        damaged.push([&sound[..], b"x"].concat());
        damaged.extend([b"".to_vec(), RESULT[1..].to_vec(), vec![0; sound.len()]]);
        // As the first version writes it, of the right length: of a value too little, and too much.
        damaged.extend([
            [b"\x82", &RESULT[1..]].concat(),
            [b"\x80", &RESULT[1..]].concat(),
            vec![0xc1; RESULT.len()],
        ]);
        results.write("j2", "txt2img", RESULT).expect("written");
        damaged.push(fs::read(results.path("j2")).expect("read"));
        results.write("j1", "img2img", RESULT).expect("written");
        damaged.push(fs::read(results.path("j1")).expect("read"));
        for bytes in damaged {
            fs::write(results.path("j1"), &bytes).expect("written");
            assert!(matches!(read(&results), Err(ReadError::Damaged(_))), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn one_from_the_future_is_told_from_damage() {
        let (_folder, results) = results();
        fs::write(results.path("j1"), [MAGIC, &999u16.to_be_bytes()[..], b"whatever it is then"].concat())
            .expect("written");
        let error = read(&results).expect_err("newer").to_string();
        assert_eq!(error, "it is of version 999, and this latentd knows up to 2: a newer one wrote it");
    }

    #[test]
    fn one_that_is_gone_is_no_damage() {
        let (_folder, results) = results();
        assert!(
            matches!(read(&results), Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
        );
    }
    #[test]
    fn a_file_says_what_it_is() {
        let (_folder, results) = results();
        results.write("j1", "img2img", RESULT).expect("written");
        let sound = fs::read(results.path("j1")).expect("read");
        let expected = Identity { method: "img2img".into(), bytes: RESULT.len() as u64 };
        assert_eq!(results.identify("j1").expect("known"), expected);
        for length in 0..sound.len() {
            fs::write(results.path("j1"), &sound[..length]).expect("written");
            assert!(matches!(results.identify("j1"), Err(ReadError::Damaged(_))), "{length} bytes");
        }
        fs::write(results.path("j2"), &sound).expect("written");
        assert!(matches!(results.identify("j2"), Err(ReadError::Damaged(_))), "it is another job's");
        fs::write(results.path("j1"), RESULT).expect("as the first version writes it");
        let expected = Identity { method: "txt2img".into(), bytes: RESULT.len() as u64 };
        assert_eq!(results.identify("j1").expect("known"), expected);
        let mut ids: Vec<_> = results.files().into_iter().map(|found| found.id).collect();
        ids.sort();
        assert_eq!(ids, ["j1", "j2"]);
    }

    #[test]
    fn what_is_no_file_holds_up_nobody() {
        let (_folder, results) = results();
        let made = std::process::Command::new("mkfifo").arg(results.path("pipe")).status().expect("ran");
        assert!(made.success());
        fs::create_dir(results.path("folder")).expect("made");
        fs::File::create(results.path("huge")).and_then(|file| file.set_len(FIRST_BYTES + 1)).expect("made");
        for id in ["pipe", "folder", "huge"] {
            assert!(matches!(results.identify(id), Err(ReadError::Damaged(_))), "{id}");
        }
        assert!(matches!(results.read("pipe", "txt2img", 10), Err(ReadError::Damaged(_))));
    }
}
