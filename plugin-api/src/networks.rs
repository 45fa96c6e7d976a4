//! Networks of library files that the host knows, and runs.

use crate::abi::{
    LATENTD_NETWORKS, latentd_bytes, latentd_list, latentd_need, latentd_net, latentd_network_run,
    latentd_networks,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::given::File;
use crate::host::{bytes, lend};
use crate::inputs::{Input, Outputs};
use crate::job::Plan;

/// A network that is open, until the plugin that opened it ends or it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(latentd_net);

impl<'a> Call<'a> {
    fn networks(&self) -> Result<&'static latentd_networks> {
        self.host.service(LATENTD_NETWORKS)
    }

    /// Opens a library file whose network the host knows.
    pub fn open_network(&self, file: File) -> Result<Network> {
        let open = self.networks()?.open.ok_or_else(lacks)?;
        let mut network = 0;
        // SAFETY: the call is under way; the number is ours.
        Error::of_service(unsafe { open(self.pointer, file.0, 0, &raw mut network) })?;
        Ok(Network(network))
    }

    /// What a file's network is, as MessagePack: see `describe` in the header. Also while a job is planned.
    pub fn describe_network(&self, file: File) -> Result<&'a [u8]> {
        let describe = self.networks()?.describe.ok_or_else(lacks)?;
        let mut map = latentd_bytes { data: std::ptr::null(), length: 0 };
        // SAFETY: the call is under way; the struct is ours.
        Error::of_service(unsafe { describe(self.pointer, file.0, &raw mut map) })?;
        // SAFETY: lent until the call ends.
        Ok(unsafe { bytes(map.data, map.length) })
    }
}

impl Network {
    /// Lets go of it.
    pub fn close(self, call: &Call<'_>) -> Result<()> {
        let close = call.networks()?.close.ok_or_else(lacks)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { close(call.pointer, self.0) })
    }

    /// Runs a part of it, the whole if `entry` is empty; each input by its name.
    pub fn run<'a>(&self, call: &Call<'a>, entry: &str, inputs: &[(&str, Input<'_>)]) -> Result<Outputs<'a>> {
        self.run_of(call, (entry, inputs), (false, None))
    }

    /// The same in `denoise.wrap` and `control.residuals`, where inputs named `x`, `timestep`, `context` and `pooled` may be left
    /// out: they are those of the evaluation that the stage is of, of these rows in this order, each once; of all if `None`.
    ///
    /// # Errors
    /// If what the evaluation has is not what the network takes, or there is no such row.
    pub fn run_in_stage<'a>(
        &self,
        call: &Call<'a>,
        entry: &str,
        inputs: &[(&str, Input<'_>)],
        rows: Option<&[u32]>,
    ) -> Result<Outputs<'a>> {
        self.run_of(call, (entry, inputs), (true, rows))
    }

    fn run_of<'a>(
        &self,
        call: &Call<'a>,
        (entry, inputs): (&str, &[(&str, Input<'_>)]),
        (is_of_stage, rows): (bool, Option<&[u32]>),
    ) -> Result<Outputs<'a>> {
        let run = call.networks()?.run.ok_or_else(lacks)?;
        let inputs = Input::listed(inputs);
        let asked = latentd_network_run {
            size: size_of::<latentd_network_run>() as u32,
            reserved: 0,
            entry: lend(entry),
            inputs: inputs.list(),
            rows: rows.map_or(std::ptr::null(), <[u32]>::as_ptr),
            row_count: rows.map_or(0, |rows| rows.len() as u32),
            of_stage: u32::from(is_of_stage),
        };
        let mut outputs = latentd_list { items: std::ptr::null(), count: 0, stride: 0 };
        // SAFETY: the call is under way; the struct and what it points to are lent, the list is ours.
        let status = unsafe { run(call.pointer, self.0, &raw const asked, &raw mut outputs) };
        Error::of_service(status)?;
        // SAFETY: the host lends it until the call ends.
        unsafe { Outputs::of(*call, outputs) }
    }
}

impl Plan<'_> {
    /// A network or ONNX graph that the job will run about so often, and the sizes of the largest inputs that it will be run
    /// with: its memory is planned for. An error if the file is neither.
    pub fn network(&self, file: File, entry: &str, inputs: &[(&str, &[usize])], runs: f64) -> Result<()> {
        let network = self.table.network.ok_or_else(lacks)?;
        let inputs = Input::sized(inputs)?;
        let need = latentd_need {
            size: size_of::<latentd_need>() as u32,
            on_base: 0,
            file: file.0,
            entry: lend(entry),
            inputs: inputs.list(),
            runs,
        };
        // SAFETY: the call is under way; the struct and what it points to are lent.
        Error::of_service(unsafe { network(self.call.pointer, &raw const need) })
    }
}
