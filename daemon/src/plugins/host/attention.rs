//! What plugins declare of a pass's attention.

use latentd_models::networks::unet::AttentionPlaces;
use latentd_models::networks::unet_sites::SitePart;
use latentd_models::pipeline::{Role, Rule, RuleChange, RuleKeys};
use latentd_plugin_api::abi::{
    LATENTD_ANY, LATENTD_ATTENTION_IDENTITY, LATENTD_ATTENTION_OWN, LATENTD_ATTENTION_SET, LATENTD_COND,
    LATENTD_CROSS, LATENTD_INPUT, LATENTD_INVALID, LATENTD_MIDDLE, LATENTD_OTHER, LATENTD_OUTPUT,
    LATENTD_SELF, LATENTD_UNCOND, latentd_attention_rule, latentd_call, latentd_status,
};

use super::numbers::{mask, tensor};
use super::serving::{Failure, Served, misuse, objects, read_text, reserve, serve, taken};
use crate::plugins::call::{Call, Declared, State};
use crate::plugins::objects::Objects;

/// Rules that a plugin may declare of a pass.
const MOST_RULES: usize = 4096;
/// Tokens of a set.
const MOST_TOKENS: usize = 77 * 16;

pub(in crate::plugins) unsafe extern "C" fn add_rule(
    call: *mut latentd_call,
    rule: *const latentd_attention_rule,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let Some(declared) = call.at_hand.attention else { return misuse("rules are declared in attention") };
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(given) = (unsafe { taken(rule) }) else { return misuse("the rule is null") };
        let count = declared.rules.borrow().len();
        if count >= MOST_RULES {
            return wrong(format!("more than {MOST_RULES} rules"));
        }
        // SAFETY: the plugin lends a text.
        let tag = unsafe { read_text(given.tag) };
        let mut objects = objects(state)?;
        let rule = read(call.plugin, &given, tag, declared, &mut objects)
            .map_err(|Failure(status, text)| Failure(status, format!("rule {count}: {text}")))?;
        if let RuleChange::Set { keys, .. } = &rule.change {
            let bytes = match keys {
                RuleKeys::Context(tokens) => tokens.dim(0) * tokens.dim(1) * declared.stage.bytes_per_token,
                RuleKeys::KeyValue(key, value) => size_of_val(key.values()) + size_of_val(value.values()),
            };
            declared.leases.borrow_mut().push(reserve(call, bytes)?);
        }
        declared.rules.borrow_mut().push(rule);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

fn wrong<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

fn read(
    plugin: &str,
    given: &latentd_attention_rule,
    tag: String,
    declared: &Declared,
    objects: &mut Objects,
) -> Served<Rule> {
    let is_share = |share: f64| (0.0..=1.0).contains(&share);
    if !is_share(given.from) || !is_share(given.until) || given.until < given.from {
        return wrong(format!("from {} until {}: shares of 0 to 1 are meant", given.from, given.until));
    }
    let is_self = match given.which {
        LATENTD_SELF => true,
        LATENTD_CROSS => false,
        other => return wrong(format!("which is {other}, neither SELF nor CROSS")),
    };
    let part = match given.part {
        LATENTD_ANY => None,
        LATENTD_INPUT => Some(SitePart::Input),
        LATENTD_MIDDLE => Some(SitePart::Middle),
        LATENTD_OUTPUT => Some(SitePart::Output),
        other => return wrong(format!("part is {other}, which has no attention")),
    };
    let any = |number: u32| (number != LATENTD_ANY).then_some(number as usize);
    let places = AttentionPlaces { is_self, part, index: any(given.index), layer: any(given.layer) };
    let roles = [(LATENTD_COND, Role::Cond), (LATENTD_UNCOND, Role::Uncond), (LATENTD_OTHER, Role::Other)];
    let roles: Vec<Role> =
        roles.into_iter().filter(|(bit, _)| given.roles & (1 << bit) != 0).map(|(_, role)| role).collect();
    if roles.is_empty() && given.roles != 0 {
        return wrong(format!("roles are {:#x}, which are none", given.roles));
    }
    let image = any(given.image);
    if let Some(image) = image.filter(|image| !declared.stage.images.contains(image)) {
        return wrong(format!("picture {image} is not of this pass"));
    }
    Ok(Rule {
        owner: plugin.to_owned(),
        places,
        roles,
        branch: any(given.branch),
        image,
        tag,
        span: (given.from, given.until),
        change: change(given, &places, declared, objects)?,
    })
}

fn change(
    given: &latentd_attention_rule,
    places: &AttentionPlaces,
    declared: &Declared,
    objects: &mut Objects,
) -> Served<RuleChange> {
    let weight = given.weight;
    if !weight.is_finite() || weight.abs() > 1e6 {
        return wrong(format!("weight is {weight}"));
    }
    let mask = if given.mask == 0 { None } else { Some(mask(objects.content(given.mask)?)?) };
    match given.kind {
        LATENTD_ATTENTION_OWN => Ok(RuleChange::Own { weight, mask }),
        LATENTD_ATTENTION_SET => {
            let mut tensor = |handle: u64, what: &str| tensor(objects.content(handle)?, what);
            let keys = match (given.context, given.key, given.value) {
                (context, 0, 0) if context != 0 => RuleKeys::Context(tensor(context, "context")?),
                (0, key, value) if key != 0 && value != 0 => {
                    RuleKeys::KeyValue(tensor(key, "key")?, tensor(value, "value")?)
                }
                _ => return wrong("a set has a context, or else a key and a value"),
            };
            check_keys(&keys, places, declared)?;
            Ok(RuleChange::Set { keys, weight, mask })
        }
        LATENTD_ATTENTION_IDENTITY if places.is_self => Ok(RuleChange::Identity),
        LATENTD_ATTENTION_IDENTITY => wrong("identity is of LATENTD_SELF"),
        other => Err(Failure(
            latentd_plugin_api::abi::LATENTD_UNSUPPORTED,
            format!("this latentd has no rule of kind {other}"),
        )),
    }
}

fn check_keys(keys: &RuleKeys, places: &AttentionPlaces, declared: &Declared) -> Served {
    let pictures = declared.stage.images.len();
    let fits = |dims: &[usize], width: Option<usize>| {
        matches!(*dims, [n, 1..=MOST_TOKENS, other] if (n == 1 || n == pictures) && other > 0
            && width.is_none_or(|width| width == other))
    };
    match keys {
        RuleKeys::Context(_) if places.is_self => wrong("a context is of LATENTD_CROSS"),
        RuleKeys::Context(tokens) if !fits(tokens.dims(), Some(declared.stage.context_width)) => {
            let width = declared.stage.context_width;
            wrong(format!(
                "the context is {:?}; (1 or {pictures}, up to {MOST_TOKENS}, {width}) is needed",
                tokens.dims()
            ))
        }
        RuleKeys::KeyValue(..)
            if places.part.is_none() || places.index.is_none() || places.layer.is_none() =>
        {
            wrong("keys and values are of one attention: name its part, index and layer")
        }
        RuleKeys::KeyValue(key, value) if key.dims() != value.dims() || !fits(key.dims(), None) => {
            wrong(format!(
                "key {:?} and value {:?}; both (1 or {pictures}, up to {MOST_TOKENS}, channels) are needed",
                key.dims(),
                value.dims()
            ))
        }
        RuleKeys::Context(_) | RuleKeys::KeyValue(..) => Ok(()),
    }
}
