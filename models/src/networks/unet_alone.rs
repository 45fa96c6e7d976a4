//! A checkpoint's UNet as a network that stands alone: one beside that of the pass, such as a weaker one that guides away from
//! itself (Karras et al. 2024, arXiv:2406.02507).

use std::sync::{Arc, Mutex, PoisonError};

use super::standalone::{Described, Entry, Found, Port, Side, Standalone};
use super::unet::{RowContext, UNet, UNetCall, UNetConfig};
use crate::error::{Result, bail};
use crate::files::{Prediction, Tensors, UNET, architecture};
use crate::nn::backend::dry_run::{Counter, dry_run};
use crate::nn::{Device, Loader, Precision, Run};
use crate::tensor::Tensor;

/// Rows, latents of a row and tokens of a run that anybody could want: what takes more is not reckoned.
const MOST: [usize; 3] = [1024, 1 << 22, 1 << 16];

/// Begins the names of architectures whose heads are those of [`UNetConfig`], whatever is beside their latents.
const FAMILY: &str = "sd1";

/// Groups of normalisations, into which all channels divide.
const GROUPS: usize = 32;

/// A checkpoint's UNet, empty.
struct UNetFile {
    described: Described,
    config: UNetConfig,
    weight_bytes: u64,
    /// On a device that only counts; held while something is counted.
    empty: Mutex<(UNet, Counter)>,
}

/// That of a file, if it is a checkpoint that can be drawn with.
pub(super) fn find(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    architecture(file).filter(|name| name.starts_with(FAMILY))?;
    let config = UNetConfig::detect(file, UNET).ok()?;
    let is_grouped = config.widths().iter().all(|width| width.is_multiple_of(GROUPS));
    let (device, counter) = dry_run();
    let check = Loader::file(file, &device, Precision::F32);
    UNet::load(&check, UNET, config.clone()).ok()?;
    check.finish(&[UNET], |_| false).ok().filter(|()| is_grouped)?;
    // In f32, in which weights take the most.
    let loader = Loader::file(file, &device, Precision::F32);
    let empty = UNet::load(&loader, UNET, config.clone()).ok()?;
    let prediction = Prediction::of_file(file.path(), file).ok()?;
    Some(Ok(Arc::new(UNetFile {
        described: described(&config, prediction),
        config,
        weight_bytes: loader.into_parts().bytes(),
        empty: Mutex::new((empty, counter)),
    })))
}

fn described(config: &UNetConfig, prediction: Prediction) -> Described {
    let [batch, height, width, tokens] = ["batch", "height", "width", "tokens"].map(Side::Free);
    let latents = |channels| vec![batch, Side::Fixed(channels), height, width];
    let (name, about) = match prediction {
        Prediction::Epsilon => ("noise", "the noise that is in x"),
        Prediction::Velocity => ("velocity", "v, of the noise and the picture in x"),
    };
    let entry = Entry {
        name: "",
        inputs: vec![
            Port {
                name: "x",
                sides: latents(config.in_channels),
                about: "noisy latents over sqrt(sigma * sigma + 1)",
            },
            Port { name: "timestep", sides: vec![batch], about: "fractional, 0 to 999" },
            Port {
                name: "context",
                sides: vec![batch, tokens, Side::Fixed(config.context_width)],
                about: "what the text encoder makes of a prompt",
            },
        ],
        outputs: vec![Port { name, sides: latents(config.out_channels), about }],
    };
    Described { kind: "unet", entries: vec![entry] }
}

impl Found for UNetFile {
    fn described(&self) -> &Described {
        &self.described
    }

    fn weight_bytes(&self) -> Option<u64> {
        Some(self.weight_bytes)
    }

    fn activation_bytes(&self, _entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let [x, _, context] = inputs else { return 0 };
        let (&[rows, channels, height, width], &[_, tokens, _]) = (&x[..], &context[..]) else { return 0 };
        let latents = height.saturating_mul(width);
        if [rows, latents, tokens].iter().zip(MOST).any(|(size, most)| *size > most) {
            return u64::MAX;
        }
        let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let (unet, counter) = &*empty;
        counter.restart();
        if unet.try_out((height, width), rows, &vec![tokens; rows]).is_err() {
            return u64::MAX;
        }
        // What goes in and comes out as the host has it.
        let host = 4 * (rows * channels * latents * size_of::<f32>()) as u64;
        counter.counts().most + host
    }

    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        let load = || UNet::load(&Loader::file(file, device, precision), UNET, self.config.clone());
        let loaded = device.run(load);
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        Ok(Arc::new(UNetAlone(loaded?)))
    }
}

struct UNetAlone(UNet);

impl Standalone for UNetAlone {
    fn run(&self, _entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        let Self(unet) = self;
        let [x, timesteps, context] = inputs else {
            bail!("unet: {} inputs, x, timestep and context are taken", inputs.len());
        };
        let times = unet.time_embeddings(timesteps.values())?;
        let contexts = (0..context.dim(0)).map(|row| unet.context(&context.narrow(0, row, 1)?, &[], run));
        let contexts = contexts.collect::<Result<Vec<_>>>()?;
        let call = UNetCall {
            times: &times.iter().collect::<Vec<_>>(),
            contexts: &contexts.iter().map(RowContext::own).collect::<Vec<_>>(),
            residuals: &[],
            transforms: &[],
        };
        Ok(vec![unet.denoise(x, &call, run)?])
    }
}
