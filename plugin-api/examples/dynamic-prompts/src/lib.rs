//! Prompts with variants and wildcards, as sd-dynamic-prompts has them: each picture picks its own by its seed, so that a picture is
//! drawn again by its prompt alone.
//!
//!     cargo build --release && cp target/release/libdynamic_prompts.so ~/.local/share/latentd/plugins/
//!     latentd generate "a {red|blue} __animal__" --n-iter 4 --plugin 'dynamic-prompts={"wildcards": {"animal": ["cat", "dog"]}}'

mod pick;
mod template;
mod wildcards;

use std::collections::BTreeMap;

use latentd_plugin_api::{Error, Job, Patch, Plugin, RequestRewrite, Result, Rewrite};
use serde::Deserialize;

use template::Part;
use wildcards::Wildcards;

/// Requests that one may become.
const MOST_REQUESTS: usize = 256;

#[derive(Deserialize)]
struct Params {
    mode: String,
    max: usize,
    same_seed: bool,
    wildcards: BTreeMap<String, Vec<String>>,
    folder: Option<String>,
}

/// What of a request counts here.
#[derive(Deserialize)]
struct Request {
    seed: u64,
    subseed: i64,
    subseed_strength: f64,
    batch_size: usize,
}

/// It does all of its work before there is a job.
struct DynamicPrompts;

impl Plugin for DynamicPrompts {
    fn new(_job: &Job<'_>) -> Result<Self> {
        Ok(Self)
    }
}

/// A field with prompts, as it becomes.
struct Field {
    name: String,
    /// For each picture.
    texts: Vec<String>,
}

impl Field {
    fn is_one(&self) -> bool {
        self.texts.windows(2).all(|pair| pair[0] == pair[1])
    }
}

impl RequestRewrite for DynamicPrompts {
    fn request_rewrite(stage: &Rewrite<'_>) -> Result<()> {
        let params: Params = stage.job.params()?;
        let request: Request = stage.job.request()?;
        let mut wildcards = Wildcards::of(params.wildcards);
        if let Some(folder) = &params.folder {
            wildcards = wildcards.with_folder(folder).map_err(Error::invalid)?;
        }
        let mut seeds = stage.seeds.clone();
        let mut all = None;
        if params.mode == "combinatorial" {
            let prompt = stage.prompts.iter().find(|prompt| prompt.field == "/prompt");
            if stage.prompts.iter().any(|prompt| prompt.image.is_some()) || prompt.is_none() {
                let text = "mode: combinatorial is for one prompt, not for a list with one for each picture";
                return Err(Error::invalid(text));
            }
            let parts = parsed("/prompt", prompt.map_or("", |prompt| prompt.text))?;
            let texts =
                pick::all(&parts, params.max, &wildcards).map_err(|error| wrong("/prompt", &error))?;
            let first = seeds.first().copied().unwrap_or(request.seed);
            let varies = request.subseed_strength == 0.0;
            seeds = (0..texts.len() as u64).map(|place| if varies { first + place } else { first }).collect();
            all = Some(texts);
        }
        if params.same_seed {
            let first = seeds.first().copied().unwrap_or(request.seed);
            seeds.fill(first);
        }
        let fields = fields(stage, &seeds, all, &wildcards)?;
        stage.call.check()?;
        if fields.iter().all(|field| field.is_one() && is_as_it_was(stage, field)) && seeds == stage.seeds {
            return Ok(());
        }
        reply(stage, &params.mode, params.same_seed, &request, &fields, seeds.len())
    }
}

/// Whether nothing was picked in a field.
fn is_as_it_was(stage: &Rewrite<'_>, field: &Field) -> bool {
    let old = stage.prompts.iter().find(|prompt| prompt.field == field.name);
    old.is_some_and(|old| field.texts.iter().all(|text| text == old.text))
}

fn wrong(field: &str, error: &str) -> Error {
    Error::invalid(format!("{}: {error}", field.trim_start_matches('/')))
}

fn parsed(field: &str, text: &str) -> Result<Vec<Part>> {
    template::parse(text).map_err(|error| wrong(field, &error))
}

/// What each field becomes for each picture; `all` are those of the prompt, where they are not picked by seeds.
fn fields(
    stage: &Rewrite<'_>,
    seeds: &[u64],
    all: Option<Vec<String>>,
    wildcards: &Wildcards,
) -> Result<Vec<Field>> {
    let mut fields: Vec<Field> = vec![];
    for prompt in &stage.prompts {
        stage.call.check()?;
        // One of a list is for its picture alone.
        let list = prompt.image.and_then(|_| prompt.field.rsplit_once('/')).map(|(list, _)| list);
        let name = list.unwrap_or(prompt.field).to_owned();
        let parts = parsed(prompt.field, prompt.text)?;
        tell_missing(stage, &parts, wildcards)?;
        let picked =
            |seed: &u64| pick::by_seed(&parts, *seed, wildcards).map_err(|error| wrong(prompt.field, &error));
        match prompt.image {
            Some(image) => {
                let text = seeds.get(image).map(picked).transpose()?.unwrap_or_default();
                match fields.iter_mut().find(|field| field.name == name) {
                    Some(field) => field.texts.push(text),
                    None => fields.push(Field { name, texts: vec![text] }),
                }
            }
            None => {
                let texts = match &all {
                    Some(all) if name == "/prompt" => all.clone(),
                    _ => seeds.iter().map(picked).collect::<Result<_>>()?,
                };
                fields.push(Field { name, texts });
            }
        }
    }
    Ok(fields)
}

/// Tells of wildcards that have no texts.
fn tell_missing(stage: &Rewrite<'_>, parts: &[Part], wildcards: &Wildcards) -> Result<()> {
    for part in parts {
        match part {
            Part::Wildcard(name) if wildcards.texts(name).is_empty() => {
                stage.call.notice(&format!(
                    "the wildcard '{name}' has no texts; it stays in the prompt as it is"
                ))?;
            }
            Part::Variants(variants) => {
                for option in &variants.options {
                    tell_missing(stage, &option.parts, wildcards)?;
                }
            }
            Part::Set { value, .. } | Part::Get { default: Some(value), .. } => {
                tell_missing(stage, value, wildcards)?;
            }
            _ => (),
        }
    }
    Ok(())
}

/// Networks that a text names: `<lora:…>` and their like. A request applies those of its first prompt to all of its pictures.
fn networks(text: &str) -> Vec<&str> {
    text.split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>'))
        .map(|(tag, _)| tag)
        .filter(|tag| tag.contains(':'))
        .collect()
}

/// Answers one request, or several where pictures differ in what a request has once.
fn reply(
    stage: &Rewrite<'_>,
    mode: &str,
    same_seed: bool,
    request: &Request,
    fields: &[Field],
    count: usize,
) -> Result<()> {
    // Of regions there is one text; outpaint takes no lists.
    let has_each = stage.job.method() == "outpaint";
    let is_with_next = |place: usize| {
        !same_seed
            && fields.iter().all(|field| {
                let (one, next) = (&field.texts[place], &field.texts[place + 1]);
                let once = has_each || field.name.starts_with("/regions/");
                one == next || !once && networks(one) == networks(next)
            })
    };
    let mut groups = vec![];
    let mut begin = 0;
    for place in 0..count {
        if place + 1 == count || !is_with_next(place) {
            groups.push(begin..place + 1);
            begin = place + 1;
        }
    }
    if groups.len() > MOST_REQUESTS {
        return Err(Error::invalid(format!(
            "{} requests would come of it, one for each picture with another seed, region or networks; {MOST_REQUESTS} are \
             possible: draw fewer at a time",
            groups.len()
        )));
    }
    let is_whole = groups.len() == 1 && mode == "random";
    for (number, group) in groups.into_iter().enumerate() {
        let mut patch = Patch::new();
        for field in fields {
            let texts = &field.texts[group.clone()];
            if texts.windows(2).all(|pair| pair[0] == pair[1]) {
                patch.set(&field.name, texts.first().map_or("", String::as_str))?;
            } else {
                patch.set(&field.name, texts)?;
            }
        }
        if !is_whole {
            let length = group.len();
            let at_once = match request.batch_size {
                batch if batch >= length => length,
                batch if length % batch == 0 => batch,
                _ => 1,
            };
            patch.set("batch_size", &at_once)?;
            patch.set("n_iter", &(length / at_once))?;
            let more = if same_seed { 0 } else { group.start as u64 };
            if request.subseed_strength == 0.0 {
                patch.set("seed", &(request.seed + more))?;
            } else {
                patch.set("subseed", &(request.subseed.unsigned_abs() + more))?;
            }
        }
        stage.reply(number, &patch)?;
    }
    Ok(())
}

latentd_plugin_api::export!(DynamicPrompts, "../dynamic-prompts.toml", [RequestRewrite]);
