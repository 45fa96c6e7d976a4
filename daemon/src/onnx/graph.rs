//! A graph that is ready to run, by rten: in a process of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use rten::{Model, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::prelude::*;

use super::array::{Array, Failure, Numbers};
use super::header::{self, Element, Header, Port, Side};
use crate::schema::shorten;

/// A graph in memory.
pub(super) struct Loaded {
    header: Header,
    model: Model,
}

impl Loaded {
    /// Reads a file.
    pub(super) fn open(file: Vec<u8>) -> Result<Self, Failure> {
        let header = header::read(&file).map_err(Failure::File)?;
        let loaded = catch_unwind(AssertUnwindSafe(|| Model::load(file)));
        let loaded =
            loaded.map_err(|_| Failure::File("it is damaged in a way that is not known".to_owned()))?;
        let model = loaded.map_err(|error| Failure::File(one_line(&error)))?;
        Ok(Self { header, model })
    }

    /// Runs the whole graph; its outputs by their names, in its order, of no more than `most_bytes`. Nothing ends it before it is
    /// done.
    pub(super) fn run(
        &self,
        mut inputs: Vec<(String, Array)>,
        most_bytes: u64,
        threads: usize,
    ) -> Result<Vec<(String, Array)>, Failure> {
        let node = |name: &str| {
            self.model.find_node(name).ok_or_else(|| Failure::File(format!("it has no '{name}'")))
        };
        let mut given: Vec<(NodeId, ValueOrView<'_>)> = vec![];
        for port in &self.header.inputs {
            let place = inputs
                .iter()
                .position(|(name, _)| *name == port.name)
                .ok_or_else(|| Failure::Input(format!("its input '{}' is missing", shorten(&port.name))))?;
            let (_, array) = inputs.swap_remove(place);
            check(port, &array)?;
            given.push((node(&port.name)?, value(fitted(array, port)?)?.into()));
        }
        if let Some((name, _)) = inputs.first() {
            let names = self.header.inputs.iter().map(|port| port.name.as_str());
            let known = names.collect::<Vec<_>>().join(", ");
            let text = format!("it has no other input '{}'; it has {known}", shorten(name));
            return Err(Failure::Input(text));
        }
        let outputs = self.header.outputs.iter().map(|port| node(&port.name));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let options = RunOptions::default().with_thread_pool(Some(pool(threads)));
        let ran = catch_unwind(AssertUnwindSafe(|| self.model.run(given, &outputs, Some(options))));
        let ran = ran.map_err(|_| Failure::File("it failed in a way that is not known".to_owned()))?;
        let values = ran.map_err(|error| Failure::File(one_line(&error)))?;
        let mut left = most_bytes;
        let outputs = self.header.outputs.iter().zip(values).map(|(port, value)| {
            let bytes = value.len() as u64 * 4;
            left = left.checked_sub(bytes).ok_or_else(|| {
                Failure::TooLarge(format!(
                    "its outputs take more than the {most_bytes} bytes that are allowed"
                ))
            })?;
            Ok((port.name.clone(), array(value, &port.name)?))
        });
        outputs.collect()
    }
}

/// The threads that graphs are run on: as many as the first that ran.
fn pool(threads: usize) -> Arc<ThreadPool> {
    static POOL: OnceLock<Arc<ThreadPool>> = OnceLock::new();
    Arc::clone(POOL.get_or_init(|| Arc::new(ThreadPool::with_num_threads(threads.max(1)))))
}

/// Whether an input's type and sizes are the ones that the file tells of.
fn check(port: &Port, array: &Array) -> Result<(), Failure> {
    let name = shorten(&port.name);
    if array.dims.iter().product::<usize>() != array.numbers.len() {
        return Err(Failure::Input(format!("input '{name}': its numbers are not as many as its sizes say")));
    }
    let Some(sides) = &port.sides else { return Ok(()) };
    let fits = |(side, size): (&Side, &usize)| match side {
        Side::Fixed(wanted) => *wanted == *size as u64,
        Side::Named(_) => true,
    };
    if sides.len() == array.dims.len() && sides.iter().zip(&array.dims).all(fits) {
        return Ok(());
    }
    let text = format!("input '{name}': sizes {:?}, it takes {}", array.dims, shown(sides));
    Err(Failure::Input(text))
}

/// Sizes as people read them.
fn shown(sides: &[Side]) -> String {
    let side = |side: &Side| match side {
        Side::Fixed(size) => size.to_string(),
        Side::Named(name) if name.is_empty() => "?".to_owned(),
        Side::Named(name) => shorten(name),
    };
    format!("[{}]", sides.iter().map(side).collect::<Vec<_>>().join(", "))
}

/// Numbers of the type that an input takes: whole ones where it takes whole ones, bytes as shares of 255 where it takes others.
fn fitted(array: Array, port: &Port) -> Result<Array, Failure> {
    let wanted = port.element.map_or("float32", Element::name);
    let whole = |numbers: &[f32], least: i64, most: i64| -> Result<Vec<i64>, Failure> {
        let whole = |number: &f32| {
            Some(*number as i64).filter(|whole| *number == number.trunc() && (least..=most).contains(whole))
        };
        let all = numbers.iter().map(|number| {
            whole(number).ok_or_else(|| {
                let name = shorten(&port.name);
                Failure::Input(format!("input '{name}' takes {wanted}, and {number} is none"))
            })
        });
        all.collect()
    };
    let numbers = match (array.numbers, wanted) {
        (Numbers::F32(numbers), "int32" | "int64" | "bool") => {
            let whole = whole(&numbers, i32::MIN.into(), i32::MAX.into())?;
            Numbers::I32(whole.into_iter().map(|number| number as i32).collect())
        }
        (Numbers::F32(numbers), "uint8") => {
            Numbers::U8(whole(&numbers, 0, 255)?.into_iter().map(|number| number as u8).collect())
        }
        (Numbers::F32(numbers), "int8") => {
            Numbers::I8(whole(&numbers, -128, 127)?.into_iter().map(|number| number as i8).collect())
        }
        (Numbers::U8(numbers), "int32" | "int64") => {
            Numbers::I32(numbers.into_iter().map(i32::from).collect())
        }
        (Numbers::U8(numbers), wanted) if wanted != "uint8" => {
            Numbers::F32(numbers.into_iter().map(|number| f32::from(number) / 255.0).collect())
        }
        (numbers, _) => numbers,
    };
    Ok(Array { dims: array.dims, numbers })
}

fn value(Array { dims, numbers }: Array) -> Result<Value, Failure> {
    let made = match numbers {
        Numbers::F32(numbers) => Value::from_shape(&dims, numbers).map_err(|error| error.to_string()),
        Numbers::I32(numbers) => Value::from_shape(&dims, numbers).map_err(|error| error.to_string()),
        Numbers::U8(numbers) => Value::from_shape(&dims, numbers).map_err(|error| error.to_string()),
        Numbers::I8(numbers) => Value::from_shape(&dims, numbers).map_err(|error| error.to_string()),
    };
    made.map_err(|error| Failure::Input(one_line(&error)))
}

fn array(value: Value, name: &str) -> Result<Array, Failure> {
    let dims = value.shape().to_vec();
    let numbers = match value {
        Value::FloatTensor(tensor) => Numbers::F32(tensor.into_data()),
        Value::Int32Tensor(tensor) => Numbers::I32(tensor.into_data()),
        Value::UInt8Tensor(tensor) => Numbers::U8(tensor.into_data()),
        Value::Int8Tensor(tensor) => Numbers::I8(tensor.into_data()),
        _ => {
            return Err(Failure::File(format!("its output '{}' is no tensor", shorten(name))));
        }
    };
    Ok(Array { dims, numbers })
}

/// Characters of an error that are told.
const LONGEST: usize = 300;

/// An error's text, without what terminals take for commands.
fn one_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::{file, message, number, tensor};
    use super::*;

    /// A graph of nodes, each an operator with the names of what goes in and comes out.
    fn graph(nodes: &[(&str, &[&str], &str)], inputs: &[(&str, u64)], kept: &[Vec<u8>]) -> Vec<u8> {
        let port = |name: &str, element: u64| {
            let kind = message(1, &number(1, element));
            [message(1, name.as_bytes()), message(2, &kind)].concat()
        };
        let mut parts: Vec<Vec<u8>> = vec![];
        for (operator, from, to) in nodes {
            let from = from.iter().flat_map(|name| message(1, name.as_bytes()));
            let mut node: Vec<u8> = from.collect();
            node.extend([message(2, to.as_bytes()), message(4, operator.as_bytes())].concat());
            parts.push(message(1, &node));
        }
        parts.extend(kept.iter().map(|kept| message(5, kept)));
        parts.extend(inputs.iter().map(|(name, element)| message(11, &port(name, *element))));
        parts.push(message(12, &port("y", 1)));
        file(&parts)
    }

    fn array(dims: &[usize], numbers: Numbers) -> Array {
        Array { dims: dims.to_vec(), numbers }
    }

    #[test]
    fn a_graph_is_run_with_what_it_keeps() {
        let kept = tensor("w", 1, &[2], &[0, 0, 0, 64, 0, 0, 128, 191]);
        let bytes = graph(&[("Mul", &["x", "w"], "y")], &[("x", 1)], &[kept]);
        let graph = Loaded::open(bytes).expect("opens");
        let run = |inputs: &[(&str, Array)], most| {
            let inputs = inputs.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect();
            graph.run(inputs, most, 2)
        };
        let x = array(&[2, 2], Numbers::F32(vec![1.0, 2.0, 3.0, 4.0]));
        let expected = array(&[2, 2], Numbers::F32(vec![2.0, -2.0, 6.0, -4.0]));
        assert_eq!(run(&[("x", x.clone())], 16), Ok(vec![("y".to_owned(), expected)]));
        // Bytes are shares.
        let given = run(&[("x", array(&[2], Numbers::U8(vec![255, 51])))], 16).expect("run");
        assert_eq!(given[0].1, array(&[2], Numbers::F32(vec![2.0, -0.2])));
        let z = array(&[3], Numbers::F32(vec![0.0; 3]));
        for (inputs, most, expected) in [
            (vec![("x", x.clone())], 15, "more than the 15 bytes"),
            (vec![], 99, "its input 'x' is missing"),
            (vec![("x", x.clone()), ("u", x.clone())], 99, "no other input 'u'; it has x"),
            (vec![("x", z)], 99, ""),
            (vec![("x", array(&[3], Numbers::F32(vec![])))], 99, "not as many as its sizes say"),
        ] {
            let failure = run(&inputs, most).expect_err(expected);
            assert!(failure.text().contains(expected), "{failure:?}");
        }
    }

    #[test]
    fn whole_numbers_are_given_as_such() {
        let bytes = graph(&[("Gather", &["w", "x"], "y")], &[("x", 7)], &[tensor("w", 1, &[2], &[0; 8])]);
        let graph = Loaded::open(bytes).expect("opens");
        let run = |numbers: Vec<f32>| {
            let x = array(&[numbers.len()], Numbers::F32(numbers));
            graph.run(vec![("x".to_owned(), x)], 99, 1)
        };
        assert_eq!(run(vec![1.0, 0.0]).expect("run")[0].1, array(&[2], Numbers::F32(vec![0.0; 2])));
        for wrong in [0.5, 1e30, f32::NAN] {
            let Err(Failure::Input(text)) = run(vec![wrong]) else { panic!("{wrong}") };
            assert!(text.contains("takes int64"), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_told_by_its_name() {
        for (bytes, expected) in [
            (graph(&[("Frobnicate", &["x"], "y")], &[("x", 1)], &[]), "Frobnicate"),
            (graph(&[("Relu", &["nothing"], "y")], &[("x", 1)], &[]), ""),
            (b"no graph at all".to_vec(), ""),
        ] {
            let opened = Loaded::open(bytes);
            let ran = opened.and_then(|graph| {
                let x = array(&[1], Numbers::F32(vec![1.0]));
                graph.run(vec![("x".to_owned(), x)], 99, 1).map(drop)
            });
            let Err(Failure::File(text)) = ran else { panic!("{ran:?}") };
            assert!(text.contains(expected), "{text}");
        }
    }
}
