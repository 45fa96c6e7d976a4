//! pag: perturbed-attention guidance, in Rust. Each step it asks the model once more, with self-attention that looks nowhere but at
//! its own place, and steers away from that.
//!
//! ```sh
//! cargo build --release
//! mkdir -p ~/.local/share/latentd/plugins && cp target/release/libpag.so ~/.local/share/latentd/plugins/
//! ```
//!
//! Ahn, Cho, Min, Jang, Kim, Kim, Park, Jin, Kim: "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", ECCV 2024
//! (arXiv 2403.17377). With the samples c, u and p of what is wanted, what is not, and what is wanted but perturbed
//!
//! ```text
//! guided = u + cfg · (c − u) + scale · (c − p)
//! ```
//!
//! Here the last term is added to both c and u, of which guidance then makes the same. Of several things that are wanted it is
//! their mean by weight. With `adaptive` the scale falls with the timestep t: scale − adaptive · (1000 − t), not below 0.

#![deny(unsafe_code)]

use std::collections::BTreeMap;

use latentd_plugin_api::{
    Ask, Attention, Declaring, DenoiseWrap, Inside, Job, JobPlan, Part, Plan, Plugin, Result, Role, Row, Where,
    Wrap, export,
};
use serde::Deserialize;

const TAG: &str = "pag/perturbed";

/// What the request says.
#[derive(Deserialize)]
struct Pag {
    scale: f64,
    adaptive: f64,
    blocks: Vec<Block>,
    start: f64,
    end: f64,
}

#[derive(Deserialize)]
struct Block {
    part: Name,
    index: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Input,
    Middle,
    Output,
}

impl Plugin for Pag {
    fn new(job: &Job<'_>) -> Result<Self> {
        job.params()
    }
}

impl JobPlan for Pag {
    fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
        let Self { scale, start, end, .. } = job.params()?;
        if scale == 0.0 || end <= start {
            return Ok(false);
        }
        plan.stage("attention/draft-1")?;
        plan.stage_within("denoise.wrap/draft-1", start, end)?;
        Ok(true)
    }
}

impl Attention for Pag {
    fn attention(&self, stage: &Declaring<'_>) -> Result<()> {
        for Block { part, index } in &self.blocks {
            let part = match part {
                Name::Input => Part::Input,
                Name::Middle => Part::Middle,
                Name::Output => Part::Output,
            };
            stage.identity(Where { part: Some(part), index: *index, tag: TAG, ..Where::default() })?;
        }
        Ok(())
    }
}

impl DenoiseWrap for Pag {
    fn denoise_wrap(&self, stage: &Wrap<'_>) -> Result<()> {
        let rows = &stage.evaluation.rows;
        let scale = (self.scale - self.adaptive * (1000.0 - stage.evaluation.timestep)).max(0.0);
        let is_wanted = |row: &Row<'_>| row.role == Role::Cond && row.tag.is_empty();
        let wanted: Vec<usize> = (0..rows.len()).filter(|index| is_wanted(&rows[*index])).collect();
        if scale == 0.0 || wanted.is_empty() {
            return Ok(());
        }
        let own: Vec<Ask<'_>> = rows.iter().map(|row| Ask::of(row, row.tag)).collect();
        let samples = stage.ask(Inside::Next, &own, stage.x, None)?.read()?;
        // What is wanted once more, perturbed.
        let dims = stage.x.dims()?;
        let length = dims[1..].iter().product::<usize>();
        let mut x = stage.call.new_tensor(&[&[wanted.len()], &dims[1..]].concat())?;
        for (to, index) in x.values_mut().chunks_exact_mut(length).zip(&wanted) {
            to.copy_from_slice(&stage.x.read()?[index * length..][..length]);
        }
        let again: Vec<Ask<'_>> = wanted.iter().map(|index| Ask::of(&rows[*index], TAG)).collect();
        let perturbed = stage.ask(Inside::Next, &again, stage.call.finished(x)?, None)?.read()?;

        let mut steered: BTreeMap<usize, (f64, Vec<f64>)> = BTreeMap::new();
        for (index, perturbed) in wanted.iter().zip(perturbed.chunks_exact(length)) {
            let (row, sample) = (&rows[*index], &samples[index * length..][..length]);
            let (weight, sum) = steered.entry(row.image).or_insert_with(|| (0.0, vec![0.0; length]));
            *weight += row.weight;
            for ((sum, sample), perturbed) in sum.iter_mut().zip(sample).zip(perturbed) {
                *sum += row.weight * scale * f64::from(sample - perturbed);
            }
        }
        let mut made = stage.x.like()?;
        let all = made.values_mut().chunks_exact_mut(length).zip(samples.chunks_exact(length));
        for (row, (to, sample)) in rows.iter().zip(all) {
            match steered.get(&row.image) {
                Some((weight, sum)) if *weight != 0.0 => {
                    for ((to, sample), sum) in to.iter_mut().zip(sample).zip(sum) {
                        *to = (f64::from(*sample) + sum / weight) as f32;
                    }
                }
                _ => to.copy_from_slice(sample),
            }
        }
        stage.replace(made)
    }
}

export!(Pag, "../pag.toml", [JobPlan, Attention, DenoiseWrap]);
