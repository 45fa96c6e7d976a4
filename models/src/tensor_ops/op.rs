//! The operations. "Plane" is what the last two dimensions are, of height and width.

/// What an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// One of what the program is given.
    Given(usize),
    /// What an earlier operation made.
    Result(usize),
}

/// An operation, and whether its result is handed out.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// Whether who runs the program gets the result.
    pub keep: bool,
}

/// An operation. Shapes broadcast as in NumPy; factors are f32, as NumPy and torch take a Python number.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "what fields are, each operation says")]
pub enum Op {
    /// `scale · a + shift`.
    Affine { a: Operand, scale: f32, shift: f32 },
    /// `of_a · a + of_b · b`.
    Add { a: Operand, b: Operand, of_a: f32, of_b: f32 },
    /// `a · b`.
    Mul { a: Operand, b: Operand },
    /// `a / b`; by 0 as IEEE 754 says.
    Div { a: Operand, b: Operand },
    /// `a + (b − a) · c`; of one number for all where there is no c.
    Lerp { a: Operand, b: Operand, c: Option<Operand>, share: f32 },
    /// Between `low` and `high`, which may be infinite; NaN stays. NumPy's `clip`.
    Clamp { a: Operand, low: f32, high: f32 },
    /// `|a|`.
    Abs { a: Operand },
    /// `√a`; NaN where a is below 0.
    Sqrt { a: Operand },
    /// Of an axis the entries from `from` to `until`, which is not included.
    Slice { a: Operand, axis: usize, from: usize, until: usize },
    /// a, then b along an axis; all other sizes are the same.
    Concat { a: Operand, b: Operand, axis: usize },
    /// Of the first axis the entries whose numbers b has, `(count,)`: whole numbers from 0. NumPy's `take`.
    Take { a: Operand, b: Operand },
    /// The same numbers in other sizes, one of which may be −1: what is left.
    Reshape { a: Operand, dims: Vec<i64> },
    /// Axis i of the result is axis `axes[i]`, for as many as a has. NumPy's `transpose`.
    Permute { a: Operand, axes: Vec<usize> },
    /// An image as `(1, channels, height, width)` of 0 to 1: each byte over 255.
    ToFloats { a: Operand },
    /// `(1, 1 | 3 | 4, height, width)` as an image: 0 to 1 times 255, rounded, halves to even; what is beyond is cut off, NaN
    /// is 0.
    ToImage { a: Operand },
    /// Over the axes of a bit set, which stay with the size 1. Sums are of f64, rounded to f32 once.
    Reduce { a: Operand, axes: u64, how: Reduction },
    /// Of the last two axes `(…, n, k)` and `(…, k, m)`; those before broadcast. Each sum is of f32, k in its order.
    MatMul { a: Operand, b: Operand },
    /// Each plane at another size.
    Resize { a: Operand, height: usize, width: usize, filter: Resampling },
    /// Each plane with a border. NumPy's `pad`.
    Pad { a: Operand, left: usize, right: usize, top: usize, bottom: usize, border: Border },
    /// Each plane moved: a result's pixel (x, y) is what lies at `(m0 x + m1 y + m2, m3 x + m4 y + m5)`, of the four around it
    /// by their distance; whole coordinates are pixels' middles. Beyond the plane everything is `outside`. OpenCV's
    /// `warpAffine` with `WARP_INVERSE_MAP` without its rounding of coordinates; torch's `grid_sample`.
    Warp { a: Operand, height: usize, width: usize, matrix: [f64; 6], outside: f32 },
    /// Each plane under a Gaussian of these sigmas in x and y over so many pixels, an odd count; 0: as many as the sigma needs. With
    /// a sigma of 0 that axis stays. Borders are reflected about the outermost pixel. OpenCV's `GaussianBlur` of floats.
    Blur { a: Operand, sigmas: [f64; 2], sizes: [usize; 2] },
}

/// What is made of the numbers along axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The mean.
    Mean,
    /// The least; NaN if there is one.
    Min,
    /// The largest; NaN if there is one.
    Max,
    /// The standard deviation of all of them, not of a sample: NumPy's.
    Std,
    /// Such a share of them is at most this, 0 to 1; between two neighbours by distance, as NumPy's and torch's are if nothing is
    /// said. NaN if there is one.
    Quantile(f64),
}

/// How pixels of another size are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resampling {
    /// The one that begins where this one does: torch's "nearest".
    Nearest,
    /// Of the two nearest of each side: torch's "bilinear", corners not aligned, not antialiased.
    Bilinear,
    /// Of the four nearest of each side, a = −0.75: torch's "bicubic", likewise.
    Bicubic,
    /// The mean of those that lie within: torch's "area".
    Area,
    /// A sinc in a window of three lobes, as wide as what comes out if that is coarser: Pillow's, of floats.
    Lanczos,
}

/// What a border is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Border {
    /// One number.
    Constant(f32),
    /// The outermost pixel.
    Edge,
    /// What lies as far within, without the outermost pixel; narrower than the plane.
    Reflect,
}
