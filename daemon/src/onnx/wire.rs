//! Protocol Buffers, as far as files have them: fields by their numbers, each a number or bytes.

/// What a field has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// A varint, or a number of 4 or 8 bytes.
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    /// A text, if it is UTF-8.
    pub(super) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// The fields of a message, one after the other; an error where it is none.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>), &'static str> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(rest)?),
        1 => Value::Number(u64::from_le_bytes(fixed(rest)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| "a length beyond all memory")?;
            let (bytes, after) = rest.split_at_checked(length).ok_or("it is cut short")?;
            *rest = after;
            Value::Bytes(bytes)
        }
        5 => Value::Number(u32::from_le_bytes(fixed(rest)?).into()),
        _ => return Err("a field of a kind that ONNX has not"),
    };
    Ok((tag >> 3, value))
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or("it is cut short")?;
    *rest = after;
    Ok(*bytes)
}

/// A number of up to 64 bits, 7 to a byte.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0u64;
    for place in 0..10 {
        let (byte, after) = rest.split_first().ok_or("it is cut short")?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_one_after_the_other() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0];
        let fields: Vec<_> = Fields(&bytes).map(|field| field.expect("whole")).collect();
        assert_eq!(fields, [(1, Value::Number(150)), (2, Value::Bytes(b"hi")), (3, Value::Number(1))]);
        for wrong in [&[0x08][..], &[0x12, 3, 0], &[0x0b], &[0x1d, 1], &[0xff; 11]] {
            assert!(Fields(wrong).any(|field| field.is_err()), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }
    }
}
