//! What a stage is called with: made-up pictures, rows and tensors that fit together as a drawing's do.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::files::Prediction;
use latentd_models::image::RgbImage;
use latentd_models::networks::unet_sites::{Site, SitePart};
use latentd_models::pipeline::{
    AttentionStage, ConditioningStage, DenoiseBefore, DenoiseCombine, DenoiseWrap, Evaluate, Evaluation,
    Handles, ImagePost, LatentFinal, NoiseInit, PassBegin, PassKind, Picture, Region, Role, Row, Rule,
    RuleChange, RuleKeys, Stages, UNetBlock,
};
use latentd_models::prompt::Conditioning;
use latentd_plugin_api::abi::{
    LATENTD_ATTENTION, LATENTD_BATCH_POST, LATENTD_CONDITIONING, LATENTD_CONTROL_RESIDUALS,
    LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_COMBINE, LATENTD_DENOISE_WRAP, LATENTD_IMAGE_POST,
    LATENTD_INFOTEXT_WRITE, LATENTD_LATENT_FINAL, LATENTD_NOISE_INIT, LATENTD_PASS_BEGIN, LATENTD_UNET_BLOCK,
};

use super::coding::Coding;
use super::conds::{Conds, Counts};
use super::inputs::{Random, Values};
use crate::error::Result;
use crate::plugins::objects::Content;
use crate::plugins::stages::{JobStages, Whole};

/// Of latents.
const CHANNELS: usize = 4;
/// Of a token.
const WIDTH: usize = 64;
/// Pixels to a latent, each way.
const PIXELS: usize = 8;

/// How a scene is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Pictures.
    pub batch: usize,
    /// Pictures of the job before them.
    pub first_image: usize,
    /// Rows and columns of latents.
    pub latents: (usize, usize),
    /// Pixels of finished pictures, width and height; those of the latents if `None`.
    pub pixels: Option<(usize, usize)>,
    /// Branches of what is wanted, of which some have masks if they are several.
    pub wanted: usize,
    /// Whether something is steered away from.
    pub has_uncond: bool,
    /// Rows for something else, for each picture.
    pub others: usize,
    pub values: Values,
    pub step: usize,
    pub steps: usize,
    pub sigma: f64,
    pub scale: f64,
    pub prediction: Prediction,
    pub pass: PassKind,
}

impl Shape {
    /// As most drawings are: one picture of 64 × 64.
    pub(super) const USUAL: Self = Self {
        batch: 1,
        first_image: 0,
        latents: (8, 8),
        pixels: None,
        wanted: 1,
        has_uncond: true,
        others: 0,
        values: Values::Usual,
        step: 3,
        steps: 20,
        sigma: 4.5,
        scale: 7.0,
        prediction: Prediction::Epsilon,
        pass: PassKind::Base,
    };
}

/// What a stage is called with.
#[derive(Clone)]
pub(super) struct Scene {
    pub stage: &'static str,
    pub pass: PassBegin,
    pub evaluation: Evaluation,
    pub scale: f64,
    /// One per picture: noise, latents, or what is asked about.
    pub x: Tensor,
    /// One per row.
    pub outputs: Tensor,
    /// One per picture.
    pub guided: Tensor,
    pub pictures: Vec<Picture>,
    /// Places in the UNet.
    pub blocks: Vec<Block>,
    /// What pictures are told.
    pub conds: Conds,
}

/// A place in the UNet and what goes by there.
#[derive(Clone)]
pub(super) struct Block {
    pub site: Site,
    /// One per row.
    pub h: Tensor,
    /// One per row, of output blocks.
    pub skip: Option<Tensor>,
}

/// Some places of SD 1's UNet: part, index, how much smaller than latents, channels, and those of the skip if there is one.
const SITES: [(SitePart, usize, usize, usize, usize); 6] = [
    (SitePart::Input, 1, 1, 320, 0),
    (SitePart::InputStored, 4, 2, 640, 0),
    (SitePart::Middle, 0, 8, 1280, 0),
    (SitePart::Output, 0, 8, 1280, 1280),
    (SitePart::Output, 6, 2, 1280, 640),
    (SitePart::Output, 9, 1, 640, 320),
];

/// The numbers that a stage leaves.
#[derive(Clone, Debug)]
pub(super) struct Made(pub Vec<f32>);

impl Made {
    /// What tensors and images have.
    pub(super) fn of(contents: &[Content]) -> Self {
        let numbers = contents.iter().flat_map(|content| match content {
            Content::Tensor(tensor) => tensor.values().to_vec(),
            Content::Image(image) => image.pixels.iter().map(|value| f32::from(*value)).collect(),
            Content::Bytes(bytes) => bytes.iter().map(|value| f32::from(*value)).collect(),
        });
        Self(numbers.collect())
    }

    /// To the bit.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.iter().map(|value| value.to_bits()).eq(other.0.iter().map(|value| value.to_bits()))
    }

    /// As far as sums in another order are the same.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let largest = self.0.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(one, other)| (one - other).abs() <= largest * 1e-4)
    }
}

impl Scene {
    pub(super) fn new(stage: &'static str, shape: &Shape, random: &mut Random) -> Result<Self> {
        let Shape { batch, first_image, latents: (height, width), .. } = *shape;
        let seeds: Vec<u64> = (0..batch).map(|_| random.bits() >> 1).collect();
        let size = (width * PIXELS, height * PIXELS);
        let rows = rows(shape, &seeds, random)?;
        let x = shape.values.tensor(random, &[batch, CHANNELS, height, width])?;
        let outputs = shape.values.tensor(random, &[rows.len(), CHANNELS, height, width])?;
        let guided = guided(shape, &rows, &outputs)?;
        let (wide, high) = shape.pixels.unwrap_or(size);
        let picture = |(index, seed): (usize, &u64)| {
            let pixels = shape.values.pixels(random, wide * high * 3);
            Picture {
                image: RgbImage { width: wide, height: high, pixels },
                seed: *seed,
                index: first_image + index,
            }
        };
        let pictures = seeds.iter().enumerate().map(picture).collect();
        let blocks = match stage {
            LATENTD_UNET_BLOCK => blocks(shape, rows.len(), random)?,
            _ => vec![],
        };
        let counts = Counts {
            first_image,
            images: if stage == LATENTD_CONDITIONING { batch } else { 0 },
            wanted: shape.wanted,
            has_uncond: shape.has_uncond,
            chunks: 1 + height / PIXELS,
        };
        let conds = Conds::new(&counts, shape.values, random)?;
        let evaluation = Evaluation {
            rows,
            depth: 0,
            pass: shape.pass,
            pass_index: 0,
            step: shape.step,
            steps: shape.steps,
            call: shape.step,
            sigma: shape.sigma,
            timestep: 999.0 * (1.0 - shape.step as f32 / shape.steps.max(1) as f32),
            prediction: shape.prediction,
            latents: (height, width),
        };
        let pass = PassBegin {
            pass: shape.pass,
            index: 0,
            first_image,
            seeds,
            size: (wide, high),
            steps: shape.steps,
            base: (wide, high),
            hires: None,
            strength: None,
            depth: 0,
        };
        Ok(Self { stage, pass, evaluation, scale: shape.scale, x, outputs, guided, pictures, blocks, conds })
    }

    /// The same with its rows in another order.
    pub(super) fn reordered(&self, random: &mut Random) -> Result<Self> {
        let order = random.order(self.evaluation.rows.len());
        let mut scene = self.clone();
        scene.evaluation.rows =
            order.iter().filter_map(|row| self.evaluation.rows.get(*row).cloned()).collect();
        scene.outputs = taken(&self.outputs, &order)?;
        for block in &mut scene.blocks {
            block.h = taken(&block.h, &order)?;
            block.skip = block.skip.as_ref().map(|skip| taken(skip, &order)).transpose()?;
        }
        Ok(scene)
    }

    /// The same without its last rows.
    pub(super) fn without_last(&self, count: usize) -> Result<Self> {
        let mut scene = self.clone();
        let left = self.evaluation.rows.len().saturating_sub(count);
        scene.evaluation.rows.truncate(left);
        scene.outputs = taken(&self.outputs, &(0..left).collect::<Vec<_>>())?;
        Ok(scene)
    }

    /// Calls the stage as a drawing does; gives what it leaves.
    pub(super) fn run(&self, stages: &JobStages<'_>) -> Result<Made> {
        self.call(stages).map_err(|error| stages.failure().unwrap_or_else(|| error.into()))
    }

    fn call(&self, mut stages: &JobStages<'_>) -> latentd_models::Result<Made> {
        let mut handles = Handles::default();
        if self.stage == LATENTD_PASS_BEGIN {
            return self.begin_pass(stages);
        }
        stages.pass_begin(&self.pass)?;
        let images = self.pass.first_image..self.pass.first_image + self.pass.seeds.len();
        let (evaluation, seeds) = (&self.evaluation, &self.pass.seeds[..]);
        let made = match self.stage {
            LATENTD_NOISE_INIT => {
                let noise = handles.insert(self.x.clone());
                stages.noise_init(&NoiseInit { noise }, &mut handles)?;
                noise
            }
            LATENTD_LATENT_FINAL => {
                let latents = handles.insert(self.x.clone());
                stages.latent_final(&LatentFinal { latents }, &mut handles)?;
                latents
            }
            LATENTD_DENOISE_BEFORE => {
                let latents = handles.insert(self.x.clone());
                stages.denoise_before(&DenoiseBefore { evaluation, images, seeds, latents }, &mut handles)?;
                latents
            }
            LATENTD_DENOISE_COMBINE => {
                let latents = handles.insert(self.x.clone());
                let rows = handles.insert(self.outputs.clone());
                let guided = handles.insert(self.guided.clone());
                let scale = self.scale;
                let told = DenoiseCombine { evaluation, images, seeds, scale, latents, rows, guided };
                stages.denoise_combine(&told, &mut handles)?;
                guided
            }
            LATENTD_IMAGE_POST => {
                let mut pictures = self.pictures.clone();
                stages.image_post(&mut ImagePost { pictures: &mut pictures, coding: &Coding })?;
                let pixels = pictures.iter().flat_map(|picture| &picture.image.pixels);
                return Ok(Made(pixels.map(|value| f32::from(*value)).collect()));
            }
            LATENTD_INFOTEXT_WRITE => {
                let pairs = stages.infotext_pairs(&mut self.whole(), &|_| false)?;
                let pairs = pairs.iter().flatten();
                let bytes =
                    pairs.flat_map(|(key, value)| key.bytes().chain([0]).chain(value.bytes()).chain([0]));
                return Ok(Made(bytes.map(f32::from).collect()));
            }
            LATENTD_BATCH_POST => {
                let mut pictures = self.whole();
                stages.batch_post(&mut pictures, false, u64::MAX)?;
                let pixels = pictures.iter().flat_map(|whole| &whole.picture.pixels);
                return Ok(Made(pixels.map(|value| f32::from(*value)).collect()));
            }
            LATENTD_DENOISE_WRAP => {
                let first = self.pass.first_image;
                let images: Vec<usize> = evaluation.rows.iter().map(|row| row.image - first).collect();
                let x = taken(&self.x, &images)?;
                let samples = stages.denoise_wrap(&DenoiseWrap { evaluation, x: &x }, &mut Halving)?;
                return Ok(Made(self.in_order(&samples.unwrap_or(x))?));
            }
            LATENTD_ATTENTION => {
                let stage = AttentionStage {
                    images,
                    context_width: WIDTH,
                    bytes_per_token: 8 * WIDTH,
                    bytes_of_sources: 1 << 20,
                };
                return Ok(Made(declared(&stages.attention(&stage)?)));
            }
            LATENTD_CONTROL_RESIDUALS => return self.call_residuals(stages),
            LATENTD_UNET_BLOCK => return self.call_blocks(stages),
            LATENTD_CONDITIONING => {
                let Conds { mut conds, encoder } = self.conds.clone();
                stages.conditioning(&mut ConditioningStage { conds: &mut conds, encoding: &encoder })?;
                let values = conds.iter().flat_map(|cond| cond.conditioning.tokens.values());
                return Ok(Made(values.copied().collect()));
            }
            other => return Err(latentd_models::Error::Stage(format!("nobody can call {other} here"))),
        };
        Ok(Made(handles.read(made)?.values().to_vec()))
    }

    /// Its pictures as they are given back.
    fn whole(&self) -> Vec<Whole> {
        let whole = |picture: &Picture| Whole {
            picture: picture.image.clone().into(),
            seed: picture.seed,
            index: picture.index,
            is_last: true,
        };
        self.pictures.iter().map(whole).collect()
    }

    fn call_blocks(&self, mut stages: &JobStages<'_>) -> latentd_models::Result<Made> {
        let (evaluation, rows) = (&self.evaluation, 0..self.evaluation.rows.len());
        let mut made = vec![];
        for Block { site, h, skip } in &self.blocks {
            let mut handles = Handles::default();
            let of_h = handles.insert(h.clone());
            let of_skip = skip.clone().map(|skip| handles.insert(skip));
            if stages.wants_site(evaluation, *site) {
                let (rows, site) = (rows.clone(), *site);
                let told = UNetBlock { evaluation, rows, group: 0, groups: 1, site, h: of_h, skip: of_skip };
                stages.unet_block(&told, &mut handles)?;
            }
            for handle in [Some(of_h), of_skip].into_iter().flatten() {
                made.extend(self.in_order(handles.read(handle)?)?);
            }
        }
        Ok(Made(made))
    }

    /// A tensor's numbers with its rows in an order that does not hang on theirs.
    pub(super) fn in_order(&self, tensor: &Tensor) -> latentd_models::Result<Vec<f32>> {
        let rows = &self.evaluation.rows;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| rows.get(*row).map(|row| (row.image, row.branch)));
        Ok(taken(tensor, &order)?.values().to_vec())
    }
}

/// The numbers of rules.
fn declared(rules: &[Rule]) -> Vec<f32> {
    let mut made = vec![];
    for rule in rules {
        let (weight, mask) = match &rule.change {
            RuleChange::Own { weight, mask } => (*weight, mask),
            RuleChange::Set { weight, mask, keys } => {
                let tensors = match keys {
                    RuleKeys::Context(context) => vec![context],
                    RuleKeys::KeyValue(key, value) => vec![key, value],
                };
                made.extend(tensors.into_iter().flat_map(Tensor::values));
                (*weight, mask)
            }
            RuleChange::Append { weight, keys } => {
                let tensors = match keys {
                    RuleKeys::Context(context) => vec![context],
                    RuleKeys::KeyValue(key, value) => vec![key, value],
                };
                made.extend(tensors.into_iter().flat_map(Tensor::values));
                (*weight, &None)
            }
            RuleChange::Bias(bias) => {
                made.extend(bias.values());
                (1.0, &None)
            }
            RuleChange::FromBank { weight, .. } => (*weight, &None),
            RuleChange::Identity | RuleChange::Capture(_) | RuleChange::Received(_) => (1.0, &None),
        };
        made.push(weight as f32);
        made.extend(mask.iter().flat_map(Tensor::values));
    }
    made
}

/// A model whose samples are half of what it is given, and a little of what it is told.
struct Halving;

impl Evaluate for Halving {
    fn evaluate(
        &mut self,
        _stages: Option<&mut dyn Stages>,
        evaluation: &Evaluation,
        x: &Tensor,
    ) -> latentd_models::Result<Tensor> {
        let mut samples = x.scaled(0.5);
        let length = samples.values().len() / evaluation.rows.len().max(1);
        for (row, values) in evaluation.rows.iter().zip(samples.values_mut().chunks_mut(length.max(1))) {
            let told = row.conditioning.tokens.values();
            let mean = told.iter().sum::<f32>() / told.len().max(1) as f32;
            for value in values {
                *value += mean;
            }
        }
        Ok(samples)
    }

    fn timestep(&self, sigma: f64) -> f32 {
        (sigma * 50.0).min(999.0) as f32
    }
}

/// Rows of a tensor.
fn taken(tensor: &Tensor, rows: &[usize]) -> latentd_models::Result<Tensor> {
    let mut dims = tensor.dims().to_vec();
    let length = tensor.values().len() / dims.first().copied().unwrap_or(1).max(1);
    let row = |row: &usize| tensor.values().iter().skip(row * length).take(length).copied();
    let values: Vec<f32> = rows.iter().flat_map(row).collect();
    if let Some(first) = dims.first_mut() {
        *first = rows.len();
    }
    Tensor::new(values, dims)
}

/// What goes by in the UNet.
fn blocks(shape: &Shape, rows: usize, random: &mut Random) -> Result<Vec<Block>> {
    let (height, width) = shape.latents;
    let block = |(part, index, smaller, channels, of_skip): (SitePart, usize, usize, usize, usize)| {
        let size = |latents: usize| latents.div_ceil(smaller);
        // What comes up from below may be larger by one than what it is joined to.
        let rest = if of_skip > 0 && smaller < 8 { 2 } else { 1 };
        let above = |latents: usize| size(latents).next_multiple_of(rest);
        let h = shape.values.tensor(random, &[rows, channels, above(height), above(width)])?;
        let skip = match of_skip {
            0 => None,
            channels => Some(shape.values.tensor(random, &[rows, channels, size(height), size(width)])?),
        };
        Ok(Block { site: Site { part, index }, h, skip })
    };
    SITES.into_iter().map(block).collect()
}

/// The rows of all pictures: what is steered away from first, as samplers have them.
fn rows(shape: &Shape, seeds: &[u64], random: &mut Random) -> Result<Vec<Row>> {
    let (height, width) = shape.latents;
    let tokens = (0..77 * WIDTH).map(|_| random.share() as f32 - 0.5).collect();
    let conditioning = Arc::new(Conditioning { tokens: Tensor::new(tokens, [1, 77, WIDTH])?, pooled: None });
    let row = |(index, role, branch, weight, mask): (usize, Role, usize, f64, Option<Arc<Tensor>>)| Row {
        image: shape.first_image + index,
        seed: seeds.get(index).copied().unwrap_or_default(),
        branch,
        role,
        weight,
        mask,
        region: Region::whole(width * PIXELS, height * PIXELS),
        tag: Arc::from(""),
        conditioning: Arc::clone(&conditioning),
    };
    let mut rows = vec![];
    let images = 0..shape.batch;
    if shape.has_uncond {
        rows.extend(images.clone().map(|image| row((image, Role::Uncond, 0, 1.0, None))));
    }
    for wanted in 0..shape.wanted {
        for image in images.clone() {
            let is_masked = shape.wanted > 1 && wanted % 2 == 1;
            let shares: Vec<f32> = (0..height * width).map(|_| random.share() as f32).collect();
            let mask = if is_masked { Some(Arc::new(Tensor::new(shares, [height, width])?)) } else { None };
            let weight = if shape.wanted > 1 { 0.25 + random.share() } else { 1.0 };
            rows.push(row((image, Role::Cond, 1 + wanted, weight, mask)));
        }
    }
    for other in 0..shape.others {
        rows.extend(
            images.clone().map(|image| row((image, Role::Other, 1 + shape.wanted + other, 1.0, None))),
        );
    }
    Ok(rows)
}

/// What guidance makes of the outputs.
fn guided(shape: &Shape, rows: &[Row], outputs: &Tensor) -> Result<Tensor> {
    let (height, width) = shape.latents;
    let (plane, length) = (height * width, CHANNELS * height * width);
    let number =
        |row: usize, at: usize| f64::from(outputs.values().get(row * length + at).copied().unwrap_or(0.0));
    let mut values = Vec::with_capacity(shape.batch * length);
    for image in shape.first_image..shape.first_image + shape.batch {
        let of = |role: Role| {
            rows.iter()
                .enumerate()
                .filter(move |(_, row)| row.image == image && row.role == role)
                .map(|(at, _)| at)
        };
        let from = of(Role::Uncond).next();
        let scale = if from.is_some() { shape.scale } else { 1.0 };
        let from = from.or_else(|| of(Role::Cond).next()).unwrap_or(0);
        for at in 0..length {
            let differences = of(Role::Cond).filter_map(|wanted| {
                let row = rows.get(wanted)?;
                let share = row.mask.as_ref().and_then(|mask| mask.values().get(at % plane.max(1)));
                let weight = row.weight * share.map_or(1.0, |share| f64::from(*share));
                Some(weight * (number(wanted, at) - number(from, at)))
            });
            values.push((number(from, at) + scale * differences.sum::<f64>()) as f32);
        }
    }
    Ok(Tensor::new(values, [shape.batch, CHANNELS, height, width])?)
}
