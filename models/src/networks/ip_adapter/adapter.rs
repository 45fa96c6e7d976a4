//! IP-Adapters by their authors' names: what CLIP sees of a picture becomes a few tokens, and those a key and a value for each of the
//! UNet's attentions to the text, in the order of its way down, its way up, and its middle. The plain ones see the whole picture as
//! one vector, those called "plus" all that goes into CLIP's last layer.

use std::sync::{Arc, Mutex, PoisonError};

use super::names::pair;
use super::resampler::{Resampler, ResamplerConfig};
use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::detect::dim;
use crate::networks::standalone::{Described, Entry, Found, Port, Side, Standalone};
use crate::nn::backend::dry_run::{Counter, dry_run};
use crate::nn::{Activations, Device, LayerNorm, Linear, Loader, Precision, Run, upload};
use crate::tensor::Tensor;

const PROJECTION: &str = "image_proj.";
const LAYERS: &str = "ip_adapter.";

/// Tokens of what goes in that anybody could want.
const MOST_SEEN: usize = 1 << 12;

/// The one part.
const KEYS: &str = "keys";

#[derive(Clone, Debug, PartialEq, Eq)]
enum ProjectionConfig {
    /// One vector of so many numbers becomes so many tokens.
    Plain {
        inputs: usize,
        tokens: usize,
    },
    Plus(ResamplerConfig),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Config {
    projection: ProjectionConfig,
    /// Channels of a token.
    width: usize,
    /// Channels of each attention.
    attentions: Vec<usize>,
}

enum Projection {
    Plain { linear: Linear, norm: LayerNorm, tokens: usize },
    Plus(Box<Resampler>),
}

/// The network; in f32 throughout, for it runs once for a picture.
struct Adapter {
    device: Device,
    projection: Projection,
    width: usize,
    pairs: Vec<[Linear; 2]>,
}

/// A file's adapter before it is read.
struct AdapterFile {
    described: Described,
    config: Config,
    weight_bytes: u64,
    /// On a device that only counts; held while something is counted.
    empty: Mutex<(Adapter, Counter)>,
}

/// That of a file, if it has one.
pub(in crate::networks) fn find(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    (file.has_under(PROJECTION) && file.has_under(LAYERS)).then_some(())?;
    Some(AdapterFile::new(file).map(|found| Arc::new(found) as Arc<dyn Found>))
}

/// The name of one of an attention's two: authors number the UNet's attentions, of which every second one is to the text.
fn name(index: usize, which: &str) -> String {
    format!("{LAYERS}{}.to_{which}_ip", 2 * index + 1)
}

impl Config {
    fn detect(file: &Tensors) -> Result<Self> {
        let has = |part: &str| file.shape(&format!("{PROJECTION}{part}")).is_some();
        let refused = |reason: &str| Error::model(file.path(), reason);
        let weight = |index: usize| format!("{}.weight", name(index, "k"));
        let width = dim(file, &weight(0), 1)?;
        let attentions = (0..).take_while(|index| file.shape(&weight(*index)).is_some());
        let attentions =
            attentions.map(|index| dim(file, &weight(index), 0)).collect::<Result<Vec<usize>>>()?;
        let projection = if has("latents") {
            let config = ResamplerConfig::detect(file, PROJECTION)?;
            if !config.is_whole() || config.outputs != width {
                return Err(refused("is an IP-Adapter whose resampler does not fit its keys"));
            }
            ProjectionConfig::Plus(config)
        } else if has("proj.weight") && has("norm.weight") {
            let outputs = dim(file, &format!("{PROJECTION}proj.weight"), 0)?;
            let inputs = dim(file, &format!("{PROJECTION}proj.weight"), 1)?;
            if !outputs.is_multiple_of(width) {
                return Err(refused("is an IP-Adapter whose projection does not fit its keys"));
            }
            ProjectionConfig::Plain { inputs, tokens: outputs / width }
        } else {
            return Err(refused(
                "is an IP-Adapter of another kind (full face, FaceID, …); the plain ones and those called plus are run",
            ));
        };
        Ok(Self { projection, width, attentions })
    }
}

impl Adapter {
    fn load(loader: &Loader, Config { projection, width, attentions }: &Config) -> Result<Self> {
        let projection = match projection {
            ProjectionConfig::Plain { inputs, tokens } => Projection::Plain {
                linear: Linear::load(loader, &format!("{PROJECTION}proj"), *inputs, tokens * width)?,
                norm: LayerNorm::load(loader, &format!("{PROJECTION}norm"), *width)?,
                tokens: *tokens,
            },
            ProjectionConfig::Plus(config) => {
                Projection::Plus(Box::new(Resampler::load(loader, PROJECTION, config)?))
            }
        };
        let pair = |(index, channels): (usize, &usize)| {
            let one = |which: &str| Linear::load_no_bias(loader, &name(index, which), *width, *channels);
            Ok([one("k")?, one("v")?])
        };
        let pairs = attentions.iter().enumerate().map(pair).collect::<Result<_>>()?;
        Ok(Self { projection, width: *width, pairs, device: loader.device().clone() })
    }

    /// What CLIP sees, `(1, inputs)` or `(1, any, inputs)` → keys and values `(1, tokens, channels)`, in turn.
    fn forward(&self, seen: &Activations, run: &Run) -> Result<Vec<Activations>> {
        let tokens = match &self.projection {
            Projection::Plain { linear, norm, tokens } => {
                let made = linear.forward(seen)?.reshaped([1, *tokens, self.width])?;
                norm.forward(&made, Precision::F32)?
            }
            Projection::Plus(resampler) => resampler.forward(seen, run)?,
        };
        self.pairs.iter().flatten().map(|linear| linear.forward(&tokens)).collect()
    }
}

impl AdapterFile {
    /// All that is wrong with its tensors is told at once.
    fn new(file: &Tensors) -> Result<Self> {
        let config = Config::detect(file)?;
        let described = described(&config).ok_or_else(|| {
            Error::model(file.path(), "is an IP-Adapter of more attentions than UNets of SD 1 have")
        })?;
        let (device, counter) = dry_run();
        let check = Loader::file(file, &device, Precision::F32);
        Adapter::load(&check, &config)?;
        check.finish(&[PROJECTION, LAYERS], |_| false)?;
        let loader = Loader::file(file, &device, Precision::F32);
        let empty = Adapter::load(&loader, &config)?;
        let weight_bytes = loader.into_parts().bytes();
        Ok(Self { described, config, weight_bytes, empty: Mutex::new((empty, counter)) })
    }
}

fn described(config: &Config) -> Option<Described> {
    let (input, tokens) = match &config.projection {
        ProjectionConfig::Plain { inputs, tokens } => {
            let sides = vec![Side::Fixed(1), Side::Fixed(*inputs)];
            (Port { name: "embedding", sides, about: "what CLIP makes of the whole picture" }, *tokens)
        }
        ProjectionConfig::Plus(config) => {
            let sides = vec![Side::Fixed(1), Side::Free("tokens"), Side::Fixed(config.inputs)];
            (Port { name: "hidden", sides, about: "what goes into CLIP's last layer" }, config.tokens)
        }
    };
    let port = |name, channels: usize| Port {
        name,
        sides: vec![Side::Fixed(1), Side::Fixed(tokens), Side::Fixed(channels)],
        about: "of the UNet's attentions to the text, those of its way down first, then of its way up, then its middle",
    };
    let both = config.attentions.iter().enumerate().map(|(index, channels)| {
        let names = pair(index)?;
        Some(names.map(|name| port(name, *channels)))
    });
    let outputs = both.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    let entry = Entry { name: KEYS, inputs: vec![input], outputs };
    Some(Described { kind: "ip-adapter", entries: vec![entry] })
}

impl Found for AdapterFile {
    fn described(&self) -> &Described {
        &self.described
    }

    fn weight_bytes(&self) -> Option<u64> {
        Some(self.weight_bytes)
    }

    fn activation_bytes(&self, _entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let [seen] = inputs else { return 0 };
        if seen.iter().rev().skip(1).any(|size| *size > MOST_SEEN) {
            return u64::MAX;
        }
        let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let (adapter, counter) = &*empty;
        counter.restart();
        let tried = adapter.device.upload(&[], seen).and_then(|seen| adapter.forward(&seen, &Run::WHOLE));
        // What comes out as the host has it.
        let host = |made: Vec<Activations>| {
            made.iter().map(|one| one.dims().iter().product::<usize>()).sum::<usize>()
        };
        tried.map_or(u64::MAX, |made| counter.counts().most + (host(made) * size_of::<f32>()) as u64)
    }

    fn open(&self, file: &Tensors, device: &Device, _precision: Precision) -> Result<Arc<dyn Standalone>> {
        let load = || Adapter::load(&Loader::file(file, device, Precision::F32), &self.config);
        let loaded = device.run(load);
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        Ok(Arc::new(loaded?))
    }
}

impl Standalone for Adapter {
    fn run(&self, _entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        let [seen] = inputs else { bail!("ip-adapter: {} inputs, one is taken", inputs.len()) };
        let device = &self.device;
        run.on(device, || {
            let made = self.forward(&upload(device, seen)?, run)?;
            made.iter().map(|one| Tensor::new(device.download(one)?, one.dims())).collect()
        })
    }
}
