//! The innermost product of bf16: one block of 32 × 32 sums, on AMX's tiles, by AVX-512's products of pairs, or widened to f32.
#![allow(unsafe_code)]

use half::bf16;

use crate::Isa;

/// Rows, or columns, of one tile.
pub(crate) const TILE: usize = 16;
/// Rows, or columns, of one block: two tiles.
pub(crate) const BLOCK: usize = 2 * TILE;
/// `k` of one tile product.
pub(crate) const STEP: usize = 32;
/// f32 values of a block.
pub(crate) const BLOCK_VALUES: usize = BLOCK * BLOCK;
/// bf16 values of a panel's part for one step: two tiles of `[k / 2][column][k % 2]`.
pub(crate) const PANEL_STEP: usize = STEP * BLOCK;

/// Where a block's rows stand: row `i` of tile `t` begins `i · stride` values behind `tiles[t]`, and its `k` runs
/// in pieces of `steps · 32` values, each at one of `offsets` from there.
pub(crate) struct BlockRows<'a> {
    pub(crate) tiles: [*const bf16; 2],
    pub(crate) stride: usize,
    /// In bytes.
    pub(crate) offsets: &'a [usize],
    pub(crate) steps: usize,
}

/// How the 32 × 32 sums of a block lie in memory: tile after tile,
/// `[row / 16][column / 16][row % 16][column % 16]`.
pub(crate) struct Dense;

impl Dense {
    /// Values from a row of a tile to the next.
    pub(crate) const ROW: usize = TILE;
    /// Values from a tile to the one to its right.
    pub(crate) const RIGHT: usize = TILE * TILE;
    /// Values from a tile to the one below.
    const BELOW: usize = 2 * TILE * TILE;

    /// Where row `row` begins, in its left tile.
    pub(crate) fn row(row: usize) -> usize {
        row / TILE * Self::BELOW + row % TILE * Self::ROW
    }
}

/// Memory that will be read soon: some of its cache lines are asked for with each step.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only tiles ask ahead"))]
pub(crate) struct Ahead {
    pub(crate) from: *const bf16,
    pub(crate) lines_per_step: usize,
}

impl Ahead {
    pub(crate) const NONE: Self = Self { from: std::ptr::null(), lines_per_step: 0 };
}

/// While it lives, this thread's tiles are set up; a thread uses one at a time.
pub(crate) struct Tiles {
    isa: Isa,
    /// Tiles belong to a thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Tiles {
    pub(crate) fn new(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Amx {
            // SAFETY: `Isa::Amx` is proof that tiles exist and are permitted.
            unsafe { amx::configure() };
        }
        Self { isa, _here: std::marker::PhantomData }
    }

    /// `block (+)= rows · panel`, the sums of each element in the order of `k`; with `accumulate` they go on from
    /// what the block holds.
    ///
    /// `meanwhile` is work for the vector units, done before anything is written to the block: the processor does it
    /// beside the products, as far as it looks ahead.
    ///
    /// # Safety
    /// All 16 rows of both tiles must be readable over all pieces, `panel` for 1024 values per step, `block`
    /// writable for a block; panel and block on 64-byte boundaries. `meanwhile` touches no tiles.
    pub(crate) unsafe fn product(
        &self,
        rows: &BlockRows,
        panel: *const bf16,
        block: *mut f32,
        accumulate: bool,
        ahead: Ahead,
        meanwhile: impl FnOnce(),
    ) {
        if rows.offsets.is_empty() || rows.steps == 0 {
            meanwhile();
            for row in (0..BLOCK).filter(|_| !accumulate) {
                for right in [0, Dense::RIGHT] {
                    // SAFETY: the caller's promise about `block`.
                    unsafe { block.add(Dense::row(row) + right).write_bytes(0, TILE) };
                }
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx {
            // SAFETY: the caller's promises are passed on; there are tiles.
            unsafe {
                amx::multiply(rows, panel, block, accumulate, ahead);
                meanwhile();
                amx::store(block);
            }
            return;
        }
        let _ = ahead;
        meanwhile();
        // SAFETY: the caller's promises are passed on; instructions exist where `Isa` says so.
        unsafe {
            match self.isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 | Isa::Amx => pairs(rows, panel, block, accumulate),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => widened_avx512(rows, panel, block, accumulate),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => widened_avx2(rows, panel, block, accumulate),
                _ => emulated(rows, panel, block, accumulate),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Tiles {
    fn drop(&mut self) {
        if self.isa == Isa::Amx {
            // SAFETY: as in `new`. Without it the system would save the tiles' state at each switch of threads.
            unsafe { amx::release() };
        }
    }
}

/// Eight rows of the block at a time: their sixteen vectors of sums stay in registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs(rows: &BlockRows, panel: *const bf16, block: *mut f32, accumulate: bool) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };
    const ROWS: usize = 8;
    // SAFETY: the same 512 bits.
    let halves = |bits: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) };
    for first in (0..BLOCK).step_by(ROWS) {
        // SAFETY: offsets within a block, 16 rows, and the panel's steps, as the caller promised.
        unsafe {
            let out = block.add(Dense::row(first));
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            if accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let line = out.add(row * Dense::ROW);
                    *sums = [_mm512_loadu_ps(line), _mm512_loadu_ps(line.add(Dense::RIGHT))];
                }
            }
            let mut b = panel;
            for offset in rows.offsets {
                let base = rows.tiles[first / TILE].byte_add(*offset).add(first % TILE * rows.stride);
                for step in 0..rows.steps {
                    for pair in 0..STEP / 2 {
                        let b = b.add(pair * BLOCK);
                        let columns =
                            [b, b.add(PANEL_STEP / 2)].map(|b| halves(_mm512_loadu_si512(b.cast())));
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let a = base.add(row * rows.stride + step * STEP + pair * 2);
                            let a = halves(_mm512_set1_epi32(a.cast::<i32>().read_unaligned()));
                            sums[0] = _mm512_dpbf16_ps(sums[0], a, columns[0]);
                            sums[1] = _mm512_dpbf16_ps(sums[1], a, columns[1]);
                        }
                    }
                    // Behind the last step nothing is read.
                    b = b.wrapping_add(PANEL_STEP);
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let line = out.add(row * Dense::ROW);
                _mm512_storeu_ps(line, sums[0]);
                _mm512_storeu_ps(line.add(Dense::RIGHT), sums[1]);
            }
        }
    }
}

/// A loop over a block for vectors of `$width` sums: `$rows` rows of `$columns` at a time stay in registers. Pairs of
/// bf16 become two f32 each, by shifting one to the upper half and masking the other.
#[cfg(target_arch = "x86_64")]
macro_rules! widened {
    ($name:ident, $features:literal, $width:literal, $rows:literal, $columns:literal, $load:ident, $store:ident, $zero:ident,
     $load_pairs:ident, $cast:ident, $shift:ident, $and:ident, $all:ident, $fmadd:ident) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(rows: &BlockRows, panel: *const bf16, block: *mut f32, accumulate: bool) {
            use std::arch::x86_64::{$all, $and, $cast, $fmadd, $load, $load_pairs, $shift, $store, $zero};
            const VECTORS: usize = $columns / $width;
            let mask = $all(0xffff_0000_u32.cast_signed());
            let widen = |pairs| [$cast($shift::<16>(pairs)), $cast($and(pairs, mask))];
            // Where a vector's sums stand in a row of the block, and its columns in a row of the panel.
            let places = |group: usize| -> [(usize, usize); VECTORS] {
                std::array::from_fn(|vector| {
                    let column = group * $columns + vector * $width;
                    let (half, column) = (column / TILE, column % TILE);
                    (half * Dense::RIGHT + column, half * PANEL_STEP / 2 + column * 2)
                })
            };
            let groups = (0..BLOCK / $columns).map(places);
            for (places, first) in
                groups.flat_map(|group| (0..BLOCK).step_by($rows).map(move |row| (group, row)))
            {
                // SAFETY: offsets within a block, 16 rows, and the panel's steps, as the caller promised.
                unsafe {
                    let out = block.add(Dense::row(first));
                    let mut sums = [[$zero(); VECTORS]; $rows];
                    if accumulate {
                        for (row, sums) in sums.iter_mut().enumerate() {
                            for (sum, place) in sums.iter_mut().zip(&places) {
                                *sum = $load(out.add(row * Dense::ROW + place.0));
                            }
                        }
                    }
                    let mut b = panel;
                    for offset in rows.offsets {
                        let base = rows.tiles[first / TILE].byte_add(*offset).add(first % TILE * rows.stride);
                        for step in 0..rows.steps {
                            for pair in 0..STEP / 2 {
                                let mut columns = [[$zero(); 2]; VECTORS];
                                for (columns, place) in columns.iter_mut().zip(&places) {
                                    let from = b.add(pair * BLOCK + place.1);
                                    *columns = widen($load_pairs(from.cast()));
                                }
                                for (row, sums) in sums.iter_mut().enumerate() {
                                    let a = base.add(row * rows.stride + step * STEP + pair * 2);
                                    let a = widen($all(a.cast::<i32>().read_unaligned()));
                                    for (sum, columns) in sums.iter_mut().zip(&columns) {
                                        *sum = $fmadd(a[1], columns[1], $fmadd(a[0], columns[0], *sum));
                                    }
                                }
                            }
                            b = b.wrapping_add(PANEL_STEP);
                        }
                    }
                    for (row, sums) in sums.iter().enumerate() {
                        for (sum, place) in sums.iter().zip(&places) {
                            $store(out.add(row * Dense::ROW + place.0), *sum);
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
widened!(
    widened_avx512,
    "avx512f",
    16,
    8,
    32,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_setzero_ps,
    _mm512_loadu_si512,
    _mm512_castsi512_ps,
    _mm512_slli_epi32,
    _mm512_and_si512,
    _mm512_set1_epi32,
    _mm512_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
widened!(
    widened_avx2,
    "avx2,fma",
    8,
    4,
    16,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_setzero_ps,
    _mm256_loadu_si256,
    _mm256_castsi256_ps,
    _mm256_slli_epi32,
    _mm256_and_si256,
    _mm256_set1_epi32,
    _mm256_fmadd_ps
);

/// As f32, without a look at whether it is NaN, which would keep loops from being vectorised.
fn wide(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// The same sums in f32, a few rows at a time so that they stay in registers.
unsafe fn emulated(rows: &BlockRows, panel: *const bf16, block: *mut f32, accumulate: bool) {
    const ROWS: usize = 4;
    for tile in 0..2 {
        for first in (0..TILE).step_by(ROWS) {
            for half in 0..2 {
                // SAFETY: offsets within a block, 16 rows, and the panel's steps, as the caller promised.
                unsafe {
                    let out = block.add(Dense::row(tile * TILE + first) + half * Dense::RIGHT);
                    let mut sums = [[0f32; TILE]; ROWS];
                    if accumulate {
                        for (row, sums) in sums.iter_mut().enumerate() {
                            std::ptr::copy_nonoverlapping(out.add(row * Dense::ROW), sums.as_mut_ptr(), TILE);
                        }
                    }
                    let mut b = panel.add(half * PANEL_STEP / 2);
                    for offset in rows.offsets {
                        let base = rows.tiles[tile].byte_add(*offset).add(first * rows.stride);
                        for step in 0..rows.steps {
                            for pair in 0..STEP / 2 {
                                let b = b.add(pair * BLOCK).cast::<[[bf16; 2]; TILE]>().read();
                                for (row, sums) in sums.iter_mut().enumerate() {
                                    let a = base.add(row * rows.stride + step * STEP + pair * 2);
                                    let (low, high) = (wide(a.read()), wide(a.add(1).read()));
                                    for (sum, b) in sums.iter_mut().zip(b) {
                                        *sum += low * wide(b[0]);
                                        *sum += high * wide(b[1]);
                                    }
                                }
                            }
                            b = b.wrapping_add(PANEL_STEP);
                        }
                    }
                    for (row, sums) in sums.iter().enumerate() {
                        std::ptr::copy_nonoverlapping(sums.as_ptr(), out.add(row * Dense::ROW), TILE);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::asm;

    use half::bf16;

    use super::{Ahead, BlockRows, Dense};

    #[repr(C, align(64))]
    struct Config([u8; 64]);

    /// Palette 1; all eight tiles of 16 rows of 64 bytes.
    static CONFIG: Config = {
        let mut bytes = [0u8; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
            tile += 1;
        }
        Config(bytes)
    };

    /// # Safety
    /// Tiles exist and are permitted.
    pub(super) unsafe fn configure() {
        // SAFETY: reads 64 bytes of a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
    }

    /// # Safety
    /// As [`configure`].
    pub(super) unsafe fn release() {
        // SAFETY: touches the tiles only.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    /// The loop, with as many lines asked for ahead in each step as there are offsets given.
    ///
    /// Tiles 0 to 3 hold the sums, 4 and 5 the rows, 6 and 7 the panel. Each load stands before the first product
    /// that needs it and behind one that does not, which measured best.
    macro_rules! product {
        ($rows:ident, $panel:ident, $block:ident, $accumulate:ident, $ahead:ident,
         [$($line:literal),*], $lines:literal) => {
            asm!(
                "mov {n}, {row}",
                "test {c:l}, 1",
                "jz 3f",
                "xor {c}, 1",
                "tileloadd tmm0, [{c} + {n}]",
                "tileloadd tmm1, [{c} + {n} + {right}]",
                "tileloadd tmm2, [{c} + {n} + {below}]",
                "tileloadd tmm3, [{c} + {n} + {below} + {right}]",
                "jmp 4f",
                "3:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "4:",
                "mov {a0}, [{offsets}]",
                "mov {a1}, {a0}",
                "add {a0}, {tile0}",
                "add {a1}, {tile1}",
                "mov {n}, {steps}",
                "5:",
                "tileloadd tmm6, [{b} + {dense}]",
                "tileloadd tmm4, [{a0} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{b} + {dense} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                $(concat!("prefetcht1 [{ahead} + ", $line, "]"),)*
                "add {ahead}, {lines}",
                "add {a0}, 64",
                "add {a1}, 64",
                "add {b}, 2048",
                "dec {n}",
                "jnz 5b",
                "add {offsets}, 8",
                "dec {pieces}",
                "jnz 4b",
                // A block stands on a 64-byte boundary, so its lowest bit is free to say whether it accumulates.
                c = inout(reg) $block.map_addr(|address| address | usize::from($accumulate)) => _,
                row = const 4 * Dense::ROW,
                right = const 4 * Dense::RIGHT,
                below = const 4 * Dense::BELOW,
                dense = in(reg) 64usize,
                offsets = inout(reg) $rows.offsets.as_ptr() => _,
                pieces = inout(reg) $rows.offsets.len() => _,
                tile0 = in(reg) $rows.tiles[0],
                tile1 = in(reg) $rows.tiles[1],
                steps = in(reg) $rows.steps,
                stride = in(reg) $rows.stride * size_of::<bf16>(),
                b = inout(reg) $panel => _,
                ahead = inout(reg) $ahead.from => _,
                lines = const 64 * $lines,
                a0 = out(reg) _,
                a1 = out(reg) _,
                n = out(reg) _,
                out("tmm0") _,
                out("tmm1") _,
                out("tmm2") _,
                out("tmm3") _,
                out("tmm4") _,
                out("tmm5") _,
                out("tmm6") _,
                out("tmm7") _,
                options(nostack),
            )
        };
    }

    /// Leaves the sums in tiles 0 to 3, which compiled code never touches.
    ///
    /// # Safety
    /// As `Tiles::product`, with at least one step, on a thread whose tiles are configured.
    pub(super) unsafe fn multiply(
        rows: &BlockRows,
        panel: *const bf16,
        block: *mut f32,
        accumulate: bool,
        ahead: Ahead,
    ) {
        // SAFETY: reads rows and panel, and the block, as the caller promised; asking for lines ahead reads nothing;
        // all tiles used are declared.
        unsafe {
            match ahead.lines_per_step {
                0 => product!(rows, panel, block, accumulate, ahead, [], 0),
                1..=2 => product!(rows, panel, block, accumulate, ahead, ["0", "64"], 2),
                3..=4 => product!(rows, panel, block, accumulate, ahead, ["0", "64", "128", "192"], 4),
                _ => product!(
                    rows,
                    panel,
                    block,
                    accumulate,
                    ahead,
                    ["0", "64", "128", "192", "256", "320", "384", "448"],
                    8
                ),
            }
        }
    }

    /// Stores tiles 0 to 3, as [`multiply`] left them. That they still hold the sums rests on two things: no compiler
    /// allocates tiles, and what runs in between is ours and touches none.
    ///
    /// # Safety
    /// Behind [`multiply`]; `block` is writable.
    pub(super) unsafe fn store(block: *mut f32) {
        // SAFETY: writes the block, as the caller promised.
        unsafe {
            asm!(
                "tilestored [{c} + {row}], tmm0",
                "tilestored [{c} + {row} + {right}], tmm1",
                "tilestored [{c} + {row} + {below}], tmm2",
                "tilestored [{c} + {row} + {below} + {right}], tmm3",
                c = in(reg) block,
                row = in(reg) 4 * Dense::ROW,
                right = const 4 * Dense::RIGHT,
                below = const 4 * Dense::BELOW,
                options(nostack),
            );
        }
    }
}
