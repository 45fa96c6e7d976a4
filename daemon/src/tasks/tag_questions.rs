//! Asks the request's plugins of the tags in its prompts that nobody here knows (stage `prompt.tags`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd_client::protocol::{LibraryKind, PluginParams, Txt2ImgParams};
use latentd_models::prompt::{NamedNetwork, Wording};
use rmpv::Value;

use super::hypernetworks::is_hypernetwork;
use super::loras::{has_unknown, is_lora};
use super::names;
use super::notices::Notices;
use super::patch;
use super::plugins::Asking;
use super::studio::Studio;
use super::tags::{Answer, Tags};
use super::task::Watch;
use crate::error::{Class, Error, Result};
use crate::plugins::Tag;
use crate::schema::shorten;

/// Tags of one request that plugins are asked of, and how long all of them may take.
const MOST_ASKED: usize = 100;
const WITHIN: Duration = Duration::from_secs(10);

/// Asks the request's plugins of each tag of these prompts that nobody here knows. What they change in their own
/// parameters stands in the request then.
pub(super) fn ask_tags(
    params: &mut Txt2ImgParams,
    prompts: &[&Wording],
    (studio, watch): (&Arc<Studio>, &dyn Watch),
    notices: &mut Notices,
) -> Result<Tags> {
    let networks = || prompts.iter().flat_map(|prompt| &prompt.networks);
    let (mut tags, mut asked, begun) = (Tags::default(), BTreeSet::new(), Instant::now());
    if params.plugins.is_empty() || !networks().any(is_unknown) {
        return Ok(tags);
    }
    let rng = names::noise_source(params.rng);
    let asking = Asking::new(watch, &studio.device.memory, studio, rng);
    let asking = asking.with_versions(params.plugin_versions.clone());
    let taggers = studio.plugins.taggers(&params.plugins, &asking)?;
    for network in networks().filter(|network| is_unknown(network)) {
        if !asked.insert(&network.written) {
            continue;
        }
        if asked.len() > MOST_ASKED {
            let text = format!("prompt: {MOST_ASKED} tags of plugins are possible; leave some out");
            return Err(Error::invalid(text));
        }
        if begun.elapsed() > WITHIN {
            let text = format!("prompt: its tags took plugins more than {} s", WITHIN.as_secs());
            return Err(Error::new(Class::Plugin, text));
        }
        let file = is_lora(network).then(|| studio.library.pin_addon(LibraryKind::Lora, network.name()));
        let file = file.and_then(Result::ok);
        let (name, arguments) = parts(&network.written);
        let tag = Tag {
            name: if is_lora(network) { "lora" } else { name },
            arguments: &arguments,
            file: file.as_ref(),
        };
        for tagger in &taggers {
            let Some(own) = params.plugins.get_mut(tagger.name()) else { continue };
            let (reply, said) = tagger.ask(&tag, own, &asking)?;
            for text in said {
                notices.not_applied(Class::Plugin, format!("plugin '{}': {text}", tagger.name()))?;
            }
            let Some(reply) = reply else { continue };
            let written = shorten(&network.written);
            let wrong = |text: String| tagger.error(Class::Plugin, &format!("{written}: {text}"));
            let answer = Answer::read(&reply, is_lora(network)).map_err(wrong)?;
            if !answer.is_claimed {
                continue;
            }
            change(own, answer.parameters).map_err(wrong)?;
            tags.insert(&network.written, answer.told);
            break;
        }
    }
    Ok(tags)
}

/// Whether there is something about it that nobody here knows.
fn is_unknown(network: &NamedNetwork) -> bool {
    if is_lora(network) { has_unknown(network) } else { !is_hypernetwork(network) }
}

/// The name and the arguments of a tag.
fn parts(written: &str) -> (&str, Vec<&str>) {
    let inner = written.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(written);
    let mut parts = inner.split(':');
    (parts.next().unwrap_or_default(), parts.collect())
}

/// Changes a plugin's parameters by a merge patch.
fn change(params: &mut PluginParams, patch: Vec<(String, Value)>) -> Result<(), String> {
    if patch.is_empty() {
        return Ok(());
    }
    let mut value = Value::from(std::mem::take(params));
    patch::apply(&mut value, patch)?;
    let Value::Map(entries) = value else { return Err("its parameters are no map any more".into()) };
    let entry = |(key, value): (Value, Value)| Some((key.as_str()?.to_owned(), value));
    *params = PluginParams(entries.into_iter().filter_map(entry).collect());
    Ok(())
}
