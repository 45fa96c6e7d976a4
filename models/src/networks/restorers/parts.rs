//! What networks of faces share: pictures that go in and come out, halved and doubled between pixels, edges mirrored, convolutions
//! with the norm that follows them.

use crate::error::{Result, bail};
use crate::networks::standalone::{Port, Side};
use crate::nn::{Activations, Conv2d, ConvConfig, Device, Loader, Pointwise, Precision, Vector};

/// A picture of three colours that goes in or comes out.
pub(super) fn picture(name: &'static str, about: &'static str, [height, width]: [Side; 2]) -> Port {
    Port { name, sides: vec![Side::Free("batch"), Side::Fixed(3), height, width], about }
}

/// What leaky `ReLU`s leave of what is below zero.
pub(super) const LEAK: f32 = 0.2;

/// torch's default of batch norms.
const EPSILON: f64 = 1e-5;

/// As many slopes of leaky `ReLU`s.
pub(super) fn leaks(loader: &Loader, length: usize) -> Result<Vector> {
    loader.device().vector(vec![LEAK; length], length)
}

/// A leaky `ReLU` that stands by itself.
pub(super) fn leaky(device: &Device, x: &Activations) -> Result<Activations> {
    let positive = device.pointwise(x, Pointwise::Relu)?;
    device.blend((x, LEAK, None), Some((&positive, 1.0 - LEAK, None)))
}

/// The geometry of a 1×1 convolution.
pub(super) fn alone(inputs: usize, outputs: usize) -> ConvConfig {
    ConvConfig { kernel: 1, pad_before: 0, pad_after: 0, ..ConvConfig::same(inputs, outputs) }
}

/// A convolution `{name}.weight` without bias and the batch norm `norm` after it, as one.
pub(super) fn normed(loader: &Loader, name: &str, norm: &str, config: ConvConfig) -> Result<Conv2d> {
    let ConvConfig { inputs, outputs, kernel, .. } = config;
    let mut weight = loader.numbers(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel])?;
    let of_norm = |part: &str| loader.numbers(&format!("{norm}.{part}"), &[outputs]);
    let (factor, shift) = (of_norm("weight")?, of_norm("bias")?);
    let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
    if !loader.device().computes() {
        return Conv2d::of_numbers(loader, name, config, &[], vec![0.0; outputs]);
    }
    let mut bias = Vec::with_capacity(outputs);
    for (output, weights) in weight.chunks_exact_mut(inputs * kernel * kernel).enumerate() {
        let factor = f64::from(factor[output]) / (f64::from(variance[output]) + EPSILON).sqrt();
        for weight in weights {
            *weight = (f64::from(*weight) * factor) as f32;
        }
        bias.push((f64::from(shift[output]) - f64::from(mean[output]) * factor) as f32);
    }
    Conv2d::of_numbers(loader, name, config, &weight, bias)
}

/// Rows and columns of a picture in another arrangement: `(batch, height, width, channels)` → `(batch, rows, columns, channels)`,
/// whose pixel `(row, column)` is the one at `place(row, column)`.
fn arranged(
    device: &Device,
    x: &Activations,
    (rows, columns): (usize, usize),
    place: &(dyn Fn(usize, usize) -> (usize, usize) + Sync),
) -> Result<Activations> {
    let (batch, height, width, channels) = x.dims4()?;
    let from = |at: usize| {
        let (picture, within) = (at / (rows * columns), at % (rows * columns));
        let (row, column) = place(within / columns, within % columns);
        (picture * height + row) * width + column
    };
    device.rows(x, &[batch, rows, columns, channels], &from)
}

/// Both sides halved, bilinear: `(batch, height, width, channels)` → `(batch, height / 2, width / 2, channels)`, the mean of four.
pub(super) fn halved(device: &Device, x: &Activations) -> Result<Activations> {
    let (_, height, width, _) = x.dims4()?;
    if height % 2 + width % 2 > 0 {
        bail!("activations {:?} cannot be halved", x.dims());
    }
    let half = |x: &Activations, size, near: [usize; 2], far: [usize; 2], times: [usize; 2]| {
        let of = |[down, right]: [usize; 2]| {
            arranged(device, x, size, &move |row, column| (times[0] * row + down, times[1] * column + right))
        };
        device.blend((&of(near)?, 0.5, None), Some((&of(far)?, 0.5, None)))
    };
    let low = half(x, (height / 2, width), [0, 0], [1, 0], [2, 1])?;
    half(&low, (height / 2, width / 2), [0, 0], [0, 1], [1, 2])
}

/// Both sides doubled, bilinear as torch does it between pixels: `(batch, height, width, channels)` → `(batch, 2 · height,
/// 2 · width, channels)`.
pub(super) fn doubled(device: &Device, x: &Activations) -> Result<Activations> {
    let (_, height, width, _) = x.dims4()?;
    // What is three times as near, and what counts the rest.
    let far = |at: usize, size: usize| {
        if at.is_multiple_of(2) { (at / 2).saturating_sub(1) } else { (at / 2 + 1).min(size - 1) }
    };
    let near_rows = arranged(device, x, (2 * height, width), &|row, column| (row / 2, column))?;
    let far_rows = arranged(device, x, (2 * height, width), &|row, column| (far(row, height), column))?;
    let tall = device.blend((&near_rows, 0.75, None), Some((&far_rows, 0.25, None)))?;
    drop((near_rows, far_rows));
    let size = (2 * height, 2 * width);
    let near_columns = arranged(device, &tall, size, &|row, column| (row, column / 2))?;
    let far_columns = arranged(device, &tall, size, &|row, column| (row, far(column, width)))?;
    device.blend((&near_columns, 0.75, None), Some((&far_columns, 0.25, None)))
}

/// With a border of one pixel, as in a mirror that stands on the outermost ones; at least 2 pixels each way.
pub(super) fn mirrored(device: &Device, x: &Activations) -> Result<Activations> {
    let (_, height, width, _) = x.dims4()?;
    if height < 2 || width < 2 {
        bail!("activations {:?} are too small for a mirrored border", x.dims());
    }
    let place = |at: usize, size: usize| match at {
        0 => 1,
        at if at > size => size - 2,
        at => at - 1,
    };
    let (rows, columns) = (height + 2, width + 2);
    arranged(device, x, (rows, columns), &|row, column| (place(row, height), place(column, width)))
}

/// One number per channel at each pixel: `(1, channels)` → `(1, height, width, channels)`.
pub(super) fn spread(
    device: &Device,
    numbers: &[f32],
    (height, width): (usize, usize),
    precision: Precision,
) -> Result<Activations> {
    let channels = numbers.len();
    let row = device.convert(&device.upload(numbers, &[1, channels])?, precision)?;
    device.rows(&row, &[1, height, width, channels], &|_| 0)
}
