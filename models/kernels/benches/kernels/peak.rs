//! What this machine's units do at best, measured on the spot: products of registers or tiles, nothing loaded.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use latentd_kernels::Isa;

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
pub fn f32_rate(isa: Isa) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    return match isa.name() {
        // SAFETY: the isa's name says that the instructions exist.
        "amx" | "avx512" => Some(rate(|| unsafe { x86::avx512() })),
        // SAFETY: as above.
        "avx2" => Some(rate(|| unsafe { x86::avx2() })),
        _ => None,
    };
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// bf16 tile products.
pub fn tile_rate(isa: Isa) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if isa.name() == "amx" {
        // SAFETY: `Isa::Amx` of that name is proof that tiles exist and are permitted.
        return Some(rate(|| unsafe { x86::tiles() }));
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_fmadd_ps, _mm512_set1_ps,
        _mm512_setzero_ps,
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
