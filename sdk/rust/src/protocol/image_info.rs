//! `image.info`: what a picture says of how it was made.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImageIn, Img2ImgParams, OutpaintParams, Txt2ImgParams};

/// `image.info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageInfoParams {
    /// The picture.
    pub image: ImageIn,
}

/// A request that repeats a picture: its `method`, and its `params`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", content = "params", rename_all = "lowercase")]
pub enum RepeatRequest {
    /// It was drawn from text.
    Txt2Img(Box<Txt2ImgParams>),
    /// It was drawn from pictures: what it began with, and its mask, are named by their SHA-256 (`blob`), where the text names
    /// them.
    Img2Img(Box<Img2ImgParams>),
    /// It was continued beyond its sides: what it was before is named as those are.
    Outpaint(Box<OutpaintParams>),
}

impl RepeatRequest {
    /// What is drawn, whatever it begins with.
    pub fn drawing(&self) -> &Txt2ImgParams {
        match self {
            Self::Txt2Img(params) => params,
            Self::Img2Img(params) => &params.drawing,
            Self::Outpaint(params) => &params.drawing,
        }
    }

    /// As [`drawing`](Self::drawing), without the rest.
    pub fn into_drawing(self) -> Txt2ImgParams {
        match self {
            Self::Txt2Img(params) => *params,
            Self::Img2Img(params) => params.drawing,
            Self::Outpaint(params) => params.drawing,
        }
    }
}

/// What `image.info` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageInfo {
    /// A1111's `parameters` text, or in its form what NovelAI, InvokeAI, Fooocus, SwarmUI, Draw Things or Easy Diffusion say;
    /// absent where the picture has nothing of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infotext: Option<String>,
    /// The request that repeats the picture, as far as the text says and this daemon has the fields; absent without a text.
    #[serde(flatten)]
    pub request: Option<RepeatRequest>,
    /// Pairs of the text of which `params` says nothing: keys of others, and values that cannot be drawn with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, String>,
    /// The picture's other texts by their keywords, as the programs have them that wrote them (ComfyUI's `workflow`, for one):
    /// PNG's own keywords, `exif:NAME`, `XML:com.adobe.xmp`, and `comment` for a JPEG's. Up to 1 MiB each and 4 MiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<String, String>,
    /// What plugins that read such texts have to say, and what of their answers is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Plugins that read parameters of their own in `others`, which the request names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_by: Vec<String>,
}
