//! Names of jobs.

use crate::error::{Error, Result};
use crate::schema::shorten;

/// A client's id becomes a file's name, so it is held to harmless characters.
pub(super) fn check(id: String) -> Result<String> {
    let harmless = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if id.len() <= 64
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.chars().all(harmless)
    {
        return Ok(id);
    }
    let shown = shorten(&id);
    Err(Error::invalid(format!(
        "id: '{shown}' must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
    )))
}

/// One that nobody has.
pub(crate) fn new() -> Result<String> {
    crate::random::u64().map(|number| format!("j{number:016x}"))
}
