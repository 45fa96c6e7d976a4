//! `image.info`: what a picture says of how it was made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImageIn, Txt2ImgParams};

/// `image.info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageInfoParams {
    /// The picture.
    pub image: ImageIn,
}

/// What `image.info` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageInfo {
    /// A1111's `parameters` text; absent where the picture has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infotext: Option<String>,
    /// The `txt2img` request that repeats the picture, as far as the text says and this daemon has the fields; absent
    /// without a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Txt2ImgParams>,
}
