//! `CodeFormer`: an encoder sees a face, a transformer guesses which entries of a codebook it is made of, and a generator draws
//! these; how much of what the encoder saw goes on to the generator is the weight.
//!
//! Source: Zhou et al. 2022, "Towards Robust Blind Face Restoration with Codebook Lookup Transformer"; github.com/sczhou/CodeFormer.
//! Its heads are 8: no tensor tells.

use std::collections::BTreeMap;

use super::parts::{alone, leaks, picture};
use super::vqgan::{self, Block, Kind, Shape};
use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::networks::file_network::FileNetwork;
use crate::networks::standalone::{Described, Entry, Port, Side};
use crate::networks::vae::Residual;
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, LayerNorm, Linear, Loader, Pointwise, Precision, Run,
    Vector, add, attention, cat_channels, keys, multiply, upload,
};
use crate::tensor::Tensor;

/// Heads of the transformer.
const HEADS: usize = 8;

/// Added to variances whose roots are taken.
const EPSILON: f64 = 1e-5;

/// Halvings of a face of 1024 to codes of 16.
const MOST_HALVINGS: usize = 6;

/// The part that leaves the codes' colours as they are.
const PLAIN: &str = "plain";

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    encoder: Vec<Shape>,
    generator: Vec<Shape>,
    /// Codes of a face in a row.
    codes: usize,
    /// Entries of the codebook, and numbers of each.
    book: (usize, usize),
    /// Numbers of a token, and of what lies within a layer.
    width: usize,
    hidden: usize,
    layers: usize,
    /// Sides of the features that go on, with their channels.
    fused: BTreeMap<usize, usize>,
}

impl Config {
    /// Sides of the face.
    fn side(&self) -> usize {
        self.codes << vqgan::resizes(&self.encoder)
    }
}

/// Of each block: at which of its outputs features go on, as sides. In the encoder the last before a halving, in the generator the
/// first after a doubling; at both ends, where there are no more, the same.
fn places(shapes: &[Shape], side: usize, halves: bool) -> BTreeMap<usize, (usize, usize)> {
    let (mut side, mut places) = (side, BTreeMap::new());
    let mut is_new = false;
    for (index, shape) in shapes.iter().enumerate() {
        match shape.kind {
            Kind::Resize => {
                if halves && let Some(before) = index.checked_sub(1) {
                    places.insert(side, (before, shape.inputs));
                }
                side = if halves { side / 2 } else { side * 2 };
                is_new = true;
            }
            Kind::Residual if is_new && !halves => {
                places.insert(side, (index, shape.outputs));
                is_new = false;
            }
            _ => (),
        }
    }
    places
}

/// A layer of the transformer.
struct Layer {
    norm1: LayerNorm,
    /// Queries and keys of one, values of the other.
    query_key: Conv2d,
    value: Conv2d,
    projected: Linear,
    norm2: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl Layer {
    fn load(loader: &Loader, name: &str, config: &Config) -> Result<Self> {
        let Config { width, hidden, .. } = *config;
        let named = |part: &str| format!("{name}.{part}");
        let weight = loader.numbers(&named("self_attn.in_proj_weight"), &[3 * width, width])?;
        let bias = loader.numbers(&named("self_attn.in_proj_bias"), &[3 * width])?;
        let (of_value, bias_of_value) = (2 * width * width, 2 * width);
        let part = |outputs, weight: &[f32], bias: &[f32]| {
            let weight = if loader.device().computes() { weight } else { &[] };
            Conv2d::of_numbers(loader, name, alone(width, outputs), weight, bias.to_vec())
        };
        Ok(Self {
            norm1: LayerNorm::load(loader, &named("norm1"), width)?,
            query_key: part(2 * width, &weight[..of_value], &bias[..bias_of_value])?,
            value: part(width, &weight[of_value..], &bias[bias_of_value..])?,
            projected: Linear::load(loader, &named("self_attn.out_proj"), width, width)?,
            norm2: LayerNorm::load(loader, &named("norm2"), width)?,
            wide: Linear::load(loader, &named("linear1"), width, hidden)?,
            narrow: Linear::load(loader, &named("linear2"), hidden, width)?,
        })
    }

    /// `(1, tokens, width)` f32 of the same; `places` are added to what queries and keys are made of.
    fn forward(
        &self,
        device: &Device,
        x: &Activations,
        places: &Activations,
        precision: Precision,
    ) -> Result<Activations> {
        let (_, tokens, width) = x.dims3()?;
        let rows = |x: &Activations| x.clone().reshaped([1, 1, tokens, width]);
        let normed = self.norm1.forward(x, Precision::F32)?;
        let placed = device.convert(&add(device, &normed, places)?, precision)?;
        let query_key = self.query_key.forward(&rows(&placed)?)?.reshaped([2 * tokens, width])?;
        let half = |which: usize| device.rows(&query_key, &[1, tokens, width], &|at| 2 * at + which);
        let value = self.value.forward(&rows(&device.convert(&normed, precision)?)?)?;
        let keys = keys(device, &half(1)?, &value.reshaped([1, tokens, width])?, HEADS)?;
        let seen = attention(device, &half(0)?, &keys, false)?;
        let x = self.projected.forward_with(&seen, &Epilogue::add(x))?;
        let wide = self.wide.forward(&self.norm2.forward(&x, precision)?)?;
        self.narrow.forward_with(&device.pointwise(&wide, Pointwise::Gelu)?, &Epilogue::add(&x))
    }
}

/// What the encoder saw, on its way to the generator.
struct Fuse {
    joined: Residual,
    factor: (Conv2d, Conv2d),
    shift: (Conv2d, Conv2d),
    leaks: Vector,
}

impl Fuse {
    fn load(loader: &Loader, name: &str, width: usize) -> Result<Self> {
        let same = ConvConfig::same(width, width);
        let two = |part: &str| {
            let load = |index: usize| Conv2d::load(loader, &format!("{name}.{part}.{index}"), same);
            Ok::<_, Error>((load(0)?, load(2)?))
        };
        Ok(Self {
            joined: Residual::load_around(
                loader,
                &format!("{name}.encode_enc"),
                "conv_out",
                (2 * width, width),
            )?,
            factor: two("scale")?,
            shift: two("shift")?,
            leaks: leaks(loader, width)?,
        })
    }

    /// `drawn` + weight · (`drawn` · factor + shift), which are made of both.
    fn forward(
        &self,
        device: &Device,
        seen: &Activations,
        drawn: &Activations,
        weight: f32,
    ) -> Result<Activations> {
        let joined = self.joined.forward(cat_channels(device, seen, drawn)?)?;
        let leaky = Epilogue { slopes: Some(&self.leaks), ..Epilogue::default() };
        let made = |(first, second): &(Conv2d, Conv2d)| second.forward(&first.forward_with(&joined, &leaky)?);
        let steered = add(device, &multiply(device, drawn, &made(&self.factor)?)?, &made(&self.shift)?)?;
        device.blend((drawn, 1.0, None), Some((&steered, weight, None)))
    }
}

/// The network.
pub(in crate::networks) struct CodeFormer {
    side: usize,
    codes: usize,
    precision: Precision,
    encoder: Vec<Block>,
    generator: Vec<Block>,
    places: Tensor,
    embedded: Linear,
    layers: Vec<Layer>,
    norm: LayerNorm,
    guessed: Linear,
    /// Entries, with how many numbers each has.
    book: (Vec<f32>, usize),
    /// By the encoder's block, and by the generator's: which of the fusions.
    seen_at: BTreeMap<usize, usize>,
    drawn_at: BTreeMap<usize, usize>,
    fusions: Vec<Fuse>,
}

impl FileNetwork for CodeFormer {
    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        ["position_emb", "quantize.embedding.weight", "ft_layers.0.self_attn.in_proj_weight"]
            .iter()
            .all(|name| file.shape(&format!("{prefix}{name}")).is_some())
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let named = |name: &str| format!("{prefix}{name}");
        let size = |name: &str, index: usize| dim(file, &named(name), index);
        let wrong = |reason: String| Error::model(file.path(), reason);
        let [encoder, generator] = ["encoder.blocks", "generator.blocks"].map(|name| {
            let shapes = vqgan::shapes(file, &named(name))?;
            vqgan::check(file, name, &shapes)?;
            Ok::<_, Error>(shapes)
        });
        let (encoder, generator) = (encoder?, generator?);
        let (tokens, width) = (size("position_emb", 0)?, size("position_emb", 1)?);
        let codes = tokens.isqrt();
        let halvings = vqgan::resizes(&encoder);
        if codes * codes != tokens || codes > 64 || !width.is_multiple_of(HEADS) {
            let reason = format!(
                "tensor {} is [{tokens}, {width}]; a square of places and a multiple of {HEADS} numbers are needed",
                named("position_emb")
            );
            return Err(wrong(reason));
        }
        if halvings != vqgan::resizes(&generator) || halvings > MOST_HALVINGS {
            let reason = format!(
                "halves faces {halvings} times and doubles them {} times; both are as many, and at most {MOST_HALVINGS}",
                vqgan::resizes(&generator)
            );
            return Err(wrong(reason));
        }
        let side = codes << halvings;
        let (seen, drawn) = (places(&encoder, side, true), places(&generator, codes, false));
        let is_fused = |side: &usize| file.has_under(&named(&format!("fuse_convs_dict.{side}.")));
        let fused = drawn.iter().filter(|(side, _)| seen.contains_key(side) && is_fused(side));
        let fused = fused.map(|(side, (_, channels))| (*side, *channels)).collect();
        let layers = count(file, |layer| named(&format!("ft_layers.{layer}.")));
        Ok(Config {
            codes,
            book: (size("quantize.embedding.weight", 0)?, size("quantize.embedding.weight", 1)?),
            width,
            hidden: size("ft_layers.0.linear1.weight", 0)?,
            layers,
            fused,
            encoder,
            generator,
        })
    }

    fn described(config: &Config) -> Described {
        let sides = [Side::Fixed(config.side()), Side::Fixed(config.side())];
        let entry = |name| Entry {
            name,
            inputs: vec![
                picture("image", "a face in red, green and blue, -1 to 1", sides),
                Port {
                    name: "weight",
                    sides: vec![Side::Free("batch")],
                    about: "how far the face given counts: 0 (most restored) to 1",
                },
            ],
            outputs: vec![picture("image", "the face restored, about -1 to 1", sides)],
        };
        Described { kind: "codeformer", entries: vec![entry(""), entry(PLAIN)] }
    }

    fn tried(config: &Config) -> usize {
        config.side()
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let named = |name: &str| format!("{prefix}{name}");
        let Config { codes, width, book, .. } = *config;
        let blocks = |name: &str, shapes: &[Shape], halves: bool| {
            let load =
                |(index, shape): (usize, &Shape)| Block::load(loader, &named(name), (index, *shape), halves);
            shapes.iter().enumerate().map(load).collect::<Result<Vec<_>>>()
        };
        let side = config.side();
        let at = |places: &BTreeMap<usize, (usize, usize)>| {
            let sides = config.fused.keys().enumerate();
            sides.filter_map(|(which, side)| places.get(side).map(|(block, _)| (*block, which))).collect()
        };
        let fuse = |(side, channels): (&usize, &usize)| {
            Fuse::load(loader, &named(&format!("fuse_convs_dict.{side}")), *channels)
        };
        let layer = |layer: usize| Layer::load(loader, &named(&format!("ft_layers.{layer}")), config);
        let places_of = loader.numbers(&named("position_emb"), &[codes * codes, width])?;
        Ok(Self {
            side,
            codes,
            precision: loader.precision(),
            encoder: blocks("encoder.blocks", &config.encoder, true)?,
            generator: blocks("generator.blocks", &config.generator, false)?,
            places: Tensor::new(places_of, [1, codes * codes, width])?,
            embedded: Linear::load_f32(loader, &named("feat_emb"), book.1, width)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: LayerNorm::load(loader, &named("idx_pred_layer.0"), width)?,
            guessed: Linear::load_no_bias(loader, &named("idx_pred_layer.1"), width, book.0)?,
            book: (loader.numbers(&named("quantize.embedding.weight"), &[book.0, book.1])?, book.1),
            seen_at: at(&places(&config.encoder, side, true)),
            drawn_at: at(&places(&config.generator, codes, false)),
            fusions: config.fused.iter().map(fuse).collect::<Result<_>>()?,
        })
    }

    fn may_be_left(_name: &str) -> bool {
        false
    }

    fn forward(&self, entry: &str, inputs: &[Tensor], device: &Device, run: &Run) -> Result<Vec<Tensor>> {
        let [image, weight] = inputs else { bail!("codeformer: {} inputs, two are taken", inputs.len()) };
        let (&[weight], true) = (weight.values(), image.dims() == [1, 3, self.side, self.side]) else {
            bail!("codeformer: a face {:?}, {} pixels a side are taken", image.dims(), self.side);
        };
        if !(0.0..=1.0).contains(&weight) {
            bail!("codeformer: a weight of {weight}; 0 to 1 are taken");
        }
        let mut h = upload(device, &image.to_channels_last()?)?;
        let mut seen = BTreeMap::new();
        for (index, block) in self.encoder.iter().enumerate() {
            run.enter(device, format_args!("codeformer.encoder{index}"))?;
            h = block.forward(device, h, self.precision)?;
            if let Some(which) = self.seen_at.get(&index) {
                seen.insert(*which, h.clone());
            }
        }
        let low = device.download(&h)?;
        let mut codes = self.guess(&h, device, run)?;
        if entry != PLAIN {
            coloured_as(&mut codes, &low, self.book.1);
        }
        h = device.upload(&codes, h.dims())?;
        for (index, block) in self.generator.iter().enumerate() {
            run.enter(device, format_args!("codeformer.generator{index}"))?;
            h = block.forward(device, h, self.precision)?;
            if let Some(which) = self.drawn_at.get(&index).filter(|_| weight > 0.0)
                && let (Some(fusion), Some(seen)) = (self.fusions.get(*which), seen.get(which))
            {
                h = fusion.forward(device, seen, &h, weight)?;
            }
        }
        Ok(vec![Tensor::new(device.download(&h)?, h.dims())?.to_channels_first()?])
    }
}

impl CodeFormer {
    /// The entries of the codebook that features `(1, codes, codes, numbers)` f32 are taken for, place by place.
    fn guess(&self, features: &Activations, device: &Device, run: &Run) -> Result<Vec<f32>> {
        let tokens = self.codes * self.codes;
        let numbers = self.book.1;
        let places = device.upload(self.places.values(), self.places.dims())?;
        let mut x = self.embedded.forward(&features.clone().reshaped([1, tokens, numbers])?)?;
        for (index, layer) in self.layers.iter().enumerate() {
            run.enter(device, format_args!("codeformer.layer{index}"))?;
            x = layer.forward(device, &x, &places, self.precision)?;
        }
        run.enter(device, format_args!("codeformer.codes"))?;
        let normed = self.norm.forward(&x, self.precision)?;
        let guessed = device.download(&self.guessed.forward_with(&normed, &Epilogue::widened())?)?;
        let entries = guessed.len() / tokens;
        let mut codes = Vec::with_capacity(tokens * numbers);
        for chances in guessed.chunks_exact(entries.max(1)) {
            // The first of those that are as likely.
            let likely = chances.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
            let entry = likely.map_or(0, |(entry, _)| entry);
            codes.extend_from_slice(&self.book.0[entry * numbers..][..numbers]);
        }
        Ok(codes)
    }
}

/// Gives each of so many channels of `codes` the mean and the deviation that it has in `like`: both `(places, channels)`.
fn coloured_as(codes: &mut [f32], like: &[f32], channels: usize) {
    let moments = |values: &[f32], channel: usize| {
        let of_channel = || values.iter().skip(channel).step_by(channels).map(|value| f64::from(*value));
        let count = of_channel().count() as f64;
        let mean = of_channel().sum::<f64>() / count;
        let variance = of_channel().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, (variance + EPSILON).sqrt())
    };
    for channel in 0..channels {
        let (mean, deviation) = moments(codes, channel);
        let (wanted, wanted_deviation) = moments(like, channel);
        for value in codes.iter_mut().skip(channel).step_by(channels) {
            *value = ((f64::from(*value) - mean) / deviation * wanted_deviation + wanted) as f32;
        }
    }
}
