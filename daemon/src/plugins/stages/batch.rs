//! Pictures as they are given back, all of a drawing in one call.

use std::sync::Arc;

use latentd_models::image::{Channels, Picture};
use latentd_plugin_api::abi::{LATENTD_BATCH_POST, latentd_pictures};

use super::told::{list, with_pixels};
use super::{Called, JobStages};
use crate::error::{Class, Error};
use crate::memory::Lease;
use crate::plugins::call::AtHand;
use crate::plugins::objects::{Content, Image};

/// A picture that is laid over what it was drawn from, and nothing more is done to.
pub(crate) struct Whole {
    pub picture: Picture,
    /// What draws it alone.
    pub seed: u64,
    /// Its place in the drawing.
    pub index: usize,
    /// Whether it is of the last pass; others are left as they are.
    pub is_last: bool,
}

impl Whole {
    /// Its pixels, taken out of it.
    pub(super) fn lend(&mut self) -> Content {
        let pixels = Arc::new(std::mem::take(&mut self.picture.pixels));
        let (width, height) = (self.picture.width, self.picture.height);
        Content::Image(Image { width, height, channels: self.picture.channels.count(), pixels })
    }

    /// What stands in their place.
    pub(super) fn take_back(&mut self, content: Content) -> latentd_models::Result<()> {
        if let Content::Image(Image { width, height, channels, pixels }) = content {
            let channels = Channels::from_count(channels as u32)?;
            self.picture = Picture { width, height, channels, pixels: Arc::unwrap_or_clone(pixels) };
        }
        Ok(())
    }
}

impl JobStages<'_> {
    /// All pictures of a drawing are whole, and may have so many bytes together; sizes and channels stay if each becomes part
    /// of another. Gives what each takes beyond what it took.
    pub(crate) fn batch_post(
        &self,
        pictures: &mut [Whole],
        is_part: bool,
        most_bytes: u64,
    ) -> latentd_models::Result<Vec<Option<Lease>>> {
        let mut rooms: Vec<Option<Lease>> = pictures.iter().map(|_| None).collect();
        if !self.has(LATENTD_BATCH_POST) {
            return Ok(rooms);
        }
        let mut told: Vec<(&mut Whole, &mut Option<Lease>)> =
            pictures.iter_mut().zip(&mut rooms).filter(|(whole, _)| whole.is_last).collect();
        let whose: Vec<(usize, u64)> = told.iter().map(|(whole, _)| (whole.index, whole.seed)).collect();
        let mut contents: Vec<Content> = told.iter_mut().map(|(whole, _)| whole.lend()).collect();
        let slots = contents.len();
        let at_hand = AtHand { any_size: !is_part, is_between: true, ..AtHand::default() };
        let function = |called: &Called<'_>| called.batch_post(&whose);
        self.chain_with(LATENTD_BATCH_POST, |_| true, &mut contents, slots, at_hand, function)?;
        let bytes: u64 = contents.iter().map(|content| given_bytes(content) as u64).sum();
        if bytes > most_bytes {
            let text = format!(
                "{LATENTD_BATCH_POST}: plugins leave pictures of {bytes} bytes, {most_bytes} are allowed"
            );
            return Err(self.fail(Error::new(Class::Plugin, text)));
        }
        for ((whole, room), content) in told.iter_mut().zip(contents) {
            let before = whole.picture.width * whole.picture.height * whole.picture.channels.count();
            let after = given_bytes(&content);
            if let Some(more) = after.checked_sub(before).filter(|more| *more > 0) {
                let lease = self.job.reserve(more as u64, LATENTD_BATCH_POST);
                **room = Some(lease.map_err(|error| self.fail(error))?);
            }
            whole.take_back(content)?;
            if whole.picture.channels == Channels::Grey {
                // Who asked expects colours.
                whole.picture = whole.picture.over_colour([255; 3])?;
            }
        }
        Ok(rooms)
    }
}

/// Bytes that an image takes as it is given back: who asked expects colours, also of grey.
fn given_bytes(content: &Content) -> usize {
    match content.dims()[..] {
        [pictures, 1, height, width] => 3 * pictures * height * width,
        ref dims => dims.iter().product(),
    }
}

impl Called<'_> {
    /// Calls one plugin with pictures of these places and seeds.
    pub(in crate::plugins) fn batch_post(&self, whose: &[(usize, u64)]) -> u32 {
        let pictures = with_pixels(whose, self.handles);
        let args = latentd_pictures {
            size: size_of::<latentd_pictures>() as u32,
            reserved: 0,
            pass: std::ptr::null(),
            pictures: list(&pictures),
        };
        self.tables.batch_post.and_then(|table| table.run).map_or(0, |run| {
            // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
            unsafe { run(self.instance, self.call, &raw const args) }
        })
    }
}
