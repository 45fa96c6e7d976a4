//! Where something counts.

use crate::abi::latentd_handle;
use crate::image::Image;
use crate::tensor::Tensor;

/// How much something counts where, over the canvas: a tensor `(1, 1, height, width)` of 0 to 1, or an image of one channel. Of any
/// size: it is resized, bilinear, to where it is needed; of a tile its part counts.
#[derive(Clone, Copy)]
pub struct Mask<'a>(Of<'a>);

#[derive(Clone, Copy)]
enum Of<'a> {
    Tensor(Tensor<'a>),
    Image(Image<'a>),
}

impl Mask<'_> {
    /// What stands for it; 0 for none.
    pub(crate) fn handle(mask: Option<Self>) -> latentd_handle {
        mask.map_or(0, |mask| match mask.0 {
            Of::Tensor(tensor) => tensor.handle,
            Of::Image(image) => image.handle,
        })
    }
}

impl<'a> From<Tensor<'a>> for Mask<'a> {
    fn from(tensor: Tensor<'a>) -> Self {
        Self(Of::Tensor(tensor))
    }
}

impl<'a> From<Image<'a>> for Mask<'a> {
    fn from(image: Image<'a>) -> Self {
        Self(Of::Image(image))
    }
}
