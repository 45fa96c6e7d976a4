//! What a method sees of the daemon and of the connection that calls.

mod daemon;
mod outbox;

pub(crate) use daemon::{Daemon, Phase};
pub(super) use outbox::Outbox;
