//! What a file's tensors are called, and what it says of itself.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

use super::object::{Id, Instance, Object, Pickle, Tensor};
use super::refusal::Wrong;

/// What checkpoints have their tensors under, the better ones first: as Lightning and others write them, and the averaged
/// weights of ESRGAN's family before those of its last step.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "params_ema", "params-ema", "params"];

/// Before every name, where several devices trained at once.
const PARALLEL: &str = "module";

/// Tensors, those of a training's state among them.
const MOST_TENSORS: usize = 1 << 16;

/// Containers within containers: those of a module that was saved whole are some 30 deep.
const DEEPEST: usize = 100;

/// Objects that are looked at, each once for each of its names.
const MOST_VISITS: usize = 1 << 21;

/// Bytes of a name, the names of all before it included.
const LONGEST_NAME: usize = 1000;

const OVER_AND_OVER: &str =
    "names its objects over and over or nests them deeper than any model; it was not read";

/// Texts that are kept, and how long they and their names may be.
const MOST_TEXTS: usize = 64;
const LONGEST_TEXT: usize = 4096;
const LONGEST_KEY: usize = 128;

/// Elements of a list that is kept.
const LONGEST_LIST: usize = 64;

/// A dictionary of a textual inversion that is kept.
const TOKENS: &str = "string_to_token";

/// A tensor, or the name of the class that stands for one that is not read.
pub(super) type Named<'p, 'a> = BTreeMap<String, Result<&'p Tensor<'a>, String>>;

/// The model's tensors by their own names: what else a checkpoint has, such as the state of its training, is left out.
pub(super) fn tensors<'p, 'a>(
    pickle: &'p Pickle<'a>,
    outside: &'p BTreeMap<Vec<u8>, Tensor<'a>>,
) -> Result<Named<'p, 'a>, Wrong> {
    let mut walk =
        Walk { pickle, outside, path: String::new(), unnamed: 0, visits: 0, found: BTreeMap::new() };
    walk.object(pickle.root, 0)?;
    let mut found = walk.found;
    let has = |found: &Named<'_, '_>, wrapper: &str| found.keys().any(|name| within(name, wrapper).is_some());
    if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| has(&found, wrapper)) {
        found = stripped(found, wrapper);
    }
    if !found.is_empty() && found.keys().all(|name| within(name, PARALLEL).is_some()) {
        found = stripped(found, PARALLEL);
    }
    Ok(found)
}

fn within<'a>(name: &'a str, wrapper: &str) -> Option<&'a str> {
    name.strip_prefix(wrapper)?.strip_prefix('.')
}

fn stripped<'p, 'a>(found: Named<'p, 'a>, wrapper: &str) -> Named<'p, 'a> {
    found.into_iter().filter_map(|(name, of)| Some((within(&name, wrapper)?.to_owned(), of))).collect()
}

struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    outside: &'p BTreeMap<Vec<u8>, Tensor<'a>>,
    path: String,
    /// Containers around this one whose names are too long.
    unnamed: usize,
    visits: usize,
    found: Named<'p, 'a>,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn object(&mut self, id: Id, depth: usize) -> Result<(), Wrong> {
        self.visit(1)?;
        if depth > DEEPEST {
            return Err(OVER_AND_OVER.into());
        }
        match self.pickle.get(id) {
            Object::Dict(items) => self.dict(items, depth),
            Object::Items(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| self.within(&index.to_string(), *item, depth)),
            Object::Instance(instance) => self.instance(instance, depth),
            Object::Tensor(tensor) => self.tensor(tensor),
            Object::Outside(name) => match self.outside.get(*name) {
                Some(tensor) => self.tensor(tensor),
                None => Err("names a tensor that it does not have; copy or download it again".into()),
            },
            _ => Ok(()),
        }
    }

    fn within(&mut self, key: &str, value: Id, depth: usize) -> Result<(), Wrong> {
        let length = self.path.len();
        if length + key.len() > LONGEST_NAME {
            return self.without_name(value, depth);
        }
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        let walked = self.object(value, depth + 1);
        self.path.truncate(length);
        walked
    }

    /// What holds no tensor may be called as it likes.
    fn without_name(&mut self, value: Id, depth: usize) -> Result<(), Wrong> {
        self.unnamed += 1;
        let walked = self.object(value, depth + 1);
        self.unnamed -= 1;
        walked
    }

    /// A text or number that can be part of a name: longer ones would be compared with each other for ever.
    fn key(&self, id: Id) -> Option<Cow<'a, [u8]>> {
        self.pickle.get(id).key().filter(|key| key.len() <= LONGEST_NAME)
    }

    /// So many more are looked at.
    fn visit(&mut self, count: usize) -> Result<(), Wrong> {
        self.visits = self.visits.saturating_add(count);
        if self.visits > MOST_VISITS { Err(OVER_AND_OVER.into()) } else { Ok(()) }
    }

    fn dict(&mut self, items: &[(Id, Id)], depth: usize) -> Result<(), Wrong> {
        self.visit(items.len())?;
        // The last of a name is the one that counts.
        let mut named = BTreeMap::new();
        for (key, value) in items {
            match self.pickle.get(*key).key() {
                Some(key) if key.len() <= LONGEST_NAME => {
                    named.insert(key, *value);
                }
                Some(_) => self.without_name(*value, depth)?,
                None => {}
            }
        }
        named.iter().try_for_each(|(key, value)| self.within(&String::from_utf8_lossy(key), *value, depth))
    }

    /// A `torch.nn.Module` has what its `state_dict()` has; another object only what it has as a dictionary.
    fn instance(&mut self, instance: &'p Instance<'a>, depth: usize) -> Result<(), Wrong> {
        let pickle = self.pickle;
        let state = instance.state.map(|state| pickle.get(state));
        if let Some(Object::Dict(attributes)) = state {
            self.visit(attributes.len())?;
        }
        let attribute = |name: &str| state.and_then(|state| pickle.value(state, name));
        let table = |name: &str| match attribute(name) {
            Some(Object::Dict(items)) => Some(items),
            _ => None,
        };
        if let (Some(parameters), Some(buffers), Some(modules)) =
            (table("_parameters"), table("_buffers"), table("_modules"))
        {
            let passing = match attribute("_non_persistent_buffers_set") {
                Some(Object::Items(names)) => names.as_slice(),
                _ => &[],
            };
            self.visit(passing.len() + buffers.len())?;
            let passing: HashSet<_> = passing.iter().filter_map(|name| self.key(*name)).collect();
            let kept = |(key, _): &&(Id, Id)| self.key(*key).is_some_and(|key| !passing.contains(&key));
            let buffers: Vec<(Id, Id)> = buffers.iter().filter(kept).copied().collect();
            self.dict(parameters, depth)?;
            self.dict(&buffers, depth)?;
            return self.dict(modules, depth);
        }
        match instance.class {
            Some(class) if class.module == b"torch._utils" && class.name.starts_with(b"_rebuild_") => {
                self.insert(Err(class.told()))
            }
            _ => self.dict(&instance.items, depth),
        }
    }

    fn tensor(&mut self, tensor: &'p Tensor<'a>) -> Result<(), Wrong> {
        self.insert(if tensor.kind.dtype.is_some() { Ok(tensor) } else { Err(tensor.kind.class.told()) })
    }

    fn insert(&mut self, tensor: Result<&'p Tensor<'a>, String>) -> Result<(), Wrong> {
        if self.unnamed > 0 {
            let reason =
                format!("has a tensor whose name is longer than {LONGEST_NAME} bytes; it is no model");
            return Err(reason.into());
        }
        if self.found.len() >= MOST_TENSORS {
            return Err(format!(
                "has more than the {MOST_TENSORS} tensors that are believed; it is no model"
            )
            .into());
        }
        match self.found.entry(self.path.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(tensor);
                Ok(())
            }
            Entry::Occupied(entry) => {
                Err(format!("has two tensors called {}; it is no model", entry.key()).into())
            }
        }
    }
}

/// What stands beside the tensors in short: numbers, texts, and lists of them.
pub(super) fn metadata(pickle: &Pickle<'_>) -> BTreeMap<String, String> {
    let Object::Dict(items) = pickle.root() else {
        return BTreeMap::new();
    };
    let mut texts = BTreeMap::new();
    let mut made = 0;
    let text = |id: Id| {
        let key = pickle.get(id).key().filter(|key| key.len() <= LONGEST_KEY)?;
        Some(String::from_utf8_lossy(&key).into_owned())
    };
    for (key, value) in items {
        let Some(key) = text(*key) else { continue };
        let added: Vec<(String, String)> = match pickle.get(*value) {
            Object::Dict(tokens) if key == TOKENS => {
                let token = |(name, token): &(Id, Id)| {
                    Some((format!("{TOKENS}.{}", text(*name)?), scalar(pickle.get(*token))?))
                };
                tokens.iter().take(MOST_TEXTS).filter_map(token).collect()
            }
            // One that is not kept costs nothing, however often it is there.
            Object::Items(items)
                if items.len() <= LONGEST_LIST && items.iter().all(|item| is_scalar(pickle.get(*item))) =>
            {
                let items: Vec<String> = items.iter().filter_map(|item| scalar(pickle.get(*item))).collect();
                vec![(key, format!("[{}]", items.join(", ")))]
            }
            value => scalar(value).map(|text| (key, text)).into_iter().collect(),
        };
        made += added.iter().map(|(_, text)| text.len()).sum::<usize>();
        texts.extend(added);
        // The same long text may be there a million times.
        if texts.len() >= MOST_TEXTS || made > MOST_TEXTS * LONGEST_TEXT {
            break;
        }
    }
    texts.retain(|_, text| text.len() <= LONGEST_TEXT);
    texts.into_iter().take(MOST_TEXTS).collect()
}

fn is_scalar(value: &Object<'_>) -> bool {
    match value {
        Object::Bool(_) | Object::Int(_) | Object::Float(_) => true,
        Object::Text(text) => text.len() <= LONGEST_TEXT,
        _ => false,
    }
}

fn scalar(value: &Object<'_>) -> Option<String> {
    match value {
        Object::Bool(value) => Some(value.to_string()),
        Object::Int(value) => Some(value.to_string()),
        Object::Float(value) => Some(value.to_string()),
        Object::Text(text) if text.len() <= LONGEST_TEXT => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}
