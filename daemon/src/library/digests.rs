//! The digests of files, all of them in memory: lists show them, and requests name files by them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::stamp::Stamp;

/// The digests of one file, and of which state of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    size: u64,
    modified_ns: i64,
    /// When it last changed, and which file it is; `None` in what the first version wrote, until the file is found.
    place: Option<(i64, u64)>,
    /// In hex.
    pub sha256: Box<str>,
    /// Of what follows the header, where it was computed.
    pub addon: Option<Box<str>>,
}

/// By path.
#[derive(Default)]
pub(super) struct Digests {
    by_path: HashMap<Box<str>, Digest>,
    /// Of which the file that they are of was found, which is to be written down.
    adopted: Vec<Box<str>>,
    /// Whether any came from the first version.
    has_old: bool,
}

impl Digests {
    /// All that is kept of digests.
    pub(super) const SELECT: &str =
        "SELECT path, size, modified_ns, changed_ns, inode, sha256, addon_hash FROM digest";

    /// All that are kept.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut rows = connection.prepare(Self::SELECT)?;
        let rows = rows.query_map([], |row| {
            let place: (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
            let digest = Digest {
                size: row.get::<_, i64>(1)?.cast_unsigned(),
                modified_ns: row.get(2)?,
                place: place.0.zip(place.1.map(i64::cast_unsigned)),
                sha256: row.get::<_, String>(5)?.into(),
                addon: row.get::<_, Option<String>>(6)?.map(Into::into),
            };
            Ok((row.get::<_, String>(0)?.into(), digest))
        })?;
        let by_path = rows.collect::<rusqlite::Result<HashMap<_, _>>>()?;
        let has_old = by_path.values().any(|digest| digest.place.is_none());
        Ok(Self { by_path, adopted: Vec::new(), has_old })
    }

    /// Those of the file as it is.
    pub(super) fn get(&self, path: &str, stamp: Stamp) -> Option<&Digest> {
        let is_same = |digest: &&Digest| {
            digest.size == stamp.size
                && digest.modified_ns == stamp.modified_ns
                && digest.place == Some((stamp.changed_ns, stamp.inode))
        };
        self.by_path.get(path).filter(is_same)
    }

    pub(super) fn set(&mut self, path: &str, stamp: Stamp, sha256: &str, addon: Option<&str>) -> &Digest {
        let known = self.get(path, stamp).and_then(|digest| digest.addon.clone());
        let digest = Digest {
            size: stamp.size,
            modified_ns: stamp.modified_ns,
            place: Some((stamp.changed_ns, stamp.inode)),
            sha256: sha256.into(),
            addon: addon.map(Into::into).or(known),
        };
        self.by_path.entry(path.into()).insert_entry(digest).into_mut()
    }

    /// What the first version knew of a file of this size and time is of this one.
    pub(super) fn adopt(&mut self, path: &str, stamp: Stamp) {
        if !self.has_old {
            return;
        }
        let Some(digest) = self.by_path.get_mut(path) else {
            return;
        };
        let is_same = digest.size == stamp.size && digest.modified_ns == stamp.modified_ns;
        if is_same && digest.place.is_none() {
            digest.place = Some((stamp.changed_ns, stamp.inode));
            self.adopted.push(path.into());
        }
    }

    /// Those that were adopted since this was asked last.
    pub(super) fn take_changed(&mut self) -> Vec<(&str, &Digest)> {
        let paths = std::mem::take(&mut self.adopted);
        let found = paths.iter().filter_map(|path| self.by_path.get_key_value(path));
        found.map(|(path, digest)| (&**path, digest)).collect()
    }

    /// Of those of `files` that were elsewhere before: their digests there. A file at the old path that is not gone is
    /// another one.
    pub(super) fn moved<'a>(
        &self,
        files: &'a [(PathBuf, Stamp)],
        is_gone: impl Fn(&Path, Stamp) -> bool,
    ) -> Vec<(&'a Path, Stamp, Digest)> {
        let key = |inode: u64, size: u64, modified_ns: i64| (inode, size, modified_ns);
        let wanted: HashMap<_, _> = files
            .iter()
            .map(|(path, stamp)| (key(stamp.inode, stamp.size, stamp.modified_ns), (path, *stamp)))
            .collect();
        let found = self.by_path.iter().filter_map(|(old, digest)| {
            let (_, inode) = digest.place?;
            let (path, stamp) = wanted.get(&key(inode, digest.size, digest.modified_ns))?;
            let is_moved = path.as_os_str() != &**old && is_gone(Path::new(&**old), *stamp);
            is_moved.then(|| (path.as_path(), *stamp, digest.clone()))
        });
        found.collect()
    }
}

/// Writes them down.
pub(super) fn write_digest(connection: &Connection, path: &str, digest: &Digest) -> rusqlite::Result<()> {
    let place = digest.place.map(|(changed_ns, inode)| (changed_ns, inode.cast_signed()));
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO digest (path, size, modified_ns, sha256, changed_ns, inode, addon_hash) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            path,
            digest.size.cast_signed(),
            digest.modified_ns,
            digest.sha256,
            place.map(|(changed_ns, _)| changed_ns),
            place.map(|(_, inode)| inode),
            digest.addon,
        ])
        .map(drop)
}
