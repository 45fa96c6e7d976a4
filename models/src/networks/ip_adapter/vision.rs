//! CLIP's vision transformer (Radford et al. 2021) by transformers' names: ViT-H/14, as IP-Adapters of SD 1 have it, and others by
//! shape.
//!
//! Its heads are 16 in all sizes from L on, which no tensor tells, and neither does the activation: `QuickGELU` is `OpenAI`'s, whose
//! largest is 1024 wide; the wider ones, `OpenCLIP`'s, have the exact one. ViT-B, whose heads are 12, is refused; `OpenCLIP`'s own
//! L/14 looks as `OpenAI`'s does, and is taken for it.

use std::sync::Arc;

use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::networks::standalone::{Described, Entry, Found, Port, Side, Standalone};
use crate::nn::backend::dry_run::dry_run;
use crate::nn::{
    Activation, Activations, Conv2d, ConvConfig, Device, Epilogue, LayerNorm, Linear, Loader, Pointwise,
    Precision, Run, add, attention, behind, keys,
};
use crate::tensor::Tensor;

const MODEL: &str = "vision_model.";
const PROJECTION: &str = "visual_projection";

const HEADS: usize = 16;
/// The widest with `QuickGELU`.
const QUICK: usize = 1024;

/// Means and deviations of the colours that it was trained with.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The part that sees nothing: pixels that are the means.
const NOTHING: &str = "nothing";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Config {
    width: usize,
    /// Pixels of a patch, each way.
    patch: usize,
    /// Patches in a row, and rows.
    grid: usize,
    intermediate: usize,
    layers: usize,
    /// Of what a whole picture becomes.
    embedding: usize,
}

struct Layer {
    norm_1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm_2: LayerNorm,
    fc_1: Linear,
    fc_2: Linear,
}

/// The network.
struct Vision {
    config: Config,
    device: Device,
    precision: Precision,
    patches: Conv2d,
    /// `width` numbers, which stand before the patches.
    class: Vec<f32>,
    /// `(1 + patches, width)`.
    positions: Vec<f32>,
    before: LayerNorm,
    layers: Vec<Layer>,
    after: LayerNorm,
    projection: Linear,
}

/// A file's encoder before it is read.
struct VisionFile {
    described: Described,
    config: Config,
    weight_bytes: u64,
    run_bytes: u64,
}

/// That of a file, if it has one.
pub(in crate::networks) fn find(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    file.shape(&format!("{MODEL}embeddings.patch_embedding.weight"))?;
    Some(VisionFile::new(file).map(|found| Arc::new(found) as Arc<dyn Found>))
}

impl Config {
    fn detect(file: &Tensors) -> Result<Self> {
        let refused = |reason: String| Error::model(file.path(), reason);
        let patches = format!("{MODEL}embeddings.patch_embedding.weight");
        let places = dim(file, &format!("{MODEL}embeddings.position_embedding.weight"), 0)? - 1;
        let config = Self {
            width: dim(file, &patches, 0)?,
            patch: dim(file, &patches, 2)?,
            grid: places.isqrt(),
            intermediate: dim(file, &format!("{MODEL}encoder.layers.0.mlp.fc1.weight"), 0)?,
            layers: count(file, |index| format!("{MODEL}encoder.layers.{index}.")),
            embedding: dim(file, &format!("{PROJECTION}.weight"), 0)?,
        };
        let Self { width, grid, patch, .. } = config;
        if grid == 0 || grid * grid != places || grid.saturating_mul(patch) > 1 << 12 {
            return Err(refused(format!(
                "sees {places} patches of {patch} pixels, which make no square picture"
            )));
        }
        // ViT-B is 768 wide.
        if !width.is_multiple_of(HEADS) || (512..1024).contains(&width) {
            return Err(refused(format!(
                "is {width} wide, as no CLIP with {HEADS} heads is; ViT-L (1024), H (1280), g (1408) and bigG (1664) are run"
            )));
        }
        Ok(config)
    }

    /// Pixels of a picture, each way.
    fn side(&self) -> usize {
        self.grid * self.patch
    }

    fn tokens(&self) -> usize {
        1 + self.grid * self.grid
    }
}

impl Vision {
    fn load(loader: &Loader, config: &Config) -> Result<Self> {
        let Config { width, patch, intermediate, embedding, .. } = *config;
        let name = |part: &str| format!("{MODEL}{part}");
        let patches = ConvConfig {
            kernel: patch,
            stride: patch,
            pad_before: 0,
            pad_after: 0,
            ..ConvConfig::same(3, width)
        };
        let layers = (0..config.layers)
            .map(|index| {
                let name = |part: &str| format!("{MODEL}encoder.layers.{index}.{part}");
                let square = |part: &str| Linear::load(loader, &name(part), width, width);
                Ok(Layer {
                    norm_1: LayerNorm::load(loader, &name("layer_norm1"), width)?,
                    query: square("self_attn.q_proj")?,
                    key: square("self_attn.k_proj")?,
                    value: square("self_attn.v_proj")?,
                    out: square("self_attn.out_proj")?,
                    norm_2: LayerNorm::load(loader, &name("layer_norm2"), width)?,
                    fc_1: Linear::load(loader, &name("mlp.fc1"), width, intermediate)?,
                    fc_2: Linear::load(loader, &name("mlp.fc2"), intermediate, width)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            patches: Conv2d::load_unbiased(loader, &name("embeddings.patch_embedding"), patches)?,
            class: loader.numbers(&name("embeddings.class_embedding"), &[width])?,
            positions: loader
                .numbers(&name("embeddings.position_embedding.weight"), &[config.tokens(), width])?,
            // So it is spelt.
            before: LayerNorm::load(loader, &name("pre_layrnorm"), width)?,
            layers,
            after: LayerNorm::load(loader, &name("post_layernorm"), width)?,
            projection: Linear::load_no_bias(loader, PROJECTION, width, embedding)?,
            device: loader.device().clone(),
            precision: loader.precision(),
            config: config.clone(),
        })
    }

    /// Pixels `(1, side, side, 3)` as it was trained with → what goes into the last layer, `(1, tokens, width)` f32, and what the
    /// whole picture becomes, `(1, 1, embedding)`.
    fn forward(&self, pixels: &[f32], run: &Run) -> Result<(Activations, Activations)> {
        let (device, config) = (&self.device, &self.config);
        let (side, width, tokens) = (config.side(), config.width, config.tokens());
        let x = device.convert(&device.upload(pixels, &[1, side, side, 3])?, self.precision)?;
        let seen = device.convert(&self.patches.forward(&x)?, Precision::F32)?;
        let seen = seen.reshaped([1, tokens - 1, width])?;
        let seen = behind(device, &[&device.upload(&self.class, &[1, 1, width])?, &seen])?;
        let x = add(device, &seen, &device.upload(&self.positions, &[1, tokens, width])?)?;
        // The stream between layers is f32 in any precision.
        let mut x = self.before.forward(&x, Precision::F32)?;
        let mut before_last = x.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            run.enter(device, format_args!("clip.vision.{index}"))?;
            before_last = x.clone();
            x = layer.forward(device, &x, config.width <= QUICK, self.precision)?;
        }
        let whole = device.rows(&x, &[1, 1, width], &|_| 0)?;
        let whole = self.projection.forward(&self.after.forward(&whole, self.precision)?)?;
        Ok((before_last, device.convert(&whole, Precision::F32)?))
    }
}

impl Layer {
    fn forward(
        &self,
        device: &Device,
        x: &Activations,
        is_quick: bool,
        precision: Precision,
    ) -> Result<Activations> {
        let h = self.norm_1.forward(x, precision)?;
        let keys = keys(device, &self.key.forward(&h)?, &self.value.forward(&h)?, HEADS)?;
        let h = attention(device, &self.query.forward(&h)?, &keys, false)?;
        let x = self.out.forward_with(&h, &Epilogue::add(x))?;
        let h = self.norm_2.forward(&x, precision)?;
        let h = if is_quick {
            let quick = Epilogue { activation: Activation::QuickGelu, ..Epilogue::default() };
            self.fc_1.forward_with(&h, &quick)?
        } else {
            device.pointwise(&self.fc_1.forward(&h)?, Pointwise::Gelu)?
        };
        self.fc_2.forward_with(&h, &Epilogue::add(&x))
    }
}

impl VisionFile {
    /// All that is wrong with its tensors is told at once.
    fn new(file: &Tensors) -> Result<Self> {
        let config = Config::detect(file)?;
        let (device, counter) = dry_run();
        // In f32, in which weights take the most.
        let loader = Loader::file(file, &device, Precision::F32);
        let empty = Vision::load(&loader, &config)?;
        let check = Loader::file(file, &device, Precision::F32);
        Vision::load(&check, &config)?;
        check.finish(&[MODEL, PROJECTION], |name| name.ends_with("position_ids"))?;
        let weight_bytes = loader.into_parts().bytes();
        counter.restart();
        empty.forward(&[], &Run::WHOLE)?;
        // On the host: the picture in both orders, and what comes out.
        let host = 2 * 3 * config.side().pow(2) + config.tokens() * config.width + config.embedding;
        let run_bytes = counter.counts().most + (host * size_of::<f32>()) as u64;
        Ok(Self { described: described(&config), config, weight_bytes, run_bytes })
    }
}

fn described(config: &Config) -> Described {
    let fixed = |sizes: &[usize]| sizes.iter().copied().map(Side::Fixed).collect::<Vec<_>>();
    let hidden = Port {
        name: "hidden",
        sides: fixed(&[1, config.tokens(), config.width]),
        about: "what goes into the last layer",
    };
    let embedding =
        Port { name: "embedding", sides: fixed(&[1, config.embedding]), about: "what the whole picture is" };
    let image = Port {
        name: "image",
        sides: fixed(&[1, 3, config.side(), config.side()]),
        about: "the picture, 0 to 1",
    };
    let whole = Entry { name: "", inputs: vec![image], outputs: vec![embedding, hidden.clone()] };
    let nothing = Entry { name: NOTHING, inputs: vec![], outputs: vec![hidden] };
    Described { kind: "clip-vision", entries: vec![whole, nothing] }
}

impl Found for VisionFile {
    fn described(&self) -> &Described {
        &self.described
    }

    fn weight_bytes(&self) -> Option<u64> {
        Some(self.weight_bytes)
    }

    fn activation_bytes(&self, _entry: &Entry, _inputs: &[Vec<usize>]) -> u64 {
        self.run_bytes
    }

    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        let loaded = device.run(|| Vision::load(&Loader::file(file, device, precision), &self.config));
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        Ok(Arc::new(loaded?))
    }
}

impl Standalone for Vision {
    fn run(&self, entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        let side = self.config.side();
        let pixels = match inputs {
            [] if entry.name == NOTHING => vec![0.0; 3 * side * side],
            [image] => {
                let channels = MEAN.iter().zip(DEVIATION).cycle();
                let image = image.to_channels_last()?;
                image.values().iter().zip(channels).map(|(value, (mean, by))| (value - mean) / by).collect()
            }
            _ => bail!("clip-vision: {} inputs, image is taken", inputs.len()),
        };
        let device = &self.device;
        run.on(device, || {
            let (hidden, whole) = self.forward(&pixels, run)?;
            let hidden = Tensor::new(device.download(&hidden)?, hidden.dims())?;
            let whole = Tensor::new(device.download(&whole)?, [1, self.config.embedding])?;
            Ok(if entry.name == NOTHING { vec![hidden] } else { vec![whole, hidden] })
        })
    }
}
