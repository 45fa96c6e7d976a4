//! ONNX graphs: what a file says of itself, and running it.
//!
//! Files are other people's. [`header`] reads one before anything else does: what it cannot follow, or what would lead out of the
//! file, is refused by name. [`graph`] runs it in a confined process, which [`host`] is and [`remote`] starts, limits and ends.
//! All that goes in and out are plain numbers with their sizes. Nothing here knows the library, plugins, or tensors.

mod array;
mod graph;
mod header;
mod host;
mod messages;
mod remote;
mod segment;
mod wire;

pub(crate) use array::{Array, Failure, Numbers};
pub(crate) use header::{Element, Header, Port, Side, read};
pub(crate) use host::serve;
pub(crate) use remote::{Graph, GraphFile, Limits};
