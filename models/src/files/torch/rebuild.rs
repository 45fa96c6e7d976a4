//! What a pickle would call: the few functions by which torch makes tensors of storages are understood; of any other call
//! only the name is kept. None is made.

use super::object::{Class, Id, Instance, LONGEST_KEY, Object, Storage, Tensor, get, kind};
use super::refusal::{Wrong, unfit};

/// Calls within the arguments of a call.
const DEEPEST: usize = 4;

/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 64;

/// What a call results in.
pub(super) fn call<'a>(objects: &[Object<'a>], callable: Id, arguments: Id) -> Result<Made<'a>, Wrong> {
    made(objects, callable, arguments, DEEPEST)
}

/// An object that was there, or a new one.
pub(super) enum Made<'a> {
    Old(Id),
    New(Object<'a>),
}

fn made<'a>(objects: &[Object<'a>], callable: Id, arguments: Id, deep: usize) -> Result<Made<'a>, Wrong> {
    let class = get(objects, callable).class();
    let Object::Items(fields) = get(objects, arguments) else {
        return Ok(instance(class));
    };
    let Some(class) = class else {
        return Ok(instance(None));
    };
    let first = fields.first().copied();
    match (class.module, class.name) {
        (b"torch._utils", b"_rebuild_tensor" | b"_rebuild_tensor_v2") => {
            Ok(Made::New(Object::Tensor(Box::new(tensor(objects, fields, None)?))))
        }
        (b"torch._utils", b"_rebuild_tensor_v3") => {
            let dtype = fields.get(6).and_then(|id| get(objects, *id).class());
            let dtype = dtype.ok_or_else(|| unfit("a tensor has no type"))?;
            Ok(Made::New(Object::Tensor(Box::new(tensor(objects, fields, Some(dtype))?))))
        }
        (b"torch._utils", b"_rebuild_parameter" | b"_rebuild_parameter_with_state") => {
            first.map(Made::Old).ok_or_else(|| unfit("a parameter has no tensor"))
        }
        (b"torch._tensor", b"_rebuild_from_type_v2") if deep > 0 => match (first, fields.get(2)) {
            (Some(function), Some(arguments)) => made(objects, function, *arguments, deep - 1),
            _ => Err(unfit("a tensor has no tensor")),
        },
        _ if is_dict(&class) => {
            // Those of a `defaultdict` come second.
            let items = fields.iter().take(2).find_map(|id| match get(objects, *id) {
                Object::Items(items) => Some(items),
                _ => None,
            });
            let pair = |id: &Id| match get(objects, *id) {
                Object::Items(pair) => Some((*pair.first()?, *pair.get(1)?)),
                _ => None,
            };
            // All are pairs, or it ends here: what is found is charged, so that a long list is not looked through for ever.
            let pairs: Option<Vec<(Id, Id)>> = items.into_iter().flatten().map(pair).collect();
            let pairs = pairs.ok_or_else(|| unfit("a dictionary is made of what are no pairs"))?;
            Ok(Made::New(Object::Dict(pairs)))
        }
        (b"builtins" | b"__builtin__", b"set" | b"frozenset" | b"list" | b"tuple") => Ok(match first {
            Some(items) => Made::Old(items),
            None => Made::New(Object::Items(vec![])),
        }),
        _ => Ok(instance(Some(class))),
    }
}

fn is_dict(class: &Class<'_>) -> bool {
    class.is("collections", "OrderedDict")
        || class.is("collections", "defaultdict")
        || class.is("builtins", "dict")
        || class.is("__builtin__", "dict")
}

/// A new object of a class.
pub(super) fn instance(class: Option<Class<'_>>) -> Made<'_> {
    if class.is_some_and(|class| is_dict(&class)) {
        return Made::New(Object::Dict(vec![]));
    }
    Made::New(Object::Instance(Box::new(Instance { class, state: None, items: vec![] })))
}

fn tensor<'a>(objects: &[Object<'a>], fields: &[Id], dtype: Option<Class<'a>>) -> Result<Tensor<'a>, Wrong> {
    let field = |index: usize| fields.get(index).map_or(&Object::None, |id| get(objects, *id));
    let Object::Storage(storage) = field(0) else {
        return Err(unfit("a tensor has no storage"));
    };
    let offset = field(1).count().ok_or_else(|| unfit("a tensor's offset is no number"))?;
    let sizes = |object: &Object<'a>| match object {
        Object::Items(sizes) if sizes.len() <= MOST_DIMENSIONS => {
            sizes.iter().map(|id| get(objects, *id).count()).collect::<Option<Vec<usize>>>()
        }
        _ => None,
    };
    let (shape, strides) =
        sizes(field(2)).zip(sizes(field(3))).ok_or_else(|| unfit("a tensor's shape is none"))?;
    if shape.len() != strides.len() {
        return Err(unfit("a tensor has other strides than sizes"));
    }
    let kind = dtype.and_then(kind).or(storage.kind).ok_or_else(|| unfit("a tensor has no type"))?;
    let offset = offset.checked_add(storage.view.map_or(0, |(start, _)| start));
    let offset = offset.ok_or_else(|| unfit("a tensor's offset is beyond all numbers"))?;
    let tensor = Tensor { kind, storage: (**storage).clone(), offset, shape, strides };
    check(&tensor)?;
    Ok(tensor)
}

/// Holds a tensor against what its storage is said to have.
pub(super) fn check(tensor: &Tensor<'_>) -> Result<(), Wrong> {
    let storage = &tensor.storage;
    let bytes = storage.length.checked_mul(storage.kind.map_or(1, |kind| kind.size));
    let whole = bytes.map(|bytes| bytes / tensor.kind.size.max(1));
    let length = match storage.view {
        Some((start, length)) => start.checked_add(length).filter(|end| *end <= storage.length),
        None => whole,
    };
    let end = extent(&tensor.shape, &tensor.strides).and_then(|extent| extent.checked_add(tensor.offset));
    match end.zip(length) {
        Some((end, length)) if end <= length => Ok(()),
        _ => Err(unfit("a tensor lies outside its storage")),
    }
}

/// Elements from a tensor's first to behind its last; `None` beyond all numbers.
pub(super) fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
    if shape.contains(&0) {
        return Some(0);
    }
    let last = shape.iter().zip(strides).try_fold(0usize, |last, (size, stride)| {
        last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
    });
    last?.checked_add(1)
}

/// What stands for an object outside of the pickle: `('storage', class, key, device, length[, view])`,
/// `('module', class, file, source)` in old files, or a tensor's name in the oldest.
pub(super) fn outside<'a>(objects: &[Object<'a>], id: Id) -> Result<Made<'a>, Wrong> {
    let fields = match get(objects, id) {
        Object::Items(fields) => fields,
        Object::Text(name) if name.len() <= LONGEST_KEY => return Ok(Made::New(Object::Outside(name))),
        _ => return Err(unfit("a storage is none")),
    };
    let field = |index: usize| fields.get(index).map_or(&Object::None, |id| get(objects, *id));
    match field(0) {
        Object::Text(b"module") => {
            return fields.get(1).copied().map(Made::Old).ok_or_else(|| unfit("a class is none"));
        }
        Object::Text(b"storage") => {}
        _ => return Err(unfit("a storage is none")),
    }
    let (Some(class), Some(key), Some(length)) = (field(1).class(), field(2).short_key(), field(4).count())
    else {
        return Err(unfit("a storage is none"));
    };
    let view = match field(5) {
        Object::Items(view) => {
            let number = |index: usize| view.get(index).and_then(|id| get(objects, *id).count());
            Some(number(1).zip(number(2)).ok_or_else(|| unfit("a part of a storage is none"))?)
        }
        _ => None,
    };
    Ok(Made::New(Object::Storage(Box::new(Storage { kind: kind(class), key, length, view }))))
}
