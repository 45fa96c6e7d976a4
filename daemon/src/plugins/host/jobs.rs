//! What plugins may ask of the job as a whole.

use latentd_plugin_api::abi::{latentd_call, latentd_jobs, latentd_status, latentd_text};

use super::serving::{call_of, on_one_line, read_text, serve};
use crate::plugins::call::{Call, State};

/// Notices of one call.
const MOST_NOTICES: usize = 64;

pub(super) static JOBS: latentd_jobs = latentd_jobs {
    size: size_of::<latentd_jobs>() as u32,
    reserved: 0,
    cancelled: Some(cancelled),
    notice: Some(notice),
};

unsafe extern "C" fn cancelled(call: *mut latentd_call) -> u32 {
    // SAFETY: the plugin names a call; the job may be asked from any thread.
    let call = unsafe { call_of(call) };
    u32::from(call.is_some_and(|call| call.job.is_cancelled()))
}

unsafe extern "C" fn notice(call: *mut latentd_call, text: latentd_text) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a text.
        let text = on_one_line(&unsafe { read_text(text) });
        if !text.is_empty() && !state.notices.contains(&text) && state.notices.len() < MOST_NOTICES {
            state.notices.push(text);
        }
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}
