//! Pictures made larger, as A1111 does it (`modules/images.py: resize_image`, `modules/upscaler.py`): by an upscaler as often as
//! it takes, then to whole latents, then to the size itself.

use super::{Filter, Picture};
use crate::{Error, Result};

/// What makes a picture larger.
pub trait Upscaler {
    /// A1111's name.
    fn name(&self) -> &str;

    /// The picture larger by `scale`, or by what the upscaler is made for; as it is if that is all there is to it. `cancelled`
    /// is polled in what takes long.
    fn upscale(&self, picture: &Picture, scale: f64, cancelled: &dyn Fn() -> bool) -> Result<Picture>;
}

/// Each pixel of those around it.
impl Upscaler for Filter {
    fn name(&self) -> &str {
        match self {
            Self::Nearest => "Nearest",
            Self::Box => "Box",
            Self::Bilinear => "Bilinear",
            Self::Bicubic => "Bicubic",
            Self::Lanczos => "Lanczos",
        }
    }

    fn upscale(&self, picture: &Picture, scale: f64, _cancelled: &dyn Fn() -> bool) -> Result<Picture> {
        let [width, height] = [picture.width, picture.height].map(|side| (side as f64 * scale) as usize);
        picture.resized(width, height, *self)
    }
}

/// An upscaler goes over a picture at most so often.
const MOST_ROUNDS: usize = 3;

impl Picture {
    /// At another size, by an upscaler if it is larger; what that leaves to do, and all if there is none, is done by
    /// [`Filter::Lanczos`].
    pub fn upscaled(
        &self,
        upscaler: Option<&dyn Upscaler>,
        width: usize,
        height: usize,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let scale = (width as f64 / self.width as f64).max(height as f64 / self.height as f64);
        match upscaler {
            Some(upscaler) if scale > 1.0 => {
                self.larger(upscaler, scale, cancelled)?.brought_to(width, height)
            }
            _ => self.clone().brought_to(width, height),
        }
    }

    /// The largest size on the way of [`Self::upscaled`] from one size to another, `by` so much each time.
    pub fn largest_on_the_way(
        (width, height): (usize, usize),
        (wide, high): (usize, usize),
        by: usize,
    ) -> (usize, usize) {
        let scale = (wide as f64 / width as f64).max(high as f64 / height as f64);
        let (mut made, mut rounds) = ((width, height), 0);
        let (wide, high) = (whole(width, scale), whole(height, scale));
        while scale > 1.0 && rounds < MOST_ROUNDS && (made.0 < wide || made.1 < high) && by > 1 {
            made = (made.0.saturating_mul(by), made.1.saturating_mul(by));
            rounds += 1;
        }
        made
    }

    /// Of whole latents: sides that 8 divides.
    fn larger(&self, upscaler: &dyn Upscaler, scale: f64, cancelled: &dyn Fn() -> bool) -> Result<Self> {
        let [width, height] = [self.width, self.height].map(|side| whole(side, scale));
        let mut made = self.clone();
        for _ in 0..MOST_ROUNDS {
            if made.width >= width && made.height >= height {
                break;
            }
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let before = (made.width, made.height);
            made = upscaler.upscale(&made, scale, cancelled)?;
            if before == (made.width, made.height) {
                break;
            }
        }
        made.brought_to(width, height)
    }

    fn brought_to(self, width: usize, height: usize) -> Result<Self> {
        if (self.width, self.height) == (width, height) {
            return Ok(self);
        }
        self.resized(width, height, Filter::Lanczos)
    }
}

/// A side that 8 divides.
fn whole(side: usize, scale: f64) -> usize {
    (side as f64 * scale / 8.0).floor() as usize * 8
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::image::Channels;

    /// Makes pictures twice as large, or leaves them, and writes down what it was given.
    struct Twice(Mutex<Vec<(usize, usize)>>, bool);

    impl Upscaler for Twice {
        fn name(&self) -> &'static str {
            "Twice"
        }

        fn upscale(&self, picture: &Picture, _scale: f64, _cancelled: &dyn Fn() -> bool) -> Result<Picture> {
            self.0.lock().expect("no panic").push((picture.width, picture.height));
            let by = if self.1 { 2 } else { 1 };
            picture.resized(picture.width * by, picture.height * by, Filter::Nearest)
        }
    }

    fn picture() -> Picture {
        let pixels = (0..16 * 8 * 3).map(|place| (place * 7 % 251) as u8).collect();
        Picture { width: 16, height: 8, channels: Channels::Rgb, pixels }
    }

    #[test]
    fn an_upscaler_goes_over_a_picture_until_it_is_large_enough() {
        for (size, grows, expected) in [
            ((30, 16), true, vec![(16, 8)]),
            ((48, 16), true, vec![(16, 8), (32, 16)]),
            ((500, 16), true, vec![(16, 8), (32, 16), (64, 32)]),
            ((48, 24), false, vec![(16, 8)]),
            ((16, 8), true, vec![]),
            ((9, 3), true, vec![]),
        ] {
            let upscaler = Twice(Mutex::default(), grows);
            let made = picture().upscaled(Some(&upscaler), size.0, size.1, &|| false).expect("made");
            assert_eq!((made.width, made.height), size);
            assert_eq!(*upscaler.0.lock().expect("no panic"), expected, "{size:?}");
            let largest = Picture::largest_on_the_way((16, 8), size, if grows { 2 } else { 1 });
            let by = if grows { 1 << expected.len() } else { 1 };
            assert_eq!(largest, (16 * by, 8 * by), "{size:?}");
        }
    }

    #[test]
    fn without_one_and_for_less_it_is_lanczos() {
        for (width, height) in [(50, 30), (9, 5)] {
            let wanted = picture().resized(width, height, Filter::Lanczos).expect("made");
            assert_eq!(picture().upscaled(None, width, height, &|| false).expect("made"), wanted);
        }
        let smaller = picture().upscaled(Some(&Filter::Nearest), 9, 5, &|| false).expect("made");
        assert_eq!(smaller, picture().resized(9, 5, Filter::Lanczos).expect("made"));
        let stopped = picture().upscaled(Some(&Filter::Nearest), 90, 50, &|| true);
        assert!(matches!(stopped, Err(Error::Cancelled)));
    }
}
