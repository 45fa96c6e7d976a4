//! The wire: MessagePack-RPC over a local socket. Nothing outside this folder knows it.

mod connection;
mod listen;
mod methods;
mod server;
mod session;

pub(crate) use listen::{SocketFile, listen};
pub(crate) use server::serve;
pub(crate) use session::{Daemon, Phase};
