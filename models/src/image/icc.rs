//! Colour profiles (ICC), as bytes: what a file has is kept in the file that is made of it. Colours are never changed by them.

use super::metadata::{jpeg_segments, unpacked};
use super::{PictureFormat, png, webp};

/// Bytes of a profile.
const LONGEST: usize = 4 << 20;

/// The profile of a PNG, JPEG or WebP; none if it has none, or one that is damaged.
pub fn read_icc(bytes: &[u8]) -> Option<Vec<u8>> {
    let profile = match PictureFormat::of(bytes).ok()? {
        PictureFormat::Png => {
            let (_, content) = png::chunks(bytes).find(|(name, _)| name == b"iCCP")?;
            // Its name, the end of that, and how it is packed.
            let end = content.iter().position(|byte| *byte == 0)?;
            unpacked(content.get(end + 2..)?, LONGEST)?
        }
        PictureFormat::Jpeg => {
            const MARKER: &[u8] = b"ICC_PROFILE\0";
            let segments = jpeg_segments(bytes).filter(|(marker, _)| *marker == 0xe2);
            let parts = segments.filter_map(|(_, content)| content.strip_prefix(MARKER));
            let mut parts: Vec<(u8, &[u8])> =
                parts.filter_map(|part| Some((*part.first()?, part.get(2..)?))).collect();
            parts.sort_by_key(|(number, _)| *number);
            parts.into_iter().flat_map(|(_, part)| part).copied().collect()
        }
        PictureFormat::WebP => webp::metadata(bytes, b"ICCP")?.to_vec(),
    };
    let says_so = profile.get(36..40) == Some(b"acsp") && profile.len() >= 128;
    (says_so && profile.len() <= LONGEST).then_some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Beside, Channels, Picture};

    #[test]
    fn a_profile_is_kept_in_all_formats_where_it_fits() {
        let mut profile = vec![7; 70_000];
        profile[16..20].copy_from_slice(b"RGB ");
        profile[36..40].copy_from_slice(b"acsp");
        let beside = Beside { icc: Some(&profile), ..Beside::default() };
        for format in [PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::WebP] {
            for channels in [Channels::Rgb, Channels::Rgba, Channels::Grey] {
                let picture =
                    Picture { width: 8, height: 8, channels, pixels: vec![200u8; 64 * channels.count()] };
                let file = picture.encode_with(format, &beside).expect("encodes");
                // JPEG and WebP have no grey here that is told from RGB.
                let is_kept = channels != Channels::Grey || format == PictureFormat::Jpeg;
                assert_eq!(read_icc(&file), is_kept.then(|| profile.clone()), "{format:?} {channels:?}");
                assert!(Picture::decode(&file, 1 << 20).is_ok());
            }
        }
        assert_eq!(read_icc(b"no picture"), None);
        let damaged = Beside { icc: Some(&profile[..100]), ..Beside::default() };
        let picture = Picture { width: 1, height: 1, channels: Channels::Rgb, pixels: vec![1u8; 3] };
        let file = picture.encode_with(PictureFormat::Png, &damaged).expect("encodes");
        assert_eq!(read_icc(&file), None);
    }
}
