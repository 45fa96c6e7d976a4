//! Tensors by name: what goes into networks and graphs, and what comes out.

use crate::abi::{latentd_input, latentd_list};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::host::{lend, text};
use crate::image::Image;
use crate::tensor::Tensor;

/// What goes in by a name.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// As it is.
    Tensor(Tensor<'a>),
    /// As (1, channels, height, width) of 0…1.
    Image(Image<'a>),
}

impl<'a> From<Tensor<'a>> for Input<'a> {
    fn from(tensor: Tensor<'a>) -> Self {
        Self::Tensor(tensor)
    }
}

impl<'a> From<Image<'a>> for Input<'a> {
    fn from(image: Image<'a>) -> Self {
        Self::Image(image)
    }
}

/// Inputs as the ABI has them.
pub(crate) struct Listed(Vec<latentd_input>);

impl Listed {
    /// Lent as long as this lives.
    pub(crate) fn list(&self) -> latentd_list {
        latentd_list {
            items: self.0.as_ptr().cast(),
            count: self.0.len() as u32,
            stride: size_of::<latentd_input>() as u32,
        }
    }
}

impl Input<'_> {
    /// With their names, which are lent.
    pub(crate) fn listed(inputs: &[(&str, Input<'_>)]) -> Listed {
        let input = |(name, input): &(&str, Input<'_>)| {
            let handle = match input {
                Input::Tensor(tensor) => tensor.handle,
                Input::Image(image) => image.handle,
            };
            latentd_input { name: lend(name), handle, ndim: 0, reserved: 0, shape: [0; 8] }
        };
        Listed(inputs.iter().map(input).collect())
    }

    /// Sizes with their names, which are lent.
    pub(crate) fn sized(inputs: &[(&str, &[usize])]) -> Result<Listed> {
        let input = |(name, dims): &(&str, &[usize])| {
            let mut shape = [0; 8];
            let places = shape.get_mut(..dims.len());
            let places =
                places.ok_or_else(|| Error::failed(format!("{} dimensions; at most 8", dims.len())))?;
            for (place, size) in places.iter_mut().zip(*dims) {
                let size = i64::try_from(*size);
                *place = size.map_err(|_| Error::failed("a tensor without an end"))?;
            }
            let (name, ndim) = (lend(name), dims.len() as u32);
            Ok(latentd_input { name, handle: 0, ndim, reserved: 0, shape })
        };
        inputs.iter().map(input).collect::<Result<_>>().map(Listed)
    }
}

/// What came out, in the order that the network or graph has it.
pub struct Outputs<'a>(Vec<(&'a str, Tensor<'a>)>);

impl<'a> Outputs<'a> {
    /// What the host gave.
    ///
    /// # Safety
    /// `list` has as many elements of as many bytes as it says, until the call ends.
    pub(crate) unsafe fn of(call: Call<'a>, list: latentd_list) -> Result<Self> {
        if list.count > 0 && (list.items.is_null() || (list.stride as usize) < size_of::<latentd_input>()) {
            return Err(Error::failed("the host lists outputs that are none"));
        }
        let output = |index: u32| {
            let offset = index as usize * list.stride as usize;
            // SAFETY: as the caller says.
            let output =
                unsafe { list.items.cast::<u8>().add(offset).cast::<latentd_input>().read_unaligned() };
            // SAFETY: lent until the call ends.
            (unsafe { text(output.name) }, Tensor { call, handle: output.handle })
        };
        Ok(Self((0..list.count).map(output).collect()))
    }

    /// The output of this name.
    pub fn get(&self, name: &str) -> Result<Tensor<'a>> {
        let found = self.0.iter().find(|(own, _)| *own == name).map(|(_, tensor)| *tensor);
        found.ok_or_else(|| Error::failed(format!("no output '{name}' came out")))
    }

    /// All of them with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Tensor<'a>)> + '_ {
        self.0.iter().copied()
    }
}
