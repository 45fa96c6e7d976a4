//! Which instructions the kernels use.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::processor::Processor;

/// An instruction set with a code path of its own. A value is proof that this processor has it: other crates
/// cannot name a variant, they get one from [`Isa::current`] or [`Isa::available`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust; any processor.
    #[non_exhaustive]
    Portable,
    /// AVX2 with FMA and F16C.
    #[non_exhaustive]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[non_exhaustive]
    Avx512,
    /// The same with BF16's product of pairs, chosen where that pays.
    #[non_exhaustive]
    Avx512Bf16,
    /// The same, and AMX's tiles with their bf16 product.
    #[non_exhaustive]
    Amx,
}

impl Isa {
    /// All of them with the names that `LATENTD_KERNELS` takes.
    const ALL: &[(Self, &'static str)] = &[
        (Self::Portable, "portable"),
        (Self::Avx2, "avx2"),
        (Self::Avx512, "avx512"),
        (Self::Avx512Bf16, "avx512bf16"),
        (Self::Amx, "amx"),
    ];

    /// The best this processor has; the environment variable `LATENTD_KERNELS` can choose a lesser one. Found
    /// once per process.
    pub fn current() -> Self {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let best = Self::detect();
            Self::wanted().ok().flatten().map_or(best, |wanted| wanted.min(best))
        })
    }

    /// What `LATENTD_KERNELS` asks for; an error says which names there are. Programs ask at their start, because
    /// [`Isa::current`] takes the best where the name is none.
    pub fn wanted() -> Result<Option<Self>, String> {
        let Some(wanted) = std::env::var_os("LATENTD_KERNELS").filter(|wanted| !wanted.is_empty()) else {
            return Ok(None);
        };
        let found = Self::ALL.iter().find(|(_, name)| wanted == *name);
        found.map(|(isa, _)| Some(*isa)).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("LATENTD_KERNELS is '{}'; it may be one of {}", wanted.display(), names.join(", "))
        })
    }

    /// Those that run here, least first.
    pub fn available() -> impl Iterator<Item = Self> {
        let best = Self::detect();
        Self::ALL.iter().map(|(isa, _)| *isa).filter(move |isa| *isa <= best)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(isa, _)| *isa == self).map_or("", |(_, name)| name)
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Self {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
        match (avx2, avx512, bf16) {
            (true, _, true) if amx::permitted() => Self::Amx,
            (true, _, true) if !is_intel() => Self::Avx512Bf16,
            (true, true, _) => Self::Avx512,
            (true, ..) => Self::Avx2,
            _ => Self::Portable,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Self {
        Self::Portable
    }
}

/// Intel's products of pairs take as long as four of f32 take: widening is quicker there (240 to 128 GFLOP/s measured for
/// 2048×640×640).
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    Processor::current().vendor == *b"GenuineIntel"
}

/// Whether this processor has tiles and the system lets this process use them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
mod amx {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::OnceLock;

    /// Asked once: the answer holds for all threads of the process.
    pub(super) fn permitted() -> bool {
        static PERMITTED: OnceLock<bool> = OnceLock::new();
        *PERMITTED.get_or_init(|| present() && request())
    }

    fn present() -> bool {
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILE) == BF16 | TILE
    }

    /// The kernel gives a process the tiles' large state only when it is asked to.
    fn request() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
        const TILE_DATA: libc::c_ulong = 18;
        // SAFETY: takes two numbers and changes nothing but what this process may use.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
    }
}

/// Other systems' ways to the tiles are not known here.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
mod amx {
    pub(super) fn permitted() -> bool {
        false
    }
}

/// Compiles one function body once per instruction set and calls the one for `isa`. The body is plain Rust that
/// the compiler vectorises; it must not use `mul_add`, so that every path gives the same bits.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($isa:ident: Isa, $($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        $vis fn $name($isa: $crate::Isa, $($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::inline_always, reason = "the body must be compiled into each variant")]
            fn body($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $ty),*) {
                body($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) {
                body($($arg),*);
            }
            match $isa {
                // SAFETY: `Isa` values other than Portable are only made where the processor has the features.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 | $crate::Isa::Avx512Bf16 | $crate::Isa::Amx => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;
