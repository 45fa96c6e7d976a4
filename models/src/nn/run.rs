//! One run of a network, as its sections see it.

use std::fmt;

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

    /// Until `cancelled` says so; it is asked at the begin of each section.
    pub fn until(cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { cancelled: Some(cancelled) }
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
