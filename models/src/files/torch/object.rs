//! What a pickle describes. Objects stand in one list and name each other by their place in it, so that what a pickle
//! refers to many times is there once, and circles do no harm.

use std::borrow::Cow;

use crate::files::container::ElementType;

/// Bytes of the name of a storage or of a tensor outside.
pub(super) const LONGEST_KEY: usize = 256;

/// An object's place in the list.
pub(super) type Id = u32;

pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// In UTF-8, mostly.
    Text(&'a [u8]),
    /// Bytes, and whole numbers beyond 64 bits: nothing here needs them.
    Bytes,
    /// A tuple, list or set.
    Items(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Class(Class<'a>),
    /// What `torch.save` keeps outside of the pickle by a name: tensors, in the oldest format.
    Outside(&'a [u8]),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Tensor<'a>>),
    /// Anything else: its class is told, and nothing of it made.
    Instance(Box<Instance<'a>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class<'a> {
    pub module: &'a [u8],
    pub name: &'a [u8],
}

impl Class<'_> {
    pub(super) fn is(&self, module: &str, name: &str) -> bool {
        self.module == module.as_bytes() && self.name == name.as_bytes()
    }

    /// For a sentence.
    pub(super) fn told(&self) -> String {
        let shown = |text: &[u8]| String::from_utf8_lossy(text.get(..80).unwrap_or(text)).into_owned();
        format!("{}.{}", shown(self.module), shown(self.name))
    }
}

pub(super) struct Instance<'a> {
    pub class: Option<Class<'a>>,
    /// The attributes.
    pub state: Option<Id>,
    /// Of a class that is a dictionary.
    pub items: Vec<(Id, Id)>,
}

/// What the elements of a storage or tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind<'a> {
    /// Its name in the pickle.
    pub class: Class<'a>,
    /// `None` for one that is not read.
    pub dtype: Option<ElementType>,
    /// Bytes of an element.
    pub size: usize,
}

#[derive(Clone)]
pub(super) struct Storage<'a> {
    /// `None` for bytes of any.
    pub kind: Option<Kind<'a>>,
    pub key: Cow<'a, [u8]>,
    /// Elements of `kind`, or bytes.
    pub length: usize,
    /// The part of it that this is, in elements: the first, and how many.
    pub view: Option<(usize, usize)>,
}

/// A tensor as it lies in its storage.
#[derive(Clone)]
pub(super) struct Tensor<'a> {
    pub kind: Kind<'a>,
    pub storage: Storage<'a>,
    /// Elements from the storage's beginning.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// A pickle's objects.
pub(super) struct Pickle<'a> {
    pub objects: Vec<Object<'a>>,
    /// The one that it is.
    pub root: Id,
    /// Its length in bytes.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    pub(super) fn get(&self, id: Id) -> &Object<'a> {
        get(&self.objects, id)
    }

    pub(super) fn root(&self) -> &Object<'a> {
        self.get(self.root)
    }

    /// The value under a key of a dictionary.
    pub(super) fn value(&self, dict: &Object<'a>, key: &str) -> Option<&Object<'a>> {
        let Object::Dict(items) = dict else { return None };
        let of_key = |(found, _): &&(Id, Id)| matches!(self.get(*found), Object::Text(text) if *text == key.as_bytes());
        items.iter().rev().find(of_key).map(|(_, value)| self.get(*value))
    }

    /// A sequence of just so many objects.
    pub(super) fn fields<const N: usize>(&self, object: &Object<'a>) -> Option<[&Object<'a>; N]> {
        let Object::Items(items) = object else { return None };
        let items: [Id; N] = items.as_slice().try_into().ok()?;
        Some(items.map(|id| self.get(id)))
    }
}

/// None where there is no such object, which no list that this program makes has.
pub(super) fn get<'l, 'a>(objects: &'l [Object<'a>], id: Id) -> &'l Object<'a> {
    objects.get(id as usize).unwrap_or(&Object::None)
}

impl<'a> Object<'a> {
    /// A text, or a whole number as one: torch uses both for its keys.
    pub(super) fn key(&self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Int(number) => Some(Cow::Owned(number.to_string().into_bytes())),
            _ => None,
        }
    }

    /// The same as the name of a storage or of a tensor: one text may be named a million times, and each time be copied.
    pub(super) fn short_key(&self) -> Option<Cow<'a, [u8]>> {
        self.key().filter(|key| key.len() <= LONGEST_KEY)
    }

    /// A number of things.
    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Self::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn class(&self) -> Option<Class<'a>> {
        match self {
            Self::Class(class) => Some(*class),
            _ => None,
        }
    }
}

/// What the class of a storage, or a `torch.dtype`, names; `None` for bytes of any type.
pub(super) fn kind(class: Class<'_>) -> Option<Kind<'_>> {
    let (dtype, size) = match class.name {
        b"FloatStorage" | b"float32" | b"float" => (Some(ElementType::F32), 4),
        b"DoubleStorage" | b"float64" | b"double" => (Some(ElementType::F64), 8),
        b"HalfStorage" | b"float16" | b"half" => (Some(ElementType::F16), 2),
        b"BFloat16Storage" | b"bfloat16" => (Some(ElementType::Bf16), 2),
        b"LongStorage" | b"int64" | b"long" => (Some(ElementType::I64), 8),
        b"IntStorage" | b"int32" | b"int" => (Some(ElementType::I32), 4),
        b"ShortStorage" | b"int16" | b"short" => (Some(ElementType::I16), 2),
        b"CharStorage" | b"int8" => (Some(ElementType::I8), 1),
        b"ByteStorage" | b"uint8" => (Some(ElementType::U8), 1),
        b"BoolStorage" | b"bool" => (Some(ElementType::Bool), 1),
        b"float8_e4m3fn" => (Some(ElementType::F8E4M3), 1),
        b"float8_e5m2" => (Some(ElementType::F8E5M2), 1),
        b"uint16" => (Some(ElementType::Other), 2),
        b"uint32" => (Some(ElementType::Other), 4),
        b"uint64" => (Some(ElementType::Other), 8),
        b"UntypedStorage" => return None,
        // Old files say no more of their storages' sizes than their types.
        b"ComplexDoubleStorage" | b"complex128" => (None, 16),
        b"ComplexFloatStorage" | b"complex64" => (None, 8),
        b"QInt32Storage" => (None, 4),
        _ => (None, 1),
    };
    Some(Kind { class, dtype, size })
}
