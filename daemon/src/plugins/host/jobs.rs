//! What plugins may ask of the job as a whole.

use latentd_models::image::Picture;
use latentd_plugin_api::abi::{
    LATENTD_ANY, LATENTD_CANCELLED, LATENTD_FAILED, LATENTD_INVALID, LATENTD_MISUSE, LATENTD_OK,
    latentd_bytes, latentd_call, latentd_handle, latentd_jobs, latentd_status, latentd_text,
};

use super::serving::{
    Failure, Served, bytes, call_of, misuse, objects, on_one_line, read_text, reserve, serve, text,
};
use crate::plugins::artifact::{ARTIFACT_BYTES, Artifact, MOST_ARTIFACTS};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::{Content, Image};
use crate::plugins::settings::settled;

/// Notices of one call.
const MOST_NOTICES: usize = 64;
/// Characters of an artifact's name, and of what a plugin says it does.
const NAME_LENGTH: usize = 64;

pub(super) static JOBS: latentd_jobs = latentd_jobs {
    size: size_of::<latentd_jobs>() as u32,
    reserved: 0,
    cancelled: Some(cancelled),
    notice: Some(notice),
    progress: Some(progress),
    preview: Some(preview),
    artifact: Some(artifact),
    reserve: Some(more_memory),
    folder: Some(folder),
    settings: Some(settings),
};

unsafe extern "C" fn cancelled(call: *mut latentd_call) -> u32 {
    // SAFETY: the plugin names a call; the job may be asked from any thread.
    let call = unsafe { call_of(call) };
    u32::from(call.is_some_and(|call| call.job.is_cancelled()))
}

unsafe extern "C" fn notice(call: *mut latentd_call, text: latentd_text) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a text.
        let text = on_one_line(&unsafe { read_text(text) });
        if !text.is_empty() && !state.notices.contains(&text) && state.notices.len() < MOST_NOTICES {
            state.notices.push(text);
        }
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn progress(call: *mut latentd_call, done: f64, what: latentd_text) -> latentd_status {
    // SAFETY: the plugin names a call; it may be told from any thread.
    let Some(call) = (unsafe { call_of(call) }) else { return LATENTD_MISUSE };
    if !(0.0..=1.0).contains(&done) {
        return LATENTD_MISUSE;
    }
    if call.job.is_cancelled() {
        return LATENTD_CANCELLED;
    }
    // What is told goes on only.
    if call.advances_to(done) {
        // SAFETY: the plugin lends a text.
        let what = cut(&on_one_line(&unsafe { read_text(what) }));
        call.job.progress(call.plugin, done, &what);
    }
    LATENTD_OK
}

/// As much of a text as a name may have.
fn cut(text: &str) -> String {
    text.chars().take(NAME_LENGTH).collect()
}

/// An image's pixels, counted for the plugin as long as it is handed on.
fn image(state: &State<'_>, handle: latentd_handle) -> Served<Image> {
    let mut objects = objects(state)?;
    let image = match objects.readable_content(handle)? {
        Content::Image(image) => image.clone(),
        Content::Tensor(_) | Content::Bytes(_) => {
            let text = "a tensor is no picture: make it an image first (LATENTD_OP_CAST)";
            return Err(Failure(LATENTD_INVALID, text.to_owned()));
        }
    };
    objects.hand_over(handle)?;
    Ok(image)
}

fn picture(image: &Image) -> Served<Picture> {
    let Image { width, height, channels, pixels } = image;
    let made = Picture::from_raw(pixels.to_vec(), *width as u32, *height as u32, *channels as u32);
    made.map_err(|error| Failure(LATENTD_FAILED, error.to_string()))
}

unsafe extern "C" fn preview(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let image = image(state, handle)?;
        if !call.job.wants_preview() {
            return Ok(());
        }
        // Twice: as pixels and packed.
        let _room = reserve(call, 2 * image.pixels.len())?;
        call.job.preview(call.plugin, &picture(&image)?);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn artifact(
    call: *mut latentd_call,
    name: latentd_text,
    of: u32,
    handle: latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let invalid = |text: String| Err(Failure(LATENTD_INVALID, text));
        // SAFETY: the plugin lends a text.
        let name = on_one_line(&unsafe { read_text(name) });
        if name.is_empty() || name.chars().count() > NAME_LENGTH {
            return invalid(format!(
                "an artifact's name has 1 to {NAME_LENGTH} characters: '{}'",
                cut(&name)
            ));
        }
        let pictures = call.job.pictures();
        if of != LATENTD_ANY && of >= pictures {
            return invalid(format!("artifact '{name}': there is no picture {of}, but {pictures} from 0"));
        }
        let image = image(state, handle)?;
        let bytes: usize = state.artifacts.iter().map(|artifact| artifact.picture.pixels.len()).sum();
        if state.artifacts.len() == MOST_ARTIFACTS || bytes + image.pixels.len() > ARTIFACT_BYTES {
            let most = ARTIFACT_BYTES >> 20;
            return invalid(format!(
                "artifact '{name}': {MOST_ARTIFACTS} are possible, of {most} MiB of pixels together"
            ));
        }
        let lease = reserve(call, image.pixels.len())?;
        let image_of = (of != LATENTD_ANY).then_some(of as usize);
        let picture = picture(&image)?;
        state.artifacts.push(Artifact {
            plugin: call.plugin.to_owned(),
            name,
            image: image_of,
            picture,
            lease,
        });
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn more_memory(
    call: *mut latentd_call,
    host_bytes: u64,
    device_bytes: u64,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // One budget has both.
        let bytes = usize::try_from(host_bytes.saturating_add(device_bytes)).unwrap_or(usize::MAX);
        state.reserved.push(reserve(call, bytes)?);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn folder(call: *mut latentd_call, path: *mut latentd_text) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if path.is_null() {
            return misuse("path is null");
        }
        let folder = call.job.folder(call.plugin);
        let folder = folder.map_err(|error| Failure(LATENTD_FAILED, error.text))?;
        let Ok(folder) = folder.into_os_string().into_string() else {
            return Err(Failure(LATENTD_FAILED, "the state folder's path is no UTF-8".to_owned()));
        };
        let folder: Box<str> = folder.into();
        // SAFETY: it is not null, and the plugin's own. The text stays where it is until the call ends.
        unsafe { path.write(text(&folder)) };
        state.lent.push(Box::new(folder));
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn settings(call: *mut latentd_call, map: *mut latentd_bytes) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if map.is_null() {
            return misuse("map is null");
        }
        let configs = call.job.configs();
        let failed = |text| Failure(LATENTD_FAILED, text);
        let settings = settled(call.plugin, call.settings, &configs).map_err(failed)?;
        let packed = rmp_serde::to_vec_named(&settings).map_err(|error| failed(error.to_string()))?;
        let packed: Box<[u8]> = packed.into();
        // SAFETY: it is not null, and the plugin's own. The bytes stay where they are until the call ends.
        unsafe { map.write(bytes(&packed)) };
        state.lent.push(Box::new(packed));
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}
