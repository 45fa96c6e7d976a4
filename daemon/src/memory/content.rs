//! What a network is made of, whatever file it came from.

use latentd_models::files::StoredTensor;
use latentd_models::model::{Checkpoint, ComponentKind};
use sha2::{Digest, Sha256};

/// SHA-256 over its tensors, sorted by name: name, type, shape and elements of each. `None` once `stopped`, or if the file
/// was cut off meanwhile.
pub(super) fn digest(
    checkpoint: &Checkpoint,
    kind: ComponentKind,
    stopped: &dyn Fn() -> bool,
) -> Option<[u8; 32]> {
    let mut all = Sha256::new();
    for StoredTensor { name, dtype, shape, bytes } in checkpoint.tensors_of(kind) {
        if stopped() {
            return None;
        }
        all.update(format!("{name}\0{}\0{shape:?}\0", dtype.name()));
        all.update(Sha256::digest(&bytes));
    }
    // What was cut off is zeros, and no content.
    checkpoint.file()?.check_intact().ok()?;
    Some(all.finalize().into())
}
