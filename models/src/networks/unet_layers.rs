//! What the blocks of a UNet are made of: residual blocks, and transformers over pixels.

use std::sync::Arc;

use super::attention_bank::BankPlace;
use super::unet_call::{AttentionChange, Call, Changed};
use super::unet_own::{Projections, capture};
use crate::error::Result;
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, GatedLinear, GroupNorm, KeyValueTransform, Keys,
    LayerNorm, Linear, Loader, Own, RowKeys, Wrap, attention, attention_of_rows, keys, upload,
};

/// Two convolutions with the time embedding between them, and a way around.
#[derive(Clone)]
pub(super) struct Residual {
    norm_1: GroupNorm,
    conv_1: Conv2d,
    pub(super) time: Linear,
    norm_2: GroupNorm,
    conv_2: Conv2d,
    skip: Option<Linear>,
}

impl Residual {
    pub(super) const EPSILON: f32 = 1e-5;

    pub(super) fn load(
        loader: &Loader,
        name: &str,
        inputs: usize,
        outputs: usize,
        time: usize,
    ) -> Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm_1: GroupNorm::load(loader, &part("in_layers.0"), inputs, Self::EPSILON)?,
            conv_1: Conv2d::load(loader, &part("in_layers.2"), ConvConfig::same(inputs, outputs))?,
            time: Linear::load_f32(loader, &part("emb_layers.1"), time, outputs)?,
            norm_2: GroupNorm::load(loader, &part("out_layers.0"), outputs, Self::EPSILON)?,
            conv_2: Conv2d::load(loader, &part("out_layers.3"), ConvConfig::same(outputs, outputs))?,
            skip: (inputs != outputs)
                .then(|| Linear::load(loader, &part("skip_connection"), inputs, outputs))
                .transpose()?,
        })
    }

    pub(super) fn set_wrap(&mut self, wrap: Wrap) {
        self.conv_1.set_wrap(wrap);
        self.conv_2.set_wrap(wrap);
    }

    /// `x (batch, height, width, inputs)`.
    pub(super) fn forward(&self, x: &Activations, call: &mut Call) -> Result<Activations> {
        let time = call.time()?;
        let epilogue = Epilogue { image_bias: Some(&time), ..Epilogue::default() };
        let h = self.conv_1.forward_normed(&self.norm_1, x, &epilogue)?;
        match &self.skip {
            Some(skip) => self.conv_2.forward_normed(&self.norm_2, &h, &Epilogue::add(&skip.forward(x)?)),
            None => self.conv_2.forward_normed(&self.norm_2, &h, &Epilogue::add(x)),
        }
    }
}

/// Transformer blocks over pixels, with a way around.
#[derive(Clone)]
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    pub(super) blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

impl Transformer {
    const EPSILON: f32 = 1e-6;

    pub(super) fn load(
        loader: &Loader,
        name: &str,
        channels: usize,
        depth: usize,
        (context, heads): (usize, usize),
    ) -> Result<Self> {
        let blocks = (0..depth).map(|index| {
            TransformerBlock::load(
                loader,
                &format!("{name}.transformer_blocks.{index}"),
                channels,
                (context, heads),
            )
        });
        Ok(Self {
            norm: GroupNorm::load(loader, &format!("{name}.norm"), channels, Self::EPSILON)?,
            proj_in: Linear::load(loader, &format!("{name}.proj_in"), channels, channels)?,
            blocks: blocks.collect::<Result<_>>()?,
            proj_out: Linear::load(loader, &format!("{name}.proj_out"), channels, channels)?,
        })
    }

    /// `x (batch, height, width, channels)`.
    pub(super) fn forward(&self, x: &Activations, call: &mut Call) -> Result<Activations> {
        let (batch, height, width, channels) = x.dims4()?;
        let h = self.proj_in.forward(&self.norm.forward(x)?)?;
        let mut h = h.reshaped([batch, height * width, channels])?;
        for (layer, block) in self.blocks.iter().enumerate() {
            call.place.layer = layer;
            h = block.forward(h, (height, width), call)?;
        }
        self.proj_out.forward_with(&h.reshaped([batch, height, width, channels])?, &Epilogue::add(x))
    }
}

/// Self-attention, cross-attention, feed-forward.
#[derive(Clone)]
pub(super) struct TransformerBlock {
    norm_1: LayerNorm,
    attention_1: Attention,
    norm_2: LayerNorm,
    pub(super) attention_2: Attention,
    norm_3: LayerNorm,
    feed_in: GatedLinear,
    feed_out: Linear,
}

impl TransformerBlock {
    pub(super) fn load(
        loader: &Loader,
        name: &str,
        channels: usize,
        (context, heads): (usize, usize),
    ) -> Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        let inner = channels * 4;
        Ok(Self {
            norm_1: LayerNorm::load(loader, &part("norm1"), channels)?,
            attention_1: Attention::load(loader, &part("attn1"), channels, channels, heads)?,
            norm_2: LayerNorm::load(loader, &part("norm2"), channels)?,
            attention_2: Attention::load(loader, &part("attn2"), channels, context, heads)?,
            norm_3: LayerNorm::load(loader, &part("norm3"), channels)?,
            feed_in: GatedLinear::load(loader, &part("ff.net.0.proj"), channels, inner)?,
            feed_out: Linear::load(loader, &part("ff.net.2"), inner, channels)?,
        })
    }

    /// `x (batch, height · width, channels)` of a picture of this size.
    pub(super) fn forward(
        &self,
        x: Activations,
        size: (usize, usize),
        call: &mut Call,
    ) -> Result<Activations> {
        let precision = x.precision();
        let h = self.norm_1.forward(&x, precision)?;
        let h = self.attention_1.attend(&h, size, call)?;
        let h = self.attention_1.out.forward_with(&h, &Epilogue::add(&x))?;
        drop(x);
        let x = h;
        let q = self.attention_2.query.forward(&self.norm_2.forward(&x, precision)?)?;
        let (device, place) = (call.device, call.bank_place(false));
        let projections = self.attention_2.projections(device, call.of.transforms, place);
        let h = call.attend(&q, size, &|q, (tokens, kept), changes| {
            // The same at each step: made once.
            let own = if let Some(own) = kept.get() {
                own.clone()
            } else {
                let own = projections.of(&device.convert(&upload(device, tokens)?, precision)?)?;
                kept.get_or_init(|| own).clone()
            };
            projections.own(q, own, precision, changes)
        })?;
        let x = self.attention_2.out.forward_with(&h, &Epilogue::add(&x))?;
        let h = self.feed_in.forward(&self.norm_3.forward(&x, precision)?)?;
        self.feed_out.forward_with(&h, &Epilogue::add(&x))
    }
}

#[derive(Clone)]
pub(super) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    pub(super) fn load(
        loader: &Loader,
        name: &str,
        channels: usize,
        context: usize,
        heads: usize,
    ) -> Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            query: Linear::load_no_bias(loader, &part("to_q"), channels, channels)?,
            key: Linear::load_no_bias(loader, &part("to_k"), context, channels)?,
            value: Linear::load_no_bias(loader, &part("to_v"), context, channels)?,
            out: Linear::load(loader, &part("to_out.0"), channels, channels)?,
            heads,
        })
    }

    /// Keys and values of `x (batch, tokens, context width)`.
    pub(super) fn keys(
        &self,
        device: &Device,
        x: &Activations,
        transforms: &[Arc<dyn KeyValueTransform>],
    ) -> Result<Keys> {
        let (mut of_keys, mut of_values) = (x.clone(), x.clone());
        for transform in transforms.iter().filter(|transform| transform.applies_to(x.channels())) {
            of_keys = transform.keys(device, &of_keys)?;
            of_values = transform.values(device, &of_values)?;
        }
        keys(device, &self.key.forward(&of_keys)?, &self.value.forward(&of_values)?, self.heads)
    }

    /// Values of `x (batch, tokens, context width)`, as [`Self::keys`] has them.
    fn values(
        &self,
        device: &Device,
        x: &Activations,
        transforms: &[Arc<dyn KeyValueTransform>],
    ) -> Result<Activations> {
        let mut of_values = x.clone();
        for transform in transforms.iter().filter(|transform| transform.applies_to(x.channels())) {
            of_values = transform.values(device, &of_values)?;
        }
        self.value.forward(&of_values)
    }

    /// What makes its keys and values.
    fn projections<'a>(
        &'a self,
        device: &'a Device,
        transforms: &'a [Arc<dyn KeyValueTransform>],
        place: BankPlace,
    ) -> Projections<'a> {
        Projections { device, key: &self.key, value: &self.value, heads: self.heads, transforms, place }
    }

    /// What places of a picture of this size find in each other, `h (batch, height · width, channels)`.
    fn attend(&self, h: &Activations, size: (usize, usize), call: &Call) -> Result<Activations> {
        let (device, transforms) = (call.device, call.of.transforms);
        let changes: Vec<_> = call.of.contexts.iter().map(|row| call.changes(row, true)).collect();
        if changes.iter().all(Vec::is_empty) {
            let keys = self.keys(device, h, transforms)?;
            return attention(device, &self.query.forward(h)?, &keys, false);
        }
        // Rows one after the other that are alike go together.
        let mut found = vec![];
        let mut start = 0;
        let rows: Vec<_> = call.of.contexts.iter().zip(&changes).collect();
        for rows in rows.chunk_by(|(_, a), (_, b)| kind(a) == kind(b) && kind(a) != Kind::Changed) {
            let Some((_, changes)) = rows.first() else { continue };
            let count = rows.iter().map(|(row, _)| row.batch()).sum();
            let part = device.part(h, start, count)?;
            let mut at = 0;
            for (row, changes) in rows {
                capture(device, call.bank_place(true), changes, || device.part(&part, at, row.batch()))?;
                at += row.batch();
            }
            start += count;
            found.push(match kind(changes) {
                Kind::Identity => self.values(device, &part, transforms)?,
                Kind::Plain => {
                    let keys = self.keys(device, &part, transforms)?;
                    attention(device, &self.query.forward(&part)?, &keys, false)?
                }
                Kind::Changed => {
                    let q = self.query.forward(&part)?;
                    let changed = Changed::of(changes, usize::MAX, size)?;
                    let own = if changes.iter().any(|change| change.is_of_own()) {
                        let projections = self.projections(device, transforms, call.bank_place(true));
                        projections.own(&q, projections.of(&part)?, part.precision(), changes)?
                    } else {
                        Own::Keys(self.keys(device, &part, transforms)?)
                    };
                    match own {
                        Own::Keys(keys) => attention_of_rows(device, &q, &[changed.keys(&keys)])?,
                        Own::Found(found) => {
                            let keys = self.keys(device, &part, transforms)?;
                            attention_of_rows(
                                device,
                                &q,
                                &[RowKeys { found: Some(&found), ..changed.keys(&keys) }],
                            )?
                        }
                    }
                }
            });
        }
        device.stack(&found.iter().collect::<Vec<_>>())
    }
}

/// How a row's self-attention is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Whatever else holds there.
    Identity,
    Changed,
}

fn kind(changes: &[&AttentionChange]) -> Kind {
    if changes.iter().any(|change| matches!(change, AttentionChange::Identity)) {
        return Kind::Identity;
    }
    let is_kept = |change: &&AttentionChange| matches!(change, AttentionChange::Capture { .. });
    if changes.iter().all(is_kept) { Kind::Plain } else { Kind::Changed }
}
