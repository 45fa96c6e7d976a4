//! T2I-Adapter (Mou et al. 2023, arXiv:2302.08453): features of a picture, which are added to the last output of each level of a
//! UNet's way down. In the full form and the light one.

use std::sync::Arc;

use super::adapter_names::{AdapterNames, BlockNames};
use super::places::level;
use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::standalone::{Described, Entry, Found, Port, Side, Standalone};
use crate::networks::upscalers::picture::Bringing;
use crate::nn::backend::dry_run::dry_run;
use crate::nn::{
    Activation, Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Precision, Run, add, multiply,
    upload,
};
use crate::tensor::Tensor;

/// Pixels of a square that become one place of more channels.
const SQUARE: usize = 8;

/// Sides of the picture that is tried out to reckon with memory.
const TRIED: usize = 512;

/// The one part.
const FEATURES: &str = "features";

/// A layer: its name, and what it is.
#[derive(Clone)]
struct Layer {
    name: String,
    config: ConvConfig,
}

#[derive(Clone)]
struct BlockConfig {
    first: Option<Layer>,
    convolutions: [Layer; 2],
    around: Option<Layer>,
}

#[derive(Clone)]
struct LevelConfig {
    blocks: Vec<BlockConfig>,
    last: Option<Layer>,
}

/// What can be told from the tensors.
#[derive(Clone)]
struct Config {
    colours: usize,
    first: Option<Layer>,
    levels: Vec<LevelConfig>,
}

/// A file's adapter before it is read.
struct AdapterFile {
    described: Described,
    config: Config,
    bytes_per_pixel: u64,
}

/// That of a file, if it has one.
pub(in crate::networks) fn find(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    let names = AdapterNames::of(file)?;
    Some(AdapterFile::new(file, &names).map(|found| Arc::new(found) as Arc<dyn Found>))
}

impl Layer {
    /// That keeps the size; what it is its weight tells.
    fn detect(file: &Tensors, name: &str) -> Result<Self> {
        let weight = format!("{name}.weight");
        let refused = |shape: &[usize]| {
            Error::model(file.path(), format!("tensor {weight} is {shape:?}, no convolution's"))
        };
        let shape = file
            .shape(&weight)
            .ok_or_else(|| Error::model(file.path(), format!("missing tensor {weight}")))?;
        match shape {
            [outputs, inputs, kernel @ (1 | 3), columns]
                if kernel == columns && *outputs > 0 && *inputs > 0 =>
            {
                let pad = kernel / 2;
                let config = ConvConfig {
                    kernel: *kernel,
                    pad_before: pad,
                    pad_after: pad,
                    ..ConvConfig::same(*inputs, *outputs)
                };
                Ok(Self { name: name.to_owned(), config })
            }
            other => Err(refused(other)),
        }
    }

    fn load(&self, loader: &Loader) -> Result<Conv2d> {
        Conv2d::load_f32(loader, &self.name, self.config)
    }
}

impl Config {
    fn detect(file: &Tensors, names: &AdapterNames) -> Result<Self> {
        let layer = |name: &String| Layer::detect(file, name);
        let there = |name: &Option<String>| name.as_ref().map(layer).transpose();
        let block = |BlockNames { first, convolutions: [one, two], around }: &BlockNames| {
            Ok(BlockConfig {
                first: there(first)?,
                convolutions: [layer(one)?, layer(two)?],
                around: there(around)?,
            })
        };
        let levels = names.levels.iter().map(|level| {
            Ok(LevelConfig {
                blocks: level.blocks.iter().map(block).collect::<Result<_>>()?,
                last: there(&level.last)?,
            })
        });
        let (first, levels) = (there(&names.first)?, levels.collect::<Result<Vec<_>>>()?);
        let inputs = first
            .iter()
            .chain(levels.first().and_then(|level| level.blocks.first()).map(BlockConfig::entered))
            .next();
        let inputs = inputs.map(|layer| layer.config.inputs).unwrap_or_default();
        let colours = inputs / (SQUARE * SQUARE);
        if colours * SQUARE * SQUARE != inputs || !matches!(colours, 1 | 3) {
            let reason = format!(
                "is an adapter of {inputs} inputs; those of SD 1 have 64 or 192, squares of a grey or of a coloured picture"
            );
            return Err(Error::model(file.path(), reason));
        }
        Ok(Self { colours, first, levels })
    }

    /// Channels that come out of each level.
    fn outputs(&self) -> Vec<usize> {
        let of = |level: &LevelConfig| {
            let last = level.blocks.last().map(|block| block.convolutions[1].config.outputs);
            level.last.as_ref().map(|layer| layer.config.outputs).or(last).unwrap_or_default()
        };
        self.levels.iter().map(of).collect()
    }
}

impl BlockConfig {
    /// The layer that what comes in goes through.
    fn entered(&self) -> &Layer {
        self.first.as_ref().unwrap_or(&self.convolutions[0])
    }
}

struct Block {
    first: Option<Conv2d>,
    convolutions: [Conv2d; 2],
    around: Option<Conv2d>,
}

struct Level {
    blocks: Vec<Block>,
    last: Option<Conv2d>,
}

/// The network. In f32 throughout: it runs once for a picture, and all steps rely on it.
struct Adapter {
    device: Device,
    first: Option<Conv2d>,
    levels: Vec<Level>,
}

impl Adapter {
    fn load(loader: &Loader, config: &Config) -> Result<Self> {
        let there = |layer: &Option<Layer>| layer.as_ref().map(|layer| layer.load(loader)).transpose();
        let block = |BlockConfig { first, convolutions: [one, two], around }: &BlockConfig| {
            Ok(Block {
                first: there(first)?,
                convolutions: [one.load(loader)?, two.load(loader)?],
                around: there(around)?,
            })
        };
        let level = |level: &LevelConfig| {
            Ok(Level {
                blocks: level.blocks.iter().map(block).collect::<Result<_>>()?,
                last: there(&level.last)?,
            })
        };
        let levels = config.levels.iter().map(level).collect::<Result<_>>()?;
        Ok(Self { first: there(&config.first)?, levels, device: loader.device().clone() })
    }

    /// `(1, height, width, channels)` of squares → what is added at each level, each half the size of the one before.
    fn forward(&self, x: Activations, run: &Run) -> Result<Vec<Activations>> {
        let device = &self.device;
        let mut h = through(self.first.as_ref(), x)?;
        let mut made = vec![];
        for (index, level) in self.levels.iter().enumerate() {
            run.enter(device, format_args!("adapter.{index}"))?;
            if index > 0 {
                h = halved(device, &h)?;
            }
            for block in &level.blocks {
                h = block.forward(h)?;
            }
            h = through(level.last.as_ref(), h)?;
            made.push(h.clone());
        }
        Ok(made)
    }
}

impl Block {
    fn forward(&self, x: Activations) -> Result<Activations> {
        let x = through(self.first.as_ref(), x)?;
        let [one, two] = &self.convolutions;
        let h = one.forward_with(&x, &Epilogue { activation: Activation::Relu, ..Epilogue::default() })?;
        two.forward_with(&h, &Epilogue::add(&through(self.around.as_ref(), x)?))
    }
}

fn through(layer: Option<&Conv2d>, x: Activations) -> Result<Activations> {
    layer.map_or(Ok(None), |layer| layer.forward(&x).map(Some)).map(|new| new.unwrap_or(x))
}

/// The means of squares of four, of what there is of them at an odd end.
fn halved(device: &Device, x: &Activations) -> Result<Activations> {
    let (batch, height, width, channels) = x.dims4()?;
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let dims = [batch, rows, columns, channels];
    let corner = |down: usize, along: usize| {
        // What is beyond an odd end counts as what stands there.
        let from = move |to: usize| {
            let (image, row, column) = (to / (rows * columns), to / columns % rows, to % columns);
            (image * height + (2 * row + down).min(height - 1)) * width + (2 * column + along).min(width - 1)
        };
        device.rows(x, &dims, &from)
    };
    let sum = add(
        device,
        &add(device, &corner(0, 0)?, &corner(0, 1)?)?,
        &add(device, &corner(1, 0)?, &corner(1, 1)?)?,
    )?;
    let quarter = device.upload(&vec![0.25; dims.iter().product()], &dims)?;
    multiply(device, &sum, &quarter)
}

impl AdapterFile {
    /// All that is wrong with its tensors is told at once.
    fn new(file: &Tensors, names: &AdapterNames) -> Result<Self> {
        let config = Config::detect(file, names)?;
        let described =
            described(&config).ok_or_else(|| Error::model(file.path(), "has more levels than any UNet"))?;
        let (device, counter) = dry_run();
        let loader = Loader::file(file, &device, Precision::F32);
        let empty = Adapter::load(&loader, &config)?;
        loader.finish(&[names.prefix], |_| false)?;
        let side = TRIED / SQUARE;
        let x = device.upload(&[], &[1, side, side, config.colours * SQUARE * SQUARE])?;
        let fits = empty.forward(x, &Run::WHOLE);
        fits.map_err(|error| Error::model(file.path(), format!("its layers do not fit together: {error}")))?;
        // On the host: what goes in, twice over, and what comes out, in both orders.
        let channels = config
            .outputs()
            .iter()
            .enumerate()
            .map(|(level, channels)| channels >> (2 * level))
            .sum::<usize>();
        let host = (2 * config.colours + 2 * channels.div_ceil(SQUARE * SQUARE)) as u64 * 4;
        let bytes_per_pixel = counter.counts().most.div_ceil((TRIED * TRIED) as u64) + host;
        Ok(Self { described, config, bytes_per_pixel })
    }
}

fn described(config: &Config) -> Option<Described> {
    let picture =
        vec![Side::Fixed(1), Side::Fixed(config.colours), Side::Free("rows"), Side::Free("columns")];
    let output = |(index, channels): (usize, usize)| {
        Some(Port {
            name: level(index)?,
            sides: vec![Side::Fixed(1), Side::Fixed(channels), Side::Free("height"), Side::Free("width")],
            about: "added to the last output of this level, half the size of the one before",
        })
    };
    let outputs = config.outputs().into_iter().enumerate().map(output).collect::<Option<Vec<_>>>()?;
    let entry = Entry {
        name: FEATURES,
        inputs: vec![Port {
            name: "image",
            sides: picture,
            about: "the picture, 0 to 1, eight pixels to a latent each way",
        }],
        outputs,
    };
    Some(Described { kind: "t2i-adapter", entries: vec![entry] })
}

impl Found for AdapterFile {
    fn described(&self) -> &Described {
        &self.described
    }

    fn activation_bytes(&self, _entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let Some([_, _, height, width]) = inputs.first().map(Vec::as_slice) else { return 0 };
        let side = |side: &usize| (*side as u64).max(SQUARE as u64 * 8);
        side(height).saturating_mul(side(width)).saturating_mul(self.bytes_per_pixel)
    }

    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        let loaded = device.run(|| Adapter::load(&Loader::file(file, device, precision), &self.config));
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        Ok(Arc::new(loaded?))
    }
}

impl Standalone for Adapter {
    fn run(&self, _entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        let [image] = inputs else { bail!("t2i-adapter: {} inputs, image is taken", inputs.len()) };
        let device = &self.device;
        let squares = Bringing { multiple: SQUARE, unshuffle: SQUARE, ..Bringing::PLAIN }.brought(image)?;
        run.on(device, || {
            let made = self.forward(upload(device, &squares)?, run)?;
            let host = |x: &Activations| Tensor::new(device.download(x)?, x.dims())?.to_channels_first();
            made.iter().map(host).collect()
        })
    }
}
