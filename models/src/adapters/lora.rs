//! LoRA (Hu et al. 2021) and LoCon: Δ = s · up · down; with a third matrix in the kernel's place (CP, "Tucker") Δ is that
//! between both.

use super::change::{Delta, Sizes, at_odds, without_rank};
use super::math::{add_product, product, transposed};
use super::source::Stored;
use crate::files::Tensors;
use crate::nn::LowRank;
use crate::{Error, Result};

/// The most ranks of a layer: several times what the widest layer can hold. Numbers that a file repeats make any rank in a
/// few bytes.
const MOST_RANKS: usize = 4096;

pub(super) struct Lora {
    /// `(outputs, rank)`, whatever ones follow.
    up: Stored,
    /// `(rank, inputs, kernel…)`; with `mid` `(rank, inputs)`.
    down: Stored,
    /// `(rank, rank, kernel…)`.
    mid: Option<Stored>,
    scale: f32,
    /// How many of the ranks are used, the first ones.
    ranks: usize,
}

impl Lora {
    /// `scale` is of all ranks, however many are used.
    pub(super) fn new(
        file: &Tensors,
        (up, down, mid): (Stored, Stored, Option<Stored>),
        scale: f32,
        dynamic: Option<usize>,
    ) -> Result<Self> {
        let rank = down.size(0);
        if rank == 0 || up.size(1) == 0 {
            return Err(without_rank(file, if rank == 0 { &down } else { &up }));
        }
        if rank > MOST_RANKS {
            let reason = format!(
                "tensor {} {:?} has rank {rank}; up to {MOST_RANKS} make sense, use another file",
                down.name, down.shape
            );
            return Err(Error::model(file.path(), reason));
        }
        if up.count() != up.size(0) * rank || up.size(1) != rank {
            return Err(at_odds(file, &up, &down));
        }
        if let Some(mid) = mid.as_ref().filter(|mid| (mid.size(0), mid.size(1)) != (rank, rank)) {
            return Err(at_odds(file, mid, &down));
        }
        let ranks = dynamic.map_or(rank, |dynamic| dynamic.min(rank));
        Ok(Self { up, down, mid, scale, ranks })
    }

    /// Places of the kernel.
    fn taps(&self) -> usize {
        self.mid.as_ref().unwrap_or(&self.down).shape.iter().skip(2).product()
    }
}

impl Delta for Lora {
    fn fits(&self, Sizes { outputs, inputs, taps }: Sizes) -> bool {
        (self.up.size(0), self.down.size(1), self.taps()) == (outputs, inputs, taps)
    }

    fn told(&self) -> String {
        let kernel =
            if self.taps() > 1 { format!(" with a kernel of {}", self.taps()) } else { String::new() };
        format!("[{}, {}]{kernel}", self.up.size(0), self.down.size(1))
    }

    fn add(&self, file: &Tensors, sizes: Sizes, factor: f32, sums: &mut [f32]) -> Result<()> {
        let LowRank { rank, up, down } = self.low_rank(file, sizes, factor)?;
        add_product(1.0, &up, &down, sums, rank)
    }

    fn rank(&self) -> Option<usize> {
        Some(self.down.size(0))
    }

    fn product(&self, file: &Tensors, sizes: Sizes, factor: f32) -> Result<Option<LowRank>> {
        self.low_rank(file, sizes, factor).map(Some)
    }
}

impl Lora {
    fn low_rank(&self, file: &Tensors, sizes: Sizes, factor: f32) -> Result<LowRank> {
        let rank = self.down.size(0);
        let (mut up, mut down) = (self.up.read(file)?, self.down.read(file)?);
        if let Some(mid) = &self.mid {
            // (rank, rank, taps) with the inputs in the place of the second rank.
            let (mid, taps) = (mid.read(file)?, sizes.taps);
            let inputs = transposed(&down, rank);
            let mut between = Vec::with_capacity(rank * sizes.columns());
            for mid in mid.chunks_exact((rank * taps).max(1)) {
                between.extend(product(&inputs, mid, rank)?);
            }
            down = between;
        }
        if self.ranks < rank {
            up = up.chunks_exact(rank).flat_map(|row| row.iter().take(self.ranks)).copied().collect();
            down.truncate(self.ranks * sizes.columns());
        }
        let factor = factor * self.scale;
        for value in &mut up {
            *value *= factor;
        }
        Ok(LowRank { rank: self.ranks, up, down })
    }
}
