//! A pass begins: what its pictures begin with may be exchanged.

use std::sync::Arc;

use latentd_models::image::inpaint::{Mask, Prepared, Region};
use latentd_models::image::{Channels, Picture};
use latentd_models::pipeline::{Exchanged, PassBegin, PassKind};
use latentd_plugin_api::abi::{LATENTD_PASS_BEGIN, latentd_picture, latentd_region};

use super::sources::PassSources;
use super::{Called, JobStages, told};
use crate::plugins::call::AtHand;
use crate::plugins::objects::{Content, Image};

impl<'a> JobStages<'a> {
    /// The same where pictures are drawn from others.
    pub(crate) fn beginning_with(mut self, sources: Option<PassSources<'a>>) -> Self {
        self.sources = sources;
        self
    }

    /// What a picture was drawn from, if plugins exchanged that.
    pub(crate) fn exchanged(&self, image: usize) -> Option<Prepared> {
        self.exchanged.borrow_mut().remove(&image)
    }

    /// What plugins have the pictures of a pass begin with, which are drawn from `sources`.
    pub(in crate::plugins) fn pass_begun(
        &self,
        stage: &PassBegin,
        sources: Option<PassSources<'_>>,
    ) -> latentd_models::Result<Vec<Exchanged>> {
        if !self.has(LATENTD_PASS_BEGIN) {
            return Ok(vec![]);
        }
        let sources = sources.filter(|_| stage.pass == PassKind::Base);
        let images = || stage.first_image..stage.first_image + stage.seeds.len();
        let prepared: Vec<&Prepared> = images().filter_map(|image| sources?.of(image)).collect();
        let before = begun_contents(&prepared, stage.size);
        let slots = before.len();
        let mut after = before.clone();
        after.extend(prepared.iter().filter_map(|prepared| prepared.unfilled()).map(lent_image));
        let function = |called: &Called<'_>| called.pass_begin(stage, &prepared);
        let at_hand = AtHand { is_between: true, ..AtHand::default() };
        if !self.chain_with(LATENTD_PASS_BEGIN, |_| true, &mut after, slots, at_hand, function)? {
            return Ok(vec![]);
        }
        let rounds = sources.is_some_and(|sources| sources.rounds);
        let mut all = vec![];
        let pairs = before.chunks(2).zip(after.chunks(2));
        for ((image, prepared), (before, after)) in images().zip(prepared).zip(pairs) {
            let new = |place: usize| changed(before.get(place), after.get(place));
            let (picture, mask) = (new(0), new(1));
            let mut exchanged = Exchanged::default();
            if picture.is_some() || mask.is_some() {
                let mask = mask.map(|mask| Mask::of(&mask, rounds)).transpose()?;
                if let Some(mask) = &mask {
                    let (rows, columns) = (stage.size.1 / 8, stage.size.0 / 8);
                    let latents = mask.on_latents(rows, columns, rounds)?;
                    exchanged.latent_mask = Some(latents.reshaped([1, rows, columns])?);
                    exchanged.conditioning_mask = Some(mask.on_pixels(rounds)?);
                }
                let is_new = picture.is_some();
                let made = prepared.clone().exchanged(picture, mask)?;
                exchanged.init = if is_new { Some(made.tensor()?) } else { None };
                self.exchanged.borrow_mut().insert(image, made);
            }
            all.push(exchanged);
        }
        Ok(all)
    }
}

/// What pictures of a pass of this size begin with, as it is lent: two for each.
pub(in crate::plugins) fn begun_contents(prepared: &[&Prepared], size: (usize, usize)) -> Vec<Content> {
    prepared.iter().flat_map(|prepared| lent(prepared, size)).collect()
}

/// A picture and its mask, as they are lent. Where all is drawn anew all of the mask is white.
fn lent(prepared: &Prepared, (width, height): (usize, usize)) -> [Content; 2] {
    let picture = &prepared.picture;
    let mask = match &prepared.mask {
        Some(mask) => lent_image(mask.picture()),
        None if (picture.width, picture.height) == (width, height) => {
            let pixels = vec![255; width * height];
            lent_image(&Picture { width, height, channels: Channels::Grey, pixels })
        }
        // Its latents are stretched: there is no mask of what it is.
        None => Content::Bytes(Arc::default()),
    };
    [lent_image(picture), mask]
}

fn lent_image(picture: &Picture) -> Content {
    let (width, height, channels) = (picture.width, picture.height, picture.channels.count());
    Content::Image(Image { width, height, channels, pixels: Arc::new(picture.pixels.clone()) })
}

/// What took a place, if something did.
fn changed(before: Option<&Content>, after: Option<&Content>) -> Option<Picture> {
    let (Some(Content::Image(before)), Some(Content::Image(after))) = (before, after) else { return None };
    if Arc::ptr_eq(&before.pixels, &after.pixels) {
        return None;
    }
    let channels = Channels::from_count(after.channels as u32).ok()?;
    let pixels = after.pixels.as_ref().clone();
    Some(Picture { width: after.width, height: after.height, channels, pixels })
}

/// The pictures of a pass that begins, as a plugin is told that has two handles for each, and behind those one for each that was
/// filled in.
pub(in crate::plugins) fn begun_pictures(
    stage: &PassBegin,
    prepared: &[&Prepared],
    handles: &[u64],
) -> Vec<latentd_picture> {
    let mut pictures = told::pictures(stage.first_image, &stage.seeds, &[]);
    let mut unfilled = handles.iter().skip(2 * prepared.len());
    for ((picture, prepared), handles) in pictures.iter_mut().zip(prepared).zip(handles.chunks(2)) {
        picture.pixels = handles.first().copied().unwrap_or_default();
        let mask = handles.get(1).filter(|_| prepared.mask.is_some());
        picture.mask = mask.copied().unwrap_or_default();
        let before = prepared.unfilled().and_then(|_| unfilled.next());
        picture.unfilled = before.copied().unwrap_or_default();
        let size = (prepared.picture.width, prepared.picture.height);
        let all = Region { left: 0, top: 0, right: size.0, bottom: size.1 };
        picture.crop = crop(prepared.part().unwrap_or((all, size)));
    }
    pictures
}

impl Called<'_> {
    /// Calls one plugin.
    fn pass_begin(&self, stage: &PassBegin, prepared: &[&Prepared]) -> u32 {
        let pictures = begun_pictures(stage, prepared, self.handles);
        let pass = told::pass(Some(stage), &pictures);
        self.tables.pass_begin.and_then(|table| table.run).map_or(0, |run| {
            // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
            unsafe { run(self.instance, self.call, &raw const pass) }
        })
    }
}

fn crop((region, (width, height)): (Region, (usize, usize))) -> latentd_region {
    latentd_region {
        x: region.left as i32,
        y: region.top as i32,
        w: region.width() as u32,
        h: region.height() as u32,
        canvas_w: width as u32,
        canvas_h: height as u32,
    }
}
