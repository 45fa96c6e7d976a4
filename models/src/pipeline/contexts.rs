//! Conditioning as the UNet takes it, kept from pass to pass.

use std::sync::{Arc, Weak};

use super::guidance::Guidance;
use crate::Result;
use crate::networks::unet::{Context, UNet};
use crate::nn::{KeyValueTransform, Run};
use crate::prompt::Conditioning;

/// Conditioning as the UNet's blocks take it, made once for each that differs.
#[derive(Default)]
pub(super) struct Contexts {
    /// The network that they were made for. If a pass uses another, they are made again.
    network: Weak<UNet>,
    known: Vec<(Arc<Conditioning>, Arc<Context>)>,
    /// Digests of the transforms that they were made with.
    transforms: Vec<[u8; 32]>,
}

impl Contexts {
    /// Makes those of all branches, and forgets those that none has any more.
    pub(super) fn prepare(
        &mut self,
        unet: &Arc<UNet>,
        guidance: &[Guidance],
        transforms: &[Arc<dyn KeyValueTransform>],
        run: &Run,
    ) -> Result<()> {
        let digests: Vec<[u8; 32]> = transforms.iter().map(|transform| transform.digest()).collect();
        let network = Arc::downgrade(unet);
        if digests != self.transforms || !self.network.ptr_eq(&network) {
            self.known.clear();
            (self.transforms, self.network) = (digests, network);
        }
        let mut wanted: Vec<&Arc<Conditioning>> = vec![];
        for span in guidance.iter().flat_map(|guidance| &guidance.branches).flat_map(|branch| &branch.spans) {
            if !wanted.iter().any(|other| same(other, &span.conditioning)) {
                wanted.push(&span.conditioning);
            }
        }
        self.known.retain(|(known, _)| wanted.iter().any(|wanted| same(wanted, known)));
        for conditioning in wanted {
            if self.get(conditioning).is_none() {
                let context = unet.context(&conditioning.tokens, transforms, run)?;
                self.known.push((Arc::clone(conditioning), Arc::new(context)));
            }
        }
        Ok(())
    }

    /// That of a branch's conditioning.
    pub(super) fn get(&self, conditioning: &Arc<Conditioning>) -> Option<&Context> {
        let found = self.known.iter().find(|(known, _)| same(known, conditioning));
        found.map(|(_, context)| &**context)
    }
}

fn same(a: &Arc<Conditioning>, b: &Arc<Conditioning>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
