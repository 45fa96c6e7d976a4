//! Pictures, and the text in them.
#![no_main]

use std::sync::Once;

#[path = "../readers.rs"]
#[allow(dead_code)]
mod readers;

static QUIET: Once = Once::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A decoder of somebody else's that panics is caught, and no find; the fuzzer's own hook would end the process before.
    // What is not caught ends it all the same.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    readers::pictures(bytes);
});
