//! The four kinds of messages between the host and a plugin in a process of its own. Each is an array:
//!
//! | | |
//! |---|---|
//! | `[0, level, table, function, instance, arguments]` | the host calls a function of the plugin |
//! | `[1, level, table, function, arguments]` | the plugin asks a service, within the call of that level |
//! | `[2, status, results, error]` | the answer to the last call or question that has none yet |
//! | `[3, level, table, function, arguments]` | the plugin tells something, which is not answered |
//!
//! Whoever waits for an answer may be called or asked first: calls lie within one another, and the last one is answered first.

use rmp::encode;
use rmpv::ValueRef;

use super::coding::Wrong;
use super::frames::begun;

/// What a message says.
pub(super) enum Message<'a> {
    Call { level: usize, table: &'a str, function: &'a str, instance: u64, args: ValueRef<'a> },
    Ask { level: usize, table: &'a str, function: &'a str, args: ValueRef<'a> },
    Answer { status: u32, results: ValueRef<'a>, error: Option<&'a str> },
    Note { level: usize, table: &'a str, function: &'a str, args: ValueRef<'a> },
}

/// Values in one message: decoded, each takes much more than its byte.
const MOST_VALUES: usize = 1 << 20;

/// How many values are in a message, as far as it is one.
fn values(frame: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    let number = |at: usize, bytes: usize| {
        let bytes = frame.get(at..at + bytes).unwrap_or_default();
        bytes.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    while let Some(marker) = frame.get(at) {
        count += 1;
        at += 1;
        // What comes behind the marker and is no value of its own.
        at += match marker {
            0xa0..=0xbf => usize::from(marker & 31),
            0xc4 | 0xd9 => 1 + number(at, 1),
            0xc5 | 0xda => 2 + number(at, 2),
            0xc6 | 0xdb => 4 + number(at, 4),
            0xc7 => 2 + number(at, 1),
            0xc8 => 3 + number(at, 2),
            0xc9 => 5 + number(at, 4),
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 | 0xd4 | 0xdc | 0xde => 2,
            0xca | 0xce | 0xd2 | 0xdd | 0xdf => 4,
            0xd5 => 3,
            0xd6 => 5,
            0xcb | 0xcf | 0xd3 => 8,
            0xd7 => 9,
            0xd8 => 17,
            _ => 0,
        };
    }
    count
}

/// Reads one.
pub(super) fn read(mut frame: &[u8]) -> Result<Message<'_>, Wrong> {
    if frame.len() > MOST_VALUES && values(frame) > MOST_VALUES {
        return Err(format!("a message of more than {MOST_VALUES} values"));
    }
    let value =
        rmpv::decode::read_value_ref(&mut frame).map_err(|error| format!("no MessagePack: {error}"))?;
    if !frame.is_empty() {
        return Err(format!("{} bytes behind a message", frame.len()));
    }
    let ValueRef::Array(parts) = value else { return Err("a message that is no array".to_owned()) };
    let mut parts = parts.into_iter();
    let kind = number(parts.next().as_ref())?;
    if kind == 2 {
        let status = u32::try_from(number(parts.next().as_ref())?)
            .map_err(|_| "a status beyond 32 bits".to_owned())?;
        let results = parts.next().unwrap_or(ValueRef::Nil);
        let error = match parts.next() {
            Some(ValueRef::String(text)) => text.into_str(),
            _ => None,
        };
        return Ok(Message::Answer { status, results, error });
    }
    let level =
        usize::try_from(number(parts.next().as_ref())?).map_err(|_| "a level that is none".to_owned())?;
    let (table, function) = (text(parts.next().as_ref())?, text(parts.next().as_ref())?);
    Ok(match kind {
        0 => {
            let instance = number(parts.next().as_ref())?;
            Message::Call { level, table, function, instance, args: parts.next().unwrap_or(ValueRef::Nil) }
        }
        1 => Message::Ask { level, table, function, args: parts.next().unwrap_or(ValueRef::Nil) },
        3 => Message::Note { level, table, function, args: parts.next().unwrap_or(ValueRef::Nil) },
        other => return Err(format!("a message of kind {other}")),
    })
}

fn number(part: Option<&ValueRef<'_>>) -> Result<u64, Wrong> {
    match part {
        Some(ValueRef::Integer(number)) => number.as_u64().ok_or_else(|| "a number below 0".to_owned()),
        _ => Err("a message that lacks a number".to_owned()),
    }
}

fn text<'a>(part: Option<&ValueRef<'a>>) -> Result<&'a str, Wrong> {
    match part {
        Some(ValueRef::String(text)) => text.into_str().ok_or_else(|| "a name that is no UTF-8".to_owned()),
        _ => Err("a message that lacks a name".to_owned()),
    }
}

fn head(length: u32, kind: u64, level: usize, table: &str, function: &str) -> Vec<u8> {
    let mut out = begun();
    encode::write_array_len(&mut out, length).ok();
    encode::write_uint(&mut out, kind).ok();
    encode::write_uint(&mut out, level as u64).ok();
    encode::write_str(&mut out, table).ok();
    encode::write_str(&mut out, function).ok();
    out
}

/// Begins a call; the arguments follow.
pub(super) fn call(level: usize, table: &str, function: &str, instance: u64) -> Vec<u8> {
    let mut out = head(6, 0, level, table, function);
    encode::write_uint(&mut out, instance).ok();
    out
}

/// Begins a question; the arguments follow.
pub(super) fn ask(level: usize, table: &str, function: &str) -> Vec<u8> {
    head(5, 1, level, table, function)
}

/// Begins what is told; the arguments follow.
pub(super) fn note(level: usize, table: &str, function: &str) -> Vec<u8> {
    head(5, 3, level, table, function)
}

/// A whole answer. `results` is a map as MessagePack.
pub(super) fn answer(status: u32, results: &[u8], error: Option<&str>) -> Vec<u8> {
    let mut out = begun();
    encode::write_array_len(&mut out, 4).ok();
    encode::write_uint(&mut out, 2).ok();
    encode::write_uint(&mut out, u64::from(status)).ok();
    match results {
        [] => {
            encode::write_nil(&mut out).ok();
        }
        results => out.extend(results),
    }
    match error {
        Some(error) => encode::write_str(&mut out, error).ok(),
        None => encode::write_nil(&mut out).ok(),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = call(3, "noise.init/draft-1", "run", 7);
        encode::write_nil(&mut message).ok();
        let Ok(Message::Call { level: 3, table, function, instance: 7, args: ValueRef::Nil }) =
            read(&message[4..])
        else {
            panic!("no call")
        };
        assert_eq!((table, function), ("noise.init/draft-1", "run"));
        let message = answer(9, &[0x80], Some("why"));
        let Ok(Message::Answer { status: 9, results: ValueRef::Map(_), error: Some("why") }) =
            read(&message[4..])
        else {
            panic!("no answer")
        };
    }

    #[test]
    fn values_are_counted_before_they_are_decoded() {
        let value: rmpv::Value = rmpv::Value::Array(vec![
            7.into(),
            (-300).into(),
            "text".into(),
            rmpv::Value::Binary(vec![0xff; 70_000]),
            rmpv::Value::Ext(1, vec![0; 8]),
            rmpv::Value::F64(0.5),
            rmpv::Value::Map(vec![("x".repeat(40).into(), rmpv::Value::Nil)]),
        ]);
        let mut packed = vec![];
        rmpv::encode::write_value(&mut packed, &value).expect("written");
        assert_eq!(values(&packed), 10);
        let mut many = vec![0xdd, 0, 0x20, 0, 0];
        many.resize(5 + (2 << 20), 0xc0);
        assert!(read(&many).err().expect("refused").contains("more than"));
        assert_eq!(values(&[0xdb, 0xff]), 1);
    }

    #[test]
    fn garbage_is_told() {
        for (bytes, words) in [
            (&[0xc1][..], "no array"),
            (&[0x90, 0x90], "behind a message"),
            (&[0xa1, b'x'], "no array"),
            (&[0x90], "lacks a number"),
            (&[0x91, 0x07], "lacks a number"),
            (&[0x94, 0x07, 0x00, 0xa1, b'x', 0xa1, b'y'], "kind 7"),
            (&[0x92, 0x02, 0xff], "below 0"),
            (&[0xdd, 0xff, 0xff, 0xff, 0xff], "no MessagePack"),
        ] {
            let error = read(bytes).err().expect(words);
            assert!(error.contains(words), "{error}");
        }
    }
}
