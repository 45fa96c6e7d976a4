//! What a plugin is: made for a job, and perhaps asked before what it takes part in.

use serde::de::DeserializeOwned;

use crate::abi::{
    LATENTD_UNET_BLOCK, latentd_bytes, latentd_job, latentd_list, latentd_plan, latentd_site, latentd_want,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::host::{bytes, lend, lent, text};

/// A plugin. One is made each time a job draws; its stages are called on one thread at a time, not always the same.
pub trait Plugin: Sized + Send + 'static {
    /// Makes one.
    fn new(job: &Job<'_>) -> Result<Self>;
}

/// Says as a request comes what a job is to have of the plugin. Without it, it takes part in all stages of its manifest.
pub trait JobPlan: Plugin {
    /// Whether the job is for it; stages that are not named to `plan` are left out. [`Error::invalid`] refuses the request.
    fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool>;
}

/// What is to be done.
pub struct Job<'a> {
    /// The call it was told in.
    pub call: Call<'a>,
    told: latentd_job,
}

impl<'a> Job<'a> {
    /// What the host told.
    ///
    /// # Safety
    /// `told` is null, or as the ABI says, until the call ends.
    pub(crate) unsafe fn of(call: Call<'a>, told: *const latentd_job) -> Result<Self> {
        // SAFETY: as the caller says.
        Ok(Self { call, told: unsafe { lent(told) }? })
    }

    /// "txt2img", "img2img", "outpaint"; of a method of the plugin's own `NAME.method`.
    pub fn method(&self) -> &'a str {
        // SAFETY: lent until the call ends.
        unsafe { text(self.told.method) }
    }

    /// The plugin's parameters, with the schema's defaults.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        decoded(self.told.params)
            .map_err(|error| Error::invalid(format!("its parameters cannot be read: {error}")))
    }

    /// The request as it was resolved: txt2img's fields.
    pub fn request<T: DeserializeOwned>(&self) -> Result<T> {
        decoded(self.told.request)
            .map_err(|error| Error::failed(format!("the request cannot be read: {error}")))
    }

    /// What [`Plan::note`] left.
    pub fn note(&self) -> &'a [u8] {
        // SAFETY: lent until the call ends.
        unsafe { bytes(self.told.note.data, self.told.note.length) }
    }

    /// How deep it lies within other jobs; 0 if it is none of a plugin's.
    pub fn depth(&self) -> u32 {
        self.told.depth
    }

    /// Pictures in all.
    pub fn pictures(&self) -> usize {
        self.told.pictures as usize
    }

    /// Pictures of one pass.
    pub fn batch(&self) -> usize {
        self.told.batch as usize
    }
}

fn decoded<T: DeserializeOwned>(given: latentd_bytes) -> Result<T, rmp_serde::decode::Error> {
    // SAFETY: lent until the call ends.
    rmp_serde::from_slice(unsafe { bytes(given.data, given.length) })
}

/// Collects what a job is to have.
pub struct Plan<'a> {
    pub(crate) call: Call<'a>,
    pub(crate) table: latentd_plan,
}

impl<'a> Plan<'a> {
    /// What the host gave.
    ///
    /// # Safety
    /// `table` is null, or as the ABI says, until the call ends.
    pub(crate) unsafe fn of(call: Call<'a>, table: *const latentd_plan) -> Result<Self> {
        // SAFETY: as the caller says.
        Ok(Self { call, table: unsafe { lent(table) }? })
    }

    /// Takes part in a stage of the manifest.
    pub fn stage(&self, id: &str) -> Result<()> {
        self.want(id, 0.0, 0.0, None)
    }

    /// Takes part from a share of each pass's steps until another, 0 to 1.
    pub fn stage_within(&self, id: &str, from: f64, until: f64) -> Result<()> {
        if until <= from {
            // No step; to the ABI two zeros are all.
            return Ok(());
        }
        self.want(id, from, until, None)
    }

    fn want(&self, id: &str, from: f64, until: f64, sites: Option<latentd_list>) -> Result<()> {
        let stage = self.table.stage.ok_or_else(lacks)?;
        // SAFETY: zeros are "none" or "as usual" in every field.
        let mut want: latentd_want = unsafe { std::mem::zeroed() };
        want.size = size_of::<latentd_want>() as u32;
        want.stage = lend(id);
        (want.from, want.until) = (from, until);
        if let Some(sites) = sites {
            want.sites = sites;
        }
        // SAFETY: the call is under way, and the struct and what its list points to are lent.
        Error::of_service(unsafe { stage(self.call.pointer, &raw const want) })
    }

    /// Takes part in `unet.block` at these places: parts as the ABI's codes, and which block; any by `LATENTD_ANY`.
    pub fn blocks(&self, sites: &[(u32, u32)], from: f64, until: f64) -> Result<()> {
        if sites.is_empty() || until <= from {
            // Nowhere; to the ABI an empty list is everywhere.
            return Ok(());
        }
        let sites: Vec<latentd_site> =
            sites.iter().map(|(part, index)| latentd_site { part: *part, index: *index }).collect();
        let sites = latentd_list {
            items: sites.as_ptr().cast(),
            count: sites.len() as u32,
            stride: size_of::<latentd_site>() as u32,
        };
        self.want(LATENTD_UNET_BLOCK, from, until, Some(sites))
    }

    /// Bytes that the job will take at once beside networks, of the host and of the device: what is reserved, and pictures that
    /// become larger. An older host plans for none.
    pub fn memory(&self, host_bytes: u64, device_bytes: u64) -> Result<()> {
        let Some(memory) = self.table.memory else { return Ok(()) };
        // SAFETY: the call is under way.
        Error::of_service(unsafe { memory(self.call.pointer, host_bytes, device_bytes) })
    }

    /// Leaves bytes for [`Job::note`], 1 MiB at most.
    pub fn note(&self, note: &[u8]) -> Result<()> {
        let service = self.table.note.ok_or_else(lacks)?;
        let note = latentd_bytes { data: note.as_ptr().cast(), length: note.len() as u64 };
        // SAFETY: the call is under way, and the bytes are lent.
        Error::of_service(unsafe { service(self.call.pointer, note) })
    }
}
