//! ONNX graphs of the library.

use latentd_models::Tensor;
use latentd_plugin_api::abi::{
    LATENTD_CANCELLED, LATENTD_FAILED, LATENTD_INVALID, LATENTD_MEMORY, LATENTD_MODEL, LATENTD_NOT_FOUND,
    LATENTD_UNSUPPORTED, latentd_bytes, latentd_call, latentd_file, latentd_handle, latentd_list,
    latentd_net, latentd_onnx, latentd_status, latentd_text,
};
use rmpv::Value;

use super::named::{self, Named, file, lend_bytes, lend_outputs, net, read_inputs};
use super::serving::{Failure, Served, misuse, objects, read_text, reserve, serve};
use crate::onnx::{self, Array, Element, Graph, Header, Numbers, Port, Side};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::Content;
use crate::plugins::opened::Net;

/// Bytes of all outputs of a run.
const MOST_BYTES: u64 = 1 << 30;
/// Bytes of what is told of a file.
const MOST_TOLD: usize = 16 << 20;
/// Dimensions that a tensor here may have.
const MOST_DIMENSIONS: usize = 8;

pub(super) static ONNX: latentd_onnx = latentd_onnx {
    size: size_of::<latentd_onnx>() as u32,
    reserved: 0,
    open: Some(open),
    close: Some(close),
    describe: Some(describe),
    initializer: Some(initializer),
    run: Some(run),
};

unsafe extern "C" fn open(
    call: *mut latentd_call,
    number: latentd_file,
    graph: *mut latentd_net,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if graph.is_null() {
            return misuse("graph is null");
        }
        if state.objects.is_none() {
            return misuse("graphs are opened by instances; job.plan may describe them");
        }
        let file = file(state, number)?;
        let number = named::open(state, Net::Graph(call.job.resources().graph(&file)?))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { graph.write(number) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn close(call: *mut latentd_call, graph: latentd_net) -> latentd_status {
    // SAFETY: the plugin names a call.
    unsafe { serve(call, |_, state| named::close(state, graph)) }
}

unsafe extern "C" fn describe(
    call: *mut latentd_call,
    number: latentd_file,
    map: *mut latentd_bytes,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if map.is_null() {
            return misuse("map is null");
        }
        let file = file(state, number)?;
        let _room = reserve(call, file.item().size() as usize)?;
        let header = file.graph_header()?;
        let mut told = vec![];
        // Writing to memory does not fail.
        rmpv::encode::write_value(&mut told, &told_of(&header)).ok();
        if told.len() > MOST_TOLD {
            return Err(Failure(LATENTD_UNSUPPORTED, format!("what it tells takes {} bytes", told.len())));
        }
        // SAFETY: it is not null, and the plugin's own.
        unsafe { map.write(lend_bytes(state, told)) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// What a file says of itself, as a map.
fn told_of(header: &Header) -> Value {
    let element = |element: Option<Element>| element.map_or(Value::Nil, |element| element.name().into());
    let side = |side: &Side| match side {
        Side::Fixed(size) => (*size).into(),
        Side::Named(name) if name.is_empty() => Value::Nil,
        Side::Named(name) => name.as_str().into(),
    };
    let entry = |name: &str, kind: Value, sizes: Value| {
        Value::Map(vec![("name".into(), name.into()), ("type".into(), kind), ("sizes".into(), sizes)])
    };
    let port = |port: &Port| {
        let sizes = port.sides.as_ref().map(|sides| Value::Array(sides.iter().map(side).collect()));
        entry(&port.name, element(port.element), sizes.unwrap_or(Value::Nil))
    };
    let kept = header.kept.iter().map(|kept| {
        let sizes = Value::Array(kept.dims.iter().map(|size| (*size).into()).collect());
        entry(&kept.name, element(Some(kept.element)), sizes)
    });
    Value::Map(vec![
        ("inputs".into(), Value::Array(header.inputs.iter().map(port).collect())),
        ("outputs".into(), Value::Array(header.outputs.iter().map(port).collect())),
        ("initializers".into(), Value::Array(kept.collect())),
        ("operators".into(), header.operators.map_or(Value::Nil, Value::from)),
    ])
}

/// A graph that is open.
fn graph(state: &State<'_>, number: latentd_net) -> Served<std::sync::Arc<Graph>> {
    match net(state, number)? {
        Net::Graph(graph) => Ok(graph),
        Net::Network(_) => misuse(format!("{number} is no ONNX graph")),
    }
}

unsafe extern "C" fn initializer(
    call: *mut latentd_call,
    number: latentd_net,
    name: latentd_text,
    tensor: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if tensor.is_null() {
            return misuse("tensor is null");
        }
        let graph = graph(state, number)?;
        // SAFETY: the plugin lends a text.
        let name = unsafe { read_text(name) };
        let bytes =
            graph.kept_bytes(&name).map_err(|failure| Failure(LATENTD_NOT_FOUND, failure.text().into()))?;
        let lease = reserve(call, bytes)?;
        let content = content(graph.kept(&name).map_err(|failure| failed(&failure))?, &name)?;
        let handle = objects(state)?.allocate(content, Some(lease))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { tensor.write(handle) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn run(
    call: *mut latentd_call,
    number: latentd_net,
    inputs: latentd_list,
    outputs: *mut latentd_list,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if outputs.is_null() {
            return misuse("outputs is null");
        }
        let graph = graph(state, number)?;
        // SAFETY: the plugin lends a list.
        let inputs = unsafe { read_inputs(state, inputs) }?;
        let inputs = inputs.into_iter().map(|Named { name, content }| Ok((name, array(&content)?)));
        let inputs: Vec<(String, Array)> = inputs.collect::<Served<_>>()?;
        go_on(call)?;
        let made = run_in_room(call, &graph, &inputs)?;
        drop(inputs);
        go_on(call)?;
        let made = made.into_iter().map(|(name, array)| {
            let content = content(array, &name)?;
            Ok(Named { name, content })
        });
        let made = made.collect::<Served<Vec<_>>>()?;
        let list = lend_outputs(call, state, made)?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { outputs.write(list) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// Runs a graph with as much room as it is thought to need, and with more if that is too little: all of it is counted.
fn run_in_room(call: &Call<'_>, graph: &Graph, inputs: &[(String, Array)]) -> Served<Vec<(String, Array)>> {
    let limits = call.job.resources().graph_limits();
    let mut too_few = None;
    loop {
        let Some(room) = graph.room(inputs, limits, too_few) else {
            let text = format!(
                "the ONNX graph: it needs more than the {} bytes that a run may take (onnx_bytes)",
                limits.bytes
            );
            return Err(Failure(LATENTD_MEMORY, text));
        };
        let _room = reserve(call, usize::try_from(room).unwrap_or(usize::MAX))?;
        match graph.run(inputs, MOST_BYTES, room, limits, &|| call.job.is_cancelled()) {
            Err(onnx::Failure::Memory(_)) => too_few = Some(room),
            ran => return ran.map_err(|failure| failed(&failure)),
        }
    }
}

/// An error once the job is cancelled.
fn go_on(call: &Call<'_>) -> Served {
    if call.job.is_cancelled() {
        return Err(Failure(LATENTD_CANCELLED, "cancelled at an ONNX graph".to_owned()));
    }
    Ok(())
}

fn failed(failure: &onnx::Failure) -> Failure {
    let status = match failure {
        onnx::Failure::File(_) | onnx::Failure::Ended(_) => LATENTD_MODEL,
        onnx::Failure::Input(_) => LATENTD_INVALID,
        onnx::Failure::TooLarge(_) | onnx::Failure::Memory(_) => LATENTD_MEMORY,
        onnx::Failure::Cancelled => return Failure(LATENTD_CANCELLED, failure.text().to_owned()),
    };
    Failure(status, format!("the ONNX graph: {}", failure.text()))
}

/// A tensor's numbers, or an image's planes.
fn array(content: &Content) -> Served<Array> {
    let numbers = match content {
        Content::Tensor(tensor) => Numbers::F32(tensor.values().to_vec()),
        Content::Image(image) => Numbers::U8(image.planes()),
        Content::Bytes(_) => return misuse("a file's bytes are no tensor"),
    };
    Ok(Array { dims: content.dims(), numbers })
}

/// Numbers that came out, as a tensor.
fn content(Array { dims, numbers }: Array, name: &str) -> Served<Content> {
    if dims.len() > MOST_DIMENSIONS {
        let text = format!("'{name}' has {} dimensions, {MOST_DIMENSIONS} are possible", dims.len());
        return Err(Failure(LATENTD_UNSUPPORTED, text));
    }
    let values = match numbers {
        Numbers::F32(numbers) => numbers,
        Numbers::I32(numbers) => numbers.into_iter().map(|number| number as f32).collect(),
        Numbers::U8(numbers) => numbers.into_iter().map(f32::from).collect(),
        Numbers::I8(numbers) => numbers.into_iter().map(f32::from).collect(),
    };
    // One number alone has no dimension; a tensor has at least one.
    let dims = if dims.is_empty() { vec![1] } else { dims };
    let tensor = Tensor::new(values, dims).map_err(|error| Failure(LATENTD_FAILED, error.to_string()))?;
    Ok(Content::Tensor(tensor))
}
