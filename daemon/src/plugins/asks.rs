//! What a plugin asks its user for: `[capabilities]` of a manifest.

use std::path::{Path, PathBuf};

use latentd_client::protocol::PluginAsks;
use serde::{Deserialize, Serialize};

use crate::schema::shorten;

/// Folders of a kind.
const MOST_FOLDERS: usize = 16;
/// Bytes of a path.
const LONGEST: usize = 1024;
/// Bytes that one may ask for: less is of no use, and more is a mistake.
const MEMORY: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;

/// What a plugin asks for beyond what each has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Asks {
    /// The network.
    pub network: bool,
    /// Folders to read, from the root on or from `~`.
    pub folders: Vec<String>,
    /// Folders to write into, and to read.
    pub write_folders: Vec<String>,
    /// Bytes of memory for each of its processes.
    pub memory: Option<u64>,
}

/// As it is written.
#[derive(Default)]
#[cfg_attr(test, derive(Deserialize), serde(default))]
pub(super) struct Written {
    pub network: bool,
    pub folders: Vec<String>,
    pub write_folders: Vec<String>,
    pub memory: Option<String>,
}

/// Takes what a manifest says.
pub(super) fn read(written: Written) -> Result<Asks, String> {
    let Written { network, folders, write_folders, memory } = written;
    for (key, folders) in [("folders", &folders), ("write_folders", &write_folders)] {
        if folders.len() > MOST_FOLDERS {
            return Err(format!(
                "capabilities: {key}: {} folders, {MOST_FOLDERS} are possible",
                folders.len()
            ));
        }
        for folder in folders {
            check_folder(folder)
                .map_err(|why| format!("capabilities: {key}: '{}' {why}", shorten(folder)))?;
        }
    }
    let memory = memory.map(|text| {
        read_bytes(&text).filter(|bytes| MEMORY.contains(bytes)).ok_or_else(|| {
            let text = shorten(&text);
            format!("capabilities: memory: '{text}' must be bytes from 1 MiB to 1 TiB, such as '1.5 GiB'")
        })
    });
    Ok(Asks { network, folders, write_folders, memory: memory.transpose()? })
}

fn check_folder(folder: &str) -> Result<(), &'static str> {
    let rest = folder.strip_prefix("~/").or_else(|| folder.strip_prefix('/'));
    let Some(rest) = rest else { return Err("must begin with '/' or '~/'") };
    let mut parts = rest.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
    if parts.peek().is_none() {
        return Err("is everything; name folders");
    }
    if parts.any(|part| part == "..") {
        return Err("leads upwards; write where it leads to");
    }
    if folder.len() > LONGEST || folder.chars().any(char::is_control) {
        return Err("is no path that people read");
    }
    Ok(())
}

/// Bytes as people write them.
fn read_bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let unit: f64 = match unit.trim() {
        "MiB" => f64::from(1 << 20),
        "GiB" => f64::from(1 << 30),
        _ => return None,
    };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| is_plain)?;
    Some((number * unit) as u64)
}

impl Asks {
    /// Whether it asks for nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What is told of it.
    pub(crate) fn told(&self) -> PluginAsks {
        let Self { network, folders, write_folders, memory } = self.clone();
        PluginAsks { network, folders, write_folders, memory_bytes: memory }
    }

    /// Folders to read, and folders to write into, as paths of a user with this home.
    pub(crate) fn paths(&self, home: Option<&Path>) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let path = |folder: &String| match (folder.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            (Some(_), None) => None,
            (None, _) => Some(PathBuf::from(folder)),
        };
        (self.folders.iter().filter_map(path).collect(), self.write_folders.iter().filter_map(path).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Asks, String> {
        read(toml::from_str(text).expect("TOML"))
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let asks =
            written("network = true\nfolders = ['~/a b', '/c']\nwrite_folders = ['/d/']\nmemory = '1.5 GiB'");
        let expected = Asks {
            network: true,
            folders: vec!["~/a b".into(), "/c".into()],
            write_folders: vec!["/d/".into()],
            memory: Some(3 << 29),
        };
        assert_eq!(asks, Ok(expected.clone()));
        let (reads, writes) = expected.paths(Some("/home/me".as_ref()));
        assert_eq!((reads, writes), (vec!["/home/me/a b".into(), "/c".into()], vec!["/d/".into()]));
        assert_eq!(expected.paths(None).0, [PathBuf::from("/c")]);
        assert!(written("").expect("nothing").is_nothing() && !expected.is_nothing());
    }

    #[test]
    fn what_nobody_should_be_given_is_refused() {
        for (text, expected) in [
            ("folders = ['a']", "folders: 'a' must begin with '/' or '~/'"),
            ("folders = ['~']", "must begin"),
            ("folders = ['/']", "is everything"),
            ("write_folders = ['~/./']", "write_folders: '~/./' is everything"),
            ("folders = ['~/a/../..']", "leads upwards"),
            ("folders = [\"/a\\n\"]", "is no path"),
            (
                "folders = ['/1','/1','/1','/1','/1','/1','/1','/1','/1','/1','/1','/1','/1','/1','/1','/1','/1']",
                "17 folders",
            ),
            ("memory = '1'", "memory: '1' must be bytes from 1 MiB"),
            ("memory = '2 TiB'", "must be"),
            ("memory = '0.5 MiB'", "must be"),
            ("memory = '-1 GiB'", "must be"),
            ("memory = 'inf GiB'", "must be"),
            ("memory = '1e3 GiB'", "must be"),
            ("memory = '99999999999999999999 GiB'", "must be"),
        ] {
            let error = written(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
