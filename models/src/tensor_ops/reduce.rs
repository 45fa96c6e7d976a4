//! What is made of the numbers along axes.

use super::op::Reduction;
use super::room::{Failed, lines, zeros};
use super::shape::strides;
use crate::tensor::Tensor;

/// Sizes and strides of some axes.
type Axes = Vec<(usize, usize)>;

/// Those of an axis set, and the others; neighbours that lie one after the other as one.
fn split(dims: &[usize], axes: u64) -> (Axes, Axes) {
    let (mut along, mut others): (Axes, Axes) = (vec![], vec![]);
    for (axis, (size, stride)) in dims.iter().zip(strides(dims)).enumerate() {
        let part = if axes >> axis & 1 == 1 { &mut along } else { &mut others };
        match part.last_mut() {
            Some((whole, last)) if *last == size * stride => (*whole, *last) = (*whole * size, stride),
            _ => part.push((*size, stride)),
        }
    }
    (along, others)
}

/// Calls `f` with each place, the last axis running fastest.
fn walk(axes: &[(usize, usize)], first: usize, f: &mut impl FnMut(usize)) {
    match axes {
        [] => f(first),
        [(size, stride)] => (0..*size).for_each(|index| f(first + index * stride)),
        [(size, stride), rest @ ..] => (0..*size).for_each(|index| walk(rest, first + index * stride, f)),
    }
}

/// The place of the number'th.
fn place(axes: &[(usize, usize)], mut number: usize) -> usize {
    let mut place = 0;
    for (size, stride) in axes.iter().rev() {
        place += number % size * stride;
        number /= size;
    }
    place
}

/// Over the axes of a bit set.
pub(super) fn reduce(a: &Tensor, axes: u64, how: Reduction) -> Result<Vec<f32>, Failed> {
    let (along, others) = split(a.dims(), axes);
    let values = a.values();
    let count = others.iter().map(|(size, _)| size).product();
    let each = along.iter().map(|(size, _)| size).product::<usize>();
    if let Reduction::Quantile(share) = how {
        return quantiles(values, (&along, &others), count, each, share);
    }
    let sum = |first: usize, f: &dyn Fn(f64) -> f64| {
        let mut sum = 0.0;
        walk(&along, first, &mut |at| sum += f(f64::from(values[at])));
        sum
    };
    let pick = |first: usize, is_taken: fn(f32, f32) -> bool| {
        let mut picked = values[first];
        walk(&along, first, &mut |at| {
            let value = values[at];
            if !picked.is_nan() && (value.is_nan() || is_taken(value, picked)) {
                picked = value;
            }
        });
        picked
    };
    let mean = |first: usize| sum(first, &|value| value) / each as f64;
    lines(count, 1, |number, made: &mut [f32]| {
        let first = place(&others, number);
        made[0] = match how {
            Reduction::Sum => sum(first, &|value| value) as f32,
            Reduction::Min => pick(first, |value, least| value < least),
            Reduction::Max => pick(first, |value, largest| value > largest),
            Reduction::Std => {
                let mean = mean(first);
                (sum(first, &|value| (value - mean) * (value - mean)) / each as f64).sqrt() as f32
            }
            Reduction::Mean | Reduction::Quantile(_) => mean(first) as f32,
        };
    })
}

fn quantiles(
    values: &[f32],
    (along, others): (&Axes, &Axes),
    count: usize,
    each: usize,
    share: f64,
) -> Result<Vec<f32>, Failed> {
    let mut made: Vec<f32> = zeros(count)?;
    let mut sorted: Vec<f32> = zeros(each)?;
    let at = share * (each - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    for (number, made) in made.iter_mut().enumerate() {
        let mut next = sorted.iter_mut();
        walk(along, place(others, number), &mut |at| {
            if let Some(next) = next.next() {
                *next = values[at];
            }
        });
        if sorted.iter().any(|value| value.is_nan()) {
            *made = f32::NAN;
            continue;
        }
        sorted.sort_unstable_by(f32::total_cmp);
        let (low, high) = (f64::from(sorted[low]), f64::from(sorted[high]));
        // Two infinities have no distance.
        *made = if low == high { low } else { low + (high - low) * at.fract() } as f32;
    }
    Ok(made)
}
