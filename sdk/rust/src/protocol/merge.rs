//! `models.merge`: checkpoints, a VAE and LoRAs in one new file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LoraParams, OnDisconnect};

/// What to merge, with the names, meaning and defaults of A1111's "Checkpoint merger".
///
/// Networks are merged, tensor by tensor, and the schedule beside them is A's; what B does not have is A's, too, and what
/// only B has is left out, which `notices` tell. An inpainting model (or an InstructPix2Pix one) is merged with a plain one
/// if it is A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeParams {
    /// The checkpoint that the others are merged into, named as in `txt2img`.
    #[schemars(length(min = 1, max = 1000))]
    pub a: String,
    /// The second checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub b: Option<String>,
    /// The third, for "add_difference".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub c: Option<String>,
    /// "weighted_sum": A · (1 − M) + B · M; "add_difference": A + (B − C) · M; "none": A alone, to put a VAE or LoRAs into
    /// it, or to change its type. A1111's "Weighted sum", "Add difference" and "No interpolation" are the same. If left
    /// out: the first where B is given, else the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// M.
    #[serde(default = "third")]
    #[schemars(range(min = -10.0, max = 10.0))]
    pub multiplier: f64,
    /// Whether the networks are to be in f16, as A1111's "Save as float16": short for `dtype: "f16"`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub half: bool,
    /// The type of the networks' weights; if left out A's, of 8-bit and quantised ones f16. A number that it cannot hold is
    /// an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<WeightType>,
    /// A VAE that takes the place of A's, also where A has none: a name in the library, a path or a hash; "Automatic" for
    /// the one whose file's name begins with A's, if there is one. None if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub vae: Option<String>,
    /// LoRAs that are put into what comes of all that, in this order. One that does not fit is an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub loras: Vec<LoraParams>,
    /// A regular expression: tensors in whose name (as in files in LDM's layout) it is found are left out, such as
    /// `model_ema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub discard_weights: Option<String>,
    /// What to call the new file, without `.safetensors`.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Where to put it: an absolute, existing folder. If left out: that for checkpoints in the first models folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Whether a file that is there already is replaced. If not, that is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
    /// What becomes of the job when the connection ends that asked for it.
    #[serde(default, skip_serializing_if = "OnDisconnect::is_keep")]
    pub on_disconnect: OnDisconnect,
}

impl MergeParams {
    /// The checkpoint `a` alone, as a new file called `name`; what else is wanted is set on it.
    pub fn new(a: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            a: a.into(),
            b: None,
            c: None,
            method: None,
            multiplier: third(),
            half: false,
            dtype: None,
            vae: None,
            loras: Vec::new(),
            discard_weights: None,
            name: name.into(),
            dir: None,
            overwrite: false,
            on_disconnect: OnDisconnect::Keep,
        }
    }
}

fn third() -> f64 {
    0.3
}

/// A type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MergeResult {
    /// The new file.
    pub path: String,
    /// What the library calls it; the file's name without extension where it is in no models folder.
    pub name: String,
    /// Tensors in it.
    pub tensors: u32,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// The job that wrote it.
    pub job: String,
    /// What the person who asked should know: what only one of the models has, what of a LoRA has no layer, that models
    /// predict different things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}
