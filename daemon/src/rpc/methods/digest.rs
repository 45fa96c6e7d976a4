//! The digest of a request's parameters as they were sent: what is left out stays out, so that a new default does not
//! make another request of yesterday's.
//!
//! Maps count whatever their order, and a whole number is the same as integer and as float, since languages differ in what
//! they send.

use rmpv::Value;
use sha2::{Digest, Sha256};

/// The digest, and how many bytes it is of.
pub(super) fn of(params: &Value) -> ([u8; 32], u64) {
    let mut writer = Writer { digest: Sha256::new(), bytes: 0 };
    writer.value(params);
    (writer.digest.finalize().into(), writer.bytes)
}

struct Writer {
    digest: Sha256,
    bytes: u64,
}

impl Writer {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Nil => self.tagged(b'n', &[]),
            Value::Boolean(value) => self.tagged(b'b', &[u8::from(*value)]),
            Value::Integer(number) => {
                let number = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
                self.tagged(b'i', &number.unwrap_or_default().to_le_bytes());
            }
            Value::F32(number) => self.float(f64::from(*number)),
            Value::F64(number) => self.float(*number),
            Value::String(text) => self.tagged(b's', text.as_bytes()),
            Value::Binary(bytes) => self.tagged(b'd', bytes),
            Value::Ext(kind, bytes) => {
                self.tagged(b'x', &kind.to_le_bytes());
                self.tagged(b'd', bytes);
            }
            Value::Array(items) => {
                self.tagged(b'a', &(items.len() as u64).to_le_bytes());
                for item in items {
                    self.value(item);
                }
            }
            Value::Map(entries) => {
                self.tagged(b'm', &(entries.len() as u64).to_le_bytes());
                let mut sorted: Vec<_> = entries.iter().collect();
                // Keys of requests are text; others are refused before.
                sorted.sort_by_key(|(key, _)| key.as_slice());
                for (key, value) in sorted {
                    self.value(key);
                    self.value(value);
                }
            }
        }
    }

    fn float(&mut self, number: f64) {
        // From -2^63 to 2^63, both of which a float is exactly.
        let is_integer = number.fract() == 0.0 && number.abs() <= 9_223_372_036_854_775_808.0;
        if is_integer {
            self.tagged(b'i', &(number as i128).to_le_bytes());
        } else {
            self.tagged(b'f', &number.to_bits().to_le_bytes());
        }
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.digest.update([tag]);
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
        self.bytes += 9 + bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
    }

    #[test]
    fn what_was_sent_counts_and_how_does_not() {
        let sent =
            map(&[("steps", 20.into()), ("output", map(&[("format", "png".into()), ("dir", Value::Nil)]))]);
        let same = [
            map(&[("output", map(&[("dir", Value::Nil), ("format", "png".into())])), ("steps", 20.into())]),
            map(&[("steps", 20.0.into()), ("output", map(&[("format", "png".into()), ("dir", Value::Nil)]))]),
            map(&[
                ("steps", 20f32.into()),
                ("output", map(&[("format", "png".into()), ("dir", Value::Nil)])),
            ]),
        ];
        for other in same {
            assert_eq!(of(&sent), of(&other), "{other}");
        }
        let others = [
            map(&[]),
            map(&[("steps", 20.into())]),
            map(&[("steps", 20.into()), ("output", map(&[("format", "png".into())]))]),
            map(&[("steps", 20.5.into()), ("output", map(&[("format", "png".into()), ("dir", Value::Nil)]))]),
            map(&[("steps", "20".into()), ("output", map(&[("format", "png".into()), ("dir", Value::Nil)]))]),
        ];
        for other in others {
            assert_ne!(of(&sent).0, of(&other).0, "{other}");
        }
        assert_ne!(of(&Value::from("ab")).0, of(&Value::Binary(b"ab".to_vec())).0);
        let nested = |first: &[i32], second: &[i32]| {
            let list = |items: &[i32]| Value::Array(items.iter().map(|item| Value::from(*item)).collect());
            of(&Value::Array(vec![list(first), list(second)])).0
        };
        assert_ne!(nested(&[1], &[2, 3]), nested(&[1, 2], &[3]));
    }
}
