//! What a prompt says at each step.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use super::changes::{Change, Changes, Kind};
use crate::{Error, Result};

/// What the numbers in `[from:to:when]` count in. Steps are the sampler's model calls as A1111 foresees them: twice as many
/// as were asked for where a sampler is of second order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeline {
    steps: i64,
    /// What a number of steps is counted from.
    first_step: i64,
    /// What a share is counted from.
    first_share: f64,
    /// Whether below 1 is a share and all else a step, as it was before 1.6.
    is_old: bool,
}

impl Timeline {
    /// Of a pass of its own.
    pub fn new(steps: usize, use_old_scheduling: bool) -> Self {
        Self { steps: steps as i64, first_step: 0, first_share: 0.0, is_old: use_old_scheduling }
    }

    /// Of the second pass of a hires fix, of `steps`, behind one of `base_steps`: shares there go from 1 to 2.
    pub fn of_hires_pass(base_steps: usize, steps: usize, use_old_scheduling: bool) -> Self {
        if use_old_scheduling {
            // A1111 goes by the steps of the first pass then.
            return Self::new(base_steps, true);
        }
        Self { first_step: base_steps as i64, first_share: 1.0, ..Self::new(steps, false) }
    }

    /// The last step before a change.
    fn step(&self, number: &str) -> i64 {
        let value: f64 = number.parse().unwrap_or_default();
        let step = match (self.is_old, number.contains('.')) {
            (true, _) if value < 1.0 => value * self.steps as f64,
            (true, _) => value,
            (false, true) => (value - self.first_share) * self.steps as f64,
            (false, false) => value - self.first_step as f64,
        };
        self.steps.min(step as i64)
    }
}

/// A prompt's texts and when each of them counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptSchedule {
    /// Each that differs, once, in the order of their first use; at least one.
    pub texts: Vec<String>,
    /// In the order of their ends; at least one.
    pub entries: Vec<ScheduleEntry>,
}

/// A stretch of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// The last of the steps, counted from 1.
    pub until: usize,
    /// The place of what counts then in [`PromptSchedule::texts`].
    pub text: usize,
}

/// Model calls that are told one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSpan {
    /// Counted from 0.
    pub calls: Range<usize>,
    /// The place of the text in [`PromptSchedule::texts`].
    pub text: usize,
}

impl PromptSchedule {
    /// Characters of all texts together, beside those of the first: encoding more would take hours.
    const MOST: usize = 2_000_000;
    /// Changes that are looked at over all steps that differ: nobody waits long for a prompt to be read.
    const MOST_CHANGES: usize = 1_000_000;

    /// What a prompt says at each step.
    ///
    /// # Errors
    /// If it becomes more text than anyone could have encoded.
    pub fn new(prompt: &str, timeline: &Timeline) -> Result<Self> {
        let changes = Changes::of(prompt);
        // The last step before each change; 0 for turns.
        let whens: Vec<i64> = changes
            .found()
            .iter()
            .map(|change| match &change.kind {
                Kind::Schedule { when, .. } => timeline.step(changes.written(when)),
                Kind::Turns(_) => 0,
            })
            .collect();
        let mut ends: Vec<i64> = whens.iter().copied().filter(|step| *step >= 1).collect();
        ends.sort_unstable();
        ends.dedup();
        let changed_at = ends.clone();
        ends.push(timeline.steps);
        if changes.found().iter().any(|change| matches!(change.kind, Kind::Turns(_))) {
            ends.extend(1..=timeline.steps);
        }
        ends.sort_unstable();
        ends.dedup();
        let mut schedule = Self { texts: vec![], entries: vec![] };
        let hasher = RandomState::new();
        let mut known: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut characters = 0;
        let period = period(changes.found(), timeline.steps);
        // Places of texts by what they depend on.
        let mut states: HashMap<(usize, i64), usize> = HashMap::new();
        for end in ends {
            let state = (changed_at.partition_point(|when| *when < end), (end - 1) % period);
            if let Some(place) = states.get(&state) {
                schedule.entries.push(ScheduleEntry { until: end as usize, text: *place });
                continue;
            }
            if states.len() > 1 && states.len() * changes.found().len() > Self::MOST_CHANGES {
                return Err(Error::Request(format!(
                    "the prompt has {} changes and turns in {} different states from step to step; take some out of it, \
                     or draw in fewer steps",
                    changes.found().len(),
                    states.len()
                )));
            }
            let text = changes.stretches(|index, change| chosen(change, whens.get(index), end)).concat();
            let alike = known.entry(hasher.hash_one(&text)).or_default();
            let found = alike.iter().copied().find(|place| schedule.texts.get(*place) == Some(&text));
            let place = found.unwrap_or(schedule.texts.len());
            if found.is_none() {
                characters += if place == 0 { 0 } else { text.len() };
                if characters > Self::MOST {
                    return Err(Error::Request(format!(
                        "the prompt becomes more than {} different texts of {} characters from step to step; take \
                         turns and changes out of it, or shorten it",
                        schedule.texts.len(),
                        text.len()
                    )));
                }
                alike.push(place);
                schedule.texts.push(text);
            }
            states.insert(state, place);
            schedule.entries.push(ScheduleEntry { until: end as usize, text: place });
        }
        Ok(schedule)
    }

    /// The same text at all steps.
    pub fn of_text(text: &str) -> Self {
        Self { texts: vec![text.to_owned()], entries: vec![ScheduleEntry { until: 1, text: 0 }] }
    }

    /// What the model is told in so many calls, at least one; neighbours differ in their texts. As in A1111 a text holds up to the
    /// call that has its last step's number, counted from 0, so one call longer than that says; and a sampler that makes more
    /// calls than were foreseen has the first text again.
    pub fn spans(&self, calls: usize) -> Vec<CallSpan> {
        let first = self.entries.first().map_or(0, |entry| entry.text);
        let entries = self.entries.iter().map(|entry| (entry.until.saturating_add(1), entry.text));
        let mut spans: Vec<CallSpan> = vec![];
        let mut start = 0;
        for (until, text) in entries.chain([(usize::MAX, first)]) {
            let until = until.min(calls);
            match spans.last_mut().filter(|span| span.text == text) {
                Some(span) => span.calls.end = until,
                None if start < until => spans.push(CallSpan { calls: start..until, text }),
                None => (),
            }
            start = until;
        }
        spans
    }

    /// How many entries have each text; 1 if there is one only, which is the same to whoever weighs them.
    pub fn counts(&self) -> Vec<usize> {
        if self.texts.len() == 1 {
            return vec![1];
        }
        let count = |text| self.entries.iter().filter(|entry| entry.text == text).count();
        (0..self.texts.len()).map(count).collect()
    }
}

/// After how many steps all turns begin anew: the least multiple of their lengths, or `steps` if that is less.
fn period(changes: &[Change], steps: i64) -> i64 {
    let divisor = |mut a: i64, mut b: i64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut period = 1;
    for change in changes {
        let Kind::Turns(texts) = &change.kind else { continue };
        let turns = texts.len().max(1) as i64;
        period = period / divisor(period, turns) * turns;
        if period >= steps {
            return steps.max(1);
        }
    }
    period
}

/// Which of a change's texts counts at a step; `when` is the last step before it.
fn chosen(change: &Change, when: Option<&i64>, step: i64) -> Range<usize> {
    match &change.kind {
        Kind::Schedule { before, after, .. } => {
            if when.is_some_and(|when| step <= *when) {
                before.clone()
            } else {
                after.clone()
            }
        }
        Kind::Turns(texts) => {
            let turn = (step - 1).rem_euclid(texts.len().max(1) as i64) as usize;
            texts.get(turn).cloned().unwrap_or(change.place.end..change.place.end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_begin_anew() {
        let of = |prompt: &str, steps| period(Changes::of(prompt).found(), steps);
        assert_eq!(of("a [b:c:3]", 20), 1);
        assert_eq!(of("[a|b] [a|b|c] [a|b|c|d]", 20), 12);
        assert_eq!(of("[a|b|c|d] [a|b|c|d|e] [a|b|c]", 20), 20);
        let schedule = PromptSchedule::new("[a|b] [x:y:3]", &Timeline::new(8, false)).expect("short");
        assert_eq!(schedule.texts, ["a x", "b x", "b y", "a y"]);
        let texts: Vec<usize> = schedule.entries.iter().map(|entry| entry.text).collect();
        assert_eq!(texts, [0, 1, 0, 2, 3, 2, 3, 2]);
    }

    #[test]
    fn a_text_holds_one_call_longer_than_its_steps() {
        for (prompt, steps, calls, expected) in [
            ("a [red:blue:2] circle", 3, 3, &[(0..3, 0)][..]),
            ("[red:blue:2]", 4, 4, &[(0..3, 0), (3..4, 1)]),
            ("[red:blue:0.25]", 20, 20, &[(0..6, 0), (6..20, 1)]),
            ("[red|blue]", 2, 2, &[(0..2, 0)]),
            ("[red|blue]", 4, 4, &[(0..2, 0), (2..3, 1), (3..4, 0)]),
            ("[red:red:2]", 4, 4, &[(0..4, 0)]),
            ("[red:blue:0]", 4, 4, &[(0..4, 0)]),
            // More calls than were foreseen.
            ("[red:blue:2]", 4, 9, &[(0..3, 0), (3..5, 1), (5..9, 0)]),
            ("red", 4, 9, &[(0..9, 0)]),
        ] {
            let schedule = PromptSchedule::new(prompt, &Timeline::new(steps, false)).expect("short");
            let spans = schedule.spans(calls).into_iter().map(|span| (span.calls, span.text));
            assert_eq!(spans.collect::<Vec<_>>(), expected, "{prompt} in {calls} calls");
        }
        assert_eq!(
            PromptSchedule::of_text("a").spans(usize::MAX),
            [CallSpan { calls: 0..usize::MAX, text: 0 }]
        );
    }

    #[test]
    fn what_takes_too_long_is_refused() {
        let prompt = "[|a][||a][||||a][||||||a][||||||||||a]".repeat(1000);
        assert!(PromptSchedule::new(&prompt, &Timeline::new(20, false)).is_ok());
        let error = PromptSchedule::new(&prompt, &Timeline::new(1000, false)).expect_err("refused");
        assert!(error.to_string().contains("5000 changes and turns"), "{error}");
        let prompt = "[a|b][||]".repeat(7000);
        assert_eq!(PromptSchedule::new(&prompt, &Timeline::new(1000, false)).expect("few").texts.len(), 2);
    }
}
