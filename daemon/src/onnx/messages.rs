//! What the daemon and the process that runs a graph say to each other: MessagePack, each behind its length in 32 bits.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::array::{Array, Failure, Numbers};
use super::segment::Segment;

/// Bytes of one.
const MOST: usize = 1 << 20;
/// Dimensions of what goes over.
const MOST_DIMENSIONS: usize = 32;

/// What is run next.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// They stand in the segment, one behind the other.
    pub inputs: Vec<Told>,
    /// Bytes that the outputs may take.
    pub most_bytes: u64,
    /// Bytes that running may take.
    pub room: u64,
}

/// What came of reading the file, and of each run. What comes out stands in the segment.
pub(super) type Answer = Result<Vec<Told>, Failure>;

/// Numbers in the segment.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    name: String,
    dims: Vec<u64>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    F32,
    I32,
    U8,
    I8,
}

/// Bytes that all numbers take.
pub(super) fn bytes<'a>(arrays: impl Iterator<Item = &'a Array>) -> u64 {
    let bytes = |numbers: &Numbers| match numbers {
        Numbers::F32(numbers) => size_of_val(numbers.as_slice()),
        Numbers::I32(numbers) => size_of_val(numbers.as_slice()),
        Numbers::U8(numbers) => numbers.len(),
        Numbers::I8(numbers) => numbers.len(),
    };
    arrays.map(|array| bytes(&array.numbers) as u64).sum()
}

/// Writes numbers into the segment; what is told of them, and the byte behind them.
pub(super) fn put(segment: &Segment, arrays: &[(String, Array)]) -> io::Result<(Vec<Told>, u64)> {
    let mut place = 0;
    let told = arrays.iter().map(|(name, array)| {
        place = segment.write(place, &array.numbers)?;
        let kind = match array.numbers {
            Numbers::F32(_) => Kind::F32,
            Numbers::I32(_) => Kind::I32,
            Numbers::U8(_) => Kind::U8,
            Numbers::I8(_) => Kind::I8,
        };
        Ok(Told { name: name.clone(), dims: array.dims.iter().map(|size| *size as u64).collect(), kind })
    });
    let told = told.collect::<io::Result<_>>()?;
    Ok((told, place))
}

/// Reads numbers of no more than so many bytes from the segment, and the byte behind them.
pub(super) fn take(segment: &Segment, told: Vec<Told>, most: u64) -> io::Result<(Vec<(String, Array)>, u64)> {
    let mut place = 0;
    let arrays = told.into_iter().map(|Told { name, dims, kind }| {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("numbers of the sizes {dims:?}"));
        let one = if matches!(kind, Kind::F32 | Kind::I32) { 4 } else { 1 };
        let count = dims.iter().try_fold(1_u64, |count, size| count.checked_mul(*size)).ok_or_else(wrong)?;
        let is_sane = dims.len() <= MOST_DIMENSIONS
            && count.checked_mul(one).is_some_and(|bytes| bytes <= most.saturating_sub(place));
        if !is_sane {
            return Err(wrong());
        }
        let count = count as usize;
        let numbers = match kind {
            Kind::F32 => segment.read(place, count, f32::from_le_bytes).map(|(n, to)| (Numbers::F32(n), to)),
            Kind::I32 => segment.read(place, count, i32::from_le_bytes).map(|(n, to)| (Numbers::I32(n), to)),
            Kind::U8 => segment.read(place, count, u8::from_le_bytes).map(|(n, to)| (Numbers::U8(n), to)),
            Kind::I8 => segment.read(place, count, i8::from_le_bytes).map(|(n, to)| (Numbers::I8(n), to)),
        };
        let (numbers, behind) = numbers?;
        place = behind;
        Ok((name, Array { dims: dims.iter().map(|size| *size as usize).collect(), numbers }))
    });
    let arrays = arrays.collect::<io::Result<_>>()?;
    Ok((arrays, place))
}

/// Says one.
pub(super) fn say(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(message).map_err(io::Error::other)?;
    if bytes.len() > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more is told than anybody needs"));
    }
    to.write_all(&(bytes.len() as u32).to_le_bytes())?;
    to.write_all(&bytes)
}

/// Hears one, once it is whole. `wait` is asked when nothing comes for the time that reading waits.
pub(super) fn hear<T: DeserializeOwned>(
    from: &mut impl Read,
    wait: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<T> {
    let mut length = [0; 4];
    fill(from, &mut length, wait)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    fill(from, &mut bytes, wait)?;
    rmp_serde::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn fill(from: &mut impl Read, bytes: &mut [u8], wait: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => (),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => wait()?,
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_go_through_a_segment() {
        let segment = Segment::new().expect("made");
        let array = |dims: &[usize], numbers| Array { dims: dims.to_vec(), numbers };
        let arrays = [
            ("a".to_owned(), array(&[2, 1], Numbers::F32(vec![1.5, f32::INFINITY]))),
            ("b".to_owned(), array(&[3], Numbers::U8(vec![1, 2, 255]))),
            ("c".to_owned(), array(&[], Numbers::I32(vec![-7]))),
            ("d".to_owned(), array(&[0, 9], Numbers::I8(vec![]))),
        ];
        assert_eq!(bytes(arrays.iter().map(|(_, array)| array)), 15);
        let (told, end) = put(&segment, &arrays).expect("put");
        let mut message = vec![];
        say(&mut message, &told).expect("said");
        let told = hear(&mut &message[..], &mut || Ok(())).expect("heard");
        assert_eq!(take(&segment, told, 15).expect("taken"), (arrays.to_vec(), end));
    }

    #[test]
    fn what_is_told_is_looked_at() {
        let segment = Segment::new().expect("made");
        let told = |dims: &[u64], kind| Told { name: "x".into(), dims: dims.to_vec(), kind };
        for (told, most) in [
            (told(&[5], Kind::F32), 16),
            (told(&[1 << 40, 1 << 40], Kind::U8), u64::MAX),
            (told(&[u64::MAX], Kind::I32), u64::MAX),
            (told(&[1 << 40], Kind::I8), u64::MAX),
            (told(&[1; 33], Kind::I8), 16),
        ] {
            assert!(take(&segment, vec![told], most).is_err());
        }
        for message in [&b"\xff\xff\xff\xff"[..], b"\x01\0\0\0", b"\x01\0\0\0\xc1", b""] {
            assert!(hear::<Answer>(&mut &message[..], &mut || Ok(())).is_err());
        }
    }
}
