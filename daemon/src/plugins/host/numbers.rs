//! Tensors and masks that plugins give, looked at number by number.

use latentd_models::Tensor;
use latentd_plugin_api::abi::LATENTD_INVALID;

use super::serving::{Failure, Served};
use crate::plugins::objects::Content;

/// Numbers of a mask.
const MOST_OF_A_MASK: usize = 1 << 26;

fn wrong<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

/// A tensor of numbers; an error calls it `what`.
pub(super) fn tensor(content: &Content, what: &str) -> Served<Tensor> {
    let Content::Tensor(tensor) = content else { return wrong(format!("{what} is no tensor")) };
    if let Some(index) = tensor.values().iter().position(|value| !value.is_finite()) {
        return wrong(format!("number {index} of {what} is {}", tensor.values()[index]));
    }
    Ok(tensor.clone())
}

/// A mask `(height, width)` of 0…1.
pub(super) fn mask(content: &Content) -> Served<Tensor> {
    let failed = |error: latentd_models::Error| Failure(LATENTD_INVALID, error.to_string());
    let count: usize = content.dims().iter().product();
    if count > MOST_OF_A_MASK {
        return wrong(format!("the mask has {count} numbers; {MOST_OF_A_MASK} are allowed"));
    }
    match content {
        Content::Image(image) if image.channels == 1 => {
            let values = image.pixels.iter().map(|value| f32::from(*value) / 255.0).collect();
            Tensor::new(values, [image.height, image.width]).map_err(failed)
        }
        Content::Image(image) => wrong(format!("the mask has {} channels, one is needed", image.channels)),
        Content::Tensor(_) | Content::Bytes(_) => {
            let values = tensor(content, "the mask")?;
            let &[1, 1, height, width] = values.dims() else {
                return wrong(format!("the mask is {:?}; (1, 1, h, w) is needed", values.dims()));
            };
            if height == 0 || width == 0 {
                return wrong("the mask is empty");
            }
            if let Some(value) = values.values().iter().find(|value| !(0.0..=1.0).contains(*value)) {
                return wrong(format!("the mask has {value}; 0 to 1 is meant"));
            }
            values.reshaped([height, width]).map_err(failed)
        }
    }
}
