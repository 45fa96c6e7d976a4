//! `models.merge`: checkpoints, a VAE and LoRAs become one new file, whole or not at all.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use latentd_client::protocol::{LibraryKind, LoraParams, MergeParams, MergeResult, OnDisconnect, WeightType};
use latentd_models::files::Tensors;
use latentd_models::model::{Interpolation, Merge as Wanted, MergeLora, MergeSources, Merged, WeightDtype};
use latentd_models::nn;

use super::device::DeviceId;
use super::hooks::Hashing;
use super::loras::peft_config;
use super::merge_recipe::{LoraPart, Part, Recipe};
use super::output::folder;
use super::studio::Studio;
use super::task::{JobMethod, Run, Watch};
use crate::error::{Class, Error, Result};
use crate::folders::{Operation, advice};
use crate::library::Pinned;
use crate::schema::shorten;
use crate::suggest;
use crate::whole_file;

const ENDING: &str = ".safetensors";
/// What a checkpoint that is merged with is called in A1111's recipes.
const ROLES: [&str; 3] = ["primary", "secondary", "tertiary"];

/// A request with everything settled.
pub(crate) struct Merge {
    studio: Arc<Studio>,
    /// A, B and C, as far as they are given.
    models: Vec<Arc<Pinned>>,
    vae: Option<Arc<Pinned>>,
    loras: Vec<Lora>,
    wanted: Wanted,
    name: String,
    path: PathBuf,
    overwrite: bool,
    /// Tensors that will be written.
    tensors: u32,
}

struct Lora {
    file: Arc<Pinned>,
    te: f64,
    unet: f64,
    dynamic: Option<usize>,
    /// As it was when the request was made.
    config: Option<String>,
}

impl JobMethod for Merge {
    const NAME: &'static str = "models.merge";
    type Params = MergeParams;
    type Result = MergeResult;

    fn on_disconnect(params: &MergeParams) -> OnDisconnect {
        params.on_disconnect
    }

    fn resolve(params: MergeParams, studio: &Arc<Studio>, watch: &dyn Watch) -> Result<Self> {
        let wanted = wanted(&params)?;
        check_name(&params.name)?;
        let dir = match &params.dir {
            Some(dir) => folder("dir", dir, true, &studio.folders)?,
            None => own_folder(studio)?,
        };
        let path = dir.join(format!("{}{ENDING}", params.name));
        let exists = |_: &Operation| path.symlink_metadata().is_ok();
        if !params.overwrite && studio.folders.ask(&dir, exists).map_err(|silent| silent.in_field("dir"))? {
            return Err(taken(&path));
        }

        let (library, hashing) = (&studio.library, Hashing::new(watch));
        let names = [Some(&params.a), params.b.as_ref(), params.c.as_ref()].into_iter().flatten();
        let models = names.map(|name| library.pin(Some(name), "", &hashing)).collect::<Result<Vec<_>>>()?;
        let [a, ..] = &models[..] else { return Err(Error::internal("a merge without a model")) };
        let vae = params.vae.as_ref().map(|name| library.pin_vae(name, a.item(), &hashing)).transpose()?;
        let loras = params.loras.iter().map(|lora| Lora::find(studio, lora)).collect::<Result<_>>()?;
        let mut merge = Self {
            studio: Arc::clone(studio),
            models,
            vae: vae.flatten(),
            loras,
            wanted,
            name: params.name,
            path,
            overwrite: params.overwrite,
            tensors: 0,
        };
        // What does not fit is told now; the files are not kept mapped while it waits for its turn.
        let merged = merge.settled(merge.sources()?, BTreeMap::new())?;
        merge.tensors = u32::try_from(merged.tensors()).unwrap_or(u32::MAX);
        Ok(merge)
    }

    fn device(&self) -> DeviceId {
        self.studio.device.id
    }

    fn steps(&self) -> u32 {
        self.tensors
    }

    fn run(&self, run: &Run<'_>) -> Result<MergeResult> {
        let cancelled = || run.watch.is_cancelled();
        // It says of which files it was made.
        run.watch.progress("hashing", 0, self.tensors, None);
        let sources = self.sources()?;
        let metadata = self.metadata(&sources, &cancelled)?;
        let merged = self.settled(sources, metadata)?;
        let _room = run.device.memory.reserve_for_job(merged.memory_bytes(), &self.name, &cancelled)?;
        let dir = self.path.parent().unwrap_or(&self.path);
        let written = self.studio.folders.ask(dir, |operation| self.write(&merged, run, operation));
        written.map_err(|silent| silent.in_field("dir"))??;
        let item = self.studio.library.wrote(&self.path);
        Ok(MergeResult {
            path: self.path.display().to_string(),
            name: item.map_or_else(|| self.name.clone(), |item| item.name),
            tensors: self.tensors,
            bytes: merged.bytes(),
            job: run.job.to_owned(),
            notices: merged.notices().to_vec(),
        })
    }
}

impl Merge {
    /// The files, opened: the models, the VAE, and the LoRAs.
    fn sources(&self) -> Result<MergeSources> {
        let mut models = self.models.iter().map(|model| model.tensors());
        let a = models.next().transpose()?.ok_or_else(|| Error::internal("a merge without a model"))?;
        let loras = self.loras.iter().map(|lora| {
            let Lora { file, te, unet, dynamic, config } = lora;
            let (file, te, unet) = (file.tensors()?, *te as f32, *unet as f32);
            Ok(MergeLora { file, te, unet, dynamic: *dynamic, config: config.clone() })
        });
        Ok(MergeSources {
            a,
            b: models.next().transpose()?,
            c: models.next().transpose()?,
            vae: self.vae.as_ref().map(|vae| vae.tensors()).transpose()?,
            loras: loras.collect::<Result<_>>()?,
        })
    }

    fn settled(&self, sources: MergeSources, metadata: BTreeMap<String, String>) -> Result<Merged> {
        Ok(Wanted { metadata, ..self.wanted.clone() }.of(sources)?)
    }

    /// What the file says of how it was made.
    fn metadata(
        &self,
        sources: &MergeSources,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<String, String>> {
        let files: [Option<&Tensors>; 3] = [Some(&sources.a), sources.b.as_ref(), sources.c.as_ref()];
        let models = ROLES.iter().zip(&self.models).zip(files.into_iter().flatten());
        let parts: Vec<_> = models.map(|((role, pinned), file)| Part { role, pinned, file }).collect();
        let loras = self.loras.iter().map(|lora| LoraPart {
            pinned: &lora.file,
            te: lora.te,
            unet: lora.unet,
            dynamic: lora.dynamic,
        });
        let recipe = Recipe {
            interpolation: self.wanted.interpolation,
            multiplier: self.wanted.multiplier,
            half: self.wanted.dtype == Some(WeightDtype::F16),
            name: &self.name,
            vae: self.vae.as_deref(),
            loras: loras.collect(),
            discard_weights: self.wanted.discard.as_deref(),
        };
        recipe.metadata(&parts, cancelled)
    }

    /// Writes the file; ends between two tensors once the job is cancelled. Whatever it ends with, there is nothing else.
    fn write(&self, merged: &Merged, run: &Run<'_>, operation: &Operation) -> Result<()> {
        let cancelled = || run.watch.is_cancelled();
        if let Some(folder) = self.path.parent().filter(|folder| !folder.exists()) {
            std::fs::create_dir(folder).map_err(|error| unwritten(folder, error))?;
        }
        let mut fill = |file: &mut std::fs::File| {
            let (started, all, mut step, mut done) = (Instant::now(), merged.bytes(), 0, 0);
            run.watch.progress("merging", 0, self.tensors, None);
            let mut wrote = |bytes: u64| {
                operation.heard();
                (step, done) = (step + 1, done + bytes);
                let left = all.saturating_sub(done) as f64 / done.max(1) as f64;
                run.watch.progress(
                    "merging",
                    step,
                    self.tensors,
                    Some(started.elapsed().as_secs_f64() * left),
                );
                if cancelled() { Err(latentd_models::Error::Cancelled) } else { Ok(()) }
            };
            let device = run.device.memory.device();
            let work = || merged.write_file(file, &self.path, &mut wrote);
            nn::Run::until(&cancelled).on(device, work).map_err(io::Error::other)?;
            self.check_sources().map_err(io::Error::other)
        };
        let written = if self.overwrite {
            whole_file::write_with(&self.path, &mut fill)
        } else {
            whole_file::write_new_with(&self.path, &mut fill)
        };
        written.map_err(|error| unwritten(&self.path, error))?;
        // Whoever cancelled it was told that it would not finish.
        if cancelled() && !self.overwrite {
            std::fs::remove_file(&self.path).ok();
            return Err(Error::new(Class::Cancelled, "cancelled as it was about to end"));
        }
        Ok(())
    }

    /// An error if one of them was written to since the request was made.
    fn check_sources(&self) -> Result<()> {
        let loras = self.loras.iter().map(|lora| &lora.file);
        self.models.iter().chain(&self.vae).chain(loras).try_for_each(|file| file.check())
    }
}

impl Lora {
    fn find(studio: &Studio, params: &LoraParams) -> Result<Self> {
        let file = studio.library.pin_addon(LibraryKind::Lora, &params.name)?;
        let (te, unet) = params.strengths();
        let config = file.item().path().and_then(peft_config);
        Ok(Self { file, te, unet, dynamic: params.dynamic.map(|ranks| ranks as usize), config })
    }
}

/// Where those are put that say nothing of it. What is not there yet is made once there is something to put there.
fn own_folder(studio: &Studio) -> Result<PathBuf> {
    let dir = studio.library.folder_for(LibraryKind::Checkpoint)?;
    let there = dir.to_str().filter(|_| dir.is_dir());
    Ok(there.map(|dir| folder("dir", dir, true, &studio.folders)).transpose()?.unwrap_or(dir))
}

/// What is wanted, apart from the files.
fn wanted(params: &MergeParams) -> Result<Wanted> {
    let interpolation = match params.method.as_deref() {
        None if params.b.is_some() => Interpolation::WeightedSum,
        None => Interpolation::None,
        Some(name) => Interpolation::from_name(name).ok_or_else(|| {
            let known = Interpolation::ALL.iter().map(|(_, name, _)| *name);
            let (advice, listed) =
                (suggest::advice(name, known.clone()), known.collect::<Vec<_>>().join(", "));
            Error::invalid(format!("method: '{}' is not known; known: {listed}{advice}", shorten(name)))
        })?,
    };
    let dtype = match (params.half, params.dtype) {
        (true, None | Some(WeightType::F16)) | (false, Some(WeightType::F16)) => Some(WeightDtype::F16),
        (true, Some(_)) => {
            let text = "half: is short for dtype \"f16\", and another dtype is given; leave one of them out";
            return Err(Error::invalid(text));
        }
        (false, Some(WeightType::F32)) => Some(WeightDtype::F32),
        (false, Some(WeightType::Bf16)) => Some(WeightDtype::Bf16),
        (false, None) => None,
    };
    Ok(Wanted {
        interpolation,
        multiplier: params.multiplier,
        dtype,
        discard: params.discard_weights.clone(),
        metadata: BTreeMap::new(),
    })
}

/// Refuses what is no file's name, or one that nobody sees.
fn check_name(name: &str) -> Result<()> {
    let wrong = |what: &str| {
        let text = format!("name: '{}' {what}; give a file's name without extension", shorten(name));
        Err(Error::invalid(text))
    };
    if name.contains(['/', '\\']) {
        return wrong("is a path; `dir` says in which folder");
    }
    if name.starts_with('.') || name.trim() != name || name.contains(char::is_control) {
        return wrong("is no name that a model may have");
    }
    if name.to_lowercase().ends_with(ENDING) {
        return wrong("has an extension");
    }
    if name.len() + ENDING.len() > 255 {
        return wrong("is longer than a file's name may be");
    }
    Ok(())
}

fn taken(path: &Path) -> Error {
    Error::invalid(format!("name: {} exists; give another name, or overwrite it", path.display()))
}

/// Why a file was not written, whoever said so.
fn unwritten(path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return taken(path);
    }
    let of_models = |error: latentd_models::Error| match error {
        latentd_models::Error::File { path: at, reason } if at == path => {
            Error::internal(format!("{}: {reason}; see to its disk, or give another folder", path.display()))
        }
        error => error.into(),
    };
    match error.downcast::<Error>().or_else(|error| error.downcast().map(of_models)) {
        Ok(error) if error.class == Class::Cancelled => {
            Error::new(Class::Cancelled, "cancelled while it was merged")
        }
        Ok(error) => error,
        Err(error) => {
            let text = format!("{} cannot be written: {error}; {}", path.display(), advice(&error));
            Error::internal(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_refused() {
        for (name, wrong) in [
            ("a mix v2.1", None),
            ("a/b", Some("is a path")),
            ("..", Some("no name")),
            (" a", Some("no name")),
            ("a\nb", Some("no name")),
            ("a.SafeTensors", Some("has an extension")),
            (&"ü".repeat(150), Some("longer")),
        ] {
            let error = check_name(name).err().map(|error| error.text);
            assert_eq!(error.is_some(), wrong.is_some(), "{name}: {error:?}");
            assert!(error.is_none_or(|error| error.contains(wrong.unwrap_or_default())), "{name}");
        }
    }

    #[test]
    fn half_and_the_method_are_read() {
        let params = || MergeParams::new("a", "new");
        let of = |params: MergeParams| wanted(&params).map(|wanted| (wanted.interpolation, wanted.dtype));
        assert_eq!(of(params()), Ok((Interpolation::None, None)));
        let b = || MergeParams { b: Some("b".into()), ..params() };
        assert_eq!(of(b()), Ok((Interpolation::WeightedSum, None)));
        let method = |name: &str| MergeParams { method: Some(name.into()), half: true, ..b() };
        assert_eq!(of(method("Add difference")), Ok((Interpolation::AddDifference, Some(WeightDtype::F16))));
        let error = of(method("weighted_som")).expect_err("refused");
        assert!(error.text.contains("did you mean 'weighted_sum'?"), "{error}");
        let both = MergeParams { dtype: Some(WeightType::F32), half: true, ..params() };
        assert!(of(both).is_err_and(|error| error.text.contains("leave one of them out")));
    }
}
