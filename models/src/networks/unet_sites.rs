//! Places in a UNet where somebody may look at what goes by, and change it.

use crate::Error;
use crate::error::Result;
use crate::nn::{Activations, Device, upload};
use crate::tensor::Tensor;

/// What part of the way a place is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SitePart {
    /// After an input block, before its output is stored as a skip: both ways go on with it. Block 0 is the first convolution.
    Input,
    /// After it was stored: only the way down goes on with it.
    InputStored,
    /// After the middle block, before residuals are added to it and to the skips.
    Middle,
    /// Before an output block, with the skip that will be joined, residuals added.
    Output,
}

/// A place: which block, counted as LDM's `input_blocks` and `output_blocks` are; 0 in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Where on the way.
    pub part: SitePart,
    /// Of its part.
    pub index: usize,
}

/// What somebody put in the place of what went by; `None` where it goes on as it was.
#[derive(Debug, Default)]
pub struct Visited {
    /// `(batch, channels, height, width)`, of the shape that was given.
    pub h: Option<Tensor>,
    /// As `h`; none where there is no skip.
    pub skip: Option<Tensor>,
}

/// Who looks on in one call of a UNet. At places that are not wanted nothing is copied, and nothing waits.
pub trait Visitor {
    /// Whether [`Self::visit`] is called here.
    fn wants(&self, site: Site) -> bool;

    /// `h (batch, channels, height, width)`, in the output part with the skip `(batch, channels, height, width)`, both
    /// f32. `h` may be larger than the skip by a row or a column, which will be left out. Not called on a device's threads.
    ///
    /// # Errors
    /// End the call.
    fn visit(&mut self, site: Site, h: Tensor, skip: Option<Tensor>) -> Result<Visited>;
}

/// Looks at nothing.
pub struct NoVisitor;

impl Visitor for NoVisitor {
    fn wants(&self, _site: Site) -> bool {
        false
    }

    fn visit(&mut self, _site: Site, _h: Tensor, _skip: Option<Tensor>) -> Result<Visited> {
        Ok(Visited::default())
    }
}

/// `(batch, height, width, channels)` of a device as the host's `(batch, channels, height, width)`.
pub(super) fn shown(device: &Device, x: &Activations) -> Result<Tensor> {
    Tensor::new(device.download(x)?, x.dims())?.to_channels_first()
}

/// Puts the host's numbers in the place of a device's, in their precision.
pub(super) fn put(device: &Device, x: &mut Activations, tensor: &Tensor, name: &str) -> Result<()> {
    let (batch, height, width, channels) = x.dims4()?;
    let (wanted, given) = ([batch, channels, height, width], tensor.dims());
    if given != wanted {
        return Err(Error::Stage(format!(
            "unet: {name} became {given:?} where {wanted:?} went by: sizes cannot change yet"
        )));
    }
    *x = device.convert(&upload(device, &tensor.to_channels_last()?)?, x.precision())?;
    Ok(())
}
