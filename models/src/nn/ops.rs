//! Operations without weights, their shapes checked.

use super::backend::{Activations, Device};
use crate::error::{Result, bail};
use crate::tensor::Tensor;

/// A tensor of the host on a device, in the same order.
pub fn upload(device: &Device, tensor: &Tensor) -> Result<Activations> {
    device.upload(tensor.values(), tensor.dims())
}

/// The sum of two of equal shape, in the precision of the first.
pub fn add(device: &Device, a: &Activations, b: &Activations) -> Result<Activations> {
    if a.dims() != b.dims() {
        bail!("activations {:?} and {:?} cannot be added", a.dims(), b.dims());
    }
    device.add(a, b)
}

/// Joined along the channels.
pub fn cat_channels(device: &Device, a: &Activations, b: &Activations) -> Result<Activations> {
    if a.dims().split_last().map(|(_, rest)| rest) != b.dims().split_last().map(|(_, rest)| rest) {
        bail!("activations {:?} and {:?} cannot be joined", a.dims(), b.dims());
    }
    if a.channels() == 0 || b.channels() == 0 {
        bail!("activations {:?} and {:?} have no channels to join", a.dims(), b.dims());
    }
    device.join(a, b)
}

/// `(batch, height, width, factor² · channels)` → `(batch, factor · height, factor · width, channels)`. The channels of a place
/// stand together, as [`super::Conv2d::load_shuffled`] has them.
pub fn pixel_shuffle(device: &Device, x: &Activations, factor: usize) -> Result<Activations> {
    let (batch, height, width, channels) = x.dims4()?;
    if factor == 0 || !channels.is_multiple_of(factor * factor) {
        bail!("activations {:?} cannot be shuffled by {factor}", x.dims());
    }
    if factor == 1 {
        return Ok(x.clone());
    }
    // Of one pixel, all that comes to stand in one row.
    let together = channels / factor;
    let from = |to: usize| {
        let (line, column) = (to / width.max(1), to % width.max(1));
        (line / factor * width + column) * factor + line % factor
    };
    let shuffled = device.rows(x, &[batch * height * factor, width, together], &from)?;
    shuffled.reshaped([batch, height * factor, width * factor, together / factor])
}

/// The product of two of equal shape, number by number, in the precision of the first.
pub fn multiply(device: &Device, a: &Activations, b: &Activations) -> Result<Activations> {
    if a.dims() != b.dims() {
        bail!("activations {:?} and {:?} cannot be multiplied", a.dims(), b.dims());
    }
    device.multiply(a, b)
}

/// `(batch, height, width, channels)` → `(batch, rows, columns, channels)`, nearest neighbour, torch's rounding.
/// What has that size already is shared.
pub fn resized_nearest(device: &Device, x: &Activations, rows: usize, columns: usize) -> Result<Activations> {
    let (_, height, width, _) = x.dims4()?;
    if (height, width) == (rows, columns) {
        return Ok(x.clone());
    }
    device.resize_nearest(x, rows, columns)
}
