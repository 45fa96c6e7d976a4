//! The driver that linear layers and convolutions share: rows times panels, cut into tasks.
#![allow(unsafe_code)]

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::finish::Finish;
use super::pack::TiledMatrix;
use super::tiles::{Ahead, BLOCK, BLOCK_VALUES, BlockRows, PANEL_STEP, STEP, TILE, Tiles};
use crate::lanes::Element;
use crate::stop::Polled;
use crate::{Buffer, Isa};

/// Most rows of one task, and of one whose sums wait from segment to segment.
const TASK_ROWS: usize = 1536;
const WAITING_ROWS: usize = 512;
/// Most bytes of activations and of unfinished sums that a task keeps in its second-level cache, each.
const TASK_BYTES: usize = 640 << 10;

/// Most bytes of weights that blocks of rows pass by together.
const GROUP_BYTES: usize = 400 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Cache lines of a panel, or of a block's rows, that one step reads.
const LINES_PER_STEP: usize = 32;

/// Activations as the driver reads them. They come in lines: a row of a matrix, or a row of output pixels.
pub(crate) trait Source: Sync {
    /// Lines in all.
    fn lines(&self) -> usize;
    /// Rows of the output that a line is.
    fn rows_per_line(&self) -> usize;
    /// Lines that are best taken together at least, and at most.
    fn task_lines(&self) -> (usize, usize);
    /// The output row of each row of the tiles that `lines` take.
    fn place(&self, lines: Range<usize>, rows: &mut Vec<u32>);
    /// Finds these channels of `lines`, or copies them to `copy` if they do not lie as tiles need them: a pointer
    /// for each tile, the values between its rows, and the bytes to each tap.
    fn locate(&self, isa: Isa, lines: Range<usize>, channels: Range<usize>, place: &mut Place);
}

/// Where a task's tiles stand.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) tiles: Vec<*const bf16>,
    pub(crate) stride: usize,
    pub(crate) taps: Vec<usize>,
    pub(crate) copy: Option<Buffer<bf16>>,
}

impl Place {
    /// Room for `length` values that the tiles may point into.
    pub(crate) fn room(&mut self, length: usize) -> &mut Buffer<bf16> {
        if self.copy.as_ref().is_none_or(|copy| copy.len() < length) {
            self.copy = None;
        }
        self.copy.get_or_insert_with(|| Buffer::new(length))
    }
}

/// `out = finish(source · weights)`.
pub(crate) fn multiply<O: Element>(
    isa: Isa,
    source: &impl Source,
    weights: &TiledMatrix,
    finish: &Finish<O>,
) {
    let (lines, panels) = (source.lines(), weights.panels());
    if lines == 0 || panels == 0 || source.rows_per_line() == 0 {
        return;
    }
    // How work is cut never shows in the result, so it may follow the number of threads.
    let tasks = rayon::current_num_threads() * 2;
    let (fewest, most) = source.task_lines();
    let segments = weights.segments();
    let most_rows = if segments.len() > 1 { WAITING_ROWS } else { TASK_ROWS };
    let by_rows = (most_rows / source.rows_per_line()).max(1);
    let task_lines = most.min(by_rows).min(lines.next_multiple_of(fewest)).max(1);
    let line_tasks = lines.div_ceil(task_lines);
    // Even shares, so that no thread waits for a large last one.
    let task_lines = lines.div_ceil(line_tasks).next_multiple_of(fewest);
    let line_tasks = lines.div_ceil(task_lines);
    let mut task_panels = panels.div_ceil(tasks.div_ceil(line_tasks));
    if segments.len() > 1 {
        let panel_bytes = task_lines * source.rows_per_line() * BLOCK * size_of::<f32>();
        task_panels = task_panels.min((TASK_BYTES / panel_bytes).max(1));
    }
    let panel_tasks = panels.div_ceil(task_panels);
    let stop = Polled::current();
    // Tasks that share panels follow each other, so that weights come from memory once.
    (0..line_tasks * panel_tasks).into_par_iter().with_max_len(1).for_each(|task| {
        if stop.is_wanted() {
            return;
        }
        let (panel_task, line_task) = (task / line_tasks, task % line_tasks);
        let task = Task {
            isa,
            weights,
            lines: line_task * task_lines..lines.min((line_task + 1) * task_lines),
            panels: panel_task * task_panels..panels.min((panel_task + 1) * task_panels),
        };
        task.run(source, &segments, finish);
    });
}

struct Task<'a> {
    isa: Isa,
    weights: &'a TiledMatrix,
    lines: Range<usize>,
    panels: Range<usize>,
}

impl Task<'_> {
    fn run<O: Element>(&self, source: &impl Source, segments: &[Range<usize>], finish: &Finish<O>) {
        let tiles = Tiles::new(self.isa);
        let mut rows = vec![];
        source.place(self.lines.clone(), &mut rows);
        let blocks = rows.len().div_ceil(BLOCK);
        // With more than one segment all blocks wait here from segment to segment.
        let slots = if segments.len() > 1 { blocks * self.panels.len() } else { 1 };
        let mut sums = Buffer::<f32>::new(slots * BLOCK_VALUES);
        let sums = sums.as_mut_ptr();
        let mut unfinished: Option<(usize, usize, &[u32])> = None;
        let mut place = Place::default();
        let mut first_step = 0;
        for (index, segment) in segments.iter().enumerate() {
            let steps = segment.len().div_ceil(STEP);
            source.locate(self.isa, self.lines.clone(), segment.clone(), &mut place);
            let panel_values = steps * self.weights.taps * PANEL_STEP;
            let panel_start = |panel: usize| (panel * self.weights.steps() + first_step) * PANEL_STEP;
            let group = (GROUP_BYTES / (panel_values * size_of::<bf16>()).max(1)).max(1);
            for first in self.panels.clone().step_by(group) {
                let panels = first..self.panels.end.min(first + group);
                for (block, rows) in rows.chunks(BLOCK).enumerate() {
                    let tile = |index: usize| place.tiles[index.min(place.tiles.len() - 1)];
                    let block_rows = BlockRows {
                        tiles: [tile(block * 2), tile(block * 2 + 1)],
                        stride: place.stride,
                        offsets: &place.taps,
                        steps,
                    };
                    for panel in panels.clone() {
                        let values = &self.weights.values[panel_start(panel)..][..panel_values];
                        let slot =
                            if segments.len() > 1 { (panel - self.panels.start) * blocks + block } else { 0 };
                        let ahead = if panel + group < self.panels.end {
                            // The next group's panel, a part of it with each block.
                            let next = &self.weights.values[panel_start(panel + group)..];
                            Ahead {
                                from: next[panel_values / blocks * block..].as_ptr(),
                                lines_per_step: LINES_PER_STEP.div_ceil(blocks),
                            }
                        } else if first == self.panels.start && block + 1 < blocks {
                            // The next block's rows, a part of them with each panel.
                            let lines_per_step = LINES_PER_STEP.div_ceil(panels.len());
                            let done = (panel - first) * steps * lines_per_step;
                            let from = tile(block * 2 + 2).wrapping_add(done * LINE / size_of::<bf16>());
                            Ahead {
                                from,
                                lines_per_step: if place.taps.len() == 1 { lines_per_step } else { 0 },
                            }
                        } else {
                            Ahead::NONE
                        };
                        let last = index + 1 == segments.len();
                        let before = if last { unfinished.replace((slot, panel, rows)) } else { None };
                        // SAFETY: `locate` gave tiles that are readable for this segment's steps at each tap; the
                        // panel holds that many steps (sliced above); slots are within the sums, whose blocks begin
                        // on multiples of 4 KiB. The block before is finished before its slot is used again.
                        unsafe {
                            let to = sums.add(slot * BLOCK_VALUES);
                            let work =
                                || before.into_iter().for_each(|block| self.finish(finish, sums, block));
                            tiles.product(&block_rows, values.as_ptr(), to, index > 0, ahead, work);
                        }
                    }
                }
            }
            first_step += steps * self.weights.taps;
        }
        if let Some(block) = unfinished {
            // SAFETY: a slot that was filled last.
            unsafe { self.finish(finish, sums, block) };
        }
    }

    /// # Safety
    /// `sums` has this slot, whose sums are all taken.
    unsafe fn finish<O: Element>(
        &self,
        finish: &Finish<O>,
        sums: *const f32,
        (slot, panel, rows): (usize, usize, &[u32]),
    ) {
        // SAFETY: a whole block; rows and panels are this task's alone.
        unsafe { finish.block(self.isa, sums.add(slot * BLOCK_VALUES), panel, rows) };
    }
}

impl TiledMatrix {
    /// The channels of each segment; one that is empty if there are none.
    pub(crate) fn segments(&self) -> Vec<Range<usize>> {
        let starts = (0..self.inputs.max(1)).step_by(self.segment.max(1));
        starts.map(|first| first..self.inputs.min(first + self.segment)).collect()
    }
}

/// Rows of a matrix.
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [bf16],
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl Source for Matrix<'_> {
    fn lines(&self) -> usize {
        self.rows
    }

    fn rows_per_line(&self) -> usize {
        1
    }

    fn task_lines(&self) -> (usize, usize) {
        let width = self.width.clamp(1, 1280) * size_of::<bf16>();
        (BLOCK, (TASK_BYTES / width / BLOCK * BLOCK).max(BLOCK))
    }

    fn place(&self, lines: Range<usize>, rows: &mut Vec<u32>) {
        let padded = lines.len().next_multiple_of(TILE) - lines.len();
        rows.extend(lines.map(|line| line as u32));
        rows.extend(std::iter::repeat_n(super::finish::NO_ROW, padded));
    }

    fn locate(&self, _isa: Isa, lines: Range<usize>, channels: Range<usize>, place: &mut Place) {
        place.tiles.clear();
        place.taps.clear();
        place.taps.push(0);
        let padded = channels.len().next_multiple_of(STEP);
        // Rows that lie as they must are read where they are; the copy is for those at the end, and for odd widths.
        let whole = if padded == channels.len() { lines.len() / TILE * TILE } else { 0 };
        place.stride = if whole > 0 { self.width } else { padded };
        let stride = place.stride;
        let rest = lines.start + whole..lines.end;
        place.room(rest.len().next_multiple_of(TILE) * stride + padded);
        let copy = place.copy.as_deref_mut().unwrap_or_default();
        for (row, line) in rest.enumerate() {
            let row = &mut copy[row * stride..row * stride + padded];
            let from = &self.values[line * self.width..][channels.clone()];
            row[..from.len()].copy_from_slice(from);
            row[from.len()..].fill(bf16::ZERO);
        }
        let copied =
            (0..(lines.len() - whole).div_ceil(TILE)).map(|tile| copy[tile * TILE * stride..].as_ptr());
        let direct = (lines.start..lines.start + whole)
            .step_by(TILE)
            .map(|line| self.values[line * self.width + channels.start..].as_ptr());
        place.tiles.extend(direct.chain(copied));
    }
}
