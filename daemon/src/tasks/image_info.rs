//! `image.info`: from the text in a picture to the request that repeats it.

use latentd_client::protocol::{ImageInfo, ImageInfoParams, LibraryKind};
use latentd_models::image::{PictureHeader, read_texts};

use super::given::{Given, Sources, wrong};
use super::infotext;
use super::studio::Studio;
use crate::error::Result;
use crate::plugins::ForeignText;

/// What the picture says of how it was made.
pub(crate) fn image_info(params: ImageInfoParams, studio: &Studio) -> Result<ImageInfo> {
    let given = Given::new("image", params.image, &Sources::of(studio))?;
    // Pixels have no text with them.
    let Some(file) = given.file() else { return Ok(ImageInfo::default()) };
    let read = || Ok((read_texts(file)?, PictureHeader::read(file)?));
    let (texts, header) = read().map_err(|error| wrong("image", &error))?;
    let infotext = infotext::infotext(&texts, (header.width, header.height));
    let mut info = ImageInfo { infotext, ..ImageInfo::default() };
    if let Some(text) = &info.infotext {
        let (mut told, others) = infotext::read(text);
        told.request.plugin_versions = studio.plugins.still_there(told.versions_of_plugins());
        let is_known = |kind| move |hash: &str| studio.library.find(kind, hash).is_ok();
        let named = &told.request.plugins;
        let of_others = ForeignText {
            pairs: &others,
            prompt: told.request.prompt.first(),
            negative_prompt: told.request.negative_prompt.first(),
        };
        // What plugins wrote into pictures of ours is for people: such a picture names its plugins.
        if !told.is_ours() {
            let (read, notices) = studio.plugins.parsed(&of_others, named);
            info.read_by = read.keys().cloned().collect();
            told.request.plugins.extend(read);
            info.notices = notices;
        }
        info.request = Some(told.into_request(is_known(LibraryKind::Checkpoint), is_known(LibraryKind::Vae)));
        info.others = others.into_iter().collect();
    }
    info.texts = texts.others.into_iter().collect();
    // Another program's, which is told in A1111's form or not at all.
    let parameters = texts.infotext.filter(|text| info.infotext.as_ref() != Some(text));
    info.texts.extend(parameters.map(|text| ("parameters".to_owned(), text)));
    Ok(info)
}
