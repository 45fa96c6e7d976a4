//! The innermost product: up to [`TILE_ROWS`] rows times one panel, one chain of multiply-adds per element.
#![allow(unsafe_code)]

use crate::Isa;
use crate::pack::PANEL;

/// Rows of one tile.
pub(crate) const TILE_ROWS: usize = 12;

/// `c[row][column] (+)= sum over k of rows[row][k] * panel[k][column]`, added in the order of `k`.
///
/// `rows` has 1 to 12 pointers. Columns computed: 16 if `narrow`, else 32. With `accumulate`, sums go on from
/// what `c` holds, else from zero.
///
/// # Safety
/// Each row must be readable for `k` values, `panel` for `k * 32`, `c` writable for the columns computed in
/// each of `rows.len()` rows `c_stride` apart; `isa` must be one this processor has.
pub(crate) unsafe fn tile(
    isa: Isa,
    rows: &[*const f32],
    k: usize,
    panel: *const f32,
    c: *mut f32,
    c_stride: usize,
    narrow: bool,
    accumulate: bool,
) {
    debug_assert!(!rows.is_empty() && rows.len() <= TILE_ROWS);
    // SAFETY: the caller's promises are passed on; each arm only runs where its features exist.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => {
                x86::tile_avx512(rows, k, panel, c, c_stride, narrow, accumulate);
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::tile_avx2(rows, k, panel, c, c_stride, narrow, accumulate),
            _ => tile_portable(rows, k, panel, c, c_stride, narrow, accumulate),
        }
    }
}

unsafe fn tile_portable(
    rows: &[*const f32],
    k: usize,
    panel: *const f32,
    c: *mut f32,
    c_stride: usize,
    narrow: bool,
    accumulate: bool,
) {
    const LANES: usize = 8;
    let columns = if narrow { PANEL / 2 } else { PANEL };
    for (index, row) in rows.iter().enumerate() {
        for first in (0..columns).step_by(LANES) {
            let mut sum = [0f32; LANES];
            // SAFETY: within what the caller promised for `c`, this row and `panel`.
            unsafe {
                let out = c.add(index * c_stride + first);
                if accumulate {
                    std::ptr::copy_nonoverlapping(out, sum.as_mut_ptr(), LANES);
                }
                for step in 0..k {
                    let a = *row.add(step);
                    let b = panel.add(step * PANEL + first);
                    for (lane, sum) in sum.iter_mut().enumerate() {
                        *sum += a * *b.add(lane);
                    }
                }
                std::ptr::copy_nonoverlapping(sum.as_ptr(), out, LANES);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::TILE_ROWS;
    use crate::pack::PANEL;

    /// Steps of `k` written out one after the other: the counting of a loop takes turns from the multiplications.
    const UNROLL: usize = 4;
    /// Steps of `k` between what is asked for from memory and what is used.
    const AHEAD: usize = 8;

    /// Calls the variant for `rows.len()`.
    macro_rules! by_rows {
        ($kernel:ident, $vectors:literal, $rows:ident, [$($count:literal)*], $args:tt) => {
            match $rows.len() {
                $($count => $kernel::<$count, $vectors> $args,)*
                _ => {}
            }
        };
    }

    #[target_feature(enable = "avx512f,fma")]
    pub(super) unsafe fn tile_avx512(
        rows: &[*const f32],
        k: usize,
        panel: *const f32,
        c: *mut f32,
        c_stride: usize,
        narrow: bool,
        accumulate: bool,
    ) {
        // SAFETY: as the caller promised.
        unsafe {
            if narrow {
                by_rows!(avx512, 1, rows, [1 2 3 4 5 6 7 8 9 10 11 12], (rows, k, panel, c, c_stride, accumulate));
            } else {
                by_rows!(avx512, 2, rows, [1 2 3 4 5 6 7 8 9 10 11 12], (rows, k, panel, c, c_stride, accumulate));
            }
        }
    }

    #[target_feature(enable = "avx512f,fma")]
    unsafe fn avx512<const ROWS: usize, const VECTORS: usize>(
        rows: &[*const f32],
        k: usize,
        panel: *const f32,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        const { assert!(ROWS <= TILE_ROWS && VECTORS * 16 <= PANEL) };
        // SAFETY: offsets stay within the k values of a row, k * 32 of the panel, and ROWS rows of `c`.
        unsafe {
            let mut base = [std::ptr::null(); ROWS];
            base.copy_from_slice(&rows[..ROWS]);
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            if accumulate {
                for row in 0..ROWS {
                    for vector in 0..VECTORS {
                        sums[row][vector] = _mm512_loadu_ps(c.add(row * c_stride + vector * 16));
                    }
                }
            }
            let mut multiply_add = |step: usize, b: *const f32| {
                let mut columns = [_mm512_setzero_ps(); VECTORS];
                for vector in 0..VECTORS {
                    columns[vector] = _mm512_loadu_ps(b.add(vector * 16));
                }
                for row in 0..ROWS {
                    let a = _mm512_set1_ps(*base[row].add(step));
                    for vector in 0..VECTORS {
                        sums[row][vector] = _mm512_fmadd_ps(a, columns[vector], sums[row][vector]);
                    }
                }
            };
            let mut b = panel;
            for first in (0..k - k % UNROLL).step_by(UNROLL) {
                for step in 0..UNROLL {
                    let b = b.add(step * PANEL);
                    for vector in 0..VECTORS {
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * PANEL + vector * 16).cast());
                    }
                    multiply_add(first + step, b);
                }
                b = b.wrapping_add(UNROLL * PANEL);
            }
            for step in k - k % UNROLL..k {
                multiply_add(step, b);
                b = b.wrapping_add(PANEL);
            }
            for row in 0..ROWS {
                for vector in 0..VECTORS {
                    _mm512_storeu_ps(c.add(row * c_stride + vector * 16), sums[row][vector]);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile_avx2(
        rows: &[*const f32],
        k: usize,
        panel: *const f32,
        c: *mut f32,
        c_stride: usize,
        narrow: bool,
        accumulate: bool,
    ) {
        // 16 registers hold 6 rows of 16 columns, so a tile is done in up to four parts.
        for (part, rows) in rows.chunks(6).enumerate() {
            for first in (0..if narrow { 16 } else { 32 }).step_by(16) {
                // SAFETY: parts of what the caller promised.
                unsafe {
                    let c = c.add(part * 6 * c_stride + first);
                    by_rows!(avx2, 2, rows, [1 2 3 4 5 6], (rows, k, panel.add(first), c, c_stride, accumulate));
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const ROWS: usize, const VECTORS: usize>(
        rows: &[*const f32],
        k: usize,
        panel: *const f32,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        // SAFETY: offsets stay within the k values of a row, k * 32 of the panel, and ROWS rows of `c`.
        unsafe {
            let mut base = [std::ptr::null(); ROWS];
            base.copy_from_slice(&rows[..ROWS]);
            let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
            if accumulate {
                for row in 0..ROWS {
                    for vector in 0..VECTORS {
                        sums[row][vector] = _mm256_loadu_ps(c.add(row * c_stride + vector * 8));
                    }
                }
            }
            let mut multiply_add = |step: usize, b: *const f32| {
                let mut columns = [_mm256_setzero_ps(); VECTORS];
                for vector in 0..VECTORS {
                    columns[vector] = _mm256_loadu_ps(b.add(vector * 8));
                }
                for row in 0..ROWS {
                    let a = _mm256_set1_ps(*base[row].add(step));
                    for vector in 0..VECTORS {
                        sums[row][vector] = _mm256_fmadd_ps(a, columns[vector], sums[row][vector]);
                    }
                }
            };
            let mut b = panel;
            for first in (0..k - k % UNROLL).step_by(UNROLL) {
                for step in 0..UNROLL {
                    let b = b.add(step * PANEL);
                    // A cache line is two vectors.
                    for vector in (0..VECTORS).step_by(2) {
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * PANEL + vector * 8).cast());
                    }
                    multiply_add(first + step, b);
                }
                b = b.wrapping_add(UNROLL * PANEL);
            }
            for step in k - k % UNROLL..k {
                multiply_add(step, b);
                b = b.wrapping_add(PANEL);
            }
            for row in 0..ROWS {
                for vector in 0..VECTORS {
                    _mm256_storeu_ps(c.add(row * c_stride + vector * 8), sums[row][vector]);
                }
            }
        }
    }
}
