//! The methods, one file per group. Each is a typed function; its schemas are derived from its types.

// All methods have one shape, also those that cannot fail.
#![allow(clippy::unnecessary_wraps, clippy::trivially_copy_pass_by_ref)]

mod jobs;
mod library;
mod models;
mod row;
mod server;
mod txt2img;

pub(super) use row::{Methods, Reply, Run, Session, failed};

/// All methods.
pub(super) fn all() -> Methods {
    let groups =
        [server::methods(), txt2img::methods(), jobs::methods(), library::methods(), models::methods()];
    Methods::new(groups.into_iter().flatten())
}
