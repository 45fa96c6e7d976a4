//! The networks in memory, addressed by what they are.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use latentd_client::protocol::ResidentModel;
use latentd_models::model::{Component, ComponentKey, ComponentKind};
use tracing::info;

use super::budget::Lease;
use super::known::Known;
use super::loading::For;
use crate::clock;
use crate::library::{FilesIdentity, Item, ModelFiles, Pinned};

/// A network and the room that it takes.
pub(super) struct Resident {
    pub key: ComponentKey,
    pub component: Component,
    pub lease: Arc<Lease>,
    /// Of the network that it was made beside, whose tensors it shares: they are there for as long as it is.
    pub beside: Option<Arc<Lease>>,
    /// The file that it came from, while nobody has looked at its content.
    pub origin: Option<Arc<Pinned>>,
}

impl Resident {
    /// Whether dropping it would give nothing back, because a job draws with it.
    pub(super) fn is_drawn_with(&self) -> bool {
        self.component.network.is_shared()
    }

    /// The key of the network without patches.
    fn base(&self) -> ComponentKey {
        ComponentKey { patches: None, ..self.key.clone() }
    }

    /// The rooms that are taken for as long as it is there.
    fn leases(&self) -> impl Iterator<Item = &Arc<Lease>> {
        [&self.lease].into_iter().chain(&self.beside)
    }
}

/// A checkpoint with the VAE that it is drawn with, some of whose networks may be in memory.
struct Entry {
    item: Item,
    /// The VAE in a file of its own.
    vae: Option<Item>,
    identity: FilesIdentity,
    precision: &'static str,
    architecture: &'static str,
    dtype: String,
    /// In the order of [`ComponentKind::ALL`].
    keys: [ComponentKey; 3],
    pinned: bool,
    /// Jobs that run with it: what they do not need just now is idle for them alone.
    jobs: usize,
    /// It goes with the last of its jobs: it was unloaded meanwhile, or a newer file stands in its place.
    leaves: bool,
    /// When its files were opened, counted: of the checkpoint, and of the VAE.
    opened: (u64, u64),
    last_used_at: f64,
    /// When it goes if nobody has used it until then.
    expires: Option<Instant>,
}

impl Entry {
    fn is_of(&self, known: &Known) -> bool {
        self.identity == known.identity && self.precision == known.precision.name()
    }

    /// Where a file of one stands in the place of a file of the other: whether that of this one came later.
    fn stands_in_place_of(&self, other: &Self) -> Option<bool> {
        let is_other = self.identity.checkpoint != other.identity.checkpoint;
        if self.item.is_same_place(&other.item) && is_other {
            return Some(self.opened.0 > other.opened.0);
        }
        let vaes = self.vae.as_ref().zip(other.vae.as_ref());
        let is_same_place = vaes.is_some_and(|(own, other)| own.is_same_place(other));
        (is_same_place && self.identity.vae != other.identity.vae).then_some(self.opened.1 > other.opened.1)
    }
}

/// Everything that is in memory.
#[derive(Default)]
pub(super) struct Table {
    /// The least recently used first.
    residents: Vec<Resident>,
    /// Taken out while somebody drew with them: their leases go when they do.
    leaving: Vec<Resident>,
    /// The least recently used first.
    entries: Vec<Entry>,
    /// Digests of contents by the source that stood for them, and kind.
    contents: Vec<([u8; 32], ComponentKind, [u8; 32])>,
}

/// Checkpoints that are remembered though nothing of them is in memory.
const ENTRIES: usize = 64;

/// Contents that are remembered.
const CONTENTS: usize = 1024;

impl Table {
    /// The key of one of a checkpoint's networks, by its content where that is known.
    pub(super) fn key(&self, known: &Known, kind: ComponentKind, device: &'static str) -> ComponentKey {
        let file = known.source(kind);
        let content = self.contents.iter().find(|(source, of, _)| (*source, *of) == (file, kind));
        let source = content.map_or(file, |(_, _, digest)| *digest);
        ComponentKey { source, kind, precision: known.precision, device, patches: None }
    }

    /// Notes that somebody begins to use a checkpoint, `jobs` of them jobs. What came from an older file in its place
    /// leaves; beside a newer one it is there for its own jobs alone.
    pub(super) fn enter(&mut self, files: &ModelFiles, known: &Known, device: &'static str, jobs: usize) {
        let keys = ComponentKind::ALL.map(|kind| self.key(known, kind, device));
        let place = self.entries.iter().position(|entry| entry.is_of(known));
        let before = place.map(|place| self.entries.remove(place));
        let (pinned, others, opened) =
            before.map_or((false, 0, (0, 0)), |entry| (entry.pinned, entry.jobs, entry.opened));
        let vae_opened = files.vae.as_ref().map_or(0, |vae| vae.opened());
        let mut entered = Entry {
            item: files.checkpoint.item().clone(),
            vae: files.vae.as_ref().map(|vae| vae.item().clone()),
            identity: known.identity.clone(),
            precision: known.precision.name(),
            architecture: known.facts.family.name,
            dtype: known.dtype.clone(),
            keys,
            pinned,
            jobs: others + jobs,
            leaves: false,
            opened: (opened.0.max(files.checkpoint.opened()), opened.1.max(vae_opened)),
            last_used_at: clock::now(),
            expires: None,
        };
        for other in &mut self.entries {
            let Some(is_newer) = entered.stands_in_place_of(other) else { continue };
            let is_same = entered.item.is_same_place(&other.item);
            if !is_newer {
                entered.leaves = true;
            } else if !other.leaves && (is_same || !other.pinned) {
                // Another checkpoint that is pinned has its new VAE with its own next job.
                info!(name = other.item.name, "its file is another one; unloaded");
                entered.pinned |= std::mem::take(&mut other.pinned);
                other.leaves = true;
            }
        }
        self.entries.push(entered);
        self.drop_what_leaves();
        self.forget();
    }

    /// Forgets checkpoints of which nothing is in memory that others have not as well, those used longest ago, where there are too many: folders may
    /// hold thousands.
    fn forget(&mut self) {
        while self.entries.len() > ENTRIES {
            let is_nothing = |entry: &Entry| entry.jobs == 0 && !entry.pinned && !self.has_own(entry);
            // The last one was just entered.
            let others = self.entries.iter().take(self.entries.len() - 1);
            let Some(place) = others.enumerate().find(|(_, entry)| is_nothing(entry)).map(|(place, _)| place)
            else {
                return;
            };
            self.entries.remove(place);
        }
    }

    /// Notes that a checkpoint is used on.
    pub(super) fn touch(&mut self, files: &ModelFiles, known: &Known, device: &'static str) {
        let Some(place) = self.entries.iter().position(|entry| entry.is_of(known)) else {
            self.enter(files, known, device, 0);
            return;
        };
        let mut entry = self.entries.remove(place);
        entry.last_used_at = clock::now();
        self.entries.push(entry);
    }

    /// A job ends to draw with a checkpoint, which goes at `expires` if nobody has used it until then.
    pub(super) fn end_job(&mut self, known: &Known, expires: Option<Instant>) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.is_of(known)) {
            entry.jobs = entry.jobs.saturating_sub(1);
            entry.expires = expires;
        }
        self.drop_what_leaves();
    }

    /// Lets go of checkpoints whose time is up by `now`. When the next one's is.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let is_due = |entry: &Entry| entry.jobs == 0 && entry.expires.is_some_and(|at| at <= now);
        for entry in self.entries.iter_mut().filter(|entry| is_due(entry)) {
            entry.expires = None;
            if !entry.pinned {
                info!(name = entry.item.name, "its time is up; unloaded");
                entry.leaves = true;
            }
        }
        self.drop_what_leaves();
        self.entries.iter().filter(|entry| entry.jobs == 0).filter_map(|entry| entry.expires).min()
    }

    /// A network that is in memory, used last from now on.
    pub(super) fn take(&mut self, key: &ComponentKey) -> Option<Component> {
        let place = self.residents.iter().position(|resident| resident.key == *key)?;
        let resident = self.residents.remove(place);
        let component = resident.component.clone();
        self.residents.push(resident);
        Some(component)
    }

    /// The room of a network that is in memory.
    pub(super) fn lease_of(&self, component: &Component) -> Option<Arc<Lease>> {
        let is = |resident: &&Resident| Arc::ptr_eq(&resident.component.parts, &component.parts);
        self.residents.iter().chain(&self.leaving).find(is).map(|resident| Arc::clone(&resident.lease))
    }

    /// Networks that were made beside another one, the one used last first.
    pub(super) fn near(&self, base: &Component) -> Vec<Component> {
        let Some(lease) = self.lease_of(base) else { return vec![] };
        let is_near =
            |resident: &&Resident| resident.beside.as_ref().is_some_and(|beside| Arc::ptr_eq(beside, &lease));
        self.residents.iter().rev().filter(is_near).map(|resident| resident.component.clone()).collect()
    }

    /// Takes in a network, unless an equal one was found to be there meanwhile; gives the one that is there now.
    pub(super) fn add(&mut self, resident: Resident) -> Component {
        if let Some(there) = self.take(&resident.key) {
            return there;
        }
        let component = resident.component.clone();
        self.residents.push(resident);
        component
    }

    /// Bytes of each of a checkpoint's networks that could not be dropped for somebody, and whether what comes in stays.
    pub(super) fn kept(&self, known: &Known, device: &'static str, whom: For) -> ([u64; 3], bool) {
        let bytes = ComponentKind::ALL.map(|kind| {
            let found = self.find(&self.key(known, kind, device));
            found.filter(|found| !self.is_idle(found, whom)).map_or(0, |found| found.lease.bytes())
        });
        let entry = self.entries.iter().find(|entry| entry.is_of(known));
        (bytes, entry.is_some_and(|entry| entry.pinned))
    }

    /// Bytes of networks that could be dropped now for somebody.
    pub(super) fn idle_bytes(&self, whom: For) -> u64 {
        let (idle, busy): (Vec<&Resident>, Vec<&Resident>) =
            self.residents.iter().partition(|resident| self.is_idle(resident, whom));
        let kept = busy.into_iter().chain(&self.leaving).flat_map(Resident::leases);
        let mut counted: Vec<*const Lease> = kept.map(Arc::as_ptr).collect();
        let mut bytes = 0;
        for lease in idle.into_iter().flat_map(Resident::leases) {
            if !counted.contains(&Arc::as_ptr(lease)) {
                counted.push(Arc::as_ptr(lease));
                bytes += lease.bytes();
            }
        }
        bytes
    }

    /// Drops the network that was idle longest, if there is one: before another those that were made beside it, which hold
    /// what it takes.
    pub(super) fn evict(&mut self, whom: For) -> bool {
        self.sweep();
        let holds = |other: &Resident, resident: &Resident| {
            other.beside.as_ref().is_some_and(|beside| Arc::ptr_eq(beside, &resident.lease))
        };
        let gives_room = |resident: &Resident| {
            let mut others = self.residents.iter().chain(&self.leaving);
            self.is_idle(resident, whom) && !others.any(|other| holds(other, resident))
        };
        let Some(place) = self.residents.iter().position(gives_room) else {
            return false;
        };
        let gone = self.residents.remove(place);
        info!(kind = %gone.key.kind, bytes = gone.lease.bytes(), "unloaded to make room");
        true
    }

    /// Drops all networks that are idle. Whether there were any.
    pub(super) fn drop_idle(&mut self, whom: For) -> bool {
        let mut any = false;
        while self.evict(whom) {
            any = true;
        }
        any
    }

    /// Lets go of what was still drawn with when it was taken out, and no longer is.
    pub(super) fn sweep(&mut self) {
        self.leaving.retain(Resident::is_drawn_with);
    }

    /// Bytes of all networks.
    pub(super) fn bytes(&self) -> u64 {
        let mut counted: Vec<*const Lease> = vec![];
        let mut bytes = 0;
        for lease in self.residents.iter().chain(&self.leaving).flat_map(Resident::leases) {
            if !counted.contains(&Arc::as_ptr(lease)) {
                counted.push(Arc::as_ptr(lease));
                bytes += lease.bytes();
            }
        }
        bytes
    }

    /// Drops a checkpoint, in every precision, or has it leave with the last of its jobs. Whether any of it was in memory.
    pub(super) fn unload(&mut self, item: &Item) -> bool {
        let is = |entry: &Entry| entry.item.is_same_place(item) && !entry.leaves;
        let was = self.entries.iter().any(|entry| is(entry) && self.has_any(entry));
        for entry in self.entries.iter_mut().filter(|entry| is(entry)) {
            (entry.leaves, entry.pinned) = (true, false);
        }
        self.drop_what_leaves();
        was
    }

    /// What a checkpoint that is in memory is called in the library, or was.
    pub(super) fn item(&self, wanted: &str) -> Option<Item> {
        let is =
            |item: &Item| item.name == wanted || item.path().is_some_and(|path| path == Path::new(wanted));
        self.entries.iter().map(|entry| &entry.item).rev().find(|item| is(item)).cloned()
    }

    /// Pins or unpins a checkpoint that is in memory; the precision used last is told of.
    pub(super) fn pin(&mut self, item: &Item, pinned: bool) -> Option<ResidentModel> {
        let is = |entry: &Entry| entry.item.is_same_place(item) && !entry.leaves;
        let loaded: Vec<usize> = (0..self.entries.len())
            .filter(|at| is(&self.entries[*at]) && self.has_any(&self.entries[*at]))
            .collect();
        for at in &loaded {
            self.entries[*at].pinned = pinned;
        }
        loaded.last().map(|at| self.view(&self.entries[*at]))
    }

    /// Checkpoints that are in memory, in part if pinned, or drawn with by a job that brings in what it needs; the least
    /// recently used first.
    pub(super) fn list(&self) -> Vec<ResidentModel> {
        let is_listed = |entry: &Entry| entry.jobs > 0 || entry.pinned || self.is_whole(entry);
        let listed = self.entries.iter().filter(|entry| is_listed(entry));
        listed.map(|entry| self.view(entry)).collect()
    }

    /// A checkpoint in one precision, if all of it is in memory.
    pub(super) fn whole(&self, known: &Known) -> Option<ResidentModel> {
        let entry = self.entries.iter().find(|entry| entry.is_of(known))?;
        self.is_whole(entry).then(|| self.view(entry))
    }

    /// Files of networks that may hold the same numbers, and whose content nobody knows yet: those of the same kind in the
    /// same form and size, if there are several.
    pub(super) fn alike(&self, key: &ComponentKey) -> Vec<Arc<Pinned>> {
        let form = |resident: &Resident| {
            let ComponentKey { kind, precision, device, patches, .. } = resident.key;
            (kind, precision, device, patches, resident.component.bytes())
        };
        let Some(wanted) = self.find(key).map(form) else { return vec![] };
        let alike: Vec<&Resident> =
            self.residents.iter().filter(|resident| form(resident) == wanted).collect();
        if alike.len() < 2 {
            return vec![];
        }
        alike.into_iter().filter_map(|resident| resident.origin.clone()).collect()
    }

    /// The content of a file's network is known: equal ones become one, once nobody draws with either.
    pub(super) fn learn(&mut self, source: [u8; 32], kind: ComponentKind, content: [u8; 32]) {
        if self.contents.len() == CONTENTS {
            self.contents.remove(0);
        }
        self.contents.push((source, kind, content));
        let named = |key: &mut ComponentKey| {
            if key.source == source && key.kind == kind {
                key.source = content;
            }
        };
        for resident in &mut self.residents {
            if resident.key.source == source && resident.key.kind == kind {
                resident.origin = None;
            }
            named(&mut resident.key);
        }
        self.entries.iter_mut().flat_map(|entry| &mut entry.keys).for_each(named);
        let mut seen: Vec<ComponentKey> = vec![];
        // The one used last stays.
        let mut kept = vec![];
        for resident in std::mem::take(&mut self.residents).into_iter().rev() {
            if seen.contains(&resident.key) {
                info!(kind = %kind, bytes = resident.lease.bytes(), "two checkpoints have the same; one is kept");
                self.leaving.push(resident);
            } else {
                seen.push(resident.key.clone());
                kept.push(resident);
            }
        }
        kept.reverse();
        self.residents = kept;
        self.sweep();
    }

    /// Whether the content of this file's network is known already.
    pub(super) fn knows(&self, source: [u8; 32], kind: ComponentKind) -> bool {
        self.contents
            .iter()
            .any(|(known, of, content)| *of == kind && (*known == source || *content == source))
    }

    fn find(&self, key: &ComponentKey) -> Option<&Resident> {
        self.residents.iter().find(|resident| resident.key == *key)
    }

    fn is_whole(&self, entry: &Entry) -> bool {
        entry.keys.iter().all(|key| self.find(key).is_some())
    }

    /// Whether a network is in memory that no other checkpoint has.
    fn has_own(&self, entry: &Entry) -> bool {
        let others = || self.entries.iter().filter(|other| !std::ptr::eq(*other, entry));
        let is_own = |key: &&ComponentKey| !others().any(|other| other.keys.contains(key));
        entry.keys.iter().filter(is_own).any(|key| self.find(key).is_some())
    }

    fn has_any(&self, entry: &Entry) -> bool {
        entry.keys.iter().any(|key| self.find(key).is_some())
    }

    fn is_idle(&self, resident: &Resident, whom: For) -> bool {
        // What is pinned is the checkpoint, not all that was ever made beside it.
        let is_own = |entry: &Entry| entry.keys.contains(&resident.key);
        let is_needed =
            |entry: &Entry| whom == For::Later && entry.jobs > 0 && entry.keys.contains(&resident.base());
        let kept = self.entries.iter().any(|entry| (entry.pinned && is_own(entry)) || is_needed(entry));
        !kept && !resident.is_drawn_with()
    }

    /// Takes out checkpoints that leave and have no jobs any more, and networks that no checkpoint has.
    fn drop_what_leaves(&mut self) {
        self.entries.retain(|entry| entry.jobs > 0 || !entry.leaves);
        let (entries, leaving) = (&self.entries, &mut self.leaving);
        let is_orphan =
            |resident: &mut Resident| !entries.iter().any(|entry| entry.keys.contains(&resident.base()));
        leaving.extend(self.residents.extract_if(.., is_orphan));
        self.sweep();
    }

    fn view(&self, entry: &Entry) -> ResidentModel {
        let is_own = |resident: &&Resident| entry.keys.contains(&resident.base());
        let own: Vec<&Resident> = self.residents.iter().filter(is_own).collect();
        let others = |resident: &Resident| {
            let mut others = self.entries.iter().filter(|other| !std::ptr::eq(*other, entry));
            others.any(|other| other.keys.contains(&resident.base()))
        };
        let bytes =
            |residents: &mut dyn Iterator<Item = &&Resident>| residents.map(|each| each.lease.bytes()).sum();
        ResidentModel {
            name: entry.item.name.clone(),
            path: entry.item.path().map(|path| path.display().to_string()),
            vae: entry.vae.as_ref().map(|vae| vae.name.clone()),
            architecture: entry.architecture.to_owned(),
            dtype: entry.dtype.clone(),
            precision: entry.precision.to_owned(),
            bytes: bytes(&mut own.iter()),
            shared_bytes: bytes(&mut own.iter().filter(|resident| others(resident))),
            pinned: entry.pinned,
            last_used_at: entry.last_used_at,
        }
    }
}
