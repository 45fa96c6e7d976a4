//! Merge patches over a request: maps merge, all else replaces, nil takes away; a key at the top that begins with "/" is a JSON
//! pointer to one place.

use latentd_client::codec::{Decoder, Limits};
use rmpv::Value;

use crate::schema::shorten;

/// What one may cost.
const LIMITS: Limits = Limits { bytes: 16 << 20, elements: 1 << 18, depth: 64 };

/// The one in these bytes.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(String, Value)>, String> {
    let mut decoder = Decoder::new(LIMITS);
    decoder.feed(bytes);
    let wrong = |text: String| format!("the patch cannot be read: {text}");
    let value = decoder.next_value().map_err(|error| wrong(error.to_string()))?;
    let value = value.ok_or_else(|| wrong("it ends too early".into()))?;
    if decoder.pending() > 0 {
        return Err(wrong(format!("there are {} bytes behind it", decoder.pending())));
    }
    let Value::Map(entries) = value else { return Err(format!("the patch is {}, not a map", kind(&value))) };
    let entry = |(key, value): (Value, Value)| match key.as_str() {
        Some(key) => Ok((key.to_owned(), value)),
        None => Err(format!("the patch has {} for a key; give texts", kind(&key))),
    };
    entries.into_iter().map(entry).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) | Value::F32(_) | Value::F64(_) => "a number",
        Value::String(_) => "a text",
        Value::Binary(_) => "bytes",
        Value::Array(_) => "a list",
        Value::Map(_) => "a map",
        Value::Ext(..) => "an extension",
    }
}

/// Changes a request, which is a map.
pub(super) fn apply(request: &mut Value, patch: Vec<(String, Value)>) -> Result<(), String> {
    for (key, value) in patch {
        if key.starts_with('/') {
            at_pointer(request, &key, value)?;
        } else {
            set(request, &key, value);
        }
    }
    Ok(())
}

/// Sets a field of a map; of what is none a map is made.
fn set(target: &mut Value, key: &str, patch: Value) {
    if !target.is_map() {
        *target = Value::Map(vec![]);
    }
    let Value::Map(entries) = target else { return };
    let place = entries.iter().position(|(name, _)| name.as_str() == Some(key));
    match (patch, place) {
        (Value::Nil, Some(place)) => drop(entries.remove(place)),
        (Value::Nil, None) => (),
        (patch, Some(place)) => merge(&mut entries[place].1, patch),
        (patch, None) => {
            let mut made = Value::Nil;
            merge(&mut made, patch);
            entries.push((key.into(), made));
        }
    }
}

/// As deep as the patch is, which is bounded.
fn merge(target: &mut Value, patch: Value) {
    let Value::Map(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_map() {
        *target = Value::Map(vec![]);
    }
    for (key, value) in patch {
        match key.as_str() {
            Some(name) => set(target, name, value),
            // No request has such a key, which is said where it is looked at.
            None => {
                if let Value::Map(entries) = target {
                    entries.push((key, value));
                }
            }
        }
    }
}

/// Where a JSON pointer leads; `None` if that is nowhere.
pub(super) fn at<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    let mut place = value;
    for name in pointer.split('/').skip(1) {
        place = step(place, &unescaped(name))?;
    }
    Some(place)
}

fn step<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match value {
        Value::Map(entries) => {
            entries.iter_mut().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
        }
        Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    }
}

fn unescaped(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

fn at_pointer(request: &mut Value, pointer: &str, patch: Value) -> Result<(), String> {
    let nowhere = || format!("'{}' leads nowhere in the request", shorten(pointer));
    let (parent, name) = pointer.rsplit_once('/').ok_or_else(nowhere)?;
    let (parent, name) = (at(request, parent).ok_or_else(nowhere)?, unescaped(name));
    match parent {
        Value::Map(_) => set(parent, &name, patch),
        Value::Array(items) => {
            let count = items.len();
            let index = name.parse::<usize>().ok().filter(|index| *index < count).ok_or_else(nowhere)?;
            if patch.is_nil() {
                items.remove(index);
            } else if let Some(item) = items.get_mut(index) {
                merge(item, patch);
            }
        }
        _ => return Err(nowhere()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn packed(value: &Json) -> Vec<u8> {
        rmp_serde::to_vec_named(value).expect("encodes")
    }

    fn value(json: &Json) -> Value {
        rmpv::decode::read_value(&mut packed(json).as_slice()).expect("decodes")
    }

    #[test]
    fn maps_merge_and_pointers_lead_to_one_place() {
        let request = json!({
            "prompt": "a", "seed": 1, "output": {"format": "png", "dir": "/x"},
            "regions": [{"prompt": "b", "weight": 1}, {"prompt": "c"}],
            "plugins": {"a/b": {"units": [{"prompt": "d", "on": true}]}},
        });
        for (patch, pointer, expected) in [
            (json!({}), "", request.clone()),
            (json!({"prompt": ["x", "y"]}), "/prompt", json!(["x", "y"])),
            (json!({"seed": null}), "/seed", Json::Null),
            (json!({"none": null}), "", request.clone()),
            (json!({"output": {"dir": null}}), "/output", json!({"format": "png"})),
            (json!({"new": {"deep": {"x": 1, "y": null}}}), "/new", json!({"deep": {"x": 1}})),
            (json!({"seed": {"x": 1}}), "/seed", json!({"x": 1})),
            (json!({"/regions/1/prompt": "z"}), "/regions/1", json!({"prompt": "z"})),
            (json!({"/regions/0": {"weight": 2}}), "/regions/0", json!({"prompt": "b", "weight": 2})),
            (json!({"/regions/0": null}), "/regions", json!([{"prompt": "c"}])),
            (json!({"/plugins/a~1b/units/0/prompt": "e"}), "/plugins/a~1b/units/0/prompt", json!("e")),
            (json!({"/plugins/new": {}}), "/plugins/new", json!({})),
        ] {
            let mut found = value(&request);
            apply(&mut found, read(&packed(&patch)).expect("a patch")).expect("applied");
            let found: Json = rmpv::ext::from_value(found).expect("JSON");
            assert_eq!(found.pointer(pointer).unwrap_or(&Json::Null), &expected, "{patch}");
        }
        for pointer in ["/", "/none/x", "/regions/2", "/regions/x/prompt", "/regions/-1", "/prompt/0", "//"] {
            let mut found = value(&request);
            let patch = read(&packed(&json!({pointer: "x"}))).expect("a patch");
            let applied = apply(&mut found, patch);
            if pointer == "/" {
                // A field whose name is empty, which no request has.
                assert_eq!(applied, Ok(()));
                continue;
            }
            let error = applied.expect_err(pointer);
            assert_eq!(error, format!("'{pointer}' leads nowhere in the request"));
        }
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        let deep = [[0x81, 0xa1, b'x'].repeat(100), vec![0xc0]].concat();
        let many =
            [vec![0x81, 0xa1, b'x', 0xdd], 1_000_000_u32.to_be_bytes().to_vec(), vec![0xc0; 1_000_000]];
        let rows: [(&[u8], &str); 8] = [
            (&[], "it ends too early"),
            (&[0x81, 0xa1], "it ends too early"),
            (&[0xc1], "0xc1"),
            (&[0x93, 1, 2, 3], "the patch is a list, not a map"),
            (&[0x81, 1, 2], "the patch has a number for a key; give texts"),
            (&[0x80, 0x80], "there are 1 bytes behind it"),
            (&deep, "the patch cannot be read"),
            (&many.concat(), "the patch cannot be read"),
        ];
        for (bytes, expected) in rows {
            let error = read(bytes).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_applied(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(patch) = read(&bytes) {
                apply(&mut value(&json!({"prompt": "a", "regions": [{}]})), patch).ok();
            }
        }
    }
}
