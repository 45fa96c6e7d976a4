//! What a user agreed that plugins may: kept in a file of its own, by name, each for one content of the plugin's file.
//!
//! A newer version is another content: what it asks for is asked again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::asks::Asks;
use crate::state_dir::make_private;
use crate::whole_file;

/// Bytes of the file.
const LARGEST: u64 = 4 << 20;

/// Where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Agreements {
    file: PathBuf,
}

/// What was agreed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    /// The plugin's version, for people.
    pub version: String,
    /// SHA-256 of its file, in hex.
    pub sha256: String,
    /// What it asked for.
    pub asks: Asks,
}

impl Agreements {
    /// Those in a file, which is made with the first.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    fn read(&self) -> io::Result<BTreeMap<String, Agreement>> {
        let found = match std::fs::metadata(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            found => found?,
        };
        if found.len() > LARGEST {
            return Err(io::Error::other("is too large"));
        }
        serde_json::from_slice(&std::fs::read(&self.file)?).map_err(io::Error::other)
    }

    /// What was agreed of what a plugin asks for; nothing if the file has another content than the one that was looked at.
    pub(crate) fn granted(&self, name: &str, sha256: &str) -> Asks {
        let all = self.read().unwrap_or_else(|error| {
            warn!(file = %self.file.display(), %error, "what was agreed that plugins may cannot be read; nothing is");
            BTreeMap::new()
        });
        let agreed = all.get(name).filter(|agreed| agreed.sha256 == sha256);
        agreed.map(|agreed| agreed.asks.clone()).unwrap_or_default()
    }

    /// Keeps what was agreed.
    pub(crate) fn agree(&self, name: &str, agreement: Agreement) -> io::Result<()> {
        self.change(|all| all.insert(name.to_owned(), agreement))
    }

    /// As if nothing had been agreed.
    pub(crate) fn forget(&self, name: &str) -> io::Result<()> {
        self.change(|all| all.remove(name))
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Agreement>) -> T) -> io::Result<()> {
        // A file that is damaged is left to be looked at.
        let mut all = self.read().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}; mend or remove it", self.file.display()))
        })?;
        let before = all.clone();
        change(&mut all);
        if all == before {
            return Ok(());
        }
        if let Some(folder) = self.file.parent() {
            make_private(folder)?;
        }
        whole_file::write(&self.file, &serde_json::to_vec_pretty(&all)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agreement_holds_for_one_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("data/agreed.json");
        let agreements = Agreements::new(file.clone());
        let asks = Asks { network: true, folders: vec!["/a".into()], ..Asks::default() };
        assert_eq!(agreements.granted("x", "1"), Asks::default());
        agreements.forget("x").expect("nothing to forget");
        assert!(!file.exists());
        let agreement = Agreement { version: "1".into(), sha256: "1".into(), asks: asks.clone() };
        agreements.agree("x", agreement.clone()).expect("written");
        agreements.agree("y", agreement).expect("written");
        assert_eq!(
            (agreements.granted("x", "1"), agreements.granted("x", "2")),
            (asks.clone(), Asks::default())
        );
        agreements.forget("x").expect("written");
        assert_eq!((agreements.granted("x", "1"), agreements.granted("y", "1")), (Asks::default(), asks));
        std::fs::write(&file, "{").expect("written");
        assert_eq!(agreements.granted("y", "1"), Asks::default());
        assert!(agreements.forget("y").is_err());
        assert_eq!(std::fs::read(&file).expect("there"), b"{");
    }
}
