//! Computes a program that was looked at.

use std::sync::Arc;

use super::layout::{concat, take};
use super::op::{Op, Operand, Step};
use super::plan::Plan;
use super::pointwise::{Read, pointwise};
use super::reduce::reduce;
use super::resize::resize;
use super::room::{Failed, lines};
use super::shape::{Pixels, Shape, Value, Wrong, stretched, strides};
use super::spatial::{blur, kernel_size, pad, warp};
use crate::tensor::Tensor;

/// The results that are handed out, in their order. `given` are values of the shapes that it was looked at with; `stop` is asked
/// before each operation. To be called on the threads that compute.
///
/// # Errors
/// If it is stopped, the system has no memory, or numbers that choose entries choose none.
pub fn run(
    program: &[Step],
    plan: &Plan,
    given: &[Value],
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Value>, Failed> {
    let mut results: Vec<Option<Value>> = vec![None; program.len()];
    for (number, step) in program.iter().enumerate() {
        if stop() {
            return Err(Failed::Cancelled);
        }
        let of = |operand: Operand| match operand {
            Operand::Given(index) => given.get(index),
            Operand::Result(index) => results.get(index).and_then(Option::as_ref),
        };
        let wrong = |text: String| Failed::Wrong(Wrong { op: number, text });
        let shape = plan.shapes.get(number).ok_or_else(|| wrong("it was not looked at".into()))?;
        let made = compute(step, shape, &of, &wrong)?;
        if let Some(place) = results.get_mut(number) {
            *place = Some(made);
        }
        // What nobody works on any more goes, unless it is handed out.
        for (index, last) in plan.last_use.iter().enumerate().take(number + 1) {
            if *last == number && program.get(index).is_some_and(|step| !step.keep) {
                results[index] = None;
            }
        }
    }
    let kept = program.iter().zip(results).filter(|(step, _)| step.keep);
    Ok(kept.filter_map(|(_, result)| result).collect())
}

/// A function of each number.
fn one(a: &Tensor, dims: &[usize], f: impl Fn(f32) -> f32 + Sync) -> Result<Vec<f32>, Failed> {
    pointwise(dims, [read(a, dims)], |[a]| f(a))
}

/// A function of the numbers at each place of two.
fn two(
    a: &Tensor,
    b: &Tensor,
    dims: &[usize],
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Vec<f32>, Failed> {
    pointwise(dims, [read(a, dims), read(b, dims)], |[a, b]| f(a, b))
}

/// A tensor, read as it lies in sizes to which it broadcasts.
fn read<'a>(tensor: &'a Tensor, dims: &[usize]) -> Read<'a> {
    Read { values: tensor.values(), first: 0, strides: stretched(tensor.dims(), dims) }
}

fn compute<'a>(
    Step { op, keep }: &Step,
    shape: &Shape,
    of: &impl Fn(Operand) -> Option<&'a Value>,
    wrong: &impl Fn(String) -> Failed,
) -> Result<Value, Failed> {
    let gone = || wrong("a value is not there".into());
    let floats = |operand: Operand| match of(operand) {
        Some(Value::Floats(tensor)) => Ok(tensor),
        _ => Err(gone()),
    };
    let dims = &shape.dims;
    let size = |tensor: &Tensor| {
        let axes = tensor.dims().len();
        (tensor.dim(axes.saturating_sub(2)), tensor.dim(axes.saturating_sub(1)))
    };
    let values = match op {
        Op::Affine { a, scale, shift } => one(floats(*a)?, dims, |a| scale * a + shift)?,
        Op::Add { a, b, of_a, of_b } => two(floats(*a)?, floats(*b)?, dims, |a, b| of_a * a + of_b * b)?,
        Op::Mul { a, b } => two(floats(*a)?, floats(*b)?, dims, |a, b| a * b)?,
        Op::Div { a, b } => two(floats(*a)?, floats(*b)?, dims, |a, b| a / b)?,
        Op::Lerp { a, b, c: None, share } => two(floats(*a)?, floats(*b)?, dims, |a, b| a + (b - a) * share)?,
        Op::Lerp { a, b, c: Some(c), .. } => {
            let operands = [read(floats(*a)?, dims), read(floats(*b)?, dims), read(floats(*c)?, dims)];
            pointwise(dims, operands, |[a, b, c]| a + (b - a) * c)?
        }
        Op::Clamp { a, low, high } => one(floats(*a)?, dims, |a| a.clamp(*low, *high))?,
        Op::Abs { a } => one(floats(*a)?, dims, f32::abs)?,
        Op::Sqrt { a } => one(floats(*a)?, dims, f32::sqrt)?,
        Op::Slice { a, axis, from, .. } => {
            let a = floats(*a)?;
            let strides = strides(a.dims());
            let first = strides.get(*axis).copied().unwrap_or_default() * from;
            pointwise(dims, [Read { values: a.values(), first, strides }], |[a]| a)?
        }
        Op::Permute { a, axes } => {
            let a = floats(*a)?;
            let own = strides(a.dims());
            let axes = axes.iter().take(dims.len());
            let strides = axes.map(|axis| own.get(*axis).copied().unwrap_or_default()).collect();
            pointwise(dims, [Read { values: a.values(), first: 0, strides }], |[a]| a)?
        }
        Op::Concat { a, b, axis } => concat(floats(*a)?, floats(*b)?, *axis)?,
        Op::Take { a, b } => take(floats(*a)?, floats(*b)?)?.map_err(wrong)?,
        // What is given, or given away, shares its numbers with nobody.
        Op::Reshape { a, .. } if !keep && matches!(a, Operand::Result(_)) => {
            let same = floats(*a)?.clone().reshaped(dims.clone());
            return Ok(Value::Floats(same.map_err(|error| wrong(error.to_string()))?));
        }
        Op::Reshape { a, .. } => copied(floats(*a)?)?,
        Op::ToFloats { a } => match of(*a).ok_or_else(gone)? {
            Value::Floats(tensor) => copied(tensor)?,
            Value::Image(image) => planes(image)?,
        },
        Op::ToImage { a } => {
            let (height, width) = (dims[2], dims[3]);
            let pixels = Arc::new(side_by_side(floats(*a)?.values(), dims[1], width)?);
            return Ok(Value::Image(Pixels { width, height, channels: dims[1], pixels }));
        }
        Op::Reduce { a, axes, how } => reduce(floats(*a)?, *axes, *how)?,
        Op::MatMul { a, b } => product(floats(*a)?, floats(*b)?, dims)?,
        Op::Resize { a, height, width, filter } => {
            let a = floats(*a)?;
            resize(a.values(), size(a), (*height, *width), *filter)?
        }
        Op::Pad { a, left, right, top, bottom, border } => {
            let a = floats(*a)?;
            pad(a.values(), size(a), [*left, *right, *top, *bottom], *border)?
        }
        Op::Warp { a, height, width, matrix, outside } => {
            let a = floats(*a)?;
            warp(a.values(), size(a), (*height, *width), *matrix, *outside)?
        }
        Op::Blur { a, sigmas, sizes } => {
            let a = floats(*a)?;
            let along = |axis: usize| kernel_size(sigmas[axis], sizes[axis]).map_err(wrong);
            blur(a.values(), size(a), *sigmas, [along(0)?, along(1)?])?
        }
    };
    Tensor::new(values, dims.clone()).map(Value::Floats).map_err(|error| wrong(error.to_string()))
}

fn copied(tensor: &Tensor) -> Result<Vec<f32>, Failed> {
    pointwise(
        &[tensor.values().len()],
        [Read { values: tensor.values(), first: 0, strides: vec![1] }],
        |[a]| a,
    )
}

/// `(…, n, k) · (…, k, m)`: each row of the result is the rows of b one after the other, times the numbers of a row of a.
fn product(a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Vec<f32>, Failed> {
    let (axes, k) = (dims.len(), b.dim(b.dims().len() - 2));
    let (n, m) = (dims[axes - 2], dims[axes - 1]);
    let outer = &dims[..axes - 2];
    // Which matrix of an operand goes into which of the result.
    let matrix = |own: &[usize], number: usize| {
        let (mut rest, mut place) = (number, 0);
        let strides = stretched(&own[..own.len() - 2], outer);
        for (size, stride) in outer.iter().zip(&strides).rev() {
            place += rest % size * stride;
            rest /= size;
        }
        place
    };
    lines(outer.iter().product::<usize>() * n, m, |line, made: &mut [f32]| {
        let (number, row) = (line / n, line % n);
        let a = &a.values()[(matrix(a.dims(), number) * n + row) * k..][..k];
        let b = &b.values()[matrix(b.dims(), number) * k * m..][..k * m];
        for (factor, row) in a.iter().zip(b.chunks_exact(m)) {
            for (sum, value) in made.iter_mut().zip(row) {
                *sum += factor * value;
            }
        }
    })
}

/// An image's channels one after the other, of 0 to 1.
fn planes(image: &Pixels) -> Result<Vec<f32>, Failed> {
    let Pixels { width, height, channels, pixels } = image;
    lines(channels * height, *width, |line, made: &mut [f32]| {
        let (channel, row) = (line / height, line % height);
        let row = &pixels[row * width * channels..][..width * channels];
        for (made, byte) in made.iter_mut().zip(row.iter().skip(channel).step_by(*channels)) {
            *made = f32::from(*byte) / 255.0;
        }
    })
}

/// Planes of 0 to 1 as bytes, channels side by side.
fn side_by_side(values: &[f32], channels: usize, width: usize) -> Result<Vec<u8>, Failed> {
    let plane = values.len() / channels;
    lines(plane / width, width * channels, |row, made: &mut [u8]| {
        for (place, made) in made.iter_mut().enumerate() {
            let value = values[place % channels * plane + row * width + place / channels];
            // From floats to bytes NaN becomes 0, and what is beyond is cut off.
            *made = (value * 255.0).round_ties_even() as u8;
        }
    })
}
