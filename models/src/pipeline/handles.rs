//! What stages see of tensors: numbers that stand for them.
//!
//! A stage that looks at no tensor costs no copy, wherever the tensor is. A handle ends with the call it was given to,
//! unless it was kept; a number that is no handle, or no longer one, is an error.

use crate::Error;
use crate::error::Result;
use crate::tensor::Tensor;

/// Stands for a tensor of a job: a place, and which of those that were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(u64);

impl Handle {
    fn new(index: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | index as u64)
    }

    fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// As a number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl From<u64> for Handle {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Whether there is a handle for it.
    in_use: bool,
    tensor: Option<Tensor>,
    kept: u32,
}

/// A job's tensors.
#[derive(Default)]
pub struct Handles {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

impl Handles {
    /// A handle for a tensor, until the end of the call.
    pub fn insert(&mut self, tensor: Tensor) -> Handle {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        (slot.tensor, slot.in_use) = (Some(tensor), true);
        Handle::new(index, slot.generation)
    }

    /// The tensor, to be read.
    pub fn read(&self, handle: Handle) -> Result<&Tensor> {
        let slot = self.slots.get(handle.index()).filter(|slot| slot.is_of(handle));
        slot.and_then(|slot| slot.tensor.as_ref()).ok_or_else(|| unknown(handle))
    }

    /// The tensor's numbers, to be changed; copied first only if somebody else has them too.
    pub fn write(&mut self, handle: Handle) -> Result<&mut [f32]> {
        let slot = self.slot(handle)?;
        slot.tensor.as_mut().map(Tensor::values_mut).ok_or_else(|| unknown(handle))
    }

    /// Puts other numbers of the same shape in its place.
    pub fn replace(&mut self, handle: Handle, tensor: Tensor) -> Result<()> {
        let slot = self.slot(handle)?;
        match &mut slot.tensor {
            Some(old) if old.dims() == tensor.dims() => *old = tensor,
            Some(old) => {
                let text = format!("a tensor {:?} in the place of {:?}", tensor.dims(), old.dims());
                return Err(Error::Stage(text));
            }
            None => return Err(unknown(handle)),
        }
        Ok(())
    }

    /// Keeps a handle beyond the call, until as many [`Self::release`].
    pub fn keep(&mut self, handle: Handle) -> Result<()> {
        let slot = self.slot(handle)?;
        slot.kept = slot.kept.checked_add(1).ok_or_else(|| unknown(handle))?;
        Ok(())
    }

    /// Lets go of a handle that was kept.
    pub fn release(&mut self, handle: Handle) -> Result<()> {
        let slot = self.slot(handle)?;
        slot.kept = slot.kept.checked_sub(1).ok_or_else(|| unknown(handle))?;
        Ok(())
    }

    /// Takes a tensor out; its handle ends.
    pub(super) fn take(&mut self, handle: Handle) -> Result<Tensor> {
        let slot = self.slot(handle)?;
        let tensor = if slot.kept > 0 { slot.tensor.clone() } else { slot.tensor.take() };
        tensor.ok_or_else(|| unknown(handle))
    }

    /// A call ends: handles that nobody kept do too.
    pub(super) fn end_call(&mut self) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.in_use && slot.kept == 0 {
                (slot.tensor, slot.in_use) = (None, false);
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(index);
            }
        }
    }

    fn slot(&mut self, handle: Handle) -> Result<&mut Slot> {
        let slot = self.slots.get_mut(handle.index());
        slot.filter(|slot| slot.is_of(handle)).ok_or_else(|| unknown(handle))
    }
}

impl Slot {
    fn is_of(&self, handle: Handle) -> bool {
        self.in_use && self.generation == handle.generation()
    }
}

fn unknown(handle: Handle) -> Error {
    Error::Stage(format!("{} is no handle, or no longer one", handle.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_end_with_the_call_unless_they_are_kept() {
        let mut handles = Handles::default();
        let (short, long) = (handles.insert(Tensor::full(1.0, [2])), handles.insert(Tensor::full(2.0, [2])));
        handles.keep(long).expect("kept");
        handles.end_call();
        assert!(handles.read(short).is_err() && handles.write(short).is_err());
        assert_eq!(handles.read(long).expect("kept").values(), [2.0, 2.0]);
        // The place is used again, the number is another.
        let again = handles.insert(Tensor::full(3.0, [2]));
        assert_eq!(again.index(), short.index());
        assert!(again != short && handles.read(short).is_err());
        handles.release(long).expect("released");
        assert!(handles.release(long).is_err(), "once too often");
        handles.end_call();
        assert!(handles.read(long).is_err() && handles.read(Handle::from(u64::MAX)).is_err());
    }

    #[test]
    fn a_number_that_was_never_a_handle_keeps_nothing() {
        let mut handles = Handles::default();
        let first = handles.insert(Tensor::full(1.0, [2]));
        handles.end_call();
        // What the place's next handle will be.
        let next = Handle::new(first.index(), first.generation() + 1);
        assert!(handles.keep(next).is_err() && handles.release(next).is_err());
        assert_eq!(handles.insert(Tensor::full(2.0, [2])), next);
        handles.end_call();
        assert!(handles.read(next).is_err(), "nobody kept it");
    }

    #[test]
    fn places_of_handles_that_were_kept_cost_later_calls_little() {
        let mut handles = Handles::default();
        let kept: Vec<Handle> = (0..100_000).map(|_| handles.insert(Tensor::full(1.0, [1]))).collect();
        for handle in &kept {
            handles.keep(*handle).expect("kept");
        }
        handles.end_call();
        assert!(handles.free.is_empty());
        for handle in kept {
            handles.release(handle).expect("released");
        }
        // None of them is looked for among the free ones: that would be thousands of millions of comparisons.
        for _ in 0..10 {
            handles.insert(Tensor::full(1.0, [1]));
            handles.end_call();
        }
        assert_eq!(handles.free.len(), handles.slots.len());
    }

    #[test]
    fn writing_copies_only_what_is_shared() {
        let mut handles = Handles::default();
        let outside = Tensor::full(1.0, [2]);
        let shared = handles.insert(outside.clone());
        handles.write(shared).expect("there")[0] = 5.0;
        assert_eq!(outside.values(), [1.0, 1.0]);
        let before = handles.read(shared).expect("there").values().as_ptr();
        handles.write(shared).expect("there")[1] = 6.0;
        assert_eq!(handles.read(shared).expect("there").values().as_ptr(), before, "nobody else has it");
        assert!(handles.replace(shared, Tensor::full(0.0, [3])).is_err(), "another shape");
    }
}
