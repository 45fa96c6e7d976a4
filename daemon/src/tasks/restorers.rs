//! Restorers of faces by the names that requests have for them: those of `image.upscale`, and `restore_faces`.

use std::sync::Arc;

use latentd_client::protocol::{LibraryKind, Txt2ImgParams};
use latentd_models::pipeline::FaceRestoration;

use super::names;
use super::plugins::Asking;
use super::studio::Studio;
use super::task::Watch;
use crate::error::{Class, Error, Result};
use crate::plugins::{Engine, Job, Kind};

/// A1111's names.
pub(super) const GFPGAN: &str = "GFPGAN";
pub(super) const CODEFORMER: &str = "CodeFormer";

/// Which file each is, and the folder of the models that it belongs into.
const FILES: [(&str, &str, &str); 2] =
    [(GFPGAN, "GFPGANv1.4.pth", "GFPGAN"), (CODEFORMER, "codeformer-v0.1.0.pth", "Codeformer")];

/// The engine of this name, else of the first name that begins with it, if it is one of A1111's.
pub(super) fn find(name: &str, field: &str, (studio, asking): (&Arc<Studio>, &Asking<'_>)) -> Result<Engine> {
    let file = FILES.iter().find(|(known, ..)| *known == name);
    let all = asking.engine_names(Kind::Restorer);
    let begins = |entry: &&String| is_called(name, entry);
    let found = all.iter().find(|entry| *entry == name);
    let found = found.or_else(|| all.iter().find(begins).filter(|_| file.is_some()));
    let entry = found.map_or(name, String::as_str);
    // What may be named besides, whatever its file is called.
    let is_there = |known: &&str| all.iter().any(|entry| is_called(known, entry));
    let beside: Vec<&str> = FILES.iter().map(|(name, ..)| *name).filter(is_there).collect();
    studio.plugins.engine(Kind::Restorer, entry, (field, &beside), asking).map_err(|error| {
        // Where there is no restorer at all it may be the plugin that is missing.
        let Some((_, file, folder)) = file.filter(|_| error.class == Class::NotFound) else { return error };
        if all.is_empty()
            && studio.library.names(LibraryKind::Restorer).iter().any(|entry| is_called(name, entry))
        {
            let text = format!(
                "{}; the library has {name}'s file, which the plugin 'upscaler' would run",
                error.text
            );
            return Error { text, ..error };
        }
        Error {
            text: format!("{}; {name} needs {file} in the folder {folder} of the models", error.text),
            ..error
        }
    })
}

/// Whether an engine is one of this name.
fn is_called(name: &str, entry: &str) -> bool {
    entry.to_lowercase().starts_with(&name.to_lowercase())
}

/// How the faces of what is drawn are restored, and by which engine. `params` say then nothing of it that does nothing.
pub(super) fn resolve(
    params: &mut Txt2ImgParams,
    (studio, watch): (&Arc<Studio>, &dyn Watch),
) -> Result<Option<(FaceRestoration, Engine)>> {
    if !params.restore_faces {
        *params = without(std::mem::take(params));
        return Ok(None);
    }
    let asking = Asking::new(watch, &studio.device.memory, studio, names::noise_source(params.rng));
    let asking = asking.with_versions(params.plugin_versions.clone());
    let engine = find(&params.face_restoration_model, "face_restoration_model", (studio, &asking))?;
    let is_weighted = !is_called(GFPGAN, &engine.entry);
    if !is_weighted {
        params.code_former_weight = Txt2ImgParams::default().code_former_weight;
    }
    let weight = is_weighted.then_some(params.code_former_weight);
    Ok(Some((FaceRestoration { restorer: engine.entry.clone(), weight }, engine)))
}

/// The request without restored faces.
pub(super) fn without(params: Txt2ImgParams) -> Txt2ImgParams {
    let Txt2ImgParams { face_restoration_model, code_former_weight, .. } = Txt2ImgParams::default();
    Txt2ImgParams { restore_faces: false, face_restoration_model, code_former_weight, ..params }
}
