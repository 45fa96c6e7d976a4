//! Parts of a picture that are told something else.

use std::sync::Arc;

use crate::tensor::Tensor;
use crate::{Error, Result};

/// A part of the picture with a prompt of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionPrompt {
    /// What to draw there, in the grammar of prompts.
    pub prompt: String,
    /// How much of each latent is in it, `(height, width)`, from 0 to 1.
    pub mask: Arc<Tensor>,
    /// How much of what guides there is its prompt, from 0 to 1; the rest is the main one.
    pub weight: f64,
}

/// How much each region guides each latent, behind how much the main prompt does: together 1 everywhere, so that guidance is as
/// strong as without regions. Where regions overlap they share.
pub(super) fn shares(regions: &[RegionPrompt], latents: [usize; 2]) -> Result<Vec<Share>> {
    let mut all = Tensor::full(0.0, latents);
    let mut own = vec![];
    for RegionPrompt { mask, weight, .. } in regions {
        let weighted = mask.map(|value| value.clamp(0.0, 1.0) * *weight as f32);
        all = all.plus(&weighted)?;
        own.push(weighted);
    }
    // Masks that complete each other may miss 1 by their rounding.
    let main = all.map(|all| if all > 1.0 - 1e-6 { 0.0 } else { 1.0 - all });
    let own = own.into_iter().map(|share| share.zip(&all, |share, all| share / all.max(1.0)));
    std::iter::once(Ok(main)).chain(own).map(|share| Ok(Share::of(share?))).collect()
}

/// Where a prompt guides.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Share {
    Nowhere,
    Everywhere,
    /// So much, per latent.
    There(Arc<Tensor>),
}

impl Share {
    fn of(share: Tensor) -> Self {
        let all_are = |number: f32| share.values().iter().all(|share| *share == number);
        if all_are(0.0) {
            Self::Nowhere
        } else if all_are(1.0) {
            Self::Everywhere
        } else {
            Self::There(Arc::new(share))
        }
    }
}

/// Refuses regions that do not fit latents of this size, `(rows, columns)`.
pub(super) fn check(regions: &[RegionPrompt], latents: [usize; 2]) -> Result<()> {
    let wrong = |text: String| Err(Error::Request(text));
    if regions.len() > MOST {
        return wrong(format!("regions are {}; up to {MOST} can be drawn", regions.len()));
    }
    for (place, RegionPrompt { mask, weight, .. }) in regions.iter().enumerate() {
        if !(0.0..=1.0).contains(weight) {
            return wrong(format!("regions[{place}].weight is {weight}; 0 to 1 is needed"));
        }
        if mask.dims() != latents {
            let [rows, columns] = latents;
            return wrong(format!("regions[{place}].mask is {:?}; {rows}x{columns} is needed", mask.dims()));
        }
    }
    Ok(())
}

/// Regions of a picture: each takes the UNet once more a step.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn region(mask: [f32; 4], weight: f64) -> RegionPrompt {
        let mask = Arc::new(Tensor::new(mask.to_vec(), [1, 4]).expect("fits"));
        RegionPrompt { prompt: String::new(), mask, weight }
    }

    fn there(share: [f32; 4]) -> Share {
        Share::There(Arc::new(Tensor::new(share.to_vec(), [1, 4]).expect("fits")))
    }

    #[test]
    fn what_guides_is_one_everywhere() {
        let regions = [region([0.0, 1.0, 1.0, 0.5], 1.0), region([0.0, 0.0, 1.0, 0.5], 0.5)];
        let found = shares(&regions, [1, 4]).expect("fit");
        let expected = [
            there([1.0, 0.0, 0.0, 0.25]),
            there([0.0, 1.0, 1.0 / 1.5, 0.5]),
            there([0.0, 0.0, 0.5 / 1.5, 0.25]),
        ];
        assert_eq!(found, expected);
        assert_eq!(shares(&[], [1, 4]).expect("fit"), [Share::Everywhere]);
        let (all, none) = (region([1.0; 4], 1.0), region([0.0; 4], 1.0));
        assert_eq!(shares(&[all], [1, 4]).expect("fit"), [Share::Nowhere, Share::Everywhere]);
        assert_eq!(shares(&[none], [1, 4]).expect("fit"), [Share::Everywhere, Share::Nowhere]);
    }

    #[test]
    fn regions_that_do_not_fit_are_refused() {
        let good = region([1.0; 4], 1.0);
        assert!(check(std::slice::from_ref(&good), [1, 4]).is_ok());
        for (regions, latents, words) in [
            (vec![good.clone()], [2, 4], "regions[0].mask is [1, 4]; 2x4"),
            (vec![good.clone(), region([1.0; 4], 1.5)], [1, 4], "regions[1].weight is 1.5; 0 to 1"),
            (vec![region([1.0; 4], f64::NAN)], [1, 4], "regions[0].weight is NaN"),
            (vec![good; 17], [1, 4], "regions are 17; up to 16"),
        ] {
            let error = check(&regions, latents).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
