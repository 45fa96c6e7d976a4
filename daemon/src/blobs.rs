//! Pictures that were given once and are named by their SHA-256 afterwards: what `blobs.put` was sent, and what requests had in
//! them. Kept in memory, bounded in bytes and in time; those used longest ago go first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::error::{Class, Error, Result};
use crate::library::hex;
use crate::schema::shorten;

/// What they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobLimits {
    /// All together.
    pub bytes: u64,
    /// From the last use on.
    pub ttl: Duration,
}

/// Those that are kept, the one used last at the end.
#[derive(Default)]
pub(crate) struct Blobs(Mutex<Vec<Kept>>);

struct Kept {
    sha256: [u8; 32],
    bytes: Arc<[u8]>,
    used: Instant,
}

impl Blobs {
    /// What bytes are called.
    pub(crate) fn name(bytes: &[u8]) -> String {
        hex(&<[u8; 32]>::from(Sha256::digest(bytes)))
    }

    /// Keeps these bytes; their SHA-256 as hex digits. What is larger than all that may be kept is not.
    pub(crate) fn keep(&self, bytes: &Arc<[u8]>, limits: BlobLimits) -> String {
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|each| each.sha256 != sha256);
        kept.push(Kept { sha256, bytes: Arc::clone(bytes), used: Instant::now() });
        drop_more_than(&mut kept, limits);
        hex(&sha256)
    }

    /// What was kept under this name, used now.
    pub(crate) fn get(&self, field: &str, name: &str, limits: BlobLimits) -> Result<Arc<[u8]>> {
        let wanted = sha256_of(name).ok_or_else(|| {
            let name = shorten(name);
            Error::invalid(format!(
                "{field}.blob: '{name}' is no SHA-256; give the 64 hex digits that blobs.put gave"
            ))
        })?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop_more_than(&mut kept, limits);
        let Some(place) = kept.iter().position(|each| each.sha256 == wanted) else {
            let text = format!("{field}.blob: {name} is not kept, or not any more; {SEND}");
            return Err(Error::new(Class::NotFound, text));
        };
        let mut found = kept.remove(place);
        found.used = Instant::now();
        let bytes = Arc::clone(&found.bytes);
        kept.push(found);
        Ok(bytes)
    }
}

/// What to do about one that is not kept.
pub(crate) const SEND: &str = "send it with blobs.put";

fn drop_more_than(kept: &mut Vec<Kept>, limits: BlobLimits) {
    kept.retain(|each| each.used.elapsed() <= limits.ttl);
    let mut bytes: u64 = kept.iter().map(|each| each.bytes.len() as u64).sum();
    let mut gone = 0;
    for each in kept.iter() {
        if bytes <= limits.bytes {
            break;
        }
        bytes -= each.bytes.len() as u64;
        gone += 1;
    }
    kept.drain(..gone);
}

fn sha256_of(name: &str) -> Option<[u8; 32]> {
    if name.len() != 64 || !name.is_ascii() {
        return None;
    }
    let mut sha256 = [0; 32];
    for (index, byte) in sha256.iter_mut().enumerate() {
        *byte = u8::from_str_radix(name.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn what_was_kept_is_found_until_newer_ones_need_the_room() {
        let blobs = Blobs::default();
        let limits = BlobLimits { bytes: 10, ttl: LONG };
        let of = |byte: u8, count: usize| -> Arc<[u8]> { vec![byte; count].into() };
        let names: Vec<String> = (0..3).map(|byte| blobs.keep(&of(byte, 4), limits)).collect();
        let found = |name: &str| blobs.get("image", name, limits).map(|bytes| bytes[0]).ok();
        assert_eq!([found(&names[0]), found(&names[1]), found(&names[2])], [None, Some(1), Some(2)]);
        // The one that was used last stays.
        assert_eq!(found(&names[1].to_uppercase()), Some(1));
        let again = blobs.keep(&of(3, 4), limits);
        assert_eq!([found(&names[1]), found(&names[2]), found(&again)], [Some(1), None, Some(3)]);
        assert_eq!(blobs.keep(&of(3, 4), limits), again);
        assert_eq!(found(&names[1]), Some(1), "one that is there already takes no more");
        let large = blobs.keep(&of(4, 11), limits);
        assert_eq!(found(&large), None);
    }

    #[test]
    fn what_is_not_used_goes_and_wrong_names_are_told() {
        let blobs = Blobs::default();
        let limits = BlobLimits { bytes: 10, ttl: Duration::ZERO };
        let name = blobs.keep(&Arc::from([1u8; 4]), BlobLimits { ttl: LONG, ..limits });
        std::thread::yield_now();
        for (name, expected) in [
            (name.as_str(), "is not kept, or not any more; send it with blobs.put"),
            ("abc", "'abc' is no SHA-256"),
            (&"g".repeat(64), "is no SHA-256"),
            (&"ä".repeat(32), "is no SHA-256"),
        ] {
            let error = blobs.get("mask", name, limits).expect_err("not found");
            assert!(error.text.starts_with("mask.blob: ") && error.text.contains(expected), "{error}");
        }
    }
}
