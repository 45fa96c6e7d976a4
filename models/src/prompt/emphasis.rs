//! A1111's emphasis: `(more)`, `[less]`, `(exactly:1.3)`, `\(` for a bracket itself, and `BREAK`.

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
    let mut found = Found::default();
    let (mut round, mut square): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\\' => {
                let escaped =
                    rest[1..].chars().next().filter(|next| matches!(next, '(' | ')' | '[' | ']' | '\\'));
                found.push(escaped.map(String::from).unwrap_or_default(), 1.0);
                1 + escaped.map_or(0, char::len_utf8)
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
                        None => push_text(&mut found, &rest[..length]),
                    }
                    length
                } else {
                    push_text(&mut found, ":");
                    1
                }
            }
            ')' | ']' => {
                let (open, factor) = if first == ')' { (&mut round, MORE) } else { (&mut square, LESS) };
                match open.pop() {
                    Some(start) => found.scale(start, factor),
                    None => push_text(&mut found, &rest[..1]),
                }
                1
            }
            _ => {
                let length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                push_text(&mut found, &rest[..length]);
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
    Ok(join(found))
}

/// Texts and their weights, which lie side by side: with many brackets most of the time goes into scaling them.
#[derive(Default)]
struct Found {
    texts: Vec<String>,
    weights: Vec<f64>,
}

impl Found {
    fn push(&mut self, text: String, weight: f64) {
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

/// Adds text, cut at each word `BREAK`, whose surrounding space goes with it.
fn push_text(found: &mut Found, text: &str) {
    let mut rest = 0;
    for place in words(text, BREAK.0).chain([text.len()]) {
        let mut part = text.get(rest..place).unwrap_or_default();
        if rest > 0 {
            part = part.trim_start_matches(is_space);
        }
        if place < text.len() {
            found.push(part.trim_end_matches(is_space).to_owned(), 1.0);
            found.push(BREAK.0.to_owned(), BREAK.1);
        } else {
            found.push(part.to_owned(), 1.0);
        }
        rest = place + BREAK.0.len();
    }
}

fn join(found: Found) -> Vec<Piece> {
    let mut joined: Vec<(String, f64)> = vec![];
    for (text, weight) in found.texts.into_iter().zip(found.weights) {
        match joined.last_mut() {
            Some((last, last_weight)) if *last_weight == weight => last.push_str(&text),
            _ => joined.push((text, weight)),
        }
    }
    if joined.is_empty() {
        joined.push((String::new(), 1.0));
    }
    let piece = |(text, weight): (String, f64)| {
        if (text.as_str(), weight) == BREAK { Piece::Break } else { Piece::Text(text, weight) }
    };
    joined.into_iter().map(piece).collect()
}
