//! Files of the library of models.

use crate::abi::{LATENTD_LIBRARY, latentd_file_info, latentd_library, latentd_list, latentd_text};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::given::File;
use crate::host::{bytes, lend, text};
use crate::tensor::{Tensor, file_bytes};

/// What is known of a library file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo<'a> {
    /// "checkpoint", "lora", "controlnet", …: the kinds that `x-library` names.
    pub kind: &'a str,
    /// As requests call it.
    pub name: &'a str,
    /// What it is of, such as "sd1"; empty where that is not known.
    pub family: &'a str,
    /// In hex; empty as long as it is not known.
    pub sha256: &'a str,
    /// The same for the same contents of the same file, and for no others.
    pub identity: &'a [u8],
    /// What its maker wrote into it: a map of texts, as MessagePack.
    pub metadata: &'a [u8],
}

impl<'a> Call<'a> {
    fn library(&self) -> Result<&'static latentd_library> {
        self.host.service(LATENTD_LIBRARY)
    }

    /// The file of a kind that a name means. Also while a job is planned.
    pub fn find_file(&self, kind: &str, name: &str) -> Result<File> {
        let find = self.library()?.find.ok_or_else(lacks)?;
        let mut file = 0;
        // SAFETY: the call is under way; texts are lent, the number is ours.
        Error::of_service(unsafe { find(self.pointer, lend(kind), lend(name), &raw mut file) })?;
        Ok(File(file))
    }

    /// The names of a kind. Also while a job is planned.
    pub fn file_names(&self, kind: &str) -> Result<Vec<&'a str>> {
        let names = self.library()?.names.ok_or_else(lacks)?;
        let mut list = latentd_list { items: std::ptr::null(), count: 0, stride: 0 };
        // SAFETY: the call is under way; the text is lent, the list is ours.
        Error::of_service(unsafe { names(self.pointer, lend(kind), &raw mut list) })?;
        if list.count > 0 && (list.items.is_null() || (list.stride as usize) < size_of::<latentd_text>()) {
            return Err(Error::failed("the host lists names that are none"));
        }
        let name = |index: u32| {
            let offset = index as usize * list.stride as usize;
            // SAFETY: so many elements of so many bytes are there until the call ends.
            unsafe { text(list.items.cast::<u8>().add(offset).cast::<latentd_text>().read_unaligned()) }
        };
        Ok((0..list.count).map(name).collect())
    }
}

impl File {
    /// What is known of it.
    pub fn info<'a>(&self, call: &Call<'a>) -> Result<FileInfo<'a>> {
        let info = call.library()?.info.ok_or_else(lacks)?;
        // SAFETY: zeros are a value of its numbers and pointers.
        let mut told: latentd_file_info = unsafe { std::mem::zeroed() };
        told.size = size_of::<latentd_file_info>() as u32;
        // SAFETY: the call is under way; the struct is ours.
        Error::of_service(unsafe { info(call.pointer, self.0, &raw mut told) })?;
        // SAFETY: lent until the call ends.
        unsafe {
            Ok(FileInfo {
                kind: text(told.kind),
                name: text(told.name),
                family: text(told.family),
                sha256: text(told.sha256),
                identity: bytes(told.identity.data, told.identity.length),
                metadata: bytes(told.metadata.data, told.metadata.length),
            })
        }
    }

    /// A tensor of a file of weights, as f32.
    pub fn tensor<'a>(&self, call: &Call<'a>, name: &str) -> Result<Tensor<'a>> {
        let tensor = call.library()?.tensor.ok_or_else(lacks)?;
        let mut handle = 0;
        // SAFETY: the call is under way; the text is lent, the number is ours.
        Error::of_service(unsafe { tensor(call.pointer, self.0, lend(name), &raw mut handle) })?;
        Ok(Tensor { call: *call, handle })
    }

    /// All of its bytes.
    pub fn read<'a>(&self, call: &Call<'a>) -> Result<&'a [u8]> {
        let open = call.library()?.open.ok_or_else(lacks)?;
        let mut handle = 0;
        // SAFETY: the call is under way; the number is ours.
        Error::of_service(unsafe { open(call.pointer, self.0, &raw mut handle) })?;
        file_bytes(call, handle)
    }
}
