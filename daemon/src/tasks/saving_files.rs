//! Library files that plugins write and remove.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::studio::Studio;
use crate::error::{Class, Error, Result};
use crate::library::Pinned;
use crate::plugins::FileToSave;
use crate::schema::shorten;
use crate::whole_file;

const ENDING: &str = ".safetensors";

/// Writes it into the folder for its kind, whole or not at all.
pub(super) fn save(studio: &Studio, file: &FileToSave<'_>) -> Result<Arc<Pinned>> {
    let FileToSave { kind, name, bytes, replace } = *file;
    check_name(name)?;
    let folder = studio.library.folder_for(kind)?;
    let path = folder.join(format!("{name}{ENDING}"));
    let (wanted, library) = (kind.name(), &studio.library);
    if replace && path.exists() {
        match library.at(&path).map(|old| old.kind) {
            Some(old) if old == kind => (),
            Some(old) => {
                let old = old.name();
                return Err(Error::invalid(format!("{wanted} '{name}': there is a {old} of its name")));
            }
            None => {
                let text = format!("{wanted} '{name}': there is a file of its name that is none");
                return Err(Error::invalid(text));
            }
        }
    }
    // Looked at before it has a name: what is there stays if it is something else.
    let mut is = Some(kind);
    let mut fill = |file: &mut File| {
        file.write_all(bytes)?;
        is = library.would_be(file, &path);
        if is == Some(kind) { Ok(()) } else { Err(io::Error::other("is of another kind")) }
    };
    let mut write = || {
        std::fs::create_dir_all(&folder)?;
        if replace {
            whole_file::write_with(&path, &mut fill)
        } else {
            whole_file::write_new_with(&path, &mut fill)
        }
    };
    let written =
        studio.folders.ask(&folder, |_| write()).map_err(|silent| silent.in_field("the library"))?;
    if is != Some(kind) {
        let is = is.map_or_else(|| "none that is known".to_owned(), |is| format!("a {}", is.name()));
        return Err(Error::invalid(format!("{wanted} '{name}': by its tensors it would be {is}")));
    }
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::invalid(format!("{} exists; give another name, or replace it", path.display()))
        }
        _ => Error::internal(format!("{}: {error}; see to its disk", path.display())),
    })?;
    let item = library.wrote(&path);
    let item = item.ok_or_else(|| Error::internal(format!("{} is not seen", path.display())))?;
    library.pin_item(&item)
}

/// Removes a file.
pub(super) fn remove(studio: &Studio, file: &Pinned) -> Result<()> {
    let (kind, name) = (file.item().kind.name(), &file.item().name);
    let Some(path) = file.item().path() else {
        return Err(Error::invalid(format!("{kind} '{name}' is built in and cannot be removed")));
    };
    // What took its place meanwhile is another file.
    file.check()?;
    std::fs::remove_file(path).map_err(|error| {
        Error::new(Class::Internal, format!("{}: {error}; see to its folder", path.display()))
    })?;
    studio.library.wrote(path);
    Ok(())
}

/// Refuses what is no file's name, or one that nobody sees.
fn check_name(name: &str) -> Result<()> {
    let wrong = name.is_empty()
        || name.contains(['/', '\\'])
        || name.starts_with('.')
        || name.trim() != name
        || name.contains(char::is_control)
        || name.to_lowercase().ends_with(ENDING)
        || name.len() + ENDING.len() > 255;
    if wrong {
        let text =
            "is no file's name: without folder, extension, a point at its beginning, blanks at its ends";
        return Err(Error::invalid(format!("'{}' {text}", shorten(name))));
    }
    Ok(())
}
