//! What a picture's file has beside its pixels.

use super::Channels;

/// What is written beside the pixels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The text that tells how it was made; none if it is empty.
    pub infotext: &'a str,
    /// Other texts by their keywords of 1 to 79 characters of Latin-1; JPEG and WebP have no place for them.
    pub texts: &'a [(String, String)],
    /// The colour profile; one of other colours than the pixels' is left out.
    pub icc: Option<&'a [u8]>,
}

impl Beside<'_> {
    /// The profile, if it is one of pixels like these.
    pub(super) fn icc_of(&self, channels: Channels) -> Option<&[u8]> {
        let wanted = if channels == Channels::Grey { b"GRAY" } else { b"RGB " };
        self.icc.filter(|profile| profile.get(16..20) == Some(wanted))
    }
}
