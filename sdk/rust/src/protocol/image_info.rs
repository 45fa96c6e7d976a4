//! `image.info`: what a picture says of how it was made.

use std::collections::BTreeMap;

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
    /// A1111's `parameters` text, or in its form what NovelAI, InvokeAI, Fooocus, SwarmUI, Draw Things or Easy Diffusion say;
    /// absent where the picture has nothing of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infotext: Option<String>,
    /// The `txt2img` request that repeats the picture, as far as the text says and this daemon has the fields; absent
    /// without a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Txt2ImgParams>,
    /// Pairs of the text of which `params` says nothing: keys of others, and values that cannot be drawn with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, String>,
    /// The picture's other texts by their keywords, as the programs have them that wrote them (ComfyUI's `workflow`, for one):
    /// PNG's own keywords, `exif:NAME`, `XML:com.adobe.xmp`, and `comment` for a JPEG's. Up to 1 MiB each and 4 MiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<String, String>,
}
