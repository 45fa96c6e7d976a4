//! Tensors computed by the host, on its device and threads: a program of operations in one call, and noise.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{self, LATENTD_RESULT_BIT, LATENTD_TENSOR, latentd_handle, latentd_list, latentd_op};
use crate::call::{Call, lacks, sized};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::tensor::Tensor;

/// What an operation makes, within its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    program: u64,
    number: usize,
}

/// What an operation works on: a tensor, an image, or what an earlier operation makes.
#[derive(Clone, Copy, Debug)]
pub struct Operand(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Handle(latentd_handle),
    Node(Node),
}

impl From<Node> for Operand {
    fn from(node: Node) -> Self {
        Self(Kind::Node(node))
    }
}

impl From<&Tensor<'_>> for Operand {
    fn from(tensor: &Tensor<'_>) -> Self {
        Self(Kind::Handle(tensor.handle))
    }
}

impl From<Tensor<'_>> for Operand {
    fn from(tensor: Tensor<'_>) -> Self {
        Self::from(&tensor)
    }
}

impl From<&Image<'_>> for Operand {
    fn from(image: &Image<'_>) -> Self {
        Self(Kind::Handle(image.handle))
    }
}

impl From<Image<'_>> for Operand {
    fn from(image: Image<'_>) -> Self {
        Self::from(&image)
    }
}

/// What is made of the numbers along axes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The mean.
    Mean,
    /// The least; NaN if there is one.
    Min,
    /// The largest; NaN if there is one.
    Max,
    /// The standard deviation of all, not of a sample.
    Std,
    /// Of a share, 0 to 1; NaN if there is one.
    Quantile(f64),
}

/// How pixels of another size are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filter {
    /// torch's "nearest".
    Nearest,
    /// torch's "bilinear", corners not aligned, not antialiased.
    Bilinear,
    /// torch's "bicubic", likewise.
    Bicubic,
    /// torch's "area": the mean of what lies within.
    Area,
    /// Pillow's.
    Lanczos,
}

/// What a border is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Border {
    /// One number.
    Constant(f64),
    /// The outermost pixel.
    Edge,
    /// What lies as far within; narrower than the plane.
    Reflect,
}

/// A program that is written: nothing is computed before [`Ops::run`]. Sizes go together as in NumPy; the host says what does not,
/// by the operation's number.
pub struct Ops<'a> {
    call: Call<'a>,
    program: u64,
    list: Vec<latentd_op>,
    /// An operand that is none of this program's.
    foreign: Option<usize>,
}

impl<'a> Call<'a> {
    /// A program of tensor operations. [`Error::unsupported`] if the host has none: the manifest may require
    /// "tensor.ops/draft-1".
    pub fn ops(&self) -> Result<Ops<'a>> {
        static PROGRAMS: AtomicU64 = AtomicU64::new(0);
        if self.host.ops.is_none() {
            return Err(Error::unsupported("the host has no tensor.ops"));
        }
        let program = PROGRAMS.fetch_add(1, Ordering::Relaxed);
        Ok(Ops { call: *self, program, list: vec![], foreign: None })
    }

    /// Noise of unit variance in these sizes, as a job with this seed draws its first: `(pictures, channels, height, width)` of
    /// seeds that follow one another. Any other `stream` than 0 is noise that is independent of it.
    pub fn noise(&self, seed: u64, stream: u64, dims: &[usize]) -> Result<Tensor<'a>> {
        let noise = self.host.ops.and_then(|ops| ops.noise);
        let noise = noise.ok_or_else(|| Error::unsupported("the host has no tensor.ops"))?;
        let info = sized(LATENTD_TENSOR, dims)?;
        let mut handle = 0;
        // SAFETY: the call is under way; both are ours.
        Error::of_service(unsafe { noise(self.pointer, seed, stream, &raw const info, &raw mut handle) })?;
        Ok(Tensor { call: *self, handle })
    }
}

impl<'a> Ops<'a> {
    fn push(&mut self, code: u32, operands: [Option<Operand>; 3], n: &[i64], v: &[f64]) -> Node {
        let number = self.list.len();
        let mut place = |operand: Option<Operand>| match operand.map(|operand| operand.0) {
            None => 0,
            Some(Kind::Handle(handle)) => handle,
            Some(Kind::Node(node)) => {
                if node.program != self.program {
                    self.foreign.get_or_insert(number);
                }
                LATENTD_RESULT_BIT | node.number as u64
            }
        };
        let [a, b, c] = operands.map(&mut place);
        let mut op = latentd_op { code, keep: 0, a, b, c, n: [0; 8], v: [0.0; 8] };
        op.n.iter_mut().zip(n).for_each(|(place, number)| *place = *number);
        op.v.iter_mut().zip(v).for_each(|(place, number)| *place = *number);
        self.list.push(op);
        Node { program: self.program, number }
    }

    fn one(&mut self, code: u32, a: impl Into<Operand>, n: &[i64], v: &[f64]) -> Node {
        self.push(code, [Some(a.into()), None, None], n, v)
    }

    fn two(&mut self, code: u32, a: impl Into<Operand>, b: impl Into<Operand>, n: &[i64], v: &[f64]) -> Node {
        self.push(code, [Some(a.into()), Some(b.into()), None], n, v)
    }

    /// `scale · a + shift`.
    pub fn affine(&mut self, a: impl Into<Operand>, scale: f64, shift: f64) -> Node {
        self.one(abi::LATENTD_OP_AFFINE, a, &[], &[scale, shift])
    }

    /// `a + b`.
    pub fn add(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Node {
        self.sum(a, 1.0, b, 1.0)
    }

    /// `a − b`.
    pub fn sub(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Node {
        self.sum(a, 1.0, b, -1.0)
    }

    /// `of_a · a + of_b · b`.
    pub fn sum(&mut self, a: impl Into<Operand>, of_a: f64, b: impl Into<Operand>, of_b: f64) -> Node {
        self.two(abi::LATENTD_OP_ADD, a, b, &[], &[of_a, of_b])
    }

    /// `a · b`.
    pub fn mul(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Node {
        self.two(abi::LATENTD_OP_MUL, a, b, &[], &[])
    }

    /// `a / b`.
    pub fn div(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Node {
        self.two(abi::LATENTD_OP_DIV, a, b, &[], &[])
    }

    /// `a + (b − a) · share`.
    pub fn lerp(&mut self, a: impl Into<Operand>, b: impl Into<Operand>, share: f64) -> Node {
        self.two(abi::LATENTD_OP_LERP, a, b, &[], &[share])
    }

    /// `a + (b − a) · c`, place by place.
    pub fn lerp_by(&mut self, a: impl Into<Operand>, b: impl Into<Operand>, c: impl Into<Operand>) -> Node {
        self.push(abi::LATENTD_OP_LERP, [Some(a.into()), Some(b.into()), Some(c.into())], &[], &[])
    }

    /// Between `low` and `high`, which may be infinite.
    pub fn clamp(&mut self, a: impl Into<Operand>, low: f64, high: f64) -> Node {
        self.one(abi::LATENTD_OP_CLAMP, a, &[], &[low, high])
    }

    /// `|a|`.
    pub fn abs(&mut self, a: impl Into<Operand>) -> Node {
        self.one(abi::LATENTD_OP_ABS, a, &[], &[])
    }

    /// `√a`; NaN below 0.
    pub fn sqrt(&mut self, a: impl Into<Operand>) -> Node {
        self.one(abi::LATENTD_OP_SQRT, a, &[], &[])
    }

    /// Of an axis the entries of a range.
    pub fn slice(&mut self, a: impl Into<Operand>, axis: usize, range: std::ops::Range<usize>) -> Node {
        let n = [axis as i64, range.start as i64, range.end as i64];
        self.one(abi::LATENTD_OP_SLICE, a, &n, &[])
    }

    /// a, then b along an axis.
    pub fn concat(&mut self, a: impl Into<Operand>, b: impl Into<Operand>, axis: usize) -> Node {
        self.two(abi::LATENTD_OP_CONCAT, a, b, &[axis as i64], &[])
    }

    /// Of the first axis the entries whose numbers b has, `(count,)`.
    pub fn take(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Node {
        self.two(abi::LATENTD_OP_TAKE, a, b, &[], &[])
    }

    /// In other sizes, of which one may be −1: what is left. At most 8.
    pub fn reshape(&mut self, a: impl Into<Operand>, dims: &[i64]) -> Node {
        // Sizes beyond the eighth, or of 0, would not be seen.
        let is_whole = dims.len() <= 8 && !dims.contains(&0);
        self.one(abi::LATENTD_OP_RESHAPE, a, if is_whole { dims } else { &[-2] }, &[])
    }

    /// Axis i of the result is axis `axes[i]`.
    pub fn permute(&mut self, a: impl Into<Operand>, axes: &[usize]) -> Node {
        let mut n = [-1; 8];
        n.iter_mut().zip(axes).for_each(|(place, axis)| *place = *axis as i64);
        self.one(abi::LATENTD_OP_PERMUTE, a, &n, &[])
    }

    /// An image as `(1, channels, height, width)` of 0 to 1.
    pub fn to_floats(&mut self, a: impl Into<Operand>) -> Node {
        self.one(abi::LATENTD_OP_CAST, a, &[i64::from(abi::LATENTD_FLOAT), 32], &[])
    }

    /// `(1, 1 | 3 | 4, height, width)` of 0 to 1 as an image, rounded; what is beyond is cut off.
    pub fn to_image(&mut self, a: impl Into<Operand>) -> Node {
        self.one(abi::LATENTD_OP_CAST, a, &[i64::from(abi::LATENTD_UINT), 8], &[])
    }

    /// What is made of the numbers along axes, which stay with the size 1.
    pub fn reduce(&mut self, a: impl Into<Operand>, axes: &[usize], how: Reduction) -> Node {
        let bits = axes.iter().fold(0i64, |bits, axis| bits | 1 << (*axis).min(62));
        let (code, share) = match how {
            Reduction::Sum => (abi::LATENTD_SUM, 0.0),
            Reduction::Mean => (abi::LATENTD_MEAN, 0.0),
            Reduction::Min => (abi::LATENTD_MIN, 0.0),
            Reduction::Max => (abi::LATENTD_MAX, 0.0),
            Reduction::Std => (abi::LATENTD_STD, 0.0),
            Reduction::Quantile(share) => (abi::LATENTD_QUANTILE, share),
        };
        self.one(abi::LATENTD_OP_REDUCE, a, &[bits, i64::from(code)], &[share])
    }

    /// `(…, n, k) · (…, k, m)`.
    pub fn matmul(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Node {
        self.two(abi::LATENTD_OP_MATMUL, a, b, &[], &[])
    }

    /// Planes, which the last two axes are, at another size.
    pub fn resize(&mut self, a: impl Into<Operand>, (height, width): (usize, usize), filter: Filter) -> Node {
        let filter = match filter {
            Filter::Nearest => abi::LATENTD_NEAREST,
            Filter::Bilinear => abi::LATENTD_BILINEAR,
            Filter::Bicubic => abi::LATENTD_BICUBIC,
            Filter::Area => abi::LATENTD_AREA,
            Filter::Lanczos => abi::LATENTD_LANCZOS,
        };
        self.one(abi::LATENTD_OP_RESIZE, a, &[height as i64, width as i64, i64::from(filter)], &[])
    }

    /// Planes with a border of so many pixels: left, right, top, bottom.
    pub fn pad(&mut self, a: impl Into<Operand>, margins: [usize; 4], border: Border) -> Node {
        let (code, value) = match border {
            Border::Constant(value) => (abi::LATENTD_CONSTANT, value),
            Border::Edge => (abi::LATENTD_EDGE, 0.0),
            Border::Reflect => (abi::LATENTD_REFLECT, 0.0),
        };
        let [left, right, top, bottom] = margins.map(|margin| margin as i64);
        self.one(abi::LATENTD_OP_PAD, a, &[left, right, top, bottom, i64::from(code)], &[value])
    }

    /// Planes of another size, (x, y) of which is what lies at `(m0 x + m1 y + m2, m3 x + m4 y + m5)`, bilinear; beyond the
    /// plane everything is `outside`.
    pub fn warp(
        &mut self,
        a: impl Into<Operand>,
        (height, width): (usize, usize),
        matrix: [f64; 6],
        outside: f64,
    ) -> Node {
        let [p, q, r, s, t, u] = matrix;
        self.one(abi::LATENTD_OP_WARP, a, &[height as i64, width as i64], &[p, q, r, s, t, u, outside])
    }

    /// Planes under a Gaussian of these sigmas in x and y, over as many pixels as they need.
    pub fn blur(&mut self, a: impl Into<Operand>, sigma_x: f64, sigma_y: f64) -> Node {
        self.one(abi::LATENTD_OP_BLUR, a, &[0, 0], &[sigma_x, sigma_y])
    }

    /// Computes the program; what `kept` names can then be had.
    pub fn run(mut self, kept: &[Node]) -> Result<Made<'a>> {
        let run = self.call.host.ops.and_then(|ops| ops.run).ok_or_else(lacks)?;
        if let Some(number) = self.foreign {
            return Err(Error::failed(format!("operation {number} works on what another program makes")));
        }
        for node in kept {
            let op = self.list.get_mut(node.number).filter(|_| node.program == self.program);
            op.ok_or_else(|| Error::failed("what another program makes is not this one's to give"))?.keep = 1;
        }
        let numbers = self.list.iter().enumerate().filter(|(_, op)| op.keep != 0).map(|(number, _)| number);
        let numbers: Vec<usize> = numbers.collect();
        let mut handles = vec![0; numbers.len()];
        let ops = latentd_list {
            items: self.list.as_ptr().cast(),
            count: u32::try_from(self.list.len()).unwrap_or(u32::MAX),
            stride: size_of::<latentd_op>() as u32,
        };
        // SAFETY: the call is under way; the list is lent, and there is a place for each that is kept.
        Error::of_service(unsafe { run(self.call.pointer, ops, handles.as_mut_ptr()) })?;
        let kept = numbers.into_iter().zip(handles).collect();
        Ok(Made { call: self.call, program: self.program, kept })
    }
}

/// What a program made.
pub struct Made<'a> {
    call: Call<'a>,
    program: u64,
    kept: Vec<(usize, latentd_handle)>,
}

impl<'a> Made<'a> {
    fn handle(&self, node: Node) -> Result<latentd_handle> {
        let found = self.kept.iter().find(|(number, _)| *number == node.number);
        let found = found.filter(|_| node.program == self.program);
        found.map(|(_, handle)| *handle).ok_or_else(|| Error::failed("what was not kept is gone"))
    }

    /// What was kept, as a tensor.
    pub fn tensor(&self, node: Node) -> Result<Tensor<'a>> {
        Ok(Tensor { call: self.call, handle: self.handle(node)? })
    }

    /// What was kept, as an image: one that [`Ops::to_image`] made.
    pub fn image(&self, node: Node) -> Result<Image<'a>> {
        Image::of(self.call, self.handle(node)?)
    }
}
