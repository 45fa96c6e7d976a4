//! What files and networks share: files by their numbers, tensors by name, maps that are told.

use std::sync::Arc;

use latentd_client::protocol::LibraryKind;
use latentd_plugin_api::abi::{
    LATENTD_INVALID, latentd_bytes, latentd_file, latentd_handle, latentd_input, latentd_list, latentd_net,
};

use super::serving::{Failure, Served, bytes, elements, misuse, objects, read_text, reserve, text};
use crate::library::Pinned;
use crate::plugins::call::{Call, State};
use crate::plugins::objects::Content;
use crate::plugins::opened::{Net, Opened};
use crate::plugins::parameters::kind_of;
use crate::schema::shorten;
use crate::suggest::advice;

/// Inputs of one run.
const MOST_INPUTS: u32 = 256;
/// One size of a tensor that is planned for.
const LARGEST_SIZE: usize = 1 << 24;

/// The files and networks that a call may name.
pub(super) fn opened<'a>(state: &State<'a>) -> Served<&'a std::cell::RefCell<Opened>> {
    match state.opened {
        Some(opened) => Ok(opened),
        None => misuse("there are no files and networks here"),
    }
}

/// The kind of this name; an error names the nearest.
pub(super) fn kind(name: &str) -> Served<LibraryKind> {
    kind_of(name).ok_or_else(|| {
        let advice = advice(name, LibraryKind::ALL.map(|(_, name)| name));
        Failure(LATENTD_INVALID, format!("'{}' is no kind of file{advice}", shorten(name)))
    })
}

/// A file by its number.
pub(super) fn file(state: &State<'_>, number: latentd_file) -> Served<Arc<Pinned>> {
    match opened(state)?.borrow().file(number) {
        Some(file) => Ok(Arc::clone(file)),
        None => misuse(format!("{number} is no file")),
    }
}

/// What was opened, by its number.
pub(super) fn net(state: &State<'_>, number: latentd_net) -> Served<Net> {
    match opened(state)?.borrow().net(number) {
        Some(net) => Ok(net.clone()),
        None => misuse(format!("{number} is nothing that is open")),
    }
}

/// Opens something for the instance; its number.
pub(super) fn open(state: &State<'_>, net: Net) -> Served<latentd_net> {
    match opened(state)?.borrow_mut().open(net) {
        Some(number) => Ok(number),
        None => misuse("more networks at once than anybody needs: close those that are done with"),
    }
}

/// Ends what was opened.
pub(super) fn close(state: &State<'_>, number: latentd_net) -> Served {
    if opened(state)?.borrow_mut().close(number) {
        return Ok(());
    }
    misuse(format!("{number} is nothing that is open"))
}

/// A tensor or image with its name.
pub(super) struct Named {
    pub name: String,
    pub content: Content,
}

/// Tensors that a plugin gives by their names.
///
/// # Safety
/// `list` points to as many elements of as many bytes as it says, or is empty; texts are lent.
pub(super) unsafe fn read_inputs(state: &State<'_>, list: latentd_list) -> Served<Vec<Named>> {
    if list.count == 0 {
        return Ok(vec![]);
    }
    // SAFETY: as the caller says.
    let inputs = unsafe { elements::<latentd_input>(list, MOST_INPUTS, "inputs") }?;
    let mut objects = objects(state)?;
    let inputs = inputs.into_iter().map(|input| {
        // SAFETY: the plugin lends a text.
        let name = unsafe { read_text(input.name) };
        let content = objects.finished(input.handle);
        let content = content.map_err(|misuse| {
            let failure = Failure::from(misuse);
            Failure(failure.0, format!("input '{name}': {}", failure.1))
        })?;
        Ok(Named { name, content: content.clone() })
    });
    inputs.collect()
}

/// Sizes that a plan gives by their names.
///
/// # Safety
/// As [`read_inputs`].
pub(super) unsafe fn read_sizes(list: latentd_list) -> Served<Vec<(String, Vec<usize>)>> {
    // SAFETY: as the caller says.
    let inputs = unsafe { elements::<latentd_input>(list, MOST_INPUTS, "inputs") }?;
    let sizes = inputs.into_iter().map(|input| {
        // SAFETY: the plugin lends a text.
        let name = unsafe { read_text(input.name) };
        let shape = input.shape.get(..input.ndim as usize).unwrap_or_default();
        let sizes = shape.iter().map(|size| usize::try_from(*size).ok().filter(|size| *size <= LARGEST_SIZE));
        match sizes.collect::<Option<Vec<_>>>() {
            Some(sizes) => Ok((name, sizes)),
            None => misuse(format!("input '{name}': no tensor has the sizes {shape:?}")),
        }
    });
    sizes.collect()
}

/// Lends what came out, for as long as the call goes on.
pub(super) fn lend_outputs(
    call: &Call<'_>,
    state: &mut State<'_>,
    outputs: Vec<Named>,
) -> Served<latentd_list> {
    let mut handles: Vec<(latentd_handle, Vec<usize>)> = vec![];
    for Named { content, .. } in &outputs {
        let size = match content {
            Content::Tensor(tensor) => size_of_val(tensor.values()),
            Content::Image(image) => image.pixels.len(),
            Content::Bytes(bytes) => bytes.len(),
        };
        let lease = reserve(call, size)?;
        let handle = objects(state)?.allocate(content.clone(), Some(lease))?;
        handles.push((handle, content.dims()));
    }
    let names: Vec<Box<str>> = outputs.into_iter().map(|output| output.name.into()).collect();
    let told = names.iter().zip(handles).map(|(name, (handle, dims))| {
        let mut shape = [0; 8];
        shape.iter_mut().zip(&dims).for_each(|(place, size)| *place = *size as i64);
        latentd_input { name: text(name), handle, ndim: dims.len() as u32, reserved: 0, shape }
    });
    let told: Vec<latentd_input> = told.collect();
    let list = latentd_list {
        items: told.as_ptr().cast(),
        count: told.len() as u32,
        stride: size_of::<latentd_input>() as u32,
    };
    state.lent.push(Box::new((told, names)));
    Ok(list)
}

/// Lends bytes for as long as the call goes on.
pub(super) fn lend_bytes(state: &mut State<'_>, given: Vec<u8>) -> latentd_bytes {
    let lent = bytes(&given);
    state.lent.push(Box::new(given));
    lent
}
