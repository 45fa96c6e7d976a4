//! What a network is made of, whatever file it came from.

use latentd_client::protocol::LibraryKind;
use latentd_models::Result;
use latentd_models::files::{StoredScale, StoredTensor};
use latentd_models::model::{ComponentKind, vae_parts, with_vae};
use sha2::{Digest, Sha256};

use crate::library::Pinned;

/// SHA-256 over its tensors, sorted by name: name, type, shape and elements of each, and those of its scale. `None` once
/// `stopped`, or if the file is no longer as it was pinned, and so not what is in memory.
pub(super) fn digest(pinned: &Pinned, kind: ComponentKind, stopped: &dyn Fn() -> bool) -> Option<[u8; 32]> {
    // What was cut off is zeros, and no content.
    let digest = if pinned.item().kind == LibraryKind::Vae {
        let file = with_vae(pinned.tensors().ok()?).ok()?;
        digest_of(vae_parts(&file), stopped).filter(|_| file.check_intact().is_ok())
    } else {
        let checkpoint = pinned.checkpoint().ok()?;
        let is_intact = || checkpoint.file().is_some_and(|file| file.check_intact().is_ok());
        digest_of(checkpoint.tensors_of(kind), stopped).filter(|_| is_intact())
    };
    // What was written to meanwhile may have the content of another.
    pinned.check().ok()?;
    digest
}

fn digest_of<'a>(
    tensors: impl Iterator<Item = Result<StoredTensor<'a>>>,
    stopped: &dyn Fn() -> bool,
) -> Option<[u8; 32]> {
    let mut all = Sha256::new();
    for tensor in tensors {
        if stopped() {
            return None;
        }
        let StoredTensor { name, dtype, shape, bytes, scale } = tensor.ok()?;
        // In quotes, so that none looks like what follows it.
        all.update(format!("{name:?}\0{}\0{shape:?}\0", dtype.name()));
        all.update(Sha256::digest(&bytes));
        if let Some(StoredScale { dtype, shape, bytes }) = scale {
            all.update(format!("\0{}\0{shape:?}\0", dtype.name()));
            all.update(Sha256::digest(&bytes));
        }
    }
    Some(all.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Seek, SeekFrom, Write};

    use latentd_models::files::ElementType;

    use super::*;
    use crate::memory::fixture::Fixture;

    #[test]
    fn no_two_contents_look_alike() {
        let scale = |dtype, shape: &'static [usize]| Some((dtype, shape));
        let rows: [&[(&str, _)]; 7] = [
            &[("a", None)],
            &[("a", None), ("scale", None)],
            &[("a\0", None)],
            &[("a", scale(ElementType::F16, &[2]))],
            &[("a", scale(ElementType::Bf16, &[2]))],
            &[("a", scale(ElementType::F16, &[2, 1]))],
            &[("a", scale(ElementType::F32, &[1]))],
        ];
        let digests = rows.map(|tensors| {
            let bytes = || vec![7; 4].into();
            let tensors = tensors.iter().map(|(name, scale)| {
                let scale = scale.map(|(dtype, shape)| StoredScale { dtype, shape, bytes: bytes() });
                Ok(StoredTensor { name, dtype: ElementType::F8E4M3, shape: &[4], bytes: bytes(), scale })
            });
            digest_of(tensors, &|| false).expect("read")
        });
        for (place, digest) in digests.iter().enumerate() {
            assert!(!digests[..place].contains(digest), "{:?}", rows[place].len());
        }
    }

    #[test]
    fn a_file_that_is_written_to_meanwhile_has_no_content() {
        let fixture = Fixture::new();
        let pinned = fixture.pin().checkpoint;
        let before = digest(&pinned, ComponentKind::Vae, &|| false).expect("read");
        assert_eq!(digest(&pinned, ComponentKind::Vae, &|| false), Some(before));
        assert_ne!(digest(&pinned, ComponentKind::UNet, &|| false), Some(before));
        let written = Cell::new(false);
        let write_once = || {
            if !written.replace(true) {
                let mut file = std::fs::File::options().write(true).open(&fixture.file).expect("opened");
                file.seek(SeekFrom::End(-1)).expect("sought");
                file.write_all(&[0x55]).expect("written");
            }
            false
        };
        assert_eq!(digest(&pinned, ComponentKind::Vae, &write_once), None);
        assert!(written.get());
    }
}
