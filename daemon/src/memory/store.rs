//! Networks in and out of memory, under the budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use latentd_client::protocol::ResidentModel;
use latentd_models::model::{Component, ComponentKey, ComponentKind, PictureSize};
use latentd_models::networks::standalone::Standalone;
use latentd_models::networks::taesd::Taesd;
use latentd_models::nn::{Device, KeyValueTransform, Precision};
use tracing::info;

use super::base::Base;
use super::budget::{Budget, Lease};
use super::cache::{Cache, CacheKey, Cached};
use super::changes::Changes;
use super::content;
use super::hypernetworks::{HypernetworkWish, KeptHypernetworks};
use super::keep_alive::Timer;
use super::kept::Kept;
use super::known::{Known, KnownCheckpoints, source};
use super::loading::{For, LoadingTurn, Turn};
use super::plan::{self, Beside, Room};
use super::residents::{Resident, Table};
use super::taesd::KeptTaesd;
use crate::error::{Class, Error, Result};
use crate::library::{Item, ModelFiles, Pinned};
use crate::onnx::{Graph, Limits};
use crate::workers::Workers;

/// What is in one device's memory.
pub(crate) struct Memory {
    device: Device,
    budget: Arc<Budget>,
    known: KnownCheckpoints,
    table: Mutex<Table>,
    loading: LoadingTurn,
    /// Held while a checkpoint is loaded for nobody yet: two would evict each other's networks.
    loading_whole: Mutex<()>,
    /// Compares contents, one at a time.
    comparing: Workers,
    timer: Timer,
    taesd: KeptTaesd,
    hypernetworks: KeptHypernetworks,
    graphs: Kept<Graph>,
    cache: Cache,
    networks: Kept<dyn Standalone>,
    own: Weak<Self>,
}

impl Memory {
    /// Nothing in it yet; `budget` is in bytes.
    pub(crate) fn new(device: Device, budget: u64) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            device,
            budget: Budget::new(budget),
            known: KnownCheckpoints::default(),
            table: Mutex::default(),
            loading: LoadingTurn::default(),
            loading_whole: Mutex::default(),
            comparing: Workers::new("contents", 1),
            timer: Timer::default(),
            taesd: KeptTaesd::default(),
            hypernetworks: KeptHypernetworks::default(),
            graphs: Kept::default(),
            cache: Cache::default(),
            networks: Kept::default(),
            own: Weak::clone(own),
        })
    }

    /// What is known of a checkpoint without its weights; its header is read if nothing is.
    pub(crate) fn known(&self, files: &ModelFiles, precision: Precision) -> Result<Arc<Known>> {
        self.known.get(files, precision)
    }

    /// Brings all of a checkpoint into memory for nobody yet. It gives way to a job that needs the room or the turn.
    pub(crate) fn load(&self, files: &ModelFiles, precision: Precision) -> Result<ResidentModel> {
        let known = self.known(files, precision)?;
        let _alone = self.loading_whole.lock().unwrap_or_else(PoisonError::into_inner);
        self.table().enter(files, &known, self.device.kind(), 0);
        let (name, bytes) = (&files.checkpoint.item().name, known.weight_bytes());
        let available = self.room(&known, For::Later).all;
        if bytes > available {
            return Err(self.no_room(name, bytes, self.budget.total() - available));
        }
        for kind in ComponentKind::ALL {
            self.acquire(files, &known, kind, For::Later, &|| false)?;
        }
        let gone = || {
            let text = format!(
                "'{}' was unloaded again before it was whole: by models.unload, or for a job that needed the room; call \
                 models.load again",
                files.checkpoint.item().name
            );
            Error::new(Class::Memory, text)
        };
        self.table().whole(&known).ok_or_else(gone)
    }

    /// An error if a picture of this size can never be drawn here, whatever goes.
    pub(crate) fn check_fits(&self, known: &Known, size: &PictureSize, beside: &Beside) -> Result<()> {
        plan::check(known, size, beside, &Room::empty(self.budget.total()))
    }

    /// One network of a checkpoint as a job changes it, made beside the one without changes, which it shares all with that
    /// they leave alone. Both stay in memory for as long as what is given here is held. Not to be called from the threads
    /// that compute, for it may wait.
    pub(super) fn acquire_changed(
        &self,
        files: &ModelFiles,
        known: &Known,
        kind: ComponentKind,
        changes: &Changes,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Component> {
        let base = self.acquire(files, known, kind, For::Job, cancelled)?;
        let digest = changes.digest(kind);
        if digest.is_none() {
            return Ok(base);
        }
        let device = self.device.kind();
        let resident = |table: &mut Table| {
            let key = ComponentKey { patches: digest, ..table.key(known, kind, device) };
            table.take(&key)
        };
        if let Some(component) = resident(&mut self.table()) {
            return Ok(component);
        }
        let name = &files.checkpoint.item().name;
        let patches = changes.of(kind);
        loop {
            let turn = self.loading.wait(For::Job, known.source(kind), cancelled);
            let _turn = turn.ok_or_else(cancelled_while_loading)?;
            if let Some(component) = resident(&mut self.table()) {
                return Ok(component);
            }
            let started = Instant::now();
            let bytes = known.estimate.patched_bytes(kind, patches)?;
            let lease = Arc::new(self.reserve(bytes, For::Job, name)?);
            let threads = self.device.run(rayon::current_num_threads);
            let working = known.estimate.patching_bytes(kind, patches, threads);
            let _working = self.reserve(working, For::Job, name)?;
            // What is left of others that were changed, once there is room.
            let near = self.table().near(&base);
            let checkpoint = files.open()?;
            let loaded =
                checkpoint.load_patched(&base, &near, patches, &self.device, known.precision, cancelled);
            drop(near);
            let component = match loaded {
                Err(latentd_models::Error::Cancelled) => return Err(cancelled_while_loading()),
                Err(latentd_models::Error::OutOfMemory { .. }) if self.table().drop_idle(For::Job) => {
                    continue;
                }
                // Asked first: what was written to meanwhile may look like anything.
                loaded => {
                    files.of(kind).check()?;
                    changes.check()?;
                    loaded?
                }
            };
            let ms = started.elapsed().as_millis() as u64;
            info!(name, %kind, patches = patches.len(), precision = known.precision.name(), bytes, ms, "changed");
            let mut table = self.table();
            let key = ComponentKey { patches: digest, ..table.key(known, kind, device) };
            let beside = table.lease_of(&base);
            return Ok(table.add(Resident { key, component, lease, beside, origin: None }));
        }
    }

    /// One network of a checkpoint, from its file if it is not in memory. It stays there for as long as what is given here
    /// is held. Not to be called from the threads that compute, for it may wait.
    pub(super) fn acquire(
        &self,
        files: &ModelFiles,
        known: &Known,
        kind: ComponentKind,
        whom: For,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Component> {
        let (device, source, file) = (self.device.kind(), known.source(kind), files.of(kind));
        let resident = |table: &mut Table| {
            table.touch(files, known, device);
            let key = table.key(known, kind, device);
            table.take(&key)
        };
        if let Some(component) = resident(&mut self.table()) {
            return Ok(component);
        }
        loop {
            let turn = self.loading.wait(whom, source, cancelled).ok_or_else(cancelled_while_loading)?;
            if let Some(component) = resident(&mut self.table()) {
                return Ok(component);
            }
            let started = Instant::now();
            let bytes = known.estimate.weight_bytes(kind);
            let lease = Arc::new(self.reserve(bytes, whom, &file.item().name)?);
            let checkpoint = files.open()?;
            let stop = || turn.gives_way() || cancelled();
            let component = match checkpoint.load(kind, &self.device, known.precision, &stop) {
                // A job goes first; then it is loaded from the start.
                Err(latentd_models::Error::Cancelled) if !cancelled() => continue,
                Err(latentd_models::Error::Cancelled) => return Err(cancelled_while_loading()),
                // What is free may be in pieces, none of them large enough.
                Err(latentd_models::Error::OutOfMemory { .. }) if self.table().drop_idle(whom) => continue,
                // Asked first: what was written to meanwhile may look like anything.
                loaded => {
                    file.check()?;
                    loaded?
                }
            };
            let (bytes, ms) = (component.bytes(), started.elapsed().as_millis() as u64);
            info!(name = file.item().name, %kind, precision = known.precision.name(), bytes, ms, "loaded");
            let mut table = self.table();
            let origin = (!file.item().is_built_in()).then(|| Arc::clone(file));
            // Its content may have become known while it was loaded.
            let key = table.key(known, kind, device);
            let component = table.add(Resident { key: key.clone(), component, lease, beside: None, origin });
            let alike = table.alike(&key);
            drop(table);
            for pinned in alike {
                self.compare(pinned, kind);
            }
            return Ok(component);
        }
    }

    /// Bytes for something that a job does beside its networks. Not to be called by who has the turn to load.
    pub(crate) fn reserve_for_job(
        &self,
        bytes: u64,
        name: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Lease> {
        self.reserve(bytes, For::Job, name).or_else(|_| {
            let _turn = self.background_load_gives_way(cancelled)?;
            self.reserve(bytes, For::Job, name)
        })
    }

    /// Counts memory that no job waits for: what jobs need is left to them.
    pub(crate) fn reserve_beside_jobs(&self, bytes: u64, name: &str) -> Result<Lease> {
        self.reserve(bytes, For::Later, name)
    }

    /// The TAESD decoder of a file, and bytes for a picture of so many.
    pub(super) fn taesd(
        &self,
        file: &Pinned,
        precision: Precision,
        bytes: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Arc<Taesd>, Lease)> {
        let name = &file.item().name;
        let reserve = |bytes| self.reserve_for_job(bytes, name, cancelled);
        let network = self.taesd.get(file, &self.device, precision, reserve)?;
        Ok((network, self.reserve_for_job(bytes, name, cancelled)?))
    }

    /// The ONNX graph of a file.
    pub(crate) fn graph(
        &self,
        file: &Pinned,
        limits: Limits,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<Graph>> {
        let item = file.item();
        let reserve = || self.reserve_for_job(Graph::bytes(item.size()), &item.name, cancelled);
        let make = || Ok(Arc::new(file.graph(limits, cancelled)?));
        self.graphs.get((file, None), Precision::F32, reserve, make)
    }

    /// The network of a file that stands alone, or is built over a checkpoint's UNet.
    pub(crate) fn network(
        &self,
        (file, base): (&Pinned, Option<&Base>),
        precision: Precision,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<dyn Standalone>> {
        let room = |bytes| self.reserve_for_job(bytes, &file.item().name, cancelled);
        let reserve = || room(file.bytes_of_network(&file.network()?));
        let make = || {
            let network = file.network()?;
            let Some(base) = base else {
                return Ok(network.open(&file.tensors()?, &self.device, precision)?);
            };
            let _making = room(network.making_bytes())?;
            let made = network.open(&base.under(file, &network)?, &self.device, precision);
            // Asked first: what was written to meanwhile may look like anything.
            base.check()?;
            Ok(made?)
        };
        self.networks.get((file, base.map(Base::key)), precision, reserve, make)
    }

    /// The hypernetworks of a job.
    pub(super) fn hypernetworks(
        &self,
        wanted: &[HypernetworkWish],
        precision: Precision,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Arc<dyn KeyValueTransform>>> {
        let reserve = |bytes, name: &str| self.reserve_for_job(bytes, name, cancelled);
        self.hypernetworks.get(wanted, &self.device, precision, reserve)
    }

    /// A job begins to draw with a checkpoint.
    pub(super) fn begin_job(&self, files: &ModelFiles, known: &Known) {
        self.table().enter(files, known, self.device.kind(), 1);
    }

    /// A job ends to draw with a checkpoint, which stays for so long if nobody else uses it; for ever if `None`.
    pub(super) fn end_job(&self, known: &Known, keep_alive: Option<Duration>) {
        let now = Instant::now();
        let expires = keep_alive.and_then(|stay| now.checked_add(stay));
        let mut table = self.table();
        table.end_job(known, expires);
        let Some(expires) = expires else { return };
        if expires <= now {
            table.expire(now);
            return;
        }
        drop(table);
        self.timer.set(&self.own, expires, |memory| memory.table().expire(Instant::now()));
    }

    /// Bytes that could be had for a checkpoint, with what it has in memory already, if everything idle went.
    pub(super) fn room(&self, known: &Known, whom: For) -> Room {
        let mut table = self.table();
        table.sweep();
        let idle = table.idle_bytes(whom) + self.taesd.idle_bytes() + self.hypernetworks.idle_bytes();
        let idle = idle + self.graphs.idle_bytes() + self.networks.idle_bytes() + self.cache.idle_bytes();
        let held = self.budget.leased().saturating_sub(idle);
        let (own, stays) = table.kept(known, self.device.kind(), whom);
        let without = |own: u64| self.budget.total().saturating_sub(held.saturating_sub(own));
        Room { each: own.map(without), all: without(own.iter().sum()), stays }
    }

    /// Drops all that is idle for a job. Whether there was any.
    pub(crate) fn drop_idle(&self) -> bool {
        // All of them.
        self.taesd.clear()
            | self.hypernetworks.clear()
            | self.graphs.clear()
            | self.networks.clear()
            | self.cache.clear()
            | self.table().drop_idle(For::Job)
    }

    /// Drops a checkpoint from memory, in every precision; a job that draws with it keeps it to its end.
    pub(crate) fn unload(&self, item: &Item) -> bool {
        self.table().unload(item)
    }

    /// Pins or unpins a checkpoint that is in memory.
    pub(crate) fn pin(&self, item: &Item, pinned: bool) -> Result<ResidentModel> {
        self.table().pin(item, pinned).ok_or_else(|| {
            let text = format!("checkpoint '{}' is not in memory; call models.load first", item.name);
            Error::new(Class::NotFound, text)
        })
    }

    /// The checkpoint of this name or path that is in memory, also where the library has it no more.
    pub(crate) fn item(&self, wanted: &str) -> Option<Item> {
        self.table().item(wanted)
    }

    /// What is in memory, the least recently used first.
    pub(crate) fn list(&self) -> Vec<ResidentModel> {
        self.table().list()
    }

    /// Bytes that may be taken by networks and pictures together.
    pub(crate) fn budget(&self) -> u64 {
        self.budget.total()
    }

    /// Bytes that networks take.
    pub(crate) fn bytes(&self) -> u64 {
        let mut table = self.table();
        table.sweep();
        table.bytes()
    }

    /// Bytes of networks that nobody draws with.
    #[cfg(test)]
    pub(super) fn idle_bytes(&self) -> u64 {
        let mut table = self.table();
        table.sweep();
        table.idle_bytes(For::Job)
    }

    /// As when the content of a checkpoint's UNet becomes known.
    #[cfg(test)]
    pub(super) fn learn_unet(&self, known: &Known, content: [u8; 32]) {
        self.table().learn(known.source(ComponentKind::UNet), ComponentKind::UNet, content);
    }

    /// What may be kept beyond the jobs that made it, in bytes.
    pub(crate) fn keep_at_most(&self, bytes: u64) {
        self.cache.set_most(bytes);
    }

    /// What was kept under a key, if it is still there.
    pub(crate) fn cached(&self, key: &CacheKey) -> Option<Cached> {
        self.cache.get(key)
    }

    /// Keeps what a job made under a key, until it is in the way.
    pub(crate) fn cache(&self, key: CacheKey, cached: Cached) {
        self.cache.put(key, cached);
    }

    /// The device whose memory it is.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Drops what may go until `bytes` fit. Where they cannot fit, no network of a checkpoint is dropped.
    fn reserve(&self, bytes: u64, whom: For, name: &str) -> Result<Lease> {
        loop {
            let mut table = self.table();
            table.sweep();
            if let Some(lease) = self.budget.try_reserve(bytes) {
                return Ok(lease);
            }
            // What was made can be made again, sooner than a network is read.
            if self.cache.evict() {
                continue;
            }
            let held = self.budget.leased().saturating_sub(table.idle_bytes(whom));
            if held.saturating_add(bytes) <= self.budget.total() && table.evict(whom) {
                continue;
            }
            if self.taesd.clear() | self.hypernetworks.clear() | self.graphs.clear() | self.networks.clear() {
                continue;
            }
            drop(table);
            return Err(self.no_room(name, bytes, held));
        }
    }

    /// The turn to load, for who found no room: a load for nobody yet, which may hold it, has given way then, and does not
    /// come back before the turn is given back.
    pub(super) fn background_load_gives_way(&self, cancelled: &dyn Fn() -> bool) -> Result<Turn<'_>> {
        self.loading.wait(For::Job, [0; 32], cancelled).ok_or_else(cancelled_while_loading)
    }

    fn no_room(&self, name: &str, bytes: u64, held: u64) -> Error {
        let budget = self.budget.total();
        let (reason, advice) = if held == 0 {
            (
                String::new(),
                "raise memory_bytes, use a smaller model, or draw smaller or fewer pictures at once",
            )
        } else {
            let reason = format!(" of which {held} are pinned or being drawn with");
            (reason, "raise memory_bytes, unpin a model, or wait for the job that runs")
        };
        let text = format!("'{name}' needs {bytes} bytes, the budget is {budget}{reason}; {advice}");
        Error::new(Class::Memory, text)
    }

    /// Looks in the background at what a file's network is made of.
    fn compare(&self, pinned: Arc<Pinned>, kind: ComponentKind) {
        let memory = Weak::clone(&self.own);
        self.comparing.run(move || {
            let source = source(&pinned);
            if memory.upgrade().is_none_or(|memory| memory.table().knows(source, kind)) {
                return;
            }
            let gone = || memory.strong_count() == 0;
            let Some(content) = content::digest(&pinned, kind, &gone) else { return };
            if let Some(memory) = memory.upgrade() {
                memory.table().learn(source, kind, content);
            }
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cancelled_while_loading() -> Error {
    Error::new(Class::Cancelled, "cancelled while its model was loaded")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use latentd_models::nn::backend::cpu::cpu;

    use super::*;
    use crate::memory::fixture::Fixture;

    #[test]
    fn what_is_kept_goes_where_a_job_needs_the_room() {
        let memory = Memory::new(cpu(), 100);
        memory.keep_at_most(60);
        let keep = |key: u8| {
            let lease = memory.reserve_for_job(30, "job", &|| false).expect("room");
            memory.cache([key; 32], Cached { value: Arc::new(key), lease: Arc::new(lease) });
        };
        keep(1);
        keep(2);
        let room = memory.reserve_for_job(60, "job", &|| false).expect("the older one is gone");
        assert!(memory.cached(&[1; 32]).is_none() && memory.cached(&[2; 32]).is_some());
        let held = memory.cached(&[2; 32]);
        assert!(memory.reserve_for_job(30, "job", &|| false).is_err(), "somebody still has it");
        drop((room, held));
        keep(3);
        assert!(memory.drop_idle() && memory.cached(&[3; 32]).is_none());
        assert_eq!(memory.budget.leased(), 0);
    }

    #[test]
    fn a_network_whose_content_becomes_known_while_it_is_loaded_is_found_again() {
        let fixture = Fixture::new();
        let pinned = fixture.pin();
        let memory = Memory::new(cpu(), 1 << 30);
        let known = memory.known(&pinned, Precision::F32).expect("read");
        let kind = ComponentKind::Vae;
        let learned = AtomicBool::new(false);
        let learn = || {
            if !learned.swap(true, Ordering::Relaxed) {
                memory.table().learn(known.source(kind), kind, [7; 32]);
            }
            false
        };
        memory.acquire(&pinned, &known, kind, For::Job, &learn).expect("loaded");
        assert!(learned.load(Ordering::Relaxed));
        let once = memory.budget.leased();
        memory.acquire(&pinned, &known, kind, For::Job, &|| false).expect("there");
        assert_eq!(memory.budget.leased(), once, "it was loaded once");
        memory.load(&pinned, Precision::F32).expect("whole");
        assert_eq!(memory.budget.leased(), known.weight_bytes());
        assert!(memory.unload(pinned.checkpoint.item()));
        assert_eq!(memory.budget.leased(), 0);
    }

    #[test]
    fn a_pinned_model_that_is_there_in_part_is_listed() {
        let fixture = Fixture::new();
        let pinned = fixture.pin();
        let memory = Memory::new(cpu(), 1 << 30);
        let known = memory.known(&pinned, Precision::F32).expect("read");
        memory.begin_job(&pinned, &known);
        memory.acquire(&pinned, &known, ComponentKind::UNet, For::Job, &|| false).expect("loaded");
        memory.pin(pinned.checkpoint.item(), true).expect("some of it is there");
        memory.end_job(&known, None);
        let listed = memory.list();
        let bytes = known.estimate.weight_bytes(ComponentKind::UNet);
        assert_eq!(
            listed.iter().map(|model| (model.pinned, model.bytes)).collect::<Vec<_>>(),
            [(true, bytes)]
        );
        memory.pin(pinned.checkpoint.item(), false).expect("there");
        assert!(memory.list().is_empty());
    }

    #[test]
    fn what_nobody_uses_goes_when_its_time_is_up() {
        let fixture = Fixture::new();
        let pinned = fixture.pin();
        let memory = Memory::new(cpu(), 1 << 30);
        let known = memory.known(&pinned, Precision::F32).expect("read");
        let draw = |keep_alive| {
            memory.begin_job(&pinned, &known);
            memory.acquire(&pinned, &known, ComponentKind::UNet, For::Job, &|| false).expect("loaded");
            memory.end_job(&known, keep_alive);
        };
        draw(None);
        assert!(memory.bytes() > 0);
        draw(Some(Duration::ZERO));
        assert_eq!(memory.bytes(), 0);
        draw(Some(Duration::from_millis(1)));
        while memory.bytes() > 0 {
            std::thread::yield_now();
        }
        // One that is used again, and one that is pinned, stay.
        draw(Some(Duration::from_hours(1)));
        memory.begin_job(&pinned, &known);
        assert_eq!(memory.table().expire(Instant::now() + Duration::from_hours(2)), None);
        memory.pin(pinned.checkpoint.item(), true).expect("there");
        memory.end_job(&known, Some(Duration::ZERO));
        assert!(memory.bytes() > 0);
    }

    #[test]
    fn a_job_finds_the_room_that_a_load_for_nobody_gives_up() {
        let fixture = Fixture::new();
        let pinned = fixture.pin();
        let budget = Memory::new(cpu(), 1).known(&pinned, Precision::F32).expect("read").weight_bytes();
        let memory = Memory::new(cpu(), budget);
        let turn = memory.loading.wait(For::Later, [1; 32], &|| false).expect("free");
        let lease = memory.budget.try_reserve(budget).expect("room");
        // A cancelled job says so, whatever room there is.
        let cancelled = memory.reserve_for_job(1, "it", &|| true).expect_err("none");
        assert_eq!(cancelled.class, Class::Cancelled);
        std::thread::scope(|scope| {
            let job = scope.spawn(|| memory.reserve_for_job(budget, "it", &|| false).map(drop));
            while !turn.gives_way() {
                std::thread::yield_now();
            }
            drop(lease);
            drop(turn);
            job.join().expect("no panic").expect("room");
        });
        assert_eq!(memory.budget.leased(), 0);
    }
}
