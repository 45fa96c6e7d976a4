//! ONNX graphs: what a file says of itself, and running it.
//!
//! Files are other people's. [`header`] reads one before anything else does: what it cannot follow, or what would lead out of the
//! file, is refused by name. [`graph`] runs it. All that goes in and out are plain numbers with their sizes, so that this may
//! stand in another process. Nothing here knows the library, plugins, or tensors.
//!
//! Not bounded here is what a graph computes on the way: a file can ask for more than there is.

mod graph;
mod header;
mod wire;

pub(crate) use graph::{Array, Failure, Graph, Numbers};
pub(crate) use header::{Element, Header, Port, Side, read};
