//! Which processor this is.

/// A processor as CPUID tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    /// Such as "AuthenticAMD".
    pub vendor: [u8; 12],
    pub family: u32,
    pub model: u32,
}

impl Processor {
    #[cfg(target_arch = "x86_64")]
    /// This one; of no vendor where it cannot be told.
    pub(crate) fn current() -> Self {
        use std::arch::x86_64::__cpuid;

        let name = __cpuid(0);
        let mut vendor = [0; 12];
        vendor.copy_from_slice([name.ebx, name.edx, name.ecx].map(u32::to_le_bytes).as_flattened());
        let (family, model) = numbers(__cpuid(1).eax);
        Self { vendor, family, model }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn current() -> Self {
        Self { vendor: [0; 12], family: 0, model: 0 }
    }
}

/// Family and model of CPUID's leaf 1.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn numbers(eax: u32) -> (u32, u32) {
    let (family, model) = (eax >> 8 & 0xf, eax >> 4 & 0xf);
    let extended = model | (eax >> 16 & 0xf) << 4;
    match family {
        0xf => (family + (eax >> 20 & 0xff), extended),
        0x6 => (family, extended),
        _ => (family, model),
    }
}

impl std::fmt::Display for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} family {:#x} model {:#x}", self.vendor.escape_ascii(), self.family, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_manuals_say() {
        // Genoa, Raphael, Turin, Sapphire Rapids, a Pentium.
        for (eax, expected) in [
            (0x00a1_0f11, (0x19, 0x11)),
            (0x00a6_0f12, (0x19, 0x61)),
            (0x00b0_0f21, (0x1a, 0x02)),
            (0x0008_06f8, (0x06, 0x8f)),
            (0x0000_0543, (0x05, 0x4)),
        ] {
            assert_eq!(numbers(eax), expected, "{eax:#x}");
        }
    }
}
