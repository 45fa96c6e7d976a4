//! Prompts to guidance.

use std::sync::Arc;

use super::evaluation::Role;
use super::guidance::{Branch, Guidance, Span};
use super::handles::Handles;
use super::stages::{ConditioningStage, Stages};
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
    let of = |schedule: &PromptSchedule| -> Result<Vec<Arc<Conditioning>>> {
        let used = encoding.embeddings.digest(&schedule.texts, encoding.reading)?;
        let encoded = Encoded::new(schedule, encoding.reading, used, encoding.clip_skip);
        encoder.cache.get(encoded, || encode(&encoder.clip, schedule, encoding, run))
    };
    let mut wanted: Vec<_> =
        prompts.wanted.iter().map(|wanted| of(&wanted.part.schedule)).collect::<Result<_>>()?;
    let mut unwanted = of(&prompts.unwanted.schedule)?;
    let longest = wanted.iter().map(|all| tokens(all)).max().unwrap_or_default();
    for all in &mut wanted {
        each(all, |one| pad_with_last(one, longest))?;
    }
    if padding.pad_cond_uncond_v0 {
        each(&mut unwanted, |one| {
            if one.tokens.dim(1) > longest {
                one.tokens = one.tokens.narrow(1, 0, longest)?;
            }
            pad_with_last(one, longest)
        })?;
    } else if padding.pad_cond_uncond && longest != tokens(&unwanted) {
        let length = longest.max(tokens(&unwanted));
        let empty = of(&PromptSchedule::of_text(""))?;
        if let Some(empty) = empty.first() {
            for all in wanted.iter_mut().chain([&mut unwanted]) {
                each(all, |one| pad_with_empty(one, length, empty))?;
            }
        }
    }
    let wanted = prompts.wanted.iter().zip(&wanted);
    let branches = wanted
        .map(|(wanted, all)| Branch { mask: wanted.mask.clone(), ..branch(Role::Cond, &wanted.part, all) });
    let unwanted = branch(Role::Uncond, &prompts.unwanted, &unwanted);
    Ok(Guidance { branches: branches.chain([unwanted]).collect(), image_scale: None })
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

/// Lets somebody change an image's conditioning.
pub(super) fn changed(
    guidance: &mut Guidance,
    image: usize,
    stages: &mut dyn Stages,
    handles: &mut Handles,
) -> Result<()> {
    for (index, branch) in guidance.branches.iter_mut().enumerate() {
        // The same at other calls is changed once.
        let mut known: Vec<(Arc<Conditioning>, Arc<Conditioning>)> = vec![];
        for span in &mut branch.spans {
            let found = known.iter().find(|(before, _)| Arc::ptr_eq(before, &span.conditioning));
            let after = match found {
                Some((_, after)) => Arc::clone(after),
                None => Arc::new(changed_one(&span.conditioning, image, index, stages, handles)?),
            };
            let before = std::mem::replace(&mut span.conditioning, Arc::clone(&after));
            known.push((before, after));
        }
    }
    Ok(())
}

fn changed_one(
    conditioning: &Conditioning,
    image: usize,
    branch: usize,
    stages: &mut dyn Stages,
    handles: &mut Handles,
) -> Result<Conditioning> {
    let Conditioning { tokens, pooled } = conditioning;
    let stage = ConditioningStage {
        image,
        branch,
        tokens: handles.insert(tokens.clone()),
        pooled: pooled.as_ref().map(|pooled: &Tensor| handles.insert(pooled.clone())),
    };
    stages.conditioning(&stage, handles)?;
    let tokens = handles.take(stage.tokens)?;
    let pooled = stage.pooled.map(|pooled| handles.take(pooled)).transpose()?;
    handles.end_call();
    Ok(Conditioning { tokens, pooled })
}
