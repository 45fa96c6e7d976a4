//! The folder of results: a file for each, which begins with what tells a sound one from a damaged one.
//!
//! [`MAGIC`], the version, lengths and texts of the job's id and method, the result's length and its SHA-256; numbers are
//! big-endian. Then the result. Files of the first version are the result alone, which begins with a MessagePack map.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::whole_file;

const EXTENSION: &str = "msgpack";
/// No MessagePack map begins so.
const MAGIC: &[u8; 8] = b"latentd\0";
const VERSION: u16 = 2;
/// Magic and version, which every version has.
const START: usize = MAGIC.len() + size_of::<u16>();

/// The folder.
#[derive(Clone)]
pub(super) struct Results {
    folder: PathBuf,
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
    /// `results/` in the state folder.
    pub(super) fn open(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("results") }
    }

    /// Writes a job's result, whole or not at all.
    pub(super) fn write(&self, id: &str, method: &str, result: &[u8]) -> io::Result<()> {
        whole_file::write_parts(&self.path(id), &[&header(id, method, result), result])
    }

    /// Reads a job's result, of as many bytes as its row says.
    pub(super) fn read(&self, id: &str, method: &str, bytes: u64) -> Result<Vec<u8>, ReadError> {
        const LENGTH: &str = "it has another length than was written";
        let mut file = File::open(self.path(id))?;
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
            return Ok(start);
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

    /// Forgets results of all jobs but these: a daemon that was killed may have left them.
    pub(super) fn retain(&self, known: &HashSet<String>) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let ours = path.extension().is_some_and(|extension| extension == EXTENSION);
            let id = path.file_stem().and_then(|stem| stem.to_str());
            if ours && id.is_some_and(|id| !known.contains(id)) {
                fs::remove_file(&path).ok();
            }
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        // Ids are checked when they come in: no separators, no leading dot.
        self.folder.join(format!("{id}.{EXTENSION}"))
    }
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

    const RESULT: &[u8] = b"\x81\xa6images\x90 and what else there may be";

    fn results() -> (tempfile::TempDir, Results) {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("results")).expect("made");
        let results = Results::open(folder.path());
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
}
