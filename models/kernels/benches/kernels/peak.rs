//! What this machine does at best, measured on the spot: products of registers or tiles, nothing loaded; copies.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use latentd_kernels::Isa;
use rayon::prelude::*;

const WINDOW: Duration = Duration::from_millis(200);

/// GFLOP/s of all threads of the pool together: the best of three.
fn rate(run: impl Fn() -> f64 + Sync) -> f64 {
    let once = || -> f64 {
        let rates = rayon::broadcast(|_| {
            let begun = Instant::now();
            let mut done = 0.0;
            while begun.elapsed() < WINDOW {
                done += run();
            }
            done / begun.elapsed().as_secs_f64()
        });
        rates.iter().sum::<f64>() * 1e-9
    };
    (0..3).map(|_| once()).fold(0.0, f64::max)
}

/// f32 multiply-adds.
pub fn f32_rate(isa: Isa) -> f64 {
    match isa.name() {
        // SAFETY: the isa's name says that the instructions exist.
        #[cfg(target_arch = "x86_64")]
        "amx" | "avx512bf16" | "avx512" => rate(|| unsafe { x86::avx512() }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        "avx2" => rate(|| unsafe { x86::avx2() }),
        _ => rate(portable),
    }
}

/// bf16 products with f32 sums: of tiles, of pairs, or in f32.
pub fn bf16_rate(isa: Isa) -> f64 {
    match isa.name() {
        // SAFETY: the isa's name is proof that tiles exist and are permitted.
        #[cfg(target_arch = "x86_64")]
        "amx" => rate(|| unsafe { x86::tiles() }),
        // SAFETY: as above, of the instruction.
        #[cfg(target_arch = "x86_64")]
        "avx512bf16" => rate(|| unsafe { x86::pairs() }),
        _ => f32_rate(isa),
    }
}

/// GB/s of a copy from `read` bytes to `written` by all threads, both counted: what a kernel that does nothing but read
/// and write would reach with as much. The best of seven.
pub fn copy_rate(read: usize, written: usize) -> f64 {
    let (from, mut to) = (vec![1u8; read], vec![1u8; written]);
    let parts = 4 * rayon::current_num_threads();
    let (read_part, written_part) = (read.div_ceil(parts).max(1), written.div_ceil(parts).max(1));
    let once = || {
        let begun = Instant::now();
        to.par_chunks_mut(written_part).zip(from.par_chunks(read_part)).for_each(|(to, from)| {
            let both = to.len().min(from.len());
            to[..both].copy_from_slice(&from[..both]);
            // What has no counterpart is read alone.
            std::hint::black_box(from[both..].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
        });
        begun.elapsed().as_secs_f64()
    };
    let best = std::iter::repeat_with(once).take(7).fold(f64::INFINITY, f64::min);
    (read + written) as f64 / best * 1e-9
}

/// Multiply-adds as the compiler makes them of plain Rust.
fn portable() -> f64 {
    const LOOPS: usize = 20_000;
    let factor = std::hint::black_box([0.5f32; 48]);
    let mut sums = [0f32; 48];
    for _ in 0..LOOPS {
        for (sum, factor) in sums.iter_mut().zip(&factor) {
            *sum = *sum * factor + factor;
        }
    }
    std::hint::black_box(sums);
    (LOOPS * 48 * 2) as f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_dpbf16_ps,
        _mm512_fmadd_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    };

    const LOOPS: usize = 20_000;

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512() -> f64 {
        let factor = std::hint::black_box(_mm512_set1_ps(0.5));
        let mut sums = [_mm512_setzero_ps(); 24];
        for _ in 0..LOOPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(factor, *sum, factor);
            }
        }
        std::hint::black_box(sums);
        (LOOPS * 24 * 32) as f64
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn pairs() -> f64 {
        // SAFETY: the same 512 bits.
        let ones = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(0x3f80_3f80)) };
        let factor = std::hint::black_box(ones);
        let mut sums = [_mm512_setzero_ps(); 24];
        for _ in 0..LOOPS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, factor, factor);
            }
        }
        std::hint::black_box(sums);
        (LOOPS * 24 * 64) as f64
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2() -> f64 {
        let factor = std::hint::black_box(_mm256_set1_ps(0.5));
        let mut sums = [_mm256_setzero_ps(); 12];
        for _ in 0..LOOPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(factor, *sum, factor);
            }
        }
        std::hint::black_box(sums);
        (LOOPS * 12 * 16) as f64
    }

    #[repr(C, align(64))]
    struct Config([u8; 64]);

    pub(super) unsafe fn tiles() -> f64 {
        let mut config = Config([0; 64]);
        config.0[0] = 1;
        for tile in 0..8 {
            config.0[16 + 2 * tile] = 64;
            config.0[48 + tile] = 16;
        }
        // SAFETY: touches tiles only, which the caller may use; the configuration is valid.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {n}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &raw const config, n = inout(reg) LOOPS => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
        (LOOPS * 4 * 2 * 16 * 16 * 32) as f64
    }
}
