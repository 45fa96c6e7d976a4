//! `ControlNet` (Zhang, Rao, Agrawala 2023, arXiv:2302.05543): a copy of a UNet's way down that sees a picture, and what it adds to
//! each skip and to the middle. In the LDM key layout under [`CONTROL`]; diffusers' names are known as those. Files that are told by what
//! they differ by from a checkpoint are put [over](super::over) that.

use std::sync::{Arc, Mutex, PoisonError};

use super::hint::{DOWN, Hint, HintConfig};
use super::over::Told;
use super::places::{MIDDLE, skip};
use crate::error::{Error, Result, bail};
use crate::files::{CONTROL, Tensors};
use crate::networks::standalone::{Described, Entry, Found, Port, Side, Standalone};
use crate::networks::unet::{Context, RowContext, UNetCall, UNetConfig};
use crate::networks::unet_call::Call;
use crate::networks::unet_down::{WayDown, context_of};
use crate::networks::unet_residuals::ResidualPlace;
use crate::nn::backend::dry_run::{Counter, dry_run};
use crate::nn::{Activations, Device, Epilogue, Linear, Loader, Patch, Precision, Run, upload};
use crate::tensor::Tensor;

/// Rows, latents of a row and tokens of a run that anybody could want: what takes more is not reckoned.
const MOST: [usize; 3] = [1024, 1 << 22, 1 << 16];

/// Groups of normalisations, into which all channels divide.
const GROUPS: usize = 32;

/// The part that runs once for a picture.
const HINT: &str = "hint";
/// The part that runs at each step.
const RESIDUALS: &str = "residuals";

/// What can be told from the tensors.
#[derive(Clone, PartialEq)]
struct Config {
    down: UNetConfig,
    hint: HintConfig,
}

/// The network.
struct ControlNet {
    down: WayDown,
    hint: Hint,
    /// Of each skip, then of the middle: 1×1, zero when training began.
    zero: Vec<Linear>,
}

/// A file's ControlNet before it is read.
struct ControlNetFile {
    told: Told,
    described: Described,
    config: Config,
    weight_bytes: u64,
    /// Of its largest weight, in f32.
    largest_bytes: u64,
    /// On a device that only counts; held while something is counted.
    empty: Mutex<(ControlNet, Counter)>,
}

/// That of a file, if it has one.
pub(in crate::networks) fn find(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    file.shape(&format!("{CONTROL}input_hint_block.0.weight"))?;
    Some(ControlNetFile::new(file).map(|found| Arc::new(found) as Arc<dyn Found>))
}

impl Config {
    fn detect(file: &Tensors) -> Result<Self> {
        let refused = |reason: String| Error::model(file.path(), reason);
        if file.has_under(&format!("{CONTROL}label_emb.")) {
            return Err(refused(
                "is a ControlNet of SDXL, whose UNet takes pooled text and sizes; those of SD 1 are known"
                    .to_owned(),
            ));
        }
        let down = UNetConfig::detect_down(file, CONTROL)?;
        let hint = HintConfig::detect(file, &format!("{CONTROL}input_hint_block."))?;
        if hint.outputs() != down.channels {
            let (hint, own) = (hint.outputs(), down.channels);
            return Err(refused(format!("its hint has {hint} channels, what it is added to {own}")));
        }
        if let Some(width) = down.widths().into_iter().find(|width| !width.is_multiple_of(GROUPS)) {
            return Err(refused(format!("a block of {width} channels, no multiple of {GROUPS}")));
        }
        Ok(Self { down, hint })
    }

    /// All that is wrong with a file's tensors is told at once.
    fn check(&self, file: &Tensors) -> Result<()> {
        let (device, _) = dry_run();
        let check = Loader::file(file, &device, Precision::F32);
        ControlNet::load(&check, self)?;
        check.finish(&[CONTROL], |_| false)
    }
}

impl ControlNet {
    fn load(loader: &Loader, Config { down, hint }: &Config) -> Result<Self> {
        let (way, skips) = WayDown::load(loader, CONTROL, down)?;
        let zero = |name: String, channels: usize| {
            Linear::load(loader, &format!("{CONTROL}{name}.0"), channels, channels)
        };
        let of_skips =
            skips.iter().enumerate().map(|(index, channels)| zero(format!("zero_convs.{index}"), *channels));
        let mut zeros = of_skips.collect::<Result<Vec<_>>>()?;
        zeros.push(zero("middle_block_out".to_owned(), skips.last().copied().unwrap_or_default())?);
        Ok(Self { down: way, hint: Hint::load(loader, hint)?, zero: zeros })
    }

    /// Conditioning `(batch, tokens, width)` as its attentions take it.
    fn context(&self, context: &Activations, run: &Run) -> Result<Context> {
        let of = (&self.down.device, self.down.precision);
        context_of(of, self.down.transformers(), context, &[], run)
    }

    /// What is added to each skip and to the middle, `(batch, height, width, channels)` f32, of `x (batch, height, width, channels)`
    /// f32 and a hint `(1, height, width, channels)` f32.
    fn forward(
        &self,
        x: &Activations,
        hint: &Activations,
        of: &UNetCall,
        run: &Run,
    ) -> Result<Vec<Activations>> {
        let device = &self.down.device;
        let mut call = Call::new(device, of);
        let batch = x.dims().first().copied().unwrap_or_default();
        let hint = device.stack(&vec![hint; batch])?;
        let added = |h: &Activations, zero: &Linear| zero.forward_with(h, &Epilogue::widened());
        let mut made = vec![];
        let mut zeros = self.zero.iter();
        let mut h = self.down.first(x, Some(&hint))?;
        drop(hint);
        for index in 0..=self.down.blocks() {
            let Some(zero) = zeros.next() else { bail!("controlnet: fewer residuals than skips") };
            made.push(added(&h, zero)?);
            run.enter(device, format_args!("controlnet.{index}"))?;
            h = if index < self.down.blocks() {
                self.down.block(index, &h, &mut call)?
            } else {
                self.down.middle(&h, &mut call)?
            };
        }
        let Some(zero) = zeros.next() else { bail!("controlnet: no residual of the middle") };
        made.push(added(&h, zero)?);
        Ok(made)
    }

    /// Residuals `(batch, channels, height, width)` of latents `(batch, channels, height, width)` in their order.
    fn residuals(&self, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        let [x, timesteps, context, hint] = inputs else {
            bail!("controlnet: {} inputs, x, timestep, context and hint are taken", inputs.len());
        };
        let device = &self.down.device;
        let times = self.down.times(timesteps.values(), self.down.residual_blocks())?;
        run.on(device, || {
            let rows = (0..context.dim(0))
                .map(|row| self.context(&upload(device, &context.narrow(0, row, 1)?)?, run));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            let call = UNetCall {
                times: &times.iter().collect::<Vec<_>>(),
                contexts: &rows.iter().map(RowContext::own).collect::<Vec<_>>(),
                residuals: &[],
                transforms: &[],
            };
            let [x, hint] = [x, hint].map(|tensor| upload(device, &tensor.to_channels_last()?));
            let made = self.forward(&x?, &hint?, &call, run)?;
            let host = |x: &Activations| Tensor::new(device.download(x)?, x.dims())?.to_channels_first();
            made.iter().map(host).collect()
        })
    }

    /// `(1, colours, 8 · height, 8 · width)` of 0…1 → `(1, channels, height, width)`.
    fn hinted(&self, image: &Tensor, run: &Run) -> Result<Tensor> {
        let device = &self.down.device;
        let image = image.to_channels_last()?;
        run.on(device, || {
            let x = self.hint.forward(device, upload(device, &image)?, run)?;
            Tensor::new(device.download(&x)?, x.dims())?.to_channels_first()
        })
    }

    /// A run to nowhere, for a network on a device that only counts.
    fn try_out(&self, config: &UNetConfig, [rows, height, width, tokens]: [usize; 4]) -> Result<()> {
        let device = &self.down.device;
        let times = self.down.times(&[0.0], self.down.residual_blocks())?;
        let Some(time) = times.first() else { bail!("controlnet: no time embedding") };
        // Each row has its own, as it is run.
        let contexts = (0..rows)
            .map(|_| self.context(&device.upload(&[], &[1, tokens, config.context_width])?, &Run::WHOLE));
        let contexts = contexts.collect::<Result<Vec<_>>>()?;
        let call = UNetCall {
            times: &vec![time; rows],
            contexts: &contexts.iter().map(RowContext::own).collect::<Vec<_>>(),
            residuals: &[],
            transforms: &[],
        };
        let x = device.upload(&[], &[rows, height, width, config.in_channels])?;
        let hint = device.upload(&[], &[1, height, width, config.channels])?;
        self.forward(&x, &hint, &call, &Run::WHOLE).map(drop)
    }
}

impl ControlNetFile {
    fn new(file: &Tensors) -> Result<Self> {
        let told = Told::of(file);
        let outline = if told == Told::Whole { None } else { Some(told.outline(file)?) };
        let file = outline.as_ref().unwrap_or(file);
        let config = Config::detect(file)?;
        // What of it is another file's is looked at together with that.
        if told != Told::Products {
            config.check(file)?;
        }
        let (device, counter) = dry_run();
        // In f32, in which weights take the most.
        let loader = Loader::file(file, &device, Precision::F32);
        let empty = ControlNet::load(&loader, &config)?;
        let described =
            described(&config).ok_or_else(|| Error::model(file.path(), "has more skips than any UNet"))?;
        let numbers = |name: &str| file.shape(name).map_or(0, |shape| shape.iter().product::<usize>());
        // What a file leaves to the checkpoint is not larger than a convolution of the widest block.
        let fixed = |port: &Port| match port.sides.get(1) {
            Some(Side::Fixed(channels)) => Some(*channels),
            _ => None,
        };
        let outputs = described.entries.iter().flat_map(|entry| &entry.outputs);
        let widest = outputs.filter_map(fixed).max();
        let of_base = widest.unwrap_or_default().saturating_pow(2).saturating_mul(9);
        let largest = file.names().map(numbers).max().unwrap_or_default().max(of_base);
        Ok(Self {
            told,
            described,
            weight_bytes: loader.into_parts().bytes(),
            largest_bytes: largest.saturating_mul(size_of::<f32>()) as u64,
            config,
            empty: Mutex::new((empty, counter)),
        })
    }
}

fn described(Config { down, hint }: &Config) -> Option<Described> {
    let [batch, height, width, tokens] = ["batch", "height", "width", "tokens"].map(Side::Free);
    let features = vec![Side::Fixed(1), Side::Fixed(down.channels), height, width];
    let picture =
        vec![Side::Fixed(1), Side::Fixed(hint.colours()), Side::Free("rows"), Side::Free("columns")];
    let hint = Entry {
        name: HINT,
        inputs: vec![Port {
            name: "image",
            sides: picture,
            about: "the picture, 0 to 1, eight pixels to a latent each way",
        }],
        outputs: vec![Port { name: "hint", sides: features.clone(), about: "what residuals are made with" }],
    };
    let places = down.residual_sizes((1, 1));
    let channels = (0..places.outputs()).map(|index| places.at(ResidualPlace::Skip(index)));
    let channels = channels.map(|size| size.map(|[channels, ..]| channels)).collect::<Option<Vec<_>>>()?;
    let port = |name, channels: usize, about| Port {
        name,
        sides: vec![batch, Side::Fixed(channels), Side::Free("rows"), Side::Free("columns")],
        about,
    };
    let skips = channels
        .iter()
        .enumerate()
        .map(|(index, channels)| Some(port(skip(index)?, *channels, "added to this skip")));
    let mut outputs = skips.collect::<Option<Vec<_>>>()?;
    outputs.push(port(MIDDLE, channels.last().copied()?, "added to the middle"));
    let residuals = Entry {
        name: RESIDUALS,
        inputs: vec![
            Port {
                name: "x",
                sides: vec![batch, Side::Fixed(down.in_channels), height, width],
                about: "noisy latents over sqrt(sigma * sigma + 1)",
            },
            Port { name: "timestep", sides: vec![batch], about: "fractional, 0 to 999" },
            Port {
                name: "context",
                sides: vec![batch, tokens, Side::Fixed(down.context_width)],
                about: "what the text encoder makes of a prompt",
            },
            Port { name: "hint", sides: features, about: "what the part hint makes" },
        ],
        outputs,
    };
    Some(Described { kind: "controlnet", entries: vec![hint, residuals] })
}

impl Found for ControlNetFile {
    fn described(&self) -> &Described {
        &self.described
    }

    fn weight_bytes(&self) -> Option<u64> {
        Some(self.weight_bytes)
    }

    fn is_over_base(&self) -> bool {
        self.told != Told::Whole
    }

    fn over(&self, file: Tensors, base: Tensors, patches: &[Arc<dyn Patch>]) -> Result<Tensors> {
        if !self.is_over_base() {
            bail!("controlnet: its weights are whole, and over no UNet");
        }
        let whole = self.told.over(file, base, patches)?;
        if Config::detect(&whole)? != self.config {
            let reason = "is made over a UNet whose way down has other blocks; draw with a checkpoint of the kind that it was made for";
            return Err(Error::model(whole.path(), reason));
        }
        self.config.check(&whole)?;
        Ok(whole)
    }

    fn making_bytes(&self) -> u64 {
        match self.told {
            Told::Whole => 0,
            // Both files' and their sum, in f32 and as it is packed.
            Told::Differences => self.largest_bytes.saturating_mul(4),
            // Two factors, neither larger than what they make, and one of them packed, beside those.
            Told::Products => self.largest_bytes.saturating_mul(7),
        }
    }

    fn activation_bytes(&self, entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        let (network, counter) = &*empty;
        counter.restart();
        if entry.name == HINT {
            let Some(&[_, colours, height, width]) = inputs.first().map(Vec::as_slice) else { return 0 };
            if height.saturating_mul(width) > MOST[1] * DOWN * DOWN {
                return u64::MAX;
            }
            let tried = network
                .down
                .device
                .upload(&[], &[1, height, width, colours])
                .and_then(|x| network.hint.forward(&network.down.device, x, &Run::WHOLE));
            // What goes in, in both orders.
            let host = 2 * (colours * height * width * size_of::<f32>()) as u64;
            return tried.map_or(u64::MAX, |_| counter.counts().most + host);
        }
        let [x, _, context, _] = inputs else { return 0 };
        let (&[rows, _, height, width], &[_, tokens, _]) = (&x[..], &context[..]) else { return 0 };
        let latents = height.saturating_mul(width);
        if [rows, latents, tokens].iter().zip(MOST).any(|(size, most)| *size > most) {
            return u64::MAX;
        }
        if network.try_out(&self.config.down, [rows, height, width, tokens]).is_err() {
            return u64::MAX;
        }
        let sizes = self.config.down.residual_sizes((height, width));
        let residuals = sizes.of_control().filter_map(|place| sizes.at(place));
        // What comes out as the host has it, in both orders.
        let host =
            residuals.map(|[channels, height, width]| 2 * rows * channels * height * width).sum::<usize>();
        counter.counts().most + (host * size_of::<f32>()) as u64
    }

    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        if Told::of(file) != Told::Whole {
            return Err(Error::model(file.path(), "its weights are nothing without those of a checkpoint"));
        }
        let loaded = device.run(|| ControlNet::load(&Loader::file(file, device, precision), &self.config));
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        Ok(Arc::new(loaded?))
    }
}

impl Standalone for ControlNet {
    fn run(&self, entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        if entry.name == RESIDUALS {
            return self.residuals(inputs, run);
        }
        let [image] = inputs else { bail!("controlnet: {} inputs, image is taken", inputs.len()) };
        Ok(vec![self.hinted(image, run)?])
    }
}
