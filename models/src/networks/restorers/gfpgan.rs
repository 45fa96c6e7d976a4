//! GFPGAN 1.2 to 1.4, the "clean" form: a U-Net reads a face, and what it finds steers a `StyleGAN2` that draws it anew.
//!
//! Source: Wang et al. 2021, "Towards Real-World Blind Face Restoration with Generative Facial Prior"; github.com/TencentARC/GFPGAN.
//! The first version (GFPGANv1.pth) has other layers, which were compiled for it.
//!
//! `StyleGAN2` adds noise at each layer. BasicSR draws it anew each time, so that no two pictures are the same; here it is the noise
//! that the file has beside its weights (`stylegan_decoder.noises`), as BasicSR takes it with `randomize_noise=False`.

use super::gfpgan_decoder::Decoder;
use super::parts::{doubled, halved, leaks, picture};
use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::networks::file_network::FileNetwork;
use crate::networks::standalone::{Described, Entry, Side};
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, Linear, Loader, Precision, Run, Vector, add, upload,
};
use crate::tensor::Tensor;

/// The side of what the U-Net ends with.
const DEEPEST: usize = 4;

/// Halvings of a face of 1024, the largest that there is.
const MOST_LEVELS: usize = 8;

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    /// Channels before each halving, from the picture down, and after all.
    down: Vec<usize>,
    /// Channels of the deepest features.
    deep: usize,
    /// Channels after each doubling.
    up: Vec<usize>,
    /// Channels of the generator: at the deepest, and after each doubling.
    generator: Vec<usize>,
    /// Numbers of a style.
    style: usize,
}

impl Config {
    /// Halvings.
    fn levels(&self) -> usize {
        self.up.len()
    }

    /// Sides of the face.
    fn side(&self) -> usize {
        DEEPEST << self.levels()
    }

    /// Styles that the generator takes.
    fn styles(&self) -> usize {
        2 * self.levels() + 2
    }
}

/// A residual block that halves or doubles the sides.
struct Block {
    first: Conv2d,
    second: Conv2d,
    around: Linear,
    leaks: [Vector; 2],
}

impl Block {
    fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let load = |part: &str, config| Conv2d::load(loader, &format!("{name}.{part}"), config);
        Ok(Self {
            first: load("conv1", ConvConfig::same(inputs, inputs))?,
            second: load("conv2", ConvConfig::same(inputs, outputs))?,
            around: Linear::load_no_bias(loader, &format!("{name}.skip"), inputs, outputs)?,
            leaks: [leaks(loader, inputs)?, leaks(loader, outputs)?],
        })
    }

    fn forward(
        &self,
        device: &Device,
        x: &Activations,
        resized: fn(&Device, &Activations) -> Result<Activations>,
    ) -> Result<Activations> {
        let leaky = |leaks| Epilogue { slopes: Some(leaks), ..Epilogue::default() };
        let [before, after] = &self.leaks;
        let h = resized(device, &self.first.forward_with(x, &leaky(before))?)?;
        let around = self.around.forward(&resized(device, x)?)?;
        self.second.forward_with(&h, &Epilogue { residual: Some(&around), ..leaky(after) })
    }
}

/// Two convolutions that make the factors, or what is added, of one level.
struct Condition {
    first: Conv2d,
    leaks: Vector,
    second: Conv2d,
}

impl Condition {
    fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let load = |part: &str, config| Conv2d::load(loader, &format!("{name}.{part}"), config);
        Ok(Self {
            first: load("0", ConvConfig::same(inputs, inputs))?,
            leaks: leaks(loader, inputs)?,
            second: load("2", ConvConfig::same(inputs, outputs))?,
        })
    }

    fn forward(&self, x: &Activations) -> Result<Activations> {
        let leaky = Epilogue { slopes: Some(&self.leaks), ..Epilogue::default() };
        self.second.forward(&self.first.forward_with(x, &leaky)?)
    }
}

/// The network.
pub(in crate::networks) struct Gfpgan {
    side: usize,
    precision: Precision,
    first: Linear,
    first_leaks: Vector,
    down: Vec<Block>,
    deep: Conv2d,
    deep_leaks: Vector,
    up: Vec<(Block, Condition, Condition)>,
    styles: Linear,
    style: usize,
    decoder: Decoder,
}

impl FileNetwork for Gfpgan {
    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        [
            "stylegan_decoder.constant_input.weight",
            "stylegan_decoder.style_mlp.1.weight",
            "final_linear.weight",
        ]
        .iter()
        .all(|name| file.shape(&format!("{prefix}{name}")).is_some())
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let size = |name: &str, index: usize| dim(file, &format!("{prefix}{name}"), index);
        if file.shape(&format!("{prefix}conv_body_first.0.weight")).is_some() {
            let reason = "is GFPGAN's first version, which has other layers; take GFPGANv1.3 or GFPGANv1.4";
            return Err(Error::model(file.path(), reason));
        }
        let levels = count(file, |level| format!("{prefix}conv_body_down.{level}."));
        if levels == 0 || levels > MOST_LEVELS {
            let reason =
                format!("halves its picture {levels} times; GFPGAN does it 1 to {MOST_LEVELS} times");
            return Err(Error::model(file.path(), reason));
        }
        let down = |level: usize| size(&format!("conv_body_down.{level}.conv2.weight"), 0);
        let mut widths = vec![size("conv_body_first.weight", 0)?];
        widths.extend((0..levels).map(down).collect::<Result<Vec<_>>>()?);
        let up = |level: usize| size(&format!("conv_body_up.{level}.conv2.weight"), 0);
        let doubling = |level: usize| size(&format!("stylegan_decoder.style_convs.{}.bias", 2 * level), 1);
        let mut generator = vec![size("stylegan_decoder.constant_input.weight", 1)?];
        generator.extend((0..levels).map(doubling).collect::<Result<Vec<_>>>()?);
        Ok(Config {
            down: widths,
            deep: size("final_conv.weight", 0)?,
            up: (0..levels).map(up).collect::<Result<_>>()?,
            generator,
            style: size("stylegan_decoder.style_mlp.1.weight", 1)?,
        })
    }

    fn described(config: &Config) -> Described {
        let sides = [Side::Fixed(config.side()), Side::Fixed(config.side())];
        let entry = Entry {
            name: "",
            inputs: vec![picture("image", "a face in red, green and blue, -1 to 1", sides)],
            outputs: vec![picture("image", "the face restored, about -1 to 1", sides)],
        };
        Described { kind: "gfpgan", entries: vec![entry] }
    }

    fn tried(config: &Config) -> usize {
        config.side()
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let named = |name: &str| format!("{prefix}{name}");
        let Config { down, deep, up, generator, style } = config;
        let first = down.first().copied().unwrap_or_default();
        let last = down.last().copied().unwrap_or_default();
        let halving = |(level, sizes): (usize, &[usize])| {
            let [inputs, outputs] = *sizes else { bail!("a level of {sizes:?}") };
            Block::load(loader, &named(&format!("conv_body_down.{level}")), inputs, outputs)
        };
        let mut inputs = *deep;
        let doubling = |(level, (outputs, wide)): (usize, (&usize, &usize))| {
            let block = Block::load(loader, &named(&format!("conv_body_up.{level}")), inputs, *outputs)?;
            inputs = *outputs;
            // Half of the generator's channels are steered.
            let condition =
                |name: &str| Condition::load(loader, &named(&format!("{name}.{level}")), *outputs, wide / 2);
            Ok((block, condition("condition_scale")?, condition("condition_shift")?))
        };
        Ok(Self {
            side: config.side(),
            precision: loader.precision(),
            first: Linear::load_f32(loader, &named("conv_body_first"), 3, first)?,
            first_leaks: leaks(loader, first)?,
            down: down.windows(2).enumerate().map(halving).collect::<Result<_>>()?,
            deep: Conv2d::load(loader, &named("final_conv"), ConvConfig::same(last, *deep))?,
            deep_leaks: leaks(loader, *deep)?,
            up: up.iter().zip(generator.iter().skip(1)).enumerate().map(doubling).collect::<Result<_>>()?,
            styles: Linear::load_f32(
                loader,
                &named("final_linear"),
                deep * DEEPEST * DEEPEST,
                config.styles() * style,
            )?,
            style: *style,
            decoder: Decoder::load(loader, &named("stylegan_decoder"), generator, *style)?,
        })
    }

    /// What makes styles of random numbers, and pictures of each level's features, is for training.
    fn may_be_left(name: &str) -> bool {
        name.starts_with("stylegan_decoder.style_mlp.") || name.starts_with("toRGB.")
    }

    fn forward(&self, _entry: &str, inputs: &[Tensor], device: &Device, run: &Run) -> Result<Vec<Tensor>> {
        let [image] = inputs else { bail!("gfpgan: {} inputs, one is taken", inputs.len()) };
        if image.dims() != [1, 3, self.side, self.side] {
            bail!("gfpgan: a face {:?}, {} pixels a side are taken", image.dims(), self.side);
        }
        run.enter(device, format_args!("gfpgan.first"))?;
        let leaky = |leaks| Epilogue { slopes: Some(leaks), ..Epilogue::default() };
        let x = upload(device, &image.to_channels_last()?)?;
        let mut h =
            device.convert(&self.first.forward_with(&x, &leaky(&self.first_leaks))?, self.precision)?;
        drop(x);
        let mut skips = vec![];
        for (level, block) in self.down.iter().enumerate() {
            run.enter(device, format_args!("gfpgan.down{level}"))?;
            h = block.forward(device, &h, halved)?;
            skips.push(h.clone());
        }
        h = self.deep.forward_with(&h, &leaky(&self.deep_leaks))?;
        // Of the file's order: channel by channel.
        let flat = Tensor::new(device.download(&h)?, h.dims())?.to_channels_first()?;
        let flat = device.upload(flat.values(), &[1, h.count()])?;
        let styles = device.download(&self.styles.forward(&flat)?)?;
        let mut conditions = vec![];
        for (level, (block, factor, shift)) in self.up.iter().enumerate() {
            run.enter(device, format_args!("gfpgan.up{level}"))?;
            if let Some(skip) = skips.pop() {
                h = add(device, &h, &skip)?;
            }
            h = block.forward(device, &h, doubled)?;
            conditions.push((factor.forward(&h)?, shift.forward(&h)?));
        }
        drop(h);
        let styles: Vec<_> = styles.chunks_exact(self.style).collect();
        let made = self.decoder.forward(&styles, conditions, device, run)?;
        Ok(vec![Tensor::new(device.download(&made)?, made.dims())?.to_channels_first()?])
    }
}
