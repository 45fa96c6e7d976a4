//! `denoise.wrap`: plugins around the model, each inside of the one before it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd_models::Tensor;
use latentd_models::networks::attention_bank::Bank;
use latentd_models::pipeline::{Evaluate, Evaluation, Row};
use latentd_models::prompt::Conditioning;
use latentd_plugin_api::abi::{
    LATENTD_BARE, LATENTD_CANCELLED, LATENTD_DENOISE_WRAP, LATENTD_FAILED, LATENTD_INVALID, LATENTD_NEXT,
    LATENTD_UNWRAPPED, latentd_denoise, latentd_list,
};

use super::told::{contexts, masks, rows, tell_contexts, told};
use super::{AtHand, Called, Instance, JobStages};
use crate::plugins::call::{Asked, AskedRow, Evaluated, Model};
use crate::plugins::objects::Content;

/// Tokens of a context that a plugin gives.
const MOST_TOKENS: usize = 77 * 16;

impl JobStages<'_> {
    /// Samples `(rows, channels, height, width)` of `x`, by those whose place in the chain is this or behind it; `None` if it
    /// is nobody's turn.
    pub(super) fn wrapped(
        &self,
        place: usize,
        evaluation: &Evaluation,
        x: &Tensor,
        model: &RefCell<&mut dyn Evaluate>,
    ) -> latentd_models::Result<Option<Tensor>> {
        let chain = self.plugins.chains.get(LATENTD_DENOISE_WRAP).map_or(&[][..], Vec::as_slice);
        for (place, index) in chain.iter().enumerate().skip(place) {
            let Some(instance) = self.instances.get(*index) else { continue };
            let want = instance.member.want(LATENTD_DENOISE_WRAP);
            if !want.is_some_and(|want| want.has(evaluation.step, evaluation.steps)) {
                continue;
            }
            let inside = Inside {
                stages: self,
                next: place + 1,
                evaluation,
                model,
                failure: RefCell::default(),
                waited: Cell::default(),
            };
            if let Some(samples) = inside.call(instance, x)? {
                return Ok(Some(samples));
            }
        }
        Ok(None)
    }
}

/// What lies inside of one plugin.
struct Inside<'a, 'b> {
    stages: &'a JobStages<'a>,
    /// The place in the chain of those inside.
    next: usize,
    evaluation: &'a Evaluation,
    model: &'a RefCell<&'b mut dyn Evaluate>,
    /// What failed there: it ends the evaluation, whatever the plugin makes of it.
    failure: RefCell<Option<latentd_models::Error>>,
    /// What the plugin waited for those inside.
    waited: Cell<Duration>,
}

impl Inside<'_, '_> {
    /// What the plugin makes of it; `None` if it leaves it to those inside.
    fn call(&self, instance: &Instance<'_>, x: &Tensor) -> latentd_models::Result<Option<Tensor>> {
        let evaluation = self.evaluation;
        let mut contents = vec![Content::Tensor(x.clone())];
        let masks = masks(evaluation)?;
        let (of_masks, of_contexts) = (1, 1 + masks.len());
        contents.extend(masks);
        contents.extend(contexts(evaluation));
        let function = |called: &Called<'_>| {
            let lent = |from: usize| called.handles.get(from..).unwrap_or_default();
            let mut rows = rows(evaluation, lent(of_masks));
            tell_contexts(&mut rows, evaluation, lent(of_contexts));
            let eval = told(evaluation, &rows);
            let args = latentd_denoise {
                size: size_of::<latentd_denoise>() as u32,
                reserved: 0,
                eval: &raw const eval,
                images: latentd_list { items: std::ptr::null(), count: 0, stride: 0 },
                x: called.handles.first().copied().unwrap_or_default(),
                outputs: 0,
                guided: 0,
                cfg_scale: 0.0,
            };
            called.tables.denoise_wrap.and_then(|table| table.run).map_or(0, |run| {
                // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                unsafe { run(called.instance, called.call, &raw const args) }
            })
        };
        let scale = 1.0 / (evaluation.sigma * evaluation.sigma + 1.0).sqrt();
        let evaluated = Evaluated { evaluation, latents: x, scale };
        let at_hand = AtHand { model: Some(self), evaluated: Some(&evaluated), ..AtHand::default() };
        let called =
            self.stages.called(instance, LATENTD_DENOISE_WRAP, (&mut contents, 1), at_hand, function);
        instance.spent.set(instance.spent.get().saturating_sub(self.waited.get()));
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let is_changed = called?.is_changed;
        match contents.into_iter().next() {
            Some(Content::Tensor(samples)) if is_changed => Ok(Some(samples)),
            _ => Ok(None),
        }
    }

    /// What is asked, as an evaluation of its own.
    fn evaluation(&self, asked: Vec<AskedRow>, sigma: Option<f64>, x: &Tensor) -> Result<Evaluation, String> {
        let own = self.evaluation;
        let mut rows = vec![];
        for (index, asked) in asked.into_iter().enumerate() {
            let AskedRow { image, branch, role, weight, tag, region, context } = asked;
            let of_image = own.rows.iter().filter(|row| row.image == image);
            let given = of_image.clone().find(|row| row.branch == branch);
            let Some(any) = given.or(of_image.clone().next()) else {
                return Err(format!("row {index} is of image {image}, which is not drawn here"));
            };
            let conditioning = match (context, given) {
                (Some(tokens), _) => conditioned(tokens, &any.conditioning, index)?,
                (None, Some(given)) => Arc::clone(&given.conditioning),
                (None, None) => {
                    return Err(format!("row {index} has no context, and no row is of branch {branch}"));
                }
            };
            rows.push(Row {
                image,
                seed: any.seed,
                branch,
                role,
                weight,
                mask: given.and_then(|given| given.mask.clone()),
                region,
                tag: Arc::from(tag.as_str()),
                conditioning,
            });
        }
        let mut evaluation = Evaluation { rows, ..own.clone() };
        if let Some(sigma) = sigma.filter(|sigma| *sigma != own.sigma) {
            (evaluation.sigma, evaluation.timestep) = (sigma, self.model.borrow().timestep(sigma));
        }
        evaluation.latents = (x.dim(2), x.dim(3));
        Ok(evaluation)
    }
}

/// A context that a plugin gives, for a model whose own are like `own`.
fn conditioned(tokens: Tensor, own: &Conditioning, row: usize) -> Result<Arc<Conditioning>, String> {
    let width = own.tokens.dim(2);
    let fits = matches!(*tokens.dims(), [1, 1..=MOST_TOKENS, other] if other == width);
    if !fits {
        let dims = tokens.dims();
        return Err(format!("row {row}'s context is {dims:?}; (1, up to {MOST_TOKENS}, {width}) is needed"));
    }
    if let Some(index) = tokens.values().iter().position(|value| !value.is_finite()) {
        return Err(format!("number {index} of row {row}'s context is {}", tokens.values()[index]));
    }
    Ok(Arc::new(Conditioning { tokens, pooled: own.pooled.clone() }))
}

impl Model for Inside<'_, '_> {
    fn evaluate(&self, asked: Asked) -> Result<Tensor, (u32, String)> {
        let Asked { rows, x, sigma, inside } = asked;
        let invalid = |text: String| (LATENTD_INVALID, text);
        if ![LATENTD_NEXT, LATENTD_UNWRAPPED, LATENTD_BARE].contains(&inside) {
            return Err(invalid(format!("inside is {inside}, which is none of NEXT, UNWRAPPED and BARE")));
        }
        if x.dims().len() != 4 || x.dim(0) != rows.len() || rows.is_empty() {
            let count = rows.len();
            return Err(invalid(format!(
                "x is {:?} for {count} rows; (rows, channels, h, w) is needed",
                x.dims()
            )));
        }
        let evaluation = self.evaluation(rows, sigma, &x).map_err(invalid)?;
        let begun = Instant::now();
        let samples = self.samples(&evaluation, &x, inside);
        self.waited.set(self.waited.get() + begun.elapsed());
        samples.map_err(|error| {
            let status = match error {
                latentd_models::Error::Cancelled => LATENTD_CANCELLED,
                // What was asked is wrong; nothing was computed yet.
                latentd_models::Error::Request(text) => return (LATENTD_INVALID, text),
                _ => LATENTD_FAILED,
            };
            let text = error.to_string();
            *self.failure.borrow_mut() = Some(error);
            (status, text)
        })
    }

    fn bank(&self, plugin: &str, name: &str) -> Option<Arc<Bank>> {
        self.bank_of(plugin, name)
    }
}

impl Inside<'_, '_> {
    fn bank_of(&self, plugin: &str, name: &str) -> Option<Arc<Bank>> {
        self.model.try_borrow().ok()?.bank(plugin, name)
    }

    fn samples(&self, evaluation: &Evaluation, x: &Tensor, inside: u32) -> latentd_models::Result<Tensor> {
        if inside == LATENTD_NEXT
            && let Some(samples) = self.stages.wrapped(self.next, evaluation, x, self.model)?
        {
            return Ok(samples);
        }
        let mut stages = self.stages;
        let mut model = self.model.borrow_mut();
        if inside == LATENTD_BARE {
            return model.evaluate(None, evaluation, x);
        }
        model.evaluate(Some(&mut stages), evaluation, x)
    }
}
