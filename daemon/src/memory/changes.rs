//! What a job changes in a checkpoint's networks: patches of their weights.

use std::sync::Arc;

use latentd_models::model::ComponentKind;
use latentd_models::nn::Patch;
use sha2::{Digest, Sha256};

use super::known::Known;
use crate::error::Result;
use crate::library::Pinned;

/// Patches by network, in the order in which they are applied.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    pub text_encoder: Vec<Arc<dyn Patch>>,
    pub unet: Vec<Arc<dyn Patch>>,
    /// The files that they are read from.
    pub files: Vec<Arc<Pinned>>,
}

impl Changes {
    /// Those of a network.
    pub(super) fn of(&self, kind: ComponentKind) -> &[Arc<dyn Patch>] {
        match kind {
            ComponentKind::TextEncoder => &self.text_encoder,
            ComponentKind::UNet => &self.unet,
            ComponentKind::Vae => &[],
        }
    }

    /// Tells a network with these changes from all others; `None` if it has none.
    pub(super) fn digest(&self, kind: ComponentKind) -> Option<[u8; 32]> {
        let patches = self.of(kind);
        let mut all = Sha256::new();
        for patch in patches {
            all.update(patch.digest());
        }
        (!patches.is_empty()).then(|| all.finalize().into())
    }

    /// Bytes that the changed networks take beside the others, in the order of [`ComponentKind::ALL`].
    pub(crate) fn bytes(&self, known: &Known) -> Result<[u64; 3]> {
        let mut bytes = [0; 3];
        for (bytes, kind) in bytes.iter_mut().zip(ComponentKind::ALL) {
            *bytes = known.estimate.patched_bytes(kind, self.of(kind))?;
        }
        Ok(bytes)
    }

    /// Bytes that are needed while so many threads make those, in the same order.
    pub(crate) fn working_bytes(&self, known: &Known, threads: usize) -> [u64; 3] {
        ComponentKind::ALL.map(|kind| known.estimate.patching_bytes(kind, self.of(kind), threads))
    }

    /// An error if a file was written to since it was looked at.
    pub(crate) fn check(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.check())
    }
}

#[cfg(test)]
mod tests {
    use latentd_models::model::Component;
    use latentd_models::nn::Precision;
    use latentd_models::nn::backend::cpu::cpu;

    use super::*;
    use crate::library::ModelFiles;
    use crate::memory::fixture::Fixture;
    use crate::memory::loading::For;
    use crate::memory::store::Memory;

    const TOUCHED: &str = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight";

    /// Adds a number to each weight of one tensor.
    struct Added(f32);

    impl Patch for Added {
        fn digest(&self) -> [u8; 32] {
            let mut digest = [0; 32];
            digest.iter_mut().zip(self.0.to_le_bytes()).for_each(|(to, byte)| *to = byte);
            digest
        }

        fn touches(&self, name: &str) -> bool {
            name == TOUCHED
        }

        fn apply(&self, _name: &str, _shape: &[usize], weights: &mut [f32]) -> latentd_models::Result<()> {
            for weight in weights {
                *weight += self.0;
            }
            Ok(())
        }
    }

    fn changed(memory: &Memory, files: &ModelFiles, known: &Known, by: &[f32]) -> Component {
        let unet = by.iter().map(|by| Arc::new(Added(*by)) as Arc<dyn Patch>).collect();
        let changes = Changes { unet, ..Changes::default() };
        memory.acquire_changed(files, known, ComponentKind::UNet, &changes, &|| false).expect("made")
    }

    #[test]
    fn the_room_of_both_is_held_while_either_is_there_and_what_was_made_beside_goes_first() {
        let fixture = Fixture::new();
        let (files, memory) = (fixture.pin(), Memory::new(cpu(), 1 << 30));
        let known = memory.known(&files, Precision::F32).expect("read");
        memory.begin_job(&files, &known);
        let base = known.estimate.weight_bytes(ComponentKind::UNet);
        let one = changed(&memory, &files, &known, &[1.0]);
        let again = changed(&memory, &files, &known, &[1.0]);
        assert!(Arc::ptr_eq(&one.parts, &again.parts), "it is made once");
        drop(again);
        let beside = memory.bytes() - base;
        let unpatched =
            memory.acquire(&files, &known, ComponentKind::UNet, For::Job, &|| false).expect("there");
        assert_eq!(one.parts.bytes_beside(&unpatched.parts), beside);
        drop(unpatched);
        // While one is drawn with, all of its memory is in use.
        assert_eq!((memory.idle_bytes(), memory.drop_idle()), (0, false));
        drop(changed(&memory, &files, &known, &[2.0]));
        drop(changed(&memory, &files, &known, &[1.0, 2.0]));
        assert_eq!((memory.bytes(), memory.idle_bytes()), (base + 3 * beside, 2 * beside));
        assert!(memory.drop_idle());
        assert_eq!(memory.bytes(), base + beside);
        drop(one);
        assert_eq!(memory.idle_bytes(), base + beside);
        memory.end_job(&known, None);
        assert!(memory.unload(files.checkpoint.item()));
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn of_a_pinned_checkpoint_only_itself_stays() {
        let fixture = Fixture::new();
        let (files, memory) = (fixture.pin(), Memory::new(cpu(), 1 << 30));
        let known = memory.known(&files, Precision::F32).expect("read");
        memory.begin_job(&files, &known);
        drop(changed(&memory, &files, &known, &[1.0]));
        memory.pin(files.checkpoint.item(), true).expect("there");
        memory.end_job(&known, None);
        assert!(memory.drop_idle());
        assert_eq!(memory.bytes(), known.estimate.weight_bytes(ComponentKind::UNet));
        assert!(!memory.drop_idle());
    }

    /// What two checkpoints have alike becomes one; what was made beside the other is drawn with on, and its room counted.
    #[test]
    fn what_was_made_beside_a_twin_keeps_its_room() {
        let fixture = Fixture::new();
        let (files, memory) = (fixture.pin(), Memory::new(cpu(), 1 << 30));
        let known = memory.known(&files, Precision::F32).expect("read");
        memory.begin_job(&files, &known);
        let base = known.estimate.weight_bytes(ComponentKind::UNet);
        let one = changed(&memory, &files, &known, &[1.0]);
        let all = memory.bytes();
        memory.learn_unet(&known, [7; 32]);
        assert_eq!(memory.bytes(), all);
        // It is the same network as before, under a better name.
        let again = changed(&memory, &files, &known, &[1.0]);
        assert!(Arc::ptr_eq(&one.parts, &again.parts));
        drop((one, again));
        assert_eq!(memory.idle_bytes(), all);
        assert!(all > base);
        memory.end_job(&known, Some(std::time::Duration::ZERO));
        assert_eq!(memory.bytes(), 0);
    }
}
