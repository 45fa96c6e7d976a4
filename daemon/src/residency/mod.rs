//! Which models are in memory: under a budget, the least recently used first to go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use latentd_client::protocol::ResidentModel;
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use rayon::ThreadPool;
use tracing::info;

use crate::clock;
use crate::error::{Class, Error, Result};
use crate::library::{Identity, Item, Pinned, open_model};

/// The models in memory.
pub(crate) struct Residency {
    budget: u64,
    /// The least recently used first.
    residents: Mutex<Vec<Resident>>,
    /// Held while a file is read, so that two loads do not both count on the same room.
    loading: Mutex<()>,
}

struct Resident {
    item: Item,
    identity: Identity,
    model: Arc<Model>,
    bytes: u64,
    pinned: bool,
    last_used_at: f64,
}

impl Residency {
    /// Nothing in memory yet; `budget` is in bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, residents: Mutex::default(), loading: Mutex::default() }
    }

    /// The model of a checkpoint in a precision, read from its file if it is not in memory. It stays there for as long as
    /// what is given here is held.
    ///
    /// Call it from outside of `compute`, where the kernels run: one of its threads that waits for a piece of its own
    /// work takes up other work meanwhile, which may be a second load, and would wait for this one's lock for ever.
    pub(crate) fn acquire(
        &self,
        checkpoint: &Pinned,
        precision: Precision,
        compute: &ThreadPool,
    ) -> Result<Arc<Model>> {
        debug_assert!(compute.current_thread_index().is_none(), "a load from inside the pool");
        if let Some(model) = self.resident(checkpoint, precision) {
            return Ok(model);
        }
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = self.resident(checkpoint, precision) {
            return Ok(model);
        }
        let item = checkpoint.item();
        let pinned = self.replace(checkpoint);
        // Before it is read only the file's size is known.
        self.make_room(item, item.size())?;
        let started = std::time::Instant::now();
        let model = Arc::new(compute.install(|| open_model(checkpoint, precision))?);
        let bytes = model.summary().weight_bytes;
        self.make_room(item, bytes)?;
        info!(
            name = item.name,
            precision = precision.name(),
            bytes,
            ms = started.elapsed().as_millis() as u64,
            "loaded"
        );
        self.lock().push(Resident {
            item: item.clone(),
            identity: checkpoint.identity().clone(),
            model: Arc::clone(&model),
            bytes,
            pinned,
            last_used_at: clock::now(),
        });
        Ok(model)
    }

    /// Drops a model from memory, in every precision; a job that draws with it keeps it to its end.
    pub(crate) fn unload(&self, item: &Item) -> bool {
        let mut residents = self.lock();
        let before = residents.len();
        residents.retain(|resident| !resident.item.is_same_place(item));
        residents.len() < before
    }

    /// Pins or unpins a model that is in memory.
    pub(crate) fn pin(&self, item: &Item, pinned: bool) -> Result<ResidentModel> {
        let mut residents = self.lock();
        // In every precision that it is there in; the one used last is told of.
        let same = residents.iter_mut().filter(|resident| resident.item.is_same_place(item));
        let view = same.fold(None, |_, resident| {
            resident.pinned = pinned;
            Some(resident.view())
        });
        view.ok_or_else(|| {
            let text = format!("checkpoint '{}' is not in memory; call models.load first", item.name);
            Error::new(Class::NotFound, text)
        })
    }

    /// What is in memory, the least recently used first.
    pub(crate) fn list(&self) -> Vec<ResidentModel> {
        self.lock().iter().map(Resident::view).collect()
    }

    /// The model of a checkpoint in a precision, if it is in memory.
    pub(crate) fn view(&self, checkpoint: &Pinned, precision: Precision) -> Option<ResidentModel> {
        let residents = self.lock();
        let found = residents.iter().find(|resident| resident.is(checkpoint, precision));
        found.map(Resident::view)
    }

    /// Bytes that may be taken by models and pictures together.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes that models take.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().iter().map(|resident| resident.bytes).sum()
    }

    fn resident(&self, checkpoint: &Pinned, precision: Precision) -> Option<Arc<Model>> {
        let mut residents = self.lock();
        let place = residents.iter().position(|resident| resident.is(checkpoint, precision))?;
        let mut resident = residents.remove(place);
        resident.last_used_at = clock::now();
        let model = Arc::clone(&resident.model);
        residents.push(resident);
        Some(model)
    }

    /// Drops what was read from another file in this one's place; gives whether that was pinned.
    fn replace(&self, checkpoint: &Pinned) -> bool {
        let mut residents = self.lock();
        let mut pinned = false;
        residents.retain(|resident| {
            let stays = !resident.item.is_same_place(checkpoint.item())
                || resident.identity == *checkpoint.identity();
            if !stays {
                info!(name = resident.item.name, "its file is another one; unloaded");
                pinned |= resident.pinned;
            }
            stays
        });
        pinned
    }

    /// Drops models that may go, the least recently used first, until `bytes` more fit. Where they cannot fit,
    /// nothing is dropped.
    fn make_room(&self, item: &Item, bytes: u64) -> Result<()> {
        let mut residents = self.lock();
        let held: u64 =
            residents.iter().filter(|resident| resident.stays()).map(|resident| resident.bytes).sum();
        if held.saturating_add(bytes) > self.budget {
            return Err(self.no_room(item, bytes, held));
        }
        loop {
            let taken: u64 = residents.iter().map(|resident| resident.bytes).sum();
            let place = residents.iter().position(|resident| !resident.stays());
            let Some(place) = place.filter(|_| taken.saturating_add(bytes) > self.budget) else {
                return Ok(());
            };
            let gone = residents.remove(place);
            info!(name = gone.item.name, bytes = gone.bytes, "unloaded to make room");
        }
    }

    fn no_room(&self, item: &Item, bytes: u64, held: u64) -> Error {
        let budget = self.budget;
        let (reason, advice) = if held == 0 {
            (String::new(), "raise memory_bytes or use a smaller model")
        } else {
            let reason = format!(" of which {held} are pinned or being drawn with");
            (reason, "raise memory_bytes, unpin a model, or wait for the job that runs")
        };
        let text = format!("'{}' needs {bytes} bytes, the budget is {budget}{reason}; {advice}", item.name);
        Error::new(Class::Memory, text)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Resident>> {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resident {
    fn is(&self, checkpoint: &Pinned, precision: Precision) -> bool {
        self.identity == *checkpoint.identity() && self.model.precision() == precision
    }

    /// Whether dropping it is forbidden, or would give nothing back because a job draws with it.
    fn stays(&self) -> bool {
        self.pinned || Arc::strong_count(&self.model) > 1
    }

    fn view(&self) -> ResidentModel {
        let summary = self.model.summary();
        ResidentModel {
            name: self.item.name.clone(),
            path: self.item.path().map(|path| path.display().to_string()),
            architecture: summary.architecture.to_owned(),
            dtype: summary.dtype,
            precision: self.model.precision().name().to_owned(),
            bytes: self.bytes,
            pinned: self.pinned,
            last_used_at: self.last_used_at,
        }
    }
}
