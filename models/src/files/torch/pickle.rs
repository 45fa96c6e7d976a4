//! How much of a pickle is believed. Each byte of one can be an object that takes two hundred, and a few bytes can copy
//! what others made; so it is walked first, with sizes in the place of objects.
//!
//! The stack machine here does what the reader's does (CPython's `Lib/pickletools.py` describes it), so that nothing can
//! take more memory there than was counted here.

use std::collections::HashMap;

/// Bytes of one pickle. That of SD 1.5 with its training state has 1 MB.
pub(super) const LARGEST: usize = 32 << 20;

/// Opcodes of all pickles of a file. SD 1.5 with its training state has some 100,000.
const MOST_STEPS: usize = 1 << 22;

/// What its objects may take at any moment, in bytes. A tensor takes some 4,000 until all is read, so this is enough for
/// 60,000.
const MOST_MEMORY: usize = 256 << 20;

/// Bytes that may be copied in all.
const MOST_COPIED: usize = 512 << 20;

/// Containers within containers. A module that was saved whole has some 40; what walks them needs stack for each.
const DEEPEST: u32 = 200;

/// What an object takes beside its text, on the stack or in the memo, with room for how these grow.
const OBJECT: usize = 192;

/// What an entry of a dictionary takes beside.
const ENTRY: usize = 64;

/// What may still be used of a file's share.
#[derive(Clone)]
pub(super) struct Budget {
    steps: usize,
    copied: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { steps: MOST_STEPS, copied: MOST_COPIED }
    }
}

/// What a walked pickle was.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Its length in bytes.
    pub length: usize,
    /// Its whole number, if it has nothing but one.
    pub number: Option<u64>,
    /// The name of the only class that it names, without its module; `None` if it names none or several, or if the
    /// names it has can be told by running it only.
    pub class: Option<String>,
}

/// Why a pickle is not believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It goes on beyond the bytes that are there.
    CutOff,
    /// In words that follow a file's name.
    Refused(String),
}

impl From<Wrong> for String {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::CutOff => "is cut off within its pickle, or damaged; copy or download it again".to_owned(),
            Wrong::Refused(reason) => reason,
        }
    }
}

fn beyond(what: &str) -> Wrong {
    Wrong::Refused(format!("its pickle {what}, which no model's does; it was not read"))
}

fn damaged(what: &str) -> Wrong {
    Wrong::Refused(format!("its pickle is damaged: {what}; copy or download it again"))
}

/// Walks the pickle that `bytes` begin with.
pub(super) fn walk(bytes: &[u8], budget: &mut Budget) -> Result<Walked, Wrong> {
    let mut walk = Walk {
        rest: bytes,
        budget,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        memory: 0,
        walked: Walked::default(),
        classes: 0,
        others: 0,
    };
    while walk.step()? {}
    let mut walked = walk.walked;
    walked.length = bytes.len() - walk.rest.len();
    if walk.others > 0 {
        walked.number = None;
    }
    if walk.classes != 1 {
        walked.class = None;
    }
    Ok(walked)
}

/// What stands in the place of an object.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Bytes of memory.
    size: usize,
    /// Containers in it.
    depth: u32,
    /// Where the memo has it.
    memo: Option<u32>,
}

struct Walk<'a> {
    rest: &'a [u8],
    budget: &'a mut Budget,
    stack: Vec<Slot>,
    marks: Vec<usize>,
    memo: HashMap<u32, Slot>,
    /// Of all on the stack and in the memo.
    memory: usize,
    walked: Walked,
    classes: usize,
    /// Steps after which a number is not all that the pickle has.
    others: usize,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Wrong::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A whole number of so many bytes, little-endian.
    fn number(&mut self, bytes: usize) -> Result<u64, Wrong> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A text or bytes behind a length of so many bytes.
    fn counted(&mut self, bytes: usize) -> Result<&'a [u8], Wrong> {
        let length = self.number(bytes)?;
        if length > LARGEST as u64 {
            return Err(beyond(&format!("has a text or number of {length} bytes")));
        }
        self.take(length as usize)
    }

    fn line(&mut self) -> Result<&'a [u8], Wrong> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(Wrong::CutOff)?;
        let line = self.take(end)?;
        self.take(1)?;
        Ok(line)
    }

    fn add(&mut self, size: usize) -> Result<(), Wrong> {
        self.memory = self.memory.saturating_add(size);
        if self.memory > MOST_MEMORY {
            return Err(beyond(&format!("makes objects of more than {MOST_MEMORY} bytes")));
        }
        Ok(())
    }

    fn copy(&mut self, size: usize) -> Result<(), Wrong> {
        let left = self.budget.copied.checked_sub(size);
        self.budget.copied =
            left.ok_or_else(|| beyond(&format!("copies more than {MOST_COPIED} bytes of itself")))?;
        self.add(size)
    }

    /// A new object with a text of so many bytes.
    fn push(&mut self, text: usize) -> Result<(), Wrong> {
        // Texts are read into buffers that double.
        self.put(Slot { size: text.saturating_mul(2).saturating_add(OBJECT), ..Slot::default() })
    }

    fn put(&mut self, slot: Slot) -> Result<(), Wrong> {
        if slot.depth > DEEPEST {
            return Err(beyond(&format!("nests more than {DEEPEST} deep")));
        }
        self.add(slot.size)?;
        self.stack.push(slot);
        Ok(())
    }

    fn pop(&mut self) -> Result<Slot, Wrong> {
        let is_marked = self.marks.last() == Some(&self.stack.len());
        let slot = self.stack.pop().filter(|_| !is_marked);
        let slot = slot.ok_or_else(|| damaged("an object is missing"))?;
        self.memory = self.memory.saturating_sub(slot.size);
        Ok(slot)
    }

    /// One object instead of the last so many.
    fn join(&mut self, count: usize, deeper: u32) -> Result<(), Wrong> {
        let mut joined = Slot { size: OBJECT, ..Slot::default() };
        for _ in 0..count {
            let slot = self.pop()?;
            joined.size += slot.size;
            joined.depth = joined.depth.max(slot.depth);
        }
        joined.depth += deeper;
        self.put(joined)
    }

    /// How many objects stand above the last mark, which goes.
    fn above_mark(&mut self) -> Result<usize, Wrong> {
        let mark = self.marks.pop().ok_or_else(|| damaged("a mark is missing"))?;
        self.memory = self.memory.saturating_sub(OBJECT);
        Ok(self.stack.len().saturating_sub(mark))
    }

    /// The last so many go into the one before, which keeps its place in the memo.
    fn join_into(&mut self, count: usize) -> Result<(), Wrong> {
        let mut added = Slot::default();
        for _ in 0..count {
            let slot = self.pop()?;
            added.size += slot.size + ENTRY;
            added.depth = added.depth.max(slot.depth + 1);
        }
        let container = self.pop()?;
        self.put(Slot {
            size: container.size + added.size,
            depth: container.depth.max(added.depth),
            memo: container.memo,
        })
    }

    fn recall(&mut self, index: u64) -> Result<(), Wrong> {
        let known = u32::try_from(index).ok().and_then(|index| self.memo.get(&index).copied());
        let slot = known.ok_or_else(|| damaged(&format!("it has no object {index}")))?;
        self.copy(slot.size)?;
        self.memory = self.memory.saturating_sub(slot.size);
        self.put(slot)
    }

    fn memorise(&mut self, index: u64) -> Result<(), Wrong> {
        let index = u32::try_from(index).map_err(|_| damaged("a number is too large"))?;
        let mut slot = self.pop()?;
        slot.memo = Some(index);
        self.put(slot)?;
        self.copy(slot.size)?;
        if let Some(before) = self.memo.insert(index, slot) {
            self.memory = self.memory.saturating_sub(before.size);
        }
        Ok(())
    }

    /// An object and what it is to become, of which the memo learns too.
    fn build(&mut self) -> Result<(), Wrong> {
        let state = self.pop()?;
        let object = self.pop()?;
        let built =
            Slot { size: object.size + state.size, depth: object.depth.max(state.depth), memo: object.memo };
        self.put(built)?;
        match object.memo {
            Some(index) => self.memorise(u64::from(index)),
            None => Ok(()),
        }
    }

    fn index(line: &[u8]) -> Result<u64, Wrong> {
        let text = std::str::from_utf8(line).ok().map(|line| line.trim_end_matches('\r'));
        text.and_then(|line| line.parse().ok()).ok_or_else(|| damaged("a number is none"))
    }

    /// A whole number, of which a pickle may consist.
    fn push_number(&mut self, number: Option<u64>, bytes: usize) -> Result<(), Wrong> {
        if self.walked.number.is_some() || number.is_none() {
            self.others += 1;
        }
        self.walked.number = number;
        self.push(bytes)
    }

    /// Does what the next opcode says; false after the last.
    fn step(&mut self) -> Result<bool, Wrong> {
        self.budget.steps = self
            .budget
            .steps
            .checked_sub(1)
            .ok_or_else(|| beyond(&format!("has more than {MOST_STEPS} steps")))?;
        let opcode = self.take(1)?.first().copied().unwrap_or_default();
        if !matches!(opcode, 0x80 | 0x95 | b'.' | b'K' | b'M' | b'J' | 0x8a) {
            self.others += 1;
        }
        match opcode {
            // What comes first, what says how long a part is, and what comes last.
            0x80 => {
                self.take(1)?;
            }
            0x95 => {
                self.take(8)?;
            }
            b'.' => return Ok(false),
            // Objects without a text.
            b'N' | 0x88 | 0x89 | b')' | b']' | b'}' | 0x8f => self.push(0)?,
            b'K' | b'M' | b'J' => {
                let bytes = match opcode {
                    b'K' => 1,
                    b'M' => 2,
                    _ => 4,
                };
                let number = self.number(bytes)?;
                self.push_number(Some(number), 0)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(0)?;
            }
            // With one.
            0x8a => {
                let bytes = self.counted(1)?;
                let number = (bytes.len() <= 7)
                    .then(|| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)));
                self.push_number(number, bytes.len())?;
            }
            0x8c | b'U' | b'C' => {
                let length = self.counted(1)?.len();
                self.push(length)?;
            }
            b'X' | b'T' | b'B' | 0x8b => {
                let length = self.counted(4)?.len();
                self.push(length)?;
            }
            0x8d | 0x8e | 0x96 => {
                let length = self.counted(8)?.len();
                self.push(length)?;
            }
            b'I' | b'L' | b'F' | b'V' | b'P' => {
                let length = self.line()?.len();
                self.push(length)?;
            }
            b'c' => {
                let module = self.line()?.len();
                let name = self.line()?;
                self.classes += 1;
                self.walked.class =
                    Some(String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned());
                self.push(module + name.len())?;
            }
            // Of others.
            b'(' => {
                self.add(OBJECT)?;
                self.marks.push(self.stack.len());
            }
            b't' | b'l' | 0x91 | b'd' => {
                let count = self.above_mark()?;
                self.join(count, 1)?;
                if opcode == b'd' {
                    self.grow(count)?;
                }
            }
            0x85..=0x87 => self.join(usize::from(opcode) - 0x84, 1)?,
            b'a' => self.join_into(1)?,
            b's' => self.join_into(2)?,
            b'e' | b'u' | 0x90 => {
                let count = self.above_mark()?;
                self.join_into(count)?;
            }
            // Classes by two texts, storages, calls: none is made, and what they would take is what they are made of.
            0x93 => {
                self.classes += 2;
                self.join(2, 0)?;
            }
            b'Q' => self.join(1, 0)?,
            b'R' | 0x81 => self.join(2, 0)?,
            0x92 => self.join(3, 0)?,
            b'b' => self.build()?,
            // Away, twice, and again.
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.above_mark()?;
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                for _ in 0..self.above_mark()? {
                    self.pop()?;
                }
            }
            b'2' => {
                let slot = self.pop()?;
                self.put(slot)?;
                self.copy(slot.size)?;
                self.memory = self.memory.saturating_sub(slot.size);
                self.put(slot)?;
            }
            b'g' => {
                let index = Self::index(self.line()?)?;
                self.recall(index)?;
            }
            b'h' => {
                let index = self.number(1)?;
                self.recall(index)?;
            }
            b'j' => {
                let index = self.number(4)?;
                self.recall(index)?;
            }
            b'p' => {
                let index = Self::index(self.line()?)?;
                self.memorise(index)?;
            }
            b'q' => {
                let index = self.number(1)?;
                self.memorise(index)?;
            }
            b'r' => {
                let index = self.number(4)?;
                self.memorise(index)?;
            }
            0x94 => self.memorise(self.memo.len() as u64)?,
            b'i' | b'o' => return Err(beyond("makes instances of classes of Python 1")),
            0x82..=0x84 => return Err(beyond("names objects of a registry")),
            0x97 | 0x98 => return Err(beyond("needs buffers that are not in it")),
            other => return Err(damaged(&format!("it has no step 0x{other:02x}"))),
        }
        Ok(true)
    }

    /// What a dictionary of so many keys and values takes beside them.
    fn grow(&mut self, count: usize) -> Result<(), Wrong> {
        let slot = self.pop()?;
        self.put(Slot { size: slot.size + count * ENTRY, ..slot })
    }
}
