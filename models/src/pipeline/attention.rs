//! What a pass looks up otherwise than its model says: rules, with what its network makes of them.

use std::sync::Arc;

use super::attention_rules::{Rule, RuleChange, RuleKeys};
use super::evaluation::{Evaluation, Region, Row};
use super::networks::PassNetworks;
use crate::networks::unet::{AttentionChange, AttentionRule, SetKeys};
use crate::nn::Run;
use crate::tensor::Tensor;
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

/// The part of a mask over the canvas that a region shows; nothing counts beyond the canvas.
fn of_region(mask: Option<&Tensor>, region: Region) -> Result<Option<Arc<Tensor>>> {
    let Some(mask) = mask else { return Ok(None) };
    let Region { x, y, width, height, canvas_width, canvas_height } = region;
    if (x, y, width, height) == (0, 0, canvas_width, canvas_height) {
        return Ok(Some(Arc::new(mask.clone())));
    }
    let (rows, columns) = (mask.dim(0), mask.dim(1));
    // The nearest of the mask's places for each pixel of the region.
    let place = |at: i64, canvas: usize, places: usize| {
        let at = usize::try_from(at).ok().filter(|at| *at < canvas)?;
        Some((at * places / canvas.max(1)).min(places.saturating_sub(1)))
    };
    let mut part = Vec::with_capacity(width * height);
    for row in 0..height {
        let from_row = place(y + row as i64, canvas_height, rows);
        for column in 0..width {
            let from = from_row.zip(place(x + column as i64, canvas_width, columns));
            let value = from.and_then(|(row, column)| mask.values().get(row * columns + column));
            part.push(value.copied().unwrap_or_default());
        }
    }
    Ok(Some(Arc::new(Tensor::new(part, [height, width])?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_sees_its_part_of_a_mask() {
        let mask = Tensor::new((0..16).map(|value| value as f32).collect(), [4, 4]).expect("fits");
        let whole = Region::whole(8, 8);
        assert_eq!(of_region(Some(&mask), whole).expect("made").as_deref(), Some(&mask));
        let tile = Region { x: 4, y: -2, width: 6, height: 4, ..whole };
        let part = of_region(Some(&mask), tile).expect("made").expect("there");
        #[rustfmt::skip]
        let expected = [
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
            2.0, 2.0, 3.0, 3.0, 0.0, 0.0,
            2.0, 2.0, 3.0, 3.0, 0.0, 0.0,
        ];
        assert_eq!((part.dims(), part.values()), (&[4, 6][..], &expected[..]));
        assert_eq!(of_region(None, tile).expect("made"), None);
    }
}
