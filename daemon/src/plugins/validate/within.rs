//! What stands for who draws jobs within a job: pictures that are made up, of what was planned alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rmpv::Value;

use super::inputs::{Random, Values};
use crate::error::{Class, Error, Result};
use crate::plugins::job::JobPlugins;
use crate::plugins::objects::Image;
use crate::plugins::subjobs::{SubImage, SubJob, SubJobs, SubPicture, SubPictures, SubPlan};

const TXT2IMG: &str = "txt2img";
const IMG2IMG: &str = "img2img";
/// Width and height of what is drawn of noise alone.
const PICTURE: (usize, usize) = (64, 64);

/// What was planned.
#[derive(Default)]
pub(super) struct Within {
    is_cancelled: AtomicBool,
    planned: Mutex<BTreeMap<u32, SubPlan>>,
}

fn check_patch(patch: &[u8]) -> Result<()> {
    match rmpv::decode::read_value(&mut &*patch) {
        Ok(Value::Map(entries)) if entries.iter().all(|(key, _)| key.is_str()) => Ok(()),
        Ok(_) => Err(Error::invalid("the patch is no map whose keys are texts")),
        Err(error) => Err(Error::invalid(format!("the patch cannot be read: {error}"))),
    }
}

fn check_method(method: &str) -> Result<()> {
    if [TXT2IMG, IMG2IMG].contains(&method) {
        return Ok(());
    }
    Err(Error::invalid(format!("no method '{method}' is drawn within a job: there are {TXT2IMG}, {IMG2IMG}")))
}

impl Within {
    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Takes what a job's plugins planned, if it can be.
    pub(super) fn plan(&self, plugins: &JobPlugins) -> Result<()> {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.clear();
        for (plugin, plan) in plugins.subplans() {
            let checked = check_method(&plan.method).and_then(|()| check_patch(&plan.patch));
            checked.map_err(|error| {
                let text = format!("plugin '{plugin}', sub-job {}: {}", plan.key, error.text);
                Error::new(Class::Plugin, text)
            })?;
            planned.insert(plan.key, plan.clone());
        }
        Ok(())
    }
}

impl SubJobs for Within {
    fn draw(&self, _plugin: &str, asked: SubJob, told: &(dyn Fn(f64) + Sync)) -> Result<Result<SubPictures>> {
        let SubJob { key, mut method, patch, images } = asked;
        if key != 0 {
            let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
            let plan = planned.get(&key);
            let plan = plan.ok_or_else(|| Error::invalid(format!("sub-job {key} was not planned")))?;
            if images.len() > plan.batch as usize {
                let (count, batch) = (images.len(), plan.batch);
                let text = format!("{count} images; sub-job {key} was planned for {batch} at a time");
                return Err(Error::invalid(text));
            }
            method.clone_from(&plan.method);
        }
        check_method(&method)?;
        check_patch(&patch)?;
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(Class::Cancelled, "cancelled in a sub-job"));
        }
        told(0.5);
        let pictures = images.into_iter().enumerate().map(|(place, image)| {
            let begins = image.init.is_some();
            if begins != (method == IMG2IMG) {
                let text = if begins { "begins with noise alone" } else { "begins with an image" };
                return Err(Error::invalid(format!("images[{place}].init: {method} {text}")));
            }
            Ok(made(&image))
        });
        let pictures = pictures.collect::<Result<_>>()?;
        told(1.0);
        Ok(Ok(SubPictures { pictures, notices: vec!["it is made up".to_owned()] }))
    }
}

/// The same for the same.
fn made(image: &SubImage) -> SubPicture {
    let (width, height) = image.init.as_ref().map_or(PICTURE, |init| (init.width, init.height));
    let pixels = Values::Usual.pixels(&mut Random::of(image.seed, "within"), width * height * 3);
    let image_of = Image { width, height, channels: 3, pixels: Arc::new(pixels) };
    SubPicture { image: image_of, seed: image.seed, infotext: format!("made up\nSeed: {}", image.seed) }
}
