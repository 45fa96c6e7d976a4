//! Products of small matrices into large ones, on the threads that compute.

use rayon::prelude::*;

use crate::Result;
pub(super) use crate::nn::{add_product, transposed};

/// `a (m, k) · b (k, n)`.
pub(super) fn product(a: &[f32], b: &[f32], k: usize) -> Result<Vec<f32>> {
    let mut sums = vec![0.0; (a.len() / k.max(1)) * (b.len() / k.max(1))];
    add_product(1.0, a, b, &mut sums, k)?;
    Ok(sums)
}

/// `sums += factor · values`.
pub(super) fn add_scaled(factor: f32, values: &[f32], sums: &mut [f32]) {
    sums.par_iter_mut().with_min_len(1 << 14).zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// A square matrix's inverse, by elimination with pivots; `None` if it has none.
pub(super) fn inverse(matrix: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut left = matrix.to_vec();
    let mut right = vec![0.0; n * n];
    right.iter_mut().step_by(n + 1).for_each(|one| *one = 1.0);
    for column in 0..n {
        let size = |row: &usize| left[row * n + column].abs();
        let pivot = (column..n).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        let value = left[pivot * n + column];
        if value == 0.0 || !value.is_finite() {
            return None;
        }
        for matrix in [&mut left, &mut right] {
            if pivot != column {
                let (upper, lower) = matrix.split_at_mut(pivot * n);
                upper[column * n..(column + 1) * n].swap_with_slice(&mut lower[..n]);
            }
            matrix[column * n..(column + 1) * n].iter_mut().for_each(|entry| *entry /= value);
        }
        let (pivot_left, pivot_right) =
            (left[column * n..(column + 1) * n].to_vec(), right[column * n..(column + 1) * n].to_vec());
        left.par_chunks_mut(n).zip(right.par_chunks_mut(n)).enumerate().for_each(|(row, (left, right))| {
            let factor = left[column];
            if row == column || factor == 0.0 {
                return;
            }
            left.iter_mut().zip(&pivot_left).for_each(|(to, from)| *to -= factor * from);
            right.iter_mut().zip(&pivot_right).for_each(|(to, from)| *to -= factor * from);
        });
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers by a rule, not all of one sign.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        for n in [1, 2, 9, 40] {
            // A zero in the first place needs a pivot.
            let matrix: Vec<f64> = numbers(n * n, 5)
                .into_iter()
                .enumerate()
                .map(|(at, x)| if at == 0 && n > 1 { 0.0 } else { f64::from(x) })
                .collect();
            let inverse = inverse(&matrix, n).expect("regular");
            for (row, column) in (0..n).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let entry: f64 = (0..n).map(|i| matrix[row * n + i] * inverse[i * n + column]).sum();
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((entry - expected).abs() < 1e-6, "{n}: {row} {column}: {entry}");
            }
        }
        assert!(inverse(&[0.0; 4], 2).is_none());
        assert!(inverse(&[f64::NAN], 1).is_none());
    }
}
