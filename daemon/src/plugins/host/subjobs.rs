//! Jobs within the job: planned with it, and drawn where no network is at work.

use std::sync::Arc;

use latentd_plugin_api::abi::{
    LATENTD_BATCH_POST, LATENTD_CANCELLED, LATENTD_IMAGE_POST, LATENTD_INVALID, LATENTD_OK,
    LATENTD_PASS_BEGIN, LATENTD_UNSUPPORTED, latentd_bytes, latentd_call, latentd_handle, latentd_list,
    latentd_status, latentd_subimage, latentd_subjob, latentd_subjobs, latentd_subpicture, latentd_subplan,
    latentd_subresult, latentd_text,
};

use super::serving::{
    Failure, Served, elements, give_back, misuse, objects, on_one_line, read_bytes, read_text, reserve,
    serve, serve_nested, taken, text,
};
use crate::error::Error;
use crate::plugins::call::{Call, State};
use crate::plugins::objects::{Content, Image, Objects};
use crate::plugins::subjobs::{SubImage, SubJob, SubPicture, SubPictures, SubPlan};

/// Sub-jobs that a plan may tell of.
const MOST_PLANNED: usize = 64;
/// Runs of one of them.
const MOST_RUNS: u32 = 1 << 16;
/// Pictures of a run.
const MOST_IMAGES: u32 = 1024;
/// Plugins that stay out.
const MOST_WITHOUT: u32 = 1024;
/// Bytes of all patches of a plan, and of all prompts of a run.
const MOST_BYTES: u64 = 16 << 20;

pub(super) static SUBJOBS: latentd_subjobs =
    latentd_subjobs { size: size_of::<latentd_subjobs>() as u32, reserved: 0, run: Some(run) };

fn invalid<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

/// A sub-job that a plan tells of.
pub(super) unsafe extern "C" fn plan_subjob(
    call: *mut latentd_call,
    subplan: *const latentd_subplan,
) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        let Some(plan) = &mut state.plan else { return misuse("sub-jobs are planned within job.plan") };
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(asked) = (unsafe { taken(subplan) }) else { return misuse("the sub-job is null") };
        let latentd_subplan { key, expected, most, batch, .. } = asked;
        if key == 0 {
            return misuse("a sub-job's key is 0, which stands for what is not planned");
        }
        if plan.subjobs.iter().any(|other| other.key == key) {
            return misuse(format!("sub-job {key} is planned twice"));
        }
        if plan.subjobs.len() >= MOST_PLANNED {
            return invalid(format!("more than {MOST_PLANNED} sub-jobs"));
        }
        let most = if most == 0 { expected.max(1) } else { most };
        if most > MOST_RUNS || expected > most {
            return invalid(format!(
                "sub-job {key} is run {expected} times, {most} at most; up to {MOST_RUNS} are possible, and no more are \
                 expected than that"
            ));
        }
        if batch > MOST_IMAGES {
            return invalid(format!(
                "sub-job {key}: {batch} pictures of one run; {MOST_IMAGES} are possible"
            ));
        }
        let others: usize = plan.subjobs.iter().map(|other| other.patch.len()).sum();
        if asked.patch.length.saturating_add(others as u64) > MOST_BYTES {
            return invalid(format!("patches of more than {MOST_BYTES} bytes together"));
        }
        // SAFETY: the plugin lends texts, bytes and a list.
        let (method, patch, without) =
            unsafe { (read_text(asked.method), read_patch(asked.patch)?, read_names(asked.without)?) };
        plan.subjobs.push(SubPlan { key, method, patch, expected, most, batch: batch.max(1), without });
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// # Safety
/// As [`read_bytes`].
unsafe fn read_patch(patch: latentd_bytes) -> Served<Vec<u8>> {
    if patch.length > MOST_BYTES {
        return invalid(format!("a patch of {} bytes; {MOST_BYTES} are allowed", patch.length));
    }
    // SAFETY: as the caller says.
    match unsafe { read_bytes(patch) } {
        // Nothing is changed.
        Some([]) => Ok(vec![0x80]),
        Some(bytes) => Ok(bytes.to_vec()),
        None => misuse("the patch is null"),
    }
}

/// # Safety
/// `list` points to as many elements of as many bytes as it says, or is empty; texts are lent.
unsafe fn read_names(list: latentd_list) -> Served<Vec<String>> {
    // SAFETY: as the caller says.
    let names = unsafe { elements::<latentd_text>(list, MOST_WITHOUT, "names") }?;
    // SAFETY: as the caller says.
    Ok(names.into_iter().map(|name| unsafe { read_text(name) }).collect())
}

unsafe extern "C" fn run(
    call: *mut latentd_call,
    subjob: *const latentd_subjob,
    result: *mut latentd_subresult,
) -> latentd_status {
    let work = |call: &Call<'_>| {
        let subjobs = call.at_hand.is_between.then(|| call.job.subjobs()).flatten().ok_or_else(|| {
            let text = format!(
                "no job is drawn within this function; in {LATENTD_PASS_BEGIN}, {LATENTD_IMAGE_POST}, {LATENTD_BATCH_POST}, and \
                 methods of kind job"
            );
            Failure(LATENTD_UNSUPPORTED, text)
        })?;
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(asked) = (unsafe { taken(subjob) }) else { return misuse("the sub-job is null") };
        if result.is_null() {
            return misuse("the result is null");
        }
        if !(0.0..=1.0).contains(&asked.share) {
            return misuse(format!("a share of {}: 0 to 1 are meant", asked.share));
        }
        // SAFETY: the plugin lends a text, bytes and a list.
        let (method, patch, images) = unsafe {
            let images = call.with(|state| read_images(state, asked.images))?;
            (read_text(asked.method), read_patch(asked.patch)?, images)
        };
        if images.is_empty() {
            return invalid("a sub-job without images");
        }
        // What the stage's own network works in is free meanwhile.
        if let Some(coding) = call.at_hand.coding {
            coding.rest();
        }
        let told = call.telling(asked.share);
        let asked = SubJob { key: asked.key, method, patch, images };
        let drawn = subjobs.draw(call.plugin, asked, &told)?;
        if call.job.is_cancelled() {
            return Err(Failure(LATENTD_CANCELLED, "cancelled in a sub-job".to_owned()));
        }
        let told = call.with(|state| lend(call, state, drawn))?;
        // SAFETY: it is not null and begins with its size, by the plugin's word.
        unsafe { give_back(&told, result) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve_nested(call, work) }
}

/// # Safety
/// `list` points to as many elements of as many bytes as it says, or is empty; texts are lent.
unsafe fn read_images(state: &mut State<'_>, list: latentd_list) -> Served<Vec<SubImage>> {
    // SAFETY: as the caller says.
    let images = unsafe { elements::<latentd_subimage>(list, MOST_IMAGES, "images") }?;
    let texts = images.iter().flat_map(|image| [image.prompt.length, image.negative.length]);
    let texts = texts.fold(0, u64::saturating_add);
    if texts > MOST_BYTES {
        return invalid(format!("prompts of {texts} bytes together; {MOST_BYTES} are allowed"));
    }
    let mut objects = objects(state)?;
    let image = |(place, image): (usize, latentd_subimage)| {
        let in_field =
            |Failure(status, text), field: &str| Failure(status, format!("images[{place}].{field}: {text}"));
        // SAFETY: as the caller says.
        let prompt = unsafe { read_prompt(image.prompt) }.map_err(|failure| in_field(failure, "prompt"))?;
        // SAFETY: as the caller says.
        let negative =
            unsafe { read_prompt(image.negative) }.map_err(|failure| in_field(failure, "negative"))?;
        let init = picture(&mut objects, image.init).map_err(|failure| in_field(failure, "init"))?;
        let mask = picture(&mut objects, image.mask).map_err(|failure| in_field(failure, "mask"))?;
        let latentd_subimage { seed, subseed, image, .. } = image;
        Ok(SubImage { prompt, negative, seed, subseed, init, mask, image: image as usize })
    };
    images.into_iter().enumerate().map(image).collect()
}

/// # Safety
/// The text is lent.
unsafe fn read_prompt(given: latentd_text) -> Served<Option<String>> {
    if given.data.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller says.
    let bytes = unsafe { read_bytes(latentd_bytes { data: given.data.cast(), length: given.length }) };
    match String::from_utf8(bytes.unwrap_or_default().to_vec()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => invalid("it is no UTF-8"),
    }
}

fn picture(objects: &mut Objects, handle: latentd_handle) -> Served<Option<Image>> {
    if handle == 0 {
        return Ok(None);
    }
    match objects.readable_content(handle)? {
        Content::Image(image) => Ok(Some(image.clone())),
        Content::Tensor(_) | Content::Bytes(_) => {
            invalid("a tensor is no image: give one of u8, 1, 3 or 4 channels")
        }
    }
}

/// What the plugin is given, for as long as its call goes on.
fn lend(
    call: &Call<'_>,
    state: &mut State<'_>,
    drawn: Result<SubPictures, Error>,
) -> Served<latentd_subresult> {
    let (status, error, SubPictures { pictures, notices }) = match drawn {
        Ok(drawn) => (LATENTD_OK, String::new(), drawn),
        Err(error) => {
            let Failure(status, text) = error.into();
            (status, text, SubPictures::default())
        }
    };
    let mut handles = vec![];
    for SubPicture { image, .. } in &pictures {
        let lease = reserve(call, image.pixels.len())?;
        let content = Content::Image(Image { pixels: Arc::clone(&image.pixels), ..*image });
        handles.push(objects(state)?.allocate(content, Some(lease))?);
    }
    let notices: Vec<Box<str>> = notices.iter().map(|notice| on_one_line(notice).into()).collect();
    let infotexts: Vec<Box<str>> = pictures.iter().map(|picture| picture.infotext.as_str().into()).collect();
    let error: Box<str> = error.into();
    let told: Vec<latentd_subpicture> = pictures
        .iter()
        .zip(handles)
        .zip(&infotexts)
        .map(|((picture, pixels), infotext)| latentd_subpicture {
            seed: picture.seed,
            pixels,
            infotext: text(infotext),
        })
        .collect();
    let texts: Vec<latentd_text> = notices.iter().map(|notice| text(notice)).collect();
    let result = latentd_subresult {
        size: size_of::<latentd_subresult>() as u32,
        status,
        error: text(&error),
        pictures: list(&told),
        notices: list(&texts),
    };
    state.lent.push(Box::new((error, told, infotexts, texts, notices)));
    Ok(result)
}

fn list<T>(items: &[T]) -> latentd_list {
    latentd_list { items: items.as_ptr().cast(), count: items.len() as u32, stride: size_of::<T>() as u32 }
}
