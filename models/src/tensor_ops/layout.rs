//! The same numbers at other places.

use super::room::{Failed, lines};
use crate::tensor::Tensor;

/// a, then b along an axis.
pub(super) fn concat(a: &Tensor, b: &Tensor, axis: usize) -> Result<Vec<f32>, Failed> {
    let run = |tensor: &Tensor| tensor.dims()[axis..].iter().product::<usize>();
    let (of_a, of_b) = (run(a), run(b));
    lines(a.values().len() / of_a, of_a + of_b, |line, made| {
        made[..of_a].copy_from_slice(&a.values()[line * of_a..][..of_a]);
        made[of_a..].copy_from_slice(&b.values()[line * of_b..][..of_b]);
    })
}

/// Of the first axis the entries that are named; the text says what is wrong with a number.
pub(super) fn take(a: &Tensor, numbers: &Tensor) -> Result<Result<Vec<f32>, String>, Failed> {
    let size = a.dim(0);
    let is_one = |number: f32| number >= 0.0 && number < size as f32 && number.fract() == 0.0;
    if let Some(number) = numbers.values().iter().find(|number| !is_one(**number)) {
        return Ok(Err(format!("{number} is no entry of the first axis, which has {size}")));
    }
    let run = a.values().len() / size;
    lines(numbers.values().len(), run, |line, made: &mut [f32]| {
        made.copy_from_slice(&a.values()[numbers.values()[line] as usize * run..][..run]);
    })
    .map(Ok)
}
