//! What images are told, and plugins that change it.

use std::collections::HashMap;
use std::sync::Arc;

use latentd_models::pipeline::{Cond, ConditioningStage, Role};
use latentd_models::prompt::{Chunk, Conditioning};
use latentd_models::{Error, Result, Tensor};
use latentd_plugin_api::abi::{
    LATENTD_ANY, LATENTD_COND, LATENTD_CONDITIONING, LATENTD_OTHER, LATENTD_UNCOND, latentd_cond,
    latentd_conds, latentd_list, latentd_pass, latentd_span, latentd_token,
};

use super::{Called, JobStages};
use crate::plugins::call::AtHand;
use crate::plugins::host::text;
use crate::plugins::objects::Content;
use crate::plugins::texts::Texts;

/// What a pass may be told. Each has two slots and two handles.
pub(in crate::plugins) const MOST_CONDS: usize = 1 << 14;

impl JobStages<'_> {
    pub(super) fn conditioning_stage(&self, stage: &mut ConditioningStage<'_>) -> Result<()> {
        let texts = Texts::new(stage.encoding);
        let told = ToldConds::new(stage.conds, &texts)?;
        let before = contents(stage.conds);
        let mut contents = before.clone();
        let (slots, pass) = (contents.len(), self.pass());
        let function = |called: &Called<'_>| {
            let conds = told.conds(called.handles);
            run(called, &raw const pass.told, list(&conds))
        };
        let at_hand = AtHand { texts: Some(&texts), ..AtHand::default() };
        if self.chain_with(LATENTD_CONDITIONING, |_| true, &mut contents, slots, at_hand, function)? {
            put(stage.conds, &before, contents);
        }
        Ok(())
    }
}

/// Calls one plugin.
pub(in crate::plugins) fn run(called: &Called<'_>, pass: *const latentd_pass, conds: latentd_list) -> u32 {
    let args = latentd_conds { size: size_of::<latentd_conds>() as u32, reserved: 0, pass, conds };
    called.tables.conditioning.and_then(|table| table.run).map_or(0, |run| {
        // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
        unsafe { run(called.instance, called.call, &raw const args) }
    })
}

/// What each cond is, in two slots; nothing is in the second where there is no pooled.
pub(in crate::plugins) fn contents(conds: &[Cond]) -> Vec<Content> {
    let none = || Tensor::full(0.0, [0]);
    let both = |cond: &Cond| {
        let Conditioning { tokens, pooled } = &*cond.conditioning;
        [tokens.clone(), pooled.clone().unwrap_or_else(none)].map(Content::Tensor)
    };
    conds.iter().flat_map(both).collect()
}

/// Puts what plugins left in the places of what was there before.
fn put(conds: &mut [Cond], before: &[Content], after: Vec<Content>) {
    let mut after = after.into_iter();
    for (cond, before) in conds.iter_mut().zip(before.chunks(2)) {
        let (Some(Content::Tensor(tokens)), Some(Content::Tensor(pooled))) = (after.next(), after.next())
        else {
            return;
        };
        let is_same = |before: Option<&Content>, after: &Tensor| match before {
            Some(Content::Tensor(before)) => before.values().as_ptr() == after.values().as_ptr(),
            _ => true,
        };
        if is_same(before.first(), &tokens) && is_same(before.get(1), &pooled) {
            continue;
        }
        let pooled = cond.conditioning.pooled.is_some().then_some(pooled);
        cond.conditioning = Arc::new(Conditioning { tokens, pooled });
    }
}

/// What all plugins are told of conds alike.
pub(in crate::plugins) struct ToldConds {
    conds: Vec<ToldCond>,
}

struct ToldCond {
    image: usize,
    branch: usize,
    role: u32,
    text: Arc<str>,
    spans: Vec<latentd_span>,
    tokens: Arc<[latentd_token]>,
    has_pooled: bool,
}

impl ToldConds {
    pub(in crate::plugins) fn new(conds: &[Cond], texts: &Texts<'_>) -> Result<Self> {
        if conds.len() > MOST_CONDS {
            let text = format!(
                "the pictures of a pass are told {} texts; up to {MOST_CONDS} can be with a plugin in \
                 {LATENTD_CONDITIONING}: draw fewer at once",
                conds.len()
            );
            return Err(Error::Request(text));
        }
        let mut known: HashMap<*const Chunk, Arc<[latentd_token]>> = HashMap::new();
        let call = |call: usize| u32::try_from(call).unwrap_or(LATENTD_ANY);
        let told = |cond: &Cond| ToldCond {
            image: cond.image,
            branch: cond.branch,
            role: match cond.role {
                Role::Cond => LATENTD_COND,
                Role::Uncond => LATENTD_UNCOND,
                Role::Other => LATENTD_OTHER,
            },
            text: Arc::clone(&cond.text),
            spans: cond
                .calls
                .iter()
                .map(|calls| latentd_span { from: call(calls.start), until: call(calls.end) })
                .collect(),
            tokens: Arc::clone(
                known.entry(cond.chunks.as_ptr()).or_insert_with(|| texts.tokens(&cond.chunks).into()),
            ),
            has_pooled: cond.conditioning.pooled.is_some(),
        };
        Ok(Self { conds: conds.iter().map(told).collect() })
    }

    /// As a plugin is told that has these handles, two for each.
    pub(in crate::plugins) fn conds(&self, handles: &[u64]) -> Vec<latentd_cond> {
        let cond = |(cond, handles): (&ToldCond, &[u64])| latentd_cond {
            image: cond.image as u32,
            branch: cond.branch as u32,
            role: cond.role,
            reserved: 0,
            prompt: text(&cond.text),
            spans: list(&cond.spans),
            tokens: list(&cond.tokens),
            context: handles.first().copied().unwrap_or_default(),
            pooled: handles.get(1).copied().filter(|_| cond.has_pooled).unwrap_or_default(),
        };
        self.conds.iter().zip(handles.chunks(2)).map(cond).collect()
    }
}

fn list<T>(items: &[T]) -> latentd_list {
    latentd_list { items: items.as_ptr().cast(), count: items.len() as u32, stride: size_of::<T>() as u32 }
}
