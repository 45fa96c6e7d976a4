//! Structs of the ABI as MessagePack and back: a map with C's names, texts as strings, lists as arrays, null as nil.
//!
//! What a message lacks is 0, and what it has beyond that is left out: both sides may be newer than the other. Nothing that is
//! read is trusted: lists are bounded, numbers must fit.

use std::any::Any;
use std::cell::RefCell;
use std::mem::MaybeUninit;

use latentd_plugin_api::abi::{latentd_bytes, latentd_list, latentd_text};
use rmp::encode;
use rmpv::ValueRef;

use super::frames::LARGEST;
use crate::plugins::host::taken;

/// Elements of a list that are not mere numbers.
const MOST_ITEMS: usize = 1 << 16;

/// What is wrong with a message.
pub(super) type Wrong = String;

/// Holds what structs point to, for as long as they are lent.
#[derive(Default)]
pub(super) struct Arena(RefCell<Vec<Box<dyn Any>>>);

impl Arena {
    /// Where a list lies for as long as the arena lives.
    fn hold<T: 'static>(&self, items: Vec<T>) -> *const T {
        let items: Box<[T]> = items.into();
        let place = items.as_ptr();
        self.0.borrow_mut().push(Box::new(items));
        place
    }

    /// Keeps a message, into which texts point.
    pub(super) fn hold_frame(&self, frame: Vec<u8>) {
        self.0.borrow_mut().push(Box::new(frame));
    }
}

/// What crosses to another process and back.
pub(super) trait Coded: Sized {
    /// Whether what is read points into the message or the arena.
    const LENDS: bool = false;
    /// Whether a struct begins with its size.
    const SIZED: bool = false;
    /// Elements that a list may have.
    const MOST: usize = MOST_ITEMS;

    /// Appends it.
    ///
    /// # Safety
    /// What it points to is there.
    unsafe fn write(&self, out: &mut Vec<u8>);

    /// Reads it; it is lent as long as message and arena live.
    fn read(value: &ValueRef<'_>, arena: &Arena) -> Result<Self, Wrong>;

    /// All zero: numbers, null, functions that lack.
    fn none() -> Self {
        // SAFETY: all that crosses are numbers, pointers, functions that may lack, and structs of them.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }
}

macro_rules! numbers {
    ($($number:ty: $write:ident, $read:ident;)*) => {$(
        impl Coded for $number {
            const MOST: usize = usize::MAX;

            unsafe fn write(&self, out: &mut Vec<u8>) {
                encode::$write(out, (*self).into()).ok();
            }

            fn read(value: &ValueRef<'_>, _: &Arena) -> Result<Self, Wrong> {
                let number = $read(value).and_then(|number| number.try_into().ok());
                number.ok_or_else(|| concat!("a number of ", stringify!($number), " is meant").to_owned())
            }
        }
    )*};
}

fn whole(value: &ValueRef<'_>) -> Option<u64> {
    match value {
        ValueRef::Integer(number) => number.as_u64(),
        _ => None,
    }
}

fn signed(value: &ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(number) => number.as_i64(),
        _ => None,
    }
}

fn real(value: &ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::F64(number) => Some(*number),
        ValueRef::F32(number) => Some(f64::from(*number)),
        ValueRef::Integer(number) => number.as_f64(),
        _ => None,
    }
}

numbers! {
    u8: write_uint, whole;
    u16: write_uint, whole;
    u32: write_uint, whole;
    u64: write_uint, whole;
    i32: write_sint, signed;
    i64: write_sint, signed;
    f64: write_f64, real;
}

impl Coded for f32 {
    const MOST: usize = usize::MAX;

    unsafe fn write(&self, out: &mut Vec<u8>) {
        encode::write_f32(out, *self).ok();
    }

    fn read(value: &ValueRef<'_>, _: &Arena) -> Result<Self, Wrong> {
        real(value).map(|number| number as f32).ok_or_else(|| "a number of f32 is meant".to_owned())
    }
}

impl<T: Coded + Default, const N: usize> Coded for [T; N] {
    unsafe fn write(&self, out: &mut Vec<u8>) {
        encode::write_array_len(out, N as u32).ok();
        // SAFETY: as the caller says.
        self.iter().for_each(|item| unsafe { item.write(out) });
    }

    fn read(value: &ValueRef<'_>, arena: &Arena) -> Result<Self, Wrong> {
        let ValueRef::Array(items) = value else { return Err("an array is meant".to_owned()) };
        if items.len() > N {
            return Err(format!("an array of {} is meant, not of {}", N, items.len()));
        }
        let mut own = Self::none();
        for (to, item) in own.iter_mut().zip(items) {
            *to = T::read(item, arena)?;
        }
        Ok(own)
    }
}

/// Null is nil: it may say something else than a text without letters. Null with a length is that length. What is no UTF-8 stays so, for whoever takes it to refuse.
impl Coded for latentd_text {
    const LENDS: bool = true;
    const MOST: usize = 1 << 20;

    unsafe fn write(&self, out: &mut Vec<u8>) {
        // SAFETY: it points to so many bytes, by the caller's word.
        match unsafe { bytes_at(self.data.cast(), self.length) } {
            Some(bytes) if !self.data.is_null() => {
                encode::write_str_len(out, bytes.len() as u32).ok();
                out.extend(bytes);
            }
            Some(_) => {
                encode::write_nil(out).ok();
            }
            None => {
                encode::write_uint(out, self.length).ok();
            }
        }
    }

    fn read(value: &ValueRef<'_>, _: &Arena) -> Result<Self, Wrong> {
        match value {
            ValueRef::Nil => Ok(Self { data: std::ptr::null(), length: 0 }),
            // Nothing is read at null, however much it would be.
            ValueRef::Integer(length) => {
                Ok(Self { data: std::ptr::null(), length: length.as_u64().unwrap_or_default() })
            }
            ValueRef::String(text) => {
                let bytes = text.as_bytes();
                Ok(Self { data: bytes.as_ptr().cast(), length: bytes.len() as u64 })
            }
            _ => Err("a text is meant".to_owned()),
        }
    }
}

/// Null is not the same as no bytes, and there may be more than a message holds: then it is told how many there would be.
impl Coded for latentd_bytes {
    const LENDS: bool = true;

    unsafe fn write(&self, out: &mut Vec<u8>) {
        // SAFETY: as the caller says.
        match unsafe { bytes_at(self.data.cast(), self.length) } {
            Some(bytes) => encode::write_bin(out, bytes).ok(),
            None => encode::write_uint(out, self.length).ok().map(|_| ()),
        };
    }

    fn read(value: &ValueRef<'_>, _: &Arena) -> Result<Self, Wrong> {
        match value {
            ValueRef::Nil => Ok(Self { data: std::ptr::null(), length: 1 }),
            // Nothing is read at null, however much it would be.
            ValueRef::Integer(length) => {
                Ok(Self { data: std::ptr::null(), length: length.as_u64().unwrap_or_default().max(1) })
            }
            ValueRef::Binary(bytes) => Ok(Self { data: bytes.as_ptr().cast(), length: bytes.len() as u64 }),
            _ => Err("bytes are meant".to_owned()),
        }
    }
}

/// Bytes that somebody lends; none if they are null, and yet some.
///
/// # Safety
/// So many are there, or it is null.
unsafe fn bytes_at<'a>(data: *const u8, length: u64) -> Option<&'a [u8]> {
    let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST)?;
    match length {
        0 => Some(&[]),
        _ if data.is_null() => None,
        // SAFETY: as the caller says.
        _ => Some(unsafe { std::slice::from_raw_parts(data, length) }),
    }
}

/// A struct that is pointed to.
impl<T: Coded + 'static> Coded for *const T {
    const LENDS: bool = true;

    unsafe fn write(&self, out: &mut Vec<u8>) {
        // SAFETY: as the caller says; structs that are pointed to begin with their sizes.
        match unsafe { taken(*self) } {
            // SAFETY: as the caller says.
            Some(own) => unsafe { own.write(out) },
            None => {
                encode::write_nil(out).ok();
            }
        }
    }

    fn read(value: &ValueRef<'_>, arena: &Arena) -> Result<Self, Wrong> {
        match value {
            ValueRef::Nil => Ok(std::ptr::null()),
            value => Ok(arena.hold(vec![T::read(value, arena)?])),
        }
    }
}

/// Appends a list whose elements may be shorter or longer than ours.
///
/// # Safety
/// It points to as many as it says.
pub(super) unsafe fn write_list<T: Coded>(list: &latentd_list, out: &mut Vec<u8>) {
    let latentd_list { items, count, stride } = *list;
    let most = T::MOST.min(LARGEST / size_of::<T>());
    if count > 0 && (items.is_null() || stride == 0 || count as usize > most) {
        // What is no list is told as what it says of itself: whoever takes it says what is wrong with it.
        encode::write_map_len(out, 2).ok();
        for (name, number) in [("count", count), ("stride", stride)] {
            key(out, name);
            encode::write_uint(out, number.into()).ok();
        }
        return;
    }
    encode::write_array_len(out, count).ok();
    for index in 0..count as usize {
        let mut own = MaybeUninit::<T>::zeroed();
        // SAFETY: so many elements lie there, so far apart.
        unsafe {
            let item = items.cast::<u8>().add(index * stride as usize);
            // What lies behind an element's own size is nobody's.
            let size = if T::SIZED { item.cast::<u32>().read_unaligned() } else { stride };
            let bytes = (size.min(stride) as usize).min(size_of::<T>());
            std::ptr::copy_nonoverlapping(item, own.as_mut_ptr().cast(), bytes);
            own.assume_init().write(out);
        }
    }
}

/// Reads a list.
pub(super) fn read_list<T: Coded + 'static>(
    value: &ValueRef<'_>,
    arena: &Arena,
) -> Result<latentd_list, Wrong> {
    if matches!(value, ValueRef::Map(_)) {
        let fields = Fields::of(value)?;
        let (count, stride) = (fields.read("count", arena)?, fields.read("stride", arena)?);
        return Ok(latentd_list { items: std::ptr::null(), count, stride });
    }
    let ValueRef::Array(items) = value else { return Err("a list is meant".to_owned()) };
    if items.len() > T::MOST {
        return Err(format!("a list of {}; {} are possible", items.len(), T::MOST));
    }
    let read = items.iter().map(|item| T::read(item, arena));
    let read = read.collect::<Result<Vec<T>, _>>()?;
    let (count, stride) = (read.len() as u32, size_of::<T>() as u32);
    Ok(latentd_list { items: arena.hold(read).cast(), count, stride })
}

/// Numbers of a struct that counts them apart.
pub(super) fn read_numbers<T: Coded + 'static>(
    value: Option<&ValueRef<'_>>,
    arena: &Arena,
) -> Result<(*const T, u32), Wrong> {
    match value {
        None | Some(ValueRef::Nil) => Ok((std::ptr::null(), 0)),
        Some(ValueRef::Map(_)) => Err("an array is meant".to_owned()),
        // Null, and yet some.
        Some(ValueRef::Integer(count)) => {
            let count = count.as_u64().and_then(|count| u32::try_from(count).ok());
            Ok((std::ptr::null(), count.unwrap_or_default()))
        }
        Some(value) => {
            let list = read_list::<T>(value, arena)?;
            Ok((list.items.cast(), list.count))
        }
    }
}

/// Appends a key.
pub(super) fn key(out: &mut Vec<u8>, name: &str) {
    encode::write_str(out, name).ok();
}

/// A map that came, to be asked for its entries.
pub(super) struct Fields<'a, 'b>(&'a [(ValueRef<'b>, ValueRef<'b>)], &'a ValueRef<'b>);

impl<'a, 'b> Fields<'a, 'b> {
    pub(super) fn of(value: &'a ValueRef<'b>) -> Result<Self, Wrong> {
        match value {
            ValueRef::Map(entries) => Ok(Self(entries, value)),
            ValueRef::Nil => Ok(Self(&[], value)),
            _ => Err("a map is meant".to_owned()),
        }
    }

    /// All of it.
    pub(super) fn whole(&self) -> &'a ValueRef<'b> {
        self.1
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a ValueRef<'b>> {
        let named =
            |key: &ValueRef<'_>| matches!(key, ValueRef::String(key) if key.as_bytes() == name.as_bytes());
        self.0.iter().find(|(key, _)| named(key)).map(|(_, value)| value)
    }

    /// An entry; what stands for none if it is not there.
    pub(super) fn read<T: Coded>(&self, name: &str, arena: &Arena) -> Result<T, Wrong> {
        let Some(value) = self.get(name) else { return Ok(T::none()) };
        T::read(value, arena).map_err(|wrong| format!("{name}: {wrong}"))
    }

    /// A list; an empty one if it is not there.
    pub(super) fn list<T: Coded + 'static>(&self, name: &str, arena: &Arena) -> Result<latentd_list, Wrong> {
        match self.get(name) {
            Some(value) => read_list::<T>(value, arena).map_err(|wrong| format!("{name}: {wrong}")),
            None => Ok(latentd_list { items: std::ptr::null(), count: 0, stride: size_of::<T>() as u32 }),
        }
    }
}
