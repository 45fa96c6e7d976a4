//! Why a file is not read.

use std::path::Path;

use crate::Error;

/// What is wrong with a file, in words that follow its name; or that it ends before it should.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    CutOff,
    Refused(String),
}

impl Wrong {
    pub(super) fn of(self, path: &Path) -> Error {
        let reason = match self {
            Self::CutOff => "is cut off or damaged; copy or download it again".to_owned(),
            Self::Refused(reason) => reason,
        };
        Error::file(path, reason)
    }
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl From<&str> for Wrong {
    fn from(reason: &str) -> Self {
        Self::Refused(reason.to_owned())
    }
}

/// Of a pickle that is sound, but no model's.
pub(super) fn beyond(what: &str) -> Wrong {
    Wrong::Refused(format!("its pickle {what}, which no model's does; it was not read"))
}

/// Of one that is not sound.
pub(super) fn unfit(what: &str) -> Wrong {
    Wrong::Refused(format!("its pickle is damaged: {what}; copy or download it again"))
}
