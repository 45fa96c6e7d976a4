//! Jobs within the job: planned as the request comes, drawn while a stage waits.

use crate::abi::{
    LATENTD_SUBJOBS, latentd_bytes, latentd_list, latentd_subimage, latentd_subjob, latentd_subjobs,
    latentd_subpicture, latentd_subplan, latentd_subresult, latentd_text,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::handed_over::HandedOver;
use crate::host::{items, lend, text};
use crate::image::Image;
use crate::job::Plan;
use crate::stages::Patch;

/// A job within the job that a plan tells of.
#[derive(Clone, Debug, Default)]
pub struct SubPlan<'a> {
    /// The plugin's number for it, not 0.
    pub key: u32,
    /// "txt2img" or "img2img".
    pub method: &'a str,
    /// What differs from the job's own request, without its pictures.
    pub patch: Patch,
    /// Runs in the whole job, about.
    pub expected: u32,
    /// Runs in the whole job, at most; 0: as many as are expected.
    pub most: u32,
    /// Pictures of one run, at most; 0: 1.
    pub batch: u32,
    /// Plugins of the request that stay out of it; the planner does, unless the patch names it.
    pub without: Vec<&'a str>,
}

/// A job within the job that is drawn now.
#[derive(Default)]
pub struct SubJob<'a> {
    /// That of the plan; 0: one that was not planned.
    pub key: u32,
    /// With key 0: "txt2img" or "img2img".
    pub method: &'a str,
    /// What differs from the plan: only what names nothing and takes no more memory. With key 0 as in [`SubPlan`].
    pub patch: Patch,
    /// One picture each.
    pub images: Vec<SubImage<'a>>,
    /// Which share of what this call does it is, 0 to 1, for [`Call::progress`]; 0: nothing is told.
    pub share: f64,
}

/// A picture that is to be drawn.
#[derive(Default)]
pub struct SubImage<'a> {
    /// Its prompt; the plan's if `None`.
    pub prompt: Option<&'a str>,
    /// Its negative prompt; the plan's if `None`.
    pub negative: Option<&'a str>,
    /// Its seed.
    pub seed: u64,
    /// Its variation's, where the request has a `subseed_strength`.
    pub subseed: u64,
    /// What it begins with, of "img2img".
    pub init: Option<HandedOver<'a>>,
    /// Where it is drawn; everywhere if `None`.
    pub mask: Option<HandedOver<'a>>,
    /// The job's picture that it is for: of prompts that are lists the plan's is that one's.
    pub image: usize,
}

/// What became of it.
pub struct SubResult<'a> {
    /// The pictures in the order of the images, or why it failed: the job goes on.
    pub pictures: Result<Vec<SubPicture<'a>>>,
    /// What it has to tell; it is not passed on by itself.
    pub notices: Vec<&'a str>,
}

/// A picture that was drawn.
pub struct SubPicture<'a> {
    /// What draws it alone.
    pub seed: u64,
    /// The pixels.
    pub image: Image<'a>,
    /// What its file would tell.
    pub infotext: &'a str,
}

fn packed(bytes: &[u8]) -> latentd_bytes {
    latentd_bytes { data: bytes.as_ptr().cast(), length: bytes.len() as u64 }
}

fn listed<T>(items: &[T]) -> latentd_list {
    latentd_list { items: items.as_ptr().cast(), count: items.len() as u32, stride: size_of::<T>() as u32 }
}

const NO_TEXT: latentd_text = latentd_text { data: std::ptr::null(), length: 0 };
const NO_LIST: latentd_list = latentd_list { items: std::ptr::null(), count: 0, stride: 0 };

impl Plan<'_> {
    /// A job that will be drawn within this one. What is wrong with it refuses the request.
    pub fn subjob(&self, planned: &SubPlan<'_>) -> Result<()> {
        let subjob = self.table.subjob.ok_or_else(lacks)?;
        let patch = planned.patch.encoded();
        let without: Vec<latentd_text> = planned.without.iter().map(|name| lend(name)).collect();
        let planned = latentd_subplan {
            size: size_of::<latentd_subplan>() as u32,
            key: planned.key,
            method: lend(planned.method),
            patch: packed(&patch),
            expected: planned.expected,
            most: planned.most,
            batch: planned.batch,
            reserved: 0,
            without: listed(&without),
        };
        // SAFETY: the call is under way; the struct and what it points to are lent.
        Error::of_service(unsafe { subjob(self.call.pointer, &raw const planned) })
    }
}

impl<'a> Call<'a> {
    /// Draws a job within this one, and waits for it: where no network is at work, in [`crate::ImagePost`],
    /// [`crate::BatchPost`], [`crate::PassBegin`] and methods of kind "job". That it fails is in
    /// what it gives; an error if it was not planned so, or the job ends.
    pub fn subjob(&self, asked: SubJob<'_>) -> Result<SubResult<'a>> {
        let service: &latentd_subjobs = self.host.service(LATENTD_SUBJOBS)?;
        let run = service.run.ok_or_else(lacks)?;
        let SubJob { key, method, patch, images, share } = asked;
        let handle = |given: Option<HandedOver<'_>>| given.map_or(Ok(0), |given| given.into_handle(self));
        let image = |image: SubImage<'_>| {
            Ok(latentd_subimage {
                prompt: image.prompt.map_or(NO_TEXT, lend),
                negative: image.negative.map_or(NO_TEXT, lend),
                seed: image.seed,
                subseed: image.subseed,
                init: handle(image.init)?,
                mask: handle(image.mask)?,
                image: u32::try_from(image.image).unwrap_or(u32::MAX),
                reserved: 0,
            })
        };
        let images = images.into_iter().map(image).collect::<Result<Vec<_>>>()?;
        let patch = patch.encoded();
        let asked = latentd_subjob {
            size: size_of::<latentd_subjob>() as u32,
            key,
            method: lend(method),
            patch: packed(&patch),
            images: listed(&images),
            share,
        };
        let mut result = latentd_subresult {
            size: size_of::<latentd_subresult>() as u32,
            status: 0,
            error: NO_TEXT,
            pictures: NO_LIST,
            notices: NO_LIST,
        };
        // SAFETY: the call is under way; what is asked and what it points to are lent, the result is ours.
        Error::of_service(unsafe { run(self.pointer, &raw const asked, &raw mut result) })?;
        // SAFETY: the host lends both lists until the call ends.
        let (pictures, notices) = unsafe {
            (items::<latentd_subpicture>(result.pictures)?, items::<latentd_text>(result.notices)?)
        };
        let picture = |picture: latentd_subpicture| {
            Ok(SubPicture {
                seed: picture.seed,
                image: Image::of(*self, picture.pixels)?,
                // SAFETY: lent until the call ends.
                infotext: unsafe { text(picture.infotext) },
            })
        };
        // SAFETY: lent until the call ends.
        let error = unsafe { text(result.error) };
        let pictures = match result.status {
            0 => Ok(pictures.into_iter().map(picture).collect::<Result<_>>()?),
            status => Err(Error::new(status, error)),
        };
        // SAFETY: lent until the call ends.
        let notices = notices.into_iter().map(|notice| unsafe { text(notice) }).collect();
        Ok(SubResult { pictures, notices })
    }
}
