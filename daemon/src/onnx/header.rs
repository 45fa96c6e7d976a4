//! What an ONNX file says of itself: inputs, outputs, and the numbers that are kept in it (onnx.proto3, IR version 3 and later).

use super::wire::{Fields, Value, varint};
use crate::schema::shorten;
use crate::suggest::advice;

/// Graphs and types within one another.
const DEEPEST: usize = 16;
/// Nodes, and numbers that are kept, in all graphs of a file.
const MOST_NODES: usize = 200_000;
/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 32;

/// The type of a number, as ONNX counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element(u64);

impl Element {
    /// Its name, as NumPy has it.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            1 => "float32",
            2 => "uint8",
            3 => "int8",
            4 => "uint16",
            5 => "int16",
            6 => "int32",
            7 => "int64",
            8 => "string",
            9 => "bool",
            10 => "float16",
            11 => "float64",
            12 => "uint32",
            13 => "uint64",
            16 => "bfloat16",
            _ => "of a type that is not known",
        }
    }

    /// Bytes of one where they are kept as they are in memory.
    fn bytes(self) -> Option<usize> {
        match self.0 {
            2 | 3 | 9 => Some(1),
            4 | 5 | 10 | 16 => Some(2),
            1 | 6 | 12 => Some(4),
            7 | 11 | 13 => Some(8),
            _ => None,
        }
    }

    /// One from memory, as f32 has it.
    fn number(self, bytes: &[u8]) -> Option<f32> {
        let whole = |bytes: &[u8], is_signed: bool| -> Option<f32> {
            let mut wide = [if is_signed && bytes.last()? & 0x80 != 0 { 0xff } else { 0 }; 16];
            wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(i128::from_le_bytes(wide) as f32)
        };
        match self.0 {
            1 => Some(f32::from_le_bytes(bytes.try_into().ok()?)),
            10 => Some(half(u16::from_le_bytes(bytes.try_into().ok()?))),
            11 => Some(f64::from_le_bytes(bytes.try_into().ok()?) as f32),
            16 => Some(f32::from_bits(u32::from(u16::from_le_bytes(bytes.try_into().ok()?)) << 16)),
            2 | 4 | 9 | 12 | 13 => whole(bytes, false),
            3 | 5 | 6 | 7 => whole(bytes, true),
            _ => None,
        }
    }
}

/// An IEEE half.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match exponent {
        0 => f32::from_bits(sign | 0x3f80_0000) * (fraction as f32 / 16_777_216.0),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// One side of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Fixed(u64),
    /// As large as what is given; the same name is the same size. Empty: the file does not say.
    Named(String),
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub name: String,
    /// `None`: no tensor, or the file does not say.
    pub element: Option<Element>,
    /// `None`: of any number of dimensions.
    pub sides: Option<Vec<Side>>,
}

/// Numbers that are kept in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub name: String,
    pub element: Element,
    pub dims: Vec<u64>,
    /// Where they are: fields of the message, by the number of the field, from and until which byte of the file.
    parts: Vec<(u64, usize, usize)>,
    /// Numbers that stand each in a field of its own.
    singles: Vec<u64>,
}

impl Kept {
    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Without those that are kept in the file.
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub kept: Vec<Kept>,
    /// The version of ONNX's own operators.
    pub operators: Option<u64>,
    nodes: usize,
}

/// Reads the whole of a file. An error says what is wrong with it.
pub(crate) fn read(file: &[u8]) -> Result<Header, String> {
    let mut header = Header::default();
    let mut has_graph = false;
    for field in Fields(file) {
        match field? {
            (7, Value::Bytes(graph)) if !has_graph => {
                has_graph = true;
                header.read_graph(file, graph, 0)?;
            }
            (7, _) => return Err("it has more than one graph".to_owned()),
            (8, Value::Bytes(set)) => header.read_operators(set)?,
            (25, Value::Bytes(function)) => {
                for field in Fields(function) {
                    if let (7, Value::Bytes(node)) = field? {
                        header.read_node(file, node, 0)?;
                    }
                }
            }
            _ => (),
        }
    }
    if !has_graph {
        return Err("it has no graph: it is no ONNX file".to_owned());
    }
    let Header { inputs, kept, .. } = &mut header;
    // Old files have them among their inputs.
    inputs.retain(|input| !kept.iter().any(|kept| kept.name == input.name));
    Ok(header)
}

impl Header {
    /// Numbers that are kept, by their name.
    pub(crate) fn find(&self, name: &str) -> Result<&Kept, String> {
        self.kept.iter().find(|kept| kept.name == name).ok_or_else(|| {
            let advice = advice(name, self.kept.iter().map(|kept| kept.name.as_str()));
            format!("it keeps no tensor '{}'{advice}", shorten(name))
        })
    }

    /// Bytes that running may take on the way with inputs of these sizes, roughly: three maps of the widest layer, as large as
    /// the largest input.
    pub(crate) fn estimate<'a>(&self, inputs: impl Iterator<Item = &'a [usize]>) -> u64 {
        let wide = self.kept.iter().filter(|kept| kept.dims.len() == 4);
        let wide = wide.filter_map(|kept| kept.dims.first()).copied().max().unwrap_or(4).min(1 << 14);
        let places = inputs.map(|dims| dims.iter().rev().take(2).map(|size| *size as u64).product::<u64>());
        places.max().unwrap_or(0).saturating_mul(wide * 3 * 4)
    }

    fn read_operators(&mut self, set: &[u8]) -> Result<(), String> {
        let (mut domain, mut version) = ("", None);
        for field in Fields(set) {
            match field? {
                (1, value) => domain = value.text().unwrap_or_default(),
                (2, value) => version = value.number(),
                _ => (),
            }
        }
        if ["", "ai.onnx"].contains(&domain) {
            self.operators = version;
        }
        Ok(())
    }

    /// A graph; only the outermost one's inputs, outputs and numbers are kept in mind.
    fn read_graph(&mut self, file: &[u8], graph: &[u8], depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("graphs lie more than {DEEPEST} levels within one another"));
        }
        for field in Fields(graph) {
            match field? {
                (1, Value::Bytes(node)) => self.read_node(file, node, depth)?,
                (5, Value::Bytes(tensor)) => {
                    self.count()?;
                    let kept = read_tensor(file, tensor)?;
                    if depth == 0 {
                        self.kept.push(kept);
                    }
                }
                (15, _) => return Err("it keeps sparse numbers, which are not known".to_owned()),
                (field @ 11..=13, Value::Bytes(port)) => {
                    let port = read_port(port)?;
                    match field {
                        11 if depth == 0 => self.inputs.push(port),
                        12 if depth == 0 => self.outputs.push(port),
                        _ => (),
                    }
                }
                _ => (),
            }
        }
        Ok(())
    }

    fn read_node(&mut self, file: &[u8], node: &[u8], depth: usize) -> Result<(), String> {
        self.count()?;
        for field in Fields(node) {
            if let (5, Value::Bytes(attribute)) = field? {
                for field in Fields(attribute) {
                    match field? {
                        (5 | 10, Value::Bytes(tensor)) => drop(read_tensor(file, tensor)?),
                        (6 | 11, Value::Bytes(graph)) => self.read_graph(file, graph, depth + 1)?,
                        (14 | 15, Value::Bytes(kind)) => drop(read_type(kind, depth + 1)?),
                        (22 | 23, _) => return Err("it keeps sparse numbers, which are not known".to_owned()),
                        _ => (),
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(format!("it has more than {MOST_NODES} nodes and tensors"));
        }
        Ok(())
    }
}

fn read_port(port: &[u8]) -> Result<Port, String> {
    let mut read = Port { name: String::new(), element: None, sides: None };
    for field in Fields(port) {
        match field? {
            (1, value) => value.text().unwrap_or_default().clone_into(&mut read.name),
            (2, Value::Bytes(kind)) => (read.element, read.sides) = read_type(kind, 0)?,
            _ => (),
        }
    }
    Ok(read)
}

/// A type and sizes, if it is a tensor's.
type Kind = (Option<Element>, Option<Vec<Side>>);

fn read_type(kind: &[u8], depth: usize) -> Result<Kind, String> {
    if depth > DEEPEST {
        return Err(format!("types lie more than {DEEPEST} levels within one another"));
    }
    let mut read = (None, None);
    for field in Fields(kind) {
        match field? {
            (1, Value::Bytes(tensor)) => {
                for field in Fields(tensor) {
                    match field? {
                        (1, value) => read.0 = value.number().map(Element),
                        (2, Value::Bytes(shape)) => read.1 = Some(read_sides(shape)?),
                        _ => (),
                    }
                }
            }
            // Lists, maps, and what may be missing: of another type each.
            (4 | 5 | 9, Value::Bytes(of)) => {
                for field in Fields(of) {
                    if let (1 | 2, Value::Bytes(kind)) = field? {
                        read_type(kind, depth + 1)?;
                    }
                }
            }
            _ => (),
        }
    }
    Ok(read)
}

fn read_sides(shape: &[u8]) -> Result<Vec<Side>, String> {
    let mut sides = vec![];
    for field in Fields(shape) {
        let (1, Value::Bytes(side)) = field? else { continue };
        if sides.len() == MOST_DIMENSIONS {
            return Err(format!("a tensor of more than {MOST_DIMENSIONS} dimensions"));
        }
        let mut read = Side::Named(String::new());
        for field in Fields(side) {
            match field? {
                (1, Value::Number(size)) => read = Side::Fixed(size),
                (2, value) => read = Side::Named(value.text().unwrap_or_default().to_owned()),
                _ => (),
            }
        }
        sides.push(read);
    }
    Ok(sides)
}

/// Fields with numbers, and bytes that each of them takes at least.
const NUMBERS: [(u64, usize); 6] = [(4, 4), (5, 1), (7, 1), (9, 1), (10, 8), (11, 1)];

fn read_tensor(file: &[u8], tensor: &[u8]) -> Result<Kept, String> {
    let mut kept =
        Kept { name: String::new(), element: Element(0), dims: vec![], parts: vec![], singles: vec![] };
    let (mut is_elsewhere, mut location) = (false, None);
    for field in Fields(tensor) {
        match field? {
            (1, Value::Number(size)) => kept.dims.push(size),
            (1, Value::Bytes(mut sizes)) => {
                while !sizes.is_empty() && kept.dims.len() <= MOST_DIMENSIONS {
                    kept.dims.push(varint(&mut sizes)?);
                }
            }
            (2, Value::Number(element)) => kept.element = Element(element),
            (8, value) => value.text().unwrap_or_default().clone_into(&mut kept.name),
            (13, Value::Bytes(entry)) => {
                is_elsewhere = true;
                location = location.or(external_location(entry)?);
            }
            (14, Value::Number(where_)) => is_elsewhere |= where_ != 0,
            (number, Value::Bytes(bytes)) if NUMBERS.iter().any(|(field, _)| *field == number) => {
                // It is a part of the file.
                let from = bytes.as_ptr() as usize - file.as_ptr() as usize;
                kept.parts.push((number, from, from + bytes.len()));
            }
            (number, Value::Number(single)) if NUMBERS.iter().any(|(field, _)| *field == number) => {
                kept.singles.push(single);
            }
            _ => (),
        }
    }
    let name = shorten(&kept.name);
    if is_elsewhere {
        let place = location.map_or_else(String::new, |place| format!(" ('{}')", shorten(&place)));
        return Err(format!(
            "its tensor '{name}' is kept in another file{place}: save the model as one file"
        ));
    }
    if kept.dims.len() > MOST_DIMENSIONS {
        return Err(format!("its tensor '{name}' has more than {MOST_DIMENSIONS} dimensions"));
    }
    let count = kept.dims.iter().try_fold(1u64, |count, size| count.checked_mul(*size));
    // Each takes some bytes of the file, whatever it says.
    let least = |(number, from, until): &(u64, usize, usize)| {
        let bytes = match (number, kept.element.bytes()) {
            (9, Some(bytes)) => bytes,
            _ => NUMBERS.iter().find(|(field, _)| field == number).map_or(1, |(_, bytes)| *bytes),
        };
        ((until - from) / bytes.max(1)) as u64
    };
    let there = kept.parts.iter().map(least).sum::<u64>() + kept.singles.len() as u64;
    match count {
        // Texts are in fields that are not looked at.
        Some(count) if count <= there || (kept.element == Element(8) && count <= file.len() as u64) => {
            Ok(kept)
        }
        _ => Err(format!("its tensor '{name}' of the sizes {:?} has {there} numbers", kept.dims)),
    }
}

/// Where numbers are, if this entry says it.
fn external_location(entry: &[u8]) -> Result<Option<String>, String> {
    let (mut key, mut value) = ("", "");
    for field in Fields(entry) {
        match field? {
            (1, text) => key = text.text().unwrap_or_default(),
            (2, text) => value = text.text().unwrap_or_default(),
            _ => (),
        }
    }
    Ok((key == "location").then(|| value.to_owned()))
}

impl Kept {
    /// The numbers; `part` gives bytes of the file, from one place until another.
    pub(super) fn numbers(
        &self,
        part: &dyn Fn(usize, usize) -> Result<Vec<u8>, String>,
    ) -> Result<Vec<f32>, String> {
        let name = shorten(&self.name);
        let kind = self.element.name();
        let unknown = || format!("its tensor '{name}' is {kind}, which cannot be given as numbers");
        let count = usize::try_from(self.count()).map_err(|_| unknown())?;
        // None takes less than a byte.
        let most = self.parts.iter().map(|(_, from, until)| until - from).sum::<usize>() + self.singles.len();
        let mut numbers = Vec::with_capacity(count.min(most));
        for (field, from, until) in &self.parts {
            let bytes = part(*from, *until)?;
            let mut bytes = bytes.as_slice();
            match field {
                9 => {
                    let one = self.element.bytes().ok_or_else(unknown)?;
                    let all = bytes.chunks_exact(one).map(|bytes| self.element.number(bytes));
                    numbers.extend(all.collect::<Option<Vec<_>>>().ok_or_else(unknown)?);
                }
                4 => numbers.extend(bytes.chunks_exact(4).filter_map(|bytes| Element(1).number(bytes))),
                10 => numbers.extend(bytes.chunks_exact(8).filter_map(|bytes| Element(11).number(bytes))),
                _ => {
                    while !bytes.is_empty() {
                        numbers.push(self.single(*field, varint(&mut bytes)?));
                    }
                }
            }
        }
        numbers.extend(self.singles.iter().map(|single| self.single(5, *single)));
        if numbers.len() != count {
            return Err(format!("its tensor '{name}' of {count} numbers has {}", numbers.len()));
        }
        Ok(numbers)
    }

    /// A number that stands in a field.
    fn single(&self, field: u64, bits: u64) -> f32 {
        match (self.element.0, field) {
            (1, _) => f32::from_bits(bits as u32),
            (11, _) => f64::from_bits(bits) as f32,
            (10, _) => half(bits as u16),
            (16, _) => f32::from_bits((bits as u32) << 16),
            (_, 11) => bits as f32,
            _ => bits.cast_signed() as f32,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field of bytes.
    pub(in crate::onnx) fn message(field: u64, bytes: &[u8]) -> Vec<u8> {
        [number_bytes(field << 3 | 2), number_bytes(bytes.len() as u64), bytes.to_vec()].concat()
    }

    /// A field with a number.
    pub(in crate::onnx) fn number(field: u64, value: u64) -> Vec<u8> {
        [number_bytes(field << 3), number_bytes(value)].concat()
    }

    fn number_bytes(mut value: u64) -> Vec<u8> {
        let mut bytes = vec![];
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// A tensor with its type, sizes and the bytes of its numbers.
    pub(in crate::onnx) fn tensor(name: &str, element: u64, dims: &[u64], raw: &[u8]) -> Vec<u8> {
        let dims = dims.iter().flat_map(|size| number(1, *size));
        let mut made: Vec<u8> = dims.collect();
        made.extend([number(2, element), message(8, name.as_bytes()), message(9, raw)].concat());
        made
    }

    /// A file with this graph.
    pub(in crate::onnx) fn file(graph: &[Vec<u8>]) -> Vec<u8> {
        let operators = message(8, &number(2, 17));
        [number(1, 8), operators, message(7, &graph.concat())].concat()
    }

    /// Bytes of a file.
    fn part(file: &[u8]) -> impl Fn(usize, usize) -> Result<Vec<u8>, String> {
        |from, until| file.get(from..until).map(<[u8]>::to_vec).ok_or_else(|| "outside".to_owned())
    }

    #[test]
    fn a_file_tells_what_goes_in_and_out_and_what_it_keeps() {
        let side = |size: Vec<u8>| message(1, &size);
        let shape = [side(number(1, 1)), side(number(1, 3)), side(message(2, b"h"))].concat();
        let kind = message(1, &[number(1, 1), message(2, &shape)].concat());
        let port = |name: &str| [message(1, name.as_bytes()), message(2, &kind)].concat();
        let weights = tensor("w", 1, &[2], &[0, 0, 128, 63, 0, 0, 0, 192]);
        let halves = tensor("h", 10, &[3], &[0, 0x3c, 1, 0, 0, 0xfc]);
        let wholes = [number(1, 2), number(2, 7), message(8, b"i"), message(7, &[1, 2])].concat();
        let bytes = file(&[
            message(11, &port("x")),
            message(11, &port("w")),
            message(12, &port("y")),
            message(5, &weights),
            message(5, &halves),
            message(5, &wholes),
        ]);
        let header = read(&bytes).expect("read");
        assert_eq!(header.operators, Some(17));
        let sides = vec![Side::Fixed(1), Side::Fixed(3), Side::Named("h".into())];
        let port =
            |name: &str| Port { name: name.into(), element: Some(Element(1)), sides: Some(sides.clone()) };
        assert_eq!((&header.inputs[..], &header.outputs[..]), (&[port("x")][..], &[port("y")][..]));
        let numbers: Vec<_> =
            header.kept.iter().map(|kept| kept.numbers(&part(&bytes)).expect("numbers")).collect();
        assert_eq!(header.find("v").expect_err("none"), "it keeps no tensor 'v'");
        let tiny = 1.0 / 16_777_216.0;
        assert_eq!(numbers, [vec![1.0, -2.0], vec![1.0, tiny, f32::NEG_INFINITY], vec![1.0, 2.0]]);
    }

    #[test]
    fn what_would_lead_out_of_the_file_or_never_end_is_refused() {
        let elsewhere = [message(1, b"location"), message(2, b"../weights.bin")].concat();
        let external = [tensor("w", 1, &[1], &[]), message(13, &elsewhere), number(14, 1)].concat();
        let deep = (0..100).fold(vec![], |inner: Vec<u8>, _| message(1, &message(5, &message(6, &inner))));
        for (bytes, expected) in [
            (vec![], "it has no graph"),
            (b"no model".to_vec(), ""),
            (
                file(&[message(5, &external)]),
                "'w' is kept in another file ('../weights.bin'): save the model as one",
            ),
            (file(&[message(5, &tensor("w", 1, &[1 << 40], &[0; 8]))]), "has 2 numbers"),
            (file(&[message(5, &tensor("w", 1, &[1 << 40, 1 << 40], &[0; 8]))]), "has 2 numbers"),
            (file(&[message(5, &tensor("w", 1, &[1; 99], &[0; 4]))]), "more than 32 dimensions"),
            (file(&[deep]), "levels within one another"),
            (file(&[message(15, b"")]), "sparse"),
            (file(&[message(1, &[0x12, 200])]), "cut short"),
        ] {
            let error = read(&bytes).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..100), place in any::<usize>(), value in any::<u8>(),
        ) {
            read(&bytes).ok();
            let mut whole = file(&[message(5, &tensor("w", 1, &[2], &[0; 8])), message(11, &bytes)]);
            let place = place % whole.len();
            whole[place] = value;
            if let Ok(header) = read(&whole) {
                for kept in header.kept {
                    kept.numbers(&part(&whole)).ok();
                }
            }
        }
    }
}
