//! The methods, one file per group. Each is a typed function; its schemas are derived from its types.

// All methods have one shape, also those that cannot fail.
#![allow(clippy::unnecessary_wraps, clippy::trivially_copy_pass_by_ref)]

mod digest;
mod job;
mod jobs;
mod library;
mod models;
mod row;
mod server;

use crate::tasks::Txt2Img;
pub(super) use row::{Methods, Reply, Run, Session};

/// All methods.
pub(super) fn all() -> Methods {
    let submittable = vec![job::job::<Txt2Img>()];
    let jobs = jobs::methods(&submittable);
    let groups = [server::methods(), submittable, jobs, library::methods(), models::methods()];
    Methods::new(groups.into_iter().flatten())
}
