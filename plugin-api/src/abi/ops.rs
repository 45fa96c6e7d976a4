//! LATENTD_OPS: programs of tensor operations, and noise.

use super::basic::{latentd_call, latentd_handle, latentd_list, latentd_status};
use super::services::latentd_tensor_info;

/// An operand with this bit is the result of the operation whose number the other bits are; see LATENTD_RESULT.
pub const LATENTD_RESULT_BIT: u64 = 0x8000_0000_0000_0000;

/// v\[0\]·a + v\[1\].
pub const LATENTD_OP_AFFINE: u32 = 1;
/// v\[0\]·a + v\[1\]·b.
pub const LATENTD_OP_ADD: u32 = 2;
/// a·b.
pub const LATENTD_OP_MUL: u32 = 3;
/// a/b, by 0 as IEEE 754 says.
pub const LATENTD_OP_DIV: u32 = 4;
/// a + (b − a)·c; without c (0) ·v\[0\].
pub const LATENTD_OP_LERP: u32 = 5;
/// To v\[0\]…v\[1\], which may be infinite; NaN stays.
pub const LATENTD_OP_CLAMP: u32 = 6;
/// |a|.
pub const LATENTD_OP_ABS: u32 = 7;
/// The square root; NaN below 0.
pub const LATENTD_OP_SQRT: u32 = 8;
/// Of axis n\[0\] the entries from n\[1\] until n\[2\], which is not included.
pub const LATENTD_OP_SLICE: u32 = 9;
/// a, then b along axis n\[0\]; all other sizes are the same.
pub const LATENTD_OP_CONCAT: u32 = 10;
/// Of axis 0 the entries whose numbers b has, (count): whole numbers from 0, as f32.
pub const LATENTD_OP_TAKE: u32 = 11;
/// To sizes n\[0\]…; 0 ends them, one may be −1: what is left.
pub const LATENTD_OP_RESHAPE: u32 = 12;
/// Axis i of the result is axis n\[i\] of a, for as many as a has.
pub const LATENTD_OP_PERMUTE: u32 = 13;
/// To DLPack's code n\[0\] of n\[1\] bits. LATENTD_FLOAT, 32: an image's bytes over 255; f32 as they are. LATENTD_UINT, 8: an image
/// of (1, 1 | 3 | 4, h, w): 0…1 times 255, rounded, halves to even; what is beyond is cut off, NaN is 0. Nothing else takes or
/// makes images.
pub const LATENTD_OP_CAST: u32 = 14;
/// Over the axes whose bits n\[0\] has, which stay as 1: n\[1\] says what, LATENTD_SUM, …; v\[0\] the quantile, 0…1.
pub const LATENTD_OP_REDUCE: u32 = 15;
/// (…, n, k) times (…, k, m); what is before the last two axes broadcasts.
pub const LATENTD_OP_MATMUL: u32 = 16;
/// Planes, which the last two axes are, to n\[0\] rows of n\[1\]; n\[2\]: LATENTD_NEAREST, ….
pub const LATENTD_OP_RESIZE: u32 = 17;
/// Planes with n\[0\] on the left, n\[1\] on the right, n\[2\] above, n\[3\] below; n\[4\]: LATENTD_CONSTANT of v\[0\], LATENTD_EDGE,
/// LATENTD_REFLECT (about the outermost pixel; less than the plane has).
pub const LATENTD_OP_PAD: u32 = 18;
/// Planes to n\[0\] rows of n\[1\]: (x, y) is what lies at (v\[0\]x + v\[1\]y + v\[2\], v\[3\]x + v\[4\]y + v\[5\]), bilinear between the
/// middles of pixels, which are whole numbers; beyond the plane everything is v\[6\].
pub const LATENTD_OP_WARP: u32 = 19;
/// Planes under a Gaussian of sigma v\[0\] in x and v\[1\] in y over n\[0\] and n\[1\] pixels, odd, 8191 at most; 0: as many as it needs,
/// 8 sigma + 1. Sigma 0 leaves an axis. Borders are reflected about the outermost pixel.
pub const LATENTD_OP_BLUR: u32 = 20;

/// The sum.
pub const LATENTD_SUM: u32 = 1;
/// The mean.
pub const LATENTD_MEAN: u32 = 2;
/// The least; NaN if there is one.
pub const LATENTD_MIN: u32 = 3;
/// The largest; NaN if there is one.
pub const LATENTD_MAX: u32 = 4;
/// The standard deviation of all, not of a sample.
pub const LATENTD_STD: u32 = 5;
/// A quantile, between two neighbours by distance; NaN if there is one.
pub const LATENTD_QUANTILE: u32 = 6;

/// The one that begins where this one does: torch's "nearest".
pub const LATENTD_NEAREST: u32 = 0;
/// torch's "bilinear", corners not aligned, not antialiased.
pub const LATENTD_BILINEAR: u32 = 1;
/// torch's "bicubic", likewise.
pub const LATENTD_BICUBIC: u32 = 2;
/// The mean of what lies within: torch's "area".
pub const LATENTD_AREA: u32 = 3;
/// Pillow's, of floats.
pub const LATENTD_LANCZOS: u32 = 4;

/// A border of one number.
pub const LATENTD_CONSTANT: u32 = 0;
/// A border of the outermost pixel.
pub const LATENTD_EDGE: u32 = 1;
/// A border of what lies as far within.
pub const LATENTD_REFLECT: u32 = 2;

/// One operation. Shapes broadcast as in NumPy; numbers of `v` that are factors or colours are rounded to f32.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_op {
    /// LATENTD_OP_….
    pub code: u32,
    /// 1: its result is handed out.
    pub keep: u32,
    /// A handle, or LATENTD_RESULT of an operation before this one.
    pub a: u64,
    /// As `a`; 0 where there is none.
    pub b: u64,
    /// As `b`.
    pub c: u64,
    /// Whole numbers, as the operation says.
    pub n: [i64; 8],
    /// Numbers, as the operation says.
    pub v: [f64; 8],
}

/// LATENTD_OPS: tensors computed where they lie.
#[repr(C)]
pub struct latentd_ops {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Does latentd_op after latentd_op, 4096 at most. All of it is looked at before anything is computed; the first that cannot
    /// be done fails it all, with its number in the text. `results` has a place for each that is kept, in their order; they are
    /// as what `alloc` gives. Results are f32, and the same whatever the number of threads: which part of a sum is
    /// added when depends on shapes alone. Cancelled between two operations. MEMORY if what it takes at once cannot be
    /// had. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            ops: latentd_list,
            results: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// N(0, 1), f32, in the shape of `info`, as a job with this seed and this request's `rng` draws its first noise: with four
    /// dimensions each entry of the first is a picture's, of the seed plus its number; else all of it is one draw. `stream` 0 is
    /// that noise; another one has the seed whose little-endian bytes are the first 8 of the SHA-256 of "latentd noise",
    /// seed, stream, both as 8 little-endian bytes. \[job\]
    pub noise: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            seed: u64,
            stream: u64,
            info: *const latentd_tensor_info,
            noise: *mut latentd_handle,
        ) -> latentd_status,
    >,
}
