//! The request of a job within a job: a plugin's patch over the request around it, for a method.

use std::sync::LazyLock;

use latentd_client::codec::decode_value;
use latentd_client::protocol::{ImageIn, Img2ImgParams, Masks, Txt2ImgParams};
use latentd_models::prompt::Wording;
use rmpv::Value;
use serde::Serialize;
use serde_json::Value as Json;

use super::patch;
use crate::error::{Error, Result};
use crate::schema::{self, shorten};
use crate::suggest::advice;

static TXT2IMG: LazyLock<Json> = LazyLock::new(schema::of::<Txt2ImgParams>);
static IMG2IMG: LazyLock<Json> = LazyLock::new(schema::of::<Img2ImgParams>);

/// What is said with the pictures, where it is run.
const OF_PICTURES: [&str; 2] = ["init_images", "mask"];
/// What no job within another one has: its pictures go to a plugin, as many as that asks for.
const OF_WHOLE: [&str; 6] =
    ["loopback", "sd_upscale", "output", "on_disconnect", "rewrite", "save_images_before_highres_fix"];

/// What of a planned one may change as it is run: it names nothing, and takes no more memory.
const AT_RUN: [&str; 22] = [
    "denoising_strength",
    "steps",
    "cfg_scale",
    "subseed_strength",
    "eta",
    "s_churn",
    "s_tmin",
    "s_tmax",
    "s_noise",
    "eta_noise_seed_delta",
    "mask_blur",
    "mask_blur_x",
    "mask_blur_y",
    "mask_round",
    "inpainting_fill",
    "inpainting_mask_invert",
    "inpaint_full_res_padding",
    "initial_noise_multiplier",
    "img2img_extra_noise",
    "img2img_color_correction",
    "img2img_background_color",
    "inpainting_mask_weight",
];

/// What draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Txt2Img,
    Img2Img,
}

impl Method {
    const ALL: [Self; 2] = [Self::Txt2Img, Self::Img2Img];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Txt2Img => "txt2img",
            Self::Img2Img => "img2img",
        }
    }

    pub(super) fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|method| method.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let advice = advice(name, names);
            Error::invalid(format!(
                "no method '{}' is drawn within a job: there are {}{advice}",
                shorten(name),
                names.join(", ")
            ))
        })
    }

    fn schema(self) -> &'static Json {
        match self {
            Self::Txt2Img => &TXT2IMG,
            Self::Img2Img => &IMG2IMG,
        }
    }

    fn has(self, field: &str) -> bool {
        let is_of_txt2img = TXT2IMG.pointer("/properties").is_some_and(|all| all.get(field).is_some());
        match self {
            Self::Txt2Img => is_of_txt2img,
            // A second pass belongs to txt2img.
            Self::Img2Img => {
                let has = IMG2IMG.pointer("/properties").is_some_and(|all| all.get(field).is_some());
                has && !(field == "enable_hr" || field.starts_with("hr_"))
            }
        }
    }
}

/// A request without its pictures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SubRequest {
    pub method: Method,
    /// A map.
    fields: Value,
}

/// What there is of each of its pictures.
#[derive(Clone, Debug, Default)]
pub(super) struct Pictures {
    pub init: Vec<ImageIn>,
    pub masks: Vec<ImageIn>,
}

/// A request to be resolved.
pub(super) enum Asked {
    Txt2Img(Box<Txt2ImgParams>),
    Img2Img(Box<Img2ImgParams>),
}

/// What a request around others says, with what it says of pictures that it began with.
pub(super) fn around(request: &[u8], begun: Option<&Img2ImgParams>) -> Result<Value> {
    // Nobody is told a request that has no plugins.
    if request.is_empty() {
        return Ok(Value::Map(vec![]));
    }
    let unread =
        |error: &dyn std::fmt::Display| Error::internal(format!("the request cannot be read: {error}"));
    let mut request = rmpv::decode::read_value(&mut &*request).map_err(|error| unread(&error))?;
    if let (Value::Map(entries), Some(begun)) = (&mut request, begun)
        && let Value::Map(of_begun) = value_of(begun)?
    {
        let is_new = |name: &Value| name.as_str().is_some_and(|name| !Method::Txt2Img.has(name));
        entries.extend(of_begun.into_iter().filter(|(name, _)| is_new(name)));
    }
    remove(&mut request, |name| OF_PICTURES.contains(&name) || OF_WHOLE.contains(&name));
    Ok(request)
}

fn value_of(value: &impl Serialize) -> Result<Value> {
    let bytes = rmp_serde::to_vec_named(value)
        .map_err(|error| Error::internal(format!("a request cannot be told: {error}")))?;
    rmpv::decode::read_value(&mut bytes.as_slice())
        .map_err(|error| Error::internal(format!("a request cannot be read: {error}")))
}

/// Takes fields out of a map.
fn remove(map: &mut Value, goes: impl Fn(&str) -> bool) {
    if let Value::Map(entries) = map {
        entries.retain(|(name, _)| name.as_str().is_none_or(|name| !goes(name)));
    }
}

fn get<'a>(map: &'a Value, field: &str) -> Option<&'a Value> {
    let Value::Map(entries) = map else { return None };
    entries.iter().find(|(name, _)| name.as_str() == Some(field)).map(|(_, value)| value)
}

fn get_mut<'a>(map: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let Value::Map(entries) = map else { return None };
    entries.iter_mut().find(|(name, _)| name.as_str() == Some(field)).map(|(_, value)| value)
}

/// The keys of a map.
fn names(map: Option<&Value>) -> Vec<String> {
    let Some(Value::Map(entries)) = map else { return vec![] };
    entries.iter().filter_map(|(name, _)| name.as_str().map(str::to_owned)).collect()
}

fn set(map: &mut Value, field: &str, value: Value) {
    remove(map, |name| name == field);
    if let Value::Map(entries) = map {
        entries.push((field.into(), value));
    }
}

/// Whether a patch says something of a plugin.
fn names_plugin(patch: &[(String, Value)], plugin: &str) -> bool {
    let pointer = format!("/plugins/{}", plugin.replace('~', "~0").replace('/', "~1"));
    patch.iter().any(|(key, value)| {
        let is_at = key.strip_prefix(&pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_at
            || (["plugins", "/plugins"].contains(&key.as_str())
                && get(value, plugin).is_some_and(|params| !params.is_nil()))
    })
}

impl SubRequest {
    /// What a plugin's patch makes of the request `around` it. Plugins that stay out of it are `without`, and the planner where the
    /// patch does not name it.
    pub(super) fn new(
        method: Method,
        around: Value,
        patch: &[u8],
        (planner, without): (&str, &[String]),
    ) -> Result<Self> {
        let patch = patch::read(patch).map_err(Error::invalid)?;
        let is_named = names_plugin(&patch, planner);
        for (field, _) in &patch {
            let is_of = |fields: &[&str]| {
                let first = field.trim_start_matches('/').split('/').next();
                first.is_some_and(|first| fields.contains(&first))
            };
            if is_of(&OF_PICTURES) {
                let text = format!("{field}: pictures are given with each run; leave it out of the patch");
                return Err(Error::invalid(text));
            }
            if is_of(&OF_WHOLE) {
                let text = format!("{field}: is not for a job within a job; leave it out of the patch");
                return Err(Error::invalid(text));
            }
        }
        let before = names(get(&around, "plugins"));
        let mut fields = around;
        patch::apply(&mut fields, patch).map_err(Error::invalid)?;
        if let Some(plugins) = get_mut(&mut fields, "plugins") {
            remove(plugins, |name| without.iter().any(|out| out == name) || (name == planner && !is_named));
        }
        let others: Vec<String> = names(get(&fields, "plugins"));
        if let Some(versions) = get_mut(&mut fields, "plugin_versions") {
            // Others are of engines, which need not take part.
            let is_in = |names: &[String], name: &str| names.iter().any(|other| other == name);
            remove(versions, |name| is_in(&before, name) && !is_in(&others, name));
        }
        // What no method has is a mistake, and told as one.
        let is_of_others =
            |name: &str| !method.has(name) && Method::ALL.into_iter().any(|other| other.has(name));
        remove(&mut fields, is_of_others);
        Ok(Self { method, fields })
    }

    /// The same, changed by a patch of what may change as it is run.
    pub(super) fn changed(&self, patch: &[u8]) -> Result<Self> {
        let patch = patch::read(patch).map_err(Error::invalid)?;
        if let Some((field, _)) = patch.iter().find(|(field, _)| !AT_RUN.contains(&field.as_str())) {
            let may = AT_RUN.join(", ");
            let text = format!(
                "{}: was settled with the plan; as it is run only {may} may change: plan a sub-job of its own for it",
                shorten(field)
            );
            return Err(Error::invalid(text));
        }
        if let Some((field, _)) = patch.iter().find(|(_, value)| value.is_nil()) {
            return Err(Error::invalid(format!("{}: nil; give a value", shorten(field))));
        }
        let mut changed = self.clone();
        patch::apply(&mut changed.fields, patch).map_err(Error::invalid)?;
        remove(&mut changed.fields, |name| !self.method.has(name) && AT_RUN.contains(&name));
        let steps = |request: &Self| get(&request.fields, "steps").and_then(Value::as_f64);
        match (steps(self), steps(&changed)) {
            (Some(planned), Some(steps)) if steps > planned => {
                Err(Error::invalid(format!("steps: {steps} are more than the {planned} that were planned")))
            }
            _ => Ok(changed),
        }
    }

    /// What a prompt says for one of the job's pictures; the first where there are fewer.
    pub(super) fn prompt(&self, field: &str, image: usize) -> &str {
        match get(&self.fields, field) {
            Some(Value::Array(texts)) => texts.get(image).or(texts.first()).and_then(Value::as_str),
            text => text.and_then(Value::as_str),
        }
        .unwrap_or_default()
    }

    /// A prompt for one of the job's pictures with the networks that were planned. An error if it names others.
    pub(super) fn prompt_with_networks(&self, given: Option<&str>, image: usize) -> Result<String> {
        let planned = Wording::of_prompt(self.prompt("prompt", 0)).networks;
        let text = given.unwrap_or_else(|| self.prompt("prompt", image));
        let own = Wording::of_prompt(text);
        if own.networks == planned {
            return Ok(text.to_owned());
        }
        // Of a list the first one's are applied to all.
        let of_list = || Wording::of_prompt(self.prompt("prompt", image)).networks;
        if let Some(other) = own.networks.iter().find(|network| !planned.contains(network))
            && own.networks != of_list()
        {
            return Err(Error::invalid(format!(
                "'{}' was not planned: plan a sub-job of its own for other networks",
                shorten(&other.written)
            )));
        }
        let planned = planned.iter().map(|network| network.written.as_str());
        Ok(planned.collect::<String>() + &own.text)
    }

    /// The request for so many pictures, each with these prompts; one text for all of them where they are the same.
    pub(super) fn asked(
        &self,
        [prompts, negatives]: [Vec<String>; 2],
        (seed, subseed): (u64, u64),
        pictures: Pictures,
    ) -> Result<Asked> {
        let mut fields = self.fields.clone();
        let count = prompts.len();
        let texts = |texts: Vec<String>| match texts.as_slice() {
            [first, rest @ ..] if rest.iter().all(|text| text == first) => Value::from(first.as_str()),
            _ => Value::Array(texts.into_iter().map(Value::from).collect()),
        };
        set(&mut fields, "prompt", texts(prompts));
        set(&mut fields, "negative_prompt", texts(negatives));
        set(&mut fields, "batch_size", count.into());
        set(&mut fields, "n_iter", 1.into());
        set(&mut fields, "seed", seed.into());
        set(&mut fields, "subseed", subseed.into());
        let raw = Value::Map(vec![("format".into(), "raw".into())]);
        set(&mut fields, "output", raw);
        if self.method == Method::Img2Img {
            // In the place of those that come.
            let none = Value::Map(vec![("blob".into(), "0".repeat(64).into())]);
            set(&mut fields, "init_images", Value::Array(vec![none]));
        }
        schema::check(self.method.schema(), &fields)?;
        Ok(match self.method {
            Method::Txt2Img => Asked::Txt2Img(Box::new(decode_value(fields).map_err(Error::invalid)?)),
            Method::Img2Img => {
                let mut asked: Img2ImgParams = decode_value(fields).map_err(Error::invalid)?;
                let Pictures { init, masks } = pictures;
                asked.init_images = init;
                asked.mask = (!masks.is_empty()).then_some(Masks::Each(masks));
                Asked::Img2Img(Box::new(asked))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packed(value: &Json) -> Vec<u8> {
        rmp_serde::to_vec_named(value).expect("encodes")
    }

    /// What a patch of the plugin 'planner' makes of a request, for img2img.
    fn merged(request: &Json, patch: &Json, without: &[&str]) -> Result<Json> {
        let without: Vec<String> = without.iter().map(|name| (*name).to_owned()).collect();
        let around = around(&packed(request), None)?;
        let made = SubRequest::new(Method::Img2Img, around, &packed(patch), ("planner", &without))?;
        Ok(rmpv::ext::from_value(made.fields).expect("JSON"))
    }

    #[test]
    fn plugins_stay_unless_they_are_left_out() {
        let request = json!({"plugins": {"planner": {"a": 1}, "other": {"b": 2}, "third": {}}});
        for (patch, without, expected) in [
            (json!({}), &[][..], json!({"other": {"b": 2}, "third": {}})),
            (json!({}), &["third", "none"], json!({"other": {"b": 2}})),
            (json!({"plugins": {"planner": {"a": 3}}}), &["other", "third"], json!({"planner": {"a": 3}})),
            (json!({"/plugins/planner/a": 4}), &["other", "third"], json!({"planner": {"a": 4}})),
            (json!({"/plugins/planner2": {}}), &["other", "third"], json!({"planner2": {}})),
            (json!({"plugins": {"other": null, "planner": null}}), &[], json!({"third": {}})),
            (json!({"plugins": {"planner": {}}}), &["planner", "other", "third"], json!({})),
        ] {
            assert_eq!(merged(&request, &patch, without).expect("merged")["plugins"], expected, "{patch}");
        }
        // What goes takes its version along; those of engines stay.
        let versions = json!({"planner": "1", "other": "2", "engine": "3"});
        let request = json!({"plugins": {"planner": {}, "other": {}}, "plugin_versions": versions});
        let made = merged(&request, &json!({}), &[]).expect("merged");
        assert_eq!(made["plugin_versions"], json!({"other": "2", "engine": "3"}));
    }

    #[test]
    fn what_the_method_lacks_goes_and_what_none_has_stays_to_be_told() {
        let request = json!({
            "steps": 9, "enable_hr": true, "hr_scale": 2, "output": {"format": "png"}, "mask_blur_x": 3.0,
            "loopback": {"loops": 3}, "init_images": [{"blob": "x"}],
        });
        let made =
            merged(&request, &json!({"hr_scale": 3, "mask_blurr": 1, "steps": 4}), &[]).expect("merged");
        assert_eq!(made, json!({"steps": 4, "mask_blur_x": 3.0, "mask_blurr": 1}));
        for patch in [
            json!({"mask": {}}),
            json!({"/init_images/0": {}}),
            json!({"output": {}}),
            json!({"loopback": null}),
            json!([1]),
        ] {
            merged(&request, &patch, &[]).expect_err(&patch.to_string());
        }
    }

    #[test]
    fn only_what_names_nothing_changes_as_it_is_run() {
        let around = around(&packed(&json!({"steps": 10, "prompt": "a"})), None).expect("read");
        let nothing = packed(&json!({}));
        let planned = SubRequest::new(Method::Txt2Img, around, &nothing, ("planner", &[])).expect("made");
        let changed = |patch: &Json| {
            let changed = planned.changed(&packed(patch))?;
            Ok::<Json, Error>(rmpv::ext::from_value(changed.fields).expect("JSON"))
        };
        let expected = json!({"steps": 8, "prompt": "a", "cfg_scale": 2.5});
        // Of what the method lacks nothing is left.
        let patch = json!({"steps": 8, "cfg_scale": 2.5, "mask_blur": 3});
        assert_eq!(changed(&patch).expect("changed"), expected);
        for patch in [json!({"steps": 11}), json!({"prompt": "b"}), json!({"/steps": 3}), json!({"seed": 1})]
        {
            changed(&patch).expect_err(&patch.to_string());
        }
    }

    #[test]
    fn networks_are_those_that_were_planned() {
        let request = json!({"prompt": ["one <lora:a:1>", "two <lora:b:1>", "three"]});
        let around = around(&packed(&request), None).expect("read");
        let planned = SubRequest::new(Method::Txt2Img, around, &[0x80], ("planner", &[])).expect("made");
        for (given, image, expected) in [
            (None, 0, Some("one <lora:a:1>")),
            // As the list itself is drawn.
            (None, 1, Some("<lora:a:1>two ")),
            (None, 2, Some("<lora:a:1>three")),
            (None, 7, Some("one <lora:a:1>")),
            (Some("face"), 0, Some("<lora:a:1>face")),
            (Some("face <lora:a:1>"), 1, Some("face <lora:a:1>")),
            (Some("two <lora:b:1>"), 1, Some("<lora:a:1>two ")),
            (Some("two <lora:b:1>"), 0, None),
            (Some("<lora:a:0.5>"), 0, None),
        ] {
            let found = planned.prompt_with_networks(given, image);
            assert_eq!(found.ok().as_deref(), expected, "{given:?} {image}");
        }
    }
}
