//! What a pass looks up otherwise than its model says: rules, with what its network makes of them.

use std::sync::Arc;

use super::attention_rules::{Rule, RuleChange, RuleKeys};
use super::evaluation::{Evaluation, Row};
use super::masks::of_region;
use super::networks::PassNetworks;
use crate::networks::unet::{AttentionChange, AttentionRule, SetKeys};
use crate::nn::Run;
use crate::{Error, Result};

/// A rule with what a network makes of it.
pub(super) struct Prepared {
    rule: Rule,
    /// Of a set: one, or one per picture of the pass.
    keys: Vec<SetKeys>,
}

/// Makes ready what a pass's network needs of rules.
pub(super) fn prepared(rules: Vec<Rule>, networks: &PassNetworks, run: &Run) -> Result<Vec<Prepared>> {
    let prepare = |rule: Rule| {
        let (unet, transforms) = (&networks.unet, &networks.transforms);
        let wrong = |error: Error| match error {
            Error::Cancelled => error,
            error => Error::Stage(format!("plugin '{}', attention: {error}", rule.owner)),
        };
        let keys = match &rule.change {
            RuleChange::Set { keys: RuleKeys::Context(tokens), .. } => (0..tokens.dim(0))
                .map(|entry| {
                    let context = unet.context(&tokens.narrow(0, entry, 1)?, transforms, run)?;
                    Ok(SetKeys::Context(Arc::new(context)))
                })
                .collect::<Result<_>>(),
            RuleChange::Set { keys: RuleKeys::KeyValue(key, value), .. } => (0..key.dim(0))
                .map(|entry| {
                    let [key, value] = [key, value].map(|all| all.narrow(0, entry, 1));
                    Ok(SetKeys::Keys(Arc::new(unet.key_set(&key?, &value?, run)?)))
                })
                .collect::<Result<_>>(),
            RuleChange::Own { .. } | RuleChange::Identity => Ok(vec![]),
        };
        let keys = keys.map_err(wrong)?;
        Ok(Prepared { rule, keys })
    };
    rules.into_iter().map(prepare).collect()
}

/// What holds for a row; `image` is its image's place in the pass.
pub(super) fn rules_of(
    prepared: &[Prepared],
    row: &Row,
    image: usize,
    evaluation: &Evaluation,
) -> Result<Vec<AttentionRule>> {
    let here = prepared.iter().filter(|prepared| prepared.rule.is_for(row, evaluation));
    let rule = |Prepared { rule, keys }: &Prepared| {
        let change = match &rule.change {
            RuleChange::Own { weight, mask } => {
                AttentionChange::Own { weight: *weight as f32, mask: of_region(mask.as_ref(), row.region)? }
            }
            RuleChange::Set { weight, mask, .. } => {
                let keys = if let [keys] = &keys[..] { Some(keys) } else { keys.get(image) };
                let Some(keys) = keys.cloned() else {
                    let text = format!("plugin '{}', attention: image {image} has no keys", rule.owner);
                    return Err(Error::Stage(text));
                };
                let mask = of_region(mask.as_ref(), row.region)?;
                AttentionChange::Set { keys, weight: *weight as f32, mask }
            }
            RuleChange::Identity => AttentionChange::Identity,
        };
        Ok(AttentionRule { places: rule.places, change })
    };
    here.map(rule).collect()
}
