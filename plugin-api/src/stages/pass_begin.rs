//! `pass.begin`: what the pictures of a pass are drawn from.

use super::{Pass, hand_over, items, lent, pass};
use crate::abi::{latentd_pass, latentd_picture};
use crate::call::Call;
use crate::error::Result;
use crate::handed_over::HandedOver;
use crate::image::Image;
use crate::job::Plugin;

/// `pass.begin`: a pass begins, and nothing of it is encoded yet.
pub trait PassBegin: Plugin {
    /// May replace what pictures are drawn from, and where.
    fn pass_begin(&self, stage: &Passing<'_>) -> Result<()>;
}

/// [`PassBegin`].
pub struct Passing<'a> {
    /// The call.
    pub call: Call<'a>,
    /// The pass.
    pub pass: Pass,
    /// Its pictures.
    pub pictures: Vec<Begun<'a>>,
}

/// A part of the user's picture, in its pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crop {
    /// Of its left upper corner, from the left and from the top.
    pub at: (usize, usize),
    /// Pixels in a row, and rows.
    pub size: (usize, usize),
    /// As `size`, of the whole.
    pub whole: (usize, usize),
}

/// A picture of a pass that begins.
pub struct Begun<'a> {
    /// Which of the job's.
    pub index: usize,
    /// What draws it alone.
    pub seed: u64,
    /// What it is drawn from, as it will be encoded; `None` from noise, or what another pass drew.
    pub image: Option<Image<'a>>,
    /// Where it is drawn anew, one channel of the pass's size; everywhere if `None`.
    pub mask: Option<Image<'a>>,
    /// What `image` is of.
    pub crop: Crop,
    /// The same as `image` before it was filled in where it is drawn, if it was.
    pub unfilled: Option<Image<'a>>,
    call: Call<'a>,
    slot: u32,
}

impl<'a> Begun<'a> {
    /// Draws it from another image of the same size.
    pub fn replace_image(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, self.slot, new)
    }

    /// Draws it elsewhere: an image of one channel of the pass's size, also where there is no mask yet.
    pub fn replace_mask(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, self.slot + 1, new)
    }
}

impl<'a> Passing<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_pass) -> Result<Self> {
        // SAFETY: as the caller says.
        let list = unsafe { lent(given) }?.pictures;
        // SAFETY: as the caller says.
        let (pass, pictures) = unsafe { (pass(given)?, items::<latentd_picture>(list)?) };
        let image = |handle| if handle == 0 { Ok(None) } else { Image::of(call, handle).map(Some) };
        let picture = |(index, picture): (usize, latentd_picture)| {
            let at = &picture.crop;
            let side = |side: i32| usize::try_from(side).unwrap_or_default();
            Ok(Begun {
                index: picture.image as usize,
                seed: picture.seed,
                image: image(picture.pixels)?,
                mask: image(picture.mask)?,
                crop: Crop {
                    at: (side(at.x), side(at.y)),
                    size: (at.w as usize, at.h as usize),
                    whole: (at.canvas_w as usize, at.canvas_h as usize),
                },
                unfilled: image(picture.unfilled)?,
                call,
                slot: 2 * index as u32,
            })
        };
        let pictures = pictures.into_iter().enumerate().map(picture).collect::<Result<_>>()?;
        Ok(Self { call, pass, pictures })
    }
}
