//! The tensors and images of one instance of a plugin, by their handles.
//!
//! A handle is a place and how often it was used, so that an old number is told from a new one. It ends with the call that
//! it was given to, unless the plugin keeps it; what is still kept ends with the instance. Calls may lie within one
//! another, while a service of the outer one asks the same instance again: the end of the inner one ends nothing of the outer.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::image::RgbImage;

use crate::memory::Lease;

/// What a handle stands for.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Tensor(Tensor),
    Image(Image),
    /// A file, as it is.
    Bytes(Arc<Vec<u8>>),
}

/// An image whose channels lie side by side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Image {
    pub width: usize,
    pub height: usize,
    /// 1, 3 or 4.
    pub channels: usize,
    /// A clone shares them until one of both is written to.
    pub pixels: Arc<Vec<u8>>,
}

impl Image {
    /// Its planes, one after the other.
    pub(super) fn planes(&self) -> Vec<u8> {
        let plane = |channel| self.pixels.iter().skip(channel).step_by(self.channels).copied();
        (0..self.channels).flat_map(plane).collect()
    }
}

impl From<&RgbImage> for Image {
    fn from(image: &RgbImage) -> Self {
        Self { width: image.width, height: image.height, channels: 3, pixels: Arc::new(image.pixels.clone()) }
    }
}

impl Content {
    /// Logical sizes: of images `(1, channels, height, width)`.
    pub(super) fn dims(&self) -> Vec<usize> {
        match self {
            Self::Tensor(tensor) => tensor.dims().to_vec(),
            Self::Image(image) => vec![1, image.channels, image.height, image.width],
            Self::Bytes(bytes) => vec![bytes.len()],
        }
    }

    /// Whether all of it are numbers.
    pub(super) fn is_finite(&self) -> bool {
        match self {
            Self::Tensor(tensor) => tensor.values().iter().all(|value| value.is_finite()),
            Self::Image(_) | Self::Bytes(_) => true,
        }
    }

    /// Numbers from one to the next in each dimension, as they lie in memory.
    pub(super) fn strides(&self) -> Vec<usize> {
        match self {
            Self::Tensor(tensor) => dense_strides(tensor.dims()),
            Self::Bytes(_) => vec![1],
            Self::Image(Image { width, height, channels, .. }) => {
                vec![width * height * channels, 1, width * channels, *channels]
            }
        }
    }
}

/// Numbers from one to the next in each dimension, without gaps.
pub(super) fn dense_strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for index in (1..dims.len()).rev() {
        strides[index - 1] = strides[index] * dims[index];
    }
    strides
}

/// Why a handle cannot be used so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misuse {
    /// No handle, or no longer one.
    Dead(u64),
    /// An argument, or what was handed over already, cannot be written to.
    ReadOnly(u64),
    /// It is mapped for writing.
    Mapped(u64),
    /// It was not kept that often.
    NotHeld(u64),
    /// More handles at once than anybody needs.
    TooMany,
}

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dead(handle) => write!(f, "{handle} is no handle, or no longer one"),
            Self::ReadOnly(handle) => {
                write!(f, "{handle} may only be read: allocate another one to write to")
            }
            Self::Mapped(handle) => write!(f, "{handle} is mapped for writing: unmap it first"),
            Self::NotHeld(handle) => write!(f, "{handle} was given back more often than it was kept"),
            Self::TooMany => write!(f, "more than {MOST} handles at once: release those that are done with"),
        }
    }
}

/// Handles that an instance may have at once.
const MOST: usize = 1 << 16;

/// What one handle stands for, and what is done with it.
struct Object {
    content: Content,
    /// Allocated by the plugin, and not handed over yet.
    is_open: bool,
    /// Whether the plugin may write to it now.
    is_written: bool,
    /// What it was converted to for somebody who reads it.
    converted: Vec<Vec<f32>>,
    /// Likewise, planes apart.
    planes: Vec<Vec<u8>>,
    /// How often the plugin keeps it beyond the call.
    kept: u32,
    /// Which of the calls within one another it belongs to.
    level: usize,
    /// Memory that is counted for it.
    lease: Option<Arc<Lease>>,
}

/// Where numbers lie, and how many bytes they are. Read-only places are told so by their callers.
pub(super) type Place = (*mut u8, usize);

fn place<T>(numbers: &[T]) -> Place {
    (numbers.as_ptr().cast_mut().cast(), size_of_val(numbers))
}

/// Keeps what was converted; it stays where it is, whatever else is kept.
fn kept<T>(all: &mut Vec<Vec<T>>, numbers: Vec<T>) -> Place {
    let place = place(&numbers);
    all.push(numbers);
    place
}

#[derive(Default)]
struct Slot {
    generation: u32,
    object: Option<Object>,
}

/// The tensors and images of one instance.
#[derive(Default)]
pub(super) struct Objects {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Calls that go on, one within the other.
    level: usize,
}

impl Objects {
    /// An argument of the call: read only.
    pub(super) fn lend(&mut self, content: Content) -> Result<u64, Misuse> {
        self.insert(content, false, None)
    }

    /// What the plugin allocates.
    pub(super) fn allocate(&mut self, content: Content, lease: Option<Lease>) -> Result<u64, Misuse> {
        self.insert(content, true, lease.map(Arc::new))
    }

    /// What the plugin has from its beginning to its end: read only.
    pub(super) fn give(&mut self, content: Content) -> Result<u64, Misuse> {
        let handle = self.insert(content, false, None)?;
        self.object(handle)?.kept = 1;
        Ok(handle)
    }

    /// What is there already, with its memory: read only.
    pub(super) fn lend_counted(&mut self, content: Content, lease: Arc<Lease>) -> Result<u64, Misuse> {
        self.insert(content, false, Some(lease))
    }

    fn insert(&mut self, content: Content, is_open: bool, lease: Option<Arc<Lease>>) -> Result<u64, Misuse> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() >= MOST => return Err(Misuse::TooMany),
            None => {
                self.slots.push(Slot { generation: 1, object: None });
                self.slots.len() - 1
            }
        };
        let slot = self.slots.get_mut(index).ok_or(Misuse::TooMany)?;
        slot.object = Some(Object {
            content,
            is_open,
            is_written: false,
            converted: vec![],
            planes: vec![],
            kept: 0,
            level: self.level,
            lease,
        });
        Ok(u64::from(slot.generation) << 32 | index as u64)
    }

    fn object(&mut self, handle: u64) -> Result<&mut Object, Misuse> {
        let (index, generation) = ((handle & u64::from(u32::MAX)) as usize, (handle >> 32) as u32);
        let slot = self.slots.get_mut(index).filter(|slot| slot.generation == generation);
        slot.and_then(|slot| slot.object.as_mut()).ok_or(Misuse::Dead(handle))
    }

    /// What a handle stands for.
    pub(super) fn content(&mut self, handle: u64) -> Result<&Content, Misuse> {
        Ok(&self.object(handle)?.content)
    }

    /// What a handle stands for, once nobody writes to it.
    pub(super) fn finished(&mut self, handle: u64) -> Result<&Content, Misuse> {
        Ok(&self.readable(handle)?.content)
    }

    /// What a handle stands for, if nobody writes to it.
    fn readable(&mut self, handle: u64) -> Result<&mut Object, Misuse> {
        let object = self.object(handle)?;
        if object.is_written { Err(Misuse::Mapped(handle)) } else { Ok(object) }
    }

    /// What a handle stands for, to be read whole.
    pub(super) fn readable_content(&mut self, handle: u64) -> Result<&Content, Misuse> {
        Ok(&self.readable(handle)?.content)
    }

    /// The numbers as they lie in memory, to be read: where, and how many bytes.
    pub(super) fn read(&mut self, handle: u64) -> Result<Place, Misuse> {
        Ok(match &self.readable(handle)?.content {
            Content::Tensor(tensor) => place(tensor.values()),
            Content::Image(image) => place(image.pixels.as_slice()),
            Content::Bytes(bytes) => place(bytes.as_slice()),
        })
    }

    /// An image as it lies, as f32 of 0…1; tensors are so.
    pub(super) fn read_as_float(&mut self, handle: u64) -> Result<Place, Misuse> {
        let object = self.readable(handle)?;
        let Content::Image(image) = &object.content else { return self.read(handle) };
        let numbers = image.pixels.iter().map(|value| f32::from(*value) / 255.0).collect();
        Ok(kept(&mut object.converted, numbers))
    }

    /// An image's planes one after the other, as f32 of 0…1 if `as_float`; tensors lie so.
    pub(super) fn read_planes(&mut self, handle: u64, as_float: bool) -> Result<Place, Misuse> {
        let object = self.readable(handle)?;
        let Content::Image(image) = &object.content else { return self.read(handle) };
        let planes = image.planes();
        Ok(if as_float {
            let numbers = planes.into_iter().map(|value| f32::from(value) / 255.0).collect();
            kept(&mut object.converted, numbers)
        } else {
            kept(&mut object.planes, planes)
        })
    }

    /// The numbers as they lie in memory, to be written.
    pub(super) fn write(&mut self, handle: u64) -> Result<Place, Misuse> {
        let object = self.object(handle)?;
        if !object.is_open {
            return Err(Misuse::ReadOnly(handle));
        }
        if object.is_written {
            return Err(Misuse::Mapped(handle));
        }
        object.is_written = true;
        Ok(match &mut object.content {
            Content::Tensor(tensor) => {
                let values = tensor.values_mut();
                (values.as_mut_ptr().cast(), size_of_val(values))
            }
            Content::Image(image) => {
                let pixels = Arc::make_mut(&mut image.pixels);
                (pixels.as_mut_ptr(), pixels.len())
            }
            Content::Bytes(_) => return Err(Misuse::ReadOnly(handle)),
        })
    }

    /// Ends all mappings of a handle.
    pub(super) fn unmap(&mut self, handle: u64) -> Result<(), Misuse> {
        let object = self.object(handle)?;
        object.is_written = false;
        object.converted.clear();
        object.planes.clear();
        Ok(())
    }

    /// The plugin hands it over: from now on nobody writes to it.
    pub(super) fn hand_over(&mut self, handle: u64) -> Result<(), Misuse> {
        let object = self.object(handle)?;
        if object.is_written {
            return Err(Misuse::Mapped(handle));
        }
        object.is_open = false;
        Ok(())
    }

    /// Bytes that are to be counted if the plugin keeps it beyond the call: those of an argument.
    pub(super) fn uncounted(&mut self, handle: u64) -> Result<Option<usize>, Misuse> {
        let object = self.object(handle)?;
        // What it was given for good is counted once for all.
        Ok((object.lease.is_none() && object.kept == 0).then(|| match &object.content {
            Content::Tensor(tensor) => size_of_val(tensor.values()),
            Content::Image(image) => image.pixels.len(),
            Content::Bytes(bytes) => bytes.len(),
        }))
    }

    /// The memory that is counted for a handle.
    pub(super) fn lease(&mut self, handle: u64) -> Result<Option<Arc<Lease>>, Misuse> {
        Ok(self.object(handle)?.lease.clone())
    }

    /// The plugin keeps it beyond the call; `lease` counts what was not counted.
    pub(super) fn keep(&mut self, handle: u64, lease: Option<Lease>) -> Result<(), Misuse> {
        let object = self.object(handle)?;
        object.lease = object.lease.take().or(lease.map(Arc::new));
        object.kept = object.kept.checked_add(1).ok_or(Misuse::NotHeld(handle))?;
        Ok(())
    }

    /// The plugin keeps it once less; or is done before the call's end with what it allocated.
    pub(super) fn release(&mut self, handle: u64) -> Result<(), Misuse> {
        let object = self.object(handle)?;
        if object.kept > 0 {
            object.kept -= 1;
            return Ok(());
        }
        if object.is_written {
            return Err(Misuse::Mapped(handle));
        }
        if !object.is_open {
            // What was handed over goes with the call.
            return if object.lease.is_some() { Ok(()) } else { Err(Misuse::NotHeld(handle)) };
        }
        let index = (handle & u64::from(u32::MAX)) as usize;
        self.end(index);
        Ok(())
    }

    /// How many there are: between two calls those that the plugin keeps.
    pub(super) fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.object.is_some()).count()
    }

    /// A call begins, maybe within another one.
    pub(super) fn begin_call(&mut self) {
        self.level += 1;
    }

    /// The call ends, and with it all that the plugin does not keep.
    pub(super) fn end_call(&mut self) {
        let ended = self.level;
        self.level = ended.saturating_sub(1);
        for index in 0..self.slots.len() {
            let Some(object) = self.slots.get_mut(index).and_then(|slot| slot.object.as_mut()) else {
                continue;
            };
            if object.level < ended && self.level > 0 {
                continue;
            }
            object.is_written = false;
            object.converted.clear();
            object.planes.clear();
            object.level = self.level;
            if object.kept == 0 {
                self.end(index);
            }
        }
    }

    fn end(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.object = None;
            // Bit 63 of a handle is never set.
            slot.generation = if slot.generation >= i32::MAX as u32 { 1 } else { slot.generation + 1 };
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor() -> Content {
        Content::Tensor(Tensor::full(1.0, [2]))
    }

    #[test]
    fn handles_end_with_the_call_unless_they_are_kept() {
        let mut objects = Objects::default();
        let (argument, own) =
            (objects.lend(tensor()).expect("lent"), objects.allocate(tensor(), None).expect("made"));
        objects.keep(own, None).expect("kept");
        assert_eq!(objects.write(argument), Err(Misuse::ReadOnly(argument)));
        objects.end_call();
        assert_eq!(objects.read(argument), Err(Misuse::Dead(argument)));
        assert!(objects.read(own).is_ok());
        let next = objects.lend(tensor()).expect("lent");
        assert!(next != argument && objects.read(argument).is_err(), "the place is another's now");
        objects.release(own).expect("released");
        objects.end_call();
        assert_eq!(objects.read(own), Err(Misuse::Dead(own)));
        assert_eq!(objects.release(0), Err(Misuse::Dead(0)));
        assert_eq!(objects.read(u64::MAX), Err(Misuse::Dead(u64::MAX)));
    }

    #[test]
    fn the_end_of_a_call_within_another_ends_nothing_of_that() {
        let mut objects = Objects::default();
        objects.begin_call();
        let outer = objects.allocate(tensor(), None).expect("made");
        objects.write(outer).expect("mapped");
        objects.begin_call();
        let (inner, kept) = (objects.lend(tensor()).expect("lent"), objects.lend(tensor()).expect("lent"));
        objects.keep(kept, None).expect("kept");
        objects.end_call();
        assert_eq!(objects.read(inner), Err(Misuse::Dead(inner)));
        assert_eq!(objects.read(outer), Err(Misuse::Mapped(outer)), "it is still written to");
        objects.release(kept).expect("released");
        assert!(objects.read(kept).is_ok(), "until the end of the call");
        objects.end_call();
        assert_eq!(objects.read(outer), Err(Misuse::Dead(outer)));
        assert_eq!(objects.read(kept), Err(Misuse::Dead(kept)));
    }

    #[test]
    fn what_was_handed_over_is_not_written_to() {
        let mut objects = Objects::default();
        let own = objects.allocate(tensor(), None).expect("made");
        objects.write(own).expect("mapped");
        assert_eq!(objects.write(own), Err(Misuse::Mapped(own)));
        assert_eq!(objects.read(own), Err(Misuse::Mapped(own)));
        assert_eq!(objects.hand_over(own), Err(Misuse::Mapped(own)));
        objects.unmap(own).expect("unmapped");
        objects.hand_over(own).expect("handed over");
        assert_eq!(objects.write(own), Err(Misuse::ReadOnly(own)));
    }

    #[test]
    fn planes_of_an_image_lie_one_after_the_other() {
        let mut objects = Objects::default();
        let image = Image { width: 2, height: 1, channels: 3, pixels: Arc::new(vec![1, 2, 3, 4, 5, 6]) };
        let content = Content::Image(image);
        assert_eq!((content.dims(), content.strides()), (vec![1, 3, 1, 2], vec![6, 1, 6, 3]));
        let handle = objects.lend(content).expect("lent");
        objects.read_planes(handle, false).expect("read");
        assert_eq!(objects.object(handle).expect("there").planes, [vec![1, 4, 2, 5, 3, 6]]);
    }
}
