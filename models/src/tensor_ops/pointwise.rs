//! A function of the numbers at one place of each operand.

use super::room::{Failed, lines};

/// How an operand is read: numbers, the first one's place, and how far it is to the next along each axis of the result.
#[derive(Clone, Debug)]
pub(super) struct Read<'a> {
    pub values: &'a [f32],
    pub first: usize,
    pub strides: Vec<usize>,
}

/// `f` of the operands at each place of a result of sizes `dims`.
pub(super) fn pointwise<const N: usize>(
    dims: &[usize],
    operands: [Read<'_>; N],
    f: impl Fn([f32; N]) -> f32 + Sync,
) -> Result<Vec<f32>, Failed> {
    let (dims, operands) = merged(dims, operands);
    let (outer, length) = match dims.split_last() {
        Some((length, outer)) => (outer, *length),
        None => (&[][..], 1),
    };
    let steps: [usize; N] =
        std::array::from_fn(|index| operands[index].strides.last().copied().unwrap_or_default());
    lines(outer.iter().product(), length, |line, made| {
        let mut at: [usize; N] = std::array::from_fn(|index| operands[index].first);
        let mut rest = line;
        for (axis, size) in outer.iter().enumerate().rev() {
            let place = rest % size;
            rest /= size;
            for (at, operand) in at.iter_mut().zip(&operands) {
                *at += place * operand.strides[axis];
            }
        }
        if steps == [1; N] {
            let rows: [&[f32]; N] =
                std::array::from_fn(|index| &operands[index].values[at[index]..][..length]);
            for (place, made) in made.iter_mut().enumerate() {
                *made = f(std::array::from_fn(|index| rows[index][place]));
            }
            return;
        }
        for (place, made) in made.iter_mut().enumerate() {
            *made = f(std::array::from_fn(|index| operands[index].values[at[index] + place * steps[index]]));
        }
    })
}

/// The same with as few axes as will do: two are one where each operand goes on from one line to the next.
fn merged<'a, const N: usize>(dims: &[usize], mut operands: [Read<'a>; N]) -> (Vec<usize>, [Read<'a>; N]) {
    let mut dims = dims.to_vec();
    for axis in (1..dims.len()).rev() {
        let size = dims[axis];
        let goes_on = |operand: &Read<'_>| operand.strides[axis - 1] == operand.strides[axis] * size;
        if size == 1 || dims[axis - 1] == 1 || operands.iter().all(goes_on) {
            for operand in &mut operands {
                let inner = operand.strides.remove(axis);
                // Where one of both has one place, the other's stride is what counts.
                if size != 1 {
                    operand.strides[axis - 1] = inner;
                }
            }
            dims[axis - 1] *= size;
            dims.remove(axis);
        }
    }
    (dims, operands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_each_axis() {
        let values: Vec<f32> = (0..24u8).map(f32::from).collect();
        let read = |strides: [usize; 3]| Read { values: &values, first: 0, strides: strides.to_vec() };
        let turned = pointwise(&[4, 2, 3], [read([1, 12, 4])], |[a]| a).expect("made");
        assert_eq!(turned[..7], [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 1.0]);
        let sums = pointwise(&[2, 3, 4], [read([12, 4, 1]), read([0, 4, 0])], |[a, b]| a + b).expect("made");
        assert_eq!(sums[..6], [0.0, 1.0, 2.0, 3.0, 8.0, 9.0]);
        let same = pointwise(&[2, 3, 4], [read([12, 4, 1])], |[a]| a).expect("made");
        assert_eq!(same, values);
    }
}
