//! How predictions become one: guidance is a list of branches, per image.

use std::sync::Arc;

use super::evaluation::Role;
use crate::error::{Error, Result, bail};
use crate::prompt::Conditioning;
use crate::tensor::Tensor;

/// A branch's conditioning until a model call.
#[derive(Clone, Debug)]
pub struct Span {
    /// The first model call of the pass that it is not for; the last span is for all that come after it too.
    pub until: usize,
    /// What the model is told.
    pub conditioning: Arc<Conditioning>,
}

/// One prediction of several that are combined.
#[derive(Clone, Debug)]
pub struct Branch {
    /// What it is taken for.
    pub role: Role,
    /// What it counts, beside the guidance scale.
    pub weight: f64,
    /// Where it counts: one number from 0 to 1 per latent, `(height, width)`; everywhere if `None`.
    pub mask: Option<Arc<Tensor>>,
    /// Its conditioning from call to call, at least one.
    pub spans: Vec<Span>,
}

impl Branch {
    /// Everywhere and for all calls, with weight 1.
    pub fn new(role: Role, conditioning: Arc<Conditioning>) -> Self {
        Self { role, weight: 1.0, mask: None, spans: vec![Span { until: usize::MAX, conditioning }] }
    }

    /// Its conditioning at a model call, counted from 0 within the pass.
    pub fn at(&self, call: usize) -> Result<&Arc<Conditioning>> {
        let span = self.spans.iter().find(|span| call < span.until).or(self.spans.last());
        match span {
            Some(span) => Ok(&span.conditioning),
            None => bail!("a branch of guidance without conditioning"),
        }
    }
}

/// An image's branches: at most one of them is what is steered away from.
#[derive(Clone, Debug)]
pub struct Guidance {
    /// In the order in which they are added up.
    pub branches: Vec<Branch>,
    /// How much the picture counts that a checkpoint edits, where it is told and shown apart: then there is one branch of what is
    /// wanted, one of what is steered away from, which does not see the picture, and another of the same which does.
    pub image_scale: Option<f64>,
}

impl Guidance {
    /// Classifier-free guidance of one prompt and one to steer away from.
    pub fn of(cond: Arc<Conditioning>, uncond: Arc<Conditioning>) -> Self {
        let branches = vec![Branch::new(Role::Cond, cond), Branch::new(Role::Uncond, uncond)];
        Self { branches, image_scale: None }
    }

    /// The same of a checkpoint that edits a picture, which counts so much.
    pub(super) fn edited(self, image_scale: f64) -> Result<Self> {
        let Self { mut branches, .. } = self;
        let [Branch { role: Role::Cond, mask: None, .. }, Branch { role: Role::Uncond, .. }] = &*branches
        else {
            return Err(several_are_wanted());
        };
        let seeing = branches.get(1).map(|unwanted| Branch { role: Role::Other, ..unwanted.clone() });
        branches.extend(seeing);
        Ok(Self { branches, image_scale: Some(image_scale) })
    }

    /// Whether a branch is not shown the picture that others are.
    pub(super) fn hides_the_picture(&self, role: Role) -> bool {
        self.image_scale.is_some() && role == Role::Uncond
    }

    /// The same of the predictions of all branches but what is steered away from: the first of what is wanted stands in its
    /// place, at scale 1.
    pub(super) fn combine_without_uncond(&self, outputs: &[Tensor]) -> Result<Tensor> {
        let branches: Vec<Branch> =
            self.branches.iter().filter(|branch| branch.role != Role::Uncond).cloned().collect();
        let first = branches.iter().zip(outputs).find(|(branch, _)| branch.role == Role::Cond);
        let Some((_, first)) = first else { bail!("guidance without a branch") };
        // A lone one is what it is, to the bit.
        if let ([Branch { mask: None, .. }], [only]) = (&*branches, outputs) {
            return Ok(only.clone());
        }
        let stand_in = Branch { role: Role::Uncond, mask: None, ..branches[0].clone() };
        let with = Self { branches: branches.into_iter().chain([stand_in]).collect(), image_scale: None };
        with.combine(&[outputs, std::slice::from_ref(first)].concat(), 1.0)
    }

    /// uncond + Σ (condᵢ − uncond) · maskᵢ · (weightᵢ · scale), in the order of branches; without an uncond Σ condᵢ ·
    /// maskᵢ · weightᵢ; with a picture's scale uncond + (cond − other) · scale + (other − uncond) · picture's scale
    /// (Brooks et al. 2023, equation 3). `outputs` has one prediction `(1, channels, height, width)` per branch.
    pub fn combine(&self, outputs: &[Tensor], scale: f64) -> Result<Tensor> {
        if outputs.len() != self.branches.len() {
            bail!("{} predictions for {} branches of guidance", outputs.len(), self.branches.len());
        }
        let branches = || self.branches.iter().zip(outputs);
        let of = |role| branches().find(|(branch, _)| branch.role == role).map(|(_, output)| output);
        let uncond = of(Role::Uncond);
        if let Some(image_scale) = self.image_scale {
            let (Some(cond), Some(image), Some(uncond)) = (of(Role::Cond), of(Role::Other), uncond) else {
                bail!("guidance by a picture without one of its three branches");
            };
            let told = cond.minus(image)?.scaled(scale);
            return uncond.plus(&told)?.plus(&image.minus(uncond)?.scaled(image_scale));
        }
        let mut sum = uncond.cloned();
        for (branch, output) in branches().filter(|(branch, _)| branch.role == Role::Cond) {
            let (difference, factor) = match uncond {
                Some(uncond) => (output.minus(uncond)?, branch.weight * scale),
                None => (output.clone(), branch.weight),
            };
            let mut part = difference.scaled(factor);
            if let Some(mask) = &branch.mask {
                part = masked(part, mask)?;
            }
            sum = Some(match sum {
                Some(sum) => sum.plus(&part)?,
                None => part,
            });
        }
        match sum {
            Some(sum) => Ok(sum),
            None => bail!("guidance without a branch"),
        }
    }
}

/// Why a picture's scale does not go with several prompts.
pub(super) fn several_are_wanted() -> Error {
    let text = "image_cfg_scale goes with one prompt for all of the picture; leave out AND and regions, or set it to 1";
    Error::Request(text.to_owned())
}

/// Each channel of `(1, channels, height, width)` times a mask `(height, width)`.
pub(super) fn masked(mut x: Tensor, mask: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if mask.dims() != [height, width] {
        bail!("a mask {:?} for latents {:?}", mask.dims(), x.dims());
    }
    for plane in x.values_mut().chunks_exact_mut((height * width).max(1)) {
        plane.iter_mut().zip(mask.values()).for_each(|(value, mask)| *value *= mask);
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(values: [f32; 4]) -> Tensor {
        Tensor::new(values.to_vec(), [1, 1, 2, 2]).expect("fits")
    }

    fn conditioning(value: f32) -> Arc<Conditioning> {
        Arc::new(Conditioning { tokens: Tensor::full(value, [1, 1, 1]), pooled: None })
    }

    #[test]
    fn branches_add_up() {
        let (cond, uncond) = (one([1.0, 2.0, 3.0, 4.0]), one([0.0, 1.0, 0.0, 1.0]));
        let mut guidance = Guidance::of(conditioning(1.0), conditioning(0.0));
        let both = guidance.combine(&[cond.clone(), uncond.clone()], 2.0).expect("combined");
        assert_eq!(both, one([2.0, 3.0, 6.0, 7.0]));
        // A second thing that is wanted, half as much and on the left only.
        let mask = Tensor::new(vec![1.0, 0.0, 1.0, 0.0], [2, 2]).expect("fits");
        let second =
            Branch { weight: 0.5, mask: Some(Arc::new(mask)), ..Branch::new(Role::Cond, conditioning(2.0)) };
        guidance.branches.push(second);
        let three = guidance.combine(&[cond.clone(), uncond.clone(), one([4.0; 4])], 2.0).expect("combined");
        assert_eq!(three, one([6.0, 3.0, 10.0, 7.0]));
        let alone =
            Guidance { branches: vec![Branch::new(Role::Cond, conditioning(1.0))], image_scale: None };
        assert_eq!(alone.combine(std::slice::from_ref(&cond), 7.0).expect("combined"), cond);
        let none = Guidance { branches: vec![], image_scale: None };
        assert!(alone.combine(&[], 7.0).is_err() && none.combine(&[], 1.0).is_err());
    }

    #[test]
    fn a_picture_counts_apart_from_the_text() {
        let guidance = Guidance::of(conditioning(1.0), conditioning(0.0)).edited(1.5).expect("one prompt");
        let outputs = [one([5.0; 4]), one([1.0; 4]), one([3.0; 4])];
        assert_eq!(guidance.combine(&outputs, 2.0).expect("combined"), one([1.0 + 4.0 + 3.0; 4]));
        assert!(guidance.combine(&outputs[..2], 2.0).is_err());
        assert!(guidance.hides_the_picture(Role::Uncond) && !guidance.hides_the_picture(Role::Other));
        assert!(Arc::ptr_eq(
            guidance.branches[2].at(0).expect("there"),
            guidance.branches[1].at(0).expect("there")
        ));
        let mut two = Guidance::of(conditioning(1.0), conditioning(0.0));
        two.branches.insert(0, Branch::new(Role::Cond, conditioning(2.0)));
        assert!(two.edited(1.5).expect_err("refused").to_string().contains("image_cfg_scale"));
    }

    #[test]
    fn spans_change_at_their_calls() {
        let span = |until, value| Span { until, conditioning: conditioning(value) };
        let branch =
            Branch { spans: vec![span(2, 1.0), span(5, 2.0)], ..Branch::new(Role::Cond, conditioning(0.0)) };
        let values: Vec<f32> =
            (0..7).map(|call| branch.at(call).expect("there").tokens.values()[0]).collect();
        assert_eq!(values, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    }
}
