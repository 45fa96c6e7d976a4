//! "Outpainting mk2" (`scripts/outpainting_mk_2.py` of A1111 1.10.1): one side after the other, each begun with noise that has
//! the spectrum of what is there.

use super::job::{Job, check_kept, frame, in_eighths};
use super::margins::{Margins, rounded_up};
use super::matched_noise::matched_noise;
use crate::image::inpaint::{LARGEST_BLUR, Mask, Region};
use crate::image::limits::check_sides;
use crate::image::{Channels, Picture};
use crate::sampling::pcg64;
use crate::{Error, Result};

/// What numpy's generator is seeded with: always the same, so that the request's seed alone decides.
const SEED: u64 = 0;

/// How a picture is continued.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mk2 {
    /// How far, before it is rounded up to multiples of 64. A1111's default is 128 on each side, from 8 to 256.
    pub margins: Margins,
    /// How far into the picture what is drawn reaches, in pixels; the mask is softened with four times as much. A1111's default
    /// is 8.
    pub mask_blur: usize,
    /// The exponent of the spectrum, 0 to 4; lower is more detail. A1111's default is 1.
    pub noise_q: f64,
    /// The share of the noise that differs between colours, 0 to 1. A1111's default is 0.05.
    pub color_variation: f64,
    /// The request's `(width, height)`: how much along the way is drawn at once. Across it is all.
    pub size: (usize, usize),
}

/// Which way a picture is continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Before the first column.
    Left,
    /// After the last.
    Right,
    /// Above the first row.
    Up,
    /// Below the last.
    Down,
}

/// One drawing on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mk2Step {
    /// Which way.
    pub direction: Direction,
    /// How far.
    pub pixels: usize,
}

/// A step before its picture is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mk2Plan {
    /// What it does.
    pub step: Mk2Step,
    /// `(width, height)` of what it is begun on.
    pub canvas: (usize, usize),
    /// The same of what is drawn of that.
    pub drawn: (usize, usize),
}

impl Mk2 {
    /// What has to be drawn for a picture `(width, height)`, in this order: each step begins with what the one before made, and all
    /// with the same seed.
    pub fn steps(&self, size: (usize, usize)) -> Result<Vec<Mk2Step>> {
        if 4 * self.mask_blur as u128 > LARGEST_BLUR as u128 {
            let (blur, most) = (self.mask_blur, LARGEST_BLUR / 4.0);
            return Err(Error::Request(format!("mask_blur: {blur} is no blur; give 0 to {most}")));
        }
        let Margins { left, right, up, down } = self.margins.rounded(size.0, size.1)?;
        let all = [
            (Direction::Left, left),
            (Direction::Right, right),
            (Direction::Up, up),
            (Direction::Down, down),
        ];
        let steps = all.into_iter().filter(|(_, pixels)| *pixels > 0);
        Ok(steps.map(|(direction, pixels)| Mk2Step { direction, pixels }).collect())
    }

    /// What is drawn for a step from what is there, whose opacity is dropped. Computed on the rayon pool that the caller is in;
    /// threads do not matter. Takes about 100 bytes for each pixel of the canvas.
    ///
    /// What is drawn has multiples of 8 pixels. A1111 asks for others too, gets back less, and puts that to the end of the canvas,
    /// some pixels off.
    pub fn begin(&self, step: Mk2Step, picture: &Picture) -> Result<Mk2Drawing> {
        picture.check()?;
        let Mk2Step { direction, pixels } = step;
        let Sizes { wanted, canvas: size, drawn } = self.sizes(step, (picture.width, picture.height))?;
        let mut canvas = Picture {
            width: size.0,
            height: size.1,
            channels: Channels::Rgb,
            pixels: vec![0; size.0 * size.1 * 3],
        };
        let at = |is_there: bool| if is_there { pixels } else { 0 };
        canvas.paste(
            &Picture::from(picture.clone().into_rgb()),
            at(direction == Direction::Left),
            at(direction == Direction::Up),
        );
        let mask = frame(size, kept(step, size, wanted, self.mask_blur))?;
        let noise = pcg64::uniform(SEED, canvas.pixels.len());
        let canvas = matched_noise(&canvas, &mask, &noise, self.noise_q, self.color_variation)?;
        drop(noise);
        let (left, top) = place(direction, size, drawn);
        let region = Region { left, top, right: left + drawn.0, bottom: top + drawn.1 };
        let job = Job {
            picture: canvas.cropped(region)?,
            mask: mask.cropped(region)?,
            mask_blur: 4 * self.mask_blur,
            latent_mask: frame(drawn, kept(step, drawn, wanted, 2 * self.mask_blur))?,
        };
        Ok(Mk2Drawing { canvas, mask, job, direction, wanted })
    }

    /// The [`steps`](Self::steps) of a picture `(width, height)`, with what each is begun on and what is drawn of that, before it is
    /// there; an error if it cannot be continued so.
    pub fn planned(&self, mut size: (usize, usize)) -> Result<Vec<Mk2Plan>> {
        let mut plans = vec![];
        for step in self.steps(size)? {
            let Sizes { wanted, canvas, drawn } = self.sizes(step, size)?;
            plans.push(Mk2Plan { step, canvas, drawn });
            size = wanted;
        }
        Ok(plans)
    }

    fn sizes(&self, step: Mk2Step, picture: (usize, usize)) -> Result<Sizes> {
        let Mk2Step { direction, pixels } = step;
        let is_across = matches!(direction, Direction::Left | Direction::Right);
        let more = |is_along: bool| if is_along { pixels } else { 0 };
        let wanted = (picture.0.saturating_add(more(is_across)), picture.1.saturating_add(more(!is_across)));
        check_sides("outpainted", wanted.0, wanted.1)?;
        let canvas = (rounded_up(wanted.0), rounded_up(wanted.1));
        check_kept(canvas, kept(step, canvas, wanted, self.mask_blur), self.mask_blur, picture)?;
        let drawn = if is_across {
            (in_eighths(self.size.0.min(wanted.0)), canvas.1)
        } else {
            (canvas.0, in_eighths(self.size.1.min(wanted.1)))
        };
        Ok(Sizes { wanted, canvas, drawn })
    }
}

/// `(width, height)` of what is there after a step, of what it is begun on, and of what is drawn of that.
struct Sizes {
    wanted: (usize, usize),
    canvas: (usize, usize),
    drawn: (usize, usize),
}

/// What remains of a picture of this size whose `wanted` part remains, as [`frame`] takes it: what is there already, less `reach`.
fn kept(step: Mk2Step, size: (usize, usize), wanted: (usize, usize), reach: usize) -> [i64; 4] {
    let Mk2Step { direction, pixels } = step;
    let edge = (pixels + reach) as i64;
    let mut inside = [0, 0, wanted.0 as i64, wanted.1 as i64];
    match direction {
        Direction::Left => inside[0] = edge,
        Direction::Up => inside[1] = edge,
        Direction::Right => inside[2] = size.0 as i64 - edge,
        Direction::Down => inside[3] = size.1 as i64 - edge,
    }
    inside
}

/// Where a picture lies that is drawn on this canvas: at the end that is continued.
fn place(direction: Direction, canvas: (usize, usize), drawn: (usize, usize)) -> (usize, usize) {
    let last = (canvas.0.saturating_sub(drawn.0), canvas.1.saturating_sub(drawn.1));
    match direction {
        Direction::Left => (0, last.1),
        Direction::Up => (last.0, 0),
        Direction::Right | Direction::Down => last,
    }
}

/// One side of a picture, begun with noise.
#[derive(Clone, Debug)]
pub struct Mk2Drawing {
    canvas: Picture,
    mask: Mask,
    job: Job,
    direction: Direction,
    wanted: (usize, usize),
}

impl Mk2Drawing {
    /// The picture continued with noise, RGB; both sides are multiples of 64.
    pub fn canvas(&self) -> &Picture {
        &self.canvas
    }

    /// Where that is noise.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// What is drawn, with `inpainting_fill` "original".
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// What is there after this step, RGB, from what was drawn for the job.
    pub fn finish(&self, drawn: &Picture) -> Result<Picture> {
        drawn.check()?;
        let (width, height) = (self.job.picture.width, self.job.picture.height);
        if (drawn.width, drawn.height) != (width, height) {
            return Err(Error::Request(format!(
                "picture: {}x{} was drawn for {width}x{height}; give the same size",
                drawn.width, drawn.height
            )));
        }
        let size = (self.canvas.width, self.canvas.height);
        let (left, top) = place(self.direction, size, (drawn.width, drawn.height));
        let mut made = self.canvas.clone();
        made.paste(&Picture::from(drawn.clone().into_rgb()), left, top);
        made.cropped(Region { left: 0, top: 0, right: self.wanted.0, bottom: self.wanted.1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_told_with_its_remedy() {
        let picture = Picture { width: 60, height: 8, channels: Channels::Grey, pixels: vec![7; 480] };
        let mk2 = Mk2 {
            margins: Margins { up: 8, ..Margins::default() },
            mask_blur: 8,
            noise_q: 1.0,
            color_variation: 0.05,
            size: (64, 64),
        };
        let steps = mk2.steps((60, 8)).expect("a step");
        assert_eq!(steps, [Mk2Step { direction: Direction::Up, pixels: 56 }]);
        let refused = mk2.begin(steps[0], &picture).expect_err("nothing is left").to_string();
        assert!(refused.contains("mask_blur: 8") && refused.contains("60x8"), "{refused}");
        let refused = Mk2 { mask_blur: 257, ..mk2 }.steps((60, 8)).expect_err("too wide").to_string();
        assert!(refused.contains("mask_blur: 257") && refused.contains("256"), "{refused}");
        let endless = Mk2Step { direction: Direction::Up, pixels: usize::MAX };
        assert!(mk2.begin(endless, &picture).is_err());
        let drawing = Mk2 { mask_blur: 2, ..mk2 }.begin(steps[0], &picture).expect("can be drawn");
        let wide = Picture { width: 65, height: 1, channels: Channels::Grey, pixels: vec![7; 65] };
        let refused = drawing.finish(&wide).expect_err("too wide").to_string();
        assert!(refused.contains("65x1 was drawn for 64x64"), "{refused}");
    }

    #[test]
    fn what_is_drawn_has_multiples_of_8_at_the_end_that_is_continued() {
        let picture = Picture { width: 50, height: 64, channels: Channels::Rgb, pixels: vec![7; 9600] };
        let margins = Margins { left: 30, right: 40, ..Margins::default() };
        let mk2 = Mk2 { margins, mask_blur: 1, noise_q: 1.0, color_variation: 0.05, size: (512, 512) };
        let steps = mk2.steps((50, 64)).expect("steps");
        assert_eq!(steps.iter().map(|step| step.pixels).collect::<Vec<_>>(), [33, 45]);
        // 83 and 95 are wanted, of canvases of 128.
        for (step, (first, after), width) in [(steps[0], (0, 80), 83), (steps[1], (40, 128), 95)] {
            let drawing = mk2.begin(step, &picture).expect("can be drawn");
            let drawn =
                Picture { pixels: vec![99; (after - first) * 64 * 3], ..drawing.job().picture.clone() };
            let made = drawing.finish(&drawn).expect("fits");
            assert_eq!((made.width, made.height), (width, 64));
            for (at, pixel) in made.pixels.chunks_exact(3).enumerate() {
                assert_eq!(pixel == [99; 3], (first..after).contains(&(at % width)), "{at}");
            }
        }
    }
}
