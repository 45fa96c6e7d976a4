//! onnx-filter: finished pictures through an ONNX graph of the library that makes a picture of a picture: (1, 3, h, w), f32, 0 to 1.
//!
//! `cargo build --release` makes target/release/libonnx_filter.so; in ~/.local/share/latentd/plugins latentd finds it.

#![deny(unsafe_code)]

use latentd_plugin_api::{
    Call, Error, File, GivenImage, Graph, ImagePost, Job, JobPlan, Pictures, Plan, Plugin, Result, export,
};
use serde::Deserialize;

/// What the request says. By the manifest's schema it is valid, and whole.
#[derive(Deserialize)]
struct Params {
    model: File,
    amount: f64,
    mask: Option<GivenImage>,
}

/// A port of a graph, as the host tells it.
#[derive(Deserialize)]
struct Port {
    name: String,
    sizes: Option<Vec<Side>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Side {
    Fixed(u64),
    Free(Option<String>),
}

#[derive(Deserialize)]
struct Described {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Described {
    fn of(call: &Call<'_>, file: File) -> Result<Self> {
        let told = rmp_serde::from_slice(call.describe_graph(file)?);
        told.map_err(|error| Error::failed(format!("what the host tells of the graph: {error}")))
    }

    /// The one input and the one output.
    fn ports(&self) -> Result<(&Port, &Port)> {
        let ([input], [output]) = (&self.inputs[..], &self.outputs[..]) else {
            let (ins, outs) = (self.inputs.len(), self.outputs.len());
            return Err(Error::invalid(format!("the graph has {ins} inputs and {outs} outputs, not one of each")));
        };
        Ok((input, output))
    }
}

/// A graph, opened for one drawing.
struct Filter {
    params: Params,
    graph: Graph,
    input: String,
    output: String,
}

impl JobPlan for Filter {
    /// A graph that cannot be a filter is refused as the request comes.
    fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
        let params: Params = job.params()?;
        let described = Described::of(&job.call, params.model)?;
        let (input, _) = described.ports()?;
        let takes_pictures = input.sizes.as_ref().is_none_or(|sides| {
            let fits = |side: &Side, wanted: u64| match side {
                Side::Fixed(size) => *size == wanted,
                Side::Free(_) => true,
            };
            matches!(&sides[..], [batch, channels, _, _] if fits(batch, 1) && fits(channels, 3))
        });
        if !takes_pictures {
            return Err(Error::invalid("the graph takes no picture of (1, 3, h, w)"));
        }
        plan.stage("image.post/draft-1")?;
        Ok(params.amount > 0.0)
    }
}

impl Plugin for Filter {
    fn new(job: &Job<'_>) -> Result<Self> {
        let params: Params = job.params()?;
        let described = Described::of(&job.call, params.model)?;
        let (input, output) = described.ports()?;
        let (input, output) = (input.name.clone(), output.name.clone());
        let graph = job.call.open_graph(params.model)?;
        Ok(Self { params, graph, input, output })
    }
}

impl ImagePost for Filter {
    fn image_post(&self, stage: &Pictures<'_>) -> Result<()> {
        let call = &stage.call;
        let mask = self.params.mask.map(|mask| mask.image(call)).transpose()?;
        let shares = mask.map(|mask| Ok((mask, mask.read()?))).transpose()?;
        for picture in stage.pictures() {
            let image = picture.image;
            let (width, height) = (image.width, image.height);
            let made = self.graph.run(call, &[(self.input.as_str(), image.into())])?.get(&self.output)?;
            if made.dims()? != [1, 3, height, width] {
                let text = format!("the graph makes {:?} of a picture of {width}x{height}", made.dims()?);
                return Err(Error::invalid(text));
            }
            let (planes, old, mut new) = (made.read()?, image.read()?, image.like()?);
            let size = width * height;
            for (index, (new, old)) in new.pixels_mut().iter_mut().zip(old.iter()).enumerate() {
                let (pixel, channel) = (index / image.channels, index % image.channels);
                if pixel % width == 0 && channel == 0 {
                    call.check()?;
                }
                // Alpha stays.
                let Some(made) = planes.get(channel.min(3) * size + pixel) else {
                    *new = *old;
                    continue;
                };
                let share = shares.as_ref().map_or(1.0, |(mask, shares)| {
                    let (x, y) = (pixel % width * mask.width / width, pixel / width * mask.height / height);
                    shares.get(y * mask.width + x).map_or(0.0, |share| f64::from(*share) / 255.0)
                });
                let (amount, old) = (self.params.amount * share, f64::from(*old));
                let made = f64::from(made.clamp(0.0, 1.0)) * 255.0;
                *new = (old + (made - old) * amount + 0.5) as u8;
            }
            picture.replace(new)?;
        }
        Ok(())
    }
}

export!(Filter, "../onnx-filter.toml", [JobPlan, ImagePost]);
