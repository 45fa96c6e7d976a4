//! What it takes to read prompts, the worst that we know among them: `cargo bench -p latentd-models --bench prompts`.
#![allow(clippy::print_stdout, reason = "the times are what it is for")]

#[path = "../parity/hostile_prompts.rs"]
mod hostile_prompts;

use std::hint::black_box;
use std::time::{Duration, Instant};

use latentd_models::prompt::{
    Embeddings, Part, Reading, Timeline, Wording, doubts, doubts_of_text, shown_chunks,
};

const RUNS: usize = 7;

/// The median of some runs.
fn time<T>(work: impl Fn() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            black_box(work());
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn main() {
    let (reading, embeddings) = (Reading::default(), Embeddings::default());
    let ordinary = "a [red:blue:0.5] fox in the [snow|rain], (sharp focus:1.2), masterpiece <lora:x:0.5>, ";
    let mut prompts = vec![ordinary.repeat(4096 / ordinary.len()), ordinary.repeat(65536 / ordinary.len())];
    prompts.extend(hostile_prompts::hostile_prompts());
    let mut slowest = (Duration::ZERO, String::new());
    println!(
        "{:>6}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
        "bytes", "wording", "20 steps", "1000", "shown", "doubts"
    );
    for prompt in prompts {
        let schedule = |steps| {
            let timeline = Timeline::new(steps, false);
            time(|| (Part::of_prompt(&prompt, &timeline), Part::of_negative_prompt(&prompt, &timeline))) / 2
        };
        let times = [
            time(|| Wording::of_prompt(&prompt)),
            schedule(20),
            schedule(1000),
            time(|| shown_chunks(&prompt, &embeddings, &reading)),
            time(|| (doubts(&prompt, reading.emphasis), doubts_of_text(&prompt, &reading))),
        ];
        let shown: String = prompt.chars().take(40).collect();
        let row: Vec<String> = times.iter().map(|time| format!("{:8.2}", time.as_secs_f64() * 1e3)).collect();
        println!("{:>6}  {}  {shown:?}", prompt.len(), row.join("  "));
        let longest = times.into_iter().max().unwrap_or_default();
        if longest > slowest.0 {
            slowest = (longest, shown);
        }
    }
    println!("the slowest takes {:.1?}: {:?}", slowest.0, slowest.1);
}
