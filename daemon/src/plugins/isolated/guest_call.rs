//! One call of the plugin, on its own side of the socket.

use std::cell::RefCell;

use latentd_plugin_api::abi::latentd_call;
use rmpv::ValueRef;

use super::coding::{Arena, Coded, Wrong};

/// One call of the plugin: it has its address.
pub(super) struct GuestCall {
    pub(super) level: usize,
    /// What it was lent.
    pub(super) arena: Arena,
    /// Why its last service failed.
    pub(super) error: RefCell<String>,
}

impl GuestCall {
    pub(super) fn new(level: usize) -> Self {
        Self { level, arena: Arena::default(), error: RefCell::default() }
    }

    /// What the plugin is given of it.
    pub(super) fn pointer(&self) -> *mut latentd_call {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// A struct that came, lent as long as the call goes on.
pub(super) fn lent<T: Coded + 'static>(
    value: Option<&ValueRef<'_>>,
    call: &GuestCall,
) -> Result<*const T, Wrong> {
    value.map_or(Ok(std::ptr::null()), |value| Coded::read(value, &call.arena))
}
