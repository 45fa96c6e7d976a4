//! Plugins in processes of their own: the same library, the same ABI, with a socket and shared memory between the two.
//!
//! Both ends are ordinary neighbours of the ABI. To the host a child is a plugin whose functions ([`remote`]) have the real ones
//! called; to the library the child is a host whose services ([`guest_tables`], [`asks`]) ask the real one. What lies between
//! is published, `plugin-api/PROTOCOL.md`: [`messages`] of [`frames`], structs as maps ([`coding`], [`structs`]), numbers in
//! shared memory ([`segment`], [`mapping`]). [`pool`] starts children ([`child`], [`process`]), keeps them for the next job, and sets plugins aside that
//! end too often. [`guest`] is what runs in the child: [`called`] finds the
//! function that is meant, [`asking`] has the host asked.

mod asking;
mod asks;
mod called;
mod child;
mod coding;
mod frames;
mod guest;
mod guest_call;
mod guest_tables;
mod mapping;
mod messages;
mod pool;
mod process;
mod remote;
mod segment;
mod structs;

pub(crate) use guest::run as run_guest;
pub(in crate::plugins) use pool::Remote;
pub(in crate::plugins) use remote::tables;
