//! A checkpoint file that is open: what it is, checked by its header alone, and its networks on demand.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::component::{Component, ComponentKind, Network, TextEncoder};
use super::family::Family;
use super::unet_input::UNetInput;
use super::vae_file::with_vae;
use crate::files::{self, Prediction, StoredTensor, Tensors, UNET, native_size};
use crate::networks::clip::{ClipConfig, ClipText};
use crate::networks::unet::{UNet, UNetConfig};
use crate::networks::vae::{Vae, VaeConfig};
use crate::nn::backend::dry_run::dry_run;
use crate::nn::{Device, Loader, Parts, Patch, Precision};
use crate::prompt::ConditioningCache;
use crate::{Error, Result};

/// The tensor by whose name a file says that it was trained with noise alone at the last timestep.
const ZERO_TERMINAL_SNR: &str = "ztsnr";

/// A checkpoint whose header was read: its networks' configurations, and the file to load them from.
pub struct Checkpoint {
    source: Source,
    /// A VAE in a file of its own, which takes the place of the checkpoint's.
    vae_file: Option<Arc<Tensors>>,
    /// Whether there is a VAE, in either.
    has_vae: bool,
    /// Its family.
    pub family: &'static Family,
    /// What its UNet predicts.
    pub prediction: Prediction,
    /// Whether its file says that it was trained with noise alone at the last timestep: a tensor `ztsnr`, whatever is in it.
    pub zero_terminal_snr: bool,
    /// Width and height in pixels of the pictures it was made to draw: as its file says in `modelspec.resolution`, else
    /// its family's.
    pub native_size: (usize, usize),
    /// The type most weights are stored in, as in [`FileInfo::dtype`](files::FileInfo::dtype): "f16", "q8_0".
    pub dtype: String,
    clip: ClipConfig,
    unet: UNetConfig,
    vae: VaeConfig,
}

#[derive(Clone)]
enum Source {
    File(Arc<Tensors>),
    /// Random weights from this seed.
    Random(u64),
}

impl Checkpoint {
    /// Opens a checkpoint file. Names and shapes of all tensors are checked, so that a file that is no such model costs
    /// nothing and one error names all that is wrong; no tensor is read. Only a VAE may be missing: another file's may do. A configuration beside it, `NAME.yaml`, may say
    /// that it predicts v; else marks in the file do.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of_file(files::open(path)?)
    }

    /// As [`Self::open`] of a file that is open already, whatever stands at its path by now. Errors call it `path`, beside
    /// which the configuration is looked for.
    pub fn open_file(file: &File, path: &Path) -> Result<Self> {
        Self::of_file(files::open_file(file, path)?)
    }

    /// As [`Self::open`] of a file whose header was read.
    pub fn of_file(file: Tensors) -> Result<Self> {
        let prediction = Prediction::of_file(file.path(), &file)?;
        Self::new(Source::File(Arc::new(file)), prediction, None)
    }

    /// As [`Self::of_file`] with the VAE of another file, which is checked as well. The checkpoint need not have one, and
    /// the one that it has is not looked at.
    pub fn of_files(file: Tensors, vae: Tensors) -> Result<Self> {
        let prediction = Prediction::of_file(file.path(), &file)?;
        Self::new(Source::File(Arc::new(file)), prediction, Some(Arc::new(with_vae(vae)?)))
    }

    /// The same with the VAE of another file, which is checked.
    pub fn with_vae(&self, vae: Tensors) -> Result<Self> {
        Self::new(self.source.clone(), self.prediction, Some(Arc::new(with_vae(vae)?)))
    }

    /// The same of a checkpoint file's bytes in memory, with the same checks; errors call it `name`.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self> {
        let file = files::from_bytes(name, bytes)?;
        let (prediction, _) = Prediction::of(&file)?;
        Self::new(Source::File(Arc::new(file)), prediction, None)
    }

    /// SD 1.5 at its real size with random f16 weights, for measurements.
    pub fn synthetic_sd15() -> Self {
        let [family, ..] = Family::all() else { unreachable!("there is a family") };
        Self {
            source: Source::Random(15),
            vae_file: None,
            has_vae: true,
            family,
            prediction: Prediction::Epsilon,
            zero_terminal_snr: false,
            native_size: family.native_size,
            dtype: "f16".to_owned(),
            clip: ClipConfig::SD15,
            unet: UNetConfig::sd15(),
            vae: VaeConfig::sd15(),
        }
    }

    fn new(source: Source, prediction: Prediction, vae: Option<Arc<Tensors>>) -> Result<Self> {
        let Source::File(file) = source else {
            return Err(Error::Request("made-up weights take no VAE of a file".to_owned()));
        };
        let family = Family::of(&file).map_err(|other| refusal(&file, other.as_deref()))?;
        let vae_tensors = vae.as_ref().unwrap_or(&file);
        let has_vae = vae_tensors.has_under(family.vae_prefix);
        let checkpoint = Self {
            family,
            prediction,
            zero_terminal_snr: file.names().any(|name| name == ZERO_TERMINAL_SNR),
            native_size: native_size(file.metadata()).unwrap_or(family.native_size),
            dtype: files::main_dtype(&file),
            clip: ClipConfig::detect(&file, family.text_prefix)?,
            unet: UNetConfig::detect(&file, family.unet_prefix)?,
            vae: if has_vae { VaeConfig::detect(vae_tensors, family.vae_prefix)? } else { VaeConfig::sd15() },
            source: Source::File(Arc::clone(&file)),
            vae_file: vae,
            has_vae,
        };
        checkpoint.check_sizes(&file)?;
        match &checkpoint.vae_file {
            None if has_vae => checkpoint.check(&file, &ComponentKind::ALL)?,
            None => checkpoint.check(&file, &[ComponentKind::TextEncoder, ComponentKind::UNet])?,
            Some(vae) => {
                checkpoint.check(&file, &[ComponentKind::TextEncoder, ComponentKind::UNet])?;
                checkpoint.check(vae, &[ComponentKind::Vae])?;
            }
        }
        Ok(checkpoint)
    }

    /// Holds names and shapes of the tensors of these networks against what they need.
    fn check(&self, file: &Tensors, kinds: &[ComponentKind]) -> Result<()> {
        let (device, _) = dry_run();
        let check = Loader::file(file, &device, Precision::F32);
        for kind in kinds {
            self.build(&check, *kind)?;
        }
        let unused_quant = (!self.vae.encoder).then(|| format!("{}quant_conv.", self.family.vae_prefix));
        let prefixes: Vec<_> = kinds.iter().map(|kind| self.prefix(*kind)).collect();
        check.finish(&prefixes, |name| {
            self.is_harmless(name) || unused_quant.as_ref().is_some_and(|prefix| name.starts_with(prefix))
        })
    }

    /// Whether files carry this tensor beside the networks.
    fn is_harmless(&self, name: &str) -> bool {
        self.family.harmless.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Begins the names of a network's tensors.
    fn prefix(&self, kind: ComponentKind) -> &'static str {
        match kind {
            ComponentKind::TextEncoder => self.family.text_prefix,
            ComponentKind::UNet => self.family.unet_prefix,
            ComponentKind::Vae => self.family.vae_prefix,
        }
    }

    /// The text encoder's configuration.
    pub fn clip(&self) -> &ClipConfig {
        &self.clip
    }

    /// What its UNet sees beside noisy latents and text.
    pub fn unet_input(&self) -> UNetInput {
        UNetInput::of(self.unet.in_channels, self.vae.latent_channels).unwrap_or_default()
    }

    /// The UNet's configuration.
    pub fn unet(&self) -> &UNetConfig {
        &self.unet
    }

    /// The VAE's configuration.
    pub fn vae(&self) -> &VaeConfig {
        &self.vae
    }

    /// The open file, unless the weights are made up.
    pub fn file(&self) -> Option<&Tensors> {
        match &self.source {
            Source::File(file) => Some(file),
            Source::Random(_) => None,
        }
    }

    /// The open file again, unless the weights are made up or another checkpoint has it too.
    pub fn into_file(self) -> Option<Tensors> {
        match self.source {
            Source::File(file) => Arc::into_inner(file),
            Source::Random(_) => None,
        }
    }

    /// The file that a network comes from, unless its weights are made up.
    pub fn file_of(&self, kind: ComponentKind) -> Option<&Tensors> {
        match &self.vae_file {
            Some(vae) if kind == ComponentKind::Vae => Some(vae),
            _ => self.file(),
        }
    }

    /// The tensors that one network is made of, sorted by name, without the prefix that the file has there. None for
    /// made-up weights.
    pub fn tensors_of(&self, kind: ComponentKind) -> impl Iterator<Item = Result<StoredTensor<'_>>> {
        let prefix = self.prefix(kind);
        let is_part = move |tensor: &Result<StoredTensor<'_>>| {
            tensor.as_ref().map_or(true, |tensor| !self.is_harmless(&format!("{prefix}{}", tensor.name)))
        };
        self.file_of(kind).into_iter().flat_map(move |file| file.under(prefix)).filter(is_part)
    }

    /// Whether it has a VAE, its own or another file's. Nothing can be drawn without.
    pub fn has_vae(&self) -> bool {
        self.has_vae
    }

    fn without_vae(&self) -> Error {
        let (prefix, title) = (self.family.vae_prefix, self.family.title);
        let reason = format!(
            "holds no VAE: none of its tensors' names begins with {prefix}; name one of {title} with `vae`, put one beside it \
             as NAME.vae.safetensors, or use the file of this model that has one"
        );
        Error::model(self.file().map_or(Path::new(""), Tensors::path), reason)
    }

    /// Loads one network. Loading may be ended between two tensors.
    pub fn load(
        &self,
        kind: ComponentKind,
        device: &Device,
        precision: Precision,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Component> {
        device.run(|| {
            self.with_loader(kind, device, precision, |loader| {
                self.finish_load(loader.until(cancelled), kind)
            })
        })
    }

    /// Loads one network with its weights changed by `patches`, in order, beside `base`, the same network without, and others
    /// of it that were patched: tensors that the same patches made, or none, are shared. All are on one device.
    pub fn load_patched(
        &self,
        base: &Component,
        near: &[Component],
        patches: &[Arc<dyn Patch>],
        device: &Device,
        precision: Precision,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Component> {
        let kind = base.kind();
        let all = || std::iter::once(base).chain(near);
        if all().any(|near| near.kind() != kind || !near.network.device().is(device)) {
            return Err(Error::Compute(format!(
                "a {kind} shares weights with its own kind, on its own device"
            )));
        }
        let parts: Vec<&Parts> = all().map(|near| &*near.parts).collect();
        let loaded = device.run(|| {
            self.with_loader(kind, device, precision, |loader| {
                let loader = loader.patched(&parts, patches).until(cancelled);
                loader.make_patched()?;
                self.finish_load(loader, kind)
            })
        });
        // Asked first: a file cut off meanwhile also shows as strange weights.
        patches.iter().try_for_each(|patch| patch.check_intact())?;
        loaded
    }

    fn with_loader<T>(
        &self,
        kind: ComponentKind,
        device: &Device,
        precision: Precision,
        work: impl FnOnce(Loader<'_>) -> Result<T>,
    ) -> Result<T> {
        if kind == ComponentKind::Vae && !self.has_vae {
            return Err(self.without_vae());
        }
        match (self.file_of(kind), &self.source) {
            (Some(file), _) => {
                let loaded = work(Loader::file(file, device, precision));
                // Asked first: a file cut off meanwhile also shows as strange weights.
                file.check_intact()?;
                loaded
            }
            // Each network has a stream of its own, so that it is the same whichever are loaded.
            (None, Source::Random(seed)) => work(Loader::random(*seed + 2 * kind as u64, device, precision)),
            (None, Source::File(_)) => Err(Error::Compute("a file that is there is not there".to_owned())),
        }
    }

    fn finish_load(&self, loader: Loader<'_>, kind: ComponentKind) -> Result<Component> {
        let network = self.build(&loader, kind)?;
        Ok(Component { network, parts: Arc::new(loader.into_parts()) })
    }

    /// Builds a network from a loader's tensors.
    pub(super) fn build(&self, loader: &Loader, kind: ComponentKind) -> Result<Network> {
        let Family { text_prefix, unet_prefix, vae_prefix, .. } = self.family;
        Ok(match kind {
            ComponentKind::TextEncoder => Network::TextEncoder(Arc::new(TextEncoder {
                clip: ClipText::load(loader, text_prefix, self.clip.clone())?,
                cache: ConditioningCache::default(),
            })),
            ComponentKind::UNet => {
                Network::UNet(Arc::new(UNet::load(loader, unet_prefix, self.unet.clone())?))
            }
            ComponentKind::Vae => Network::Vae(Arc::new(Vae::load(loader, vae_prefix, self.vae.clone())?)),
        })
    }

    /// An empty network: on a device that only counts, of the tensors that the file has.
    pub(super) fn empty(
        &self,
        kind: ComponentKind,
        device: &Device,
        precision: Precision,
    ) -> Result<Component> {
        self.with_loader(kind, device, precision, |loader| self.finish_load(loader, kind))
    }

    /// Relations between the parts that no single tensor shows.
    fn check_sizes(&self, file: &Tensors) -> Result<()> {
        let Self { clip, unet, vae, family, .. } = self;
        let wrong = |reason: String| Err(Error::model(file.path(), reason));
        if unet.context_width != 0 && unet.context_width != clip.width {
            return wrong(format!(
                "the UNet attends to width {}, the text encoder gives {}",
                unet.context_width, clip.width
            ));
        }
        if unet.out_channels != vae.latent_channels
            || UNetInput::of(unet.in_channels, vae.latent_channels).is_none()
        {
            let (inputs, outputs, latents) = (unet.in_channels, unet.out_channels, vae.latent_channels);
            return wrong(format!(
                "the UNet takes {inputs} and gives {outputs} channels, the VAE's latents have {latents}"
            ));
        }
        if vae.scale() != 8 {
            return wrong(format!("the VAE scales by {}, Stable Diffusion's by 8", vae.scale()));
        }
        if clip.positions != family.text_positions || clip.vocabulary <= crate::prompt::EOS as usize {
            let (tokens, positions) = (clip.vocabulary, clip.positions);
            return wrong(format!(
                "the text encoder has {tokens} tokens and {positions} positions, CLIP's has 49408 and 77"
            ));
        }
        if !clip.width.is_multiple_of(clip.heads()) {
            return wrong(format!(
                "the text encoder's width {} does not divide into {} heads",
                clip.width,
                clip.heads()
            ));
        }
        let grouped = |channels: &usize| channels.is_multiple_of(32);
        let unet_widths = unet.widths();
        let Some(width) = unet_widths.iter().chain(&vae.widths).find(|width| !grouped(width)) else {
            return Ok(());
        };
        wrong(format!("a layer has {width} channels, which do not divide into 32 groups"))
    }
}

/// Why a file is not drawn with: no checkpoint, or one of another architecture.
fn refusal(file: &Tensors, architecture: Option<&str>) -> Error {
    let what = match architecture {
        Some(other) => format!("an {} checkpoint", other.to_uppercase()),
        None if file.has_under(UNET) => {
            let reason = format!(
                "holds a UNet of Stable Diffusion ({UNET}…) and no text encoder that is known; use the whole \
                 checkpoint: the file, or the folder, that has both"
            );
            return Error::model(file.path(), reason);
        }
        None => {
            let reason = "holds no Stable Diffusion checkpoint: its tensors do not begin with model.diffusion_model., \
                          first_stage_model. and cond_stage_model., as in a file in LDM's layout, nor with unet., vae. \
                          and text_encoder., as in diffusers'";
            return Error::model(file.path(), reason);
        }
    };
    let path = file.path().display();
    Error::Unsupported(format!("{path}: is {what}; this version draws from text with SD 1.x checkpoints"))
}
