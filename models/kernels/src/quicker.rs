//! Whether bf16 is the quicker precision: told by the processor's number and a table, never by measuring, so that the same
//! machine computes the same bytes at each start.

use std::ops::RangeInclusive;

use crate::isa::Isa;
use crate::processor::Processor;

/// Processors whose product of pairs of bf16 takes as long as one of f32, so that it does twice as much.
///
/// Measured on Zen 4 (model 0x11; a step of SD 1.5 takes 4.6 s instead of 8.8 s). Zen 5 has wider units and has not been
/// measured; Intel's without tiles take two products' time and do not get these kernels at all.
const QUICK_PAIRS: &[(&[u8; 12], u32, RangeInclusive<u32>, &str)] = &[
    (b"AuthenticAMD", 0x19, 0x10..=0x1f, "Zen 4"),
    (b"AuthenticAMD", 0x19, 0x60..=0x7f, "Zen 4"),
    (b"AuthenticAMD", 0x19, 0xa0..=0xaf, "Zen 4"),
];

/// Whether bf16 is quicker than f32 with the kernels that run here, and why.
pub fn bf16_is_quicker() -> (bool, String) {
    decide(Isa::current(), Processor::current())
}

fn decide(isa: Isa, processor: Processor) -> (bool, String) {
    let kernels = isa.name();
    match isa {
        Isa::Amx => (true, format!("the kernels {kernels} multiply bf16 in tiles")),
        Isa::Avx512Bf16 => match quick_pairs(processor) {
            Some(name) => {
                (true, format!("{name} multiplies pairs of bf16 as fast as single f32 (kernels {kernels})"))
            }
            None => {
                (false, format!("the kernels {kernels} are not known to be quicker in bf16 on {processor}"))
            }
        },
        _ => (false, format!("the kernels {kernels} have no product of bf16")),
    }
}

/// What it is called, if it has them.
fn quick_pairs(processor: Processor) -> Option<&'static str> {
    let row = QUICK_PAIRS.iter().find(|(vendor, family, models, _)| {
        **vendor == processor.vendor && *family == processor.family && models.contains(&processor.model)
    });
    row.map(|(.., name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_decides_for_pairs_and_nothing_else() {
        let processor = |vendor: &[u8; 12], family, model| Processor { vendor: *vendor, family, model };
        let amd = |family, model| processor(b"AuthenticAMD", family, model);
        for (isa, processor, quicker, reason) in [
            (Isa::Amx, processor(b"GenuineIntel", 6, 0x8f), true, "the kernels amx multiply bf16 in tiles"),
            (Isa::Avx512Bf16, amd(0x19, 0x11), true, "Zen 4 multiplies pairs"),
            (Isa::Avx512Bf16, amd(0x19, 0x61), true, "(kernels avx512bf16)"),
            (Isa::Avx512Bf16, amd(0x19, 0x74), true, "Zen 4"),
            (Isa::Avx512Bf16, amd(0x19, 0xa0), true, "Zen 4"),
            (
                Isa::Avx512Bf16,
                amd(0x19, 0x21),
                false,
                "not known to be quicker in bf16 on AuthenticAMD family 0x19 model 0x21",
            ),
            (Isa::Avx512Bf16, amd(0x1a, 0x44), false, "family 0x1a model 0x44"),
            (Isa::Avx512Bf16, processor(b"GenuineIntel", 0x19, 0x11), false, "GenuineIntel"),
            (Isa::Avx512, amd(0x19, 0x11), false, "the kernels avx512 have no product of bf16"),
            (Isa::Avx2, amd(0x19, 0x11), false, "avx2"),
            (Isa::Portable, processor(&[0; 12], 0, 0), false, "portable"),
        ] {
            let (decided, why) = decide(isa, processor);
            assert_eq!(decided, quicker, "{isa:?} {processor:?}: {why}");
            assert!(why.contains(reason), "{why}");
        }
    }
}
