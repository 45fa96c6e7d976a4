//! What a plugin's parameters stand for: pictures, held as they were given until a job begins, and library files, held open.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::{LATENTD_EXT_FILE, LATENTD_EXT_HANDLE};
use rmpv::Value;
use serde_json::Value as Json;

use super::call::Job;
use super::engine_calls::Needed;
use super::engine_kinds::Kind;
use super::keywords::{Place, places};
use super::manifest::Manifest;
use super::objects::{Content, Image, Objects};
use super::parameters::{self, kind_of};
use super::prompts::{self, Lists, ParamPrompt};
use super::resources::{HeldPicture, Resources};
use crate::error::{Class, Error, Result};
use crate::library::Pinned;
use crate::memory::Lease;

/// Pictures, and files, that the parameters of one plugin may name.
const MOST: usize = 128;

/// Parameters that are valid, with what they stand for.
#[derive(Clone)]
pub(super) struct Given {
    /// With the schema's defaults. Pictures and files are the numbers of their places in what follows.
    params: Value,
    /// The same as pictures tell it: with defaults, which a later version may have others of, and pictures by their SHA-256.
    pub told: PluginParams,
    /// Of its prompts those that have a text for each picture.
    pub lists: Lists,
    pub pictures: Vec<GivenPicture>,
    pub files: Vec<Arc<Pinned>>,
    /// Engines that they name.
    pub engines: Vec<Needed>,
}

/// A picture that parameters name; its clones are decoded with it.
#[derive(Clone)]
pub(super) struct GivenPicture {
    held: Arc<dyn HeldPicture>,
    is_mask: bool,
    decoded: Arc<Mutex<Weak<Decoded>>>,
}

/// Its pixels, and the memory that is counted for them.
pub(crate) struct Decoded {
    pub(super) image: Image,
    _lease: Lease,
}

impl GivenPicture {
    /// Width, height and channels.
    pub(super) fn size(&self) -> [usize; 3] {
        let [width, height, channels] = self.held.size();
        [width, height, if self.is_mask { 1 } else { channels }]
    }

    /// Decodes it, unless somebody has it decoded.
    pub(super) fn decoded(&self, job: &dyn Job, plugin: &str) -> Result<Arc<Decoded>> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decoded) = decoded.upgrade() {
            return Ok(decoded);
        }
        if job.is_cancelled() {
            let text = format!("cancelled while the pictures of plugin '{plugin}' were decoded");
            return Err(Error::new(Class::Cancelled, text));
        }
        let bytes = self.size().into_iter().map(|size| size as u64).product();
        let lease = job.reserve(bytes, plugin)?;
        let made = Arc::new(Decoded { image: self.held.decoded(self.is_mask)?, _lease: lease });
        *decoded = Arc::downgrade(&made);
        Ok(made)
    }
}

impl Given {
    /// Settles parameters as they were sent: the schema's defaults are put in, the whole is held against it, and what stands for
    /// something is found. `field` is where they stand, for errors.
    pub(super) fn settle(
        field: &str,
        schema: Option<&Json>,
        params: &PluginParams,
        resources: &dyn Resources,
    ) -> Result<Self> {
        let wrong = |text: String| Error::invalid(format!("{field}: {text}"));
        let mut bytes_at = vec![];
        let whole = Value::from(params.clone());
        let mut settled = to_json(&whole, &mut String::new(), &mut bytes_at);
        match schema {
            Some(schema) => {
                parameters::with_defaults(schema, &mut settled).map_err(wrong)?;
                parameters::validate(schema, &settled).map_err(wrong)?;
            }
            None if settled.as_object().is_none_or(|map| !map.is_empty()) => {
                return Err(wrong("it takes no parameters: give {}".to_owned()));
            }
            None => (),
        }
        let all = schema.map(|schema| places(schema, &settled)).transpose();
        let mut finding = Finding { field, resources, whole: &whole, given: Found::default(), bytes: 0 };
        for place in all.map_err(wrong)?.into_iter().flatten() {
            finding.find(&place, &mut settled)?;
        }
        let Found { pictures, files, engines, places } = finding.given;
        let is_in = |pointer: &String| places.iter().any(|(place, _)| is_within(pointer, place));
        if let Some((pointer, what)) = bytes_at.iter().find(|(pointer, _)| !is_in(pointer)) {
            return Err(wrong(format!("{pointer}: {what} is not taken")));
        }
        let told = settled.as_object().cloned().map(PluginParams::from_json).unwrap_or_default();
        let mut params = Value::from(told.clone());
        for (pointer, value) in places {
            if let Some(place) = at_mut(&mut params, &pointer) {
                *place = value;
            }
        }
        Ok(Self { params, told, lists: Lists::new(), pictures, files, engines })
    }

    /// Has prompts with a text for each of so many pictures, if those of each are valid.
    pub(super) fn set_lists(&mut self, manifest: &Manifest, lists: &Lists, pictures: usize) -> Result<()> {
        let wrong = |text: String| Error::invalid(format!("plugins.{}: {text}", manifest.name));
        if let Some(schema) = &manifest.parameters {
            prompts::check(schema, &self.told_json(), lists, pictures).map_err(wrong)?;
        }
        for (pointer, texts) in lists {
            if let Some(place) = at_mut(&mut self.params, pointer) {
                *place = Value::Array(texts.iter().map(|text| text.as_str().into()).collect());
            }
        }
        self.lists.clone_from(lists);
        Ok(())
    }

    /// Whether these parameters would be told the same.
    pub(super) fn is_told_of(&self, schema: Option<&Json>, params: &PluginParams) -> bool {
        let (Some(schema), Some(params)) = (schema, params.to_json()) else { return false };
        let mut params = Json::Object(params);
        parameters::with_defaults(schema, &mut params).is_ok() && params == self.told_json()
    }

    fn told_json(&self) -> Json {
        self.told.to_json().map_or(Json::Null, Json::Object)
    }

    /// What one picture tells.
    pub(super) fn told_of(&self, picture: usize) -> PluginParams {
        match prompts::of_picture(&self.told_json(), &self.lists, picture) {
            Json::Object(told) => PluginParams::from_json(told),
            _ => self.told.clone(),
        }
    }

    /// Prompts among them.
    pub(super) fn prompts(&self, schema: &Json) -> Result<Vec<ParamPrompt>, String> {
        prompts::prompts(schema, &self.told_json())
    }

    /// As MessagePack, pictures by these handles, files by their places from 1 on.
    pub(super) fn packed(&self, handles: &[u64]) -> Vec<u8> {
        let mut params = self.params.clone();
        with_handles(&mut params, handles);
        let mut packed = vec![];
        // Writing to memory does not fail.
        rmpv::encode::write_value(&mut packed, &params).ok();
        packed
    }

    /// Gives an instance the pictures; what keeps them, and their handles.
    pub(super) fn give(
        &self,
        plugin: &str,
        objects: &RefCell<Objects>,
        job: &dyn Job,
    ) -> Result<(Vec<Arc<Decoded>>, Vec<u64>)> {
        let (mut kept, mut handles) = (vec![], vec![]);
        for picture in &self.pictures {
            let decoded = picture.decoded(job, plugin)?;
            let handle = objects.borrow_mut().give(Content::Image(decoded.image.clone()));
            handles.push(handle.map_err(|misuse| Error::internal(misuse.to_string()))?);
            kept.push(decoded);
        }
        Ok((kept, handles))
    }

    /// As a plan is told: pictures by handles that stand for their sizes alone.
    pub(super) fn packed_for_plan(&self) -> Vec<u8> {
        self.packed(&(1..=self.pictures.len() as u64).collect::<Vec<_>>())
    }
}

/// What was found so far.
#[derive(Default)]
struct Found {
    pictures: Vec<GivenPicture>,
    files: Vec<Arc<Pinned>>,
    engines: Vec<Needed>,
    /// What takes the places of values.
    places: Vec<(String, Value)>,
}

struct Finding<'a> {
    /// Where they stand.
    field: &'a str,
    resources: &'a dyn Resources,
    /// As they were sent.
    whole: &'a Value,
    given: Found,
    /// Of all pixels.
    bytes: u64,
}

impl Finding<'_> {
    /// Finds what a place stands for, if it stands for something. It is told by its name from then on.
    fn find(&mut self, place: &Place, settled: &mut Json) -> Result<()> {
        let Place { pointer, keyword, of } = place;
        let Some(value) = settled.pointer_mut(pointer).filter(|value| !value.is_null()) else {
            return Ok(());
        };
        if self.given.places.iter().any(|(other, _)| is_within(pointer, other)) {
            return Ok(());
        }
        let field = format!("{}{pointer}", self.field);
        match *keyword {
            "x-image" | "x-mask" => {
                let sent = at(self.whole, pointer).cloned();
                // A default is in none of the request's bytes.
                let sent = sent.unwrap_or_else(|| from_json(value));
                let picture = self.picture(&field, &sent, *keyword == "x-mask")?;
                *value = serde_json::json!({"blob": picture.held.name()});
                self.given.pictures.push(picture);
                self.put(pointer, LATENTD_EXT_HANDLE, self.given.pictures.len());
            }
            "x-library" => {
                let kind = of.as_str().and_then(kind_of);
                let kind = kind.ok_or_else(|| Error::internal(format!("{field}: {of} is no kind")))?;
                let Some(wanted) = value.as_str() else {
                    return Err(Error::invalid(format!("{field}: give the name of a {kind}")));
                };
                if self.given.files.len() >= MOST {
                    return Err(Error::invalid(format!("{field}: more than {MOST} files")));
                }
                let file = self.resources.file(kind, wanted);
                let file =
                    file.map_err(|error| Error { text: format!("{field}: {}", error.text), ..error })?;
                // A picture does not tell where its owner keeps files.
                if wanted.contains(['/', '\\']) {
                    let own = &file.item().name;
                    let by_name = self.resources.file(kind, own);
                    if by_name.is_ok_and(|by_name| by_name.identity() == file.identity()) {
                        *value = own.as_str().into();
                    }
                }
                self.given.files.push(file);
                self.put(pointer, LATENTD_EXT_FILE, self.given.files.len());
            }
            "x-engine" => {
                let kind = of.as_str().and_then(Kind::from_name);
                let kind = kind.ok_or_else(|| Error::internal(format!("{field}: {of} is no kind")))?;
                let Some(wanted) = value.as_str() else {
                    return Err(Error::invalid(format!("{field}: give the name of a {}", kind.name())));
                };
                if self.given.engines.len() >= MOST {
                    return Err(Error::invalid(format!("{field}: more than {MOST} engines")));
                }
                self.resources.check_engine(kind, wanted, &field)?;
                let (name, by) = (wanted.to_owned(), field);
                self.given.engines.push(Needed { kind, name, by });
            }
            _ => (),
        }
        Ok(())
    }

    fn picture(&mut self, field: &str, sent: &Value, is_mask: bool) -> Result<GivenPicture> {
        if self.given.pictures.len() >= MOST {
            return Err(Error::invalid(format!("{field}: more than {MOST} pictures")));
        }
        let held = self.resources.picture(field, sent)?;
        let picture = GivenPicture { held, is_mask, decoded: Arc::default() };
        self.bytes += picture.size().into_iter().map(|size| size as u64).product::<u64>();
        let most = self.resources.most_picture_bytes();
        if self.bytes > most {
            let text = format!(
                "{field}: the plugin's pictures take {} bytes of pixels, {most} are allowed; give fewer or smaller ones",
                self.bytes
            );
            return Err(Error::invalid(text));
        }
        Ok(picture)
    }

    fn put(&mut self, pointer: &str, kind: u32, number: usize) {
        let value = Value::Ext(kind as i8, (number as u64).to_be_bytes().to_vec());
        self.given.places.push((pointer.to_owned(), value));
    }
}

/// Whether a JSON pointer is of a place or of something in it.
fn is_within(pointer: &str, place: &str) -> bool {
    pointer.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What JSON does not have, by its place.
pub(super) type Strange = Vec<(String, &'static str)>;

/// As JSON, for the schema to look at. What JSON does not have is told by its place, and stands there as its name.
pub(super) fn to_json(value: &Value, pointer: &mut String, strange: &mut Strange) -> Json {
    let what = match value {
        Value::Nil => return Json::Null,
        Value::Boolean(value) => return (*value).into(),
        Value::Integer(number) => {
            let whole = number.as_u64().map(Json::from).or_else(|| number.as_i64().map(Json::from));
            return whole.unwrap_or_default();
        }
        Value::F32(number) if number.is_finite() => return f64::from(*number).into(),
        Value::F64(number) if number.is_finite() => return (*number).into(),
        Value::String(text) if text.is_str() => return text.as_str().unwrap_or_default().into(),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            return items.map(|(at, item)| below(&at.to_string(), item, pointer, strange)).collect();
        }
        Value::Map(entries) => {
            let mut map = serde_json::Map::new();
            for (name, value) in entries {
                let Some(name) = name.as_str().filter(|name| !map.contains_key(*name)) else {
                    strange.push((pointer.clone(), "a map whose keys are no texts, or the same one twice,"));
                    continue;
                };
                map.insert(name.to_owned(), below(name, value, pointer, strange));
            }
            return Json::Object(map);
        }
        Value::F32(_) | Value::F64(_) => "a number without a value",
        Value::String(_) => "a text that is no UTF-8",
        Value::Binary(_) => "a value of bytes",
        Value::Ext(..) => "an extension of MessagePack",
    };
    strange.push((pointer.clone(), what));
    what.into()
}

/// What a map or list holds, as JSON.
fn below(name: &str, value: &Value, pointer: &mut String, strange: &mut Strange) -> Json {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    let json = to_json(value, pointer, strange);
    pointer.truncate(length);
    json
}

fn from_json(value: &Json) -> Value {
    let map = std::iter::once((String::new(), value.clone())).collect();
    PluginParams::from_json(map).0.into_values().next().unwrap_or(Value::Nil)
}

/// The parts of a JSON pointer.
fn parts(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"))
}

fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    parts(pointer).try_fold(value, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        Value::Map(entries) => {
            entries.iter().find(|(name, _)| name.as_str() == Some(&part)).map(|(_, value)| value)
        }
        _ => None,
    })
}

fn at_mut<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    parts(pointer).try_fold(value, |value, part| match value {
        Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
        Value::Map(entries) => {
            entries.iter_mut().find(|(name, _)| name.as_str() == Some(&part)).map(|(_, value)| value)
        }
        _ => None,
    })
}

/// Puts handles where pictures are.
fn with_handles(value: &mut Value, handles: &[u64]) {
    match value {
        Value::Ext(kind, number) if *kind as u32 == LATENTD_EXT_HANDLE => {
            let place = <[u8; 8]>::try_from(&number[..]).map_or(0, u64::from_be_bytes);
            let handle = (place as usize).checked_sub(1).and_then(|place| handles.get(place));
            *number = handle.copied().unwrap_or_default().to_be_bytes().to_vec();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_handles(item, handles)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| with_handles(value, handles)),
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use latentd_client::protocol::LibraryKind;
    use latentd_models::networks::standalone::Standalone;
    use latentd_models::sampling::NoiseSource;
    use serde_json::json;

    use super::*;
    use crate::memory::{Base, Budget};
    use crate::onnx::{Graph, Limits};
    use crate::plugins::resources::Nothing;

    /// Pictures whose sizes are what was sent.
    struct Pictures {
        decoded: Arc<AtomicUsize>,
        budget: Arc<Budget>,
    }

    struct Held {
        side: usize,
        decoded: Arc<AtomicUsize>,
    }

    impl HeldPicture for Held {
        fn size(&self) -> [usize; 3] {
            [self.side, 1, 3]
        }

        fn name(&self) -> &'static str {
            "abc"
        }

        fn decoded(&self, is_mask: bool) -> Result<Image> {
            self.decoded.fetch_add(1, Ordering::Relaxed);
            let channels = if is_mask { 1 } else { 3 };
            let pixels = Arc::new(vec![7; self.side * channels]);
            Ok(Image { width: self.side, height: 1, channels, pixels })
        }
    }

    impl Resources for Pictures {
        fn picture(&self, field: &str, given: &Value) -> Result<Arc<dyn HeldPicture>> {
            let bytes = at(given, "/png").and_then(Value::as_slice);
            let bytes = bytes.ok_or_else(|| Error::invalid(format!("{field}: no picture")))?;
            Ok(Arc::new(Held { side: bytes.len(), decoded: Arc::clone(&self.decoded) }))
        }

        fn most_picture_bytes(&self) -> u64 {
            100
        }

        fn file(&self, kind: LibraryKind, name: &str) -> Result<Arc<Pinned>> {
            Nothing.file(kind, name)
        }

        fn graph(&self, file: &Pinned) -> Result<Arc<Graph>> {
            Nothing.graph(file)
        }

        fn network(&self, file: &Pinned, base: Option<&Base>) -> Result<Arc<dyn Standalone>> {
            Nothing.network(file, base)
        }

        fn names(&self, kind: LibraryKind) -> Vec<String> {
            Nothing.names(kind)
        }

        fn known_sha256(&self, file: &Pinned) -> Option<String> {
            Nothing.known_sha256(file)
        }

        fn graph_limits(&self) -> Limits {
            Nothing.graph_limits()
        }
    }

    impl Job for Pictures {
        fn is_cancelled(&self) -> bool {
            false
        }

        fn reserve(&self, bytes: u64, _plugin: &str) -> Result<Lease> {
            Ok(self.budget.try_reserve(bytes).expect("room"))
        }

        fn compute(&self, work: &mut (dyn FnMut() + Send)) {
            work();
        }

        fn noise_source(&self) -> NoiseSource {
            NoiseSource::default()
        }
    }

    fn png(bytes: usize) -> Value {
        Value::Map(vec![("png".into(), Value::Binary(vec![0; bytes]))])
    }

    #[test]
    fn pictures_stand_as_handles_and_are_told_by_their_names() {
        let schema = json!({"type": "object", "additionalProperties": false, "properties": {
            "image": {"x-image": true, "default": null},
            "masks": {"type": "array", "items": {"x-mask": true}, "default": []},
            "model": {"anyOf": [{"enum": ["None"]}, {"x-library": "controlnet"}], "default": "None"},
            "text": {"type": "string"},
        }});
        let resources = Pictures { decoded: Arc::default(), budget: Budget::new(1000) };
        let settle = |params: &[(&str, Value)]| {
            let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            Given::settle("plugins.paste", Some(&schema), &PluginParams(params), &resources)
        };
        let given =
            settle(&[("image", png(5)), ("masks", Value::Array(vec![png(2), png(3)]))]).expect("valid");
        let told = given.told.to_json().expect("JSON");
        let expected = json!({
            "image": {"blob": "abc"}, "masks": [{"blob": "abc"}, {"blob": "abc"}], "model": "None",
        });
        assert_eq!(Json::Object(told), expected);
        // With or without the defaults it is the same.
        for (params, is_same) in [
            (expected.clone(), true),
            (json!({"image": {"blob": "abc"}, "masks": [{"blob": "abc"}, {"blob": "abc"}]}), true),
            (json!({"image": {"blob": "abd"}, "masks": [{"blob": "abc"}, {"blob": "abc"}]}), false),
            (json!({"image": {"blob": "abc"}}), false),
        ] {
            let params = PluginParams::from_json(params.as_object().expect("a map").clone());
            assert_eq!(given.is_told_of(Some(&schema), &params), is_same, "{params:?}");
        }
        let sizes: Vec<_> = given.pictures.iter().map(GivenPicture::size).collect();
        assert_eq!(sizes, [[5, 1, 3], [2, 1, 1], [3, 1, 1]]);
        let packed = given.packed(&[1 << 33, 8, 9]);
        let packed = rmpv::decode::read_value(&mut &packed[..]).expect("MessagePack");
        let handle = |pointer: &str| match at(&packed, pointer) {
            Some(Value::Ext(1, bytes)) => u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")),
            other => panic!("{other:?}"),
        };
        assert_eq!([handle("/image"), handle("/masks/0"), handle("/masks/1")], [1 << 33, 8, 9]);
        // Once for all who hold it at a time.
        let first = given.pictures[0].decoded(&resources, "paste").expect("decoded");
        let again = given.pictures[0].decoded(&resources, "paste").expect("decoded");
        assert!(Arc::ptr_eq(&first, &again) && resources.decoded.load(Ordering::Relaxed) == 1);
        assert_eq!(first.image.pixels.len(), 15);
        assert!(resources.budget.try_reserve(986).is_none() && resources.budget.try_reserve(985).is_some());
        drop((first, again));
        assert!(resources.budget.try_reserve(1000).is_some());

        for (params, expected) in [
            (vec![("image", Value::from(5))], "plugins.paste/image: no picture"),
            (vec![("image", png(34))], "plugins.paste/image: the plugin's pictures take 102 bytes of pixels"),
            (vec![("text", Value::Binary(vec![1]))], "/text: a value of bytes is not taken"),
            (vec![("image", Value::F64(f64::NAN))], "plugins.paste/image: no picture"),
            (vec![("model", "canny".into())], "plugins.paste/model: controlnet 'canny': there is no library"),
            (vec![("picture", png(1))], "unknown field 'picture'"),
        ] {
            let error = settle(&params).err().expect(expected);
            assert!(error.text.contains(expected), "{error}");
        }
        assert_eq!(settle(&[]).expect("valid").pictures.len(), 0);
    }
}
