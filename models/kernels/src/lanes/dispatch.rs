//! From an instruction set to the code compiled for it.

/// Calls a function generic over [`Lanes`](super::Lanes), and perhaps one more type, compiled for an instruction set.
macro_rules! with_lanes {
    ($isa:expr, $function:ident $(<$element:ident>)? ($($arg:ident: $ty:ty = $value:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn avx512bf16 $(<$element: $crate::lanes::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::lanes::Avx512<true> $(, $element)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn avx512 $(<$element: $crate::lanes::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::lanes::Avx512<false> $(, $element)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2 $(<$element: $crate::lanes::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::lanes::Avx2 $(, $element)?>($($arg),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Amx | $crate::Isa::Avx512Bf16 => avx512bf16 $(::<$element>)? ($($value),*),
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx512 => avx512 $(::<$element>)? ($($value),*),
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx2 => avx2 $(::<$element>)? ($($value),*),
            _ => $function::<$crate::lanes::Portable $(, $element)?>($($value),*),
        }
    }};
}
pub(crate) use with_lanes;
