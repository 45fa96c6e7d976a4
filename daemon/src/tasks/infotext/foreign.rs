//! What other programs say of their pictures, in A1111's form: where it is clear what they mean. Their texts are told as
//! they are besides.

use latentd_models::image::{Infotext, Texts};
use serde_json::{Map, Value};

use super::samplers::{sampler, schedule};

/// A program that writes down a map of its own.
struct Program {
    /// Finds the map.
    map: fn(&Texts) -> Option<Map<String, Value>>,
    prompt: &'static str,
    negative_prompt: &'static str,
    /// A1111's keys, each with the program's; a point leads into a map.
    pairs: &'static [(&'static str, &'static str)],
}

const PROGRAMS: &[Program] = &[
    // InvokeAI.
    Program {
        map: |texts| json(text(texts, "invokeai_metadata")?),
        prompt: "positive_prompt",
        negative_prompt: "negative_prompt",
        pairs: &[
            ("Steps", "steps"),
            ("Sampler", "scheduler"),
            ("CFG scale", "cfg_scale"),
            ("Seed", "seed"),
            ("Size", "width x height"),
            ("Model", "model.name"),
            ("Model", "model.model_name"),
        ],
    },
    // SwarmUI.
    Program {
        map: |texts| inner(json(texts.infotext.as_deref()?)?, "sui_image_params"),
        prompt: "prompt",
        negative_prompt: "negativeprompt",
        pairs: &[
            ("Steps", "steps"),
            ("Sampler", "sampler"),
            ("Schedule type", "scheduler"),
            ("CFG scale", "cfgscale"),
            ("Seed", "seed"),
            ("Size", "width x height"),
            ("Model", "model"),
            ("Variation seed", "variationseed"),
            ("Variation seed strength", "variationseedstrength"),
        ],
    },
    // Fooocus.
    Program {
        map: |texts| json(texts.infotext.as_deref()?).filter(|map| map.contains_key("base_model")),
        prompt: "prompt",
        negative_prompt: "negative_prompt",
        pairs: &[
            ("Steps", "steps"),
            ("Sampler", "sampler"),
            ("Schedule type", "scheduler"),
            ("CFG scale", "guidance_scale"),
            ("Seed", "seed"),
            ("Size", "resolution"),
            ("Model", "base_model"),
            ("Model hash", "base_model_hash"),
        ],
    },
    // Draw Things.
    Program {
        map: |texts| json(&in_xmp(text(texts, "XML:com.adobe.xmp")?, "exif:UserComment")?),
        prompt: "c",
        negative_prompt: "uc",
        pairs: &[
            ("Steps", "steps"),
            ("Sampler", "sampler"),
            ("CFG scale", "scale"),
            ("Seed", "seed"),
            ("Size", "size"),
            ("Model", "model"),
        ],
    },
    // Easy Diffusion: one text for each.
    Program {
        map: |texts| {
            text(texts, "use_stable_diffusion_model")?;
            let pairs = texts.others.iter().map(|(key, text)| (key.clone(), Value::from(text.as_str())));
            Some(pairs.collect())
        },
        prompt: "prompt",
        negative_prompt: "negative_prompt",
        pairs: &[
            ("Steps", "num_inference_steps"),
            ("Sampler", "sampler_name"),
            ("CFG scale", "guidance_scale"),
            ("Seed", "seed"),
            ("Size", "width x height"),
            ("Model", "use_stable_diffusion_model"),
        ],
    },
];

/// A picture's infotext: its own, or what can be said in that form of what another program wrote. `size` is the picture's.
pub(in crate::tasks) fn infotext(texts: &Texts, size: (u32, u32)) -> Option<String> {
    let foreign = || PROGRAMS.iter().find_map(|program| program.infotext(texts));
    let own = || texts.infotext.clone().filter(|text| json(text).is_none());
    novel_ai(texts, size).or_else(own).or_else(|| foreign().map(|infotext| infotext.to_string()))
}

impl Program {
    fn infotext(&self, texts: &Texts) -> Option<Infotext> {
        let map = (self.map)(texts)?;
        let value = |names: &str| {
            let parts: Vec<String> = names.split(" x ").map(|name| at(&map, name)).collect::<Option<_>>()?;
            Some(parts.join("x")).filter(|text| !text.is_empty())
        };
        let mut text = Infotext {
            prompt: value(self.prompt)?,
            negative_prompt: value(self.negative_prompt).unwrap_or_default(),
            fields: vec![],
        };
        for (key, name) in self.pairs {
            let Some(value) = value(name).filter(|_| text.get(key).is_none()) else { continue };
            match *key {
                "Sampler" => {
                    let (name, schedule) = sampler(&value);
                    text.push(key, name);
                    if let Some(schedule) = schedule {
                        text.push("Schedule type", schedule);
                    }
                }
                "Schedule type" => text.push(key, schedule(&value)),
                "Size" => text.push(key, two_numbers(&value)?),
                "Model" => text.push(key, file_stem(&value)),
                _ => text.push(key, value),
            }
        }
        Some(text)
    }
}

/// As A1111 reads it.
fn novel_ai(texts: &Texts, (width, height): (u32, u32)) -> Option<String> {
    if text(texts, "Software")? != "NovelAI" {
        return None;
    }
    let map = json(text(texts, "Comment")?)?;
    let mut infotext = Infotext {
        prompt: text(texts, "Description")?.to_owned(),
        negative_prompt: at(&map, "uc")?,
        fields: vec![],
    };
    infotext.push("Steps", at(&map, "steps")?);
    let (name, _) = sampler(&at(&map, "sampler")?);
    infotext.push("Sampler", name);
    infotext.push("CFG scale", at(&map, "scale")?);
    infotext.push("Seed", at(&map, "seed")?);
    infotext.push("Size", format!("{width}x{height}"));
    infotext.push("Clip skip", 2);
    infotext.push("ENSD", 31337);
    Some(infotext.to_string())
}

/// The text behind a keyword.
fn text<'a>(texts: &'a Texts, keyword: &str) -> Option<&'a str> {
    texts.others.iter().find(|(name, _)| name == keyword).map(|(_, text)| text.as_str())
}

/// A map, if the text is one.
fn json(text: &str) -> Option<Map<String, Value>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// The map behind a key.
fn inner(mut map: Map<String, Value>, key: &str) -> Option<Map<String, Value>> {
    match map.remove(key)? {
        Value::Object(inner) => Some(inner),
        _ => None,
    }
}

/// The text or number behind keys that points part.
fn at(map: &Map<String, Value>, path: &str) -> Option<String> {
    let mut keys = path.split('.');
    let mut value = map.get(keys.next()?)?;
    for key in keys {
        value = value.get(key)?;
    }
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A size in any brackets.
fn two_numbers(text: &str) -> Option<String> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let (width, height) = (numbers.next()?, numbers.next()?);
    numbers.next().is_none().then(|| format!("{width}x{height}"))
}

/// A file's name without folders and ending.
fn file_stem(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let endings = [".safetensors", ".ckpt", ".pt", ".gguf"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// What stands in an element of XMP, or in the first item of its list.
fn in_xmp(xmp: &str, name: &str) -> Option<String> {
    let (_, element) = xmp.split_once(&format!("<{name}>"))?;
    let (element, _) = element.split_once(&format!("</{name}>"))?;
    let item = element.split_once("<rdf:li").and_then(|(_, rest)| rest.split_once('>'));
    let item = item.and_then(|(_, rest)| rest.split_once("</rdf:li>")).map_or(element, |(text, _)| text);
    let mut text = item.trim().to_owned();
    for (entity, c) in [
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&#34;", "\""),
        ("&#xA;", "\n"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, c);
    }
    Some(text)
}
