//! Fourier transforms of planes.

use std::sync::Arc;

use rayon::prelude::*;
use rustfft::num_complex::Complex64;
use rustfft::{Fft, FftPlanner};

/// Transforms planes of one size there and back, without a factor: back again it is as many times as much as there are
/// values. Each line is transformed alone, so threads do not matter.
pub(super) struct Transforms {
    there: [Arc<dyn Fft<f64>>; 2],
    back: [Arc<dyn Fft<f64>>; 2],
    rows: usize,
    columns: usize,
}

impl Transforms {
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        let mut planner = FftPlanner::new();
        let there = [columns, rows].map(|length| planner.plan_fft_forward(length));
        let back = [rows, columns].map(|length| planner.plan_fft_inverse(length));
        Self { there, back, rows, columns }
    }

    /// `(rows, columns)` → frequencies `(columns, rows)`.
    pub(super) fn there(&self, values: impl Iterator<Item = f64>) -> Vec<Complex64> {
        let plane: Vec<Complex64> = values.map(|value| Complex64::new(value, 0.0)).collect();
        both(plane, &self.there, self.columns)
    }

    /// Frequencies `(columns, rows)` → `(rows, columns)`, of which the real part is taken.
    pub(super) fn back(&self, frequencies: Vec<Complex64>) -> Vec<f64> {
        both(frequencies, &self.back, self.rows).into_iter().map(|value| value.re).collect()
    }
}

/// Along lines of this length, then along the others; they lie the other way round after.
fn both(
    mut plane: Vec<Complex64>,
    [first, second]: &[Arc<dyn Fft<f64>>; 2],
    length: usize,
) -> Vec<Complex64> {
    lines(&mut plane, &**first);
    let mut turned = transposed(&plane, length);
    lines(&mut turned, &**second);
    turned
}

fn lines(plane: &mut [Complex64], transform: &dyn Fft<f64>) {
    let scratch = || vec![Complex64::default(); transform.get_inplace_scratch_len()];
    plane
        .par_chunks_exact_mut(transform.len())
        .for_each_init(scratch, |scratch, line| transform.process_with_scratch(line, scratch));
}

/// Rows for columns.
fn transposed(values: &[Complex64], length: usize) -> Vec<Complex64> {
    /// So many columns at once that a line of the cache is read once.
    const AT_ONCE: usize = 8;
    let lines = values.len() / length;
    let mut turned = vec![Complex64::default(); values.len()];
    turned.par_chunks_mut(lines * AT_ONCE).enumerate().for_each(|(index, block)| {
        let first = index * AT_ONCE;
        for (line, values) in values.chunks_exact(length).enumerate() {
            for (column, value) in values[first..].iter().take(AT_ONCE).enumerate() {
                block[column * lines + line] = *value;
            }
        }
    });
    turned
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    #[test]
    fn frequencies_are_sums_of_turned_values_and_lead_back() {
        let (rows, columns) = (4, 10);
        let values: Vec<f64> = (0..rows * columns).map(|at| ((at * at) as f64).sin()).collect();
        let transforms = Transforms::new(rows, columns);
        let frequencies = transforms.there(values.iter().copied());
        for (at, found) in frequencies.iter().enumerate() {
            let (across, down) = (at / rows, at % rows);
            let wanted: Complex64 = values
                .iter()
                .enumerate()
                .map(|(at, value)| {
                    let (y, x) = (at / columns, at % columns);
                    let turn = (across * x) as f64 / columns as f64 + (down * y) as f64 / rows as f64;
                    Complex64::from_polar(*value, -TAU * turn)
                })
                .sum();
            assert!((found - wanted).norm() < 1e-12, "{across}, {down}: {found} is not {wanted}");
        }
        let again = transforms.back(frequencies);
        for (again, value) in again.iter().zip(&values) {
            assert!((again / (rows * columns) as f64 - value).abs() < 1e-14);
        }
    }
}
