//! What a pass looks up otherwise than its model says: rules, with what its network makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attention_rules::{Rule, RuleChange, RuleKeys};
use super::evaluation::{Evaluation, Row};
use super::masks::of_region;
use super::networks::PassNetworks;
use crate::networks::attention_bank::Bank;
use crate::networks::unet::{AppendedKeys, AttentionChange, AttentionRule, SetKeys};
use crate::nn::Run;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A rule with what a network makes of it.
pub(super) struct Prepared {
    rule: Rule,
    /// Of a set: one, or one per picture of the pass.
    keys: Vec<SetKeys>,
    /// Of what is appended, likewise.
    appended: Vec<AppendedKeys>,
    /// Of a bias.
    bias: Option<Arc<Tensor>>,
    /// Shared by those who name it.
    bank: Option<Arc<Bank>>,
}

impl Prepared {
    /// The name of its bank.
    fn bank_name(rule: &Rule) -> Option<&str> {
        match &rule.change {
            RuleChange::Capture(bank) | RuleChange::Received(bank) | RuleChange::FromBank { bank, .. } => {
                Some(bank)
            }
            _ => None,
        }
    }
}

/// What somebody's bank of this name has; `None` if no rule of theirs names it.
pub(super) fn bank_of(prepared: &[Prepared], owner: &str, name: &str) -> Option<Arc<Bank>> {
    let is = |prepared: &&Prepared| {
        prepared.rule.owner == owner && Prepared::bank_name(&prepared.rule) == Some(name)
    };
    prepared.iter().find(is).and_then(|prepared| prepared.bank.clone())
}

/// Makes ready what a pass's network needs of rules.
pub(super) fn prepared(rules: Vec<Rule>, networks: &PassNetworks, run: &Run) -> Result<Vec<Prepared>> {
    let mut banks: BTreeMap<(String, String), Arc<Bank>> = BTreeMap::new();
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
            _ => Ok(vec![]),
        };
        let keys = keys.map_err(wrong)?;
        let (appended, bias) = match &rule.change {
            RuleChange::Append { keys, .. } => (appended(keys).map_err(wrong)?, None),
            RuleChange::Bias(bias) => (vec![], Some(Arc::new(bias.clone()))),
            _ => (vec![], None),
        };
        let bank = Prepared::bank_name(&rule)
            .map(|name| Arc::clone(banks.entry((rule.owner.clone(), name.to_owned())).or_default()));
        Ok(Prepared { rule, keys, appended, bias, bank })
    };
    rules.into_iter().map(prepare).collect()
}

/// Each entry of what is appended.
fn appended(keys: &RuleKeys) -> Result<Vec<AppendedKeys>> {
    match keys {
        RuleKeys::Context(tokens) => {
            let entry = |entry| tokens.narrow(0, entry, 1).map(AppendedKeys::Context);
            (0..tokens.dim(0)).map(entry).collect()
        }
        RuleKeys::KeyValue(key, value) => {
            let entry =
                |entry| Ok(AppendedKeys::KeyValue(key.narrow(0, entry, 1)?, value.narrow(0, entry, 1)?));
            (0..key.dim(0)).map(entry).collect()
        }
    }
}

/// What holds for a row; `image` is its image's place in the pass.
pub(super) fn rules_of(
    prepared: &[Prepared],
    row: &Row,
    image: usize,
    evaluation: &Evaluation,
) -> Result<Vec<AttentionRule>> {
    let here = prepared.iter().filter(|prepared| prepared.rule.is_for(row, evaluation));
    let rule = |Prepared { rule, keys, appended, bias, bank }: &Prepared| {
        let lacks = |what: &str| {
            Error::Stage(format!("plugin '{}', attention: image {image} has no {what}", rule.owner))
        };
        let bank = || bank.clone().ok_or_else(|| lacks("bank"));
        let owner = || Arc::from(rule.owner.as_str());
        let picture = row.image;
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
            RuleChange::Append { weight, .. } => {
                let keys = if let [keys] = &appended[..] { Some(keys) } else { appended.get(image) };
                let keys = keys.cloned().ok_or_else(|| lacks("keys"))?;
                AttentionChange::Append { keys, weight: *weight as f32, owner: owner() }
            }
            RuleChange::Bias(_) => {
                AttentionChange::Bias { bias: bias.clone().ok_or_else(|| lacks("bias"))?, owner: owner() }
            }
            RuleChange::Capture(_) => AttentionChange::Capture { bank: bank()?, picture },
            RuleChange::FromBank { weight, .. } => {
                AttentionChange::FromBank { bank: bank()?, picture, weight: *weight as f32 }
            }
            RuleChange::Received(_) => AttentionChange::Received { bank: bank()?, picture },
        };
        Ok(AttentionRule { places: rule.places, change })
    };
    here.map(rule).collect()
}
