//! A1111's emphasis: `(more)`, `[less]`, `(exactly:1.3)`, `\(` for a bracket itself, and `BREAK`.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::python::{float, is_space, words};
use crate::{Error, Result};

/// A stretch of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text and the weight of its tokens.
    Text(String, f64),
    /// The rest begins in a new chunk.
    Break,
}

const MORE: f64 = 1.1;
const LESS: f64 = 1.0 / 1.1;

/// Brackets within this many others weigh nothing: by then a weight has left the range of f32, and each bracket
/// more would cost another pass over all that stands in it.
const DEEPEST: usize = 1000;

/// Splits a prompt into weighted stretches, neighbours of equal weight joined. A bracket without a partner lasts to the
/// end, a closing one without a partner is text. Time is linear in the prompt's length.
///
/// # Errors
/// If what stands in a weight's place is no number, like `1.1.1`.
pub fn parse_emphasis(prompt: &str) -> Result<Vec<Piece>> {
    Ok(parse_placed(prompt)?.into_iter().map(|placed| placed.piece).collect())
}

/// A stretch and where its text stands in the prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub piece: Piece,
    /// Bytes of the prompt, which joined are the piece's text; with where each begins in that.
    parts: Vec<(usize, Range<usize>)>,
}

impl Placed {
    /// Where bytes of the piece's text stand in the prompt.
    pub(super) fn source(&self, bytes: &Range<usize>) -> Range<usize> {
        let Some(last) = bytes.end.checked_sub(1) else { return 0..0 };
        match (self.byte(bytes.start), self.byte(last)) {
            (Some(start), Some(last)) => start..last + 1,
            _ => 0..0,
        }
    }

    fn byte(&self, at: usize) -> Option<usize> {
        let behind = self.parts.partition_point(|(start, _)| *start <= at);
        let (start, part) = self.parts.get(behind.checked_sub(1)?)?;
        Some(part.start + at - start).filter(|byte| part.contains(byte))
    }

    /// All of a prompt, as it is.
    pub(super) fn whole(prompt: &str) -> Self {
        Self { piece: Piece::Text(prompt.to_owned(), 1.0), parts: vec![(0, 0..prompt.len())] }
    }
}

/// [`parse_emphasis`], with places.
///
/// # Errors
/// As there.
pub(super) fn parse_placed(prompt: &str) -> Result<Vec<Placed>> {
    let mut found = Found::default();
    let (mut round, mut square): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let at = prompt.len() - rest.len();
        let length = match first {
            '\\' => {
                let escaped =
                    rest[1..].chars().next().filter(|next| matches!(next, '(' | ')' | '[' | ']' | '\\'));
                let length = escaped.map_or(0, char::len_utf8);
                found.push(at + 1..at + 1 + length, 1.0);
                1 + length
            }
            '(' | '[' => {
                // One that is too deep begins behind all pieces, so that it scales none; its partner still finds it.
                let start =
                    if round.len() + square.len() < DEEPEST { found.weights.len() } else { usize::MAX };
                let open = if first == '(' { &mut round } else { &mut square };
                open.push(start);
                1
            }
            ':' => {
                if let Some((number, length)) = weight_and_bracket(rest) {
                    match round.pop() {
                        Some(start) => found.scale(start, weight(number)?),
                        None => push_text(&mut found, prompt, at..at + length),
                    }
                    length
                } else {
                    push_text(&mut found, prompt, at..at + 1);
                    1
                }
            }
            ')' | ']' => {
                let (open, factor) = if first == ')' { (&mut round, MORE) } else { (&mut square, LESS) };
                match open.pop() {
                    Some(start) => found.scale(start, factor),
                    None => push_text(&mut found, prompt, at..at + 1),
                }
                1
            }
            _ => {
                let length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                push_text(&mut found, prompt, at..at + length);
                length
            }
        };
        rest = &rest[length..];
    }
    for start in round {
        found.scale(start, MORE);
    }
    for start in square {
        found.scale(start, LESS);
    }
    Ok(join(found, prompt))
}

/// Places of texts and their weights, which lie side by side: with many brackets most of the time goes into scaling them.
#[derive(Default)]
struct Found {
    texts: Vec<Range<usize>>,
    weights: Vec<f64>,
}

impl Found {
    fn push(&mut self, text: Range<usize>, weight: f64) {
        self.texts.push(text);
        self.weights.push(weight);
    }

    fn scale(&mut self, start: usize, factor: f64) {
        for weight in self.weights.get_mut(start..).unwrap_or_default() {
            *weight *= factor;
        }
    }
}

/// How A1111 marks a break: as a piece of this text and weight. Brackets around it change the weight, and then the piece
/// is ordinary text.
const BREAK: (&str, f64) = ("BREAK", -1.0);

/// Reads `: 1.3 )`: what stands in the weight's place, and the length of it all. That may be no number.
fn weight_and_bracket(text: &str) -> Option<(&str, usize)> {
    static CLOSING: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"^:[\s\x1c-\x1f]*([+-]?[.\d]+)[\s\x1c-\x1f]*\)").ok());
    let found = CLOSING.as_ref()?.captures(text)?;
    Some((found.get(1)?.as_str(), found.get(0)?.len()))
}

fn weight(number: &str) -> Result<f64> {
    let wrong = || {
        Error::Request(format!(
            "'{number}' in '(…:{number})' is no number; give one such as 1.1, or write \\( and \\) for brackets that are text"
        ))
    };
    float(number).ok_or_else(wrong)
}

/// Adds text of the prompt, cut at each word `BREAK`, whose surrounding space goes with it.
fn push_text(found: &mut Found, prompt: &str, text: Range<usize>) {
    let whole = prompt.get(text.clone()).unwrap_or_default();
    let mut rest = 0;
    for place in words(whole, BREAK.0).chain([whole.len()]) {
        let mut part = whole.get(rest..place).unwrap_or_default();
        let mut start = text.start + rest;
        if rest > 0 {
            let trimmed = part.trim_start_matches(is_space);
            start += part.len() - trimmed.len();
            part = trimmed;
        }
        if place < whole.len() {
            part = part.trim_end_matches(is_space);
            found.push(start..start + part.len(), 1.0);
            let word = text.start + place;
            found.push(word..word + BREAK.0.len(), BREAK.1);
        } else {
            found.push(start..start + part.len(), 1.0);
        }
        rest = place + BREAK.0.len();
    }
}

fn join(found: Found, prompt: &str) -> Vec<Placed> {
    let mut joined: Vec<(Vec<Range<usize>>, f64)> = vec![];
    for (text, weight) in found.texts.into_iter().zip(found.weights) {
        match joined.last_mut() {
            Some((parts, last_weight)) if *last_weight == weight => match parts.last_mut() {
                Some(last) if last.end == text.start => last.end = text.end,
                _ => parts.push(text),
            },
            _ => joined.push((vec![text], weight)),
        }
    }
    if joined.is_empty() {
        joined.push((vec![], 1.0));
    }
    let piece = |(parts, weight): (Vec<Range<usize>>, f64)| {
        let text: String = parts.iter().filter_map(|part| prompt.get(part.clone())).collect();
        let place = |before: &mut usize, part: Range<usize>| {
            let start = *before;
            *before += part.len();
            Some((start, part))
        };
        let parts = parts.into_iter().filter(|part| !part.is_empty()).scan(0, place).collect();
        let piece = if (text.as_str(), weight) == BREAK { Piece::Break } else { Piece::Text(text, weight) };
        Placed { piece, parts }
    };
    joined.into_iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_say_where_they_stand() {
        let prompt = r"a (red\) [cat]:1.5) BREAK é";
        for placed in parse_placed(prompt).expect("read") {
            let text = match &placed.piece {
                Piece::Text(text, _) => text,
                Piece::Break => BREAK.0,
            };
            for (place, character) in text.char_indices() {
                let found = placed.source(&(place..place + character.len_utf8()));
                assert_eq!(prompt.get(found), text.get(place..place + character.len_utf8()), "{text}");
            }
            assert_eq!(placed.source(&(0..0)), 0..0);
            assert_eq!(placed.source(&(0..text.len() + 1)), 0..0, "beyond its end");
        }
    }
}
