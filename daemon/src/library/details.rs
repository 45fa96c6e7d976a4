//! What is said of a file in itself and beside it, read when somebody asks: it is long, and the library may be large. None
//! of it is believed to be whole, sound or short.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read};
use std::path::Path;

use latentd_client::protocol::{LibraryDetails, LibraryTag};
use latentd_models::files::{self, open_without_waiting};
use serde_json::{Map, Value};

use super::beside::{NOTES, SITE, with_ending};

/// Bytes of one text.
const LONGEST_TEXT: usize = 4 << 10;
/// Texts of metadata, and bytes of all of them.
const MOST_TEXTS: usize = 256;
const LONGEST_METADATA: usize = 64 << 10;
/// Bytes that are read of what lies beside a file, or of tags. A site's answer has some 20 KiB.
const LONGEST_JSON: usize = 4 << 20;
/// Tags, and trigger words.
const MOST_TAGS: usize = 100;
const MOST_WORDS: usize = 100;
/// Trigger words that are told by how often they are tags, where nobody says which they are.
const MOST_WORDS_OF_TAGS: usize = 10;

/// How many training pictures each tag describes, by folder of pictures.
const TAGS: &str = "ss_tag_frequency";

/// All that is said of a weight file.
pub(super) fn details(path: &Path) -> LibraryDetails {
    let mut details = LibraryDetails::default();
    read_notes(path, &mut details);
    read_site(path, &mut details);
    // What is not opened, such as an ONNX file, says nothing of itself.
    if let Ok(file) = files::open(path) {
        own(file.metadata(), &mut details);
    }
    details
}

/// The file's own words.
fn own(metadata: &BTreeMap<String, String>, details: &mut LibraryDetails) {
    let text = |key: &str| metadata.get(key).map(|text| short(text)).filter(|text| !text.is_empty());
    details.output_name = text("ss_output_name");
    details.trigger_words.extend(text("modelspec.trigger_phrase"));
    if let Some(tags) = metadata.get(TAGS) {
        match tags_of(tags) {
            Ok(tags) => {
                // What stands with nearly every picture is what the training called its subject.
                let most = tags.first().map_or(0, |tag| tag.count);
                let is_everywhere = |tag: &&LibraryTag| tag.count > 0 && tag.count >= most - most / 5;
                if details.trigger_words.is_empty() {
                    let words = tags.iter().filter(is_everywhere).take(MOST_WORDS_OF_TAGS);
                    details.trigger_words.extend(words.map(|tag| tag.tag.clone()));
                }
                details.tags = tags;
            }
            Err(reason) => details.ignored.push(format!("{TAGS}: {reason}")),
        }
    }
    let mut length = 0;
    for (key, value) in metadata.iter().filter(|(key, _)| *key != TAGS).take(MOST_TEXTS) {
        let (key, value) = (short(key), short(value));
        length += key.len() + value.len();
        if length > LONGEST_METADATA {
            details.ignored.push("metadata: what is beyond 64 KiB".to_owned());
            break;
        }
        details.metadata.insert(key, value);
    }
}

/// The most frequent tags, those of one frequency by name.
fn tags_of(text: &str) -> Result<Vec<LibraryTag>, String> {
    if text.len() > LONGEST_JSON {
        return Err(format!("is larger than {LONGEST_JSON} bytes"));
    }
    let folders: HashMap<String, HashMap<String, f64>> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut counts = BTreeMap::<String, u64>::new();
    for (tag, count) in folders.into_values().flatten() {
        // Trainers write whole numbers, some of them with a point.
        let sum = counts.entry(tag.trim().to_owned()).or_default();
        *sum = sum.saturating_add(count.max(0.0) as u64);
    }
    let mut tags: Vec<_> =
        counts.into_iter().map(|(tag, count)| LibraryTag { tag: short(&tag), count }).collect();
    tags.sort_by_key(|tag| std::cmp::Reverse(tag.count));
    tags.truncate(MOST_TAGS);
    Ok(tags)
}

/// The owner's notes, as A1111's editor of them writes them.
fn read_notes(path: &Path, details: &mut LibraryDetails) {
    let Some(notes) = read(&with_ending(path, NOTES), details) else {
        return;
    };
    details.description = text_of(&notes, "description");
    details.notes = text_of(&notes, "notes");
    details.base_model = text_of(&notes, "sd version").filter(|version| version != "Unknown");
    details.preferred_weight =
        notes.get("preferred weight").and_then(Value::as_f64).filter(|weight| *weight != 0.0);
    details.trigger_words.extend(text_of(&notes, "activation text"));
}

/// What Civitai says of the version of a model that this file is.
fn read_site(path: &Path, details: &mut LibraryDetails) {
    let Some(site) = read(&with_ending(path, SITE), details) else {
        return;
    };
    let words = site.get("trainedWords").and_then(Value::as_array).into_iter().flatten();
    let words = words.filter_map(Value::as_str).map(short).filter(|word| !word.is_empty());
    details.trigger_words.extend(words.take(MOST_WORDS));
    details.base_model = details.base_model.take().or_else(|| text_of(&site, "baseModel"));
    details.model_name =
        site.get("model").and_then(Value::as_object).and_then(|model| text_of(model, "name"));
    details.civitai_version = site.get("id").and_then(Value::as_u64);
    details.civitai_model = site.get("modelId").and_then(Value::as_u64);
}

fn text_of(map: &Map<String, Value>, key: &str) -> Option<String> {
    map.get(key).and_then(Value::as_str).map(|text| short(text.trim())).filter(|text| !text.is_empty())
}

/// A map in a JSON file, if there is such a file. What is wrong with it is told.
fn read(path: &Path, details: &mut LibraryDetails) -> Option<Map<String, Value>> {
    let read = || -> Result<Option<Map<String, Value>>, String> {
        let failed = |error: std::io::Error| format!("cannot be read: {error}");
        let file = match open_without_waiting(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err("is no file".to_owned());
        }
        let mut text = Vec::new();
        file.take(LONGEST_JSON as u64 + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() > LONGEST_JSON {
            return Err(format!("is larger than {LONGEST_JSON} bytes"));
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        // Of deep nesting serde_json makes an error.
        serde_json::from_slice(text).map(Some).map_err(|error| format!("is no JSON map: {error}"))
    };
    read().unwrap_or_else(|reason| {
        let name = path.file_name().unwrap_or_default().display();
        details.ignored.push(format!("{name}: {reason}"));
        None
    })
}

/// The beginning of a text.
pub(super) fn short(text: &str) -> String {
    cut(text, LONGEST_TEXT).to_owned()
}

/// The beginning of a text, of whole characters in so many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tags_are_counted_over_all_folders_and_what_is_none_is_refused() {
        let text = r#"{"1_a": {"b": 2, "a": 3, " b": 5.0, "minus": -1}, "2_c": {"a": 1, "z": 4}}"#;
        let tags: Vec<_> = tags_of(text).expect("tags").into_iter().map(|tag| (tag.tag, tag.count)).collect();
        let expected = [("b", 7), ("a", 4), ("z", 4), ("minus", 0)];
        assert_eq!(tags, expected.map(|(tag, count)| (tag.to_owned(), count)));
        let many: Vec<_> = (0..1000).map(|index| format!(r#""tag {index}":{index}"#)).collect();
        let many = tags_of(&format!("{{\"a\":{{{}}}}}", many.join(","))).expect("tags");
        assert_eq!((many.len(), many[0].tag.as_str()), (MOST_TAGS, "tag 999"));
        for text in ["", "[]", "{\"a\": 1}", "{\"a\": {\"b\": []}}", &"[".repeat(100_000)] {
            assert!(tags_of(text).is_err(), "{}", cut(text, 40));
        }
        assert!(tags_of(&" ".repeat(LONGEST_JSON + 1)).is_err_and(|reason| reason.contains("larger")));
    }

    #[test]
    fn what_lies_beside_is_read_and_what_is_wrong_there_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        put(
            "a.json",
            "\u{feff}{\"description\": \" d \", \"sd version\": \"SD1\", \"activation text\": \"x, y\", \
             \"preferred weight\": 0.8, \"notes\": \"n\"}",
        );
        put(
            "a.civitai.info",
            r#"{"id": 7, "modelId": 8, "baseModel": "SD 1.5", "trainedWords": ["w", 1, ""],
             "model": {"name": "m"}}"#,
        );
        let found = details(&path);
        let expected = LibraryDetails {
            trigger_words: vec!["x, y".into(), "w".into()],
            base_model: Some("SD1".into()),
            description: Some("d".into()),
            notes: Some("n".into()),
            preferred_weight: Some(0.8),
            model_name: Some("m".into()),
            civitai_version: Some(7),
            civitai_model: Some(8),
            ..LibraryDetails::default()
        };
        assert_eq!(found, expected);
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        let large = " ".repeat(LONGEST_JSON + 1);
        for text in ["", "[]", "null", "{", "<html>", &deep, &large] {
            put("a.json", text);
            put("a.civitai.info", r#"{"id": -1, "model": [], "trainedWords": {}, "baseModel": 3}"#);
            let found = details(&path);
            assert!(matches!(&found.ignored[..], [one] if one.starts_with("a.json: ")), "{found:?}");
            assert_eq!(LibraryDetails { ignored: Vec::new(), ..found }, LibraryDetails::default());
        }
        put("a.json", &format!("{{\"notes\": \"{}\"}}", "ä".repeat(LONGEST_TEXT)));
        assert_eq!(details(&path).notes.map(|notes| notes.len()), Some(LONGEST_TEXT));
    }

    #[test]
    fn where_nobody_says_what_to_write_it_is_what_stands_with_nearly_every_picture() {
        let tags = r#"{"10_x": {"girl": 40, "pencil": 50, "hat": 39}, "5_y": {"pencil": 5, "girl": 5}}"#;
        for (more, expected) in [(None, &["pencil", "girl"][..]), (Some("say this"), &["say this"])] {
            let mut metadata: BTreeMap<_, _> = [(TAGS.to_owned(), tags.to_owned())].into();
            metadata.extend(more.map(|text| ("modelspec.trigger_phrase".to_owned(), text.to_owned())));
            let mut found = LibraryDetails::default();
            own(&metadata, &mut found);
            assert_eq!(found.trigger_words, expected);
            let counts: Vec<u64> = found.tags.iter().map(|tag| tag.count).collect();
            assert_eq!(counts, [55, 45, 39], "the most frequent first");
        }
    }

    #[test]
    fn the_files_own_words_are_kept_short() {
        let long = "x".repeat(LONGEST_TEXT * 2);
        let mut metadata: BTreeMap<_, _> = (0..1000).map(|key| (key.to_string(), long.clone())).collect();
        metadata.insert(TAGS.into(), "nonsense".into());
        metadata.insert("ss_output_name".into(), "out".into());
        metadata.insert("modelspec.trigger_phrase".into(), "say this".into());
        let mut found = LibraryDetails::default();
        own(&metadata, &mut found);
        assert!(found.metadata.values().all(|text| text.len() <= LONGEST_TEXT));
        let length: usize = found.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(length <= LONGEST_METADATA && !found.metadata.is_empty(), "{length}");
        assert_eq!(
            (found.output_name.as_deref(), &found.trigger_words[..]),
            (Some("out"), &["say this".to_owned()][..])
        );
        assert_eq!(found.ignored.len(), 2, "{:?}", found.ignored);
    }
}
