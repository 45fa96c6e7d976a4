//! Tensors by name: what goes into networks and graphs, and what comes out.

use super::basic::{latentd_handle, latentd_text};

/// An opened network or ONNX graph. 0 is none.
pub type latentd_net = u64;

/// A tensor with its name: one to run with, one that came out, or, in a plan, the sizes of one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_input {
    /// Its name.
    pub name: latentd_text,
    /// The tensor or image; 0 in a plan.
    pub handle: latentd_handle,
    /// How many dimensions. Only looked at in a plan; set where a tensor came out.
    pub ndim: u32,
    /// 0.
    pub reserved: u32,
    /// The first `ndim` count.
    pub shape: [i64; 8],
}
