//! The bridge between tensors and kernels: contiguous f32 slices in, a new tensor out.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// A kernel of one input.
struct Unary<'a, F> {
    name: &'static str,
    shape: &'a Shape,
    run: F,
}

/// A kernel of three inputs.
struct Ternary<'a, F> {
    name: &'static str,
    shape: &'a Shape,
    run: F,
}

fn slice<'a>(name: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("{name}: activations are f32") };
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{name}: activations are contiguous") };
    match values.get(start..end) {
        Some(values) => Ok(values),
        None => bail!("{name}: activations lie within their storage"),
    }
}

impl<F: Fn(&[f32], &mut [f32])> CustomOp1 for Unary<'_, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let input = slice(self.name, storage, layout)?;
        let mut out = vec![0f32; self.shape.elem_count()];
        (self.run)(input, &mut out);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }
}

impl<F: Fn(&[f32], &[f32], &[f32], &mut [f32])> CustomOp3 for Ternary<'_, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
        c: &CpuStorage,
        c_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (slice(self.name, a, a_layout)?, slice(self.name, b, b_layout)?);
        let c = slice(self.name, c, c_layout)?;
        let mut out = vec![0f32; self.shape.elem_count()];
        (self.run)(a, b, c, &mut out);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }
}

/// Runs a kernel over one tensor; it fills a new one of `shape`.
pub(super) fn unary(
    name: &'static str,
    x: &Tensor,
    shape: impl Into<Shape>,
    run: impl Fn(&[f32], &mut [f32]),
) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Unary { name, shape: &shape.into(), run })
}

/// Runs a kernel over three tensors; it fills a new one of `shape`.
pub(super) fn ternary(
    name: &'static str,
    [a, b, c]: [&Tensor; 3],
    shape: impl Into<Shape>,
    run: impl Fn(&[f32], &[f32], &[f32], &mut [f32]),
) -> Result<Tensor> {
    let op = Ternary { name, shape: &shape.into(), run };
    a.contiguous()?.apply_op3_no_bwd(&b.contiguous()?, &c.contiguous()?, &op)
}
