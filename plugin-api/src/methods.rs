//! Methods of the plugin's own, which clients call as `NAME.method`.

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::abi::{LATENTD_EXT_HANDLE, latentd_bytes, latentd_method};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::handed_over::HandedOver;
use crate::host::{bytes, lent, text};
use crate::job::Plugin;

/// The methods of a manifest: `[methods.NAME]` with `kind`, `params` and `result`.
pub trait Methods: Plugin {
    /// One of kind `quick`: at once, without an instance, within 5 seconds.
    fn quick(method: &MethodCall<'_>) -> Result<()> {
        Err(method.unknown())
    }

    /// One of kind `job`, which waited for its turn and has an instance of its own.
    fn method(&self, method: &MethodCall<'_>) -> Result<()> {
        Err(method.unknown())
    }
}

/// A method that is called.
pub struct MethodCall<'a> {
    /// The call.
    pub call: Call<'a>,
    /// What the manifest calls it, without the plugin's name.
    pub name: &'a str,
    params: latentd_bytes,
}

impl<'a> MethodCall<'a> {
    /// # Safety
    /// `method` is null, or as the ABI says, until the call ends.
    pub(crate) unsafe fn of(call: Call<'a>, method: *const latentd_method) -> Result<Self> {
        // SAFETY: as the caller says.
        let method = unsafe { lent(method) }?;
        // SAFETY: lent until the call ends.
        Ok(Self { call, name: unsafe { text(method.name) }, params: method.params })
    }

    /// Its parameters, with the schema's defaults: pictures as [`GivenImage`](crate::GivenImage), library files as
    /// [`File`](crate::File).
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        // SAFETY: lent until the call ends.
        let params = unsafe { bytes(self.params.data, self.params.length) };
        rmp_serde::from_slice(params)
            .map_err(|error| Error::invalid(format!("its parameters cannot be read: {error}")))
    }

    /// An image or tensor as a part of [`MethodCall::reply`]: clients get a PNG, or numbers.
    pub fn sent(&self, part: impl Into<HandedOver<'a>>) -> Result<Sent> {
        Ok(Sent(part.into().into_handle(&self.call)?))
    }

    /// The result: a struct or map.
    pub fn reply(&self, result: &impl Serialize) -> Result<()> {
        let result = rmp_serde::to_vec_named(result)
            .map_err(|error| Error::failed(format!("its result cannot be encoded: {error}")))?;
        self.call.reply(0, &result)
    }

    /// Why a name that no function of the plugin knows fails.
    pub fn unknown(&self) -> Error {
        Error::unsupported(format!("the plugin has no method '{}' of this kind", self.name))
    }
}

/// An image or tensor within a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent(u64);

impl Serialize for Sent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ext = (LATENTD_EXT_HANDLE as i8, Number(self.0));
        serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &ext)
    }
}

/// 8 bytes, big-endian.
struct Number(u64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Answer {
        images: Vec<Sent>,
        count: u32,
    }

    #[test]
    fn images_stand_in_a_result_as_exts() {
        let answer = Answer { images: vec![Sent(1 << 33), Sent(7)], count: 2 };
        let found = rmp_serde::to_vec_named(&answer).expect("encoded");
        let ext = |number: u64| [&[0xd7, 1][..], &number.to_be_bytes()].concat();
        let expected =
            [&[0x82, 0xa6][..], b"images", &[0x92], &ext(1 << 33), &ext(7), &[0xa5], b"count", &[2]].concat();
        assert_eq!(found, expected);
    }
}
