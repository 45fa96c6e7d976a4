//! An instance of a plugin, and the calls that it is lent tensors and images for.

use std::cell::RefCell;
use std::ffi::c_void;

use latentd_plugin_api::abi::{LATENTD_SKIP, latentd_job, latentd_plugin_entry};

use super::artifact::Artifact;
use super::call::Job;
use super::library::Plugin;
use super::objects::Objects;
use super::opened::Opened;
use crate::error::{Class, Error, Result};

/// What a plugin said while it made something, beside what it made.
#[derive(Default)]
pub(super) struct Said {
    pub notices: Vec<String>,
    pub artifacts: Vec<Artifact>,
}

/// What a plugin made for a job; it ends it as this is dropped.
pub(super) struct Made {
    entry: &'static latentd_plugin_entry,
    pointer: *mut c_void,
}

impl Made {
    /// Has a plugin make one for what it is `told`; with what it said on the way.
    pub(super) fn by(
        plugin: &Plugin,
        told: &latentd_job,
        job: &dyn Job,
        (objects, opened): (&RefCell<Objects>, &RefCell<Opened>),
    ) -> Result<(Self, Said)> {
        let (name, entry) = (&plugin.manifest.name, plugin.tables.entry);
        let mut pointer = std::ptr::null_mut();
        let Some(create) = entry.create else { return Ok((Self { entry, pointer }, Said::default())) };
        let _ends = Lending::begin(objects);
        let call = plugin.call(job, Some(objects), None).with_opened(opened);
        // SAFETY: what is lent lives until the function returns; the call is this one.
        let status = unsafe { create(call.pointer(), told, &raw mut pointer) };
        let state = call.end(status, "create")?;
        let wrong = |text: &str| Error::new(Class::Plugin, format!("plugin '{name}', create: {text}"));
        if status == LATENTD_SKIP {
            return Err(wrong("it answered SKIP, which plans and stages may"));
        }
        // From here on it is ended, whatever comes.
        let made = Self { entry, pointer };
        if !state.replaced.is_empty() {
            return Err(wrong("it replaces what no stage gave it"));
        }
        Ok((made, Said { notices: state.notices, artifacts: state.artifacts }))
    }

    /// What the plugin's functions are given.
    pub(super) fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Without `create` there is nothing to end.
        if let Some(destroy) = self.entry.destroy.filter(|_| self.entry.create.is_some()) {
            // SAFETY: `create` made it, and it is ended once.
            unsafe { destroy(self.pointer) };
        }
    }
}

/// A call of an instance, at whose end what it was lent ends.
pub(super) struct Lending<'a>(&'a RefCell<Objects>);

impl<'a> Lending<'a> {
    pub(super) fn begin(objects: &'a RefCell<Objects>) -> Self {
        objects.borrow_mut().begin_call();
        Self(objects)
    }
}

impl Drop for Lending<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().end_call();
    }
}
