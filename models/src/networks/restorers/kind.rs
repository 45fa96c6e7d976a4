//! What networks of faces share: where a file has their tensors, running them picture by picture, and memory.

use std::sync::Arc;

use crate::error::{Result, bail};
use crate::files::Tensors;
use crate::networks::standalone::{Described, Entry, Found, Port, Side, Standalone};
use crate::networks::wrapped::{check_finite, prefix};
use crate::nn::backend::dry_run::dry_run;
use crate::nn::{Device, Loader, Precision, Run};
use crate::tensor::Tensor;

/// A network that takes one picture, and maybe more.
pub(in crate::networks) trait FaceNetwork: Sized + Send + Sync + 'static {
    /// What its tensors tell.
    type Config: Send + Sync;

    /// Whether the names after a prefix are this network's.
    fn is_in(file: &Tensors, prefix: &str) -> bool;

    /// Reads it from the tensors after a prefix.
    fn config(file: &Tensors, prefix: &str) -> Result<Self::Config>;

    /// What it is. The picture is the first input, `(batch, 3, height, width)`; all begin with the batch.
    fn described(config: &Self::Config) -> Described;

    /// Sides of a picture that is tried out to reckon with memory.
    fn tried(config: &Self::Config) -> usize;

    /// Reads the tensors after a prefix.
    fn load(loader: &Loader, prefix: &str, config: &Self::Config) -> Result<Self>;

    /// Whether a tensor, by its name after the prefix, is not needed.
    fn may_be_left(name: &str) -> bool;

    /// What comes out of one picture, `(1, 3, height, width)`, and of what else goes in, with a batch of 1.
    fn forward(&self, entry: &str, inputs: &[Tensor], device: &Device, run: &Run) -> Result<Vec<Tensor>>;
}

/// A picture of three colours that goes in or comes out.
pub(super) fn picture(name: &'static str, about: &'static str, [height, width]: [Side; 2]) -> Port {
    Port { name, sides: vec![Side::Free("batch"), Side::Fixed(3), height, width], about }
}

/// A file's network before it is read.
struct FaceFile<N: FaceNetwork> {
    described: Described,
    prefix: String,
    config: N::Config,
    /// Bytes that running it takes for each pixel that goes in.
    bytes_per_pixel: u64,
    /// Pixels that are at least reckoned with.
    least_pixels: u64,
}

/// That of a file, if it is this one.
pub(super) fn find<N: FaceNetwork>(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    let prefix = prefix(file, N::is_in)?;
    Some(FaceFile::<N>::new(file, prefix).map(|found| Arc::new(found) as Arc<dyn Found>))
}

impl<N: FaceNetwork> FaceFile<N> {
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
        for entry in &described.entries {
            let size = |(index, side_of): (usize, &Side)| match side_of {
                Side::Fixed(size) => *size,
                _ if index == 0 => 1,
                _ => side,
            };
            let input =
                |port: &Port| Tensor::full(1.0, port.sides.iter().enumerate().map(size).collect::<Vec<_>>());
            let inputs: Vec<_> = entry.inputs.iter().map(input).collect();
            network.forward(entry.name, &inputs, &device, &Run::WHOLE)?;
        }
        let least_pixels = (side * side) as u64;
        // On the host: the picture in both orders, and as much again of what comes out.
        let bytes_per_pixel = counter.counts().most.div_ceil(least_pixels) + 4 * 3 * 4;
        Ok(Self { described, prefix, config, bytes_per_pixel, least_pixels })
    }
}

impl<N: FaceNetwork> Found for FaceFile<N> {
    fn described(&self) -> &Described {
        &self.described
    }

    fn activation_bytes(&self, _entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let Some([batch, _, height, width]) = inputs.first().map(Vec::as_slice) else { return 0 };
        let pixels = (*height as u64).saturating_mul(*width as u64).max(self.least_pixels);
        // One picture after the other; what comes out of the others is there meanwhile.
        let others = (*batch as u64).saturating_sub(1).saturating_mul(pixels).saturating_mul(6 * 4);
        pixels.saturating_mul(self.bytes_per_pixel).saturating_add(others)
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

impl<N: FaceNetwork> Standalone for Ready<N> {
    fn run(&self, entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        let batch = inputs.first().map_or(0, |image| image.dim(0));
        let one = |at: usize| {
            let inputs = inputs.iter().map(|input| input.narrow(0, at, 1)).collect::<Result<Vec<_>>>()?;
            run.on(&self.device, || self.network.forward(entry.name, &inputs, &self.device, run))
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
