//! The stream of PyTorch 0.1.10 to 1.5: five pickles one behind the other (a magic number, the version, what the machine
//! was, the object, the storages' keys), then the storages.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::pickle::{self, Budget, Wrong};
use super::refusal::Refusal;

/// The magic number in a pickle of protocol 2 and later.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The same in those of protocols 0 and 1.
const MAGIC_TEXT: &[u8] = b"119547037146038801333356";

/// It stands within so many bytes, whatever the protocol puts before it.
const BEFORE: usize = 64;

const PICKLES: usize = 5;

/// What is read first: mostly all the pickles are in it.
const FIRST: usize = 1 << 20;

pub(super) fn begins(head: &[u8]) -> bool {
    let head = head.get(..BEFORE).unwrap_or(head);
    [&MAGIC[..], MAGIC_TEXT].iter().any(|magic| head.windows(magic.len()).any(|found| found == *magic))
}

/// Walks the pickles.
pub(super) fn check(file: &File, length: u64) -> Result<(), Refusal> {
    for largest in [FIRST, pickle::LARGEST] {
        let mut bytes = vec![0; largest.min(usize::try_from(length).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut bytes, 0)?;
        match walk(&bytes) {
            Err(Wrong::CutOff) if (bytes.len() as u64) < length => {}
            walked => return Ok(walked?),
        }
    }
    let reason = format!("its pickles are longer than {} bytes, which no model's are", pickle::LARGEST);
    Err(Refusal::File(reason))
}

fn walk(mut bytes: &[u8]) -> Result<(), Wrong> {
    let mut budget = Budget::new();
    for _ in 0..PICKLES {
        let walked = pickle::walk(bytes, &mut budget)?;
        bytes = bytes.get(walked.length..).unwrap_or_default();
    }
    Ok(())
}
