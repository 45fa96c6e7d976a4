//! What flows between layers: f32 or bf16 numbers in aligned memory that is used again.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};
use half::bf16;
use latentd_kernels::Buffer;
use rayon::prelude::*;

/// What numbers between layers are, and weights with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit float; weights as they are stored.
    F32,
    /// The upper half of an f32, summed in f32; weights rounded to it. What is sensitive stays f32: time embeddings,
    /// statistics of norms, softmax, the residual stream of the text encoder, and everything outside the networks.
    Bf16,
}

impl Precision {
    /// What this machine is quickest in with the kernels that run here.
    pub fn best() -> Self {
        Self::best_and_why().0
    }

    /// The same with the reason; see [`latentd_kernels::bf16_is_quicker`].
    pub fn best_and_why() -> (Self, String) {
        let (bf16, why) = latentd_kernels::bf16_is_quicker();
        (if bf16 { Self::Bf16 } else { Self::F32 }, why)
    }

    /// By its name; `None` is what "auto" leaves to [`Self::best`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16].into_iter().find(|precision| precision.name() == name)
    }

    /// "f32" or "bf16".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Numbers in channels-last order, `(batch, height, width, channels)` or `(batch, tokens, channels)`. A clone shares
/// them.
#[derive(Clone)]
pub struct Activations {
    values: Arc<Values>,
    dims: Vec<usize>,
}

/// The numbers.
pub(super) enum Values {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
}

impl Values {
    /// Room for results of a precision.
    pub(super) fn new(precision: Precision, length: usize) -> Self {
        match precision {
            Precision::F32 => Self::F32(Buffer::new(length)),
            Precision::Bf16 => Self::Bf16(Buffer::new(length)),
        }
    }
}

/// Values handled by one task.
const CHUNK: usize = 1 << 15;

impl Activations {
    pub(super) fn new(values: Values, dims: impl Into<Vec<usize>>) -> Self {
        Self { values: Arc::new(values), dims: dims.into() }
    }

    /// A copy of an f32 tensor.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        Self::from_f32(&tensor.flatten_all()?.to_vec1::<f32>()?, tensor.dims())
    }

    /// A copy of these numbers.
    pub fn from_f32(values: &[f32], dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        if dims.iter().product::<usize>() != values.len() {
            bail!("{} numbers are not {dims:?}", values.len());
        }
        let mut buffer = Buffer::new(values.len());
        buffer.copy_from_slice(values);
        Ok(Self::new(Values::F32(buffer), dims))
    }

    /// One after the other along the first dimension.
    pub fn stack(parts: &[&Self]) -> Result<Self> {
        let mut dims = parts.first().map_or(vec![], |part| part.dims.clone());
        let mut values = vec![];
        for part in parts {
            if part.dims.get(1..) != dims.get(1..) {
                bail!("activations {:?} and {dims:?} cannot be stacked", part.dims);
            }
            values.extend_from_slice(part.f32()?);
        }
        if let Some(first) = dims.first_mut() {
            *first = parts.iter().filter_map(|part| part.dims.first()).sum();
        }
        Self::from_f32(&values, dims)
    }

    /// f32 `(rows, width)` → each row `(1, width)`.
    pub fn split_rows(&self) -> Result<Vec<Self>> {
        let width = self.channels();
        self.f32()?.chunks_exact(width.max(1)).map(|row| Self::from_f32(row, [1, width])).collect()
    }

    /// `(batch, channels, height, width)` f32, as files and users have it → channels last.
    pub fn from_channels_first(tensor: &Tensor) -> Result<Self> {
        tensor.dims4()?;
        Self::from_tensor(&tensor.permute((0, 2, 3, 1))?)
    }

    /// As an f32 tensor of the same shape.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Tensor::from_slice(self.to(Precision::F32).f32()?, self.dims.as_slice(), &Device::Cpu)
    }

    /// Channels last → an f32 tensor `(batch, channels, height, width)`.
    pub fn to_channels_first(&self) -> Result<Tensor> {
        self.to_tensor()?.permute((0, 3, 1, 2))?.contiguous()
    }

    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// `(batch, tokens, channels)`.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        match *self.dims {
            [batch, tokens, channels] => Ok((batch, tokens, channels)),
            _ => bail!("activations {:?} are no sequences", self.dims),
        }
    }

    /// `(batch, height, width, channels)`.
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        match *self.dims {
            [batch, height, width, channels] => Ok((batch, height, width, channels)),
            _ => bail!("activations {:?} are no pictures", self.dims),
        }
    }

    /// The last dimension's size.
    pub fn channels(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// How many vectors of channels there are.
    pub fn rows(&self) -> usize {
        self.dims.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    /// What the numbers are.
    pub fn precision(&self) -> Precision {
        match *self.values {
            Values::F32(_) => Precision::F32,
            Values::Bf16(_) => Precision::Bf16,
        }
    }

    /// The same numbers in other dimensions.
    pub fn reshaped(self, dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        if dims.iter().product::<usize>() != self.dims.iter().product::<usize>() {
            bail!("activations {:?} cannot become {dims:?}", self.dims);
        }
        Ok(Self { values: self.values, dims })
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    /// The numbers, which must be f32.
    pub(super) fn f32(&self) -> Result<&[f32]> {
        match &*self.values {
            Values::F32(values) => Ok(values),
            Values::Bf16(_) => bail!("activations {:?} are bf16, f32 is needed", self.dims),
        }
    }

    /// The numbers, which must be bf16.
    pub(super) fn bf16(&self) -> Result<&[bf16]> {
        match &*self.values {
            Values::Bf16(values) => Ok(values),
            Values::F32(_) => bail!("activations {:?} are f32, bf16 is needed", self.dims),
        }
    }

    /// In another precision, rounded to it; shared if they are in it.
    #[must_use]
    pub fn to(&self, precision: Precision) -> Self {
        let values = match (&*self.values, precision) {
            (Values::F32(from), Precision::Bf16) => {
                let mut to = Buffer::new(from.len());
                map(from, &mut to, bf16::from_f32);
                Values::Bf16(to)
            }
            (Values::Bf16(from), Precision::F32) => {
                let mut to = Buffer::new(from.len());
                map(from, &mut to, bf16::to_f32);
                Values::F32(to)
            }
            _ => return self.clone(),
        };
        Self::new(values, self.dims.clone())
    }

    /// The sum of two of equal shape, in the precision of the first.
    pub fn add(&self, other: &Self) -> Result<Self> {
        if self.dims != other.dims {
            bail!("activations {:?} and {:?} cannot be added", self.dims, other.dims);
        }
        let other = other.to(Precision::F32);
        let mut sums = Buffer::new(other.f32()?.len());
        sums.copy_from_slice(other.f32()?);
        match &*self.values {
            Values::F32(values) => sums.iter_mut().zip(&**values).for_each(|(sum, value)| *sum += value),
            Values::Bf16(values) => {
                sums.iter_mut().zip(&**values).for_each(|(sum, value)| *sum += value.to_f32());
            }
        }
        Ok(Self::new(Values::F32(sums), self.dims.clone()).to(self.precision()))
    }

    /// Joined along the channels.
    pub fn cat_channels(&self, other: &Self) -> Result<Self> {
        if self.dims.split_last().map(|(_, rest)| rest) != other.dims.split_last().map(|(_, rest)| rest) {
            bail!("activations {:?} and {:?} cannot be joined", self.dims, other.dims);
        }
        let widths = (self.channels(), other.channels());
        if widths.0 == 0 || widths.1 == 0 {
            bail!("activations {:?} and {:?} have no channels to join", self.dims, other.dims);
        }
        let values = match (&*self.values, &*other.values) {
            (Values::F32(a), Values::F32(b)) => Values::F32(interleaved(a, b, widths)),
            (Values::Bf16(a), Values::Bf16(b)) => Values::Bf16(interleaved(a, b, widths)),
            _ => bail!("activations of different precision cannot be joined"),
        };
        let mut dims = self.dims.clone();
        if let Some(last) = dims.last_mut() {
            *last += widths.1;
        }
        Ok(Self::new(values, dims))
    }

    /// `(batch, height, width, channels)` → `(batch, rows, columns, channels)`, nearest neighbour, torch's rounding.
    /// What has that size already is shared.
    pub fn resized_nearest(&self, rows: usize, columns: usize) -> Result<Self> {
        let (batch, height, width, channels) = self.dims4()?;
        if (height, width) == (rows, columns) {
            return Ok(self.clone());
        }
        let source = |to: usize, from_size: usize, to_size: usize| {
            ((to as f32 * (from_size as f32 / to_size as f32)) as usize).min(from_size.saturating_sub(1))
        };
        let pixel = |index: usize| {
            let (image, rest) = (index / (rows * columns), index % (rows * columns));
            let y = source(rest / columns, height, rows);
            (image * height + y) * width + source(rest % columns, width, columns)
        };
        let count = batch * rows * columns;
        let values = match &*self.values {
            Values::F32(values) => Values::F32(gathered(values, channels, count, pixel)),
            Values::Bf16(values) => Values::Bf16(gathered(values, channels, count, pixel)),
        };
        Ok(Self::new(values, [batch, rows, columns, channels]))
    }
}

fn map<A: Copy + Sync, B: Send>(from: &[A], to: &mut [B], f: impl Fn(A) -> B + Sync) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f(*from);
        }
    });
}

/// Rows of `a` and `b`, of these widths, side by side.
fn interleaved<T: latentd_kernels::Plain>(a: &[T], b: &[T], widths: (usize, usize)) -> Buffer<T> {
    let mut joined = Buffer::new(a.len() + b.len());
    let rows = (CHUNK / (widths.0 + widths.1).max(1)).max(1);
    let parts = a.par_chunks((rows * widths.0).max(1)).zip(b.par_chunks((rows * widths.1).max(1)));
    joined.par_chunks_mut((rows * (widths.0 + widths.1)).max(1)).zip(parts).for_each(|(to, (a, b))| {
        let rows = a.chunks_exact(widths.0.max(1)).zip(b.chunks_exact(widths.1.max(1)));
        for (to, (a, b)) in to.chunks_exact_mut((widths.0 + widths.1).max(1)).zip(rows) {
            let (left, right) = to.split_at_mut(widths.0);
            left.copy_from_slice(a);
            right.copy_from_slice(b);
        }
    });
    joined
}

/// `count` rows of `width` values; row `i` is row `source(i)` of `from`.
fn gathered<T: latentd_kernels::Plain>(
    from: &[T],
    width: usize,
    count: usize,
    source: impl Fn(usize) -> usize + Sync,
) -> Buffer<T> {
    let mut to = Buffer::new(count * width);
    to.par_chunks_mut(width.max(1)).with_min_len(256).enumerate().for_each(|(index, row)| {
        row.copy_from_slice(&from[source(index) * width..][..width]);
    });
    to
}
