//! What SwinIR and DAT have around their blocks: a first convolution, groups of blocks each of which ends in a convolution and is added
//! to what it began with, and all of them to the first; then the features become a picture.

use super::parts::{Reconstruction, Reconstructor, ResidualConv};
use crate::error::Result;
use crate::nn::{Activations, Conv2d, ConvConfig, Device, LayerNorm, Loader, Precision, Run};

/// One step of a group.
pub(super) trait Block: Sized {
    /// Of `(batch, height, width, channels)` in f32; what it computes in is another matter.
    fn forward(&self, x: &Activations, precision: Precision, device: &Device) -> Result<Activations>;
}

/// What a trunk is made of.
pub(super) struct TrunkConfig<'a> {
    /// What the first convolution and the norm behind it are called.
    pub first: &'a str,
    pub before: &'a str,
    /// Channels that come in.
    pub channels: usize,
    pub width: usize,
    /// Blocks and heads of each group.
    pub groups: &'a [(usize, usize)],
    /// Whether residuals go through three convolutions.
    pub three: bool,
    pub reconstruction: &'a Reconstruction,
    /// Colours that come out.
    pub outputs: usize,
}

/// Where a block stands.
pub(super) struct Place {
    pub group: usize,
    pub block: usize,
    /// Of its group.
    pub heads: usize,
}

/// The layers.
pub(super) struct Trunk<B> {
    first: Conv2d,
    before: LayerNorm,
    groups: Vec<(Vec<B>, ResidualConv)>,
    norm: LayerNorm,
    after: ResidualConv,
    last: Reconstructor,
    precision: Precision,
}

impl<B: Block> Trunk<B> {
    /// Reads them; `block` reads one of a group `{prefix}layers.N`.
    pub(super) fn load(
        loader: &Loader,
        prefix: &str,
        config: &TrunkConfig<'_>,
        block: impl Fn(&str, &Place) -> Result<B>,
    ) -> Result<Self> {
        let TrunkConfig { first, before, channels, width, groups, three, reconstruction, outputs } = *config;
        let named = |name: &str| format!("{prefix}{name}");
        let of_group = |(group, (blocks, heads)): (usize, &(usize, usize))| {
            let name = named(&format!("layers.{group}"));
            let blocks =
                (0..*blocks).map(|number| block(&name, &Place { group, block: number, heads: *heads }));
            let blocks = blocks.collect::<Result<_>>()?;
            Ok((blocks, ResidualConv::load(loader, &format!("{name}.conv"), width, three)?))
        };
        Ok(Self {
            first: Conv2d::load_f32(loader, &named(first), ConvConfig::same(channels, width))?,
            before: LayerNorm::load(loader, &named(before), width)?,
            groups: groups.iter().enumerate().map(of_group).collect::<Result<_>>()?,
            norm: LayerNorm::load(loader, &named("norm"), width)?,
            after: ResidualConv::load(loader, &named("conv_after_body"), width, three)?,
            last: Reconstructor::load(loader, prefix, reconstruction, (width, outputs))?,
            precision: loader.precision(),
        })
    }

    /// What residuals are added to is f32 all along; `kind` is what the network is called.
    pub(super) fn forward(
        &self,
        x: &Activations,
        kind: &str,
        device: &Device,
        run: &Run,
    ) -> Result<Activations> {
        let precision = self.precision;
        run.enter(device, format_args!("{kind}.first"))?;
        let first = self.first.forward(x)?;
        let mut h = self.before.forward(&first, Precision::F32)?;
        for (index, (blocks, convolution)) in self.groups.iter().enumerate() {
            let mut inner = h.clone();
            for block in blocks {
                run.enter(device, format_args!("{kind}.{index}"))?;
                inner = block.forward(&inner, precision, device)?;
            }
            h = convolution.forward(&device.convert(&inner, precision)?, &h)?;
        }
        let h = self.after.forward(&self.norm.forward(&h, precision)?, &first)?;
        drop(first);
        self.last.forward(&device.convert(&h, precision)?, x, device, run)
    }
}
