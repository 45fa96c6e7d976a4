//! What a method answers, as clients are sent it: images as PNGs, tensors as their numbers.

use latentd_client::codec::{Decoder, Limits};
use latentd_models::image::Picture;
use latentd_plugin_api::abi::LATENTD_EXT_HANDLE;
use rmpv::Value;
use serde_json::Value as Json;

use crate::plugins::given::to_json;
use crate::plugins::objects::{Content, Image, Objects};
use crate::plugins::parameters;

/// What a result may cost, beside its images.
const LIMITS: Limits = Limits { bytes: 16 << 20, elements: 1 << 18, depth: 32 };
/// Images and tensors in it.
const MOST: usize = 1024;

/// What latentd puts beside what a plugin answers.
pub(super) const OWN: [&str; 4] = ["job", "method", "notices", "artifacts"];

/// The result in a reply, held against its schema; what is wrong with it.
pub(super) fn read(
    reply: &[u8],
    schema: Option<&Json>,
    objects: &mut Objects,
    most_bytes: u64,
) -> Result<Vec<(Value, Value)>, String> {
    let mut decoder = Decoder::new(LIMITS);
    decoder.feed(reply);
    let value = decoder.next_value().map_err(|error| format!("cannot be read: {error}"))?;
    let mut value = value.ok_or("ends too early")?;
    if decoder.pending() > 0 {
        return Err(format!("has {} bytes behind it", decoder.pending()));
    }
    if !value.is_map() {
        return Err(format!("is no map, but {}", kind(&value)));
    }
    Sending { objects, left: MOST, bytes: most_bytes }.fill(&mut value, &mut String::new())?;
    let mut strange = vec![];
    let json = to_json(&value, &mut String::new(), &mut strange);
    // Bytes are no JSON, and may be there.
    if let Some((place, what)) = strange.iter().find(|(_, what)| *what != BYTES) {
        return Err(format!("has {what} at '{place}'"));
    }
    if let Some(name) = OWN.into_iter().find(|name| json.get(name).is_some()) {
        return Err(format!("has '{name}', which is latentd's own; call it otherwise"));
    }
    if let Some(schema) = schema {
        parameters::validate(schema, &json)
            .map_err(|text| format!("is not what its schema allows: {text}"))?;
    }
    match value {
        Value::Map(entries) => Ok(entries),
        _ => Ok(vec![]),
    }
}

/// What bytes are called that JSON does not have.
const BYTES: &str = "a value of bytes";

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Array(_) => "a list",
        Value::String(_) => "a text",
        Value::Binary(_) => "bytes",
        Value::Ext(..) => "an extension",
        _ => "a number or boolean",
    }
}

struct Sending<'a> {
    objects: &'a mut Objects,
    /// Images and tensors that may come, and bytes of them.
    left: usize,
    bytes: u64,
}

impl Sending<'_> {
    /// Puts what is sent where handles stand.
    fn fill(&mut self, value: &mut Value, pointer: &mut String) -> Result<(), String> {
        let length = pointer.len();
        match value {
            Value::Ext(kind, number) => {
                let number = <[u8; 8]>::try_from(&number[..]).map(u64::from_be_bytes);
                let (true, Ok(handle)) = (*kind as u32 == LATENTD_EXT_HANDLE, number) else {
                    return Err(format!(
                        "has an extension of type {kind} at '{pointer}'; images are of type 1"
                    ));
                };
                *value = self.sent(handle).map_err(|text| format!("at '{pointer}': {text}"))?;
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                    self.fill(item, pointer)?;
                    pointer.truncate(length);
                }
            }
            Value::Map(entries) => {
                for (name, value) in entries {
                    pointer.push('/');
                    pointer.push_str(name.as_str().unwrap_or("?"));
                    self.fill(value, pointer)?;
                    pointer.truncate(length);
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn sent(&mut self, handle: u64) -> Result<Value, String> {
        let content = self.objects.readable_content(handle).map_err(|misuse| misuse.to_string())?;
        self.left = self.left.checked_sub(1).ok_or_else(|| format!("more than {MOST} images"))?;
        let size = match content {
            Content::Image(image) => image.pixels.len(),
            Content::Tensor(tensor) => size_of_val(tensor.values()),
            Content::Bytes(bytes) => bytes.len(),
        };
        let left = self.bytes.checked_sub(size as u64);
        self.bytes = left.ok_or_else(|| format!("{size} bytes more than results may have (result_bytes)"))?;
        match content {
            Content::Image(image) => png(image),
            Content::Tensor(tensor) => {
                if let Some(index) = tensor.values().iter().position(|value| !value.is_finite()) {
                    return Err(format!("number {index} of a tensor {:?} is not finite", tensor.dims()));
                }
                let shape = tensor.dims().iter().map(|size| Value::from(*size as u64)).collect();
                let raw = tensor.values().iter().flat_map(|value| value.to_le_bytes()).collect();
                Ok(map([
                    ("raw", Value::Binary(raw)),
                    ("shape", Value::Array(shape)),
                    ("dtype", "f32".into()),
                ]))
            }
            Content::Bytes(_) => Err("a library file is not sent".to_owned()),
        }
    }
}

fn png(image: &Image) -> Result<Value, String> {
    let Image { width, height, channels, pixels } = image;
    let (width, height) = (*width as u32, *height as u32);
    let picture = Picture::from_raw(pixels.to_vec(), width, height, *channels as u32);
    let png = picture.and_then(|picture| picture.to_png()).map_err(|error| error.to_string())?;
    Ok(map([("png", Value::Binary(png)), ("width", width.into()), ("height", height.into())]))
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use latentd_models::Tensor;
    use serde_json::json;

    use super::*;

    fn packed(value: &Value) -> Vec<u8> {
        let mut bytes = vec![];
        rmpv::encode::write_value(&mut bytes, value).expect("encoded");
        bytes
    }

    fn ext(kind: i8, handle: u64) -> Value {
        Value::Ext(kind, handle.to_be_bytes().to_vec())
    }

    fn objects() -> (Objects, u64, u64, u64) {
        let mut objects = Objects::default();
        let image = Image { width: 2, height: 1, channels: 3, pixels: Arc::new(vec![1, 2, 3, 4, 5, 6]) };
        let tensor = |value: f32| Content::Tensor(Tensor::new(vec![1.5, value], [2]).expect("a tensor"));
        let image = objects.lend(Content::Image(image)).expect("lent");
        let good = objects.lend(tensor(-2.0)).expect("lent");
        let nan = objects.lend(tensor(f32::NAN)).expect("lent");
        (objects, image, good, nan)
    }

    #[test]
    fn images_become_pngs_and_tensors_numbers() {
        let (mut objects, image, tensor, _) = objects();
        let list = Value::Array(vec![ext(1, image), 7.into()]);
        let reply =
            packed(&map([("images", list), ("embedding", ext(1, tensor)), ("own", Value::Binary(vec![9]))]));
        let schema = json!({"type": "object", "required": ["images"], "properties": {
            "images": {"type": "array", "items": {"anyOf": [{"x-image": true, "type": "object"}, {"const": 7}]}}}});
        let entries = read(&reply, Some(&schema), &mut objects, 1 << 20).expect("read");
        let result = Value::Map(entries);
        let images = &result["images"];
        let Value::Binary(png) = &images[0]["png"] else { panic!("{images}") };
        assert_eq!(Picture::decode(png, 1 << 10).expect("a PNG").pixels, [1, 2, 3, 4, 5, 6]);
        assert_eq!(
            (&images[0]["width"], &images[0]["height"], &images[1]),
            (&2.into(), &1.into(), &7.into())
        );
        let raw: Vec<u8> = [1.5f32, -2.0].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(result["embedding"]["raw"], Value::Binary(raw));
        assert_eq!(result["embedding"]["shape"], Value::Array(vec![2.into()]));
    }

    #[test]
    fn what_is_wrong_with_a_result_is_said() {
        let (mut objects, image, _, nan) = objects();
        let schema = json!({"type": "object", "properties": {"count": {"type": "integer"}}});
        let mut deep = Value::from(1);
        for _ in 0..40 {
            deep = Value::Array(vec![deep]);
        }
        let many = Value::Array(vec![ext(1, image); MOST + 1]);
        let rows = [
            (packed(&Value::Array(vec![])), "is no map, but a list"),
            (vec![], "ends too early"),
            (vec![0x80, 0x80], "has 1 bytes behind it"),
            (vec![0xc1], "cannot be read"),
            (vec![0xdf, 255, 255, 255, 255], "cannot be read"),
            (packed(&map([("x", deep)])), "cannot be read"),
            (packed(&map([("x", ext(1, 4711))])), "at '/x': 4711 is no handle"),
            (packed(&map([("x", ext(2, 1))])), "an extension of type 2 at '/x'"),
            (packed(&map([("x", Value::Ext(1, vec![1]))])), "an extension of type 1 at '/x'"),
            (packed(&map([("x", ext(1, nan))])), "number 1 of a tensor [2] is not finite"),
            (packed(&map([("x", many)])), "more than 1024 images"),
            (packed(&map([("x", f64::NAN.into())])), "a number without a value at '/x'"),
            (packed(&Value::Map(vec![(1.into(), 2.into())])), "a map whose keys are no texts"),
            (
                packed(&map([("count", "a".into())])),
                "is not what its schema allows: /count: 'a' must be an integer",
            ),
            (packed(&map([("job", "a".into())])), "has 'job', which is latentd's own"),
        ];
        for (reply, expected) in rows {
            let error = read(&reply, Some(&schema), &mut objects, 1 << 20).expect_err(expected);
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let one = packed(&map([("x", ext(1, image))]));
        assert!(read(&one, None, &mut objects, 5).expect_err("large").contains("result_bytes"));
    }
}
