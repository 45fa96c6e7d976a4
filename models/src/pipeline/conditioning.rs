//! Prompts to guidance.

use std::sync::Arc;

use super::evaluation::Role;
use super::guidance::{Branch, Guidance, Span};
use crate::Result;
use crate::model::TextEncoder;
use crate::nn::Run;
use crate::prompt::{
    CallSpan, Conditioning, Encoded, Encoding, Part, PromptSchedule, encode, pad_with_empty, pad_with_last,
};
use crate::tensor::Tensor;

/// What an image is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompts {
    /// What is wanted, at least one thing.
    pub wanted: Vec<Wanted>,
    /// What is steered away from.
    pub unwanted: Part,
}

impl Prompts {
    /// What each branch of its guidance is told, and whether that is wanted.
    pub(super) fn schedules(&self) -> impl Iterator<Item = (bool, &PromptSchedule)> {
        let wanted = self.wanted.iter().map(|wanted| (true, &wanted.part.schedule));
        wanted.chain([(false, &self.unwanted.schedule)])
    }
}

/// A thing that is wanted, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub part: Part,
    /// How much it counts, `(rows, columns)` of latents; everywhere if `None`.
    pub mask: Option<Arc<Tensor>>,
}

/// What becomes of an image's conditionings if they differ in length; A1111's options of these names. Those that `AND`
/// composes always become as long as the longest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Padding {
    /// The shorter of what is wanted and what is not gets the encoded empty prompt.
    pub pad_cond_uncond: bool,
    /// What is not wanted gets its last token again and again, or is cut; before the other.
    pub pad_cond_uncond_v0: bool,
}

/// Classifier-free guidance by prompts.
pub(super) fn guidance(
    encoder: &TextEncoder,
    prompts: &Prompts,
    encoding: &Encoding,
    padding: Padding,
    run: &Run,
) -> Result<Guidance> {
    let of = |schedule: &PromptSchedule| encoded(encoder, schedule, encoding, run);
    let mut wanted: Vec<_> =
        prompts.wanted.iter().map(|wanted| of(&wanted.part.schedule)).collect::<Result<_>>()?;
    let mut unwanted = of(&prompts.unwanted.schedule)?;
    let longest = wanted.iter().map(|all| tokens(all)).max().unwrap_or_default();
    let lengths = Lengths { wanted: longest, unwanted: tokens(&unwanted) };
    let empty = encoded_empty(encoder, encoding, lengths, padding, run)?;
    for all in &mut wanted {
        each(all, |one| padded(one, true, lengths, padding, empty.as_deref()))?;
    }
    each(&mut unwanted, |one| padded(one, false, lengths, padding, empty.as_deref()))?;
    let wanted = prompts.wanted.iter().zip(&wanted);
    let branches = wanted
        .map(|(wanted, all)| Branch { mask: wanted.mask.clone(), ..branch(Role::Cond, &wanted.part, all) });
    let unwanted = branch(Role::Uncond, &prompts.unwanted, &unwanted);
    Ok(Guidance { branches: branches.chain([unwanted]).collect(), image_scale: None })
}

/// A prompt's texts, encoded now or before.
fn encoded(
    encoder: &TextEncoder,
    schedule: &PromptSchedule,
    encoding: &Encoding,
    run: &Run,
) -> Result<Vec<Arc<Conditioning>>> {
    let used = encoding.embeddings.digest(&schedule.texts, encoding.reading)?;
    let encoded = Encoded::new(schedule, encoding.reading, used, encoding.clip_skip);
    encoder.cache.get(encoded, || encode(&encoder.clip, schedule, encoding, run))
}

/// Tokens of an image's conditionings, before padding: of the longest of what is wanted, and of what is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths {
    pub wanted: usize,
    pub unwanted: usize,
}

/// The empty prompt, where an image's conditionings are padded with it.
pub(super) fn encoded_empty(
    encoder: &TextEncoder,
    encoding: &Encoding,
    lengths: Lengths,
    padding: Padding,
    run: &Run,
) -> Result<Option<Arc<Conditioning>>> {
    let Padding { pad_cond_uncond, pad_cond_uncond_v0 } = padding;
    if pad_cond_uncond_v0 || !pad_cond_uncond || lengths.wanted == lengths.unwanted {
        return Ok(None);
    }
    let empty = encoded(encoder, &PromptSchedule::of_text(""), encoding, run)?;
    Ok(empty.first().cloned())
}

/// Makes one of an image's conditionings as long as it is to be.
pub(super) fn padded(
    one: &mut Conditioning,
    is_wanted: bool,
    lengths: Lengths,
    padding: Padding,
    empty: Option<&Conditioning>,
) -> Result<()> {
    let Lengths { wanted, unwanted } = lengths;
    if !is_wanted && padding.pad_cond_uncond_v0 && one.tokens.dim(1) > wanted {
        one.tokens = one.tokens.narrow(1, 0, wanted)?;
    }
    if is_wanted || padding.pad_cond_uncond_v0 {
        pad_with_last(one, wanted)?;
    }
    match empty {
        Some(empty) => pad_with_empty(one, wanted.max(unwanted), empty),
        None => Ok(()),
    }
}

fn tokens(all: &[Arc<Conditioning>]) -> usize {
    all.first().map_or(0, |one| one.tokens.dim(1))
}

/// Changes each that `change` changes.
fn each(all: &mut [Arc<Conditioning>], change: impl Fn(&mut Conditioning) -> Result<()>) -> Result<()> {
    for one in all {
        let mut changed = Conditioning::clone(one);
        change(&mut changed)?;
        if changed.tokens.dim(1) != one.tokens.dim(1) {
            *one = Arc::new(changed);
        }
    }
    Ok(())
}

/// A part's conditioning from model call to model call.
fn branch(role: Role, part: &Part, all: &[Arc<Conditioning>]) -> Branch {
    let mut spans: Vec<Span> = vec![];
    for CallSpan { calls, text } in part.schedule.spans(usize::MAX) {
        let (until, Some(conditioning)) = (calls.end, all.get(text)) else { continue };
        match spans.last_mut().filter(|span| Arc::ptr_eq(&span.conditioning, conditioning)) {
            Some(span) => span.until = until,
            None => spans.push(Span { until, conditioning: Arc::clone(conditioning) }),
        }
    }
    Branch { role, weight: part.weight, mask: None, spans }
}
