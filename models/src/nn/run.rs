//! One run of a network, as its sections see it.

use std::fmt;

use latentd_kernels::Stop;

use super::backend::Device;
use crate::Error;
use crate::error::Result;

/// Who runs a network, and may want it to stop.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
}

impl<'a> Run<'a> {
    /// To the end, whatever happens.
    pub const WHOLE: Run<'static> = Run { cancelled: None };

    /// Until `cancelled` says so; it is asked at the begin of each section, and many times within one.
    pub fn until(cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { cancelled: Some(cancelled) }
    }

    /// Does `work`, a run of many operations, on a device's threads. When it is cancelled, operations leave the rest
    /// undone, and what came of `work` is dropped.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or those of `work`.
    pub fn on<T: Send>(&self, device: &Device, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let stop = Stop::new(self.cancelled);
        let done = device.run(|| stop.within(work));
        if stop.was_wanted() { Err(Error::Cancelled) } else { done }
    }

    /// A section of a network begins, such as "unet.in.3".
    ///
    /// # Errors
    /// [`Error::Cancelled`], or what the device says.
    pub fn enter(&self, device: &Device, section: fmt::Arguments<'_>) -> Result<()> {
        if self.cancelled.is_some_and(|cancelled| cancelled()) {
            return Err(Error::Cancelled);
        }
        match section.as_str() {
            Some(section) => device.enter(section),
            None => device.enter(&section.to_string()),
        }
    }
}
