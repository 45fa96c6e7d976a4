//! `ParseNet`: which part of a face each pixel is.
//!
//! Source: Chen et al. 2021, "Progressive Semantic-Aware Style Transformation for Blind Face Restoration";
//! github.com/chaofengc/PSFRGAN. What files are called (parsing_parsenet.pth) and have is facexlib's. The picture that it makes
//! besides is not asked for.

use super::parts::{leaks, mirrored, normed, picture};
use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::networks::file_network::FileNetwork;
use crate::networks::standalone::{Described, Entry, Port, Side};
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Run, Vector, add, resized_nearest, upload,
};
use crate::tensor::Tensor;

/// Halvings that a face can take.
const MOST_HALVINGS: usize = 8;

/// What a block does to the sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
    Halved,
    Kept,
    Doubled,
}

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    first: usize,
    /// Channels that go in and come out.
    blocks: Vec<(String, Sides, usize, usize)>,
    /// Blocks before and after which features are added.
    halvings: usize,
    bodies: usize,
    /// Parts of a face.
    parts: usize,
}

/// A convolution of what a mirror stands around, at stride 1 or 2.
fn plain(loader: &Loader, name: &str, (inputs, outputs): (usize, usize), stride: usize) -> Result<Conv2d> {
    Conv2d::load(loader, &format!("{name}.conv2d"), bare(inputs, outputs, stride))
}

fn bare(inputs: usize, outputs: usize, stride: usize) -> ConvConfig {
    ConvConfig { pad_before: 0, pad_after: 0, stride, ..ConvConfig::same(inputs, outputs) }
}

/// Two convolutions and a way around.
struct Block {
    sides: Sides,
    first: Conv2d,
    leaks: Vector,
    second: Conv2d,
    around: Option<Conv2d>,
}

impl Block {
    fn load(loader: &Loader, name: &str, sides: Sides, (inputs, outputs): (usize, usize)) -> Result<Self> {
        let stride = if sides == Sides::Halved { 2 } else { 1 };
        let of = |part: &str, config| {
            normed(loader, &format!("{name}.{part}.conv2d"), &format!("{name}.{part}.norm.norm"), config)
        };
        let is_plain = sides == Sides::Kept && inputs == outputs;
        let around = || plain(loader, &format!("{name}.shortcut_func"), (inputs, outputs), stride);
        Ok(Self {
            sides,
            first: of("conv1", bare(inputs, outputs, 1))?,
            leaks: leaks(loader, outputs)?,
            second: of("conv2", bare(outputs, outputs, stride))?,
            around: (!is_plain).then(around).transpose()?,
        })
    }

    fn forward(&self, device: &Device, x: &Activations) -> Result<Activations> {
        let (_, height, width, _) = x.dims4()?;
        let larger = match self.sides {
            Sides::Doubled => resized_nearest(device, x, 2 * height, 2 * width)?,
            Sides::Halved | Sides::Kept => x.clone(),
        };
        let bordered = mirrored(device, &larger)?;
        let leaky = Epilogue { slopes: Some(&self.leaks), ..Epilogue::default() };
        let h = self.first.forward_with(&bordered, &leaky)?;
        let around = self.around.as_ref().map(|around| around.forward(&bordered)).transpose()?;
        drop((bordered, larger));
        let residual = Epilogue::add(around.as_ref().unwrap_or(x));
        self.second.forward_with(&mirrored(device, &h)?, &residual)
    }
}

/// The network.
pub(in crate::networks) struct ParseNet {
    first: Conv2d,
    blocks: Vec<Block>,
    halvings: usize,
    bodies: usize,
    parts: Conv2d,
}

impl FileNetwork for ParseNet {
    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        ["encoder.0.conv2d.weight", "out_mask_conv.conv2d.weight", "body.0.conv1.conv2d.weight"]
            .iter()
            .all(|name| file.shape(&format!("{prefix}{name}")).is_some())
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let size = |name: &str| dim(file, &format!("{prefix}{name}.conv2d.weight"), 0);
        let halvings = count(file, |block| format!("{prefix}encoder.{}.", block + 1));
        let doublings = count(file, |block| format!("{prefix}decoder.{block}."));
        if halvings != doublings || halvings > MOST_HALVINGS {
            let reason = format!(
                "halves faces {halvings} times and doubles them {doublings} times; both are as many, and at most {MOST_HALVINGS}"
            );
            return Err(Error::model(file.path(), reason));
        }
        let first = size("encoder.0")?;
        let bodies = count(file, |block| format!("{prefix}body.{block}."));
        let names = (1..=halvings).map(|block| (format!("encoder.{block}"), Sides::Halved));
        let names = names.chain((0..bodies).map(|block| (format!("body.{block}"), Sides::Kept)));
        let names = names.chain((0..doublings).map(|block| (format!("decoder.{block}"), Sides::Doubled)));
        let mut inputs = first;
        let block = |(name, sides): (String, Sides)| {
            let outputs = size(&format!("{name}.conv1"))?;
            let block = (name, sides, inputs, outputs);
            inputs = outputs;
            Ok(block)
        };
        let blocks = names.map(block).collect::<Result<_>>()?;
        Ok(Config { first, blocks, halvings, bodies, parts: size("out_mask_conv")? })
    }

    fn described(config: &Config) -> Described {
        let sides = || [Side::Free("height"), Side::Free("width")];
        let [height, width] = sides();
        let entry = Entry {
            name: "",
            inputs: vec![picture("image", "a face in red, green and blue, -1 to 1", sides())],
            outputs: vec![Port {
                name: "parts",
                sides: vec![Side::Free("batch"), Side::Fixed(config.parts), height, width],
                about: "how much each pixel is of each part; the largest counts",
            }],
        };
        Described { kind: "parsenet", entries: vec![entry] }
    }

    fn tried(config: &Config) -> usize {
        (64 << config.halvings).min(512)
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let named = |name: &str| format!("{prefix}{name}");
        let block = |(name, sides, inputs, outputs): &(String, Sides, usize, usize)| {
            Block::load(loader, &named(name), *sides, (*inputs, *outputs))
        };
        let last = config.blocks.last().map_or(config.first, |(_, _, _, outputs)| *outputs);
        let first = format!("{}.conv2d", named("encoder.0"));
        Ok(Self {
            first: Conv2d::load_f32(loader, &first, bare(3, config.first, 1))?,
            blocks: config.blocks.iter().map(block).collect::<Result<_>>()?,
            halvings: config.halvings,
            bodies: config.bodies,
            parts: plain(loader, &named("out_mask_conv"), (last, config.parts), 1)?,
        })
    }

    /// What makes a picture is not asked, and norms count the batches that they were trained on.
    fn may_be_left(name: &str) -> bool {
        name.starts_with("out_img_conv.") || name.ends_with(".num_batches_tracked")
    }

    fn forward(&self, _entry: &str, inputs: &[Tensor], device: &Device, run: &Run) -> Result<Vec<Tensor>> {
        let [image] = inputs else { bail!("parsenet: {} inputs, one is taken", inputs.len()) };
        let (_, _, height, width) = image.dims4()?;
        let multiple = 1 << self.halvings;
        if !height.is_multiple_of(multiple) || !width.is_multiple_of(multiple) {
            bail!("parsenet: a face of {width}x{height}; multiples of {multiple} are taken");
        }
        run.enter(device, format_args!("parsenet.first"))?;
        let x = upload(device, &image.to_channels_last()?)?;
        let h = self.first.forward(&mirrored(device, &x)?)?;
        let mut h = device.convert(&h, self.parts.precision())?;
        let mut before = None;
        for (index, block) in self.blocks.iter().enumerate() {
            run.enter(device, format_args!("parsenet.{index}"))?;
            if index == self.halvings {
                before = Some(h.clone());
            }
            h = block.forward(device, &h)?;
            if index + 1 == self.halvings + self.bodies
                && let Some(before) = before.take()
            {
                h = add(device, &before, &h)?;
            }
        }
        run.enter(device, format_args!("parsenet.last"))?;
        let made = self.parts.forward_with(&mirrored(device, &h)?, &Epilogue::widened())?;
        Ok(vec![Tensor::new(device.download(&made)?, made.dims())?.to_channels_first()?])
    }
}
