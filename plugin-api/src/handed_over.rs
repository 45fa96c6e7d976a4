//! What is handed to the host: in a stage's place, to be shown, or to be kept.

use std::marker::PhantomData;

use crate::abi::latentd_handle;
use crate::call::Call;
use crate::error::Result;
use crate::image::{Image, NewImage};
use crate::tensor::{NewTensor, Tensor, unmapped};

/// A tensor or image that is handed to the host: one that was filled, or one that there is already.
pub struct HandedOver<'a> {
    handle: latentd_handle,
    /// Whether it is still mapped for writing.
    is_written: bool,
    of: PhantomData<&'a ()>,
}

impl HandedOver<'_> {
    /// What stands for it, once nobody writes to it any more.
    pub(crate) fn into_handle(self, call: &Call<'_>) -> Result<latentd_handle> {
        if self.is_written {
            unmapped(call, self.handle)?;
        }
        Ok(self.handle)
    }
}

impl<'a> From<NewTensor<'a>> for HandedOver<'a> {
    fn from(new: NewTensor<'a>) -> Self {
        Self { handle: new.into_handle(), is_written: true, of: PhantomData }
    }
}

impl<'a> From<NewImage<'a>> for HandedOver<'a> {
    fn from(new: NewImage<'a>) -> Self {
        Self { handle: new.handle, is_written: true, of: PhantomData }
    }
}

impl<'a> From<Tensor<'a>> for HandedOver<'a> {
    fn from(tensor: Tensor<'a>) -> Self {
        Self { handle: tensor.handle, is_written: false, of: PhantomData }
    }
}

impl<'a> From<Image<'a>> for HandedOver<'a> {
    fn from(image: Image<'a>) -> Self {
        Self { handle: image.handle, is_written: false, of: PhantomData }
    }
}
