//! What networks run on: the CPU, unless the environment asks for the fake device of tests.

use std::sync::Arc;

use latentd_models::nn::Device;
use latentd_models::nn::backend::cpu::cpu_on;
use latentd_models::nn::backend::fake::fake;
use rayon::ThreadPool;

/// Names the device: "cpu", or "fake", for tests: the CPU's kernels over memory that nothing else can touch.
const DEVICE: &str = "LATENTD_DEVICE";
/// Bytes of the fake device; 1 GiB if it is not set.
const FAKE_BYTES: &str = "LATENTD_FAKE_BYTES";
/// A section of a network, such as "unet.in.3", in which the fake device fails once.
const FAKE_FAIL: &str = "LATENTD_FAKE_FAIL";

/// The device and the bytes that may be taken of its memory, at most `budget`.
pub(crate) fn open(pool: Arc<ThreadPool>, budget: u64) -> Result<(Device, u64), String> {
    let wanted = text(DEVICE);
    match wanted.as_deref() {
        None | Some("cpu") => Ok((cpu_on(pool), budget)),
        Some("fake") => {
            let bytes = match text(FAKE_BYTES) {
                Some(text) => {
                    text.parse().map_err(|_| format!("{FAKE_BYTES} is '{text}', no number of bytes"))?
                }
                None => 1 << 30,
            };
            let (device, failures) = fake(bytes, Some(pool)).map_err(|error| error.to_string())?;
            if let Some(section) = text(FAKE_FAIL) {
                failures.fail_in(&section);
            }
            Ok((device, budget.min(bytes as u64)))
        }
        Some(other) => Err(format!("{DEVICE} is '{other}'; it may be cpu or fake")),
    }
}

fn text(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}
