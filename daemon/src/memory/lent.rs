//! A checkpoint's networks, lent to one job phase by phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd_models::model::{ComponentKind, ModelFacts, ModelShape, Network, PictureSize, TextEncoder};
use latentd_models::networks::taesd::Taesd;
use latentd_models::networks::unet::UNet;
use latentd_models::networks::vae::Vae;
use latentd_models::nn::{KeyValueTransform, Precision};
use latentd_models::pipeline::Components;

use super::base::Base;
use super::budget::Lease;
use super::changes::Changes;
use super::hypernetworks::HypernetworkWish;
use super::known::Known;
use super::loading::For;
use super::plan::{Beside, plan};
use super::store::Memory;
use super::taesd::{TaesdWish, activation_bytes};
use crate::error::{Error, Result};
use crate::library::ModelFiles;

/// What a job draws with. Each phase has its network and room for what it computes; what the phase before had is idle.
pub(crate) struct Lent<'a> {
    memory: &'a Memory,
    own: Source<'a>,
    /// Of the second pass of a hires fix, if that has one of its own.
    hires: Option<Source<'a>>,
    refiner: Option<Source<'a>>,
    /// Whether that second pass is on.
    is_hires: bool,
    /// Whether another checkpoint than the job's draws it.
    is_other_then: bool,
    /// Whether it is the refiner's turn.
    is_refined: bool,
    size: PictureSize,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    /// How long a checkpoint stays afterwards; for ever if `None`.
    keep_alive: Option<Duration>,
    taesd: Option<TaesdWish>,
    hypernetworks: Vec<HypernetworkWish>,
    /// Those of the second pass, if that has its own.
    hires_hypernetworks: Option<Vec<HypernetworkWish>>,
    /// Room for the phase that is on.
    room: Option<Lease>,
    /// Room for what TAESD computes.
    taesd_room: Option<Lease>,
    /// Time that loading took.
    pub(crate) loading: Duration,
    /// Why a phase had no network, in the daemon's words.
    pub(crate) failure: Option<Error>,
}

/// A checkpoint that is drawn with.
struct Source<'a> {
    files: &'a ModelFiles,
    known: &'a Known,
    changes: &'a Changes,
    /// Tells it from the others, which may be of the same checkpoint.
    shape: Arc<ModelShape>,
    /// The same in f32, once something of it was needed.
    wide: Option<Arc<Known>>,
}

impl<'a> Source<'a> {
    fn new(files: &'a ModelFiles, known: &'a Known, changes: &'a Changes) -> Self {
        Self { files, known, changes, shape: Arc::new((*known.shape).clone()), wide: None }
    }
}

/// Another checkpoint that goes on where the job's own ends.
#[derive(Clone)]
pub(crate) struct RefinerWish {
    pub files: ModelFiles,
    pub known: Arc<Known>,
    pub changes: Changes,
}

/// What the second pass of a hires fix is drawn with, where that is not what the first one is drawn with: another checkpoint,
/// or the same with other networks.
#[derive(Clone)]
pub(crate) struct HiresWish {
    pub files: ModelFiles,
    pub known: Arc<Known>,
    pub changes: Changes,
    pub hypernetworks: Vec<HypernetworkWish>,
    /// Whether it is another checkpoint than the job's.
    pub is_other: bool,
}

/// What a job wants beside its checkpoint.
#[derive(Clone, Default)]
pub(crate) struct Wishes {
    /// How long the checkpoint stays afterwards; for ever if `None`.
    pub keep_alive: Option<Duration>,
    pub taesd: Option<TaesdWish>,
    /// Whether the VAE makes previews, beside the UNet.
    pub previews_by_vae: bool,
    pub changes: Changes,
    pub hypernetworks: Vec<HypernetworkWish>,
    pub refiner: Option<RefinerWish>,
    pub hires: Option<HiresWish>,
    /// Bytes that the networks of plugins take.
    pub plugins: u64,
}

impl Wishes {
    /// What they take for pictures of this size, while the job's own checkpoint draws.
    pub(crate) fn needs(&self, known: &Known, size: &PictureSize) -> Result<Beside> {
        self.needs_of(known, &self.changes, &self.hypernetworks, size)
    }

    /// The same in a second pass that is drawn with something else.
    pub(crate) fn needs_hires(&self, hires: &HiresWish, size: &PictureSize) -> Result<Beside> {
        self.needs_of(&hires.known, &hires.changes, &hires.hypernetworks, size)
    }

    /// The same while the refiner does.
    pub(crate) fn needs_refining(&self, refiner: &RefinerWish, size: &PictureSize) -> Result<Beside> {
        let hires = self.hires.as_ref().map(|hires| &hires.hypernetworks);
        self.needs_of(&refiner.known, &refiner.changes, hires.unwrap_or(&self.hypernetworks), size)
    }

    fn needs_of(
        &self,
        known: &Known,
        changes: &Changes,
        hypernetworks: &[HypernetworkWish],
        size: &PictureSize,
    ) -> Result<Beside> {
        let mut taesd = self.taesd.as_ref().map(|taesd| taesd.needs(size)).unwrap_or_default();
        if self.previews_by_vae {
            taesd.beside_unet += known.estimate.weight_bytes(ComponentKind::Vae)
                + known.estimate.activation_bytes(ComponentKind::Vae, size)?;
        }
        let mut patched = changes.bytes(known)?;
        let of_unet = ComponentKind::ALL.iter().position(|kind| *kind == ComponentKind::UNet);
        if let Some(of_unet) = of_unet.and_then(|place| patched.get_mut(place)) {
            for wish in hypernetworks {
                *of_unet += wish.bytes(known, size)?;
            }
        }
        let patching = changes.working_bytes(known, size.threads);
        Ok(Beside { taesd, patched, patching, plugins: self.plugins })
    }
}

impl<'a> Lent<'a> {
    /// Settles how many latents go through the UNet at once, at most `size.samples`: as many as there is room for. Loads
    /// everything where all of it fits together.
    pub(crate) fn new(
        memory: &'a Memory,
        files: &'a ModelFiles,
        known: &'a Known,
        size: PictureSize,
        wishes: &'a Wishes,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self> {
        let (refiner, hires) = (wishes.refiner.as_ref(), wishes.hires.as_ref());
        let mut lent = Self {
            memory,
            own: Source::new(files, known, &wishes.changes),
            hires: hires.map(|HiresWish { files, known, changes, .. }| Source::new(files, known, changes)),
            refiner: refiner.map(|RefinerWish { files, known, changes }| Source::new(files, known, changes)),
            is_hires: false,
            is_other_then: hires.is_some_and(|hires| hires.is_other),
            is_refined: false,
            size,
            cancelled,
            keep_alive: wishes.keep_alive,
            taesd: wishes.taesd.clone(),
            hypernetworks: wishes.hypernetworks.clone(),
            hires_hypernetworks: hires.map(|hires| hires.hypernetworks.clone()),
            taesd_room: None,
            room: None,
            loading: Duration::ZERO,
            failure: None,
        };
        for Source { files, known, .. } in lent.sources() {
            memory.begin_job(files, known);
        }
        let mut beside = wishes.needs(known, &size)?;
        let mut planned = plan(known, &size, &beside, &memory.room(known, For::Job));
        // A load for nobody yet may hold what is missing.
        if planned.is_err() {
            let _turn = memory.background_load_gives_way(cancelled)?;
            planned = plan(known, &size, &beside, &memory.room(known, For::Job));
            // Previews are no reason to draw nothing; the pipeline is told when it asks for what makes them.
            if planned.is_err() && beside.taesd.beside_unet > 0 {
                beside.taesd.beside_unet = 0;
                planned = plan(known, &size, &beside, &memory.room(known, For::Job));
            }
        }
        let (samples, together) = planned?;
        lent.size.samples = samples;
        let of_hires = hires.map(|hires| Ok((&hires.known, wishes.needs_hires(hires, &lent.size)?)));
        let of_refiner =
            refiner.map(|refiner| Ok((&refiner.known, wishes.needs_refining(refiner, &lent.size)?)));
        for needs in of_hires.into_iter().chain(of_refiner).collect::<Result<Vec<_>>>()? {
            // Each may be planned for as if it were alone: those that do not draw are idle, and go if they must.
            let (known, mut beside) = needs;
            beside.taesd.beside_unet = 0;
            lent.size.samples = plan(known, &lent.size, &beside, &memory.room(known, For::Job))?.0;
        }
        let whole = if together { &ComponentKind::ALL[..] } else { &ComponentKind::ALL[..1] };
        for kind in whole {
            let started = Instant::now();
            memory.acquire_changed(files, known, *kind, &wishes.changes, cancelled)?;
            lent.loading += started.elapsed();
        }
        Ok(lent)
    }

    /// Latents that go through the UNet at once.
    pub(crate) fn samples_at_once(&self) -> usize {
        self.size.samples
    }

    /// What it draws with, the job's own first.
    pub(crate) fn bases(&self) -> Vec<Base> {
        self.sources().map(|Source { files, shape, changes, .. }| Base::new(files, shape, changes)).collect()
    }

    fn phase(&mut self, kind: ComponentKind) -> latentd_models::Result<Network> {
        self.timed(|lent| lent.lend(lent.source().known, kind))
    }

    /// The checkpoint whose turn it is.
    fn source(&self) -> &Source<'a> {
        let refiner = self.refiner.as_ref().filter(|_| self.is_refined);
        refiner.or(self.hires.as_ref().filter(|_| self.is_hires)).unwrap_or(&self.own)
    }

    /// All of them.
    fn sources(&self) -> impl Iterator<Item = &Source<'a>> {
        [&self.own].into_iter().chain(&self.hires).chain(&self.refiner)
    }

    fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> latentd_models::Result<T> {
        let started = Instant::now();
        self.room = None;
        let lent = work(self);
        self.loading += started.elapsed();
        lent.map_err(|error| self.failed(error))
    }

    /// The checkpoint in f32, which this job draws with as well from now on.
    fn wide(&mut self) -> Result<Arc<Known>> {
        let (memory, source) = (
            self.memory,
            match (&mut self.refiner, &mut self.hires) {
                (Some(refiner), _) if self.is_refined => refiner,
                (_, Some(hires)) if self.is_hires => hires,
                _ => &mut self.own,
            },
        );
        if let Some(wide) = &source.wide {
            return Ok(Arc::clone(wide));
        }
        let wide = memory.known(source.files, Precision::F32)?;
        memory.begin_job(source.files, &wide);
        source.wide = Some(Arc::clone(&wide));
        Ok(wide)
    }

    /// Keeps the daemon's words for an error.
    fn failed(&mut self, error: Error) -> latentd_models::Error {
        let text = error.text.clone();
        self.failure = Some(error);
        latentd_models::Error::Stage(text)
    }

    fn lend(&mut self, known: &Known, kind: ComponentKind) -> Result<Network> {
        let Source { files, changes, .. } = *self.source();
        let component = self.memory.acquire_changed(files, known, kind, changes, self.cancelled)?;
        let bytes = known.estimate.activation_bytes(kind, &self.size)?;
        self.room =
            Some(self.memory.reserve_for_job(bytes, &files.checkpoint.item().name, self.cancelled)?);
        Ok(component.network)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        for source in self.sources() {
            for known in [source.known].into_iter().chain(source.wide.as_deref()) {
                self.memory.end_job(known, self.keep_alive);
            }
        }
    }
}

fn other_kind<T>() -> latentd_models::Result<T> {
    Err(latentd_models::Error::Compute("a network of another kind was lent".to_owned()))
}

impl Components for Lent<'_> {
    fn rest(&mut self) {
        (self.room, self.taesd_room) = (None, None);
    }

    fn begin_pass(&mut self) {
        (self.is_hires, self.is_refined) = (false, false);
    }

    fn begin_hires_pass(&mut self) -> latentd_models::Result<Option<ModelFacts>> {
        (self.is_hires, self.is_refined) = (true, false);
        let Some(hires) = &self.hires else { return Ok(None) };
        let facts = hires.known.facts;
        self.room = None;
        Ok(self.is_other_then.then_some(facts))
    }

    fn refine(&mut self) -> latentd_models::Result<ModelFacts> {
        let Some(refiner) = &self.refiner else {
            return Err(latentd_models::Error::Compute("a refiner was asked for where there is none".into()));
        };
        let facts = refiner.known.facts;
        self.is_refined = true;
        self.room = None;
        Ok(facts)
    }

    fn shape(&self) -> Option<Arc<ModelShape>> {
        Some(Arc::clone(&self.source().shape))
    }

    fn transforms(&mut self) -> latentd_models::Result<Vec<Arc<dyn KeyValueTransform>>> {
        let of_hires = self.hires_hypernetworks.as_ref().filter(|_| self.is_hires);
        let wishes = of_hires.unwrap_or(&self.hypernetworks);
        if wishes.is_empty() {
            return Ok(vec![]);
        }
        let started = Instant::now();
        let found = self.memory.hypernetworks(wishes, self.own.known.precision, self.cancelled);
        self.loading += started.elapsed();
        found.map_err(|error| self.failed(error))
    }

    fn taesd(&mut self) -> latentd_models::Result<Option<Arc<Taesd>>> {
        let Some(wish) = self.taesd.clone() else { return Ok(None) };
        // For pictures the UNet's work is done.
        self.taesd_room = None;
        if wish.decodes {
            self.room = None;
        }
        let (precision, bytes) = (self.own.known.precision, activation_bytes(&self.size));
        match self.memory.taesd(&wish.file, precision, bytes, self.cancelled) {
            Ok((network, room)) => {
                self.taesd_room = Some(room);
                Ok(Some(network))
            }
            // Previews are made without it; the pipeline tells why.
            Err(error) if !wish.decodes => Err(latentd_models::Error::Stage(error.text)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn preview_vae(&mut self) -> latentd_models::Result<Option<Arc<Vae>>> {
        // Its own room, beside that of the UNet.
        self.taesd_room = None;
        let Source { files, changes, known, .. } = *self.source();
        let lend = || {
            let bytes = known.estimate.activation_bytes(ComponentKind::Vae, &self.size)?;
            let name = &files.checkpoint.item().name;
            let room = self.memory.reserve_for_job(bytes, name, self.cancelled)?;
            let vae =
                self.memory.acquire_changed(files, known, ComponentKind::Vae, changes, self.cancelled)?;
            Ok::<_, Error>((vae.network, room))
        };
        // Previews are made without it; the pipeline tells why.
        match lend().map_err(|error| latentd_models::Error::Stage(error.text))? {
            (Network::Vae(network), room) => {
                self.taesd_room = Some(room);
                Ok(Some(network))
            }
            _ => other_kind(),
        }
    }

    fn vae_in_f32(&mut self) -> latentd_models::Result<Option<Arc<Vae>>> {
        if self.own.known.precision == Precision::F32 {
            return Ok(None);
        }
        let network = self.timed(|lent| {
            let wide = lent.wide()?;
            lent.lend(&wide, ComponentKind::Vae)
        })?;
        match network {
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
        // Previews are over.
        self.taesd_room = None;
        match self.phase(ComponentKind::Vae)? {
            Network::Vae(network) => Ok(network),
            _ => other_kind(),
        }
    }
}
