//! One call of a UNet: what its blocks take, each its own, in the order in which they are run.

use std::sync::{Arc, OnceLock};

use super::attention_bank::{Bank, BankPlace};
use super::unet_residuals::ResidualPlace;
use super::unet_sites::SitePart;
use crate::error::{Result, bail};
use crate::nn::{Activations, Device, KeySet, KeyValueTransform, Keys, Own, RowKeys, attention_of_rows};
use crate::tensor::Tensor;

/// One timestep as every residual block takes it, for any number of calls.
pub struct TimeEmbedding(pub(super) Vec<Activations>);

/// Conditioning as every cross-attention takes it, for any number of calls.
pub struct Context {
    pub(super) keys: Vec<Keys>,
    /// What they were made of; nothing on a device that only counts.
    pub(super) tokens: Option<Tensor>,
    /// The same as tokens' keys and values one after the other, of each attention where somebody looked at them.
    pub(super) own: Vec<OnceLock<(Activations, Activations)>>,
}

/// Which attentions of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionPlaces {
    /// Those of a picture's places to each other, or those to the conditioning.
    pub is_self: bool,
    /// On the way down ([`SitePart::Input`]), in the middle, on the way up; everywhere if `None`.
    pub part: Option<SitePart>,
    /// Of which block of that part, counted as [`super::unet_sites::Site`] does.
    pub index: Option<usize>,
    /// Which layer of that block's transformer, from 0.
    pub layer: Option<usize>,
}

/// Where a call is: an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttentionPlace {
    pub part: SitePart,
    pub index: usize,
    pub layer: usize,
}

impl AttentionPlaces {
    fn has(&self, is_self: bool, place: AttentionPlace) -> bool {
        let is = |wanted: Option<usize>, here: usize| wanted.is_none_or(|wanted| wanted == here);
        self.is_self == is_self
            && self.part.is_none_or(|part| part == place.part)
            && is(self.index, place.index)
            && is(self.layer, place.layer)
    }
}

/// Where keys and values beside a network's own come from.
#[derive(Clone)]
pub enum SetKeys {
    /// Tokens, projected as the conditioning is: for attentions to it.
    Context(Arc<Context>),
    /// Those of one attention alone.
    Keys(Arc<Keys>),
}

/// Keys and values that share the softmax of a network's own.
#[derive(Clone, Debug)]
pub enum AppendedKeys {
    /// Tokens `(1, tokens, width)`, through each attention's own projections: for attentions to the conditioning.
    Context(Tensor),
    /// Those of one attention alone, each `(1, tokens, channels)`.
    KeyValue(Tensor, Tensor),
}

/// What a rule does to the attentions that it is for.
#[derive(Clone)]
pub enum AttentionChange {
    /// What the network's own keys find counts so much; and where, one number per latent, `(height, width)` of any size, resized
    /// to each block. Everywhere if `None`.
    Own {
        /// What it counts.
        weight: f32,
        /// Where.
        mask: Option<Arc<Tensor>>,
    },
    /// Further keys and values, with a softmax of their own: what is found there is added.
    Set {
        /// Its keys and values.
        keys: SetKeys,
        /// What it counts.
        weight: f32,
        /// Where, as of `Own`.
        mask: Option<Arc<Tensor>>,
    },
    /// Every place finds its own value, of self-attention.
    Identity,
    /// Further keys and values in the softmax of the network's own.
    Append {
        /// Its keys and values.
        keys: AppendedKeys,
        /// What its values are multiplied by.
        weight: f32,
        /// Who says so, for errors.
        owner: Arc<str>,
    },
    /// Added to the scores of the network's own keys before the softmax, for all heads: `(1 or queries, keys)`.
    Bias {
        /// The numbers.
        bias: Arc<Tensor>,
        /// Who says so, for errors.
        owner: Arc<str>,
    },
    /// What keys and values are made of is kept, of self-attention.
    Capture {
        /// Where.
        bank: Arc<Bank>,
        /// Of which picture it is.
        picture: usize,
    },
    /// What is kept is appended, through each attention's own projections; nothing where nothing is.
    FromBank {
        /// Where.
        bank: Arc<Bank>,
        /// Of which picture; of another one, if nothing is kept of it.
        picture: usize,
        /// What its values are multiplied by.
        weight: f32,
    },
    /// The attention that each key receives is kept, `(1, keys)`: the mean over heads, summed over queries.
    Received {
        /// Where.
        bank: Arc<Bank>,
        /// Of which picture it is.
        picture: usize,
    },
}

impl AttentionChange {
    /// Whether the network's own keys are others, or their scores are looked at.
    pub(super) fn is_of_own(&self) -> bool {
        matches!(
            self,
            Self::Append { .. } | Self::Bias { .. } | Self::FromBank { .. } | Self::Received { .. }
        )
    }
}

/// What a row's samples look up otherwise than the network says.
#[derive(Clone)]
pub struct AttentionRule {
    /// Where.
    pub places: AttentionPlaces,
    /// What.
    pub change: AttentionChange,
}

/// What the samples of one row of a call attend to.
#[derive(Clone, Copy)]
pub struct RowContext<'a> {
    /// The conditioning.
    pub own: &'a Context,
    /// What is otherwise; of several at one place all hold.
    pub rules: &'a [AttentionRule],
}

impl<'a> RowContext<'a> {
    /// The conditioning alone.
    pub fn own(own: &'a Context) -> Self {
        Self { own, rules: &[] }
    }

    /// How many samples it is for.
    pub(super) fn batch(&self) -> usize {
        self.own.keys.first().map_or(1, |keys| keys.batch)
    }
}

/// One call, but for the latents.
#[derive(Clone, Copy)]
pub struct UNetCall<'a> {
    /// One per sample.
    pub times: &'a [&'a TimeEmbedding],
    /// What samples attend to: their batches make up that of the latents one after the other.
    pub contexts: &'a [RowContext<'a>],
    /// What is added, `(batch, channels, height, width)` each; another shape than the place's is an error.
    pub residuals: &'a [(ResidualPlace, Tensor)],
    /// What changes tokens on the way to keys and values of self-attention; the contexts have had theirs.
    pub transforms: &'a [Arc<dyn KeyValueTransform>],
}

/// What a row's queries `(1, queries, channels)` find in its own tokens, with what changes it.
pub(super) type OfOwn<'a> = dyn Fn(&Activations, OwnTokens<'_>, &[&AttentionChange]) -> Result<Own> + 'a;

/// A row's own tokens, and where their keys and values are kept.
pub(super) type OwnTokens<'a> = (&'a Tensor, &'a OnceLock<(Activations, Activations)>);

/// A call under way.
pub(super) struct Call<'a> {
    pub device: &'a Device,
    pub of: &'a UNetCall<'a>,
    /// Residual blocks run so far.
    residual_block: usize,
    /// Cross-attentions run so far.
    cross_attention: usize,
    /// The attention that is next.
    pub place: AttentionPlace,
}

impl<'a> Call<'a> {
    pub(super) fn new(device: &'a Device, of: &'a UNetCall<'a>) -> Self {
        let place = AttentionPlace { part: SitePart::Input, index: 0, layer: 0 };
        Self { device, of, residual_block: 0, cross_attention: 0, place }
    }

    /// The next residual block's `(batch, channels)`.
    pub(super) fn time(&mut self) -> Result<Activations> {
        let index = self.residual_block;
        self.residual_block += 1;
        let of_each: Option<Vec<_>> = self.of.times.iter().map(|time| time.0.get(index)).collect();
        let Some(of_each) = of_each else { bail!("unet: a time embedding of another network") };
        self.device.stack(&of_each)
    }

    /// What changes one row's attention here.
    pub(super) fn changes(&self, row: &RowContext<'a>, is_self: bool) -> Vec<&'a AttentionChange> {
        let here = row.rules.iter().filter(|rule| rule.places.has(is_self, self.place));
        here.map(|rule| &rule.change).collect()
    }

    /// Where it is, for banks.
    pub(super) fn bank_place(&self, is_self: bool) -> BankPlace {
        let AttentionPlace { part, index, layer } = self.place;
        BankPlace { part, index, layer, is_self }
    }

    /// What the next cross-attention, over a picture of this size, finds its queries' answers in. `own` says what a row finds in
    /// its own tokens where they are not as the network says.
    pub(super) fn attend(
        &mut self,
        q: &Activations,
        size: (usize, usize),
        own: &OfOwn<'_>,
    ) -> Result<Activations> {
        let index = self.cross_attention;
        self.cross_attention += 1;
        let changes: Vec<_> = self.of.contexts.iter().map(|row| self.changes(row, false)).collect();
        let (mut of_rows, mut owns, mut start) = (vec![], vec![], 0);
        for (row, changes) in self.of.contexts.iter().zip(&changes) {
            let count = row.batch();
            of_rows.push(Changed::of(changes, index, size)?);
            owns.push(if changes.iter().any(|change| change.is_of_own()) {
                let (Some(tokens), Some(kept)) = (&row.own.tokens, row.own.own.get(index)) else {
                    bail!("unet: a context without its tokens")
                };
                Some(own(&self.device.part(q, start, count)?, (tokens, kept), changes)?)
            } else {
                None
            });
            start += count;
        }
        let mut all = vec![];
        for ((row, changed), own) in self.of.contexts.iter().zip(&of_rows).zip(&owns) {
            let keys = match own {
                Some(Own::Keys(keys)) => keys,
                Some(Own::Found(_)) | None => of_block(row.own, index)?,
            };
            let mut keys = changed.keys(keys);
            if let Some(Own::Found(found)) = own {
                keys.found = Some(found);
            }
            all.push(keys);
        }
        attention_of_rows(self.device, q, &all)
    }
}

fn of_block(context: &Context, index: usize) -> Result<&Keys> {
    match context.keys.get(index) {
        Some(keys) => Ok(keys),
        None => bail!("unet: a context of another network"),
    }
}

/// How a row's attention is changed, fitted to a block.
pub(super) struct Changed<'a> {
    own: (f32, Option<Vec<f32>>),
    sets: Vec<(&'a Keys, f32, Option<Vec<f32>>)>,
}

impl<'a> Changed<'a> {
    /// Of the cross-attention of this number, over a picture of this size.
    pub(super) fn of(
        changes: &[&'a AttentionChange],
        cross_attention: usize,
        size: (usize, usize),
    ) -> Result<Self> {
        let fitted = |mask: &Option<Arc<Tensor>>| -> Result<Option<Vec<f32>>> {
            mask.as_ref().map(|mask| fitted(mask, size.0, size.1)).transpose()
        };
        let mut changed = Self { own: (1.0, None), sets: vec![] };
        for change in changes {
            match change {
                AttentionChange::Own { weight, mask } => {
                    let (own, of_own) = &mut changed.own;
                    *own *= weight;
                    // Of several rules weights and masks are multiplied.
                    *of_own = match (of_own.take(), fitted(mask)?) {
                        (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| a * b).collect()),
                        (a, b) => a.or(b),
                    };
                }
                AttentionChange::Set { keys, weight, mask } => {
                    let keys = match keys {
                        SetKeys::Context(context) => of_block(context, cross_attention)?,
                        SetKeys::Keys(keys) => keys,
                    };
                    changed.sets.push((keys, *weight, fitted(mask)?));
                }
                AttentionChange::Identity
                | AttentionChange::Append { .. }
                | AttentionChange::Bias { .. }
                | AttentionChange::Capture { .. }
                | AttentionChange::FromBank { .. }
                | AttentionChange::Received { .. } => (),
            }
        }
        Ok(changed)
    }

    /// With the network's own keys.
    pub(super) fn keys(&'a self, own: &'a Keys) -> RowKeys<'a> {
        let (weight, mask) = &self.own;
        let set = |(keys, weight, mask): &'a (&'a Keys, f32, Option<Vec<f32>>)| KeySet {
            keys,
            weight: *weight,
            mask: mask.as_deref(),
        };
        let own = KeySet { keys: own, weight: *weight, mask: mask.as_deref() };
        RowKeys { own, found: None, sets: self.sets.iter().map(set).collect() }
    }
}

/// Between which two of `from` places the centre of the place `to` of `size` lies, and how far along.
pub(crate) fn between(to: usize, size: usize, from: usize) -> (usize, usize, f32) {
    let centre = (to as f32 + 0.5) * from as f32 / size.max(1) as f32 - 0.5;
    let centre = centre.clamp(0.0, from.saturating_sub(1) as f32);
    let low = centre.floor() as usize;
    (low, (low + 1).min(from.saturating_sub(1)), centre - low as f32)
}

/// A mask `(height, width)` over a block's positions, bilinear, sampled at their centres.
pub(crate) fn fitted(mask: &Tensor, rows: usize, columns: usize) -> Result<Vec<f32>> {
    let &[height, width] = mask.dims() else { bail!("unet: a mask {:?} is not one of rows", mask.dims()) };
    let at = |y: usize, x: usize| mask.values().get(y * width + x).copied().unwrap_or_default();
    let mut fitted = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let (top, bottom, down) = between(row, rows, height);
        for column in 0..columns {
            let (left, right, along) = between(column, columns, width);
            let upper = at(top, left) * (1.0 - along) + at(top, right) * along;
            let lower = at(bottom, left) * (1.0 - along) + at(bottom, right) * along;
            fitted.push(upper * (1.0 - down) + lower * down);
        }
    }
    Ok(fitted)
}
