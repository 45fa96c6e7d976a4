//! What takes the place of what a stage was given.

use std::marker::PhantomData;

use crate::abi::latentd_handle;

/// A tensor or image that takes another's place: one that was filled, or one that there is already.
pub struct HandedOver<'a> {
    pub(crate) handle: latentd_handle,
    of: PhantomData<&'a ()>,
}

impl HandedOver<'_> {
    pub(crate) fn of(handle: latentd_handle) -> Self {
        Self { handle, of: PhantomData }
    }
}
