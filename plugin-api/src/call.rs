//! The call that a function of the plugin is in: what it may ask the host for.

use std::marker::PhantomData;

use crate::abi::{
    LATENTD_DEBUG, LATENTD_ERROR, LATENTD_INFO, LATENTD_UNSUPPORTED, LATENTD_WARN, latentd_bytes,
    latentd_call, latentd_handle, latentd_status, latentd_tensor_info,
};
use crate::error::{Error, Result};
use crate::host::{Host, host, lend};

/// One call of one of the plugin's functions. It ends as that function returns.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub(crate) pointer: *mut latentd_call,
    pub(crate) host: &'static Host,
    of: PhantomData<&'a ()>,
}

impl Call<'_> {
    /// What the host gave, as long as the function runs.
    pub(crate) fn of(pointer: *mut latentd_call) -> Result<Self> {
        let host = host().ok_or_else(|| Error::failed("called before init"))?;
        Ok(Self { pointer, host, of: PhantomData })
    }

    /// Whether the job was cancelled: return [`Error::cancelled`] then. Cheap.
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: the call is under way.
        self.host.jobs.cancelled.is_some_and(|cancelled| unsafe { cancelled(self.pointer) } != 0)
    }

    /// An error once the job is cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// A text into the result, once each; an error where the request says `strict`.
    pub fn notice(&self, text: &str) -> Result<()> {
        let notice = self.host.jobs.notice.ok_or_else(lacks)?;
        // SAFETY: the call is under way, and the text is lent.
        Error::of_service(unsafe { notice(self.pointer, lend(text)) })
    }

    /// An error's line in the host's log.
    pub fn error(&self, line: &str) {
        self.log(LATENTD_ERROR, line);
    }

    /// A warning's line in the host's log.
    pub fn warn(&self, line: &str) {
        self.log(LATENTD_WARN, line);
    }

    /// A line in the host's log.
    pub fn info(&self, line: &str) {
        self.log(LATENTD_INFO, line);
    }

    /// A line in the host's log for whoever writes the plugin.
    pub fn debug(&self, line: &str) {
        self.log(LATENTD_DEBUG, line);
    }

    fn log(&self, level: u32, line: &str) {
        if let Some(log) = self.host.table.log {
            // SAFETY: the call is under way, and the text is lent.
            unsafe { log(self.pointer, level, lend(line)) };
        }
    }

    /// A tensor or image of zeros.
    pub(crate) fn alloc(&self, kind: u32, dims: &[usize]) -> Result<latentd_handle> {
        let alloc = self.host.tensors.alloc.ok_or_else(lacks)?;
        let info = sized(kind, dims)?;
        let mut handle = 0;
        // SAFETY: the call is under way; both are ours.
        Error::of_service(unsafe { alloc(self.pointer, &raw const info, &raw mut handle) })?;
        Ok(handle)
    }

    /// What the host says of a tensor or image.
    pub(crate) fn info_of(&self, handle: latentd_handle) -> Result<latentd_tensor_info> {
        let service = self.host.tensors.info.ok_or_else(lacks)?;
        let mut info = info();
        // SAFETY: the call is under way; the struct is ours.
        Error::of_service(unsafe { service(self.pointer, handle, &raw mut info) })?;
        Ok(info)
    }

    /// Puts what was made in a slot's place.
    pub(crate) fn replace(&self, slot: u32, handle: latentd_handle) -> Result<()> {
        let replace = self.host.table.replace.ok_or_else(lacks)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { replace(self.pointer, slot, handle) })
    }

    /// Gives text or MessagePack for a slot.
    pub(crate) fn reply(&self, slot: u32, reply: &[u8]) -> Result<()> {
        let service = self.host.table.reply.ok_or_else(lacks)?;
        let reply = latentd_bytes { data: reply.as_ptr().cast(), length: reply.len() as u64 };
        // SAFETY: the call is under way, and the bytes are lent.
        Error::of_service(unsafe { service(self.pointer, slot, reply) })
    }

    /// Leaves why the call fails.
    pub(crate) fn fail(&self, error: &Error) -> latentd_status {
        match self.host.table.fail.filter(|_| !error.text.is_empty()) {
            // SAFETY: the call is under way, and the text is lent.
            Some(fail) => unsafe { fail(self.pointer, error.status, lend(&error.text)) },
            None => error.status,
        }
    }
}

/// What is to have these sizes.
pub(crate) fn sized(kind: u32, dims: &[usize]) -> Result<latentd_tensor_info> {
    let mut info = info();
    info.kind = kind;
    info.ndim = dims.len() as u32;
    let places = info.shape.get_mut(..dims.len());
    let places = places.ok_or_else(|| Error::failed(format!("{} dimensions; at most 8", dims.len())))?;
    for (place, size) in places.iter_mut().zip(dims) {
        *place =
            i64::try_from(*size).map_err(|_| Error::failed(format!("no tensor has a side of {size}")))?;
    }
    Ok(info)
}

fn info() -> latentd_tensor_info {
    latentd_tensor_info {
        size: size_of::<latentd_tensor_info>() as u32,
        kind: 0,
        code: 0,
        bits: 0,
        lanes: 0,
        ndim: 0,
        device_type: 0,
        device_id: 0,
        shape: [0; 8],
        strides: [0; 8],
    }
}

/// A function that the first version had is not there.
pub(crate) fn lacks() -> Error {
    Error::new(LATENTD_UNSUPPORTED, "the host lacks a function of its first version")
}
