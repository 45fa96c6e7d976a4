//! f16 to f32.
#![allow(unsafe_code)]

use half::f16;

use crate::Isa;

/// Widens as many numbers as both have; `from` is little-endian and may begin anywhere.
pub(crate) fn widen_f16(isa: Isa, from: &[[u8; 2]], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        // SAFETY: `isa` is one this processor has.
        unsafe { widen_avx512(from, to) };
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: AVX2 paths are only chosen where F16C exists too.
        unsafe { widen_f16c(from, to) };
        return;
    }
    let _ = isa;
    widen_each(from, to);
}

fn widen_each(from: &[[u8; 2]], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f16::from_le_bytes(*from).to_f32();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn widen_f16c(from: &[[u8; 2]], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let ((chunks, rest), (to, rest_to)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (from, to) in chunks.iter().zip(to) {
        // SAFETY: chunks of 8.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())));
        };
    }
    widen_each(rest, rest_to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn widen_avx512(from: &[[u8; 2]], to: &mut [f32]) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtph_ps, _mm512_storeu_ps};
    let ((chunks, rest), (to, rest_to)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
    for (from, to) in chunks.iter().zip(to) {
        // SAFETY: chunks of 16.
        unsafe {
            _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())));
        };
    }
    widen_each(rest, rest_to);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number, from an odd address, and fewer than a vector holds.
    #[test]
    fn all_numbers_are_widened_exactly_everywhere() {
        let mut bytes = vec![0];
        bytes.extend((0..=u16::MAX).flat_map(u16::to_le_bytes));
        let (halves, _) = bytes[1..].as_chunks();
        for isa in Isa::available() {
            for count in [0, 1, 7, 21, halves.len() - 3] {
                let mut wide = vec![0.0; count];
                widen_f16(isa, &halves[..count], &mut wide);
                for (wide, half) in wide.iter().zip(halves) {
                    let half = f16::from_le_bytes(*half);
                    assert!(
                        *wide == half.to_f32() || wide.is_nan() && half.is_nan(),
                        "{}: {half}",
                        isa.name()
                    );
                }
            }
        }
    }
}
