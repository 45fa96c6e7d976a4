//! Weight files in another layout or type, written as safetensors.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub use latentd_kernels::WeightDtype;

use super::checkpoint::Checkpoint;
use super::diffusers_config;
use super::rewrite::{self, element_type, unwritten};
use crate::files::{
    CLIP, ElementType, Layout, Network, PREDICTION_METADATA, Planned, Prediction, Tensors, ToldBy, UNET, VAE,
    in_diffusers,
};
use crate::{Error, Result};

/// What a file is to become.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    /// The layout of networks of Stable Diffusion; as it is if `None`.
    pub layout: Option<Layout>,
    /// The type of their weights. If `None` as it is, and what is narrower than 16 bits becomes f16.
    pub dtype: Option<WeightDtype>,
    /// The averaged weights of the UNet in the place of the plain ones, and those left out.
    pub ema: bool,
}

/// What will be written: a file, or a folder as diffusers saves it. Nothing was yet, and no tensor was read.
pub struct Conversions {
    source: Tensors,
    /// One without a name, or those in a folder.
    files: Vec<Converted>,
    /// Configurations in a folder.
    texts: Vec<(&'static str, Vec<u8>)>,
}

/// A file of weights.
struct Converted {
    name: String,
    metadata: BTreeMap<String, String>,
    tensors: Vec<Tensor>,
}

/// A tensor that will be written.
pub(super) struct Tensor {
    /// The name by which the source has it.
    pub asked: String,
    pub planned: Planned,
}

/// What a single file is made of.
pub(super) struct Single {
    pub source: Tensors,
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<Tensor>,
}

impl Conversion {
    /// What becomes of a file; an error if it cannot become that. A folder becomes of a checkpoint alone.
    pub fn of(self, file: Tensors) -> Result<Conversions> {
        let file = if self.ema { file.with_ema()? } else { file };
        if self.layout.is_some() && file.layout().is_none() {
            let reason = "holds no network of Stable Diffusion, whose layout could be another one";
            return Err(Error::model(file.path(), reason));
        }
        let is_checkpoint = file.has_under(UNET) && file.has_under(VAE);
        match self.layout.or(file.layout()) {
            Some(Layout::Diffusers) if is_checkpoint => self.folder(file),
            Some(Layout::Diffusers) => self.in_diffusers(file),
            Some(Layout::Ldm) => self.in_ldm(file),
            None => self.as_it_is(file),
        }
    }

    /// A single file, in which everything stays what it is called.
    fn as_it_is(self, file: Tensors) -> Result<Conversions> {
        let names = file.names_under("").into_iter().map(|(asked, _)| (asked.to_owned(), asked.to_owned()));
        let tensors = self.tensors(&file, names.collect())?;
        let metadata = file.metadata().clone();
        Ok(Conversions::single(file, metadata, tensors))
    }

    /// A single file in LDM's layout: a whole checkpoint, or a VAE without a checkpoint's prefix, as people have them.
    fn in_ldm(self, file: Tensors) -> Result<Conversions> {
        let has_unet = file.has_under(UNET);
        let has_others = file.has_under("conditioner.") || file.has_under("cond_stage_model.model.");
        let lacks_text = has_unet && file.has_under(VAE) && !file.has_under(CLIP);
        if file.layout() == Some(Layout::Diffusers) && (has_others || lacks_text) {
            let reason = "is not of SD 1.x; this version writes no others in the LDM layout";
            return Err(Error::Unsupported(format!("{}: {reason}", file.path().display())));
        }
        let is_averaged = |asked: &str| asked.starts_with("model_ema.");
        let names = file.names_under("").into_iter().map(|(asked, _)| asked);
        let names = names.filter(|asked| !(self.ema && is_averaged(asked))).map(|asked| {
            let name = asked.strip_prefix(VAE).filter(|_| !has_unet).unwrap_or(asked);
            (name.to_owned(), asked.to_owned())
        });
        let tensors = self.tensors(&file, names.collect())?;
        let mut metadata = file.metadata().clone();
        if has_unet {
            let (prediction, told_by) = Prediction::told(file.path(), &file)?;
            // Whatever says it elsewhere may not be beside the new file, or be contradicted in it.
            if told_by != ToldBy::Nothing {
                metadata.insert(PREDICTION_METADATA.to_owned(), prediction.name().to_owned());
            }
        }
        Ok(Conversions::single(file, metadata, tensors))
    }

    /// A network alone under diffusers' names. Several would be jumbled: in a file they have no folders.
    fn in_diffusers(self, file: Tensors) -> Result<Conversions> {
        let mut networks: Vec<_> =
            in_diffusers(&file).into_iter().filter(|network| !network.names.is_empty()).collect();
        let has_text = ["conditioner.", "cond_stage_model."].iter().any(|prefix| file.has_under(prefix));
        let is_text = |network: &Network| network.folder == "text_encoder";
        let network = networks.pop().filter(|last| networks.is_empty() && (is_text(last) || !has_text));
        let Some(Network { names, .. }) = network else {
            let lacking = if file.has_under(VAE) { "UNet" } else { "VAE" };
            let reason = format!(
                "has no {lacking}, so it makes no folder as diffusers has it; use the file of this model that has one"
            );
            return Err(Error::model(file.path(), reason));
        };
        let tensors = self.tensors(&file, names)?;
        let metadata = file.metadata().clone();
        Ok(Conversions::single(file, metadata, tensors))
    }

    /// A checkpoint in a folder, with configurations.
    fn folder(self, file: Tensors) -> Result<Conversions> {
        let checkpoint = Checkpoint::of_file(file)?;
        let texts = diffusers_config::texts(&checkpoint)?;
        let Some(file) = checkpoint.into_file() else {
            return Err(Error::Compute("a checkpoint of a file without a file".to_owned()));
        };
        let mut files = vec![];
        for Network { folder, names } in in_diffusers(&file) {
            // transformers reads no file that does not say so.
            let mut metadata: BTreeMap<_, _> = [("format".to_owned(), "pt".to_owned())].into();
            let mut stem = "model";
            if folder != "text_encoder" {
                stem = "diffusion_pytorch_model";
            }
            if folder == "unet" {
                metadata.extend(file.metadata().clone());
                // Its configuration says it.
                metadata.remove(PREDICTION_METADATA);
            }
            let tensors = self.tensors(&file, names)?;
            files.push(Converted { name: format!("{folder}/{stem}.safetensors"), metadata, tensors });
        }
        Ok(Conversions { source: file, files, texts })
    }

    /// Pairs of a new name and the one by which the file has it, with types and shapes.
    fn tensors(self, file: &Tensors, names: Vec<(String, String)>) -> Result<Vec<Tensor>> {
        let tensor = |(name, asked): (String, String)| {
            let missing = || Error::model(file.path(), format!("missing tensor {asked}"));
            let stored = file.dtype(&asked).ok_or_else(missing)?;
            let shape = file.shape(&asked).ok_or_else(missing)?;
            let dtype = match (file.weight_dtype(&asked), self.dtype, stored) {
                // No weights, such as the numbers of positions.
                (Err(_), _, _) => stored,
                (Ok(_), Some(dtype), _) if is_weight(file, &asked) => element_type(dtype),
                (Ok(_), _, ElementType::F32 | ElementType::F16 | ElementType::Bf16 | ElementType::F64) => {
                    stored
                }
                (Ok(_), _, _) => ElementType::F16,
            };
            let shape = shape_in(&name, shape);
            let planned = Planned { name, dtype, shape };
            // A type that is not written is told before anything is.
            planned.bytes()?;
            Ok(Tensor { asked, planned })
        };
        names.into_iter().map(tensor).collect()
    }
}

/// Whether its type is to change with the networks': the schedule beside them stays as exact as it is.
fn is_weight(file: &Tensors, asked: &str) -> bool {
    const NETWORKS: [&str; 5] = [UNET, VAE, "cond_stage_model.", "conditioner.", "model_ema.diffusion_model"];
    file.layout().is_none() || NETWORKS.iter().any(|prefix| asked.starts_with(prefix))
}

/// A VAE's attention is of 1×1 convolutions in LDM's layout, and of matrices in diffusers'.
pub(super) fn shape_in(name: &str, shape: &[usize]) -> Vec<usize> {
    let is_weight = name.ends_with(".weight") && !name.contains("norm");
    match shape {
        [outputs, inputs] if is_weight && name.contains(".mid.attn_1.") => vec![*outputs, *inputs, 1, 1],
        [outputs, inputs, 1, 1] if is_weight && is_diffusers_attention(name) => vec![*outputs, *inputs],
        _ => shape.to_vec(),
    }
}

/// Of a VAE; a UNet's is of transformers.
fn is_diffusers_attention(name: &str) -> bool {
    let of_vae = name.starts_with("encoder.mid_block.") || name.starts_with("decoder.mid_block.");
    of_vae && name.contains(".attentions.")
}

impl Conversions {
    fn single(source: Tensors, metadata: BTreeMap<String, String>, tensors: Vec<Tensor>) -> Self {
        let file = Converted { name: String::new(), metadata, tensors };
        Self { source, files: vec![file], texts: vec![] }
    }

    /// What its files are made of, put into one.
    pub(super) fn into_single(self) -> Single {
        let mut single = Single { source: self.source, metadata: BTreeMap::new(), tensors: vec![] };
        for file in self.files {
            single.metadata.extend(file.metadata);
            single.tensors.extend(file.tensors);
        }
        single
    }

    /// Whether a folder will be written, or a single file.
    pub fn is_folder(&self) -> bool {
        !self.texts.is_empty()
    }

    /// Bytes of all tensors that will be written.
    pub fn bytes(&self) -> u64 {
        let tensors = self.files.iter().flat_map(|file| &file.tensors);
        tensors.filter_map(|tensor| tensor.planned.bytes().ok()).sum()
    }

    /// Writes a single file, which errors call `path`. `wrote` hears of each tensor's bytes, and may end it with an error.
    pub fn write_file(
        &self,
        out: &mut File,
        path: &Path,
        wrote: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        for file in &self.files {
            self.write(file, out, path, wrote)?;
        }
        self.source.check_intact()
    }

    /// Writes what belongs in a folder into one that is there and empty, which errors call `path`.
    pub fn write_folder(
        &self,
        folder: &Path,
        path: &Path,
        wrote: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let create = |name: &str| -> Result<(File, PathBuf)> {
            let (at, shown) = (folder.join(name), path.join(name));
            let made = at.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create_new(&at));
            made.map_err(|error| unwritten(&shown, &error)).map(|file| (file, shown))
        };
        for (name, text) in &self.texts {
            let (mut file, path) = create(name)?;
            let written = file.write_all(text).and_then(|()| file.sync_all());
            written.map_err(|error| unwritten(&path, &error))?;
        }
        for converted in &self.files {
            let (mut file, path) = create(&converted.name)?;
            self.write(converted, &mut file, &path, wrote)?;
        }
        self.source.check_intact()
    }

    fn write(
        &self,
        file: &Converted,
        out: &mut File,
        path: &Path,
        wrote: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let planned: Vec<_> = file.tensors.iter().map(|tensor| &tensor.planned).collect();
        let tensor = |place: usize| {
            file.tensors.get(place).ok_or_else(|| Error::Compute("a tensor that is not planned".to_owned()))
        };
        let elements = |place| {
            let Tensor { asked, planned } = tensor(place)?;
            rewrite::elements(&self.source, asked, planned)
        };
        rewrite::write(out, path, &planned, &file.metadata, elements, |place| {
            let Tensor { asked, planned } = tensor(place)?;
            self.source.let_go(asked);
            wrote(planned.bytes()?)
        })
    }
}
