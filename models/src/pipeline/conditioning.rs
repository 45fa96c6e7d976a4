//! Prompts to guidance.

use std::sync::Arc;

use super::evaluation::Role;
use super::guidance::{Branch, Guidance};
use super::handles::Handles;
use super::stages::{ConditioningStage, Stages};
use crate::Result;
use crate::model::TextEncoder;
use crate::nn::Run;
use crate::prompt::{Conditioning, Embeddings, encode, pad_alike, split_weight};

/// What an image is told.
pub(super) struct Prompts<'a> {
    pub prompt: &'a str,
    pub negative_prompt: &'a str,
    pub embeddings: &'a Embeddings,
    pub clip_skip: usize,
    pub pad_cond_uncond: bool,
}

/// Classifier-free guidance by two prompts.
pub(super) fn guidance(encoder: &TextEncoder, prompts: &Prompts, run: &Run) -> Result<Guidance> {
    let &Prompts { embeddings, clip_skip, .. } = prompts;
    let encode = |prompt: &str| {
        let used = embeddings.digest(prompt)?;
        let encode = || encode(&encoder.clip, prompt, embeddings, clip_skip, run);
        encoder.cache.get(prompt, used, clip_skip, encode)
    };
    let (prompt, weight) = split_weight(prompts.prompt);
    let mut cond = encode(prompt)?;
    let mut uncond = encode(prompts.negative_prompt)?;
    if prompts.pad_cond_uncond {
        pad_alike(&mut cond, &mut uncond, || encode(""))?;
    }
    let mut guidance = Guidance::of(Arc::new(cond), Arc::new(uncond));
    for branch in guidance.branches.iter_mut().filter(|branch| branch.role == Role::Cond) {
        branch.weight = weight;
    }
    Ok(guidance)
}

/// Lets somebody change an image's conditioning.
pub(super) fn changed(
    guidance: &mut Guidance,
    image: usize,
    stages: &mut dyn Stages,
    handles: &mut Handles,
) -> Result<()> {
    for (index, branch) in guidance.branches.iter_mut().enumerate() {
        let Branch { spans, .. } = branch;
        for span in spans {
            let Conditioning { tokens, pooled } = &*span.conditioning;
            let stage = ConditioningStage {
                image,
                branch: index,
                tokens: handles.insert(tokens.clone()),
                pooled: pooled.as_ref().map(|pooled| handles.insert(pooled.clone())),
            };
            stages.conditioning(&stage, handles)?;
            let tokens = handles.take(stage.tokens)?;
            let pooled = stage.pooled.map(|pooled| handles.take(pooled)).transpose()?;
            handles.end_call();
            span.conditioning = Arc::new(Conditioning { tokens, pooled });
        }
    }
    Ok(())
}
