//! RRDBNet: residual blocks within residual blocks, of densely connected convolutions. ESRGAN, Real-ESRGAN and BSRGAN are of it.
//!
//! Source: Wang et al. 2018, "ESRGAN"; github.com/xinntao/Real-ESRGAN. Its tensors have three sets of names. A net for x1 or x2
//! may have squares of pixels for channels first. ESRGAN+ has another 1×1 convolution in each dense block.

use super::kind::{Facts, UpscalerNetwork};
use super::picture::Bringing;
use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Run, Vector, cat_channels};

/// What a leaky `ReLU` leaves of what is below zero.
const LEAK: f32 = 0.2;

/// What residual blocks add of what they made.
const SHARE: f32 = 0.2;

/// Doublings of the size: x16.
const MOST_DOUBLINGS: usize = 4;

/// What a file calls its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// As ESRGAN had them first: all one sequence.
    Old,
    /// As BSRGAN, RealSR and later ESRGAN have them.
    Trunk,
    /// As BasicSR and Real-ESRGAN have them.
    Body,
}

impl Names {
    const ALL: [Self; 3] = [Self::Body, Self::Trunk, Self::Old];

    fn first(self) -> &'static str {
        if self == Self::Old { "model.0" } else { "conv_first" }
    }

    /// Begins the names of a block.
    fn block(self, block: usize) -> String {
        match self {
            Self::Old => format!("model.1.sub.{block}."),
            Self::Trunk => format!("RRDB_trunk.{block}."),
            Self::Body => format!("body.{block}."),
        }
    }

    /// Begins the names of a dense block, one of three.
    fn dense(self, block: usize, dense: usize) -> String {
        let name = if self == Self::Body { "rdb" } else { "RDB" };
        format!("{}{name}{}.", self.block(block), dense + 1)
    }

    /// Ends the name of a convolution in a dense block, one of five.
    fn convolution(self, index: usize) -> String {
        format!("conv{}{}", index + 1, if self == Self::Old { ".0" } else { "" })
    }

    /// After so many blocks.
    fn trunk(self, blocks: usize) -> String {
        match self {
            Self::Old => format!("model.1.sub.{blocks}"),
            Self::Trunk => "trunk_conv".to_owned(),
            Self::Body => "conv_body".to_owned(),
        }
    }

    fn doubling(self, index: usize) -> String {
        match self {
            Self::Old => format!("model.{}", 3 * (index + 1)),
            Self::Trunk => format!("upconv{}", index + 1),
            Self::Body => format!("conv_up{}", index + 1),
        }
    }

    fn large(self, doublings: usize) -> String {
        match self {
            Self::Old => format!("model.{}", 3 * doublings + 2),
            Self::Trunk => "HRconv".to_owned(),
            Self::Body => "conv_hr".to_owned(),
        }
    }

    fn last(self, doublings: usize) -> String {
        match self {
            Self::Old => format!("model.{}", 3 * doublings + 4),
            Self::Trunk | Self::Body => "conv_last".to_owned(),
        }
    }
}

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    names: Names,
    /// Channels that go in, of squares of pixels all together.
    channels: usize,
    outputs: usize,
    width: usize,
    /// Channels that each convolution of a dense block adds.
    growth: usize,
    blocks: usize,
    doublings: usize,
    /// Side of the squares.
    unshuffle: usize,
    scale: usize,
    /// ESRGAN+.
    plus: bool,
}

/// Which names stand after a prefix.
fn names(file: &Tensors, prefix: &str) -> Option<Names> {
    Names::ALL.into_iter().find(|names| {
        let has = |name: &str| file.shape(&format!("{prefix}{name}.weight")).is_some();
        has(names.first()) && has(&format!("{}{}", names.dense(0, 0), names.convolution(0)))
    })
}

/// The network.
pub(in crate::networks) struct RrdbNet {
    first: Conv2d,
    blocks: Vec<[Dense; 3]>,
    trunk: Conv2d,
    doublings: Vec<Conv2d>,
    large: Conv2d,
    last: Conv2d,
    leaks: Vector,
}

/// Convolutions, each of all that is before it.
struct Dense {
    convolutions: [Conv2d; 5],
    /// ESRGAN+'s.
    beside: Option<Conv2d>,
    leaks: Vector,
}

impl Dense {
    fn load(loader: &Loader, prefix: &str, config: &Config, leaks: &Vector) -> Result<Self> {
        let Config { names, width, growth, plus, .. } = *config;
        let convolution = |index: usize, outputs: usize| {
            let name = format!("{prefix}{}", names.convolution(index));
            Conv2d::load(loader, &name, ConvConfig::same(width + index * growth, outputs))
        };
        let convolutions = [
            convolution(0, growth)?,
            convolution(1, growth)?,
            convolution(2, growth)?,
            convolution(3, growth)?,
            convolution(4, width)?,
        ];
        let alone = ConvConfig { kernel: 1, pad_before: 0, pad_after: 0, ..ConvConfig::same(width, growth) };
        let beside = plus.then(|| Conv2d::load_unbiased(loader, &format!("{prefix}conv1x1"), alone));
        Ok(Self { convolutions, beside: beside.transpose()?, leaks: leaks.clone() })
    }

    fn forward(&self, x: &Activations, device: &Device) -> Result<Activations> {
        let [first, second, third, fourth, last] = &self.convolutions;
        let leaky = Epilogue { slopes: Some(&self.leaks), ..Epilogue::default() };
        let beside = self.beside.as_ref().map(|beside| beside.forward(x)).transpose()?;
        let all = cat_channels(device, x, &first.forward_with(x, &leaky)?)?;
        let x2 = second.forward_with(&all, &Epilogue { residual: beside.as_ref(), ..leaky })?;
        let all = cat_channels(device, &all, &x2)?;
        let all = cat_channels(device, &all, &third.forward_with(&all, &leaky)?)?;
        let also = self.beside.is_some().then_some(&x2);
        let x4 = fourth.forward_with(&all, &Epilogue { residual: also, ..leaky })?;
        let all = cat_channels(device, &all, &x4)?;
        last.forward_with(&all, &Epilogue { scale: SHARE, residual: Some(x), ..Epilogue::default() })
    }
}

impl UpscalerNetwork for RrdbNet {
    const KIND: &'static str = "rrdbnet";

    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        names(file, prefix).is_some()
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let Some(names) = names(file, prefix) else { bail!("no tensors of RRDBNet after '{prefix}'") };
        let size = |name: &str, index: usize| dim(file, &format!("{prefix}{name}.weight"), index);
        let has = |name: &str| file.shape(&format!("{prefix}{name}.weight")).is_some();
        // The old layout's last of the row is the convolution after all blocks.
        let is_old = usize::from(names == Names::Old);
        let blocks = count(file, |block| format!("{prefix}{}", names.block(block))).saturating_sub(is_old);
        let doublings = (0..MOST_DOUBLINGS).take_while(|index| has(&names.doubling(*index))).count();
        let (channels, outputs) = (size(names.first(), 1)?, size(&names.last(doublings), 0)?);
        let unshuffle = [2, 4].into_iter().find(|side| channels == outputs * side * side).unwrap_or(1);
        let grown = 1 << doublings;
        if grown % unshuffle != 0 {
            let reason = format!(
                "takes {channels} channels for {outputs} and doubles {doublings} times: it would make pictures smaller, which is \
                 no upscaler"
            );
            return Err(Error::model(file.path(), reason));
        }
        let dense = names.dense(0, 0);
        Ok(Config {
            names,
            channels,
            outputs,
            width: size(names.first(), 0)?,
            growth: size(&format!("{dense}{}", names.convolution(0)), 0)?,
            blocks,
            doublings,
            unshuffle,
            scale: grown / unshuffle,
            plus: has(&format!("{dense}conv1x1")),
        })
    }

    fn facts(config: &Config) -> Facts {
        let Config { channels, outputs, unshuffle, scale, .. } = *config;
        let bringing = Bringing { multiple: unshuffle, unshuffle, ..Bringing::PLAIN };
        Facts { scale, inputs: channels / (unshuffle * unshuffle), outputs, bringing }
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let Config { names, channels, outputs, width, blocks, doublings, .. } = *config;
        let named = |name: &str| format!("{prefix}{name}");
        let leaks = |length: usize| loader.device().vector(vec![LEAK; length], length);
        let of_growth = leaks(config.growth)?;
        let dense = |block: usize, dense: usize| {
            Dense::load(loader, &named(&names.dense(block, dense)), config, &of_growth)
        };
        let same = ConvConfig::same(width, width);
        let doubling = |index: usize| {
            let config = ConvConfig { upsample: 2, ..same };
            Conv2d::load(loader, &named(&names.doubling(index)), config)
        };
        Ok(Self {
            first: Conv2d::load_f32(loader, &named(names.first()), ConvConfig::same(channels, width))?,
            blocks: (0..blocks)
                .map(|block| Ok([dense(block, 0)?, dense(block, 1)?, dense(block, 2)?]))
                .collect::<Result<_>>()?,
            trunk: Conv2d::load(loader, &named(&names.trunk(blocks)), same)?,
            doublings: (0..doublings).map(doubling).collect::<Result<_>>()?,
            large: Conv2d::load(loader, &named(&names.large(doublings)), same)?,
            last: Conv2d::load(loader, &named(&names.last(doublings)), ConvConfig::same(width, outputs))?,
            leaks: leaks(width)?,
        })
    }

    fn forward(&self, x: Activations, device: &Device, run: &Run) -> Result<Activations> {
        run.enter(device, format_args!("rrdbnet.first"))?;
        let first = device.convert(&self.first.forward(&x)?, self.trunk.precision())?;
        let mut h = first.clone();
        for (index, block) in self.blocks.iter().enumerate() {
            run.enter(device, format_args!("rrdbnet.{index}"))?;
            let mut inner = h.clone();
            for dense in block {
                inner = dense.forward(&inner, device)?;
            }
            h = device.blend((&inner, SHARE, None), Some((&h, 1.0, None)))?;
        }
        h = self.trunk.forward_with(&h, &Epilogue::add(&first))?;
        drop(first);
        let leaky = Epilogue { slopes: Some(&self.leaks), ..Epilogue::default() };
        for (index, doubling) in self.doublings.iter().enumerate() {
            run.enter(device, format_args!("rrdbnet.up{index}"))?;
            h = doubling.forward_with(&h, &leaky)?;
        }
        run.enter(device, format_args!("rrdbnet.last"))?;
        h = self.large.forward_with(&h, &leaky)?;
        self.last.forward_with(&h, &Epilogue::widened())
    }
}
