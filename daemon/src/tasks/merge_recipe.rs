//! What a merged file says of how it was made, under the names that A1111's merger gives it.

use std::collections::BTreeMap;

use latentd_models::files::Tensors;
use latentd_models::model::Interpolation;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::library::Pinned;

const RECIPE: &str = "sd_merge_recipe";
const MODELS: &str = "sd_merge_models";
/// Bytes of what a model says of those that it was merged from; more is left out, for it is said again with each merge.
const LONGEST: usize = 256 << 10;

/// A model that took part.
pub(super) struct Part<'a> {
    /// Which of A, B and C, in A1111's words.
    pub role: &'static str,
    pub pinned: &'a Pinned,
    /// Its file, whose metadata is read.
    pub file: &'a Tensors,
}

/// An add-on that took part.
pub(super) struct LoraPart<'a> {
    pub pinned: &'a Pinned,
    pub te: f64,
    pub unet: f64,
    pub dynamic: Option<usize>,
}

/// What else there is to say.
pub(super) struct Recipe<'a> {
    pub interpolation: Interpolation,
    pub multiplier: f64,
    pub half: bool,
    pub name: &'a str,
    pub vae: Option<&'a Pinned>,
    pub loras: Vec<LoraPart<'a>>,
    pub discard_weights: Option<&'a str>,
}

impl Recipe<'_> {
    /// The metadata of a file that was made so of these. Waits for hashes until `cancelled`.
    pub(super) fn metadata(
        &self,
        parts: &[Part<'_>],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<String, String>> {
        let mut recipe = Map::new();
        let mut models = Map::new();
        let mut set = |key: String, value: Value| recipe.insert(key, value);
        set("type".into(), "latentd".into());
        for Part { role, pinned, file } in parts {
            let sha256 = pinned.sha256(cancelled)?;
            let item = pinned.item();
            let before = said(file, RECIPE);
            let model = json!({
                "name": item.file_name(),
                "legacy_hash": item.facts.old_hash,
                RECIPE: before,
            });
            if let Some(Value::Object(others)) = said(file, MODELS) {
                models.extend(others);
            }
            set(format!("{role}_model_name"), item.name.as_str().into());
            set(format!("{role}_model_hash"), sha256.as_str().into());
            models.insert(sha256, model);
        }
        set("interp_method".into(), self.interpolation.title().into());
        set("multiplier".into(), self.multiplier.into());
        set("save_as_half".into(), self.half.into());
        set("custom_name".into(), self.name.into());
        set(
            "bake_in_vae".into(),
            self.vae.map_or_else(|| "None".to_owned(), |vae| vae.item().file_name()).into(),
        );
        set("discard_weights".into(), self.discard_weights.unwrap_or_default().into());
        let mut loras = vec![];
        for LoraPart { pinned, te, unet, dynamic } in &self.loras {
            let hash = pinned.addon_hash(cancelled)?;
            loras.push(json!({
                "name": pinned.item().name, "hash": hash, "te": te, "unet": unet, "dyn": dynamic
            }));
        }
        set("loras".into(), loras.into());
        let names = parts.iter().map(|part| part.pinned.item().name.as_str());
        Ok([
            (RECIPE.to_owned(), Value::Object(recipe).to_string()),
            (MODELS.to_owned(), Value::Object(models).to_string()),
            ("modelspec.merged_from".to_owned(), names.collect::<Vec<_>>().join(", ")),
        ]
        .into())
    }
}

/// What a file says under this name, if that is JSON.
fn said(file: &Tensors, key: &str) -> Option<Value> {
    let text = file.metadata().get(key).filter(|text| text.len() <= LONGEST)?;
    serde_json::from_str(text).ok()
}
