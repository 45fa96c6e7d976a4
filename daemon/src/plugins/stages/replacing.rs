//! What may take the place of what a stage lends.

use std::collections::BTreeMap;

use crate::plugins::objects::{Content, Image, Objects};

/// Pixels of a side of a picture that a plugin gives back: what WebP holds.
const LONGEST_SIDE: usize = 1 << 14;

/// Puts what a plugin gave in the places of its slots; whether there was something. Images may become others of any size if that
/// is said.
pub(super) fn replace_all(
    objects: &mut Objects,
    replaced: BTreeMap<u32, u64>,
    (contents, slots): (&mut [Content], usize),
    any_size: bool,
) -> Result<bool, String> {
    let changed = !replaced.is_empty();
    for (slot, handle) in replaced {
        let place = contents.get_mut(..slots).and_then(|contents| contents.get_mut(slot as usize));
        let place = place.ok_or_else(|| format!("slot {slot} is none of its slots"))?;
        let given = objects.content(handle).map_err(|misuse| misuse.to_string())?;
        check(place, given, any_size).map_err(|text| format!("slot {slot}: {text}"))?;
        place.clone_from(given);
    }
    Ok(changed)
}

/// Whether what a plugin gives may take a place.
fn check(place: &Content, given: &Content, any_size: bool) -> Result<(), String> {
    match (place, given) {
        (Content::Tensor(old), Content::Tensor(new)) if old.dims() == new.dims() => {
            match new.values().iter().position(|value| !value.is_finite()) {
                Some(index) => Err(format!("number {index} of {:?} is {}", new.dims(), new.values()[index])),
                None => Ok(()),
            }
        }
        (Content::Image(_), Content::Image(Image { width, height, .. })) if any_size => {
            let is_sound = |side: &usize| (1..=LONGEST_SIDE).contains(side);
            if is_sound(width) && is_sound(height) {
                return Ok(());
            }
            Err(format!("an image of {width}x{height} is no picture; sides are 1 to {LONGEST_SIDE}"))
        }
        (Content::Image(old), Content::Image(new))
            if (old.width, old.height, old.channels) == (new.width, new.height, new.channels) =>
        {
            Ok(())
        }
        (old, _) if old.dims() == [0] => Err("there is nothing to be replaced".to_owned()),
        _ => {
            let kind = |content: &Content| match content {
                Content::Tensor(_) => "a tensor",
                Content::Image(_) => "an image",
                Content::Bytes(_) => "a file",
            };
            let (old, new) = (kind(place), kind(given));
            Err(format!("{new} {:?} in the place of {old} {:?}", given.dims(), place.dims()))
        }
    }
}
