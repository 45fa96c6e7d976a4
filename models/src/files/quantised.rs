//! Quantised weights, as GGUF has them, to f32. What the bits of a block mean is left to candle.

use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;
use rayon::prelude::*;
use std::borrow::Cow;

use super::allocate::{Unwidened, zeros};
use super::container::ElementType;

/// Blocks that one thread takes at once: what it makes of them stays in its cache.
const TOGETHER: usize = 256;

/// What candle's blocks must be aligned to.
const ALIGNMENT: usize = 4;

fn candle_type(dtype: ElementType) -> Option<GgmlDType> {
    Some(match dtype {
        ElementType::Q4_0 => GgmlDType::Q4_0,
        ElementType::Q4_1 => GgmlDType::Q4_1,
        ElementType::Q5_0 => GgmlDType::Q5_0,
        ElementType::Q5_1 => GgmlDType::Q5_1,
        ElementType::Q8_0 => GgmlDType::Q8_0,
        ElementType::Q2K => GgmlDType::Q2K,
        ElementType::Q3K => GgmlDType::Q3K,
        ElementType::Q4K => GgmlDType::Q4K,
        ElementType::Q5K => GgmlDType::Q5K,
        ElementType::Q6K => GgmlDType::Q6K,
        ElementType::Q8K => GgmlDType::Q8K,
        _ => return None,
    })
}

/// The elements of whole blocks as f32, little-endian; what is wrong where they are none.
pub(super) fn to_f32(bytes: &[u8], dtype: ElementType) -> Result<Vec<u8>, Unwidened> {
    let refused = || format!("has {} bytes, which are no blocks of {}", bytes.len(), dtype.name());
    let (Some(candle), Some((elements, size))) = (candle_type(dtype), dtype.block()) else {
        return Err(refused().into());
    };
    // candle takes it on trust that these agree.
    let agree = (candle.block_size(), candle.type_size()) == (elements, size);
    if !agree || !bytes.len().is_multiple_of(size) {
        return Err(refused().into());
    }
    let mut floats = zeros(bytes.len() / size * elements * size_of::<f32>())?;
    floats
        .par_chunks_mut(TOGETHER * elements * size_of::<f32>())
        .zip(bytes.par_chunks(TOGETHER * size))
        .try_for_each(|(floats, blocks)| {
            let (floats, _) = floats.as_chunks_mut::<4>();
            let blocks = candle.from_data(Cow::Borrowed(aligned(blocks, &mut vec![])));
            let CpuStorage::F32(values) =
                blocks.dequantize(floats.len()).map_err(|error| error.to_string())?
            else {
                return Err(refused());
            };
            for (to, value) in floats.iter_mut().zip(values) {
                *to = value.to_le_bytes();
            }
            Ok::<_, String>(())
        })?;
    Ok(floats)
}

/// The same bytes where candle may read them; a copy if they are elsewhere.
fn aligned<'a>(bytes: &'a [u8], copy: &'a mut Vec<u8>) -> &'a [u8] {
    let off = |bytes: &[u8]| (bytes.as_ptr() as usize) % ALIGNMENT;
    if off(bytes) == 0 {
        return bytes;
    }
    copy.resize(bytes.len() + ALIGNMENT, 0);
    let begin = (ALIGNMENT - off(copy)) % ALIGNMENT;
    let Some(place) = copy.get_mut(begin..begin + bytes.len()) else { return bytes };
    place.copy_from_slice(bytes);
    place
}
