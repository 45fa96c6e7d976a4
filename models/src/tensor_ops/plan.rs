//! What a program makes, and the memory that takes: looked at as a whole before anything is computed.

use super::op::{Border, Op, Operand, Reduction, Step};
use super::resize::resize_bytes;
use super::shape::{MOST_DIMS, Shape, Wrong, broadcast};
use super::spatial::{blur_bytes, kernel_size};

/// Operations of a program.
pub const MOST_OPS: usize = 4096;

/// What a program makes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of each operation's result.
    pub(super) shapes: Vec<Shape>,
    /// Of each operation the last one that works on its result; its own number if none does.
    pub(super) last_use: Vec<usize>,
    /// Bytes of each result that is handed out, in their order.
    pub kept: Vec<u64>,
    /// Bytes beside those at the moment that takes most.
    pub working: u64,
}

/// Looks at a program that is given values of these shapes. The first operation that cannot be done is what is wrong with it.
pub fn plan(program: &[Step], given: &[Shape]) -> Result<Plan, Wrong> {
    if program.len() > MOST_OPS {
        let text = format!("a program of {} operations; {MOST_OPS} are possible", program.len());
        return Err(Wrong { op: MOST_OPS, text });
    }
    let (mut shapes, mut beside): (Vec<Shape>, Vec<u64>) = (vec![], vec![]);
    let mut last_use: Vec<usize> = (0..program.len()).collect();
    for (number, Step { op, .. }) in program.iter().enumerate() {
        let find = |operand: Operand| match operand {
            Operand::Given(index) => given.get(index).ok_or_else(|| format!("there is no value {index}")),
            Operand::Result(index) => {
                shapes.get(index).ok_or_else(|| format!("no operation before it has the number {index}"))
            }
        };
        let made = made(op, &find).map_err(|text| Wrong { op: number, text })?;
        for operand in op.operands() {
            if let Operand::Result(index) = operand {
                last_use[index] = number;
            }
        }
        shapes.push(made.0);
        beside.push(made.1);
    }
    let kept = program.iter().zip(&shapes).filter(|(step, _)| step.keep).map(|(_, shape)| shape.bytes());
    let kept: Vec<u64> = kept.collect();
    let (mut lives, mut working) = (0u64, 0u64);
    let too_much = |op: usize| Wrong { op, text: "together they take more bytes than can be counted".into() };
    for (number, step) in program.iter().enumerate() {
        let own = if step.keep { 0 } else { shapes[number].bytes() };
        lives = lives.checked_add(own).ok_or_else(|| too_much(number))?;
        working = working.max(lives.checked_add(beside[number]).ok_or_else(|| too_much(number))?);
        for (index, _) in last_use.iter().enumerate().take(number + 1).filter(|(_, last)| **last == number) {
            lives -= if program[index].keep { 0 } else { shapes[index].bytes() };
        }
    }
    Ok(Plan { shapes, last_use, kept, working })
}

impl Op {
    /// What it works on.
    pub(super) fn operands(&self) -> impl Iterator<Item = Operand> {
        let all = match *self {
            Self::Affine { a, .. }
            | Self::Clamp { a, .. }
            | Self::Abs { a }
            | Self::Sqrt { a }
            | Self::Slice { a, .. }
            | Self::Reshape { a, .. }
            | Self::Permute { a, .. }
            | Self::ToFloats { a }
            | Self::ToImage { a }
            | Self::Reduce { a, .. }
            | Self::Resize { a, .. }
            | Self::Pad { a, .. }
            | Self::Warp { a, .. }
            | Self::Blur { a, .. } => [Some(a), None, None],
            Self::Add { a, b, .. }
            | Self::Mul { a, b }
            | Self::Div { a, b }
            | Self::Concat { a, b, .. }
            | Self::Take { a, b }
            | Self::MatMul { a, b } => [Some(a), Some(b), None],
            Self::Lerp { a, b, c, .. } => [Some(a), Some(b), c],
        };
        all.into_iter().flatten()
    }
}

fn finite(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() { Ok(()) } else { Err(format!("{name} is {value}")) }
}

/// The result's shape, and bytes that are taken beside it.
fn made<'a>(op: &Op, find: &impl Fn(Operand) -> Result<&'a Shape, String>) -> Result<(Shape, u64), String> {
    // An image is bytes until it is made floats.
    let floats = |operand: Operand| -> Result<&'a [usize], String> {
        match find(operand)? {
            Shape { is_image: true, .. } => Err("it works on an image: cast it to floats first".to_owned()),
            Shape { dims, .. } => Ok(dims),
        }
    };
    let plane = |dims: &[usize]| match *dims {
        [.., height, width] => Ok((height, width)),
        _ => Err(format!("{dims:?} has no planes: two dimensions at least")),
    };
    let with_plane = |dims: &[usize], height: usize, width: usize| {
        let mut dims = dims.to_vec();
        let last = dims.len() - 1;
        (dims[last - 1], dims[last]) = (height, width);
        Shape::floats(dims)
    };
    let has_axis = |dims: &[usize], axis: usize| match dims.get(axis) {
        Some(size) => Ok(*size),
        None => Err(format!("{dims:?} has no axis {axis}")),
    };
    let mut beside = 0;
    let shape = match op {
        Op::Affine { a, scale, shift } => {
            finite("the factor", f64::from(*scale))?;
            finite("what is added", f64::from(*shift))?;
            Shape::floats(floats(*a)?.to_vec())?
        }
        Op::Clamp { a, low, high } => {
            // Not where one of both is NaN, either.
            if low.partial_cmp(high).is_none_or(std::cmp::Ordering::is_gt) {
                return Err(format!("nothing lies from {low} to {high}"));
            }
            Shape::floats(floats(*a)?.to_vec())?
        }
        Op::Abs { a } | Op::Sqrt { a } => Shape::floats(floats(*a)?.to_vec())?,
        Op::Add { a, b, of_a, of_b } => {
            finite("a factor", f64::from(*of_a))?;
            finite("a factor", f64::from(*of_b))?;
            Shape::floats(broadcast(floats(*a)?, floats(*b)?)?)?
        }
        Op::Mul { a, b } | Op::Div { a, b } => Shape::floats(broadcast(floats(*a)?, floats(*b)?)?)?,
        Op::Lerp { a, b, c, share } => {
            finite("the share", f64::from(*share))?;
            let both = broadcast(floats(*a)?, floats(*b)?)?;
            Shape::floats(match c {
                Some(c) => broadcast(&both, floats(*c)?)?,
                None => both,
            })?
        }
        Op::Slice { a, axis, from, until } => {
            let mut dims = floats(*a)?.to_vec();
            let size = has_axis(&dims, *axis)?;
            if from >= until || *until > size {
                return Err(format!("axis {axis} of {dims:?} has nothing from {from} until {until}"));
            }
            dims[*axis] = until - from;
            Shape::floats(dims)?
        }
        Op::Concat { a, b, axis } => {
            let (mut dims, other) = (floats(*a)?.to_vec(), floats(*b)?);
            has_axis(&dims, *axis)?;
            let differs =
                |index: usize| index != *axis && dims.get(index).copied() != other.get(index).copied();
            if dims.len() != other.len() || (0..dims.len()).any(differs) {
                return Err(format!("{dims:?} and {other:?} cannot be joined along axis {axis}"));
            }
            dims[*axis] = dims[*axis].checked_add(other[*axis]).ok_or("too many entries together")?;
            Shape::floats(dims)?
        }
        Op::Take { a, b } => {
            let (mut dims, numbers) = (floats(*a)?.to_vec(), floats(*b)?);
            let [count] = *numbers else { return Err(format!("numbers are (count,), not {numbers:?}")) };
            dims[0] = count;
            Shape::floats(dims)?
        }
        Op::Reshape { a, dims } => Shape::floats(reshaped(floats(*a)?, dims)?)?,
        Op::Permute { a, axes } => {
            let dims = floats(*a)?;
            let axes = axes.get(..dims.len()).unwrap_or(axes);
            let mut sorted = axes.to_vec();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..dims.len()) {
                return Err(format!("{axes:?} are not the axes of {dims:?}, each once"));
            }
            Shape::floats(axes.iter().map(|axis| dims[*axis]).collect())?
        }
        Op::ToFloats { a } => Shape::floats(find(*a)?.dims.clone())?,
        Op::ToImage { a } => Shape { dims: floats(*a)?.to_vec(), is_image: true }.checked()?,
        Op::Reduce { a, axes, how } => {
            let dims = floats(*a)?;
            if *axes == 0 || *axes >> dims.len() != 0 {
                return Err(format!("the set {axes:#b} has no axes, or some that {dims:?} does not have"));
            }
            let is_along = |axis: usize| axes >> axis & 1 == 1;
            if let Reduction::Quantile(share) = how {
                if !(0.0..=1.0).contains(share) {
                    return Err(format!("there is no quantile {share}; 0 to 1 are meant"));
                }
                let along = dims.iter().enumerate().filter(|(axis, _)| is_along(*axis));
                beside = along.map(|(_, size)| *size as u64).product::<u64>() * 4;
            }
            let size = |(axis, size): (usize, &usize)| if is_along(axis) { 1 } else { *size };
            Shape::floats(dims.iter().enumerate().map(size).collect())?
        }
        Op::MatMul { a, b } => {
            let (a, b) = (floats(*a)?, floats(*b)?);
            let ([a_rest @ .., n, k], [b_rest @ .., same, m]) = (a, b) else {
                return Err(format!("{a:?} and {b:?} are no matrices: two dimensions at least"));
            };
            if k != same {
                return Err(format!("{a:?} times {b:?}: {k} columns, but {same} rows"));
            }
            let mut dims = broadcast(a_rest, b_rest)?;
            dims.extend([*n, *m]);
            Shape::floats(dims)?
        }
        Op::Resize { a, height, width, filter } => {
            let dims = floats(*a)?;
            let from = plane(dims)?;
            let shape = with_plane(dims, *height, *width)?;
            // Between both passes rows have their new length, columns the old.
            with_plane(dims, from.0, *width)?;
            let planes = dims[..dims.len() - 2].iter().product();
            beside = resize_bytes(planes, from, (*height, *width), *filter);
            shape
        }
        Op::Pad { a, left, right, top, bottom, border } => {
            let dims = floats(*a)?;
            let (height, width) = plane(dims)?;
            let wide = |side: usize, before: usize, after: usize| {
                side.checked_add(before).and_then(|side| side.checked_add(after)).ok_or("too large a border")
            };
            match border {
                Border::Reflect if left.max(right) >= &width || top.max(bottom) >= &height => {
                    return Err(format!(
                        "a plane {height}x{width} has too little to reflect for this border"
                    ));
                }
                Border::Constant(value) => finite("the border", f64::from(*value))?,
                _ => (),
            }
            with_plane(dims, wide(height, *top, *bottom)?, wide(width, *left, *right)?)?
        }
        Op::Warp { a, height, width, matrix, outside } => {
            let dims = floats(*a)?;
            plane(dims)?;
            matrix.iter().try_for_each(|value| finite("a number of the matrix", *value))?;
            finite("what lies outside", f64::from(*outside))?;
            with_plane(dims, *height, *width)?
        }
        Op::Blur { a, sigmas, sizes } => {
            let shape = Shape::floats(floats(*a)?.to_vec())?;
            plane(&shape.dims)?;
            let sizes = [kernel_size(sigmas[0], sizes[0])?, kernel_size(sigmas[1], sizes[1])?];
            beside = blur_bytes(shape.count(), sizes);
            shape
        }
    };
    Ok((shape, beside))
}

/// The sizes that numbers of others take; one of −1 is what is left.
fn reshaped(from: &[usize], dims: &[i64]) -> Result<Vec<usize>, String> {
    let wrong = || format!("{from:?} cannot become {dims:?}");
    if dims.len() > MOST_DIMS || dims.iter().filter(|size| **size == -1).count() > 1 {
        return Err(wrong());
    }
    let count: usize = from.iter().product();
    let said = dims.iter().filter(|size| **size != -1).try_fold(1usize, |said, size| {
        said.checked_mul(usize::try_from(*size).ok().filter(|size| *size > 0)?)
    });
    let said = said.ok_or_else(wrong)?;
    let is_whole = if dims.contains(&-1) { count.is_multiple_of(said) } else { count == said };
    if !is_whole {
        return Err(wrong());
    }
    Ok(dims.iter().map(|size| usize::try_from(*size).unwrap_or(count / said)).collect())
}
