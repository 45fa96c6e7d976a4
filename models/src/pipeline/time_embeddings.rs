//! Time embeddings of a request: made for many steps at once, kept from pass to pass.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::Result;
use crate::networks::unet::{TimeEmbedding, UNet};

/// Timesteps that are embedded together. Reading the layers' weights is nearly all of the work.
const TOGETHER: usize = 32;
/// Most that are kept: those of 1000 steps would take 80 MB.
const KEPT: usize = 256;

/// Embeddings by the bits of their timestep.
#[derive(Default)]
pub(super) struct TimeEmbeddings {
    /// Where the schedule goes, in order.
    schedule: Vec<f32>,
    /// The network that made them: another pass may have another.
    network: Weak<UNet>,
    known: HashMap<u32, TimeEmbedding>,
}

impl TimeEmbeddings {
    /// From now on they are needed in this order.
    pub(super) fn follow(&mut self, schedule: Vec<f32>) {
        self.schedule = schedule;
    }

    /// Forgets those of another network.
    pub(super) fn prepare(&mut self, unet: &Arc<UNet>) {
        let network = Arc::downgrade(unet);
        if !self.network.ptr_eq(&network) {
            self.known.clear();
            self.network = network;
        }
    }

    /// That of a timestep; of one in the schedule, the next ones are made with it.
    pub(super) fn get(&mut self, unet: &UNet, timestep: f32) -> Result<&TimeEmbedding> {
        let bits = timestep.to_bits();
        if !self.known.contains_key(&bits) {
            if self.known.len() + TOGETHER > KEPT {
                self.known.clear();
            }
            let place = self.schedule.iter().position(|t| t.to_bits() == bits);
            let ahead: Vec<f32> = match place {
                Some(first) => self.schedule.iter().skip(first).take(TOGETHER).copied().collect(),
                None => vec![timestep],
            };
            let made = unet.time_embeddings(&ahead)?;
            self.known.extend(ahead.iter().map(|t| t.to_bits()).zip(made));
        }
        // Made just now if it was not there.
        self.known.get(&bits).ok_or_else(|| crate::Error::Request(format!("no timestep {timestep}")))
    }
}
