//! Networks each of which is a file by itself, and takes pictures: where the file has their tensors, running them, and memory.

use std::sync::Arc;

use super::standalone::{Described, Entry, Found, Port, Side, Standalone};
use super::wrapped::{check_finite, prefix};
use crate::error::{Result, bail};
use crate::files::Tensors;
use crate::nn::backend::dry_run::dry_run;
use crate::nn::{Device, Loader, Precision, Run};
use crate::tensor::Tensor;

/// A network that takes a picture, and maybe more.
pub(super) trait FileNetwork: Sized + Send + Sync + 'static {
    /// What its tensors tell.
    type Config: Send + Sync;

    /// Whether pictures of a batch go through it together, and not one after the other.
    const TOGETHER: bool = false;

    /// How often what comes out of a picture is on the host at once: as the device has it, and in the order of who asked.
    const COPIES: u64 = 2;

    /// Whether the names after a prefix are this network's.
    fn is_in(file: &Tensors, prefix: &str) -> bool;

    /// Reads it from the tensors after a prefix.
    fn config(file: &Tensors, prefix: &str) -> Result<Self::Config>;

    /// What it is. The picture is the first input, `(batch, colours, height, width)`; all begin with the batch.
    fn described(config: &Self::Config) -> Described;

    /// Sides of a picture that is tried out to reckon with memory: enough that borders count little.
    fn tried(config: &Self::Config) -> usize;

    /// Reads the tensors after a prefix.
    fn load(loader: &Loader, prefix: &str, config: &Self::Config) -> Result<Self>;

    /// Whether a tensor, by its name after the prefix, says nothing that is not known.
    fn may_be_left(_name: &str) -> bool {
        false
    }

    /// What comes out of a picture and of what else goes in: of a batch of 1, unless they go through it together.
    fn forward(&self, entry: &str, inputs: &[Tensor], device: &Device, run: &Run) -> Result<Vec<Tensor>>;
}

/// A file's network before it is read.
struct OfFile<N: FileNetwork> {
    described: Described,
    prefix: String,
    config: N::Config,
    /// Bytes that running it takes for each pixel that goes in.
    bytes_per_pixel: u64,
    /// Those of one copy of what comes out.
    given_per_pixel: u64,
    /// Sides that are at least reckoned with: small ones are filled up to what windows take.
    least: u64,
}

/// That of a file, if it is this one.
pub(super) fn find<N: FileNetwork>(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    let prefix = prefix(file, N::is_in)?;
    Some(OfFile::<N>::new(file, prefix).map(|found| Arc::new(found) as Arc<dyn Found>))
}

impl<N: FileNetwork> OfFile<N> {
    /// All that is wrong with its tensors is told at once.
    fn new(file: &Tensors, prefix: String) -> Result<Self> {
        let config = N::config(file, &prefix)?;
        let described = N::described(&config);
        let (device, counter) = dry_run();
        let loader = Loader::file(file, &device, Precision::F32);
        let network = N::load(&loader, &prefix, &config)?;
        let left = |name: &str| N::may_be_left(name.strip_prefix(&prefix).unwrap_or(name));
        loader.finish(&[&prefix], left)?;
        let side = N::tried(&config);
        let pixels = (side * side) as u64;
        let bytes = |tensors: &[Tensor]| {
            tensors.iter().map(|tensor| size_of_val(tensor.values()) as u64).sum::<u64>()
        };
        let (mut taken, mut given) = (0, 0);
        for entry in &described.entries {
            let size = |(index, side_of): (usize, &Side)| match side_of {
                Side::Fixed(size) => *size,
                _ if index == 0 => 1,
                _ => side,
            };
            let input =
                |port: &Port| Tensor::full(1.0, port.sides.iter().enumerate().map(size).collect::<Vec<_>>());
            let inputs: Vec<_> = entry.inputs.iter().map(input).collect();
            let outputs = network.forward(entry.name, &inputs, &device, &Run::WHOLE)?;
            (taken, given) = (bytes(&inputs).max(taken), bytes(&outputs).max(given));
        }
        // On the host: what goes in in both orders, and what comes out.
        let given_per_pixel = given.div_ceil(pixels);
        let on_host = 2 * taken.div_ceil(pixels) + N::COPIES * given_per_pixel;
        let bytes_per_pixel = counter.counts().most.div_ceil(pixels) + on_host;
        Ok(Self { described, prefix, config, bytes_per_pixel, given_per_pixel, least: side as u64 })
    }
}

impl<N: FileNetwork> Found for OfFile<N> {
    fn described(&self) -> &Described {
        &self.described
    }

    fn activation_bytes(&self, _entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let Some([batch, _, height, width]) = inputs.first().map(Vec::as_slice) else { return 0 };
        let side = |side: &usize| (*side as u64).max(self.least);
        let (batch, pixels) = (*batch as u64, side(height).saturating_mul(side(width)));
        let one = pixels.saturating_mul(self.bytes_per_pixel);
        if N::TOGETHER {
            return one.saturating_mul(batch);
        }
        // What comes out of the others is there meanwhile, and once more as all of it is put together.
        let others = pixels.saturating_mul(2 * self.given_per_pixel).saturating_mul(batch.saturating_sub(1));
        one.saturating_add(others)
    }

    fn check(&self, file: &Tensors) -> Result<()> {
        check_finite(file, &self.prefix, N::may_be_left)
    }

    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        let load = || N::load(&Loader::file(file, device, precision), &self.prefix, &self.config);
        let loaded = device.run(load);
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        Ok(Arc::new(Ready { network: loaded?, device: device.clone() }))
    }
}

/// A network that is ready.
struct Ready<N> {
    network: N,
    device: Device,
}

impl<N: FileNetwork> Standalone for Ready<N> {
    fn run(&self, entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        let forward = |inputs: &[Tensor]| {
            run.on(&self.device, || self.network.forward(entry.name, inputs, &self.device, run))
        };
        if N::TOGETHER {
            return forward(inputs);
        }
        let batch = inputs.first().map_or(0, |image| image.dim(0));
        let one = |at: usize| {
            let inputs = inputs.iter().map(|input| input.narrow(0, at, 1)).collect::<Result<Vec<_>>>()?;
            forward(&inputs)
        };
        let made = (0..batch).map(one).collect::<Result<Vec<_>>>()?;
        let Some(first) = made.first() else { bail!("no picture goes in") };
        let output = |at: usize| {
            let parts: Vec<_> = made.iter().filter_map(|outputs| outputs.get(at)).collect();
            Tensor::cat(&parts, 0)
        };
        (0..first.len()).map(output).collect()
    }
}
