//! Tensors: f32 in logical order, `(batch, channels, height, width)` for latents.

use std::marker::PhantomData;

use crate::abi::{
    LATENTD_DENSE, LATENTD_FLOAT, LATENTD_READ, LATENTD_REPLACE, LATENTD_STORED, LATENTD_TENSOR,
    latentd_handle, latentd_map,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};

/// A tensor that is lent. Looking at its numbers may cost: it may be in another process or on another device.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    pub(crate) call: Call<'a>,
    pub(crate) handle: latentd_handle,
}

impl<'a> Tensor<'a> {
    /// The sizes.
    pub fn dims(&self) -> Result<Vec<usize>> {
        let info = self.call.info_of(self.handle)?;
        let shape = info.shape.get(..info.ndim as usize);
        shape
            .and_then(|shape| shape.iter().map(|size| usize::try_from(*size).ok()).collect())
            .ok_or_else(|| Error::failed("the host tells no sizes"))
    }

    /// The numbers in logical order, without gaps.
    pub fn read(&self) -> Result<&'a [f32]> {
        let map = mapped(&self.call, self.handle, LATENTD_READ, LATENTD_DENSE, 32)?;
        // SAFETY: so many bytes of f32, aligned to 4 at least, stay until the call ends.
        Ok(unsafe { numbers(&map) })
    }

    /// A new one of the same sizes.
    pub fn like(&self) -> Result<NewTensor<'a>> {
        self.call.new_tensor(&self.dims()?)
    }

    /// Lets go of what was kept, or of what the call made and nobody looks at any more: what [`Self::read`] gave must be gone.
    pub(crate) fn let_go(&self) -> Result<()> {
        let release = self.call.host.tensors.release.ok_or_else(lacks)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { release(self.call.pointer, self.handle) })
    }

    /// Keeps it beyond the call, as long as the instance is.
    pub fn keep(&self) -> Result<Kept> {
        let keep = self.call.host.tensors.r#ref.ok_or_else(lacks)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { keep(self.call.pointer, self.handle) })?;
        Ok(Kept { handle: self.handle })
    }
}

/// A tensor that was kept; of the instance that kept it.
#[derive(Debug)]
pub struct Kept {
    handle: latentd_handle,
}

impl Kept {
    /// The tensor, in another call of the same instance.
    pub fn tensor<'a>(&self, call: &Call<'a>) -> Tensor<'a> {
        Tensor { call: *call, handle: self.handle }
    }

    /// Lets go of it before the instance ends.
    pub fn release(self, call: &Call<'_>) -> Result<()> {
        self.tensor(call).let_go()
    }
}

impl<'a> Call<'a> {
    /// What was filled, to be given to something: nobody writes to it from then on.
    pub fn finished(&self, tensor: NewTensor<'a>) -> Result<Tensor<'a>> {
        let handle = tensor.into_handle();
        unmapped(self, handle)?;
        Ok(Tensor { call: *self, handle })
    }

    /// A tensor of zeros, f32, dense.
    pub fn new_tensor(&self, dims: &[usize]) -> Result<NewTensor<'a>> {
        NewTensor::map(*self, self.alloc(LATENTD_TENSOR, dims)?)
    }
}

/// A tensor that was allocated, while it is filled.
pub struct NewTensor<'a> {
    pub(crate) handle: latentd_handle,
    values: *mut f32,
    count: usize,
    of: PhantomData<&'a mut [f32]>,
}

impl NewTensor<'_> {
    /// What stands for it.
    pub(crate) fn into_handle(self) -> latentd_handle {
        self.handle
    }

    /// What was just allocated, to be written.
    pub(crate) fn map(call: Call<'_>, handle: latentd_handle) -> Result<Self> {
        let map = mapped(&call, handle, LATENTD_REPLACE, LATENTD_STORED, 0)?;
        let (values, count) = (map.data.cast(), map.bytes as usize / size_of::<f32>());
        Ok(Self { handle, values, count, of: PhantomData })
    }

    /// The numbers in logical order.
    pub fn values_mut(&mut self) -> &mut [f32] {
        if self.count == 0 {
            return &mut [];
        }
        // SAFETY: it is mapped for writing, by us alone, until it is handed over or the call ends.
        unsafe { std::slice::from_raw_parts_mut(self.values, self.count) }
    }
}

/// Bytes that a handle stands for.
pub(crate) fn file_bytes<'a>(call: &Call<'a>, handle: latentd_handle) -> Result<&'a [u8]> {
    let map = mapped(call, handle, LATENTD_READ, LATENTD_STORED, 0)?;
    // SAFETY: so many bytes stay until the call ends.
    Ok(unsafe { numbers(&map) })
}

/// A mapping as the host made it.
pub(crate) fn mapped(
    call: &Call<'_>,
    handle: latentd_handle,
    mode: u32,
    layout: u32,
    bits: u8,
) -> Result<latentd_map> {
    let service = call.host.tensors.map.ok_or_else(lacks)?;
    let mut map = latentd_map {
        size: size_of::<latentd_map>() as u32,
        mode,
        code: LATENTD_FLOAT,
        bits,
        lanes: 1,
        layout,
        data: std::ptr::null_mut(),
        bytes: 0,
        strides: [0; 8],
    };
    // SAFETY: the call is under way; the struct is ours.
    Error::of_service(unsafe { service(call.pointer, handle, &raw mut map) })?;
    if map.data.is_null() && map.bytes > 0 {
        return Err(Error::failed("the host maps nothing"));
    }
    Ok(map)
}

/// Ends a handle's mappings.
pub(crate) fn unmapped(call: &Call<'_>, handle: latentd_handle) -> Result<()> {
    let unmap = call.host.tensors.unmap.ok_or_else(lacks)?;
    // SAFETY: the call is under way.
    Error::of_service(unsafe { unmap(call.pointer, handle) })
}

/// The numbers of a mapping for reading.
///
/// # Safety
/// They are of this type, and stay until the call ends.
pub(crate) unsafe fn numbers<'a, T>(map: &latentd_map) -> &'a [T] {
    let count = map.bytes as usize / size_of::<T>();
    if count == 0 {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(map.data.cast_const().cast(), count) }
}
