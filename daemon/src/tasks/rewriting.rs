//! A request made anew by its plugins before it is resolved (stage `request.rewrite`): what they are told, what their patches make
//! of it, and what pictures tell of that.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use latentd_client::codec::decode_value;
use latentd_client::protocol::{ImageIn, PluginParams, Txt2ImgParams};
use rmpv::Value;
use serde_json::Value as Json;

use super::given::{Given, Sources};
use super::infotext::{Told, ToldRewriting};
use super::names;
use super::noise;
use super::patch;
use super::plugins::Asking;
use super::prompts::with_styles;
use super::studio::Studio;
use super::task::Watch;
use crate::error::{Class, Error, Result};
use crate::plugins::{JobPlugins, MOST_REQUESTS, PromptLists, PromptText, Rewriter, Rewriting};
use crate::schema;

/// Pictures of all requests that one becomes, as in one.
const MOST_PICTURES: u64 = 64_000;
/// Bytes of all of them.
const MOST_BYTES: usize = 64 << 20;
/// Bytes of a rewriter's parameters that pictures tell.
const MOST_TOLD: usize = 4096;

/// What the wire says of a request, by which what plugins make is looked at.
static SCHEMA: LazyLock<Json> = LazyLock::new(schema::of::<Txt2ImgParams>);

/// A request as it is to be resolved.
#[derive(Default)]
pub(super) struct Rewritten {
    pub params: Txt2ImgParams,
    /// Prompts of plugins that have a text for each picture; the first stands in `params`.
    pub lists: PromptLists,
    /// What rewriters want to be told.
    pub notices: Vec<String>,
    pub templates: Templates,
    pub made: Made,
}

/// Which of how many requests it is, if plugins made it.
#[derive(Clone, Copy, Default)]
pub(super) struct Made(Option<(usize, usize)>);

impl Made {
    /// An error of what the request says, with who made it so.
    pub(super) fn error(self, error: Error, by: &[String]) -> Error {
        let Some((number, count)) = self.0.filter(|_| error.class != Class::Cancelled) else { return error };
        let which = if count > 1 { format!(", request {number}") } else { String::new() };
        let text = format!("as {} rewrote it{which}: {}", by.join(" and "), error.text);
        Error { text, ..error }
    }
}

/// What was rewritten, for the pictures' texts.
#[derive(Clone, Default)]
pub(super) struct Templates {
    texts: Vec<PromptText>,
    by: Arc<ToldRewriting>,
    /// Pictures of the requests before this one.
    first: usize,
}

impl Templates {
    /// What a picture tells of it, and of its plugins.
    pub(super) fn tell(&self, mut told: Told, index: usize, plugins: &JobPlugins) -> Told {
        if let Some(own) = plugins.told_of(index) {
            told.request.plugins = own;
        }
        if self.by.rewriters.is_empty() {
            return told;
        }
        let mut templates = BTreeMap::new();
        for text in &self.texts {
            let (field, image) = (text.field.as_str(), text.image);
            let of_list = image.and_then(|_| field.rsplit_once('/')).map(|(list, _)| list);
            if image.is_none_or(|image| image == self.first + index) {
                templates.insert(of_list.unwrap_or(field).to_owned(), text.text.clone());
            }
        }
        told.rewriting = ToldRewriting { templates, ..(*self.by).clone() };
        told
    }
}

impl Rewritten {
    /// As it was sent.
    pub(super) fn plain(params: Txt2ImgParams) -> Self {
        Self { params, ..Self::default() }
    }
}

/// What becomes of a request, and who made it so.
pub(super) fn rewritten(
    params: Txt2ImgParams,
    method: &'static str,
    studio: &Arc<Studio>,
    watch: &dyn Watch,
) -> Result<(Vec<Rewritten>, Vec<String>)> {
    if params.plugins.is_empty() || !params.rewrite {
        return Ok((vec![Rewritten::plain(params)], vec![]));
    }
    let rng = names::noise_source(params.rng);
    let versions = params.plugin_versions.clone();
    let asking = Asking::new(watch, &studio.device.memory, studio, rng).with_versions(versions);
    let rewriters = studio.plugins.rewriters(&params.plugins, &asking)?;
    if rewriters.is_empty() {
        return Ok((vec![Rewritten::plain(params)], vec![]));
    }
    let settings = studio.settings.get();
    let styles = studio.styles.named(&params.styles, &settings.styles_dirs, &studio.folders)?;
    let mut params = with_styles(params, &styles)?;
    noise::draw(&mut params)?;
    let sources = Sources::of(studio);
    for (place, region) in params.regions.iter_mut().enumerate() {
        // By its name: each of the requests has it.
        let mask = std::mem::take(&mut region.mask);
        region.mask =
            ImageIn::blob(Given::new(&format!("regions[{place}].mask"), mask, &sources)?.keep(&sources));
    }
    let mut prompts_of_plugins = vec![];
    for (name, (params_of, prompts)) in studio.plugins.prompts(&params.plugins, &asking)? {
        for prompt in prompts {
            let of = PluginPrompt {
                field: format!("/plugins/{name}{}", prompt.pointer),
                plugin: name.clone(),
                pointer: prompt.pointer,
                is_negative: prompt.is_negative,
            };
            prompts_of_plugins.push(of);
        }
        params.plugins.insert(name, params_of);
    }
    let request = value_of(&params)?;
    let whole = Whole { method, prompts_of_plugins, asking };
    let before = whole.prompts(&request, &params);
    let mut by = ToldRewriting::default();
    let mut all = vec![State { request, params, lists: PromptLists::new(), is_changed: false }];
    let mut notices = vec![];
    for rewriter in &rewriters {
        let mut next = vec![];
        for state in all {
            let params = state.params.plugins.get(rewriter.name()).cloned();
            if whole.rewrite(rewriter, state, &mut next, &mut notices)? {
                let (name, told) = (rewriter.name().to_owned(), params.unwrap_or_default());
                let json = told.to_json().map(|json| Json::Object(json).to_string());
                let is_short = json.is_some_and(|json| json.len() <= MOST_TOLD);
                by.rewriters.insert(name.clone(), if is_short { told } else { PluginParams::default() });
                by.versions.insert(name, rewriter.version().to_owned());
            }
        }
        check_sizes(rewriter, &next)?;
        all = next;
    }
    let (by, count, mut first) = (Arc::new(by), all.len(), 0);
    let names = by.rewriters.keys().map(|name| format!("plugin '{name}'")).collect();
    let requests = all.into_iter().enumerate().map(|(number, mut state)| {
        let mut texts = before.clone();
        texts.retain(|old| !is_in(&mut state.request, old));
        let templates = Templates { texts, by: Arc::clone(&by), first };
        first += pictures(&state.params) as usize;
        let notices = if number == 0 { std::mem::take(&mut notices) } else { vec![] };
        let made = Made(state.is_changed.then_some((number, count)));
        Rewritten { params: state.params, lists: state.lists, notices, templates, made }
    });
    Ok((requests.collect(), names))
}

/// Whether a prompt stands in a request as it did before.
fn is_in(request: &mut Value, old: &PromptText) -> bool {
    patch::at(request, &old.field).is_some_and(|new| new.as_str() == Some(&old.text))
}

fn pictures(params: &Txt2ImgParams) -> u64 {
    u64::from(params.batch_size) * u64::from(params.n_iter)
}

fn check_sizes(rewriter: &Rewriter, all: &[State]) -> Result<()> {
    let wrong = |text: String| Err(rewriter.error(Class::Plugin, &text));
    if all.len() > MOST_REQUESTS {
        return wrong(format!("{} requests become of one, {MOST_REQUESTS} are allowed", all.len()));
    }
    let count: u64 = all.iter().map(|state| pictures(&state.params)).sum();
    if count > MOST_PICTURES {
        return wrong(format!("its requests are {count} pictures, {MOST_PICTURES} are allowed"));
    }
    let bytes: usize = all.iter().map(|state| packed(&state.request).len()).sum();
    if bytes > MOST_BYTES {
        return wrong(format!("its requests are {bytes} bytes together, {MOST_BYTES} are allowed"));
    }
    Ok(())
}

fn packed(request: &Value) -> Vec<u8> {
    let mut bytes = vec![];
    // Memory takes whatever is written.
    rmpv::encode::write_value(&mut bytes, request).ok();
    bytes
}

fn value_of(params: &Txt2ImgParams) -> Result<Value> {
    let wrong =
        |error: &dyn std::fmt::Display| Error::internal(format!("the request cannot be told: {error}"));
    let bytes = rmp_serde::to_vec_named(params).map_err(|error| wrong(&error))?;
    rmpv::decode::read_value(&mut bytes.as_slice()).map_err(|error| wrong(&error))
}

/// A prompt among a plugin's parameters.
struct PluginPrompt {
    field: String,
    plugin: String,
    pointer: String,
    is_negative: bool,
}

/// What is the same for all requests that one becomes.
struct Whole<'a> {
    method: &'static str,
    prompts_of_plugins: Vec<PluginPrompt>,
    asking: Asking<'a>,
}

/// A request on its way.
struct State {
    /// As its rewriters are told it: with lists of prompts for each picture.
    request: Value,
    /// The same, read; in it the first text of each list of a plugin's.
    params: Txt2ImgParams,
    lists: PromptLists,
    is_changed: bool,
}

impl Whole<'_> {
    /// All prompts of a request.
    fn prompts(&self, request: &Value, params: &Txt2ImgParams) -> Vec<PromptText> {
        let mut request = request.clone();
        let mut fields = vec![("/prompt".to_owned(), false), ("/negative_prompt".to_owned(), true)];
        if params.enable_hr {
            // What is empty is the first pass's.
            let own = [
                ("/hr_prompt", &params.hr_prompt, false),
                ("/hr_negative_prompt", &params.hr_negative_prompt, true),
            ];
            let own = own
                .into_iter()
                .filter(|(_, prompt, _)| !prompt.first().is_empty() || prompt.texts().len() > 1);
            fields.extend(own.map(|(field, _, is_negative)| (field.to_owned(), is_negative)));
        }
        fields.extend((0..params.regions.len()).map(|place| (format!("/regions/{place}/prompt"), false)));
        fields
            .extend(self.prompts_of_plugins.iter().map(|prompt| (prompt.field.clone(), prompt.is_negative)));
        let mut prompts = vec![];
        for (field, is_negative) in fields {
            match patch::at(&mut request, &field) {
                Some(Value::String(text)) => {
                    let text = text.as_str().unwrap_or_default().to_owned();
                    prompts.push(PromptText { text, field, is_negative, image: None });
                }
                Some(Value::Array(texts)) => {
                    let each = texts.iter().enumerate().filter_map(|(image, text)| {
                        let (text, field) = (text.as_str()?.to_owned(), format!("{field}/{image}"));
                        Some(PromptText { text, field, is_negative, image: Some(image) })
                    });
                    prompts.extend(each);
                }
                _ => (),
            }
        }
        prompts
    }

    /// What one rewriter makes of one request; whether it makes something of it.
    fn rewrite(
        &self,
        rewriter: &Rewriter,
        state: State,
        next: &mut Vec<State>,
        notices: &mut Vec<String>,
    ) -> Result<bool> {
        // One before it may have left it out.
        let Some(params) = state.params.plugins.get(rewriter.name()) else {
            next.push(state);
            return Ok(false);
        };
        let told = packed(&state.request);
        let prompts = self.prompts(&state.request, &state.params);
        let rewriting = Rewriting {
            method: self.method,
            request: &told,
            prompts: &prompts,
            seeds: &seeds(&state.params),
            batch: state.params.batch_size,
        };
        let answer = rewriter.rewrite(params, &rewriting, &self.asking)?;
        for text in answer.notices {
            let text = format!("plugin '{}': {text}", rewriter.name());
            if !notices.contains(&text) {
                notices.push(text);
            }
        }
        if answer.patches.is_empty() {
            next.push(state);
            return Ok(false);
        }
        let count = answer.patches.len();
        for (number, bytes) in answer.patches.iter().enumerate() {
            let wrong = |text: String| {
                let which = if count > 1 { format!("request {number}: ") } else { String::new() };
                rewriter.error(Class::Plugin, &format!("{which}{text}"))
            };
            let mut request = state.request.clone();
            patch::apply(&mut request, patch::read(bytes).map_err(wrong)?).map_err(wrong)?;
            let (params, lists) = self.read(request.clone()).map_err(wrong)?;
            check_untouched(&state.params, &params).map_err(wrong)?;
            next.push(State { request, params, lists, is_changed: true });
        }
        Ok(true)
    }

    /// A request with the lists that its plugins' prompts became.
    fn read(&self, mut request: Value) -> Result<(Txt2ImgParams, PromptLists), String> {
        let mut lists = PromptLists::new();
        for prompt in &self.prompts_of_plugins {
            let Some(place) = patch::at(&mut request, &prompt.field) else { continue };
            let Value::Array(texts) = place else { continue };
            let texts: Option<Vec<String>> =
                texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
            if let Some(texts) = texts.filter(|texts| !texts.is_empty()) {
                *place = texts.first().map_or(Value::Nil, |first| first.as_str().into());
                lists.entry(prompt.plugin.clone()).or_default().insert(prompt.pointer.clone(), texts);
            }
        }
        schema::check(&SCHEMA, &request).map_err(|error| error.text)?;
        Ok((decode_value(request)?, lists))
    }
}

/// What draws each picture alone.
fn seeds(params: &Txt2ImgParams) -> Vec<u64> {
    let is_varied = params.subseed_strength != 0.0;
    let seed = u64::try_from(params.seed).unwrap_or_default();
    (0..pictures(params)).map(|index| if is_varied { seed } else { seed.wrapping_add(index) }).collect()
}

/// That a plugin leaves alone how pictures come back.
fn check_untouched(old: &Txt2ImgParams, new: &Txt2ImgParams) -> Result<(), String> {
    let changed = [
        ("output", old.output != new.output),
        ("preview", old.preview != new.preview),
        ("on_disconnect", old.on_disconnect != new.on_disconnect),
        ("keep_alive", old.keep_alive != new.keep_alive),
        ("strict", old.strict != new.strict),
        ("rewrite", old.rewrite != new.rewrite),
    ];
    match changed.into_iter().find(|(_, is_changed)| *is_changed) {
        Some((field, _)) => Err(format!("{field}: is the user's; leave it as it is")),
        None => Ok(()),
    }
}
