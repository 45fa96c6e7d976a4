//! What prompts say at each step, and what they are composed of, against A1111's parser.

use std::fs::File;

use flate2::read::GzDecoder;
use latentd_models::prompt::{Part, PromptSchedule, Timeline};
use proptest::prelude::*;
use serde::Deserialize;

use crate::golden::fixture;
use crate::hostile_prompts::hostile_prompts;

/// The last of some steps, and what holds until then.
type Schedule = Vec<(usize, String)>;
/// The prompt, base steps, steps of a hires pass, whether old scheduling is used, its parts' weights, and all ways in which
/// each of its parts is read, and it all as a negative prompt: `None` where A1111 fails.
#[derive(Deserialize)]
struct Case(String, usize, Option<usize>, bool, Vec<f64>, Vec<Vec<Option<Schedule>>>);

fn schedule(of: &PromptSchedule) -> Schedule {
    of.entries.iter().map(|entry| (entry.until, of.texts[entry.text].clone())).collect()
}

/// `tests/fixtures/schedules.py` made it. Where its parser's hashing decides, ours must be one of the ways in which it is read.
#[test]
fn prompts_are_read_as_a1111_reads_them() {
    let file = File::open(fixture("golden/schedules.json.gz")).expect("golden file");
    let cases: Vec<Case> = serde_json::from_reader(GzDecoder::new(file)).expect("json");
    let (mut clear, mut unclear) = (0, 0);
    for Case(prompt, steps, hires, is_old, weights, readings) in &cases {
        let timeline = match hires {
            None => Timeline::new(*steps, *is_old),
            Some(hires) => Timeline::of_hires_pass(*steps, *hires, *is_old),
        };
        let mut parts = Part::of_prompt(prompt, &timeline).expect("few");
        let found: Vec<f64> = parts.iter().map(|part| part.weight).collect();
        assert_eq!(&found, weights, "{prompt:?}");
        parts.push(Part::of_negative_prompt(prompt, &timeline).expect("short"));
        assert_eq!(parts.len(), readings.len(), "{prompt:?}");
        for (part, ways) in parts.iter().zip(readings) {
            if ways.len() == 1 {
                clear += 1;
            } else {
                unclear += 1;
            }
            let ours = schedule(&part.schedule);
            // A number of steps without end.
            let is_told = ways.contains(&None) || ways.iter().flatten().any(|way| *way == ours);
            assert!(is_told, "{prompt:?}\n ours {ours:?}\nA1111 {:?}", ways.first());
        }
    }
    println!("{} prompts: {clear} readings, {unclear} with others", cases.len());
    assert!(clear >= 2000 && unclear >= 100, "{clear} {unclear}");
}

/// How long each takes is in `tests/bench/prompts.rs`; none takes for ever, or all of the stack.
#[test]
fn hostile_prompts_are_read() {
    for prompt in hostile_prompts() {
        for timeline in [Timeline::new(1000, false), Timeline::of_hires_pass(20, 20, true)] {
            // Refused or read.
            let _ = (Part::of_prompt(&prompt, &timeline), Part::of_negative_prompt(&prompt, &timeline));
        }
    }
}

proptest! {
    #[test]
    fn any_prompt_is_read(
        prompt in r"([\[\]():|\\# \n]|[0-9.+-]|1e9|a|b|é|\u{3000}| AND |BREAK|:1.5|[a:b:5]|[a|b]){0,40}",
        steps in 1usize..60,
        is_old: bool,
    ) {
        for timeline in [Timeline::new(steps, is_old), Timeline::of_hires_pass(steps, 7, is_old)] {
            let schedule = PromptSchedule::new(&prompt, &timeline).expect("short");
            prop_assert!(!schedule.entries.is_empty());
            prop_assert!(schedule.entries.windows(2).all(|pair| pair[0].until < pair[1].until));
            prop_assert!(schedule.entries.iter().all(|entry| entry.text < schedule.texts.len()));
            // What has no change says itself.
            if !prompt.contains(['[']) {
                prop_assert_eq!(&schedule.texts, std::slice::from_ref(&prompt));
            }
            // What it says at a step changes no more, but where something that was not reached stands now.
            prop_assert_eq!(PromptSchedule::new(&prompt, &timeline).expect("short"), schedule);
        }
    }
}
