//! The codes that functions answer with, as people read them.

use latentd_plugin_api::abi::{
    LATENTD_BUSY, LATENTD_CANCELLED, LATENTD_DEADLINE, LATENTD_FAILED, LATENTD_INVALID, LATENTD_MEMORY,
    LATENTD_MISUSE, LATENTD_MODEL, LATENTD_NOT_FOUND, LATENTD_OK, LATENTD_SKIP, LATENTD_UNSUPPORTED,
};

/// What a plugin answered that said nothing else.
pub(super) fn name_of(status: u32) -> String {
    let name = match status {
        LATENTD_OK => "OK",
        LATENTD_SKIP => "SKIP",
        LATENTD_CANCELLED => "CANCELLED",
        LATENTD_INVALID => "INVALID",
        LATENTD_NOT_FOUND => "NOT_FOUND",
        LATENTD_MEMORY => "MEMORY",
        LATENTD_UNSUPPORTED => "UNSUPPORTED",
        LATENTD_BUSY => "BUSY",
        LATENTD_MODEL => "MODEL",
        LATENTD_FAILED => "FAILED",
        LATENTD_DEADLINE => "DEADLINE",
        LATENTD_MISUSE => "MISUSE",
        other => return format!("status {other}, which is none"),
    };
    format!("{name} and said no more")
}
