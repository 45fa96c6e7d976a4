//! What stages add within the UNet: each for some rows of an evaluation, somewhere, some of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::evaluation::Row;
use super::held::Held;
use super::masks::of_region;
use crate::networks::unet_call::fitted;
use crate::networks::unet_residuals::{ResidualPlace, ResidualSizes};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Something that is added.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// Who says so, for errors.
    pub owner: String,
    /// Where.
    pub place: ResidualPlace,
    /// The rows of the evaluation that it is for; all if `None`.
    pub rows: Option<Vec<usize>>,
    /// `(rows, channels, height, width)`, or `(1, …)` for all of them, of the place's size.
    pub tensor: Tensor,
    /// How much of it counts where, `(height, width)` over the canvas, of any size: of a tile, its part. All of it if `None`.
    pub mask: Option<Tensor>,
    /// What it is multiplied by; of 0 nothing is added.
    pub scale: f32,
    /// Dropped once the evaluation is done.
    pub held: Held,
}

/// The sums at each place for some of the rows, in the order in which they were declared. Rows to which nothing is added stay as
/// they are, to the bit.
pub(super) fn of_rows(
    residuals: &[Residual],
    rows: &[Row],
    range: Range<usize>,
    sizes: &ResidualSizes,
) -> Result<Vec<(ResidualPlace, Tensor)>> {
    let mut sums: BTreeMap<ResidualPlace, Vec<f32>> = BTreeMap::new();
    for residual in residuals.iter().filter(|residual| residual.scale != 0.0) {
        let Residual { owner, place, rows: named, tensor, mask, scale, held: _ } = residual;
        let wrong = |text: String| Error::Stage(format!("plugin '{owner}', control.residuals: {text}"));
        let Some([channels, height, width]) = sizes.at(*place) else {
            return Err(wrong(format!("there is no {place}")));
        };
        let count = named.as_ref().map_or(rows.len(), Vec::len);
        let fits = matches!(*tensor.dims(), [n, c, h, w] if (n == 1 || n == count) && [c, h, w] == [channels, height, width]);
        if !fits {
            let dims = tensor.dims();
            return Err(wrong(format!(
                "{dims:?} for {place}; (1 or {count}, {channels}, {height}, {width}) is needed"
            )));
        }
        let (plane, length) = (height * width, channels * height * width);
        for entry in 0..count {
            let row = named.as_ref().map_or(Some(entry), |named| named.get(entry).copied());
            let Some((row, of)) =
                row.filter(|row| range.contains(row)).and_then(|row| Some((row, rows.get(row)?)))
            else {
                continue;
            };
            let mask = of_region(mask.as_ref(), of.region)?;
            let mask = mask.map(|mask| fitted(&mask, height, width)).transpose()?;
            let from = if tensor.dim(0) == 1 { 0 } else { entry } * length;
            // What −0 is added to stays as it is, whatever it is.
            let sums = sums.entry(*place).or_insert_with(|| vec![-0.0; range.len() * length]);
            let to = sums.iter_mut().skip((row - range.start) * length);
            for (at, (to, from)) in to.zip(tensor.values().iter().skip(from).take(length)).enumerate() {
                let share =
                    mask.as_ref().map_or(1.0, |mask| mask.get(at % plane).copied().unwrap_or_default());
                if share != 0.0 {
                    *to += scale * share * from;
                    // Else the checkpoint would be blamed for what becomes of it.
                    if !to.is_finite() {
                        return Err(wrong(format!(
                            "what is added at {place} overflows: {from} times {scale}"
                        )));
                    }
                }
            }
        }
    }
    let tensor = |(place, values): (ResidualPlace, Vec<f32>)| {
        let [channels, height, width] = sizes.at(place).unwrap_or_default();
        Ok((place, Tensor::new(values, [range.len(), channels, height, width])?))
    };
    sums.into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::evaluation::{Region, Role};
    use super::*;
    use crate::networks::unet::UNetConfig;
    use crate::prompt::Conditioning;

    fn row(region: Region) -> Row {
        let tokens = Tensor::full(0.0, [1, 1, 1]);
        Row {
            image: 0,
            seed: 0,
            branch: 0,
            role: Role::Cond,
            weight: 1.0,
            mask: None,
            region,
            tag: Arc::from(""),
            conditioning: Arc::new(Conditioning { tokens, pooled: None }),
        }
    }

    fn residual(place: ResidualPlace, tensor: Tensor) -> Residual {
        let (owner, held) = ("a".into(), Held::default());
        Residual { owner, place, rows: None, tensor, mask: None, scale: 1.0, held }
    }

    #[test]
    fn sums_are_of_rows_and_masks() {
        let config = UNetConfig { channels: 2, input_blocks: vec![], ..UNetConfig::sd15() };
        let sizes = config.residual_sizes((1, 2));
        let rows = [row(Region::whole(16, 8)), row(Region { x: 8, width: 8, ..Region::whole(16, 8) })];
        let numbers = |count: usize, from: f32| {
            let values = (0..count * 4).map(|value| value as f32 + from).collect();
            Tensor::new(values, [count, 2, 1, 2]).expect("fits")
        };
        let (skip, middle) = (ResidualPlace::Skip(0), ResidualPlace::Middle);
        let right = Tensor::new(vec![0.0, 1.0], [1, 2]).expect("fits");
        let all = [
            residual(skip, numbers(2, 1.0)),
            Residual { rows: Some(vec![1]), scale: 0.5, ..residual(skip, numbers(1, 10.0)) },
            Residual { mask: Some(right), ..residual(middle, numbers(1, 1.0)) },
            Residual { scale: 0.0, ..residual(ResidualPlace::Encoder(0), numbers(1, 1.0)) },
        ];
        let sums = of_rows(&all, &rows, 0..2, &sizes).expect("sums");
        let values: Vec<_> = sums.iter().map(|(place, tensor)| (*place, tensor.values().to_vec())).collect();
        let of_skip = vec![1.0, 2.0, 3.0, 4.0, 10.0, 11.5, 13.0, 14.5];
        // The tile begins where the mask is half of what it is further right.
        let of_middle = vec![-0.0, 2.0, -0.0, 4.0, 0.75, 2.0, 2.25, 4.0];
        assert_eq!(values, [(skip, of_skip), (middle, of_middle.clone())]);
        assert!(values[1].1[0].is_sign_negative(), "nothing is added to the bit");
        let second = of_rows(&all[2..], &rows, 1..2, &sizes).expect("sums");
        assert_eq!(second[0].1.values(), &of_middle[4..]);
        for (wrong, words) in [
            (residual(skip, numbers(3, 1.0)), "[3, 2, 1, 2] for skip 0; (1 or 2, 2, 1, 2) is needed"),
            (residual(ResidualPlace::Skip(1), numbers(1, 1.0)), "there is no skip 1"),
            (
                Residual { scale: 1e6, ..residual(skip, numbers(1, 1e35)) },
                "plugin 'a', control.residuals: what is added at skip 0 overflows",
            ),
        ] {
            let error = of_rows(&[wrong], &rows, 0..2, &sizes).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
