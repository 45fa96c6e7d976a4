//! Which process has locked a file. Read from Linux's `/proc`; elsewhere unknown.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Another process that has locked a file, as far as it can be told.
#[derive(Debug)]
pub(crate) struct FileHolder(Option<(u32, String)>);

impl FileHolder {
    /// Whoever has locked any of these files: who writes first, as readers lock them too.
    pub(crate) fn find(paths: &[PathBuf]) -> Self {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let files: Vec<_> = paths.iter().filter_map(|path| fs::metadata(path).ok()).collect();
        let (writers, readers): (Vec<_>, Vec<_>) = locks.lines().partition(|line| is_of_writer(line));
        let holder = [writers, readers]
            .iter()
            .find_map(|lines| files.iter().find_map(|file| holders(lines, file).next()));
        Self(holder.map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (pid, name.trim_end().to_owned())
        }))
    }
}

impl fmt::Display for FileHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((pid, name)) => write!(f, "process {pid} ({name})"),
            None => f.write_str("another process"),
        }
    }
}

/// The processes, other than this one, that have locked this file and have it open.
fn holders(locks: &[&str], file: &Metadata) -> impl Iterator<Item = u32> {
    let pids = locks.iter().filter_map(|line| locker(line, file.ino()));
    pids.filter(|pid| *pid != std::process::id() && has_open(*pid, file))
}

fn is_of_writer(line: &str) -> bool {
    line.split_ascii_whitespace().nth(3) == Some("WRITE")
}

/// The process of a line such as `1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF`, if it is about this inode.
fn locker(line: &str, inode: u64) -> Option<u32> {
    let mut parts = line.split_ascii_whitespace().skip(4);
    let (pid, place) = (parts.next()?, parts.next()?);
    let is_it = place.rsplit(':').next()?.parse() == Ok(inode);
    pid.parse().ok().filter(|_| is_it)
}

/// Inodes of different disks may have one number.
fn has_open(pid: u32, file: &Metadata) -> bool {
    let opened = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    let opened = opened.into_iter().flatten().flatten().filter_map(|entry| fs::metadata(entry.path()).ok());
    opened.into_iter().any(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_locks_are_read() {
        let rows = [
            ("1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF", 2_531_452, Some(3568)),
            ("1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF", 253, None),
            ("2: OFDLCK ADVISORY  READ -1 00:2d:7 0 EOF", 7, None),
            ("3: -> POSIX ADVISORY WRITE 12 00:2d:7 0 EOF", 7, None),
            ("", 7, None),
            ("4: POSIX ADVISORY", 7, None),
        ];
        for (line, inode, expected) in rows {
            assert_eq!(locker(line, inode), expected, "{line}");
        }
        let nobody = FileHolder::find(&["/no/such/file".into()]);
        assert_eq!(nobody.to_string(), "another process");
    }
}
