//! What a method sees of the daemon and of the connection that calls.

mod buffers;
mod daemon;
mod frame;
mod holders;
mod outbox;
mod registry;

pub(super) use buffers::{PIECE, Share};
pub(crate) use daemon::{Daemon, Phase};
pub(super) use frame::Frame;
pub(super) use outbox::Outbox;
pub(super) use registry::Activity;
