//! Products of two narrow matrices, which are added to large ones on the threads that compute.

use latentd_kernels::{Epilogue, Isa, PackedMatrix, linear};
use rayon::prelude::*;

use crate::Result;
use crate::error::bail;

/// A change that is a product of two narrow matrices, which is added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LowRank {
    /// Columns of the first, rows of the second.
    pub rank: usize,
    /// `(outputs, rank)`, times the strength.
    pub up: Vec<f32>,
    /// `(rank, inputs × kernel)`.
    pub down: Vec<f32>,
}

impl LowRank {
    /// The sum of several of the same sizes, as one product, in order.
    pub fn joined(all: &[Self]) -> Self {
        let rank: usize = all.iter().map(|each| each.rank).sum();
        let outputs = all.iter().map(|each| each.up.len() / each.rank.max(1)).max().unwrap_or_default();
        let mut up = Vec::with_capacity(outputs * rank);
        for row in 0..outputs {
            for each in all {
                up.extend_from_slice(each.up.get(row * each.rank..(row + 1) * each.rank).unwrap_or_default());
            }
        }
        let mut down = Vec::with_capacity(all.iter().map(|each| each.down.len()).sum());
        for each in all {
            down.extend_from_slice(&each.down);
        }
        Self { rank, up, down }
    }

    /// Adds it to a matrix `(outputs, inputs × kernel)`.
    pub fn add_to(&self, sums: &mut [f32]) -> Result<()> {
        add_product(1.0, &self.up, &self.down, sums, self.rank)
    }
}

/// Rows of a product that are made at once: what they take stays in a first or second-level cache while it is copied back.
const ROWS: usize = 24;

/// `sums (m, n) += factor · a (m, k) · b (k, n)`, each sum in the order of `k` whatever the number of threads.
pub(crate) fn add_product(factor: f32, a: &[f32], b: &[f32], sums: &mut [f32], k: usize) -> Result<()> {
    let (m, n) = (a.len() / k.max(1), b.len() / k.max(1));
    if a.len() != m * k || b.len() != k * n || sums.len() != m * n {
        bail!("a product of {} and {} numbers over {k} into {}", a.len(), b.len(), sums.len());
    }
    if sums.is_empty() || k == 0 {
        return Ok(());
    }
    let Ok(packed) = PackedMatrix::turned(b, k, n, 0..n) else {
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

/// `(rows, columns)` → `(columns, rows)`.
pub(crate) fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    let mut turned = vec![0.0; values.len()];
    for (row, from) in values.chunks_exact(columns.max(1)).enumerate() {
        for (to, value) in turned.iter_mut().skip(row).step_by(rows.max(1)).zip(from) {
            *to = *value;
        }
    }
    turned
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
    fn several_products_are_one() {
        let product =
            |rank, seed| LowRank { rank, up: numbers(3 * rank, seed), down: numbers(rank * 5, seed + 1) };
        let all = [product(2, 1), product(4, 7), product(1, 3)];
        let (mut each, mut joined) = (vec![0.5; 15], vec![0.5; 15]);
        for product in &all {
            product.add_to(&mut each).expect("fits");
        }
        LowRank::joined(&all).add_to(&mut joined).expect("fits");
        assert!(each.iter().zip(&joined).all(|(a, b)| (a - b).abs() < 1e-5), "{each:?} {joined:?}");
    }
}
