//! A prompt's own weight: `a cat :1.5`.

use crate::python::{digit, float, is_space};

/// The prompt without the weight at its end, and that weight, which the guidance scale is multiplied by; 1 if there is
/// none. Only what is wanted has one.
pub fn split_weight(prompt: &str) -> (&str, f64) {
    let prompt = prompt.trim_end_matches(is_space);
    let before = prompt.trim_end_matches(|c| c == '.' || digit(c).is_some());
    let before = before.strip_suffix(['+', '-']).unwrap_or(before);
    let number = prompt.get(before.len()..).and_then(float);
    let text = before.trim_end_matches(is_space).strip_suffix(':');
    match (text, number) {
        (Some(text), Some(weight)) => (text.trim_end_matches(is_space), weight),
        _ => (prompt, 1.0),
    }
}
