//! What all upscalers share: families, what one does with pictures, and pictures on their way in and out.

use super::picture::{Bringing, back};
use crate::error::{Result, bail};
use crate::files::Tensors;
use crate::networks::file_network::FileNetwork;
use crate::networks::standalone::{Described, Entry, Port, Side};
use crate::nn::{Activations, Device, Loader, Run, upload};
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

/// One of a family, between pictures of 0…1: `(batch, inputs, height, width)` → `(batch, outputs, scale · height, scale · width)`.
pub(super) struct Upscaler<N> {
    network: N,
    facts: Facts,
}

impl<N: UpscalerNetwork> FileNetwork for Upscaler<N> {
    type Config = N::Config;

    const TOGETHER: bool = true;

    /// As a family's layers have it, as it is brought back, and in the order of who asked.
    const COPIES: u64 = 3;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        N::is_in(file, prefix)
    }

    fn config(file: &Tensors, prefix: &str) -> Result<N::Config> {
        N::config(file, prefix)
    }

    fn described(config: &N::Config) -> Described {
        let Facts { scale, inputs, outputs, .. } = N::facts(config);
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

    fn tried(_config: &N::Config) -> usize {
        TRIED
    }

    fn load(loader: &Loader, prefix: &str, config: &N::Config) -> Result<Self> {
        Ok(Self { network: N::load(loader, prefix, config)?, facts: N::facts(config) })
    }

    fn may_be_left(name: &str) -> bool {
        N::may_be_left(name)
    }

    fn forward(&self, _entry: &str, inputs: &[Tensor], device: &Device, run: &Run) -> Result<Vec<Tensor>> {
        let [image] = inputs else { bail!("{}: {} inputs, one is taken", N::KIND, inputs.len()) };
        let (batch, colours, height, width) = image.dims4()?;
        let Facts { scale, inputs, outputs, bringing } = self.facts;
        if colours != inputs || batch * height * width == 0 {
            bail!("{}: a picture {:?}, {inputs} colours are taken", N::KIND, image.dims());
        }
        let x = upload(device, &bringing.brought(image)?)?;
        let x = self.network.forward(x, device, run)?;
        let made = Tensor::new(device.download(&x)?, x.dims())?;
        Ok(vec![back(&made, bringing, [batch, outputs, scale * height, scale * width])?])
    }
}
