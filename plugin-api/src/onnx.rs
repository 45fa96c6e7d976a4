//! ONNX graphs of the library, run by the host.

use crate::abi::{LATENTD_ONNX, latentd_bytes, latentd_list, latentd_net, latentd_onnx};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::given::File;
use crate::host::{bytes, lend};
use crate::inputs::{Input, Outputs};
use crate::tensor::Tensor;

/// A graph that is open, until the plugin that opened it ends or it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Graph(latentd_net);

impl<'a> Call<'a> {
    fn onnx(&self) -> Result<&'static latentd_onnx> {
        self.host.service(LATENTD_ONNX)
    }

    /// Opens an ONNX file of the library.
    pub fn open_graph(&self, file: File) -> Result<Graph> {
        let open = self.onnx()?.open.ok_or_else(lacks)?;
        let mut graph = 0;
        // SAFETY: the call is under way; the number is ours.
        Error::of_service(unsafe { open(self.pointer, file.0, &raw mut graph) })?;
        Ok(Graph(graph))
    }

    /// What an ONNX file says of itself, as MessagePack: see `describe` in the header. Also while a job is planned.
    pub fn describe_graph(&self, file: File) -> Result<&'a [u8]> {
        let describe = self.onnx()?.describe.ok_or_else(lacks)?;
        let mut map = latentd_bytes { data: std::ptr::null(), length: 0 };
        // SAFETY: the call is under way; the struct is ours.
        Error::of_service(unsafe { describe(self.pointer, file.0, &raw mut map) })?;
        // SAFETY: lent until the call ends.
        Ok(unsafe { bytes(map.data, map.length) })
    }
}

impl Graph {
    /// Lets go of it.
    pub fn close(self, call: &Call<'_>) -> Result<()> {
        let close = call.onnx()?.close.ok_or_else(lacks)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { close(call.pointer, self.0) })
    }

    /// Numbers that are kept in its file.
    pub fn initializer<'a>(&self, call: &Call<'a>, name: &str) -> Result<Tensor<'a>> {
        let initializer = call.onnx()?.initializer.ok_or_else(lacks)?;
        let mut handle = 0;
        // SAFETY: the call is under way; the text is lent, the number ours.
        let status = unsafe { initializer(call.pointer, self.0, lend(name), &raw mut handle) };
        Error::of_service(status)?;
        Ok(Tensor { call: *call, handle })
    }

    /// Runs it; each input by its name.
    pub fn run<'a>(&self, call: &Call<'a>, inputs: &[(&str, Input<'_>)]) -> Result<Outputs<'a>> {
        let run = call.onnx()?.run.ok_or_else(lacks)?;
        let inputs = Input::listed(inputs);
        let mut outputs = latentd_list { items: std::ptr::null(), count: 0, stride: 0 };
        // SAFETY: the call is under way; the list is lent, the other ours.
        let status = unsafe { run(call.pointer, self.0, inputs.list(), &raw mut outputs) };
        Error::of_service(status)?;
        // SAFETY: the host lends it until the call ends.
        unsafe { Outputs::of(*call, outputs) }
    }
}
