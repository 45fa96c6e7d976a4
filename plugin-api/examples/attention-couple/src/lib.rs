//! attention-couple: parts of the picture have prompts of their own. What a place of the picture finds in its region's prompt takes
//! the place of what it finds in the request's.
//!
//! ```sh
//! cargo build --release
//! mkdir -p ~/.local/share/latentd/plugins && cp target/release/libattention_couple.so ~/.local/share/latentd/plugins/
//! ```
//!
//! The method known by that name: each prompt has a softmax of its own in every cross-attention. With A(p) what a place finds in
//! the request's prompt, A_i(p) in that of region i, m_i(p) in 0…1 where the region is, w_i its weight, and b the base's
//!
//! ```text
//! covered(p) = (1 − b) · max_i m_i(p)
//! found(p) = (1 − covered(p)) · A(p) + covered(p) · Σ_i w_i · m_i(p) · A_i(p) / Σ_i w_i · m_i(p)
//! ```
//!
//! Of what is steered away from likewise, where a region without a negative prompt has the request's.

#![deny(unsafe_code)]

use std::cell::RefCell;

use latentd_plugin_api::{
    Attention, Call, Conditioning, Conds, Declaring, Filter, GivenImage, Job, JobPlan, Kept, Plan, Plugin, Result,
    Role, Tensor, Where, export,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Params {
    regions: Vec<Region>,
    base_weight: f64,
}

#[derive(Deserialize)]
struct Region {
    prompt: Texts,
    negative: Option<Texts>,
    #[serde(rename = "box")]
    area: Option<Area>,
    mask: Option<GivenImage>,
    weight: f64,
}

/// One text, or one for each of the job's pictures.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Each(Vec<String>),
}

/// As shares of the picture.
#[derive(Deserialize)]
struct Area {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

struct Couple {
    params: Params,
    /// What the text encoder made for the pass: of which region, for which role and picture (all if `None`).
    told: RefCell<Vec<Told>>,
}

struct Told {
    region: usize,
    role: Role,
    image: Option<usize>,
    context: Kept,
}

impl Plugin for Couple {
    fn new(job: &Job<'_>) -> Result<Self> {
        Ok(Self { params: job.params()?, told: RefCell::default() })
    }
}

impl JobPlan for Couple {
    fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
        let Params { regions, base_weight } = job.params()?;
        plan.stage("conditioning/draft-1")?;
        plan.stage("attention/draft-1")?;
        Ok(!regions.is_empty() && base_weight < 1.0)
    }
}

impl Conditioning for Couple {
    fn conditioning(&self, stage: &Conds<'_>) -> Result<()> {
        for told in self.told.take() {
            told.context.release(&stage.call)?;
        }
        for (region, of) in self.params.regions.iter().enumerate() {
            let both = [(Role::Cond, Some(&of.prompt)), (Role::Uncond, of.negative.as_ref())];
            for (role, texts) in both.into_iter().filter_map(|(role, texts)| Some((role, texts?))) {
                let images: Vec<Option<usize>> = match texts {
                    Texts::One(_) => vec![None],
                    Texts::Each(_) => stage.pass.pictures.iter().map(|(image, _)| Some(*image)).collect(),
                };
                for image in images {
                    stage.call.check()?;
                    let tokens = stage.call.tokenise(texts.of(image))?;
                    let context = stage.call.encode(&tokens)?.context.keep()?;
                    self.told.borrow_mut().push(Told { region, role, image, context });
                }
            }
        }
        Ok(())
    }
}

impl Texts {
    fn of(&self, image: Option<usize>) -> &str {
        match self {
            Self::One(text) => text,
            Self::Each(texts) => texts.get(image.unwrap_or_default()).map_or("", String::as_str),
        }
    }
}

impl Attention for Couple {
    fn attention(&self, stage: &Declaring<'_>) -> Result<()> {
        let (call, told) = (stage.call, self.told.borrow());
        let (width, height) = stage.pass.size;
        let shares = self.params.shares(&call, width, height)?;
        let mask = |values: &[f32]| -> Result<Tensor<'_>> {
            let mut mask = call.new_tensor(&[1, 1, height, width])?;
            mask.values_mut().copy_from_slice(values);
            call.finished(mask)
        };
        let masks = shares.iter().map(|share| mask(share)).collect::<Result<Vec<_>>>()?;
        for role in [Role::Cond, Role::Uncond] {
            let of_role = || told.iter().filter(|told| told.role == role);
            let mut base = vec![1.0; width * height];
            for (region, share) in shares.iter().enumerate() {
                if of_role().any(|told| told.region == region) {
                    base.iter_mut().zip(share).for_each(|(base, share)| *base = f32::max(*base - share, 0.0));
                }
            }
            let places = Where { role: Some(role), ..Where::default() };
            if of_role().next().is_some() {
                stage.own(false, places, 1.0, Some(mask(&base)?.into()))?;
            }
            for Told { region, image, context, .. } in of_role() {
                stage.context(Where { image: *image, ..places }, context.tensor(&call), 1.0, Some(masks[*region].into()))?;
            }
        }
        Ok(())
    }
}

impl Params {
    /// What each region counts at each pixel of a picture; what is left to 1 is the base's.
    fn shares(&self, call: &Call<'_>, width: usize, height: usize) -> Result<Vec<Vec<f32>>> {
        let regions = self.regions.iter().map(|region| region.places(call, width, height));
        let mut shares = regions.collect::<Result<Vec<_>>>()?;
        for pixel in 0..width * height {
            let (mut covered, mut sum) = (0.0, 0.0);
            for (region, places) in self.regions.iter().zip(&shares) {
                covered = f64::max(covered, f64::from(places[pixel]));
                sum += region.weight * f64::from(places[pixel]);
            }
            for (region, places) in self.regions.iter().zip(&mut shares).filter(|_| sum > 0.0) {
                let share = region.weight * f64::from(places[pixel]) / sum;
                places[pixel] = ((1.0 - self.base_weight) * covered * share) as f32;
            }
        }
        Ok(shares)
    }
}

impl Region {
    /// Where it is: 0 to 1 for each pixel.
    fn places(&self, call: &Call<'_>, width: usize, height: usize) -> Result<Vec<f32>> {
        let mut places = match self.mask {
            None => vec![1.0; width * height],
            Some(mask) => {
                let mut ops = call.ops()?;
                let floats = ops.to_floats(mask.image(call)?);
                let fitted = ops.resize(floats, (height, width), Filter::Bilinear);
                ops.run(&[fitted])?.tensor(fitted)?.read()?.to_vec()
            }
        };
        if let Some(Area { x, y, w, h }) = self.area {
            let is_in = |pixel: usize, size: usize, from: f64, length: f64| {
                let centre = (pixel as f64 + 0.5) / size as f64;
                centre >= from && centre < from + length
            };
            for (pixel, place) in places.iter_mut().enumerate() {
                if !is_in(pixel % width, width, x, w) || !is_in(pixel / width, height, y, h) {
                    *place = 0.0;
                }
            }
        }
        Ok(places)
    }
}

export!(Couple, "../attention-couple.toml", [JobPlan, Conditioning, Attention]);
