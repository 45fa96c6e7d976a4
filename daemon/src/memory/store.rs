//! Networks in and out of memory, under the budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use latentd_client::protocol::ResidentModel;
use latentd_models::model::{Component, ComponentKind, PictureSize};
use latentd_models::nn::{Device, Precision};
use tracing::info;

use super::budget::{Budget, Lease};
use super::content;
use super::known::{Known, KnownCheckpoints, source};
use super::loading::{For, LoadingTurn};
use super::plan;
use super::residents::{Resident, Table};
use crate::error::{Class, Error, Result};
use crate::library::{Item, Pinned};
use crate::workers::Workers;

/// How long a job that needs room waits for a load that gives way to it.
const GIVES_WAY: Duration = Duration::from_secs(30);

/// What is in one device's memory.
pub(crate) struct Memory {
    device: Device,
    budget: Arc<Budget>,
    known: KnownCheckpoints,
    table: Mutex<Table>,
    loading: LoadingTurn,
    /// Compares contents, one at a time.
    comparing: Workers,
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
            comparing: Workers::new("contents", 1),
            own: Weak::clone(own),
        })
    }

    /// What is known of a checkpoint without its weights; its header is read if nothing is.
    pub(crate) fn known(&self, pinned: &Pinned, precision: Precision) -> Result<Arc<Known>> {
        self.known.get(pinned, precision)
    }

    /// Brings all of a checkpoint into memory for nobody yet. It gives way to a job that needs the room or the turn.
    pub(crate) fn load(&self, pinned: &Arc<Pinned>, precision: Precision) -> Result<ResidentModel> {
        let known = self.known(pinned, precision)?;
        let (name, bytes) = (&pinned.item().name, known.weight_bytes());
        let available = self.available(For::Later);
        if bytes > available {
            return Err(self.no_room(name, bytes, self.budget.total() - available));
        }
        for kind in ComponentKind::ALL {
            self.acquire(pinned, &known, kind, For::Later, &|| false)?;
        }
        let gone = || {
            let text = format!("'{}' was unloaded again for another", pinned.item().name);
            Error::new(Class::Memory, text)
        };
        self.table().whole(&known).ok_or_else(gone)
    }

    /// An error if a picture of this size can never be drawn here, whatever goes.
    pub(crate) fn check_fits(&self, known: &Known, size: &PictureSize) -> Result<()> {
        plan::check(known, size, self.budget.total())
    }

    /// One network of a checkpoint, from its file if it is not in memory. It stays there for as long as what is given here
    /// is held. Not to be called from the threads that compute, for it may wait.
    pub(super) fn acquire(
        &self,
        pinned: &Arc<Pinned>,
        known: &Known,
        kind: ComponentKind,
        whom: For,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Component> {
        let device = self.device.kind();
        let resident = |table: &mut Table| {
            table.enter(pinned.item(), known, device);
            let key = table.key(known, kind, device);
            (table.take(&key), key)
        };
        if let (Some(component), _) = resident(&mut self.table()) {
            return Ok(component);
        }
        loop {
            let stopped = || Error::new(Class::Cancelled, "cancelled while its model was loaded");
            let turn = self.loading.wait(whom, known.source, cancelled).ok_or_else(stopped)?;
            let key = match resident(&mut self.table()) {
                (Some(component), _) => return Ok(component),
                (None, key) => key,
            };
            let started = Instant::now();
            let bytes = known.estimate.weight_bytes(kind);
            let lease = self.reserve(bytes, whom, &pinned.item().name, cancelled)?;
            let checkpoint = pinned.checkpoint()?;
            let stop = || turn.gives_way() || cancelled();
            let component = match checkpoint.load(kind, &self.device, known.precision, &stop) {
                // A job goes first; then it is loaded from the start.
                Err(latentd_models::Error::Cancelled) if !cancelled() => continue,
                Err(latentd_models::Error::Cancelled) => return Err(stopped()),
                // Asked first: what was written to meanwhile may look like anything.
                loaded => {
                    pinned.check()?;
                    loaded?
                }
            };
            let (bytes, ms) = (component.bytes(), started.elapsed().as_millis() as u64);
            info!(name = pinned.item().name, %kind, precision = known.precision.name(), bytes, ms, "loaded");
            let mut table = self.table();
            let origin = (!pinned.item().is_built_in()).then(|| Arc::clone(pinned));
            table.add(Resident { key: key.clone(), component: component.clone(), lease, origin });
            let alike = table.alike(&key);
            drop(table);
            for pinned in alike {
                self.compare(pinned, kind);
            }
            return Ok(component);
        }
    }

    /// Bytes for something that a job does beside its networks.
    pub(super) fn reserve_for_job(
        &self,
        bytes: u64,
        name: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Lease> {
        self.reserve(bytes, For::Job, name, cancelled)
    }

    /// A job begins or ends to draw with a checkpoint.
    pub(super) fn count_job(&self, pinned: &Pinned, known: &Known, begins: bool) {
        let mut table = self.table();
        if begins {
            table.enter(pinned.item(), known, self.device.kind());
        }
        table.count_job(known, begins);
    }

    /// Bytes that could be had if everything idle went.
    pub(super) fn available(&self, whom: For) -> u64 {
        let mut table = self.table();
        table.sweep();
        let held = self.budget.leased().saturating_sub(table.idle_bytes(whom));
        self.budget.total().saturating_sub(held)
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

    /// The device whose memory it is.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Drops what may go until `bytes` fit. Where they cannot fit, nothing is dropped.
    fn reserve(&self, bytes: u64, whom: For, name: &str, cancelled: &dyn Fn() -> bool) -> Result<Lease> {
        let since = Instant::now();
        loop {
            let mut table = self.table();
            table.sweep();
            if let Some(lease) = self.budget.try_reserve(bytes) {
                return Ok(lease);
            }
            let held = self.budget.leased().saturating_sub(table.idle_bytes(whom));
            if held.saturating_add(bytes) <= self.budget.total() {
                table.evict(whom);
                continue;
            }
            drop(table);
            // A load that nobody draws with yet may hold what is missing: as it takes turns with us, it gives way.
            let waits = whom == For::Job && held > 0 && since.elapsed() < GIVES_WAY;
            if waits && self.background_load_gives_way(cancelled) {
                continue;
            }
            return Err(self.no_room(name, bytes, held));
        }
    }

    /// Whether there was a load for nobody yet, which has ended by now.
    pub(super) fn background_load_gives_way(&self, cancelled: &dyn Fn() -> bool) -> bool {
        self.loading.is_for_later() && self.loading.wait(For::Job, [0; 32], cancelled).is_some()
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
            let Ok(checkpoint) = pinned.checkpoint() else { return };
            let gone = || memory.strong_count() == 0;
            let Some(content) = content::digest(&checkpoint, kind, &gone) else { return };
            if let Some(memory) = memory.upgrade() {
                memory.table().learn(source, kind, content);
            }
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
