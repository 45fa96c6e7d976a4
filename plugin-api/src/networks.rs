//! Networks of library files that the host knows, and runs.

use std::collections::BTreeMap;

use serde::Deserialize;

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
use crate::tensor::{Tensor, unmapped};

/// A network that is open, until the plugin that opened it ends or it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(latentd_net);

/// What a file's network is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NetworkInfo {
    /// "controlnet", "taesd", and so on.
    pub kind: String,
    /// Whether it is built over a checkpoint's UNet.
    #[serde(default)]
    pub on_base: bool,
    /// Its parts by their names; the whole has none.
    pub entries: BTreeMap<String, NetworkEntry>,
}

/// A part of a network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NetworkEntry {
    /// What goes in.
    pub inputs: Vec<NetworkPort>,
    /// What comes out, in order.
    pub outputs: Vec<NetworkPort>,
}

/// A tensor that goes in or comes out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NetworkPort {
    /// What it is called.
    pub name: String,
    /// Its sizes.
    pub sizes: Vec<NetworkSize>,
    /// What its numbers are, for people.
    #[serde(default)]
    pub about: String,
}

/// One size of such a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum NetworkSize {
    /// Always this.
    Fixed(usize),
    /// What a name stands for, the same wherever it stands, or a multiple: "height", "4 height".
    Free(String),
}

impl NetworkInfo {
    /// A part; an error if the host has networks of this kind without it.
    pub fn entry(&self, name: &str) -> Result<&NetworkEntry> {
        self.entries.get(name).ok_or_else(|| {
            Error::unsupported(format!("the host's networks of kind '{}' have no part '{name}'", self.kind))
        })
    }
}

impl NetworkEntry {
    /// An input by its name.
    pub fn input(&self, name: &str) -> Option<&NetworkPort> {
        self.inputs.iter().find(|port| port.name == name)
    }
}

impl NetworkPort {
    /// One of its sizes, if that is always the same.
    pub fn fixed(&self, side: usize) -> Option<usize> {
        self.sizes.get(side)?.fixed()
    }
}

impl NetworkSize {
    /// What it always is, if it is.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Free(_) => None,
        }
    }

    /// How many times a name it is, if it is a multiple.
    pub fn times(&self) -> Option<u32> {
        match self {
            Self::Free(text) => text.split_once(' ')?.0.parse().ok(),
            Self::Fixed(_) => None,
        }
    }
}

impl Call<'_> {
    fn networks(&self) -> Result<&'static latentd_networks> {
        self.host.service(LATENTD_NETWORKS)
    }

    /// Opens a library file whose network the host knows.
    pub fn open_network(&self, file: File) -> Result<Network> {
        self.open(file, false)
    }

    /// Opens one that is built over a UNet, over that whose turn it is. Once [`crate::Model::turn`] is another, it is closed, and
    /// opened again.
    pub fn open_network_on_base(&self, file: File) -> Result<Network> {
        self.open(file, true)
    }

    fn open(&self, file: File, on_base: bool) -> Result<Network> {
        let open = self.networks()?.open.ok_or_else(lacks)?;
        let mut network = 0;
        // SAFETY: the call is under way; the number is ours.
        Error::of_service(unsafe { open(self.pointer, file.0, u32::from(on_base), &raw mut network) })?;
        Ok(Network(network))
    }

    /// What a file's network is. Also while a job is planned.
    pub fn describe_network(&self, file: File) -> Result<NetworkInfo> {
        let describe = self.networks()?.describe.ok_or_else(lacks)?;
        let mut map = latentd_bytes { data: std::ptr::null(), length: 0 };
        // SAFETY: the call is under way; the struct is ours.
        Error::of_service(unsafe { describe(self.pointer, file.0, &raw mut map) })?;
        // SAFETY: lent until the call ends.
        let map = unsafe { bytes(map.data, map.length) };
        rmp_serde::from_slice(map).map_err(|error| {
            Error::failed(format!("what the host says of a network cannot be read: {error}"))
        })
    }
}

/// Numbers of a tensor, in the plugin's own memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// The sizes.
    pub dims: Vec<usize>,
    /// In logical order.
    pub numbers: Vec<f32>,
}

/// Tensors of a call that nobody sees any more once this ends.
struct Held<'a> {
    call: Call<'a>,
    tensors: Vec<Tensor<'a>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for tensor in &self.tensors {
            // What is not let go of here goes with the call.
            unmapped(&self.call, tensor.handle).and_then(|()| tensor.let_go()).ok();
        }
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

    /// The same with numbers that are the plugin's own, in and out. The tensors of [`Self::run`] stay until the call ends; of this
    /// nothing does, so that one call may run it any number of times.
    pub fn run_values(
        &self,
        call: &Call<'_>,
        entry: &str,
        inputs: &[(&str, &Values)],
    ) -> Result<BTreeMap<String, Values>> {
        let mut held = Held { call: *call, tensors: vec![] };
        let mut lent = vec![];
        for (name, values) in inputs {
            let mut tensor = call.new_tensor(&values.dims)?;
            let places = tensor.values_mut();
            if places.len() != values.numbers.len() {
                return Err(Error::failed(format!(
                    "{name}: {} numbers for {:?}",
                    values.numbers.len(),
                    values.dims
                )));
            }
            places.copy_from_slice(&values.numbers);
            let tensor = call.finished(tensor)?;
            held.tensors.push(tensor);
            lent.push((*name, Input::Tensor(tensor)));
        }
        let outputs = self.run(call, entry, &lent)?;
        held.tensors.extend(outputs.iter().map(|(_, tensor)| tensor));
        let own = |(name, tensor): (&str, Tensor<'_>)| {
            Ok((name.to_owned(), Values { dims: tensor.dims()?, numbers: tensor.read()?.to_vec() }))
        };
        outputs.iter().map(own).collect()
    }

    /// [`Self::run`] in `denoise.wrap` and `control.residuals`, where inputs named `x`, `timestep`, `context` and `pooled` may be left
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
        self.need(file, (entry, inputs), runs, false)
    }

    /// The same of a network that is built over a UNet. An error if it cannot be over each that the job draws with.
    pub fn network_on_base(
        &self,
        file: File,
        entry: &str,
        inputs: &[(&str, &[usize])],
        runs: f64,
    ) -> Result<()> {
        self.need(file, (entry, inputs), runs, true)
    }

    fn need(
        &self,
        file: File,
        (entry, inputs): (&str, &[(&str, &[usize])]),
        runs: f64,
        on_base: bool,
    ) -> Result<()> {
        let network = self.table.network.ok_or_else(lacks)?;
        let inputs = Input::sized(inputs)?;
        let need = latentd_need {
            size: size_of::<latentd_need>() as u32,
            on_base: u32::from(on_base),
            file: file.0,
            entry: lend(entry),
            inputs: inputs.list(),
            runs,
        };
        // SAFETY: the call is under way; the struct and what it points to are lent.
        Error::of_service(unsafe { network(self.call.pointer, &raw const need) })
    }
}
