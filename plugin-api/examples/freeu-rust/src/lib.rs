//! freeu-rust: FreeU within the UNet, in Rust. On the way up it amplifies what comes from below and weakens what skips the depth.
//!
//! ```sh
//! cargo build --release
//! mkdir -p ~/.local/share/latentd/plugins && cp target/release/libfreeu_rust.so ~/.local/share/latentd/plugins/
//! ```
//!
//! Si, Huang, Jiang, Liu: "FreeU: Free Lunch in Diffusion U-Net", CVPR 2024 (arXiv 2309.11497); the form without the map of means.
//! Before an output block of level k the first half of h's channels is multiplied by b, and of the skip the frequencies 0 and −1 of
//! both axes by s. The first is a program that the host computes where the tensor lies; the second reads the numbers: with
//! p = 2πy/h, q = 2πx/w and a, b of 0 and 1
//!
//! ```text
//! skip += (s − 1) / (h · w) · Σ C_ab cos(ap + bq) + S_ab sin(ap + bq)
//! C_ab = Σ skip cos(ap + bq)          S_ab = Σ skip sin(ap + bq)
//! ```
//!
//! over the plane, which needs no FFT; sums are of f64.
//!
//! The paper's code tells levels by widths: the one that the way up begins with is the first, the next smaller one the second.
//! diffusers tells them by resolutions. `levels` says which.

#![deny(unsafe_code)]

use std::cell::Cell;
use std::f64::consts::TAU;

use latentd_plugin_api::abi::{LATENTD_ANY, LATENTD_OUTPUT};
use latentd_plugin_api::{Block, Job, JobPlan, Part, Plan, Plugin, Result, UNetBlock, export};
use serde::Deserialize;

/// What the request says.
#[derive(Clone, Copy, Deserialize)]
struct Settings {
    b1: f64,
    b2: f64,
    s1: f64,
    s2: f64,
    start: f64,
    end: f64,
    levels: Levels,
}

/// How levels are told.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Levels {
    Channels,
    Resolutions,
}

struct FreeU {
    settings: Settings,
    way: Cell<Way>,
}

/// Where a call of the UNet stands.
#[derive(Clone, Copy, Default)]
struct Way {
    /// Channels of the first level, and of the second once it came.
    widest: usize,
    next: usize,
    /// How many resolutions were passed.
    resolution: usize,
    /// Of the last skip.
    size: (usize, usize),
}

impl Plugin for FreeU {
    fn new(job: &Job<'_>) -> Result<Self> {
        Ok(Self { settings: job.params()?, way: Cell::default() })
    }
}

impl JobPlan for FreeU {
    fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
        let Settings { b1, b2, s1, s2, start, end, .. } = job.params()?;
        if [b1, b2, s1, s2] == [1.0; 4] || end <= start {
            return Ok(false);
        }
        plan.blocks(&[(LATENTD_OUTPUT, LATENTD_ANY)], start, end)?;
        Ok(true)
    }
}

impl UNetBlock for FreeU {
    fn unet_block(&self, block: &Block<'_>) -> Result<()> {
        let (Part::Output, Some(skip)) = (block.part, block.skip) else { return Ok(()) };
        let dims = skip.dims()?;
        let [rows, channels, height, width] = dims[..] else { return Ok(()) };
        let Settings { b1, b2, s1, s2, .. } = self.settings;
        let (b, s) = match self.level(block, (height, width)) {
            0 => (b1, s1),
            1 => (b2, s2),
            _ => return Ok(()),
        };
        if b != 1.0 {
            amplify(block, b)?;
        }
        if s != 1.0 {
            let mut new = skip.like()?;
            let scaled = Scaled::new(height, width, s);
            let planes = skip.read()?.chunks_exact(height * width);
            let new_planes = new.values_mut().chunks_exact_mut(height * width);
            for (old, new) in planes.zip(new_planes).take(rows * channels) {
                scaled.plane(old, new);
            }
            block.replace_skip(new)?;
        }
        Ok(())
    }
}

impl FreeU {
    /// Which level a block is of, from 0. Blocks come in their order, the first one first.
    fn level(&self, block: &Block<'_>, size: (usize, usize)) -> usize {
        let (mut way, channels) = (self.way.get(), block.channels.0);
        if block.index == 0 {
            way = Way { widest: channels, ..Way::default() };
        } else if size != way.size {
            way.resolution += 1;
        }
        way.size = size;
        if way.next == 0 && channels < way.widest {
            way.next = channels;
        }
        self.way.set(way);
        match self.settings.levels {
            Levels::Resolutions => way.resolution,
            Levels::Channels if channels == way.widest => 0,
            Levels::Channels if channels == way.next => 1,
            Levels::Channels => 2,
        }
    }
}

/// The first half of h's channels times b, in one call of the host's.
fn amplify(block: &Block<'_>, b: f64) -> Result<()> {
    let channels = block.channels.0;
    let half = channels / 2;
    if half == 0 {
        return Ok(());
    }
    let mut ops = block.call.ops()?;
    let first = ops.slice(block.h, 1, 0..half);
    let amplified = ops.affine(first, b, 0.0);
    let rest = ops.slice(block.h, 1, half..channels);
    let whole = ops.concat(amplified, rest, 1);
    block.replace_h(ops.run(&[whole])?.tensor(whole)?)
}

/// Cosine and sine of an axis' places at its lowest frequency.
fn waves(count: usize) -> Vec<(f64, f64)> {
    (0..count).map(|place| TAU * place as f64 / count as f64).map(|angle| (angle.cos(), angle.sin())).collect()
}

/// Planes of one size, whose lowest frequencies are scaled.
struct Scaled {
    down: Vec<(f64, f64)>,
    along: Vec<(f64, f64)>,
    /// What is added of their part.
    by: f64,
}

impl Scaled {
    fn new(height: usize, width: usize, s: f64) -> Self {
        Self { down: waves(height), along: waves(width), by: (s - 1.0) / (height * width) as f64 }
    }

    fn plane(&self, old: &[f32], new: &mut [f32]) {
        let Self { down, along, by } = self;
        let width = along.len();
        let (mut c00, mut c01, mut s01) = (0.0, 0.0, 0.0);
        let (mut c10, mut s10, mut c11, mut s11) = (0.0, 0.0, 0.0, 0.0);
        for (row, p) in old.chunks_exact(width).zip(down) {
            let (mut sum, mut cosine, mut sine) = (0.0, 0.0, 0.0);
            for (value, q) in row.iter().zip(along) {
                let value = f64::from(*value);
                sum += value;
                cosine += value * q.0;
                sine += value * q.1;
            }
            c00 += sum;
            c01 += cosine;
            s01 += sine;
            c10 += sum * p.0;
            s10 += sum * p.1;
            c11 += cosine * p.0 - sine * p.1;
            s11 += sine * p.0 + cosine * p.1;
        }
        // An axis of one place has frequency 0 alone.
        if width < 2 {
            (c01, s01) = (0.0, 0.0);
        }
        if down.len() < 2 {
            (c10, s10) = (0.0, 0.0);
        }
        if width < 2 || down.len() < 2 {
            (c11, s11) = (0.0, 0.0);
        }
        let rows = old.chunks_exact(width).zip(new.chunks_exact_mut(width));
        for ((old, new), p) in rows.zip(down) {
            let level = c00 + c10 * p.0 + s10 * p.1;
            let of_cosine = c01 + c11 * p.0 + s11 * p.1;
            let of_sine = s01 + s11 * p.0 - c11 * p.1;
            for ((old, new), q) in old.iter().zip(new).zip(along) {
                let low = level + of_cosine * q.0 + of_sine * q.1;
                *new = (f64::from(*old) + by * low) as f32;
            }
        }
    }
}

export!(FreeU, "../freeu-rust.toml", [JobPlan, UNetBlock]);
