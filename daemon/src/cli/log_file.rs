//! A log in a file that does not grow for ever: when it is large it gets another name, and one such old one is kept.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::lock_file::is_at;
use crate::process;

/// Bytes of one file; the old one has as many.
const MOST_BYTES: u64 = 4 << 20;

/// The file. Each write goes into one file as a whole.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    most_bytes: u64,
    /// Whether stderr goes to the same file, and is to go on with it: whoever started us reads there why we ended.
    stderr_too: bool,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = append_to(path)?;
        let stderr_too = process::is_stderr(&file);
        let mut log = Self { path: path.to_owned(), file, bytes: 0, most_bytes: MOST_BYTES, stderr_too };
        log.bytes = log.file.metadata()?.len();
        if log.bytes > log.most_bytes {
            log.begin_anew()?;
        }
        Ok(log)
    }

    /// The file so far is kept under its other name, in place of the one before.
    fn begin_anew(&mut self) -> io::Result<()> {
        let mut old = OsString::from(&self.path);
        old.push(".1");
        fs::rename(&self.path, old)?;
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        if self.stderr_too {
            process::point_stderr_at(&self.file)?;
        }
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Where that fails the file goes on as it is.
        if !is_at(&self.file, &self.path) {
            self.reopen().ok();
        } else if self.bytes > 0 && self.bytes + line.len() as u64 > self.most_bytes {
            self.begin_anew().ok();
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Prompts may be told there: its user's alone.
fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_limited_length_hold_the_newest_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut log = LogFile { most_bytes: 100, ..LogFile::open(&path).expect("opened") };
        let line = |number: u32| format!("line {number:04}\n");
        for number in 0..95 {
            log.write_all(line(number).as_bytes()).expect("written");
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("there");
        assert_eq!(read("log.1"), (80..90).map(line).collect::<String>());
        assert_eq!(read("log"), (90..95).map(line).collect::<String>());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2);
        // Longer than a file may be: whole all the same.
        log.write_all(&[b'x'; 500]).expect("written");
        assert_eq!(read("log").len(), 500);
        // What was removed, or given another name by somebody else, is made anew.
        fs::remove_file(&path).expect("removed");
        log.write_all(b"again\n").expect("written");
        assert_eq!(read("log"), "again\n");
    }

    #[test]
    fn what_is_too_large_from_before_is_put_aside_at_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        fs::write(&path, vec![b'x'; MOST_BYTES as usize + 1]).expect("written");
        let mut log = LogFile::open(&path).expect("opened");
        log.write_all(b"new\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "new\n");
        assert_eq!(fs::metadata(folder.path().join("log.1")).expect("there").len(), MOST_BYTES + 1);
        assert!(LogFile::open(&folder.path().join("none/log")).is_err());
    }
}
