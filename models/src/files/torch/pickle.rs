//! Reads a pickle as data, of protocols 0 to 5 (CPython's `Lib/pickletools.py` describes its opcodes). Nothing is called
//! or imported, and nothing is copied: objects stand in a list, texts stay where they are.

use std::collections::HashMap;

use super::cursor::{Cursor, LARGEST};
use super::object::{Class, Id, Object, Pickle};
use super::rebuild::{self, Made};
use super::refusal::{Wrong, beyond, unfit};

/// Opcodes of all pickles of a file. SD 1.5 with its training state has some 100,000.
const MOST_STEPS: usize = 1 << 22;

/// Objects of all pickles of a file, each of which takes some 100 bytes. A tensor is 30 of them, so this is enough for
/// 60,000.
const MOST_OBJECTS: usize = 1 << 21;

/// How much more of a file is believed.
pub(super) struct Budget {
    steps: usize,
    objects: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { steps: MOST_STEPS, objects: MOST_OBJECTS }
    }
}

/// Reads the pickle that `bytes` begin with.
pub(super) fn read<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Pickle<'a>, Wrong> {
    let bytes_believed = bytes.get(..LARGEST).unwrap_or(bytes);
    let mut machine = Machine {
        cursor: Cursor { rest: bytes_believed },
        budget,
        objects: vec![],
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
    };
    let run = machine.run();
    if run == Err(Wrong::CutOff) && bytes.len() > LARGEST {
        return Err(beyond(&format!("is longer than {LARGEST} bytes")));
    }
    run?;
    let root = machine.pop()?;
    let length = bytes_believed.len() - machine.cursor.rest.len();
    Ok(Pickle { objects: machine.objects, root, length })
}

struct Machine<'a, 'b> {
    cursor: Cursor<'a>,
    budget: &'b mut Budget,
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a, '_> {
    fn add(&mut self, object: Object<'a>) -> Result<Id, Wrong> {
        let left = self.budget.objects.checked_sub(1);
        self.budget.objects = left.ok_or_else(|| beyond(&format!("has more than {MOST_OBJECTS} objects")))?;
        self.objects.push(object);
        Ok((self.objects.len() - 1) as Id)
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), Wrong> {
        let id = self.add(object)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_made(&mut self, made: Made<'a>) -> Result<(), Wrong> {
        match made {
            Made::Old(id) => self.stack.push(id),
            Made::New(object) => {
                // What a call makes of a few steps may be as large as some hundred objects.
                let more = match &object {
                    Object::Tensor(tensor) => 4 + tensor.shape.len(),
                    Object::Dict(items) => items.len(),
                    _ => 2,
                };
                self.budget.objects = self.budget.objects.saturating_sub(more);
                self.push(object)?;
            }
        }
        Ok(())
    }

    fn is_marked(&self) -> bool {
        self.marks.last() == Some(&self.stack.len())
    }

    fn pop(&mut self) -> Result<Id, Wrong> {
        if self.is_marked() {
            return Err(unfit("an object is missing"));
        }
        self.stack.pop().ok_or_else(|| unfit("an object is missing"))
    }

    fn top(&self) -> Result<Id, Wrong> {
        let top = self.stack.last().filter(|_| !self.is_marked());
        top.copied().ok_or_else(|| unfit("an object is missing"))
    }

    /// What stands above the last mark, which goes too.
    fn above_mark(&mut self) -> Result<Vec<Id>, Wrong> {
        let mark = self.marks.pop().ok_or_else(|| unfit("a mark is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn last<const N: usize>(&mut self) -> Result<[Id; N], Wrong> {
        let mut last = [0; N];
        for id in last.iter_mut().rev() {
            *id = self.pop()?;
        }
        Ok(last)
    }

    fn object(&mut self, id: Id) -> Result<&mut Object<'a>, Wrong> {
        self.objects.get_mut(id as usize).ok_or_else(|| unfit("an object is missing"))
    }

    /// Into the list or set on top.
    fn append(&mut self, added: &[Id]) -> Result<(), Wrong> {
        let top = self.top()?;
        match self.object(top)? {
            Object::Items(items) => items.extend(added),
            // Of a class that is a list.
            Object::Instance(_) => {}
            _ => return Err(unfit("what is no list grows")),
        }
        Ok(())
    }

    /// Into the dictionary on top.
    fn set(&mut self, added: &[Id]) -> Result<(), Wrong> {
        let (pairs, rest) = added.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(unfit("a key has no value"));
        }
        let pairs = pairs.iter().map(|[key, value]| (*key, *value));
        let top = self.top()?;
        match self.object(top)? {
            Object::Dict(items) => items.extend(pairs),
            Object::Instance(instance) => instance.items.extend(pairs),
            _ => return Err(unfit("what is no dictionary grows")),
        }
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<(), Wrong> {
        let id = u32::try_from(index).ok().and_then(|index| self.memo.get(&index));
        self.stack.push(*id.ok_or_else(|| unfit("an object is named that is not there"))?);
        Ok(())
    }

    fn memorise(&mut self, index: u64) -> Result<(), Wrong> {
        let index = u32::try_from(index).map_err(|_| unfit("a number is too large"))?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), Wrong> {
        let made = rebuild::call(&self.objects, callable, arguments)?;
        self.push_made(made)
    }

    fn new_object(&mut self, class: Id) -> Result<(), Wrong> {
        let class = super::object::get(&self.objects, class).class();
        self.push_made(rebuild::instance(class))
    }

    fn outside(&mut self, id: Id) -> Result<(), Wrong> {
        let made = rebuild::outside(&self.objects, id)?;
        self.push_made(made)
    }

    /// A whole number of any length, in two's complement.
    fn long(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let sign = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let object = if bytes.len() <= 8 {
            let start = if sign { -1 } else { 0 };
            Object::Int(bytes.iter().rev().fold(start, |number: i64, byte| number << 8 | i64::from(*byte)))
        } else {
            Object::Bytes
        };
        self.push(object)
    }

    fn run(&mut self) -> Result<(), Wrong> {
        loop {
            let left = self.budget.steps.checked_sub(1);
            self.budget.steps = left.ok_or_else(|| beyond(&format!("has more than {MOST_STEPS} steps")))?;
            let [opcode] = self.cursor.array()?;
            if opcode == b'.' {
                return Ok(());
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Wrong> {
        match opcode {
            // The protocol, and how long a part of the pickle is.
            0x80 => self.cursor.take(1).map(drop),
            0x95 => self.cursor.take(8).map(drop),

            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'I' => match self.cursor.line()? {
                b"00" => self.push(Object::Bool(false)),
                b"01" => self.push(Object::Bool(true)),
                line => {
                    let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
                    self.push(Object::Int(number.ok_or_else(|| unfit("a number is none"))?))
                }
            },
            b'L' => {
                let number = self.cursor.line_number()?;
                self.push(number.map_or(Object::Bytes, Object::Int))
            }
            b'F' => {
                let number = self.cursor.line_number()?;
                self.push(Object::Float(number.ok_or_else(|| unfit("a number is none"))?))
            }
            b'J' => {
                let number = i32::from_le_bytes(self.cursor.array()?);
                self.push(Object::Int(i64::from(number)))
            }
            b'K' | b'M' => {
                let number = self.cursor.number(if opcode == b'K' { 1 } else { 2 })?;
                self.push(Object::Int(number as i64))
            }
            b'G' => {
                let number = f64::from_be_bytes(self.cursor.array()?);
                self.push(Object::Float(number))
            }
            0x8a => {
                let bytes = self.cursor.counted(1)?;
                self.long(bytes)
            }
            0x8b => {
                let bytes = self.cursor.counted(4)?;
                self.long(bytes)
            }

            b'V' => {
                let text = self.cursor.line()?;
                self.push(Object::Text(text))
            }
            0x8c | b'U' => {
                let text = self.cursor.counted(1)?;
                self.push(Object::Text(text))
            }
            b'X' | b'T' => {
                let text = self.cursor.counted(4)?;
                self.push(Object::Text(text))
            }
            0x8d => {
                let text = self.cursor.counted(8)?;
                self.push(Object::Text(text))
            }
            // Python 2's texts, as protocol 0 writes them.
            b'S' => {
                let line = self.cursor.line()?;
                let unquoted =
                    line.split_first().and_then(|(_, line)| line.split_last()).map(|(_, line)| line);
                self.push(Object::Text(unquoted.unwrap_or_default()))
            }
            b'C' => {
                self.cursor.counted(1)?;
                self.push(Object::Bytes)
            }
            b'B' => {
                self.cursor.counted(4)?;
                self.push(Object::Bytes)
            }
            0x8e | 0x96 => {
                self.cursor.counted(8)?;
                self.push(Object::Bytes)
            }

            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b')' | b']' | 0x8f => self.push(Object::Items(vec![])),
            b'}' => self.push(Object::Dict(vec![])),
            b't' | b'l' | 0x91 => {
                let items = self.above_mark()?;
                self.push(Object::Items(items))
            }
            0x85 => {
                let items = self.last::<1>()?.to_vec();
                self.push(Object::Items(items))
            }
            0x86 => {
                let items = self.last::<2>()?.to_vec();
                self.push(Object::Items(items))
            }
            0x87 => {
                let items = self.last::<3>()?.to_vec();
                self.push(Object::Items(items))
            }
            b'd' => {
                let items = self.above_mark()?;
                self.push(Object::Dict(vec![]))?;
                self.set(&items)
            }
            b'a' => {
                let items = self.last::<1>()?;
                self.append(&items)
            }
            b'e' | 0x90 => {
                let items = self.above_mark()?;
                self.append(&items)
            }
            b's' => {
                let items = self.last::<2>()?;
                self.set(&items)
            }
            b'u' => {
                let items = self.above_mark()?;
                self.set(&items)
            }

            b'0' if self.is_marked() => {
                self.marks.pop();
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.above_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'g' | b'p' => {
                let index: Option<u64> = self.cursor.line_number()?;
                let index = index.ok_or_else(|| unfit("a number is none"))?;
                if opcode == b'g' { self.recall(index) } else { self.memorise(index) }
            }
            b'h' | b'j' => {
                let index = self.cursor.number(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(index)
            }
            b'q' | b'r' => {
                let index = self.cursor.number(if opcode == b'q' { 1 } else { 4 })?;
                self.memorise(index)
            }
            0x94 => self.memorise(self.memo.len() as u64),

            b'c' => {
                let class = Class { module: self.cursor.line()?, name: self.cursor.line()? };
                self.push(Object::Class(class))
            }
            0x93 => {
                let names = self.last::<2>()?.map(|id| super::object::get(&self.objects, id));
                let [Object::Text(module), Object::Text(name)] = names else {
                    return Err(unfit("a class has no name"));
                };
                let class = Class { module, name };
                self.push(Object::Class(class))
            }
            b'R' => {
                let [callable, arguments] = self.last()?;
                self.call(callable, arguments)
            }
            0x81 => {
                let [class, _] = self.last()?;
                self.new_object(class)
            }
            0x92 => {
                let [class, _, _] = self.last()?;
                self.new_object(class)
            }
            // Instances of Python 2's old classes.
            b'i' => {
                let class = Class { module: self.cursor.line()?, name: self.cursor.line()? };
                self.above_mark()?;
                self.push_made(rebuild::instance(Some(class)))
            }
            b'o' => {
                let fields = self.above_mark()?;
                self.new_object(*fields.first().ok_or_else(|| unfit("a class is missing"))?)
            }
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                if let Object::Instance(instance) = self.object(top)? {
                    instance.state = Some(state);
                }
                Ok(())
            }
            b'P' => {
                let name = self.cursor.line()?;
                let id = self.add(Object::Text(name))?;
                self.outside(id)
            }
            b'Q' => {
                let id = self.pop()?;
                self.outside(id)
            }

            0x82..=0x84 => Err(beyond("names objects of a registry")),
            0x97 | 0x98 => Err(beyond("needs buffers that are not in it")),
            other => Err(unfit(&format!("it has no step 0x{other:02x}"))),
        }
    }
}
