//! What all upscalers share: where a file has their tensors, pictures on their way in and out, and memory.

use std::sync::Arc;

use super::picture::{Bringing, back};
use crate::error::{Result, bail};
use crate::files::Tensors;
use crate::networks::standalone::{Described, Entry, Found, Port, Side, Standalone};
use crate::networks::wrapped::{check_finite, prefix};
use crate::nn::backend::dry_run::dry_run;
use crate::nn::{Activations, Device, Loader, Precision, Run, upload};
use crate::tensor::Tensor;

/// Sides of the picture that is tried out to reckon with memory: enough that borders count little, a multiple of all windows.
const TRIED: usize = 64;

/// What a family does with pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::networks) struct Facts {
    /// How many times as large both sides become.
    pub scale: usize,
    /// Colours that go in.
    pub inputs: usize,
    /// Colours that come out.
    pub outputs: usize,
    /// How a picture is brought to what the layers take.
    pub bringing: Bringing,
}

/// A family of networks.
pub(in crate::networks) trait UpscalerNetwork: Sized + Send + Sync + 'static {
    /// "rrdbnet".
    const KIND: &'static str;

    /// What its tensors tell.
    type Config: Send + Sync;

    /// Whether the names after a prefix are this family's.
    fn is_in(file: &Tensors, prefix: &str) -> bool;

    /// Reads it from the tensors after a prefix.
    fn config(file: &Tensors, prefix: &str) -> Result<Self::Config>;

    /// What it does.
    fn facts(config: &Self::Config) -> Facts;

    /// Reads the tensors after a prefix.
    fn load(loader: &Loader, prefix: &str, config: &Self::Config) -> Result<Self>;

    /// Whether a tensor, by its name after the prefix, says nothing that is not known.
    fn may_be_left(_name: &str) -> bool {
        false
    }

    /// `(batch, height, width, brought inputs)` f32 → `(batch, scaled rows, scaled columns, outputs)` f32.
    fn forward(&self, x: Activations, device: &Device, run: &Run) -> Result<Activations>;
}

/// A file's network before it is read.
struct UpscalerFile<N: UpscalerNetwork> {
    described: Described,
    prefix: String,
    config: N::Config,
    /// Bytes that running it takes for each pixel that goes in.
    bytes_per_pixel: u64,
}

/// That of a file, if it is of this family.
pub(super) fn find<N: UpscalerNetwork>(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    let prefix = prefix(file, N::is_in)?;
    Some(UpscalerFile::<N>::new(file, prefix).map(|found| Arc::new(found) as Arc<dyn Found>))
}

impl<N: UpscalerNetwork> UpscalerFile<N> {
    /// All that is wrong with its tensors is told at once.
    fn new(file: &Tensors, prefix: String) -> Result<Self> {
        let config = N::config(file, &prefix)?;
        let facts = N::facts(&config);
        let (device, counter) = dry_run();
        let loader = Loader::file(file, &device, Precision::F32);
        let network = N::load(&loader, &prefix, &config)?;
        let left = |name: &str| N::may_be_left(name.strip_prefix(&prefix).unwrap_or(name));
        loader.finish(&[&prefix], left)?;
        let empty = Upscaler { network, facts, device };
        empty.enlarged(&Tensor::full(0.0, [1, facts.inputs, TRIED, TRIED]), &Run::WHOLE)?;
        let tried = (TRIED * TRIED) as u64;
        // On the host: what goes in, as it is brought; what comes out, in both orders.
        let host = (2 * facts.inputs + 3 * facts.outputs * facts.scale * facts.scale) as u64 * 4;
        let bytes_per_pixel = counter.counts().most.div_ceil(tried) + host;
        Ok(Self { described: described::<N>(facts), prefix, config, bytes_per_pixel })
    }
}

fn described<N: UpscalerNetwork>(Facts { scale, inputs, outputs, .. }: Facts) -> Described {
    let [batch, height, width] = ["batch", "height", "width"];
    let sides = |colours, height, width| vec![Side::Free(batch), Side::Fixed(colours), height, width];
    let about = |colours| if colours == 1 { "grey, 0 to 1" } else { "red, green and blue, 0 to 1" };
    let taken = sides(inputs, Side::Free(height), Side::Free(width));
    let made = sides(outputs, Side::Times(scale, height), Side::Times(scale, width));
    let entry = Entry {
        name: "",
        inputs: vec![Port { name: "image", sides: taken, about: about(inputs) }],
        outputs: vec![Port { name: "image", sides: made, about: about(outputs) }],
    };
    Described { kind: N::KIND, entries: vec![entry] }
}

impl<N: UpscalerNetwork> Found for UpscalerFile<N> {
    fn described(&self) -> &Described {
        &self.described
    }

    fn activation_bytes(&self, _entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let Some([batch, _, height, width]) = inputs.first().map(Vec::as_slice) else { return 0 };
        // Small ones are filled up to what windows take.
        let side = |side: &usize| (*side as u64).max(TRIED as u64);
        let pixels = side(height).saturating_mul(side(width)).saturating_mul(*batch as u64);
        pixels.saturating_mul(self.bytes_per_pixel)
    }

    fn check(&self, file: &Tensors) -> Result<()> {
        check_finite(file, &self.prefix, N::may_be_left)
    }

    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        let load = || N::load(&Loader::file(file, device, precision), &self.prefix, &self.config);
        let loaded = device.run(load);
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        let facts = N::facts(&self.config);
        Ok(Arc::new(Upscaler { network: loaded?, facts, device: device.clone() }))
    }
}

/// A network that is ready.
struct Upscaler<N> {
    network: N,
    facts: Facts,
    device: Device,
}

impl<N: UpscalerNetwork> Upscaler<N> {
    /// `(batch, inputs, height, width)` → `(batch, outputs, scale · height, scale · width)`, both of 0…1.
    fn enlarged(&self, image: &Tensor, run: &Run) -> Result<Tensor> {
        let (batch, colours, height, width) = image.dims4()?;
        let Facts { scale, inputs, outputs, bringing } = self.facts;
        if colours != inputs || batch * height * width == 0 {
            bail!("{}: a picture {:?}, {inputs} colours are taken", N::KIND, image.dims());
        }
        let brought = bringing.brought(image)?;
        run.on(&self.device, || {
            let x = self.network.forward(upload(&self.device, &brought)?, &self.device, run)?;
            let made = Tensor::new(self.device.download(&x)?, x.dims())?;
            back(&made, bringing, [batch, outputs, scale * height, scale * width])
        })
    }
}

impl<N: UpscalerNetwork> Standalone for Upscaler<N> {
    fn run(&self, _entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        match inputs {
            [image] => Ok(vec![self.enlarged(image, run)?]),
            _ => bail!("{}: {} inputs, one is taken", N::KIND, inputs.len()),
        }
    }
}
