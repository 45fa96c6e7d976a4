//! The demo model that this program carries, where it was built with the feature `demo`.
//!
//! A miniature Stable Diffusion 1 that draws shapes and cartoon faces, so that something draws on any machine.
//! `build.rs` packs it; it is unpacked when it is used, never at the daemon's start.

mod unpack;

use latentd_models::model::Checkpoint;
use latentd_models::{Error, Result};

// SIZE, PARAMETERS and SHA256 of the checkpoint.
include!(concat!(env!("OUT_DIR"), "/demo.rs"));

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.packed"));

/// Its name in the library.
pub(crate) const NAME: &str = "latentd-demo";

/// What is known of the demo model without unpacking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DemoModel {
    /// Bytes of the checkpoint file that was packed.
    pub size: u64,
    /// Bytes that it takes in the binary.
    pub packed_size: u64,
    /// Number of weights.
    pub parameters: u64,
    /// Hash of that file, in hex.
    pub sha256: &'static str,
}

impl DemoModel {
    /// Its family, and the type of the weights.
    pub(crate) const ARCHITECTURE: &str = "sd1";
    pub(crate) const DTYPE: &str = "f16";

    /// The demo model, if this program carries it.
    pub(crate) fn find() -> Option<Self> {
        cfg!(feature = "demo").then_some(Self {
            size: SIZE as u64,
            packed_size: PACKED.len() as u64,
            parameters: PARAMETERS,
            sha256: SHA256,
        })
    }

    /// Unpacks it.
    pub(crate) fn checkpoint() -> Result<Checkpoint> {
        let bytes = unpack::unpack(PACKED, SIZE).map_err(|error| match error.kind() {
            std::io::ErrorKind::OutOfMemory => Error::OutOfMemory { bytes: SIZE as u64 },
            _ => Error::File { path: NAME.into(), reason: error.to_string() },
        })?;
        Checkpoint::from_bytes(NAME, bytes)
    }
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use latentd_models::files::{FileKind, Prediction, inspect};
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn what_is_unpacked_is_the_checkpoint_and_what_is_said_of_it_is_true() {
        let bytes = unpack::unpack(PACKED, SIZE).expect("unpacks");
        let file =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/latentd-demo.safetensors");
        assert!(bytes == std::fs::read(&file).expect("read"), "the very bytes");
        let digest = Sha256::digest(&bytes);
        let digest = digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let said = DemoModel::find().expect("carried");
        assert_eq!((said.sha256, said.size), (digest.as_str(), bytes.len() as u64));
        let found = inspect(&file).expect("sound");
        assert_eq!(found.kind, FileKind::Checkpoint);
        assert_eq!(found.architecture.as_deref(), Some(DemoModel::ARCHITECTURE));
        assert_eq!((found.dtype.as_str(), found.parameters), (DemoModel::DTYPE, said.parameters));
        let checkpoint = DemoModel::checkpoint().expect("a model");
        assert_eq!((checkpoint.native_size, checkpoint.prediction), ((128, 128), Prediction::Epsilon));
    }

    #[test]
    fn it_takes_at_most_what_was_promised() {
        let said = DemoModel::find().expect("carried");
        assert!(said.packed_size <= 14_000_000 && said.size <= 16_000_000, "{said:?}");
    }

    #[test]
    fn damage_is_noticed() {
        for place in [10, PACKED.len() / 2, PACKED.len() - 1] {
            let mut damaged = PACKED.to_vec();
            damaged[place] ^= 1;
            assert!(unpack::unpack(&damaged, SIZE).is_err(), "byte {place}");
        }
        assert!(unpack::unpack(&PACKED[..PACKED.len() - 5], SIZE).is_err());
        assert!(unpack::unpack(PACKED, SIZE - 1).is_err());
    }
}
