//! The denoising UNet with cross-attention (Rombach et al. 2022), in the LDM key layout.

use std::sync::{Arc, OnceLock};

pub use super::unet_call::{
    AppendedKeys, AttentionChange, AttentionPlaces, AttentionRule, Context, RowContext, SetKeys,
    TimeEmbedding, UNetCall,
};
use super::unet_call::{AttentionPlace, Call};
pub use super::unet_config::{Block, UNetConfig};
use super::unet_down::{WayDown, context_of, transformed, transformer};
use super::unet_layers::{Residual, Transformer};
use super::unet_residuals::{ResidualPlace, add_at};
use super::unet_sites::{NoVisitor, Site, SitePart, Visited, Visitor, put, shown};
use crate::Error;
use crate::error::{Result, bail};
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, GroupNorm, KeyValueTransform, Keys, Loader, Run, Wrap,
    cat_channels, keys, resized_nearest, upload,
};
use crate::tensor::Tensor;

/// The network. A copy shares its weights.
#[derive(Clone)]
pub struct UNet {
    config: UNetConfig,
    down: WayDown,
    output_blocks: Vec<OutputBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Clone)]
struct OutputBlock {
    residual: Residual,
    transformer: Option<Transformer>,
    upsample: Option<Conv2d>,
}

impl UNet {
    /// Reads the tensors under `prefix`.
    pub fn load(loader: &Loader, prefix: &str, config: UNetConfig) -> Result<Self> {
        let name = |part: &str| format!("{prefix}{part}");
        let (down, mut skips) = WayDown::load(loader, prefix, &config)?;
        let mut channels = skips.last().copied().unwrap_or_default();
        let mut output_blocks = vec![];
        for (index, block) in config.output_blocks.iter().enumerate() {
            let part = format!("output_blocks.{index}");
            let (Block::Residual { channels: out, depth, upsample }, Some(skip)) = (block, skips.pop())
            else {
                return Err(loader.refusal("the UNet's way up does not mirror its way down"));
            };
            let residual = name(&format!("{part}.0"));
            let residual = Residual::load(loader, &residual, channels + skip, *out, config.time_width)?;
            channels = *out;
            let transformer = transformer(loader, &name(&format!("{part}.1")), &config, channels, *depth)?;
            let conv = if transformer.is_some() { 2 } else { 1 };
            let upsample = upsample
                .then(|| {
                    let config = ConvConfig { upsample: 2, ..ConvConfig::same(channels, channels) };
                    Conv2d::load(loader, &name(&format!("{part}.{conv}.conv")), config)
                })
                .transpose()?;
            output_blocks.push(OutputBlock { residual, transformer, upsample });
        }
        if !skips.is_empty() {
            return Err(loader.refusal("the UNet's way up does not mirror its way down"));
        }
        Ok(Self {
            down,
            output_blocks,
            norm_out: GroupNorm::load(loader, &name("out.0"), channels, Residual::EPSILON)?,
            conv_out: Conv2d::load(loader, &name("out.2"), ConvConfig::same(channels, config.out_channels))?,
            config,
        })
    }

    /// The same network, whose pictures go on beyond their border with the other end, so that they can be laid side by side.
    #[must_use]
    pub fn wrapping(&self, wrap: Wrap) -> Self {
        let mut of = self.clone();
        of.down.set_wrap(wrap);
        of.conv_out.set_wrap(wrap);
        for block in &mut of.output_blocks {
            block.residual.set_wrap(wrap);
            if let Some(conv) = &mut block.upsample {
                conv.set_wrap(wrap);
            }
        }
        of
    }

    /// What this network is.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.down.device
    }

    /// Predicts from noisy latents `x (batch, in_channels, height, width)`, one timestep per sample (fractional
    /// ones are fine) and conditioning `(batch, tokens, context_width)` → `(batch, out_channels, height, width)`.
    ///
    /// Any height and width will do. `residuals` are as a ControlNet makes them, `(batch, channels, height, width)`: one per skip
    /// in the order in which they are stored, then one for the middle; another number is an error.
    pub fn forward(
        &self,
        x: &Tensor,
        timesteps: &[f32],
        context: &Tensor,
        residuals: Option<&[Tensor]>,
    ) -> Result<Tensor> {
        let batch = x.dim(0);
        if timesteps.len() != batch || context.dim(0) != batch {
            let (count, context, x) = (timesteps.len(), context.dims(), x.dims());
            bail!("unet: {count} timesteps and conditioning {context:?} for latents {x:?}");
        }
        let residuals = residuals.unwrap_or_default();
        let places: Vec<_> = self.config.residual_sizes((x.dim(2), x.dim(3))).of_control().collect();
        if !residuals.is_empty() && residuals.len() != places.len() {
            let (given, needed) = (residuals.len(), places.len());
            return Err(Error::Stage(format!("unet: {given} residuals were given, {needed} are needed")));
        }
        let residuals: Vec<_> = places.into_iter().zip(residuals.iter().cloned()).collect();
        let times = self.time_embeddings(timesteps)?;
        let context = self.context(context, &[], &Run::WHOLE)?;
        let call = UNetCall {
            times: &times.iter().collect::<Vec<_>>(),
            contexts: &[RowContext::own(&context)],
            residuals: &residuals,
            transforms: &[],
        };
        self.denoise(x, &call, &Run::WHOLE)
    }

    /// The same with what does not change from call to call made before.
    pub fn denoise(&self, x: &Tensor, call: &UNetCall, run: &Run) -> Result<Tensor> {
        self.denoise_visited(x, call, run, &mut NoVisitor)
    }

    /// The same with somebody who looks on. The device's threads are left for each place that is wanted.
    pub fn denoise_visited(
        &self,
        x: &Tensor,
        call: &UNetCall,
        run: &Run,
        visitor: &mut dyn Visitor,
    ) -> Result<Tensor> {
        if call.times.len() != x.dim(0) {
            bail!("unet: {} timesteps for latents {:?}", call.times.len(), x.dims());
        }
        let device = &self.down.device;
        let mut way = run.on(device, || Ok(Way::new(self, upload(device, &x.to_channels_last()?)?, call)))?;
        let steps = self.steps();
        let wanted = |site: &Option<Site>| site.filter(|site| visitor.wants(*site));
        let stops: Vec<Option<Site>> = steps.iter().map(|(site, _)| wanted(site)).collect();
        let mut from = 0;
        while from < steps.len() {
            if let Some(site) = stops[from] {
                let (h, skip) = run.on(device, || way.shown(site))?;
                let visited = visitor.visit(site, h, skip)?;
                run.on(device, || way.put(visited))?;
            }
            let next = stops[from + 1..].iter().position(Option::is_some);
            let until = next.map_or(steps.len(), |next| from + 1 + next);
            run.on(device, || steps[from..until].iter().try_for_each(|(_, step)| way.go(*step, run)))?;
            from = until;
        }
        run.on(device, || Tensor::new(device.download(&way.h)?, way.h.dims())?.to_channels_first())
    }

    /// Keys and values of conditioning of these numbers of tokens, for a network on a device that only counts.
    pub fn contexts(&self, tokens: &[usize]) -> Result<Vec<Context>> {
        let empty = |tokens: &usize| {
            let x = self.down.device.upload(&[], &[1, *tokens, self.config.context_width])?;
            self.context_of(&x, &[], &Run::WHOLE)
        };
        tokens.iter().map(empty).collect()
    }

    /// Keys and values `(batch, tokens, channels)` for one attention, of as many channels as that block has.
    pub fn key_set(&self, key: &Tensor, value: &Tensor, run: &Run) -> Result<Keys> {
        let device = &self.down.device;
        run.on(device, || {
            let in_precision = |x: &Tensor| device.convert(&upload(device, x)?, self.down.precision);
            keys(device, &in_precision(key)?, &in_precision(value)?, self.config.heads)
        })
    }

    /// A call to nowhere with `samples` latents of this size and conditioning of these numbers of tokens, whose keys and
    /// values are made too: for a network on a device that only counts.
    pub fn try_out(&self, (height, width): (usize, usize), samples: usize, tokens: &[usize]) -> Result<()> {
        let device = &self.down.device;
        let contexts = self.contexts(tokens)?;
        let time = self.time_embeddings(&[0.0])?;
        let Some(time) = time.first() else { bail!("unet: no time embedding") };
        let rows = (0..samples).filter_map(|sample| contexts.get(sample % contexts.len().max(1)));
        let call = UNetCall {
            times: &vec![time; samples],
            contexts: &rows.map(RowContext::own).collect::<Vec<_>>(),
            residuals: &[],
            transforms: &[],
        };
        let x = device.upload(&[], &[samples, height, width, self.config.in_channels])?;
        self.run(x, &call, &Run::WHOLE).map(drop)
    }

    /// `x (batch, height, width, in_channels)`, f32 → `(batch, height, width, out_channels)`, f32.
    fn run(&self, x: Activations, call: &UNetCall, run: &Run) -> Result<Activations> {
        let mut way = Way::new(self, x, call);
        for (_, step) in self.steps() {
            way.go(step, run)?;
        }
        Ok(way.h)
    }

    /// All steps of a call, each with the place that lies before it.
    fn steps(&self) -> Vec<(Option<Site>, Step)> {
        let site = |part, index| Some(Site { part, index });
        let mut steps = vec![(None, Step::First), (site(SitePart::Input, 0), Step::Store)];
        for index in 0..self.down.blocks() {
            steps.push((site(SitePart::InputStored, index), Step::In(index)));
            steps.push((site(SitePart::Input, index + 1), Step::Store));
        }
        steps.push((site(SitePart::InputStored, self.down.blocks()), Step::Middle));
        steps.push((site(SitePart::Middle, 0), Step::Residuals));
        let output = 0..self.output_blocks.len();
        steps.extend(output.map(|index| (site(SitePart::Output, index), Step::Out(index))));
        steps.push((None, Step::Last));
        steps
    }

    /// Keys and values of conditioning `(batch, tokens, context_width)`, changed by `transforms` on the way. Tokens that
    /// share the softmax of others are those joined to them. For many tokens it takes a while: `run` may end it between
    /// blocks.
    pub fn context(
        &self,
        context: &Tensor,
        transforms: &[Arc<dyn KeyValueTransform>],
        run: &Run,
    ) -> Result<Context> {
        let made = run.on(&self.down.device, || {
            self.context_of(&upload(&self.down.device, context)?, transforms, run)
        })?;
        let own = made.keys.iter().map(|_| OnceLock::new()).collect();
        Ok(Context { tokens: Some(context.clone()), own, ..made })
    }

    fn context_of(
        &self,
        context: &Activations,
        transforms: &[Arc<dyn KeyValueTransform>],
        run: &Run,
    ) -> Result<Context> {
        context_of((&self.down.device, self.down.precision), self.transformers(), context, transforms, run)
    }

    /// Timesteps, fractional ones too, as each residual block takes them, for any number of calls.
    pub fn time_embeddings(&self, timesteps: &[f32]) -> Result<Vec<TimeEmbedding>> {
        let output = self.output_blocks.iter().map(|block| &block.residual);
        self.down.times(timesteps, self.down.residual_blocks().chain(output))
    }

    /// In the order in which they are run.
    fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        let output = self.output_blocks.iter().filter_map(|block| block.transformer.as_ref());
        self.down.transformers().chain(output)
    }
}

/// What a call does, one after the other.
#[derive(Clone, Copy)]
enum Step {
    /// The first convolution.
    First,
    /// What came of it is a skip.
    Store,
    /// This one of the input blocks behind it.
    In(usize),
    Middle,
    /// What is added to skips and the middle.
    Residuals,
    /// An output block with the skip that it takes.
    Out(usize),
    /// The last convolution.
    Last,
}

/// A call on its way.
struct Way<'a> {
    network: &'a UNet,
    call: Call<'a>,
    /// `(batch, height, width, channels)`.
    h: Activations,
    skips: Vec<Activations>,
}

impl<'a> Way<'a> {
    fn new(network: &'a UNet, h: Activations, of: &'a UNetCall<'a>) -> Self {
        let call = Call::new(&network.down.device, of);
        Self { network, call, h, skips: vec![] }
    }

    fn go(&mut self, step: Step, run: &Run) -> Result<()> {
        let Self { network, call, h, skips } = self;
        let device = &network.down.device;
        match step {
            Step::First => {
                run.enter(device, format_args!("unet.in.0"))?;
                *h = network.down.first(h, None)?;
                add_at(device, call.of.residuals, ResidualPlace::Encoder(0), h)?;
            }
            Step::Store => skips.push(h.clone()),
            Step::In(index) => {
                run.enter(device, format_args!("unet.in.{}", index + 1))?;
                *h = network.down.block(index, h, call)?;
                add_at(device, call.of.residuals, ResidualPlace::Encoder(index + 1), h)?;
            }
            Step::Middle => {
                run.enter(device, format_args!("unet.middle"))?;
                *h = network.down.middle(h, call)?;
            }
            Step::Residuals => {
                for (index, skip) in skips.iter_mut().enumerate() {
                    add_at(device, call.of.residuals, ResidualPlace::Skip(index), skip)?;
                }
                add_at(device, call.of.residuals, ResidualPlace::Middle, h)?;
            }
            Step::Out(index) => {
                call.place = AttentionPlace { part: SitePart::Output, index, layer: 0 };
                run.enter(device, format_args!("unet.out.{index}"))?;
                let (Some(block), Some(skip)) = (network.output_blocks.get(index), skips.pop()) else {
                    bail!("unet: more blocks up than down")
                };
                // An odd size rounds up when halved, and comes back one too large.
                let (_, rows, columns, _) = skip.dims4()?;
                *h = cat_channels(device, &resized_nearest(device, h, rows, columns)?, &skip)?;
                drop(skip);
                *h = transformed(block.transformer.as_ref(), block.residual.forward(h, call)?, call)?;
                if let Some(conv) = &block.upsample {
                    *h = conv.forward(h)?;
                }
            }
            Step::Last => {
                run.enter(device, format_args!("unet.last"))?;
                *h = network.conv_out.forward_normed(&network.norm_out, h, &Epilogue::widened())?;
            }
        }
        Ok(())
    }

    /// What goes by at a place.
    fn shown(&self, site: Site) -> Result<(Tensor, Option<Tensor>)> {
        let device = &self.network.down.device;
        let skip = self.skips.last().filter(|_| site.part == SitePart::Output);
        Ok((shown(device, &self.h)?, skip.map(|skip| shown(device, skip)).transpose()?))
    }

    /// Goes on with what somebody put there.
    fn put(&mut self, visited: Visited) -> Result<()> {
        let device = &self.network.down.device;
        if let Some(h) = visited.h {
            put(device, &mut self.h, &h, "h")?;
        }
        if let (Some(skip), Some(to)) = (visited.skip, self.skips.last_mut()) {
            put(device, to, &skip, "the skip")?;
        }
        Ok(())
    }
}
