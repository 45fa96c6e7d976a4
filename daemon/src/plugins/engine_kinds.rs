//! What kinds of engines there are, and what manifests say of them: `[engines.KIND]` with `entries`.

use std::collections::{BTreeMap, BTreeSet};

use latentd_client::protocol::LibraryKind;
use latentd_plugin_api::abi::{
    LATENTD_DETECTOR, LATENTD_PREPROCESSOR, LATENTD_RESTORER, LATENTD_TAGGER, LATENTD_UPSCALER,
};
use serde::Deserialize;

use crate::schema::shorten;
use crate::suggest::advice;

/// Entries of one kind.
const MOST: usize = 256;
/// Bytes of an entry's name.
const LONGEST: usize = 128;

/// A kind of engines, each with a signature of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Upscaler,
    Restorer,
    Preprocessor,
    Detector,
    Tagger,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Upscaler, Self::Restorer, Self::Preprocessor, Self::Detector, Self::Tagger];

    /// As manifests, schemas and lists have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upscaler => "upscaler",
            Self::Restorer => "restorer",
            Self::Preprocessor => "preprocessor",
            Self::Detector => "detector",
            Self::Tagger => "tagger",
        }
    }

    /// The one that is called so.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether its engines find things, instead of making a picture.
    pub(super) fn finds(self) -> bool {
        matches!(self, Self::Detector | Self::Tagger)
    }

    /// The ABI's number for it.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Upscaler => LATENTD_UPSCALER,
            Self::Restorer => LATENTD_RESTORER,
            Self::Preprocessor => LATENTD_PREPROCESSOR,
            Self::Detector => LATENTD_DETECTOR,
            Self::Tagger => LATENTD_TAGGER,
        }
    }
}

/// The entries of one kind that a plugin has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub kind: Kind,
    /// In the manifest's order.
    pub entries: Vec<String>,
    /// The kind of library files each of which is an entry, too.
    pub library: Option<LibraryKind>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default)]
    entries: Vec<String>,
    library: Option<String>,
}

/// What is written, by kinds; why it cannot be meant.
pub(super) fn read(written: BTreeMap<String, Written>) -> Result<Vec<Named>, String> {
    written.into_iter().map(|(kind, written)| read_kind(&kind, written)).collect()
}

fn read_kind(kind: &str, Written { entries, library }: Written) -> Result<Named, String> {
    let known = Kind::ALL.map(Kind::name).join(", ");
    let kind = Kind::from_name(kind)
        .ok_or_else(|| format!("engines: no engine is a '{}'; known: {known}", shorten(kind)))?;
    let wrong = |text: String| Err(format!("engines.{}: {text}", kind.name()));
    let all = LibraryKind::ALL;
    let found = library.as_ref().map(|name| all.iter().find(|(_, own)| own == name).map(|(kind, _)| *kind));
    if let (Some(name), Some(None)) = (&library, found) {
        let advice = advice(name, all.map(|(_, name)| name));
        return wrong(format!("library '{}' is no kind of file{advice}", shorten(name)));
    }
    let library = found.flatten();
    if (entries.is_empty() && library.is_none()) || entries.len() > MOST {
        return wrong(format!("it has {} entries; 1 to {MOST} are possible", entries.len()));
    }
    let mut seen = BTreeSet::new();
    for entry in &entries {
        let is_name = !entry.is_empty() && entry.trim() == entry && entry.len() <= LONGEST;
        if !is_name || entry.chars().any(char::is_control) {
            let shown = shorten(entry);
            return wrong(format!(
                "'{shown}' must be 1 to {LONGEST} bytes, without control characters or blanks at its ends"
            ));
        }
        if !seen.insert(entry) {
            return wrong(format!("'{}' is there twice; keep one", shorten(entry)));
        }
    }
    Ok(Named { kind, entries, library })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Named>, String> {
        let written: BTreeMap<String, Written> = toml::from_str(text).map_err(|error| error.to_string())?;
        read(written)
    }

    #[test]
    fn entries_are_read_by_kind() {
        let found = read_text("[upscaler]\nentries = ['R-ESRGAN 4x+', 'b']\n[tagger]\nentries = ['wd']\n");
        let named = |kind, entries: &[&str]| Named {
            kind,
            entries: entries.iter().map(|entry| (*entry).to_owned()).collect(),
            library: None,
        };
        let of_files = read_text("[upscaler]\nlibrary = 'upscaler'\n").expect("read");
        assert_eq!(of_files, [Named { library: Some(LibraryKind::Upscaler), ..named(Kind::Upscaler, &[]) }]);
        let expected = [named(Kind::Tagger, &["wd"]), named(Kind::Upscaler, &["R-ESRGAN 4x+", "b"])];
        assert_eq!(found.expect("read"), expected);
        for (text, expected) in [
            ("[upscalers]\nentries = ['a']", "no engine is a 'upscalers'; known: upscaler, restorer"),
            ("[upscaler]\nentries = []", "engines.upscaler: it has 0 entries"),
            ("[upscaler]\nentries = ['']", "'' must be 1 to 128 bytes"),
            ("[upscaler]\nentries = [' a']", "blanks at its ends"),
            ("[upscaler]\nentries = [\"a\\u0007\"]", "control characters"),
            ("[upscaler]\nentries = ['a', 'b', 'a']", "'a' is there twice"),
            ("[upscaler]\nnames = ['a']", "unknown field `names`"),
            (
                "[upscaler]\nlibrary = 'upscalers'",
                "library 'upscalers' is no kind of file; did you mean 'upscaler'",
            ),
        ] {
            let error = read_text(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let many = (0..=MOST).map(|number| format!("'{number}'")).collect::<Vec<_>>().join(", ");
        assert!(read_text(&format!("[detector]\nentries = [{many}]")).expect_err("many").contains("257"));
    }
}
