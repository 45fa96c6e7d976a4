//! How long a round trip to the daemon takes: `cargo run --release --example ping`

use std::error::Error;
use std::time::Instant;

use latentd_client::blocking::Client;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let mut client = Client::connect(None)?;
    let mut times = Vec::new();
    for _ in 0..10_000 {
        let start = Instant::now();
        client.ping()?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!("p50 {:?}  p99 {:?}", at(0.5), at(0.99));
    Ok(())
}
