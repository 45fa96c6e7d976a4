//! Images: u8, sRGB, straight alpha; 1, 3 or 4 channels side by side.

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::abi::{LATENTD_IMAGE, LATENTD_READ, LATENTD_REPLACE, LATENTD_STORED, latentd_handle};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::tensor::{mapped, numbers};

/// An image that is lent.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    pub(crate) call: Call<'a>,
    pub(crate) handle: latentd_handle,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1, 3 or 4.
    pub channels: usize,
}

impl<'a> Image<'a> {
    pub(crate) fn of(call: Call<'a>, handle: latentd_handle) -> Result<Self> {
        let info = call.info_of(handle)?;
        let side = |index: usize| info.shape.get(index).and_then(|size| usize::try_from(*size).ok());
        let (Some(channels @ (1 | 3 | 4)), Some(height), Some(width)) = (side(1), side(2), side(3)) else {
            return Err(Error::failed("an image without sizes"));
        };
        Ok(Self { call, handle, width, height, channels })
    }

    /// The pixels, row by row, their channels side by side.
    pub fn read(&self) -> Result<Cow<'a, [u8]>> {
        let Self { width, height, channels, .. } = *self;
        let map = mapped(&self.call, self.handle, LATENTD_READ, LATENTD_STORED, 0)?;
        // SAFETY: images are u8; they stay until the call ends.
        let bytes: &[u8] = unsafe { numbers(&map) };
        let strides = [map.strides[1], map.strides[2], map.strides[3]].map(|stride| stride as usize);
        if strides == [1, width * channels, channels] && bytes.len() >= width * height * channels {
            return Ok(Cow::Borrowed(bytes.get(..width * height * channels).unwrap_or_default()));
        }
        // As it lies with another host.
        let place = |index: usize| {
            let (pixel, channel) = (index / channels, index % channels);
            channel * strides[0] + pixel / width * strides[1] + pixel % width * strides[2]
        };
        let pixels = (0..width * height * channels).map(|index| bytes.get(place(index)).copied());
        pixels
            .collect::<Option<_>>()
            .map(Cow::Owned)
            .ok_or_else(|| Error::failed("an image with too few bytes"))
    }

    /// A new one of the same sizes.
    pub fn like(&self) -> Result<NewImage<'a>> {
        self.call.new_image(self.width, self.height, self.channels)
    }
}

impl<'a> Call<'a> {
    /// An image of zeros, of 1, 3 or 4 channels side by side.
    pub fn new_image(&self, width: usize, height: usize, channels: usize) -> Result<NewImage<'a>> {
        NewImage::map(*self, self.alloc(LATENTD_IMAGE, &[1, channels, height, width])?)
    }
}

/// An image that was allocated, while it is filled. Channels lie side by side.
pub struct NewImage<'a> {
    pub(crate) handle: latentd_handle,
    pixels: *mut u8,
    count: usize,
    of: PhantomData<&'a mut [u8]>,
}

impl NewImage<'_> {
    /// What was just allocated, to be written.
    pub(crate) fn map(call: Call<'_>, handle: latentd_handle) -> Result<Self> {
        let map = mapped(&call, handle, LATENTD_REPLACE, LATENTD_STORED, 0)?;
        Ok(Self { handle, pixels: map.data.cast(), count: map.bytes as usize, of: PhantomData })
    }

    /// The pixels, row by row.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        if self.count == 0 {
            return &mut [];
        }
        // SAFETY: it is mapped for writing, by us alone, until it is handed over or the call ends.
        unsafe { std::slice::from_raw_parts_mut(self.pixels, self.count) }
    }
}
