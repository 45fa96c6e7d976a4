//! `image.info`: from the text in a picture to the request that repeats it.

use latentd_client::protocol::{ImageInfo, ImageInfoParams, LibraryKind};
use latentd_models::image::{Infotext, read_infotext};

use super::given::{Given, Sources, wrong};
use super::infotext;
use super::studio::Studio;
use crate::error::Result;

/// What the picture says of how it was made.
pub(crate) fn image_info(params: ImageInfoParams, studio: &Studio) -> Result<ImageInfo> {
    let given = Given::new("image", params.image, &Sources::of(studio))?;
    // Pixels have no text with them.
    let infotext =
        given.file().map(read_infotext).transpose().map_err(|error| wrong("image", &error))?.flatten();
    let params = infotext.as_deref().map(|text| {
        let (told, _) = infotext::read(&Infotext::parse(text));
        let is_known = |kind| move |hash: &str| studio.library.find(kind, hash).is_ok();
        told.into_request(is_known(LibraryKind::Checkpoint), is_known(LibraryKind::Vae))
    });
    Ok(ImageInfo { infotext, params })
}
