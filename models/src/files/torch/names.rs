//! What a file's tensors are called, and what it says of itself.

use std::collections::{BTreeMap, HashMap, HashSet};

use pytorch_reader::{PickleValue, Tensor};

/// What checkpoints have their tensors under, the better ones first: as Lightning and others write them, and the averaged
/// weights of ESRGAN's family before those of its last step.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "params_ema", "params"];

/// Before every name, where several devices trained at once.
const PARALLEL: &str = "module";

/// Texts that are kept, and how long they and their names may be.
const MOST_TEXTS: usize = 64;
const LONGEST_TEXT: usize = 4096;
const LONGEST_KEY: usize = 128;

/// Elements of a list that is kept.
const LONGEST_LIST: usize = 64;

/// A dictionary of a textual inversion that is kept.
const TOKENS: &str = "string_to_token";

/// An error if two tensors have the same path: which one would be read is not certain.
pub(super) fn check(root: &PickleValue) -> Result<(), String> {
    let mut seen = HashSet::new();
    walk(root, &mut String::new(), &mut seen)
}

fn walk(value: &PickleValue, path: &mut String, seen: &mut HashSet<String>) -> Result<(), String> {
    let mut within = |key: &str, value: &PickleValue, seen: &mut HashSet<String>| {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(key);
        let walked = walk(value, path, seen);
        path.truncate(length);
        walked
    };
    match value {
        PickleValue::Dict(entries) => entries.iter().try_for_each(|(key, value)| within(key, value, seen)),
        PickleValue::List(items) => {
            items.iter().enumerate().try_for_each(|(index, value)| within(&index.to_string(), value, seen))
        }
        PickleValue::Unsupported(kind) if kind == "torch.Tensor" && !seen.insert(path.clone()) => {
            Err(format!("has two tensors called {path}; it is no model"))
        }
        _ => Ok(()),
    }
}

/// The tensors of the model by their own names: what else a checkpoint has, such as the state of its training, is left out.
pub(super) fn unwrapped(tensors: HashMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let has = |tensors: &BTreeMap<String, Tensor>, wrapper: &str| {
        tensors.keys().any(|name| within(name, wrapper).is_some())
    };
    if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| has(&tensors, wrapper)) {
        tensors = stripped(tensors, wrapper);
    }
    if !tensors.is_empty() && tensors.keys().all(|name| within(name, PARALLEL).is_some()) {
        tensors = stripped(tensors, PARALLEL);
    }
    tensors
}

fn within<'a>(name: &'a str, wrapper: &str) -> Option<&'a str> {
    name.strip_prefix(wrapper)?.strip_prefix('.')
}

fn stripped(tensors: BTreeMap<String, Tensor>, wrapper: &str) -> BTreeMap<String, Tensor> {
    let of_model = |(name, tensor): (String, Tensor)| Some((within(&name, wrapper)?.to_owned(), tensor));
    tensors.into_iter().filter_map(of_model).collect()
}

/// What stands beside the tensors in short: numbers, texts, and lists of them.
pub(super) fn metadata(root: PickleValue) -> BTreeMap<String, String> {
    let PickleValue::Dict(entries) = root else {
        return BTreeMap::new();
    };
    let mut texts = BTreeMap::new();
    for (key, value) in entries {
        match (value, key.as_str()) {
            (PickleValue::Dict(tokens), TOKENS) => {
                let tokens = tokens.into_iter().map(|(name, token)| (format!("{TOKENS}.{name}"), token));
                texts.extend(tokens.filter_map(|(key, token)| Some((key, scalar(&token)?))));
            }
            (PickleValue::List(items), _) if items.len() <= LONGEST_LIST => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                texts.extend(items.map(|items| (key, format!("[{}]", items.join(", ")))));
            }
            (value, _) => texts.extend(scalar(&value).map(|text| (key, text))),
        }
    }
    texts.retain(|key, text| key.len() <= LONGEST_KEY && text.len() <= LONGEST_TEXT);
    texts.into_iter().take(MOST_TEXTS).collect()
}

fn scalar(value: &PickleValue) -> Option<String> {
    match value {
        PickleValue::Bool(value) => Some(value.to_string()),
        PickleValue::Int(value) => Some(value.to_string()),
        PickleValue::Float(value) => Some(value.to_string()),
        PickleValue::String(value) => Some(value.clone()),
        _ => None,
    }
}
