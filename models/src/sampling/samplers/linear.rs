//! Small systems of linear equations.

use crate::{Error, Result};

/// The `x` with `matrix · x = right`, by Gauss's elimination; an error if there is not one.
pub(super) fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Result<Vec<f64>> {
    let size = right.len();
    for column in 0..size {
        let largest =
            (column..size).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()));
        let largest = largest.unwrap_or(column);
        matrix.swap(column, largest);
        right.swap(column, largest);
        let pivot = matrix[column].clone();
        for row in column + 1..size {
            let factor = matrix[row][column] / pivot[column];
            for (value, above) in matrix[row].iter_mut().zip(&pivot) {
                *value -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|column| matrix[row][column] * right[column]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    if right.iter().all(|value| value.is_finite()) {
        Ok(right)
    } else {
        Err(Error::Request(format!("UniPC's coefficients of order {size} overflow; lower uni_pc_order")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_solved() {
        let found = solved(
            vec![vec![0.0, 2.0, 1.0], vec![1.0, 1.0, 1.0], vec![2.0, 0.0, -1.0]],
            vec![7.0, 6.0, -1.0],
        );
        let found = found.expect("one");
        assert!(found.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert!(solved(vec![vec![1.0, 1.0], vec![1.0, 1.0]], vec![1.0, 2.0]).is_err());
        assert_eq!(solved(vec![], vec![]).expect("none"), Vec::<f64>::new());
    }
}
