//! A prompt that is several: `a cat AND a dog :0.5`.

use super::schedule::{PromptSchedule, Timeline};
use super::weight::split_weight;
use crate::python::words;
use crate::{Error, Result};

/// One of the things that a prompt asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What the guidance scale is multiplied by for it.
    pub weight: f64,
    /// What it says at each step.
    pub schedule: PromptSchedule,
}

impl Part {
    /// More would only be drawn in hours: each takes the UNet once more a step.
    pub const MOST: usize = 100;

    /// What a prompt asks for: what stands between the words `AND`, each with a weight of its own.
    pub fn of_prompt(prompt: &str, timeline: &Timeline) -> Result<Vec<Self>> {
        let all: Vec<&str> = Self::split(prompt).collect();
        if all.len() > Self::MOST {
            return Err(Error::Request(format!(
                "the prompt is composed of {} parts by AND; up to {} can be drawn together",
                all.len(),
                Self::MOST
            )));
        }
        let part = |text| {
            let (text, weight) = split_weight(text);
            Ok(Self { weight, schedule: PromptSchedule::new(text, timeline)? })
        };
        all.into_iter().map(part).collect()
    }

    /// What a prompt steers away from. It is one thing: `AND` and a weight are words there.
    pub fn of_negative_prompt(prompt: &str, timeline: &Timeline) -> Result<Self> {
        Ok(Self { weight: 1.0, schedule: PromptSchedule::new(prompt, timeline)? })
    }

    /// What stands before, between and behind the words `AND` of a prompt, also those within brackets.
    pub fn split(prompt: &str) -> impl Iterator<Item = &str> {
        const AND: &str = "AND";
        let mut start = 0;
        words(prompt, AND).chain([prompt.len()]).map(move |place| {
            let part = prompt.get(start..place).unwrap_or_default();
            start = place + AND.len();
            part
        })
    }
}
