//! The methods, one file per group. Each is a typed function; its schemas are derived from its types.

// All methods have one shape, also those that cannot fail.
#![allow(clippy::unnecessary_wraps, clippy::trivially_copy_pass_by_ref, clippy::needless_pass_by_value)]

mod digest;
mod job;
mod jobs;
mod library;
mod models;
mod plugin_calls;
mod plugins;
mod row;
mod server;
mod styles;
mod value;

use crate::tasks::{self, Img2Img, Merge, Outpaint, Txt2Img, Upscale};
pub(super) use row::{Answered, Methods, Run, Session};

/// All methods.
pub(super) fn all() -> Methods {
    let submittable = vec![
        job::job::<Txt2Img>(),
        job::job::<Img2Img>(),
        job::job::<Outpaint>(),
        job::job::<Upscale>(),
        job::job::<Merge>(),
    ];
    let jobs = jobs::methods(&submittable);
    let quick = vec![
        row::quick(
            "image.info",
            |daemon| &daemon.lookers,
            |session, params| tasks::image_info(params, &session.daemon.studio),
        ),
        row::quick(
            "prompt.tokens",
            |daemon| &daemon.lookers,
            |session, params| tasks::prompt_tokens(params, &session.daemon.studio),
        ),
        row::quick(
            "blobs.put",
            |daemon| &daemon.lookers,
            |session, params| tasks::put_blob(params, &session.daemon.studio),
        ),
    ];
    let groups = [
        server::methods(),
        submittable,
        quick,
        jobs,
        library::methods(),
        models::methods(),
        plugins::methods(),
        styles::methods(),
    ];
    Methods::new(groups.into_iter().flatten(), plugin_calls::method())
}
