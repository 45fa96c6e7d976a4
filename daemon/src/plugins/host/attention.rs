//! What plugins declare of a pass's attention.

use latentd_models::Tensor;
use latentd_models::networks::unet::AttentionPlaces;
use latentd_models::networks::unet_sites::SitePart;
use latentd_models::pipeline::{Held, Role, Rule, RuleChange, RuleKeys};
use latentd_models::prompt::CHUNK_TOKENS;
use latentd_plugin_api::abi::{
    LATENTD_ANY, LATENTD_ATTENTION_APPEND, LATENTD_ATTENTION_BANK, LATENTD_ATTENTION_BIAS,
    LATENTD_ATTENTION_CAPTURE, LATENTD_ATTENTION_IDENTITY, LATENTD_ATTENTION_OWN, LATENTD_ATTENTION_RECEIVED,
    LATENTD_ATTENTION_SET, LATENTD_COND, LATENTD_CROSS, LATENTD_INPUT, LATENTD_INVALID, LATENTD_MIDDLE,
    LATENTD_OTHER, LATENTD_OUTPUT, LATENTD_SELF, LATENTD_UNCOND, latentd_attention_rule, latentd_call,
    latentd_status,
};

use super::numbers::{mask, tensor};
use super::serving::{Failure, Served, misuse, objects, read_text, reserve, serve, taken};
use crate::plugins::call::{Call, Declared, State};
use crate::plugins::objects::Objects;

/// Rules that a plugin may declare of a pass.
const MOST_RULES: usize = 4096;
/// Bytes of a bank's name.
const BANK_BYTES: usize = 64;
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
        // SAFETY: the plugin lends texts.
        let (tag, bank) = unsafe { (read_text(given.tag), read_text(given.bank)) };
        let mut objects = objects(state)?;
        let mut rule = read(call.plugin, &given, (tag, bank), declared, &mut objects)
            .map_err(|Failure(status, text)| Failure(status, format!("rule {count}: {text}")))?;
        let bytes = bytes_of(&rule.change, declared) + bytes_of_own(&rule, declared);
        if bytes > 0 {
            rule.held = Held::of(reserve(call, bytes)?);
        }
        // What is multiplied by zero is not there.
        if matches!(
            rule.change,
            RuleChange::Append { weight: 0.0, .. } | RuleChange::FromBank { weight: 0.0, .. }
        ) {
            return Ok(());
        }
        declared.rules.borrow_mut().push(rule);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// What is kept for a rule.
fn bytes_of(change: &RuleChange, declared: &Declared) -> usize {
    let pictures = declared.stage.images.len();
    match change {
        RuleChange::Set { keys: RuleKeys::Context(tokens), .. }
        | RuleChange::Append { keys: RuleKeys::Context(tokens), .. } => {
            tokens.dim(0) * tokens.dim(1) * declared.stage.bytes_per_token
        }
        RuleChange::Set { keys: RuleKeys::KeyValue(key, value), .. }
        | RuleChange::Append { keys: RuleKeys::KeyValue(key, value), .. } => {
            size_of_val(key.values()) + size_of_val(value.values())
        }
        RuleChange::Bias(bias) => size_of_val(bias.values()),
        RuleChange::Capture(_) | RuleChange::Received(_) => declared.stage.bytes_of_sources * pictures,
        // Keys and values of what it keeps, and both of them once more with the attention's own.
        RuleChange::FromBank { .. } => 4 * declared.stage.bytes_of_sources * pictures,
        RuleChange::Own { .. } | RuleChange::Identity => 0,
    }
}

/// What is kept once where the network's own keys are looked at: those of what rows are told, two of a picture.
fn bytes_of_own(rule: &Rule, declared: &Declared) -> usize {
    let is_of_own = |rule: &Rule| {
        let is_other =
            matches!(rule.change, RuleChange::Append { .. } | RuleChange::Bias(_) | RuleChange::Received(_));
        !rule.places.is_self && is_other
    };
    if !is_of_own(rule) || declared.rules.borrow().iter().any(is_of_own) {
        return 0;
    }
    2 * declared.stage.images.len() * CHUNK_TOKENS * declared.stage.bytes_per_token
}

/// More than any score is.
const LARGEST_BIAS: f32 = 1e6;

fn wrong<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

fn read(
    plugin: &str,
    given: &latentd_attention_rule,
    (tag, bank): (String, String),
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
        change: change(given, bank, &places, declared, objects)?,
        held: Held::default(),
    })
}

fn change(
    given: &latentd_attention_rule,
    bank: String,
    places: &AttentionPlaces,
    declared: &Declared,
    objects: &mut Objects,
) -> Served<RuleChange> {
    let weight = given.weight;
    if !weight.is_finite() || weight.abs() > 1e6 {
        return wrong(format!("weight is {weight}"));
    }
    let mask = if given.mask == 0 { None } else { Some(mask(objects.readable_content(given.mask)?)?) };
    match given.kind {
        LATENTD_ATTENTION_OWN => Ok(RuleChange::Own { weight, mask }),
        LATENTD_ATTENTION_SET => {
            Ok(RuleChange::Set { keys: keys(given, places, declared, objects)?, weight, mask })
        }
        _ if mask.is_some() => wrong("masks are of SET and OWN"),
        LATENTD_ATTENTION_APPEND => {
            Ok(RuleChange::Append { keys: keys(given, places, declared, objects)?, weight })
        }
        LATENTD_ATTENTION_BIAS => bias(given, places, objects).map(RuleChange::Bias),
        LATENTD_ATTENTION_CAPTURE if places.is_self => named(bank).map(RuleChange::Capture),
        LATENTD_ATTENTION_BANK if places.is_self => Ok(RuleChange::FromBank { bank: named(bank)?, weight }),
        LATENTD_ATTENTION_CAPTURE | LATENTD_ATTENTION_BANK => wrong("banks of tokens are of LATENTD_SELF"),
        LATENTD_ATTENTION_RECEIVED => named(bank).map(RuleChange::Received),
        LATENTD_ATTENTION_IDENTITY if places.is_self => Ok(RuleChange::Identity),
        LATENTD_ATTENTION_IDENTITY => wrong("identity is of LATENTD_SELF"),
        other => Err(Failure(
            latentd_plugin_api::abi::LATENTD_UNSUPPORTED,
            format!("this latentd has no rule of kind {other}"),
        )),
    }
}

/// A bank's name.
fn named(bank: String) -> Served<String> {
    if bank.is_empty() || bank.len() > BANK_BYTES {
        return wrong(format!("a bank's name has 1 to {BANK_BYTES} bytes, '{bank}' has {}", bank.len()));
    }
    Ok(bank)
}

/// A bias `(1 or queries, keys)`.
fn bias(given: &latentd_attention_rule, places: &AttentionPlaces, objects: &mut Objects) -> Served<Tensor> {
    let bias = tensor(objects.readable_content(given.bias)?, "the bias")?;
    // A sum of them is a number still.
    if let Some(number) = bias.values().iter().find(|number| number.is_nan() || number.abs() > LARGEST_BIAS) {
        return wrong(format!("the bias has {number}; -{LARGEST_BIAS} to {LARGEST_BIAS} are meant"));
    }
    let is_one = places.part.is_some() && places.index.is_some() && places.layer.is_some();
    match *bias.dims() {
        [0, _] | [_, 0] => wrong("the bias is empty"),
        [1, _] => Ok(bias),
        [_, _] if is_one => Ok(bias),
        [_, _] => wrong("a bias of queries is of one attention: name its part, index and layer"),
        _ => wrong(format!("the bias is {:?}; (1 or queries, keys) is needed", bias.dims())),
    }
}

/// What a set or what is appended has.
fn keys(
    given: &latentd_attention_rule,
    places: &AttentionPlaces,
    declared: &Declared,
    objects: &mut Objects,
) -> Served<RuleKeys> {
    let mut tensor = |handle: u64, what: &str| tensor(objects.readable_content(handle)?, what);
    let keys = match (given.context, given.key, given.value) {
        (context, 0, 0) if context != 0 => RuleKeys::Context(tensor(context, "context")?),
        (0, key, value) if key != 0 && value != 0 => {
            RuleKeys::KeyValue(tensor(key, "key")?, tensor(value, "value")?)
        }
        _ => return wrong("it has a context, or else a key and a value"),
    };
    check_keys(&keys, places, declared)?;
    Ok(keys)
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
