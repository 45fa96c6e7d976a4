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

/// `(batch, height, width, channels)` → `(batch, rows, columns, channels)`, nearest neighbour, torch's rounding.
/// What has that size already is shared.
pub fn resized_nearest(device: &Device, x: &Activations, rows: usize, columns: usize) -> Result<Activations> {
    let (_, height, width, _) = x.dims4()?;
    if (height, width) == (rows, columns) {
        return Ok(x.clone());
    }
    device.resize_nearest(x, rows, columns)
}
