//! Weight files in another layout or type, written as safetensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
pub use latentd_kernels::WeightDtype;
use latentd_kernels::Weights;

use super::checkpoint::Checkpoint;
use super::diffusers_config;
use crate::files::{
    self, CLIP, ElementType, Layout, Network, PREDICTION_METADATA, Planned, Prediction, Tensors, ToldBy,
    UNET, VAE, in_diffusers,
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

struct Tensor {
    /// The name by which the source has it.
    asked: String,
    planned: Planned,
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
fn shape_in(name: &str, shape: &[usize]) -> Vec<usize> {
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

fn element_type(dtype: WeightDtype) -> ElementType {
    match dtype {
        WeightDtype::F32 => ElementType::F32,
        WeightDtype::F16 => ElementType::F16,
        WeightDtype::Bf16 => ElementType::Bf16,
    }
}

impl Conversions {
    fn single(source: Tensors, metadata: BTreeMap<String, String>, tensors: Vec<Tensor>) -> Self {
        let file = Converted { name: String::new(), metadata, tensors };
        Self { source, files: vec![file], texts: vec![] }
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
        let mut buffer = BufWriter::with_capacity(1 << 20, &mut *out);
        let mut last: Option<&Tensor> = None;
        files::write(&mut buffer, path, &planned, &file.metadata, |place| {
            if let Some(last) = last {
                self.source.let_go(&last.asked);
                wrote(last.planned.bytes()?)?;
            }
            last = file.tensors.get(place);
            last.map_or(Ok(Cow::default()), |tensor| self.elements(tensor))
        })?;
        if let Some(last) = last {
            self.source.let_go(&last.asked);
            wrote(last.planned.bytes()?)?;
        }
        buffer.flush().map_err(|error| unwritten(path, &error))?;
        drop(buffer);
        out.sync_all().map_err(|error| unwritten(path, &error))
    }

    /// A tensor's elements as they are to be written.
    fn elements(&self, tensor: &Tensor) -> Result<Cow<'_, [u8]>> {
        let Tensor { asked, planned } = tensor;
        let missing = || Error::model(self.source.path(), format!("missing tensor {asked}"));
        if self.source.dtype(asked) == Some(planned.dtype) {
            return self.source.bytes(asked)?.ok_or_else(missing);
        }
        let (dtype, bytes) = self.source.weights(asked)?.ok_or_else(missing)?;
        narrowed(dtype, bytes, planned.dtype).map_err(|value| {
            let name = self.source.own_name(asked).unwrap_or(asked);
            let reason = format!(
                "tensor {name} has {value:e}, which {} cannot hold; convert to bf16 or f32",
                planned.dtype.name()
            );
            Error::model(self.source.path(), reason)
        })
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Error {
    Error::file(path, format!("cannot be written: {error}"))
}

/// Weights in another type, rounded to the nearest; the first number that has no place there.
fn narrowed(from: WeightDtype, bytes: Cow<'_, [u8]>, to: ElementType) -> Result<Cow<'_, [u8]>, f32> {
    if element_type(from) == to {
        return Ok(bytes);
    }
    let values = Weights { dtype: from, bytes: &bytes }.to_f32();
    let mut out = Vec::with_capacity(bytes.len());
    for value in values {
        let is_held = match to {
            ElementType::F16 => {
                let narrow = f16::from_f32(value);
                out.extend(narrow.to_le_bytes());
                narrow.is_finite()
            }
            ElementType::Bf16 => {
                let narrow = bf16::from_f32(value);
                out.extend(narrow.to_le_bytes());
                narrow.is_finite()
            }
            _ => {
                out.extend(value.to_le_bytes());
                true
            }
        };
        if !is_held && value.is_finite() {
            return Err(value);
        }
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_and_what_has_no_place_is_told() {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let narrow = |values: &[f32], to| narrowed(WeightDtype::F32, bytes(values).into(), to);
        let of = |bits: u16| bits.to_le_bytes().to_vec();
        let rows = [
            (1.0, ElementType::F16, Ok(of(0x3c00))),
            (1.0, ElementType::Bf16, Ok(of(0x3f80))),
            (65504.0, ElementType::F16, Ok(of(0x7bff))),
            (65519.0, ElementType::F16, Ok(of(0x7bff))),
            (65520.0, ElementType::F16, Err(65520.0)),
            (-1e6, ElementType::F16, Err(-1e6)),
            (1e-9, ElementType::F16, Ok(of(0))),
            (f32::INFINITY, ElementType::F16, Ok(of(0x7c00))),
            (1e38, ElementType::Bf16, Ok(bf16::from_f32(1e38).to_le_bytes().to_vec())),
            (f32::MAX, ElementType::Bf16, Err(f32::MAX)),
            (f32::MAX, ElementType::F32, Ok(f32::MAX.to_le_bytes().to_vec())),
        ];
        for (value, to, expected) in rows {
            assert_eq!(narrow(&[value], to).map(Cow::into_owned), expected, "{value} to {to:?}");
        }
        assert_eq!(narrow(&[1.0, 2e5, 1e5], ElementType::F16), Err(2e5), "the first");
    }
}
