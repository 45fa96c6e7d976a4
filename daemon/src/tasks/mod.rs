//! What jobs do: from a request's parameters to a [`Task`] in which everything is settled, and from there to a result.
//!
//! A method whose requests become jobs is one file here, and one row of `rpc/methods`. Nothing here knows the wire,
//! the queue, or who watches.

mod device;
mod hooks;
mod names;
mod output;
mod studio;
mod task;
mod txt2img;

pub(crate) use device::{Device, DeviceId};
pub(crate) use studio::Studio;
pub(crate) use task::{JobMethod, Request, Run, Task, Watch};
pub(crate) use txt2img::Txt2Img;
