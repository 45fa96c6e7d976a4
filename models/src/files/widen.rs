//! From the types that files have to those that weights have in memory: f32, f16 and bf16.
//!
//! 8-bit floats of both kinds are f16 exactly. With a scale beside them, as ComfyUI writes them, they become f32; so do
//! f64 and quantised weights.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::f16;
use latentd_kernels::{WeightDtype, Weights};
use rayon::prelude::*;

use super::allocate::{Unwidened, zeros};
use super::container::{ElementType, Entry};
use super::quantised;

/// The types that weights may have in a file, for a sentence.
pub(super) const NAMES: &str =
    "f32, f16, bf16, f64, f8_e4m3, f8_e5m2, q4_0, q4_1, q5_0, q5_1, q8_0 and q2_k to q8_k";

/// Elements that one thread takes at once.
const TOGETHER: usize = 1 << 16;

/// Ends the names of what 8-bit weights are multiplied by, where the weight's ends with `.weight`: as ComfyUI wrote them
/// first, and as it writes them now.
const SCALES: [&str; 2] = [".scale_weight", ".weight_scale"];

/// Ends the names of what the layer's inputs are scaled by where both are 8 bits; and stands for a whole file of such
/// weights. Nothing here needs them.
const UNUSED: [&str; 3] = [".scale_input", ".input_scale", ".comfy_quant"];

/// The file as a whole has scaled weights.
const MARK: &str = "scaled_fp8";

/// What a weight is multiplied by.
pub(super) struct Scale<'a> {
    pub bytes: Cow<'a, [u8]>,
    pub entry: &'a Entry,
}

/// Takes out of a file's tensors what says of the file that its weights are scaled.
pub(super) fn take_mark(entries: &mut BTreeMap<String, Entry>) {
    entries.retain(|name, _| name.rsplit('.').next() != Some(MARK));
}

/// Takes the scales of 8-bit weights out of a model's tensors: they belong to the weights. Gives them by the weight's name.
pub(super) fn take_scales(entries: &mut BTreeMap<String, Entry>) -> BTreeMap<String, Entry> {
    let is_f8 = |entry: &Entry| matches!(entry.dtype, ElementType::F8E4M3 | ElementType::F8E5M2);
    let weights: Vec<String> =
        entries.iter().filter(|(_, entry)| is_f8(entry)).map(|(name, _)| name.clone()).collect();
    let mut scales = BTreeMap::new();
    for weight in weights {
        let Some(layer) = weight.strip_suffix(".weight") else { continue };
        for ending in SCALES {
            if let Some(scale) = entries.remove(&format!("{layer}{ending}")) {
                scales.insert(weight.clone(), scale);
            }
        }
        for ending in UNUSED {
            entries.remove(&format!("{layer}{ending}"));
        }
    }
    scales
}

/// The type of a tensor's elements as weights; `None` if they are none.
pub(super) fn weight_dtype(dtype: ElementType, is_scaled: bool) -> Option<WeightDtype> {
    match dtype {
        ElementType::F32 | ElementType::F64 => Some(WeightDtype::F32),
        ElementType::F8E4M3 | ElementType::F8E5M2 if is_scaled => Some(WeightDtype::F32),
        ElementType::F16 | ElementType::F8E4M3 | ElementType::F8E5M2 => Some(WeightDtype::F16),
        ElementType::Bf16 => Some(WeightDtype::Bf16),
        quantised if quantised.is_quantised() => Some(WeightDtype::F32),
        _ => None,
    }
}

/// A tensor's elements in the type that [`weight_dtype`] says.
pub(super) fn widen<'a>(
    bytes: Cow<'a, [u8]>,
    entry: &Entry,
    scale: Option<&Scale<'_>>,
) -> Result<Cow<'a, [u8]>, Unwidened> {
    match entry.dtype {
        ElementType::F64 => {
            let narrow = |from: &[u8; 8]| (f64::from_le_bytes(*from) as f32).to_le_bytes();
            Ok(Cow::Owned(each(&bytes, narrow)?))
        }
        ElementType::F8E4M3 => eight_bits(&bytes, f16_of_e4m3, entry, scale),
        ElementType::F8E5M2 => eight_bits(&bytes, f16_of_e5m2, entry, scale),
        dtype if dtype.is_quantised() => quantised::to_f32(&bytes, dtype).map(Cow::Owned),
        _ => Ok(bytes),
    }
}

fn eight_bits(
    bytes: &[u8],
    widened: impl Fn(u8) -> f16,
    entry: &Entry,
    scale: Option<&Scale<'_>>,
) -> Result<Cow<'static, [u8]>, Unwidened> {
    let table: [f16; 256] = std::array::from_fn(|byte| widened(byte as u8));
    let value = |byte: u8| table.get(usize::from(byte)).copied().unwrap_or_default();
    let Some(scale) = scale else {
        return Ok(Cow::Owned(each(bytes, |[byte]: &[u8; 1]| value(*byte).to_le_bytes())?));
    };
    let scales = scale.values()?;
    let rows = entry.shape.first().copied().unwrap_or(1);
    let for_each_row = scales.len() == rows && scale.entry.shape.first() == Some(&rows);
    if scales.len() != 1 && !for_each_row {
        return Err(format!("has scales of shape {:?} for {rows} outputs", scale.entry.shape).into());
    }
    let values: [f32; 256] = std::array::from_fn(|byte| value(byte as u8).to_f32());
    let row = (bytes.len() / scales.len().max(1)).max(1);
    let mut scaled = zeros(bytes.len() * 4)?;
    scaled.par_chunks_mut(row * 4).zip(bytes.par_chunks(row)).zip(&scales).for_each(|((to, row), scale)| {
        each_into(row, to, |[byte]: &[u8; 1]| {
            (values.get(usize::from(*byte)).copied().unwrap_or_default() * scale).to_le_bytes()
        });
    });
    Ok(Cow::Owned(scaled))
}

/// Elements of `N` bytes to elements of `M`, on all threads.
fn each<const N: usize, const M: usize>(
    bytes: &[u8],
    make: impl Fn(&[u8; N]) -> [u8; M] + Sync,
) -> crate::Result<Vec<u8>> {
    let mut made = zeros(bytes.len() / N * M)?;
    each_into(bytes, &mut made, make);
    Ok(made)
}

fn each_into<const N: usize, const M: usize>(
    bytes: &[u8],
    made: &mut [u8],
    make: impl Fn(&[u8; N]) -> [u8; M] + Sync,
) {
    let (from, to) = (bytes.as_chunks::<N>().0, made.as_chunks_mut::<M>().0);
    to.par_chunks_mut(TOGETHER).zip(from.par_chunks(TOGETHER)).for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = make(from);
        }
    });
}

impl Scale<'_> {
    /// One for all, or one for each output.
    fn values(&self) -> Result<Vec<f32>, Unwidened> {
        let dtype = self.entry.dtype;
        let of_scales = || format!("has scales of type {}", dtype.name());
        let weights = match dtype {
            ElementType::F64 => &widen(Cow::Borrowed(&self.bytes), self.entry, None)?,
            ElementType::F32 | ElementType::F16 | ElementType::Bf16 => &self.bytes,
            _ => return Err(of_scales().into()),
        };
        let dtype = weight_dtype(dtype, false).ok_or_else(of_scales)?;
        Ok(Weights { dtype, bytes: weights }.to_f32())
    }
}

/// Micikevicius et al. 2022: no infinities, 0x7f is no number, the exponent's bias is 7.
fn f16_of_e4m3(byte: u8) -> f16 {
    let magnitude = byte & 0x7f;
    if magnitude == 0x7f {
        return f16::NAN;
    }
    let (exponent, mantissa) = (i32::from(magnitude >> 3), f32::from(magnitude & 7));
    let value = if exponent == 0 {
        mantissa * 2f32.powi(-9)
    } else {
        (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7)
    };
    f16::from_f32(if byte & 0x80 == 0 { value } else { -value })
}

/// An f16 without its last eight bits.
fn f16_of_e5m2(byte: u8) -> f16 {
    f16::from_bits(u16::from(byte) << 8)
}
