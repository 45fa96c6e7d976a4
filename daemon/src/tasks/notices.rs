//! What a request asks for and does not get: told with its result, or refused where it is strict.

use crate::error::{Class, Error, Result};

/// What is told with the result, in the order in which it was found.
pub(super) struct Notices {
    /// Nothing may be left out.
    strict: bool,
    texts: Vec<String>,
}

impl Notices {
    pub(super) fn new(strict: bool) -> Self {
        Self { strict, texts: Vec::new() }
    }

    /// Something that was asked for is not applied; an error of this class if it must be.
    pub(super) fn not_applied(&mut self, class: Class, text: String) -> Result<()> {
        if self.strict {
            return Err(Error::new(class, format!("{text}; without `strict` it is told and left out")));
        }
        self.tell(text);
        Ok(())
    }

    /// Something to know, once.
    pub(super) fn tell(&mut self, text: String) {
        if !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    pub(super) fn into_texts(self) -> Vec<String> {
        self.texts
    }
}
