//! Packed weights and the product of two narrow matrices: what LoRA does, without a look at the weights' source.

use half::slice::HalfBitsSliceExt;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::matmul::linear;
use crate::pack::{PANEL, PackError, PackedMatrix, Panels, Storage};
use crate::{Buffer, Epilogue, Isa, elements};

impl PackedMatrix {
    /// The same matrix plus `up (n, rank) · down (rank, k)`, in f32. `down` is in the order of the source: inputs, then the
    /// `taps` of a kernel. Each panel is made at once and in its place, so it costs little more than the product and the
    /// pages that it is written to.
    ///
    /// # Errors
    /// If a sum is NaN or infinite.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn plus_product(
        &self,
        isa: Isa,
        up: &[f32],
        down: &[f32],
        rank: usize,
        taps: usize,
    ) -> Result<Self, PackError> {
        let Self { n, k, gated, .. } = *self;
        assert_eq!(
            (up.len(), down.len()),
            (elements(&[n, rank]), elements(&[rank, k])),
            "a product of rank {rank}"
        );
        assert!(taps > 0 && k.is_multiple_of(taps), "{k} inputs of {taps} taps");
        let panels = Panels { n, k, taps, gated };
        let rows = in_packed_order(down, rank, k / taps, taps);
        let mut packed = Buffer::fixed(n.div_ceil(PANEL) * PANEL * k);
        if n == 0 || k == 0 {
            return Ok(Self { n, k, gated, storage: Storage::F32(packed) });
        }
        packed.par_chunks_mut(PANEL * k).enumerate().try_for_each_init(Vec::new, |wide, (panel, out)| {
            let mut narrow = Buffer::new(rank * PANEL);
            for (r, columns) in narrow.chunks_exact_mut(PANEL).enumerate() {
                for (column, to) in columns.iter_mut().enumerate() {
                    let is_there = column < PANEL.min(n - panel * PANEL);
                    *to = if is_there { up[panels.row(panel, column) * rank + r] } else { 0.0 };
                }
            }
            let narrow = Self { n: PANEL, k: rank, gated: false, storage: Storage::F32(narrow) };
            let base = self.panel(panel, wide);
            let epilogue = Epilogue { residual: Some(base), ..Epilogue::default() };
            linear(isa, &rows, k, &narrow, &epilogue, out);
            let finite = out.iter().fold(true, |finite, value| finite & value.is_finite());
            if finite { Ok(()) } else { Err(PackError::NotFinite) }
        })?;
        Ok(Self { n, k, gated, storage: Storage::F32(packed) })
    }

    /// A panel as f32, `(k, 32)`; in `wide` if it is stored otherwise.
    fn panel<'a>(&'a self, panel: usize, wide: &'a mut Vec<f32>) -> &'a [f32] {
        let range = panel * PANEL * self.k..(panel + 1) * PANEL * self.k;
        match &self.storage {
            Storage::F32(values) => return &values[range],
            Storage::F16(values) => {
                wide.resize(range.len(), 0.0);
                values[range].reinterpret_cast::<f16>().convert_to_f32_slice(wide);
            }
            Storage::Bf16(values) => {
                wide.resize(range.len(), 0.0);
                values[range].reinterpret_cast::<bf16>().convert_to_f32_slice(wide);
            }
        }
        wide
    }
}

/// `(rank, inputs, taps)` → `(taps, inputs, rank)`.
fn in_packed_order(down: &[f32], rank: usize, inputs: usize, taps: usize) -> Vec<f32> {
    let mut rows = vec![0.0; down.len()];
    for (r, down) in down.chunks_exact((inputs * taps).max(1)).enumerate() {
        for (input, values) in down.chunks_exact(taps).enumerate() {
            for (tap, value) in values.iter().enumerate() {
                rows[(tap * inputs + input) * rank + r] = *value;
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weights;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        // Exact in any type that weights are kept in.
        (0..count).map(|index| ((index * 37 + seed * 11) % 33) as f32 / 16.0 - 1.0).collect()
    }

    /// The matrix, whatever it is and however it is kept, is that of the sums packed anew.
    #[test]
    fn a_sum_is_packed_as_if_it_had_been_made_before() {
        let isa = Isa::current();
        for (n, inputs, taps, gated, rank) in
            [(40, 7, 1, false, 3), (64, 33, 1, true, 64), (5, 4, 9, false, 2), (33, 6, 9, false, 1)]
        {
            let k = inputs * taps;
            let (weights, up, down) = (numbers(n * k, 1), numbers(n * rank, 2), numbers(rank * k, 3));
            let pack = |weights: Weights<'_>| match (gated, taps) {
                (true, _) => PackedMatrix::gated(weights, n, k),
                (false, 1) => PackedMatrix::linear(weights, n, k),
                (false, _) => PackedMatrix::convolution(weights, n, inputs, taps),
            };
            let mut sums = weights.clone();
            for (row, sums) in sums.chunks_exact_mut(k).enumerate() {
                for r in 0..rank {
                    for (sum, down) in sums.iter_mut().zip(&down[r * k..]) {
                        *sum += up[row * rank + r] * down;
                    }
                }
            }
            let expected = pack(Weights::of(&sums)).expect("finite");
            let halves: Vec<u8> =
                weights.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
            let short: Vec<u8> =
                weights.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
            for base in [
                Weights::of(&weights),
                Weights { dtype: crate::WeightDtype::F16, bytes: &halves },
                Weights { dtype: crate::WeightDtype::Bf16, bytes: &short },
            ] {
                let base = pack(base).expect("finite");
                let found = base.plus_product(isa, &up, &down, rank, taps).expect("finite");
                let (Storage::F32(found), Storage::F32(expected)) = (&found.storage, &expected.storage)
                else {
                    panic!("f32")
                };
                for (found, expected) in found.iter().zip(&**expected) {
                    assert!((found - expected).abs() < 1e-4, "{n} {inputs} {taps}: {found} {expected}");
                }
                let huge = |count| vec![f32::MAX; count];
                let sums = base.plus_product(isa, &huge(n * rank), &huge(rank * k), rank, taps);
                assert!(matches!(sums, Err(PackError::NotFinite)));
            }
        }
    }
}
