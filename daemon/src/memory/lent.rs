//! A checkpoint's networks, lent to one job phase by phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd_models::model::{ComponentKind, Network, PictureSize, TextEncoder};
use latentd_models::networks::unet::UNet;
use latentd_models::networks::vae::Vae;
use latentd_models::nn::Precision;
use latentd_models::pipeline::Components;

use super::budget::Lease;
use super::known::Known;
use super::loading::For;
use super::plan::plan;
use super::store::Memory;
use crate::error::{Error, Result};
use crate::library::ModelFiles;

/// What a job draws with. Each phase has its network and room for what it computes; what the phase before had is idle.
pub(crate) struct Lent<'a> {
    memory: &'a Memory,
    files: &'a ModelFiles,
    known: &'a Known,
    size: PictureSize,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    /// How long the checkpoint stays afterwards; for ever if `None`.
    keep_alive: Option<Duration>,
    /// Room for the phase that is on.
    room: Option<Lease>,
    /// Time that loading took.
    pub(crate) loading: Duration,
    /// Why a phase had no network, in the daemon's words.
    pub(crate) failure: Option<Error>,
}

impl<'a> Lent<'a> {
    /// Settles how many latents go through the UNet at once, at most `size.samples`: as many as there is room for. Loads
    /// everything where all of it fits together.
    pub(crate) fn new(
        memory: &'a Memory,
        files: &'a ModelFiles,
        known: &'a Known,
        size: PictureSize,
        keep_alive: Option<Duration>,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self> {
        let mut lent = Self {
            memory,
            files,
            known,
            size,
            cancelled,
            keep_alive,
            room: None,
            loading: Duration::ZERO,
            failure: None,
        };
        memory.begin_job(files, known);
        let mut planned = plan(known, &size, &memory.room(known, For::Job));
        // A load for nobody yet may hold what is missing.
        if planned.is_err() {
            let _turn = memory.background_load_gives_way(cancelled)?;
            planned = plan(known, &size, &memory.room(known, For::Job));
        }
        let (samples, together) = planned?;
        lent.size.samples = samples;
        let whole = if together { &ComponentKind::ALL[..] } else { &ComponentKind::ALL[..1] };
        for kind in whole {
            let started = Instant::now();
            memory.acquire(files, known, *kind, For::Job, cancelled)?;
            lent.loading += started.elapsed();
        }
        Ok(lent)
    }

    /// Latents that go through the UNet at once.
    pub(crate) fn samples_at_once(&self) -> usize {
        self.size.samples
    }

    fn phase(&mut self, kind: ComponentKind) -> latentd_models::Result<Network> {
        self.phase_in(None, kind)
    }

    /// The same in another precision than the job's.
    fn phase_in(
        &mut self,
        precision: Option<Precision>,
        kind: ComponentKind,
    ) -> latentd_models::Result<Network> {
        let started = Instant::now();
        self.room = None;
        let lent = match precision {
            None => self.lend(self.known, kind),
            Some(precision) => {
                self.memory.known(self.files, precision).and_then(|known| self.lend(&known, kind))
            }
        };
        self.loading += started.elapsed();
        lent.map_err(|error| {
            let text = error.text.clone();
            self.failure = Some(error);
            latentd_models::Error::Stage(text)
        })
    }

    fn lend(&mut self, known: &Known, kind: ComponentKind) -> Result<Network> {
        let component = self.memory.acquire(self.files, known, kind, For::Job, self.cancelled)?;
        let bytes = known.estimate.activation_bytes(kind, &self.size)?;
        self.room =
            Some(self.memory.reserve_for_job(bytes, &self.files.checkpoint.item().name, self.cancelled)?);
        Ok(component.network)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.memory.end_job(self.known, self.keep_alive);
    }
}

fn other_kind<T>() -> latentd_models::Result<T> {
    Err(latentd_models::Error::Compute("a network of another kind was lent".to_owned()))
}

impl Components for Lent<'_> {
    fn vae_in_f32(&mut self) -> latentd_models::Result<Option<Arc<Vae>>> {
        if self.known.precision == Precision::F32 {
            return Ok(None);
        }
        match self.phase_in(Some(Precision::F32), ComponentKind::Vae)? {
            Network::Vae(network) => Ok(Some(network)),
            _ => other_kind(),
        }
    }

    fn text_encoder(&mut self) -> latentd_models::Result<Arc<TextEncoder>> {
        match self.phase(ComponentKind::TextEncoder)? {
            Network::TextEncoder(network) => Ok(network),
            _ => other_kind(),
        }
    }

    fn unet(&mut self) -> latentd_models::Result<Arc<UNet>> {
        match self.phase(ComponentKind::UNet)? {
            Network::UNet(network) => Ok(network),
            _ => other_kind(),
        }
    }

    fn vae(&mut self) -> latentd_models::Result<Arc<Vae>> {
        match self.phase(ComponentKind::Vae)? {
            Network::Vae(network) => Ok(network),
            _ => other_kind(),
        }
    }
}
