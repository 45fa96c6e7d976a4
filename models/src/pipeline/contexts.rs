//! Conditioning as the UNet takes it, kept from call to call and from pass to pass.

use std::sync::{Arc, Weak};

use crate::Result;
use crate::networks::unet::{Context, UNet};
use crate::nn::{KeyValueTransform, Run};
use crate::prompt::Conditioning;

/// Conditioning as the UNet's blocks take it, made when it is first needed. Of prompts that change there may be more than
/// memory has room for: those that were needed longest ago are made again.
#[derive(Default)]
pub(super) struct Contexts {
    /// The network that they were made for. If a pass uses another, they are made again.
    network: Weak<UNet>,
    /// Those needed last behind the others.
    known: Vec<(Arc<Conditioning>, Arc<Context>)>,
    /// Digests of the transforms that they were made with.
    transforms: Vec<[u8; 32]>,
}

impl Contexts {
    /// So many are kept, or as many as one call needs: of two prompts that take turns each is made once.
    pub(super) const KEPT: usize = 4;

    /// Makes those that a call needs.
    pub(super) fn need<'a>(
        &mut self,
        all: impl Iterator<Item = &'a Arc<Conditioning>>,
        unet: &Arc<UNet>,
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
        for conditioning in all {
            if !wanted.iter().any(|other| same(other, conditioning)) {
                wanted.push(conditioning);
            }
        }
        let is_wanted = |known: &Arc<Conditioning>| wanted.iter().any(|wanted| same(wanted, known));
        let (needed, mut others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.known).into_iter().partition(|(known, _)| is_wanted(known));
        let room = Self::KEPT.saturating_sub(wanted.len());
        others.drain(..others.len().saturating_sub(room));
        self.known = others;
        self.known.extend(needed);
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
