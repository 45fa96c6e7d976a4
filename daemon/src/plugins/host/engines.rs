//! Engines of all plugins, for those who are called in a drawing; and what an engine says that it found.

use std::sync::Arc;

use latentd_plugin_api::abi::{
    LATENTD_INVALID, LATENTD_UNSUPPORTED, latentd_call, latentd_detection, latentd_engine_need,
    latentd_engine_result, latentd_engine_run, latentd_list, latentd_registry, latentd_status, latentd_text,
};

use super::serving::{
    Failure, Served, bytes, give_back, misuse, objects, read_bytes, read_text, reserve, serve, serve_nested,
    taken, text,
};
use crate::plugins::call::{Call, State};
use crate::plugins::engine_calls::{Answered, Asked, Detection, Needed, RunsEngines};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::objects::Content;

/// Things that one run may find.
const MOST_DETECTIONS: usize = 1 << 14;
/// Points of one of them.
const MOST_POINTS: u32 = 1 << 12;
/// Bytes of a label; of what else is told of a thing, or an engine.
const LABEL_BYTES: usize = 256;
const DATA_BYTES: u64 = 1 << 16;

pub(super) static REGISTRY: latentd_registry = latentd_registry {
    size: size_of::<latentd_registry>() as u32,
    reserved: 0,
    names: Some(names),
    run: Some(run),
};

/// What is lent with a list.
struct Lent<T, O> {
    _items: Vec<T>,
    /// What they point to.
    _owned: Vec<O>,
}

fn list<T>(items: &[T]) -> latentd_list {
    latentd_list { items: items.as_ptr().cast(), count: items.len() as u32, stride: size_of::<T>() as u32 }
}

fn engines<'a>(call: &Call<'a>) -> Served<&'a dyn RunsEngines> {
    let text =
        "there are no engines at hand in this function: they run in stages and in methods of kind \"job\"";
    call.at_hand.engines.ok_or_else(|| Failure(LATENTD_UNSUPPORTED, text.to_owned()))
}

fn kind_of(code: u32) -> Served<Kind> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code);
    kind.ok_or_else(|| Failure(LATENTD_INVALID, format!("{code} is no kind of engines")))
}

/// Engines that one plan may name.
const MOST_NEEDED: usize = 64;

/// Plans an engine that will be run.
pub(super) unsafe extern "C" fn plan_engine(
    call: *mut latentd_call,
    need: *const latentd_engine_need,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let Some(plan) = &mut state.plan else {
            return misuse("engines are planned within job.plan and describe");
        };
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(need) = (unsafe { taken(need) }) else { return misuse("the engine is null") };
        let kind = kind_of(need.kind)?;
        // SAFETY: the plugin lends texts and bytes.
        let (name, _) = unsafe { (read_text(need.entry), map_of(need.params)?) };
        if name.len() > LABEL_BYTES || plan.engines.len() >= MOST_NEEDED {
            return misuse(format!("a name of {} bytes, or more than {MOST_NEEDED} engines", name.len()));
        }
        let by = format!("plugin '{}'", call.plugin);
        plan.engines.retain(|other| (other.kind, &other.name) != (kind, &name));
        plan.engines.push(Needed { kind, name, by });
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn names(call: *mut latentd_call, kind: u32, names: *mut latentd_list) -> latentd_status {
    let work = |call: &Call<'_>| {
        let kind = kind_of(kind)?;
        if names.is_null() {
            return misuse("names are null");
        }
        let owned = call.job.engine_names(kind);
        let items: Vec<latentd_text> = owned.iter().map(|name| text(name)).collect();
        // SAFETY: it is not null, and the plugin's own.
        unsafe { names.write(list(&items)) };
        call.with(|state| state.lent.push(Box::new(Lent { _items: items, _owned: owned })));
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve_nested(call, work) }
}

unsafe extern "C" fn run(
    call: *mut latentd_call,
    run: *const latentd_engine_run,
    result: *mut latentd_engine_result,
) -> latentd_status {
    let work = |call: &Call<'_>| {
        let engines = engines(call)?;
        // SAFETY: the plugin lends structs that begin with their sizes.
        let (asked, told) = unsafe { (taken(run), taken(result.cast_const())) };
        let (Some(asked), Some(mut told)) = (asked, told) else { return misuse("run or result is null") };
        // SAFETY: the plugin lends texts and bytes.
        let asked = call.with(|state| unsafe { read(&asked, state) })?;
        let tell = call.telling(asked.upscaler_wish()?.share);
        let Answered { image, mut detections, data } = engines.run_telling(&asked, &tell)?;
        // Who asked has it counted from here on.
        for found in &mut detections {
            found.room = None;
        }
        told.image = image.map_or(Ok(0), |image| give(call, Content::Image(image)))?;
        let mut items = vec![];
        for found in &detections {
            let give = |content: Option<Content>| content.map_or(Ok(0), |content| give(call, content));
            items.push(latentd_detection {
                size: size_of::<latentd_detection>() as u32,
                class_id: found.class_id,
                label: text(&found.label),
                score: found.score,
                x0: found.bounds[0],
                y0: found.bounds[1],
                x1: found.bounds[2],
                y1: found.bounds[3],
                point_count: (found.points.len() / 2) as u32,
                points: found.points.as_ptr(),
                mask: give(found.mask.clone().map(Content::Image))?,
                embedding: give(found.embedding.clone())?,
                data: bytes(&found.data),
            });
        }
        told.detections = list(&items);
        told.data = bytes(&data);
        // SAFETY: it is not null, and the plugin's own.
        unsafe { give_back(&told, result) };
        call.with(|state| {
            state.lent.push(Box::new(Lent { _items: items, _owned: detections }));
            state.lent.push(Box::new(data));
        });
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve_nested(call, work) }
}

/// What a plugin asks.
///
/// # Safety
/// Its texts and bytes are as they say.
unsafe fn read(asked: &latentd_engine_run, state: &State<'_>) -> Served<Asked> {
    let kind = kind_of(asked.kind)?;
    let mut objects = objects(state)?;
    let mut image = |handle: u64, what: &str| match objects.readable_content(handle)? {
        Content::Image(image) => Ok(image.clone()),
        Content::Tensor(_) | Content::Bytes(_) => {
            Err(Failure(LATENTD_INVALID, format!("{what} is a tensor or file, an image is needed")))
        }
    };
    let picture = image(asked.image, "image")?;
    let mask = if asked.mask == 0 { None } else { Some(image(asked.mask, "mask")?) };
    if let Some(mask) = &mask
        && (mask.channels, mask.width, mask.height) != (1, picture.width, picture.height)
    {
        let text = format!(
            "the mask is {}x{} of {} channels, of an image of {}x{}",
            mask.width, mask.height, mask.channels, picture.width, picture.height
        );
        return Err(Failure(LATENTD_INVALID, text));
    }
    for (what, value) in [("strength", asked.strength), ("threshold", asked.threshold)] {
        if !(0.0..=1.0).contains(&value) {
            return Err(Failure(LATENTD_INVALID, format!("{what} is {value}; 0 to 1 is meant")));
        }
    }
    if asked.file != 0 {
        return Err(Failure(LATENTD_UNSUPPORTED, "engines are named; file must be 0".to_owned()));
    }
    // SAFETY: as the caller says.
    let (entry, params) = unsafe { (read_text(asked.entry), map_of(asked.params)?) };
    Ok(Asked {
        kind,
        entry,
        image: picture,
        mask,
        width: asked.width,
        height: asked.height,
        strength: asked.strength,
        threshold: asked.threshold,
        params,
    })
}

/// A map in MessagePack, or nothing.
///
/// # Safety
/// There are as many bytes as it says.
unsafe fn map_of(given: latentd_plugin_api::abi::latentd_bytes) -> Served<Vec<u8>> {
    if given.length > DATA_BYTES {
        return misuse(format!("a map of {} bytes; {DATA_BYTES} are allowed", given.length));
    }
    // SAFETY: as the caller says.
    let Some(given) = (unsafe { read_bytes(given) }) else { return misuse("a map is null") };
    let mut rest = given;
    let is_map = given.is_empty()
        || rmpv::decode::read_value(&mut rest).is_ok_and(|value| value.is_map()) && rest.is_empty();
    if is_map { Ok(given.to_vec()) } else { misuse("bytes are no map in MessagePack") }
}

fn size_of_content(content: &Content) -> usize {
    match content {
        Content::Tensor(tensor) => size_of_val(tensor.values()),
        Content::Image(image) => image.pixels.len(),
        Content::Bytes(bytes) => bytes.len(),
    }
}

/// Hands something to the plugin that asked.
fn give(call: &Call<'_>, content: Content) -> Served<u64> {
    let lease = reserve(call, size_of_content(&content))?;
    call.with(|state| {
        let mut objects = objects(state)?;
        let handle = objects.allocate(content, Some(lease))?;
        objects.hand_over(handle)?;
        Ok(handle)
    })
}

/// Takes what an engine found.
pub(in crate::plugins) unsafe extern "C" fn detected(
    call: *mut latentd_call,
    detection: *const latentd_detection,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(given) = (unsafe { taken(detection) }) else { return misuse("the detection is null") };
        let count = state.detections.as_ref().map(Vec::len);
        match count {
            None => return misuse("only detectors and taggers find things"),
            Some(count) if count >= MOST_DETECTIONS => {
                return misuse(format!("more than {MOST_DETECTIONS} things; leave out those of low score"));
            }
            Some(_) => (),
        }
        // SAFETY: the plugin lends what it points to.
        let mut found = unsafe { found(&given, state) }?;
        // The plugin may let go of its own.
        let of_mask = found.mask.as_ref().map_or(0, |mask| mask.pixels.len());
        let bytes = of_mask + found.embedding.as_ref().map_or(0, size_of_content);
        if bytes > 0 {
            found.room = Some(Arc::new(reserve(call, bytes)?));
        }
        state.detections.get_or_insert_default().push(found);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// What was found, if it can be.
///
/// # Safety
/// Its texts, bytes and points are as they say.
unsafe fn found(given: &latentd_detection, state: &State<'_>) -> Served<Detection> {
    let wrong = |text: String| Err(Failure(LATENTD_INVALID, text));
    // SAFETY: as the caller says.
    let label = unsafe { read_text(given.label) };
    if label.len() > LABEL_BYTES {
        return wrong(format!("a label of {} bytes; {LABEL_BYTES} are allowed", label.len()));
    }
    if !(0.0..=1.0).contains(&given.score) {
        return wrong(format!("a score of {}; 0 to 1 is meant", given.score));
    }
    let bounds = [given.x0, given.y0, given.x1, given.y1];
    if !bounds.iter().all(|side| side.is_finite()) || given.x1 < given.x0 || given.y1 < given.y0 {
        return wrong(format!("a box {bounds:?}; left, top, right and bottom are meant"));
    }
    if given.point_count > MOST_POINTS || (given.point_count > 0 && given.points.is_null()) {
        return wrong(format!(
            "{} points; {MOST_POINTS} are allowed, and none may be null",
            given.point_count
        ));
    }
    let points = (0..given.point_count as usize * 2)
        // SAFETY: so many are there, by the caller's word.
        .map(|at| unsafe { given.points.add(at).read_unaligned() })
        .collect::<Vec<f32>>();
    if !points.iter().all(|place| place.is_finite()) {
        return wrong("a point that is nowhere".to_owned());
    }
    let mut objects = objects(state)?;
    let mut content = |handle: u64| -> Served<Option<Content>> {
        if handle == 0 { Ok(None) } else { Ok(Some(objects.readable_content(handle)?.clone())) }
    };
    let (mask, embedding) = (content(given.mask)?, content(given.embedding)?);
    let mask = match mask {
        Some(Content::Image(image)) if image.channels == 1 => Some(image),
        None => None,
        Some(_) => return wrong("a mask that is no image of one channel".to_owned()),
    };
    let is_numbers = |content: &Content| {
        matches!(content, Content::Tensor(tensor) if tensor.dims().len() == 1) && content.is_finite()
    };
    if embedding.as_ref().is_some_and(|embedding| !is_numbers(embedding)) {
        return wrong("an embedding that is no tensor (width) of finite numbers".to_owned());
    }
    // SAFETY: as the caller says.
    let data = unsafe { map_of(given.data) }?;
    Ok(Detection {
        label,
        class_id: given.class_id,
        score: given.score,
        bounds,
        points,
        mask,
        embedding,
        data,
        room: None,
    })
}
