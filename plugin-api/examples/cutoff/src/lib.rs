//! cutoff: keeps words to the part of the prompt that they stand in, so that "a red cube, a blue ball" is no blue cube.
//!
//! ```sh
//! cargo build --release
//! mkdir -p ~/.local/share/latentd/plugins && cp target/release/libcutoff.so ~/.local/share/latentd/plugins/
//! ```
//!
//! The method of hnmr293's extension of that name. A prompt's parts stand between its commas. Let c be its context, one vector per
//! token; C(b) the context of the prompt in which each token of a target is the padding, in all parts but b; C(·) likewise in all
//! parts. Then
//!
//! ```text
//! c'(t) = mix(c(t), C(b)(t), weight)    t in a part b that has a target
//! c'(t) = mix(c(t), C(·)(t), weight)    any other t, commas, begin and end among them, if strong; else c(t)
//! lerp: mix(u, v, w) = u + w · (v − u)
//! slerp: mix(u, v, w) = sin((1 − w) · θ) / sin θ · u + sin(w · θ) / sin θ · v,  cos θ = u · v / (|u| · |v|); lerp if |cos θ| > 0.9995
//! ```
//!
//! Emphasis stays with the places of tokens. Unlike there, each context is encoded by itself: its mean is restored alone. A target
//! is found as it is written, not within a longer word.

#![deny(unsafe_code)]

use std::ops::Range;

use latentd_plugin_api::{Call, Cond, Conditioning, Conds, Error, Job, Plugin, Result, Role, Token, export};
use serde::Deserialize;

/// The part of tokens that are of none: commas, begin, end.
const NONE: usize = usize::MAX;

#[derive(Deserialize)]
struct Cutoff {
    targets: Vec<String>,
    weight: f64,
    interpolation: Interpolation,
    strong: bool,
    disable_neg: bool,
    padding: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Interpolation {
    Lerp,
    Slerp,
}

impl Plugin for Cutoff {
    fn new(job: &Job<'_>) -> Result<Self> {
        job.params()
    }
}

impl Conditioning for Cutoff {
    fn conditioning(&self, stage: &Conds<'_>) -> Result<()> {
        let wanted = |cond: &&Cond<'_>| cond.role == Role::Cond || (cond.role == Role::Uncond && !self.disable_neg);
        if self.targets.iter().all(|target| target.trim().is_empty()) {
            return Ok(());
        }
        let padding = self.padding(&stage.call)?;
        for cond in stage.conds().iter().filter(wanted) {
            stage.call.check()?;
            self.change(cond, &padding)?;
        }
        Ok(())
    }
}

impl Cutoff {
    /// What stands in for a token of a target.
    fn padding(&self, call: &Call<'_>) -> Result<Token> {
        // Begin, the token, end.
        let tokens = call.tokenise(&self.padding)?;
        let mut own = tokens.into_iter().filter(|token| !token.bytes.is_empty());
        match (own.next(), own.next()) {
            (Some(token), None) => Ok(token),
            _ => Err(Error::invalid(format!("padding '{}' is not one token, as _ is", self.padding))),
        }
    }

    fn change(&self, cond: &Cond<'_>, padding: &Token) -> Result<()> {
        let prompt = Prompt::new(cond, &self.targets);
        let active = prompt.active();
        if active.is_empty() {
            return Ok(());
        }
        let (count, context) = (cond.context.dims()?[1], cond.context.read()?);
        let width = context.len() / count.max(1);
        let mut new = cond.context.like()?;
        new.values_mut().copy_from_slice(context);
        let kept = active.iter().copied().map(Some).chain(self.strong.then_some(None));
        for kept in kept {
            let tokens = prompt.without(&cond.tokens, kept, padding);
            if tokens == cond.tokens {
                // Nothing of it stands elsewhere.
                continue;
            }
            let other = cond.encode(&tokens)?.context.read()?;
            for (place, part) in prompt.parts.iter().enumerate() {
                let is_its = match kept {
                    Some(kept) => *part == kept,
                    None => !active.contains(part),
                };
                let at = place * width..(place + 1) * width;
                if let (true, Some(from), Some(to), Some(new)) =
                    (is_its, context.get(at.clone()), other.get(at.clone()), new.values_mut().get_mut(at))
                {
                    self.mix(from, to, new);
                }
            }
        }
        cond.replace(new)
    }

    /// Between two tokens' states.
    fn mix(&self, from: &[f32], to: &[f32], new: &mut [f32]) {
        let w = self.weight;
        let (a, b) = match self.interpolation {
            Interpolation::Lerp => (1.0 - w, w),
            Interpolation::Slerp => arc(from, to, w),
        };
        for ((new, from), to) in new.iter_mut().zip(from).zip(to) {
            *new = (a * f64::from(*from) + b * f64::from(*to)) as f32;
        }
    }
}

/// What both ends count on the arc between them.
fn arc(from: &[f32], to: &[f32], w: f64) -> (f64, f64) {
    let dot = |u: &[f32], v: &[f32]| u.iter().zip(v).map(|(u, v)| f64::from(*u) * f64::from(*v)).sum::<f64>();
    let cos = dot(from, to) / (dot(from, from).sqrt() * dot(to, to).sqrt());
    if cos.is_finite() && cos.abs() <= 0.9995 {
        let angle = cos.acos();
        (((1.0 - w) * angle).sin() / angle.sin(), (w * angle).sin() / angle.sin())
    } else {
        (1.0 - w, w)
    }
}

/// Where a prompt's tokens stand.
struct Prompt {
    /// Of each token, counted from 0.
    parts: Vec<usize>,
    /// Whether each is of a target.
    targets: Vec<bool>,
}

impl Prompt {
    fn new(cond: &Cond<'_>, targets: &[String]) -> Self {
        let places: Vec<Range<usize>> =
            targets.iter().flat_map(|target| occurrences(cond.prompt, target.trim())).collect();
        let commas: Vec<usize> = cond.prompt.match_indices(',').map(|(place, _)| place).collect();
        let part = |token: &Token| {
            let text = cond.prompt.get(token.bytes.clone()).unwrap_or_default();
            if text.is_empty() || text == "," {
                return NONE;
            }
            commas.partition_point(|comma| *comma < token.bytes.start)
        };
        let is_target = |token: &Token| {
            let bytes = &token.bytes;
            !bytes.is_empty() && places.iter().any(|place| bytes.start < place.end && bytes.end > place.start)
        };
        Self {
            parts: cond.tokens.iter().map(part).collect(),
            targets: cond.tokens.iter().map(is_target).collect(),
        }
    }

    /// Parts that have a target.
    fn active(&self) -> Vec<usize> {
        let all = self.parts.iter().zip(&self.targets);
        let mut parts: Vec<usize> =
            all.filter(|(part, is_target)| **is_target && **part != NONE).map(|(part, _)| *part).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// The tokens with padding for targets, in all parts but one.
    fn without(&self, tokens: &[Token], kept: Option<usize>, padding: &Token) -> Vec<Token> {
        let all = tokens.iter().zip(&self.parts).zip(&self.targets);
        let token = |((token, part), is_target): ((&Token, &usize), &bool)| {
            if !*is_target || kept == Some(*part) {
                return token.clone();
            }
            Token { id: padding.id, embedding: padding.embedding, ..token.clone() }
        };
        all.map(token).collect()
    }
}

/// Where a target stands in a text, not within a longer word.
fn occurrences<'a>(text: &'a str, target: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let places = text.match_indices(target).filter(move |_| !target.is_empty());
    places.map(|(place, found)| place..place + found.len()).filter(move |place| {
        let joins = |outer: Option<char>, inner: Option<char>| outer.is_some_and(is_word) && inner.is_some_and(is_word);
        let before = text.get(..place.start).and_then(|text| text.chars().next_back());
        let after = text.get(place.end..).and_then(|text| text.chars().next());
        !joins(before, target.chars().next()) && !joins(after, target.chars().next_back())
    })
}

export!(Cutoff, "../cutoff.toml", [Conditioning]);
