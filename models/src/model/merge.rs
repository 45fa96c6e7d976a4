//! Checkpoints merged into one, as A1111's "Checkpoint merger" does it: what is to become of which tensor, settled by
//! headers alone before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

use super::convert::{Conversion, Single, Tensor, WeightDtype, shape_in};
use super::interpolation::{Formula, Interpolation};
use super::merged::{Merged, MergedTensor, Mixture};
use crate::adapters::{Adapter, AdapterPatch, Network, Targets};
use crate::files::{ElementType, Layout, Prediction, Tensors, UNET, VAE, architecture};
use crate::nn::Patch;
use crate::{Error, Result};

/// What takes part has this in its name: the networks, and not the schedule beside them.
const TAKES_PART: &str = "model";
/// Numbers of positions, which some files have in another type or damaged; always the first model's.
const POSITIONS: &str = "cond_stage_model.transformer.text_model.embeddings.position_ids";
/// Channels of latents, which the first convolution of every UNet sees first.
const LATENTS: usize = 4;
/// Channels that an inpainting model sees, and an InstructPix2Pix one.
const MORE_CHANNELS: [usize; 2] = [9, 8];

/// A merge that is wanted.
#[derive(Clone, Debug)]
pub struct Merge {
    /// How models become one.
    pub interpolation: Interpolation,
    /// M in its formula.
    pub multiplier: f64,
    /// The type of the networks' weights; the first model's if `None`.
    pub dtype: Option<WeightDtype>,
    /// A regular expression: tensors in whose name it is found are left out.
    pub discard: Option<String>,
    /// What the file is to say of itself beside what the first model says.
    pub metadata: BTreeMap<String, String>,
}

/// The files that are merged, in any layout and format.
pub struct MergeSources {
    /// The first model: what has no counterpart elsewhere is its.
    pub a: Tensors,
    /// The second.
    pub b: Option<Tensors>,
    /// What is taken from the second, to have its difference.
    pub c: Option<Tensors>,
    /// A VAE that takes the place of the first model's.
    pub vae: Option<Tensors>,
    /// Add-ons that are put on what comes of all that, in order.
    pub loras: Vec<MergeLora>,
}

/// A file of the LoRA family at its strengths.
pub struct MergeLora {
    /// The file.
    pub file: Tensors,
    /// Its strength in the text encoder.
    pub te: f32,
    /// Its strength in the UNet.
    pub unet: f32,
    /// Only so many ranks of it.
    pub dynamic: Option<usize>,
    /// The text of the `adapter_config.json` that PEFT saved beside it, if there is one.
    pub config: Option<String>,
}

impl Merge {
    /// What becomes of these files; nothing is written yet, and no tensor was read.
    ///
    /// # Errors
    /// If a model is missing, or one too many; if they are of different architectures, or a tensor of different shapes; if
    /// a LoRA does not fit; if the expression is none.
    pub fn of(self, sources: MergeSources) -> Result<Merged> {
        self.check(&sources)?;
        let MergeSources { a, b, c, vae, loras } = sources;
        if !a.has_under(UNET) {
            let reason = "has no UNet; what others are merged into must be a checkpoint";
            return Err(Error::model(a.path(), reason));
        }
        let discarded = self.discarded()?;
        let conversion = Conversion { layout: Some(Layout::Ldm), dtype: self.dtype, ema: false };
        let Single { source: a, metadata, tensors } = conversion.of(a)?.into_single();
        let mut metadata = still_true(metadata);
        metadata.extend([("format".to_owned(), "pt".to_owned())]);
        metadata.extend(self.metadata.clone());

        let mut notices = vec![];
        let baked = vae.map(|vae| baked(conversion, vae, &a, &mut notices)).transpose()?;
        let (vae, mut tensors) = in_their_places(tensors, baked);
        if let Some(b) = &b {
            mix(&a, b, c.as_ref(), &mut tensors, &mut notices)?;
        }
        let patches = patches(&tensors, loras, &mut notices)?;
        tensors.retain(|tensor| {
            !discarded.as_ref().is_some_and(|regex| regex.is_match(&tensor.tensor.planned.name))
        });
        if tensors.is_empty() {
            let pattern = self.discard.unwrap_or_default();
            return Err(Error::Request(format!(
                "'{pattern}' is found in the name of every tensor; nothing is left"
            )));
        }
        for tensor in &mut tensors {
            tensor.patched = patches.iter().any(|patch| patch.touches(&tensor.tensor.planned.name));
            let planned = &mut tensor.tensor.planned;
            // What is computed is so in f32.
            if (tensor.patched || tensor.mixture.is_some()) && planned.dtype == ElementType::F64 {
                planned.dtype = ElementType::F32;
            }
        }
        let formula = Formula { interpolation: self.interpolation, multiplier: self.multiplier };
        Ok(Merged { a, b, c, vae, patches, tensors, metadata, notices, formula })
    }

    /// Whether these are the files that the formula has.
    fn check(&self, sources: &MergeSources) -> Result<()> {
        let title = self.interpolation.title();
        let wrong = |what: &str| Err(Error::Request(format!("\"{title}\" {what}")));
        match (self.interpolation, &sources.b, &sources.c) {
            (Interpolation::None, None, None)
            | (Interpolation::WeightedSum, Some(_), None)
            | (Interpolation::AddDifference, Some(_), Some(_)) => {}
            (Interpolation::None, ..) => return wrong("takes one model, A; leave b and c out"),
            (Interpolation::WeightedSum, None, _) => return wrong("takes two models; give b"),
            (Interpolation::WeightedSum, ..) => {
                return wrong("takes two models; leave c out, or use \"Add difference\"");
            }
            (Interpolation::AddDifference, ..) => return wrong("takes three models; give b and c"),
        }
        if !self.multiplier.is_finite() {
            return Err(Error::Request(format!("multiplier: {} is no number", self.multiplier)));
        }
        Ok(())
    }

    fn discarded(&self) -> Result<Option<Regex>> {
        let pattern = self.discard.as_deref().filter(|pattern| !pattern.is_empty());
        let wrong = |error: regex::Error| {
            Error::Request(format!("discard_weights: is no regular expression: {error}"))
        };
        pattern.map(Regex::new).transpose().map_err(wrong)
    }
}

/// Which tensors are mixed with whose.
fn mix(
    a: &Tensors,
    b: &Tensors,
    c: Option<&Tensors>,
    tensors: &mut [MergedTensor],
    notices: &mut Vec<String>,
) -> Result<()> {
    for other in [Some(b), c].into_iter().flatten() {
        check_family(a, other)?;
        let (own, others) = (Prediction::told(a.path(), a)?.0, Prediction::told(other.path(), other)?.0);
        // A UNet's output means something else then.
        if own != others {
            let (own_name, name) = (file_name(a), file_name(other));
            let (own, others) = (own.name(), others.name());
            notices.push(format!(
                "{own_name} predicts {own} and {name} {others}: what comes of both may draw nothing"
            ));
        }
    }
    let takes_part = |name: &str| name.contains(TAKES_PART) && name != POSITIONS;
    let (mut mixed, mut lacking) = (BTreeSet::new(), vec![]);
    for merged in tensors.iter_mut().filter(|merged| !merged.of_vae) {
        let Tensor { asked, planned } = &merged.tensor;
        // What is no weights is no sum of others'.
        if !takes_part(asked) || a.weight_dtype(asked).is_err() {
            continue;
        }
        let Some(shape) = shape_of(b, asked) else {
            lacking.push(asked.as_str());
            continue;
        };
        mixed.insert(asked.clone());
        b.weight_dtype(asked)?;
        let part = fitting(a, b, asked, (&planned.shape, &shape))?;
        if let Some(c) = c {
            // What C does not have, B differs from in nothing.
            let Some(of_c) = shape_of(c, asked) else { continue };
            c.weight_dtype(asked)?;
            if of_c != shape {
                return Err(misfit(c, b, asked, &of_c, &shape));
            }
        }
        merged.mixture = Some(part);
    }
    if mixed.is_empty() {
        let reason = format!("has no tensor that {} has, too", a.path().display());
        return Err(Error::model(b.path(), reason));
    }
    if let [first, ..] = lacking[..] {
        let (name, count) = (file_name(b), lacking.len());
        notices.push(format!(
            "{name} lacks {count} tensors, which are as in {}, the first {first}",
            file_name(a)
        ));
    }
    let mut left_out = b.names_under("").into_iter().map(|(asked, _)| asked);
    let mut left_out: Vec<_> =
        left_out.by_ref().filter(|asked| takes_part(asked) && a.shape(asked).is_none()).collect();
    left_out.sort_unstable();
    if let [first, ..] = left_out[..] {
        let (name, count) = (file_name(b), left_out.len());
        notices.push(format!("{count} tensors that only {name} has were left out, the first {first}"));
    }
    Ok(())
}

/// What a file says of itself that is true of what is made of it, too.
fn still_true(metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    const OF_THE_FILE: [&str; 7] = [
        "sd_merge_recipe",
        "sd_merge_models",
        "modelspec.title",
        "modelspec.date",
        "modelspec.description",
        "modelspec.thumbnail",
        "modelspec.merged_from",
    ];
    let is_true = |key: &str| !key.contains("hash") && !OF_THE_FILE.contains(&key);
    metadata.into_iter().filter(|(key, _)| is_true(key)).collect()
}

/// The tensors of another file's VAE, by the names that they have in a checkpoint.
fn baked(
    conversion: Conversion,
    vae: Tensors,
    a: &Tensors,
    notices: &mut Vec<String>,
) -> Result<(Tensors, Vec<Tensor>)> {
    let vae = super::with_vae(vae)?;
    let Single { source: vae, tensors, .. } = conversion.of(vae)?.into_single();
    // Leftovers of its training are no part of it.
    let is_part = |asked: &str| {
        let rest = asked.strip_prefix(VAE);
        rest.is_some_and(|rest| !rest.starts_with("loss.") && !rest.starts_with("model_ema."))
    };
    let mut tensors: Vec<_> = tensors.into_iter().filter(|tensor| is_part(&tensor.asked)).collect();
    for Tensor { asked, planned } in &mut tensors {
        planned.name.clone_from(asked);
        planned.shape = shape_in(asked, &planned.shape);
        if let Some(shape) = shape_of(a, asked).filter(|shape| *shape != planned.shape) {
            return Err(misfit(&vae, a, asked, &planned.shape, &shape));
        }
    }
    if !vae.has_under(&format!("{VAE}encoder.")) {
        notices.push(format!("{} has no encoder; that of {} stays", file_name(&vae), file_name(a)));
    }
    Ok((vae, tensors))
}

/// The first model's tensors, those of the VAE in the place of its own, and what only that has behind them.
fn in_their_places(
    tensors: Vec<Tensor>,
    baked: Option<(Tensors, Vec<Tensor>)>,
) -> (Option<Tensors>, Vec<MergedTensor>) {
    let (vae, baked) = baked.unzip();
    let merged = |tensor, of_vae| MergedTensor { tensor, of_vae, mixture: None, patched: false };
    let baked = baked.unwrap_or_default();
    let names: BTreeSet<_> = baked.iter().map(|tensor| tensor.planned.name.clone()).collect();
    let own = tensors.into_iter().filter(|tensor| !names.contains(&tensor.planned.name));
    let own: Vec<_> = own.map(|tensor| merged(tensor, false)).collect();
    (vae, own.into_iter().chain(baked.into_iter().map(|tensor| merged(tensor, true))).collect())
}

/// What the add-ons do, in their order.
fn patches(
    tensors: &[MergedTensor],
    loras: Vec<MergeLora>,
    notices: &mut Vec<String>,
) -> Result<Vec<AdapterPatch>> {
    let planned = || tensors.iter().map(|merged| &merged.tensor.planned);
    let targets = Targets::new(planned().map(|planned| (planned.name.clone(), planned.shape.clone())));
    let mut patches = vec![];
    for MergeLora { file, te, unet, dynamic, config } in loras {
        let path = file.path().to_owned();
        let adapter = Arc::new(Adapter::of(file, &targets, dynamic, config.as_deref())?);
        if let Some(unapplied) = adapter.unapplied() {
            // Nothing is half applied in what stays.
            if unapplied.shapes.is_some() || unapplied.count == unapplied.of {
                return Err(Error::model(path, unapplied.to_string()));
            }
            let name = path.file_name().unwrap_or_default().display().to_string();
            notices.push(format!("{name}: {unapplied}"));
        }
        for (network, strength) in [(Network::Text, te), (Network::UNet, unet)] {
            // No network is kept by what made it here, so nothing asks for the digest.
            patches.extend(adapter.patch(network, strength, [0; 32]));
        }
    }
    Ok(patches)
}

/// An error if two files are known to be of different families.
fn check_family(a: &Tensors, other: &Tensors) -> Result<()> {
    let family = |file: &Tensors| {
        architecture(file).map(|name| name.split('-').next().unwrap_or_default().to_uppercase())
    };
    match family(a).zip(family(other)) {
        Some((own, others)) if own != others => {
            let reason = format!(
                "is an {others} checkpoint and {} an {own} one; only models of one architecture can be merged",
                a.path().display()
            );
            Err(Error::model(other.path(), reason))
        }
        _ => Ok(()),
    }
}

/// Which part of A's tensor B's is mixed into, by their shapes in the LDM layout.
fn fitting(a: &Tensors, b: &Tensors, name: &str, shapes: (&[usize], &[usize])) -> Result<Mixture> {
    match shapes {
        (own, others) if own == others => Ok(Mixture::Whole),
        ([outputs, more, rest @ ..], [others, LATENTS, same @ ..])
            if MORE_CHANNELS.contains(more) && (outputs, rest) == (others, same) && !rest.is_empty() =>
        {
            let kernel: usize = rest.iter().product();
            Ok(Mixture::Channels { row: more * kernel, part: LATENTS * kernel })
        }
        ([outputs, LATENTS, rest @ ..], [others, more, same @ ..])
            if MORE_CHANNELS.contains(more) && (outputs, rest) == (others, same) =>
        {
            let (kind, a, b) =
                (if *more == 9 { "an inpainting" } else { "an InstructPix2Pix" }, a.path(), b.path());
            Err(Error::Request(format!(
                "{} is {kind} model ({name} has {more} channels) and {} is none; make it A",
                b.display(),
                a.display()
            )))
        }
        (own, others) => Err(misfit(b, a, name, others, own)),
    }
}

/// An error for a tensor that two files have in different shapes.
fn misfit(file: &Tensors, other: &Tensors, asked: &str, shape: &[usize], others: &[usize]) -> Error {
    let name = file.own_name(asked).unwrap_or(asked);
    let reason = format!("tensor {name} is {shape:?}, and in {} {others:?}", other.path().display());
    Error::model(file.path(), reason)
}

/// The shape that a tensor has in the LDM layout.
fn shape_of(file: &Tensors, asked: &str) -> Option<Vec<usize>> {
    file.shape(asked).map(|shape| shape_in(asked, shape))
}

/// What people call a file.
fn file_name(file: &Tensors) -> String {
    file.path().file_name().unwrap_or_default().display().to_string()
}
