//! From rows of weights to the columns of a panel, two `k` side by side.

use half::bf16;

use super::tiles::{BLOCK, PANEL_STEP, STEP, TILE};
use crate::isa::multiversion;

multiversion! {
    /// Rounds to the nearest bf16, of two the even one. `finite` ends if one is not: of such nothing is made.
    pub(super) fn round_all(isa: Isa, from: &[f32], to: &mut [bf16], finite: &mut bool) {
        // In whole vectors, so that the check is one too.
        let mut largest = 0;
        for (to, from) in to.iter_mut().zip(from) {
            let bits = from.to_bits();
            *to = bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16);
            largest = largest.max(bits & 0x7fff_ffff);
        }
        *finite &= largest < 0x7f80_0000;
    }
}

multiversion! {
    /// Puts 32 rows of whole steps, each `length` numbers behind the one before, into as many steps of a panel:
    /// `[column / 16][k / 2 % 16][column % 16][k % 2]`.
    pub(super) fn turn(isa: Isa, rows: &[[bf16; 2]], length: usize, steps: &mut [[bf16; 2]]) {
        for (index, step) in steps.chunks_exact_mut(PANEL_STEP / 2).enumerate() {
            for (half, out) in step.chunks_exact_mut(PANEL_STEP / 4).enumerate() {
                let mut square = [[0u32; TILE]; TILE];
                for (column, line) in square.iter_mut().enumerate() {
                    let start = (half * TILE + column) * length / 2 + index * STEP / 2;
                    let from: &[[bf16; 2]; TILE] = rows[start..].first_chunk().expect("whole steps");
                    for (to, pair) in line.iter_mut().zip(from) {
                        *to = u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16;
                    }
                }
                let square = transposed(square);
                for (to, from) in out.chunks_exact_mut(TILE).zip(&square) {
                    for (to, pair) in to.iter_mut().zip(from) {
                        *to = [bf16::from_bits(*pair as u16), bf16::from_bits((*pair >> 16) as u16)];
                    }
                }
            }
        }
    }
}

/// Swaps ever smaller blocks, each a shuffle of two vectors.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn transposed(mut lines: [[u32; TILE]; TILE]) -> [[u32; TILE]; TILE] {
    swap::<8>(&mut lines);
    swap::<4>(&mut lines);
    swap::<2>(&mut lines);
    swap::<1>(&mut lines);
    lines
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn swap<const SIZE: usize>(lines: &mut [[u32; TILE]; TILE]) {
    for line in 0..TILE {
        if line & SIZE == 0 {
            let (a, b) = (lines[line], lines[line + SIZE]);
            lines[line] = std::array::from_fn(|at| if at & SIZE == 0 { a[at] } else { b[at ^ SIZE] });
            lines[line + SIZE] = std::array::from_fn(|at| if at & SIZE == 0 { a[at ^ SIZE] } else { b[at] });
        }
    }
}

const _: () = assert!(BLOCK == 2 * TILE && STEP == 2 * TILE);
