//! What is in memory: a budget that everything is reserved from, and the networks that are in it.
//!
//! Weights and activations both hold leases, while loading too. A network that nobody draws with is idle: it stays for as
//! long as its room is not needed, and what lies idle never decides whether a job runs. A running job holds one network at
//! a time; the others are as idle as anybody's, and are brought back if they had to go.

mod base;
mod budget;
mod cache;
mod changes;
mod content;
mod expected;
#[cfg(test)]
mod fixture;
mod hypernetworks;
mod keep_alive;
mod kept;
mod known;
mod lent;
mod loading;
mod plan;
mod residents;
mod store;
mod taesd;

pub(crate) use base::Base;
pub(crate) use budget::{Budget, Lease};
pub(crate) use cache::{CacheKey, Cached};
pub(crate) use changes::Changes;
pub(crate) use expected::Expected;
pub(crate) use hypernetworks::HypernetworkWish;
pub(crate) use known::Known;
pub(crate) use lent::{HiresWish, Lent, RefinerWish, Wishes};
pub(crate) use plan::Beside;
pub(crate) use store::Memory;
pub(crate) use taesd::TaesdWish;
