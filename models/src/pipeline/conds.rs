//! What images are told, for those who change it, while the text encoder is there.

use std::cell::RefCell;
use std::sync::Arc;

use super::conditioning::{Lengths, Padding, Prompts, encoded_empty, padded};
use super::guidance::{Branch, Guidance};
use super::stages::{Cond, ConditioningStage, Stages, TextEncoding};
use crate::model::TextEncoder;
use crate::nn::Run;
use crate::prompt::{CHUNK_TOKENS, Chunk, Conditioning, Encoding, Variant, chunks, encode_with, states};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Chunks whose states are kept while a stage encodes texts that are mostly alike.
const KEPT: usize = 32;

/// How prompts are encoded.
#[derive(Clone, Copy)]
pub(super) struct With<'a> {
    pub encoder: &'a TextEncoder,
    pub encoding: &'a Encoding<'a>,
    pub padding: Padding,
    pub run: &'a Run<'a>,
}

/// Lets somebody change what images, from `first` on, are told; each by its prompts. What was encoded is not written to, since
/// others are told the same: what is new takes its place.
pub(super) fn changed(
    guidance: &mut [Guidance],
    first: usize,
    prompts: &[Arc<Prompts>],
    with: With,
    stages: &mut dyn Stages,
) -> Result<()> {
    let mut told = Told { with, of: vec![], known: RefCell::default() };
    let mut conds = vec![];
    let mut read: Vec<(&Arc<Prompts>, OfImage)> = vec![];
    for (image, (guidance, prompts)) in guidance.iter().zip(prompts).enumerate() {
        let known = read.iter().find(|(known, _)| Arc::ptr_eq(known, prompts));
        let of_image = if let Some((_, of_image)) = known {
            of_image.clone()
        } else {
            let of_image = OfImage::new(prompts, with.encoding)?;
            read.push((prompts, of_image.clone()));
            of_image
        };
        for (index, branch) in guidance.branches.iter().enumerate() {
            for (cond, of) in of_image.conds((first + image, index), branch)? {
                conds.push(cond);
                told.of.push(of);
            }
        }
    }
    let before: Vec<Arc<Conditioning>> = conds.iter().map(|cond| Arc::clone(&cond.conditioning)).collect();
    stages.conditioning(&mut ConditioningStage { conds: &mut conds, encoding: &told })?;
    if conds.len() != before.len() {
        return Err(Error::Stage(format!("{} conditionings of {}", conds.len(), before.len())));
    }
    for ((cond, before), of) in conds.into_iter().zip(before).zip(&told.of) {
        if Arc::ptr_eq(&cond.conditioning, &before) {
            continue;
        }
        check(&before, &cond.conditioning)?;
        let guidance = cond.image.checked_sub(first).and_then(|image| guidance.get_mut(image));
        let Some(branch) = guidance.and_then(|guidance| guidance.branches.get_mut(cond.branch)) else {
            continue;
        };
        for span in &of.spans {
            if let Some(span) = branch.spans.get_mut(*span) {
                span.conditioning = Arc::clone(&cond.conditioning);
            }
        }
    }
    Ok(())
}

/// What is new has the sizes of what was there: memory was planned for them.
fn check(old: &Conditioning, new: &Conditioning) -> Result<()> {
    let pooled = |of: &Conditioning| of.pooled.as_ref().map(|pooled| pooled.dims().to_vec());
    if old.tokens.dims() == new.tokens.dims() && pooled(old) == pooled(new) {
        return Ok(());
    }
    let text = format!("conditioning {:?} in the place of {:?}", new.tokens.dims(), old.tokens.dims());
    Err(Error::Stage(text))
}

/// An image's prompts as the text encoder takes them.
#[derive(Clone)]
struct OfImage {
    prompts: Arc<Prompts>,
    /// Of each branch, the texts of its schedule.
    variants: Vec<Arc<[Variant]>>,
    /// Of each text of each branch, its chunks with those that make it as long as the longest.
    chunks: Vec<Vec<Arc<[Chunk]>>>,
    lengths: Lengths,
}

impl OfImage {
    fn new(prompts: &Arc<Prompts>, encoding: &Encoding) -> Result<Self> {
        let (mut variants, mut all) = (vec![], vec![]);
        let mut lengths = Lengths::default();
        for (is_wanted, schedule) in prompts.schedules() {
            let variant = |(text, count): (&String, usize)| {
                Ok(Variant { chunks: chunks(text, encoding.embeddings, encoding.reading)?, count })
            };
            let own: Vec<Variant> =
                schedule.texts.iter().zip(schedule.counts()).map(variant).collect::<Result<_>>()?;
            let length = own.iter().map(|variant| variant.chunks.len()).max().unwrap_or_default();
            let whole = |variant: &Variant| {
                let mut chunks = variant.chunks.clone();
                chunks.resize_with(length, Chunk::empty);
                chunks.into()
            };
            all.push(own.iter().map(whole).collect());
            variants.push(own.into());
            let place = if is_wanted { &mut lengths.wanted } else { &mut lengths.unwanted };
            *place = (*place).max(length * CHUNK_TOKENS);
        }
        Ok(Self { prompts: Arc::clone(prompts), variants, chunks: all, lengths })
    }

    /// What a branch is told, one for each of its texts.
    fn conds(&self, (image, index): (usize, usize), branch: &Branch) -> Result<Vec<(Cond, Of)>> {
        let mismatch = || Error::Compute("a branch of guidance that no prompt is of".to_owned());
        let (is_wanted, schedule) = self.prompts.schedules().nth(index).ok_or_else(mismatch)?;
        let (variants, chunks) = self.variants.get(index).zip(self.chunks.get(index)).ok_or_else(mismatch)?;
        let calls = schedule.spans(usize::MAX);
        if calls.len() != branch.spans.len() {
            return Err(mismatch());
        }
        let mut conds = vec![];
        for (text, (name, chunks)) in schedule.texts.iter().zip(chunks).enumerate() {
            let spans: Vec<usize> =
                (0..calls.len()).filter(|span| calls.get(*span).is_some_and(|of| of.text == text)).collect();
            let Some(span) = spans.first().and_then(|span| branch.spans.get(*span)) else { continue };
            let tokens = span.conditioning.tokens.dim(1);
            let cond = Cond {
                image,
                branch: index,
                role: branch.role,
                calls: spans
                    .iter()
                    .filter_map(|span| calls.get(*span).map(|span| span.calls.clone()))
                    .collect(),
                text: name.as_str().into(),
                // What was cut is not there.
                chunks: match chunks.get(..tokens / CHUNK_TOKENS) {
                    Some(cut) if cut.len() < chunks.len() => cut.into(),
                    _ => Arc::clone(chunks),
                },
                conditioning: Arc::clone(&span.conditioning),
            };
            let lengths = self.lengths;
            conds.push((cond, Of { variants: Arc::clone(variants), text, spans, is_wanted, lengths }));
        }
        Ok(conds)
    }
}

/// What one cond is of.
struct Of {
    /// All texts of its schedule, and which of them is its.
    variants: Arc<[Variant]>,
    text: usize,
    /// Places of its branch's spans.
    spans: Vec<usize>,
    is_wanted: bool,
    lengths: Lengths,
}

/// What stages have of the text encoder.
struct Told<'a> {
    with: With<'a>,
    /// Of each cond.
    of: Vec<Of>,
    /// Chunks and their states, those needed last behind the others.
    known: RefCell<Vec<(Chunk, Tensor)>>,
}

impl Told<'_> {
    /// What the text encoder makes of chunks, `(1, 77, width)` each.
    fn states(&self, all: &[&Chunk]) -> Result<Vec<Tensor>> {
        let is = |known: &Chunk, chunk: &Chunk| known.ids == chunk.ids && known.vectors == chunk.vectors;
        let find = |known: &[(Chunk, Tensor)], chunk: &Chunk| {
            known.iter().find(|(known, _)| is(known, chunk)).map(|(_, state)| state.clone())
        };
        let mut found: Vec<Option<Tensor>> = {
            let known = self.known.borrow();
            all.iter().map(|chunk| find(&known, chunk)).collect()
        };
        let missing: Vec<&Chunk> =
            all.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(chunk, _)| *chunk).collect();
        let With { encoder, encoding, run, .. } = self.with;
        let mut new = states(&encoder.clip, &missing, encoding.clip_skip, run)?.into_iter();
        for (state, chunk) in found.iter_mut().zip(all) {
            if state.is_none() {
                *state = new.next();
                let mut known = self.known.borrow_mut();
                known.extend(state.clone().map(|state| (Chunk::clone(chunk), state)));
                let more = known.len().saturating_sub(KEPT);
                known.drain(..more);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl TextEncoding for Told<'_> {
    fn chunks(&self, text: &str) -> Result<Vec<Chunk>> {
        let With { encoder, encoding, .. } = self.with;
        let Encoding { embeddings, reading, .. } = *encoding;
        embeddings.check(&[text.to_owned()], reading, encoder.clip.config().width)?;
        chunks(text, embeddings, reading)
    }

    fn encode(&self, chunks: &[Chunk], like: Option<usize>) -> Result<Conditioning> {
        let With { encoder, encoding, padding, run } = self.with;
        let vocabulary = encoder.clip.config().vocabulary;
        if let Some(id) = chunks.iter().flat_map(|chunk| &chunk.ids).find(|id| **id as usize >= vocabulary) {
            let text = format!("token {id} is beyond the vocabulary of {vocabulary}");
            return Err(Error::Request(text));
        }
        let own = |count| Variant { chunks: chunks.to_vec(), count };
        let all = |variants: &[Variant]| {
            encode_with(variants, encoding.reading.emphasis, |chunks| self.states(chunks))
        };
        let nothing = || Error::Compute("a text that was not encoded".to_owned());
        let Some(like) = like else { return all(&[own(1)])?.pop().ok_or_else(nothing) };
        let of = self.of.get(like).ok_or_else(|| {
            Error::Request(format!("there is no cond {like}; there are {}, counted from 0", self.of.len()))
        })?;
        let mut variants = of.variants.to_vec();
        if let Some(variant) = variants.get_mut(of.text) {
            *variant = own(variant.count);
        }
        let mut encoded = all(&variants)?;
        if of.text >= encoded.len() {
            return Err(nothing());
        }
        let mut encoded = encoded.swap_remove(of.text);
        let empty = encoded_empty(encoder, encoding, of.lengths, padding, run)?;
        padded(&mut encoded, of.is_wanted, of.lengths, padding, empty.as_deref())?;
        Ok(encoded)
    }
}
