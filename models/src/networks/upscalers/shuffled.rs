//! How much a last convolution enlarges whose outputs are shuffled to pixels.

use crate::error::{Error, Result};
use crate::files::Tensors;
use crate::networks::detect::dim;

/// More than any upscaler.
const MOST_SCALE: usize = 16;

/// Scale and colours of `scale² · colours` outputs: as many colours as go in if that can be, else 3, 4 or 1.
pub(super) fn shuffled_scale(file: &Tensors, weight: &str, inputs: usize) -> Result<(usize, usize)> {
    let outputs = dim(file, weight, 0)?;
    let scale = |colours: usize| {
        let scale = (1..=MOST_SCALE).find(|scale| scale * scale * colours == outputs);
        scale.map(|scale| (scale, colours))
    };
    [inputs, 3, 4, 1].into_iter().find_map(scale).ok_or_else(|| {
        let reason = format!(
            "tensor {weight} has {outputs} outputs, which are no picture of 1, 3 or 4 colours at a scale of 1 to {MOST_SCALE}"
        );
        Error::model(file.path(), reason)
    })
}

/// How much a convolution within a row of shuffles enlarges, of `features` that come out.
pub(super) fn shuffled_factor(file: &Tensors, weight: &str, features: usize) -> Result<usize> {
    let outputs = dim(file, weight, 0)?;
    (2..=MOST_SCALE).find(|factor| factor * factor * features == outputs).ok_or_else(|| {
        let reason =
            format!("tensor {weight} has {outputs} outputs, which {features} features are not shuffled of");
        Error::model(file.path(), reason)
    })
}
