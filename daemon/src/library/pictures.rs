//! What a picture in a folder for embeddings is: one that carries an embedding, or a preview of something else.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use latentd_client::protocol::LibraryKind;
use latentd_models::adapters::{LARGEST_PICTURE, embedding_of_picture};
use latentd_models::{Error, Result};

use super::item::Facts;
use super::places::extension;

/// Looks into a picture that is open. One that carries nothing is of no kind.
pub(super) fn look(file: &File, path: &Path) -> Result<(Option<LibraryKind>, Facts)> {
    let mut bytes = vec![];
    // One byte more tells that it is too large to carry anything.
    file.take(LARGEST_PICTURE + 1).read_to_end(&mut bytes).map_err(|error| Error::Unread {
        path: path.to_owned(),
        reason: format!("cannot be read: {error}"),
    })?;
    let format = Some(extension(path));
    let Some(found) = embedding_of_picture(path, &bytes)? else {
        return Ok((None, Facts { format, ..Facts::default() }));
    };
    let facts = Facts {
        format,
        dtype: "f32".to_owned(),
        parameters: (found.embedding.vectors().len() * found.embedding.width()) as u64,
        alias: found.name,
        ..Facts::default()
    };
    Ok((Some(LibraryKind::Embedding), facts))
}
