//! upscaler: each upscaler and each restorer of the library is an engine. The host runs their networks, cuts pictures into tiles and
//! puts them together; what is here says how, and where faces are. Named in a request's `plugins`, it makes what was drawn larger.

mod described;
mod faces;
mod post;
mod restoring;

use std::cell::RefCell;

use described::Described;
use latentd_plugin_api::{
    Batch, BatchPost, EngineRun, Entry, Error, File, Job, JobPlan, Network, Plan, Plugin, Restorer, Result,
    Tensor, Upscaler, UpscalerFacts, Upscaling, export,
};
use post::Wish;
use restoring::Networks;
use serde::Deserialize;

/// Pixels that a picture is reckoned with that is not cut.
const WHOLE: usize = 1024;

#[derive(Deserialize)]
struct Settings {
    tile: u32,
    overlap: u32,
}

struct Upscalers {
    /// Networks of a job that were opened so far: of upscalers, with the colours that they take.
    opened: RefCell<Vec<(File, Network, usize)>>,
    /// Of restorers.
    restorers: RefCell<Networks>,
    /// What is to be made of pictures that were drawn.
    wish: Wish,
}

export!(Upscalers, "../upscaler.toml", [JobPlan, BatchPost], engines: [Upscaler, Restorer]);

impl Plugin for Upscalers {
    fn new(job: &Job<'_>) -> Result<Self> {
        Ok(Self { opened: RefCell::default(), restorers: RefCell::default(), wish: job.params()? })
    }
}

impl JobPlan for Upscalers {
    fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
        post::plan(job, plan)
    }
}

impl BatchPost for Upscalers {
    fn batch_post(&self, stage: &Batch<'_>) -> Result<()> {
        self.wish.apply(stage)
    }
}

/// The file of an entry: all of them are files.
fn file(file: Option<File>) -> Result<File> {
    file.ok_or_else(|| Error::failed("an entry that is no file"))
}

impl Upscaler for Upscalers {
    fn describe(entry: &Entry<'_>) -> Result<UpscalerFacts> {
        let file = file(entry.file)?;
        let Described { scale, colours } = Described::of(&entry.call.describe_network(file)?)?;
        let Settings { tile, overlap } = entry.call.settings()?;
        let overlap = if tile == 0 { 0 } else { overlap.min(tile / 2) };
        let side = if tile == 0 { WHOLE } else { tile as usize };
        let tiles = if colours == 1 { 3 } else { 1 };
        entry.plan.network(file, "", &[("image", &[tiles, colours, side, side])], 1.0)?;
        Ok(UpscalerFacts { scale, tile, overlap, ..UpscalerFacts::default() })
    }

    fn upscale(&self, run: &Upscaling<'_>) -> Result<()> {
        let (network, colours) = self.network(run)?;
        let dims = run.tiles.dims()?;
        let &[tiles, 3, height, width] = &dims[..] else {
            return Err(Error::failed(format!("tiles of {dims:?}")));
        };
        if colours == 3 {
            return run.replace(enlarged(run, network, run.tiles)?);
        }
        // Of grey: each colour by itself.
        let planes = reshaped(run, run.tiles, &[3 * tiles, 1, height, width])?;
        let made = enlarged(run, network, planes)?;
        let made_dims = made.dims()?;
        let &[_, 1, high, wide] = &made_dims[..] else {
            return Err(Error::failed(format!("grey became {made_dims:?}")));
        };
        run.replace(reshaped(run, made, &[tiles, 3, high, wide])?)
    }
}

impl Restorer for Upscalers {
    fn describe(entry: &Entry<'_>) -> Result<()> {
        restoring::describe(entry, file(entry.file)?)
    }

    fn restore(&self, run: &EngineRun<'_>) -> Result<()> {
        self.restorers.borrow_mut().restore(run, file(run.file)?)
    }
}

impl Upscalers {
    /// That of an entry, opened once.
    fn network(&self, run: &Upscaling<'_>) -> Result<(Network, usize)> {
        let (file, call) = (file(run.file)?, run.call());
        let known = self.opened.borrow().iter().find(|(own, ..)| *own == file).copied();
        if let Some((_, network, colours)) = known {
            return Ok((network, colours));
        }
        let Described { colours, .. } = Described::of(&call.describe_network(file)?)?;
        let network = call.open_network(file)?;
        self.opened.borrow_mut().push((file, network, colours));
        Ok((network, colours))
    }
}

fn enlarged<'a>(run: &Upscaling<'a>, network: Network, image: Tensor<'a>) -> Result<Tensor<'a>> {
    network.run(run.call(), "", &[("image", image.into())])?.get("image")
}

/// The same numbers in other dimensions.
fn reshaped<'a>(run: &Upscaling<'a>, tensor: Tensor<'a>, dims: &[usize]) -> Result<Tensor<'a>> {
    let call = run.call();
    let mut new = call.new_tensor(dims)?;
    let from = tensor.read()?;
    if from.len() != new.values_mut().len() {
        return Err(Error::failed(format!("{} numbers are not {dims:?}", from.len())));
    }
    new.values_mut().copy_from_slice(from);
    call.finished(new)
}
