//! Files of the library of models.

use std::collections::BTreeMap;

use crate::abi::{
    LATENTD_LIBRARY, latentd_bytes, latentd_file_info, latentd_library, latentd_list, latentd_save,
    latentd_saved_tensor, latentd_text,
};
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

/// A file to save into the library.
#[derive(Clone, Copy)]
pub struct SaveFile<'s, 'a> {
    /// One of those that the manifest asks for: `[capabilities] save = ["face"]`.
    pub kind: &'s str,
    /// Without folder and extension.
    pub name: &'s str,
    /// Its tensors by their names: at least one.
    pub tensors: &'s [(&'s str, Tensor<'a>)],
    /// What it says of itself.
    pub metadata: &'s BTreeMap<String, String>,
    /// Whether a file of this name is replaced; else there must be none.
    pub replace: bool,
}

impl<'a> Call<'a> {
    /// Writes a safetensors file into the library, whole or not at all.
    pub fn save_file(&self, what: &SaveFile<'_, 'a>) -> Result<File> {
        let save = self.library()?.save.ok_or_else(lacks)?;
        let tensors: Vec<latentd_saved_tensor> = what
            .tensors
            .iter()
            .map(|(name, tensor)| latentd_saved_tensor { name: lend(name), tensor: tensor.handle })
            .collect();
        let metadata = rmp_serde::to_vec(what.metadata).map_err(|error| Error::failed(error.to_string()))?;
        let told = latentd_save {
            size: size_of::<latentd_save>() as u32,
            replace: u32::from(what.replace),
            kind: lend(what.kind),
            name: lend(what.name),
            tensors: latentd_list {
                items: tensors.as_ptr().cast(),
                count: tensors.len() as u32,
                stride: size_of::<latentd_saved_tensor>() as u32,
            },
            metadata: latentd_bytes { data: metadata.as_ptr().cast(), length: metadata.len() as u64 },
        };
        let mut file = 0;
        // SAFETY: the call is under way; all is lent, the number is ours.
        Error::of_service(unsafe { save(self.pointer, &raw const told, &raw mut file) })?;
        Ok(File(file))
    }

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

    /// Removes it from the library; of a kind that the manifest asks to save.
    pub fn remove(&self, call: &Call<'_>) -> Result<()> {
        let remove = call.library()?.remove.ok_or_else(lacks)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { remove(call.pointer, self.0) })
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
