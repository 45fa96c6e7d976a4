//! Networks of library files that the host knows, and runs on its device.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::networks::known::KnownNetwork;
use latentd_models::networks::standalone::{Entry, Port, Side, Standalone};
use latentd_plugin_api::abi::{
    LATENTD_CANCELLED, LATENTD_FAILED, LATENTD_INVALID, LATENTD_MEMORY, LATENTD_UNSUPPORTED, latentd_bytes,
    latentd_call, latentd_file, latentd_list, latentd_need, latentd_net, latentd_network_run,
    latentd_networks, latentd_status,
};
use rmpv::Value;

use super::named::{self, Named, file, lend_bytes, lend_outputs, net, read_inputs, read_sizes};
use super::network_rows::{in_groups, together};
use super::serving::{Failure, Served, misuse, read_text, reserve, serve, taken};
use crate::library::Pinned;
use crate::onnx::Graph;
use crate::plugins::call::{Call, Need, State};
use crate::plugins::objects::Content;
use crate::plugins::opened::{Net, Running};

pub(super) static NETWORKS: latentd_networks = latentd_networks {
    size: size_of::<latentd_networks>() as u32,
    reserved: 0,
    open: Some(open),
    close: Some(close),
    describe: Some(describe),
    run: Some(run),
};

unsafe extern "C" fn open(
    call: *mut latentd_call,
    number: latentd_file,
    on_base: u32,
    network: *mut latentd_net,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if network.is_null() {
            return misuse("network is null");
        }
        if state.objects.is_none() {
            return misuse("networks are opened by instances; job.plan may describe them");
        }
        let file = file(state, number)?;
        let known = file.network()?;
        let base = if is_over(on_base, &known)? { Some(call.job.base().ok_or_else(no_base)?) } else { None };
        let opened = call.job.resources().network(&file, base.as_ref())?;
        let running = Running { known, network: opened, base: base.map(|base| base.shape) };
        let number = named::open(state, Net::Network(running))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { network.write(number) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// Whether a network is built over the UNet of a pass, which must be asked for as it is.
fn is_over(on_base: u32, known: &KnownNetwork) -> Served<bool> {
    match (on_base != 0, known.is_over_base()) {
        (true, false) => Err(alone(known.described().kind)),
        (false, true) => {
            let text =
                "its weights are told by what they differ by from a checkpoint's: open it with on_base 1";
            Err(Failure(LATENTD_UNSUPPORTED, text.to_owned()))
        }
        (is_over, _) => Ok(is_over),
    }
}

fn alone(kind: &str) -> Failure {
    Failure(LATENTD_UNSUPPORTED, format!("{kind} is not built over the UNet of a pass"))
}

fn no_base() -> Failure {
    let text = "nothing is drawn here over whose UNet a network could be built";
    Failure(LATENTD_UNSUPPORTED, text.to_owned())
}

unsafe extern "C" fn close(call: *mut latentd_call, network: latentd_net) -> latentd_status {
    // SAFETY: the plugin names a call.
    unsafe { serve(call, |_, state| named::close(state, network)) }
}

unsafe extern "C" fn describe(
    call: *mut latentd_call,
    number: latentd_file,
    map: *mut latentd_bytes,
) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        if map.is_null() {
            return misuse("map is null");
        }
        let known = file(state, number)?.network()?;
        let described = known.described();
        let entries = described.entries.iter().map(|entry| (entry.name.into(), told_of(entry)));
        let told = Value::Map(vec![
            ("kind".into(), described.kind.into()),
            ("on_base".into(), known.is_over_base().into()),
            ("entries".into(), Value::Map(entries.collect())),
        ]);
        let mut bytes = vec![];
        // Writing to memory does not fail.
        rmpv::encode::write_value(&mut bytes, &told).ok();
        // SAFETY: it is not null, and the plugin's own.
        unsafe { map.write(lend_bytes(state, bytes)) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// A part as a map.
fn told_of(entry: &Entry) -> Value {
    let side = |side: &Side| match side {
        Side::Fixed(size) => (*size as u64).into(),
        other => other.to_string().into(),
    };
    let port = |port: &Port| {
        Value::Map(vec![
            ("name".into(), port.name.into()),
            ("sizes".into(), Value::Array(port.sides.iter().map(side).collect())),
            ("about".into(), port.about.into()),
        ])
    };
    let ports = |ports: &[Port]| Value::Array(ports.iter().map(port).collect());
    Value::Map(vec![("inputs".into(), ports(&entry.inputs)), ("outputs".into(), ports(&entry.outputs))])
}

unsafe extern "C" fn run(
    call: *mut latentd_call,
    number: latentd_net,
    run: *const latentd_network_run,
    outputs: *mut latentd_list,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(run) = (unsafe { taken(run) }) else { return misuse("run is null") };
        if outputs.is_null() {
            return misuse("outputs is null");
        }
        let Net::Network(Running { known, network, base }) = net(state, number)? else {
            return misuse(format!("{number} is an ONNX graph: run it by that service"));
        };
        if let Some(base) = base
            && !call.job.model().is_some_and(|model| Arc::ptr_eq(&model, &base))
        {
            return misuse(format!(
                "{number} is built over a UNet whose turn is over: close it, and open it again"
            ));
        }
        // SAFETY: the plugin lends a text.
        let entry = unsafe { read_text(run.entry) };
        let entry = known.described().entry(&entry).map_err(|error| wrong(&error))?;
        // SAFETY: the plugin lends a list.
        let inputs = unsafe { read_inputs(state, run.inputs) }?;
        let inputs = inputs.into_iter().map(|Named { name, content }| Ok((name, tensor(content)?)));
        let inputs = inputs.collect::<Served<Vec<_>>>()?;
        // SAFETY: the plugin lends as many rows as it says.
        let mut groups = unsafe { in_groups(call, &run, entry, inputs) }?;
        let made = groups.iter_mut().map(|group| {
            let inputs = std::mem::take(&mut group.inputs);
            let inputs = entry.in_order(inputs, |tensor: &Tensor| tensor.dims().to_vec());
            ran(call, (&known, network.as_ref()), entry, &inputs.map_err(|error| wrong(&error))?)
        });
        let made = made.collect::<Served<Vec<_>>>()?;
        let made = entry.outputs.iter().zip(together(groups.into_iter().zip(made).collect())?);
        let made =
            made.map(|(port, tensor)| Named { name: port.name.to_owned(), content: Content::Tensor(tensor) });
        let list = lend_outputs(call, state, made.collect())?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { outputs.write(list) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// What comes out of a part.
fn ran(
    call: &Call<'_>,
    (known, network): (&KnownNetwork, &dyn Standalone),
    entry: &Entry,
    inputs: &[Tensor],
) -> Served<Vec<Tensor>> {
    let sizes: Vec<Vec<usize>> = inputs.iter().map(|tensor| tensor.dims().to_vec()).collect();
    let bytes = usize::try_from(known.activation_bytes(entry, &sizes)).unwrap_or(usize::MAX);
    let _room = reserve(call, bytes)?;
    let cancelled = || call.job.is_cancelled();
    let ran = network.run(entry, inputs, &latentd_models::nn::Run::until(&cancelled));
    ran.map_err(|error| match error {
        latentd_models::Error::Cancelled => Failure(LATENTD_CANCELLED, "cancelled in a network".to_owned()),
        latentd_models::Error::OutOfMemory { .. } => Failure(LATENTD_MEMORY, error.to_string()),
        _ => Failure(LATENTD_FAILED, error.to_string()),
    })
}

fn wrong(error: &latentd_models::Error) -> Failure {
    Failure(LATENTD_INVALID, error.to_string())
}

/// A tensor, or an image's planes of 0…1.
fn tensor(content: Content) -> Served<Tensor> {
    match content {
        Content::Tensor(tensor) => Ok(tensor),
        Content::Image(image) => {
            let values = image.planes().into_iter().map(|value| f32::from(value) / 255.0).collect();
            let dims = [1, image.channels, image.height, image.width];
            Tensor::new(values, dims).map_err(|error| Failure(LATENTD_FAILED, error.to_string()))
        }
        Content::Bytes(_) => misuse("a file's bytes are no tensor"),
    }
}

/// A network that a plan tells of.
pub(super) unsafe extern "C" fn plan_network(
    call: *mut latentd_call,
    need: *const latentd_need,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if state.plan.is_none() {
            return misuse("networks are planned within job.plan");
        }
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(need) = (unsafe { taken(need) }) else { return misuse("the need is null") };
        if !need.runs.is_finite() || need.runs < 0.0 {
            return misuse(format!("a network is not run {} times", need.runs));
        }
        let file = file(state, need.file)?;
        // SAFETY: the plugin lends a list and a text.
        let (sizes, entry) = unsafe { (read_sizes(need.inputs)?, read_text(need.entry)) };
        let (weights, activations) = if file.item().facts.format.as_deref() == Some("onnx") {
            if need.on_base != 0 {
                return Err(alone("an ONNX graph"));
            }
            of_graph(call, &file, &sizes)?
        } else {
            let known = file.checked_network()?;
            let is_new = state
                .plan
                .as_ref()
                .is_some_and(|plan| plan.networks.iter().all(|known| known.file != need.file));
            if is_over(need.on_base, &known)? && is_new {
                if call.job.bases().is_empty() {
                    return Err(no_base());
                }
                // Those that it will be opened on.
                call.job.bases().iter().try_for_each(|base| base.under(&file, &known).map(drop))?;
            }
            let entry = known.described().entry(&entry).map_err(|error| wrong(&error))?;
            let ordered = entry.in_order(sizes, Vec::clone).map_err(|error| wrong(&error))?;
            let working = known.activation_bytes(entry, &ordered).max(known.making_bytes());
            (file.bytes_of_network(&known), working)
        };
        let need = Need { file: need.file, weights, activations };
        if let Some(plan) = &mut state.plan {
            plan.networks.push(need);
        }
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// Bytes of a graph, and of running it.
fn of_graph(call: &Call<'_>, file: &Arc<Pinned>, sizes: &[(String, Vec<usize>)]) -> Served<(u64, u64)> {
    let _room = reserve(call, file.item().size() as usize)?;
    let header = file.graph_header()?;
    let sizes = sizes.iter().map(|(_, sizes)| sizes.as_slice());
    Ok((Graph::bytes(file.item().size()), header.estimate(sizes)))
}
