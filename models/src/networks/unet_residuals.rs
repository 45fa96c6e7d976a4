//! What is added on the way through a UNet, as ControlNets and T2I-Adapters make it.

use std::fmt;

use crate::Error;
use crate::error::Result;
use crate::nn::{Activations, Device, add, upload};
use crate::tensor::Tensor;

/// Where something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResidualPlace {
    /// To the output of this input block before it is stored as a skip: both ways go on with it. Block 0 is the first convolution.
    Encoder(usize),
    /// To this skip, in the order in which they are stored: the way down goes on without it.
    Skip(usize),
    /// To the output of the middle block.
    Middle,
}

impl fmt::Display for ResidualPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoder(index) => write!(f, "encoder output {index}"),
            Self::Skip(index) => write!(f, "skip {index}"),
            Self::Middle => f.write_str("the middle"),
        }
    }
}

/// Sizes `[channels, height, width]` of what goes by for latents of some size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidualSizes(Vec<[usize; 3]>);

impl ResidualSizes {
    /// Of input blocks, the first convolution among them.
    pub(super) fn new(outputs: Vec<[usize; 3]>) -> Self {
        Self(outputs)
    }

    /// Of one place; `None` if there is no such.
    pub fn at(&self, place: ResidualPlace) -> Option<[usize; 3]> {
        match place {
            ResidualPlace::Encoder(index) | ResidualPlace::Skip(index) => self.0.get(index).copied(),
            // It changes no size.
            ResidualPlace::Middle => self.0.last().copied(),
        }
    }

    /// Input blocks, the first convolution among them; each stores a skip.
    pub fn outputs(&self) -> usize {
        self.0.len()
    }

    /// The places of a ControlNet's residuals: each skip, then the middle.
    pub fn of_control(&self) -> impl Iterator<Item = ResidualPlace> {
        (0..self.0.len()).map(ResidualPlace::Skip).chain([ResidualPlace::Middle])
    }
}

/// Adds to `to (batch, height, width, channels)` what is to be added at a place, `(batch, channels, height, width)` each.
pub(super) fn add_at(
    device: &Device,
    residuals: &[(ResidualPlace, Tensor)],
    place: ResidualPlace,
    to: &mut Activations,
) -> Result<()> {
    for (_, residual) in residuals.iter().filter(|(at, _)| *at == place) {
        let (batch, height, width, channels) = to.dims4()?;
        if residual.dims() != [batch, channels, height, width] {
            let (wanted, given) = ([batch, channels, height, width], residual.dims());
            return Err(Error::Stage(format!(
                "unet: the residual of {place} is {given:?}, {wanted:?} is needed"
            )));
        }
        *to = add(device, to, &upload(device, &residual.to_channels_last()?)?)?;
    }
    Ok(())
}
