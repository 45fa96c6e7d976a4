//! Products of small matrices into large ones, on the threads that compute.

use latentd_kernels::{Epilogue, Isa, PackedMatrix, Weights, linear};
use rayon::prelude::*;

use crate::Result;
use crate::error::bail;

/// Rows of a product that are made at once: what they take stays in a second-level cache.
const ROWS: usize = 48;

/// `sums (m, n) += factor · a (m, k) · b (k, n)`, each sum in the order of `k` whatever the number of threads.
pub(super) fn add_product(factor: f32, a: &[f32], b: &[f32], sums: &mut [f32], k: usize) -> Result<()> {
    let (m, n) = (a.len() / k.max(1), b.len() / k.max(1));
    if a.len() != m * k || b.len() != k * n || sums.len() != m * n {
        bail!("a product of {} and {} numbers over {k} into {}", a.len(), b.len(), sums.len());
    }
    if sums.is_empty() || k == 0 {
        return Ok(());
    }
    let turned = transposed(b, k);
    let Ok(packed) = PackedMatrix::linear(Weights::of(&turned), n, k) else {
        bail!("a product of numbers that are not finite");
    };
    let isa = Isa::current();
    sums.par_chunks_mut(ROWS * n).zip(a.par_chunks(ROWS * k)).for_each_init(Vec::new, |out, (sums, a)| {
        out.resize(sums.len(), 0.0);
        let epilogue = Epilogue { scale: factor, residual: Some(&*sums), ..Epilogue::default() };
        linear(isa, a, a.len() / k, &packed, &epilogue, out);
        sums.copy_from_slice(out);
    });
    Ok(())
}

/// `a (m, k) · b (k, n)`.
pub(super) fn product(a: &[f32], b: &[f32], k: usize) -> Result<Vec<f32>> {
    let mut sums = vec![0.0; (a.len() / k.max(1)) * (b.len() / k.max(1))];
    add_product(1.0, a, b, &mut sums, k)?;
    Ok(sums)
}

/// `(rows, columns)` → `(columns, rows)`.
pub(super) fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    let mut turned = vec![0.0; values.len()];
    for (row, from) in values.chunks_exact(columns.max(1)).enumerate() {
        for (to, value) in turned.iter_mut().skip(row).step_by(rows.max(1)).zip(from) {
            *to = *value;
        }
    }
    turned
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
    fn products_are_those_of_the_schoolbook() {
        for (m, k, n) in [(1, 1, 1), (5, 3, 7), (100, 4, 33), (97, 32, 65), (3, 400, 2), (0, 3, 4), (4, 2, 0)]
        {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let mut sums = numbers(m * n, 3);
            let expected: Vec<f64> = (0..m * n)
                .map(|at| {
                    let (row, column) = (at / n, at % n);
                    let product = (0..k).map(|i| f64::from(a[row * k + i]) * f64::from(b[i * n + column]));
                    f64::from(sums[at]) + 0.5 * product.sum::<f64>()
                })
                .collect();
            add_product(0.5, &a, &b, &mut sums, k).expect("fits");
            for (sum, expected) in sums.iter().zip(expected) {
                assert!((f64::from(*sum) - expected).abs() < 1e-4, "{m} {k} {n}: {sum} {expected}");
            }
        }
        assert!(add_product(1.0, &[0.0; 3], &[0.0; 4], &mut [0.0; 6], 2).is_err());
        assert!(add_product(1.0, &[0.0; 2], &[f32::NAN, 0.0], &mut [0.0; 1], 2).is_err());
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
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
