//! `batch.post`: pictures as they are given back.

use super::{Picture, lent, pictures};
use crate::abi::latentd_pictures;
use crate::call::Call;
use crate::error::Result;
use crate::job::Plugin;

/// `batch.post`: pictures as they are given back, after they are laid over the user's.
pub trait BatchPost: Plugin {
    /// May replace each, also by one of another size or with opacity. Parts of what is continued keep their sizes.
    fn batch_post(&self, stage: &Batch<'_>) -> Result<()>;
}

/// [`BatchPost`].
pub struct Batch<'a> {
    /// The call.
    pub call: Call<'a>,
    all: Vec<Picture<'a>>,
}

impl<'a> Batch<'a> {
    /// All that are drawn together.
    pub fn pictures(&self) -> &[Picture<'a>] {
        &self.all
    }

    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_pictures) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        Ok(Self { call, all: unsafe { pictures(call, given.pictures) }? })
    }
}
