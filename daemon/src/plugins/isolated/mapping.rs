//! Tensors' numbers where a child sees them: copied there as it maps them, and back once it has written.

use latentd_plugin_api::abi::{
    LATENTD_MEMORY, LATENTD_MISUSE, LATENTD_READ, LATENTD_REPLACE, LATENTD_TENSORS, latentd_call,
    latentd_handle, latentd_map, latentd_status, latentd_tensors,
};
use rmp::encode;

use super::coding::{Arena, Coded, Fields, Wrong, key};
use super::segment::{Segment, Side};
use crate::memory::Lease;
use crate::plugins::host::{call_of, fail_service, service_of};

/// Mappings of one child at once.
const MOST_MAPPED: usize = 4096;

/// Whose handles a call's are.
fn objects_of(call: *mut latentd_call) -> usize {
    // SAFETY: the call goes on.
    let call = unsafe { call_of(call) };
    call.and_then(|call| call.with(|state| state.objects.map(|objects| std::ptr::from_ref(objects).addr())))
        .unwrap_or_default()
}

/// Bytes that both may keep for a child that waits for its next job.
const KEPT: usize = 64 << 20;

/// One mapping of one handle.
struct Mapped {
    /// Whose handle it is: each instance counts its own.
    objects: usize,
    handle: latentd_handle,
    level: usize,
    from: usize,
    /// Where the numbers go that it writes, and how many bytes.
    written: Option<(*mut u8, usize)>,
    /// Counts the copy.
    _lease: Lease,
}

/// What a child sees of tensors.
pub(super) struct Mappings {
    pub(super) read: Segment,
    pub(super) written: Segment,
    mapped: Vec<Mapped>,
}

// SAFETY: pointers are of the job whose thread uses them.
unsafe impl Send for Mappings {}

fn tensors() -> Option<&'static latentd_tensors> {
    service_of::<latentd_tensors>(LATENTD_TENSORS)
}

fn host_unmap(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    let unmap = tensors().and_then(|table| table.unmap);
    // SAFETY: the call goes on.
    unmap.map_or(LATENTD_MISUSE, |unmap| unsafe { unmap(call, handle) })
}

impl Mappings {
    pub(super) fn new() -> std::io::Result<Self> {
        let (read, written) = (Segment::new(Side::Read)?, Segment::new(Side::Written)?);
        Ok(Self { read, written, mapped: vec![] })
    }

    /// Whether the child waits with little memory.
    pub(super) fn is_small(&self) -> bool {
        self.read.size() + self.written.size() <= KEPT
    }

    /// Maps a tensor for the child: its status, and where it lies.
    pub(super) fn map(
        &mut self,
        call: *mut latentd_call,
        level: usize,
        args: &Fields<'_, '_>,
    ) -> Result<(latentd_status, Vec<u8>), Wrong> {
        let arena = Arena::default();
        let Some(map) = tensors().and_then(|table| table.map) else { return Ok((LATENTD_MISUSE, vec![])) };
        let handle: latentd_handle = args.read("handle", &arena)?;
        let mut asked = latentd_map {
            size: size_of::<latentd_map>() as u32,
            mode: args.read("mode", &arena)?,
            code: args.read("code", &arena)?,
            bits: args.read("bits", &arena)?,
            lanes: 1,
            layout: args.read("layout", &arena)?,
            data: std::ptr::null_mut(),
            bytes: 0,
            strides: [0; 8],
        };
        let is_null = args.read::<u32>("is_null", &arena)? != 0;
        // SAFETY: call and struct live until the function returns.
        let status =
            unsafe { map(call, handle, if is_null { std::ptr::null_mut() } else { &raw mut asked }) };
        if status != 0 {
            return Ok((status, vec![]));
        }
        let (data, bytes) = (asked.data.cast::<u8>(), asked.bytes as usize);
        let is_read = asked.mode == LATENTD_READ;
        let copied = if self.mapped.len() < MOST_MAPPED {
            self.copied(call, (data, bytes), asked.mode)
        } else {
            Err(format!("more than {MOST_MAPPED} mappings at once: unmap those that are done with"))
        };
        if is_read {
            // The copy is all that is needed; what was converted for it goes.
            host_unmap(call, handle);
        }
        let objects = objects_of(call);
        let from = match copied {
            Ok((from, lease)) => {
                let written = (!is_read).then_some((data, bytes));
                self.mapped.push(Mapped { objects, handle, level, from, written, _lease: lease });
                from
            }
            Err(text) => {
                host_unmap(call, handle);
                // SAFETY: the call goes on.
                return Ok((unsafe { fail_service(call, LATENTD_MEMORY, &text) }, vec![]));
            }
        };
        let mut out = vec![];
        encode::write_map_len(&mut out, 5).ok();
        // SAFETY: numbers point nowhere.
        unsafe {
            key(&mut out, "code");
            asked.code.write(&mut out);
            key(&mut out, "bits");
            asked.bits.write(&mut out);
            key(&mut out, "bytes");
            asked.bytes.write(&mut out);
            key(&mut out, "strides");
            asked.strides.write(&mut out);
            key(&mut out, "from");
            (from as u64).write(&mut out);
        }
        Ok((0, out))
    }

    /// Counts and makes room, and copies what is there already; what is all replaced begins as zeros instead, not as what another
    /// mapping left in that place.
    fn copied(
        &mut self,
        call: *mut latentd_call,
        (data, bytes): (*const u8, usize),
        mode: u32,
    ) -> Result<(usize, Lease), String> {
        // SAFETY: the call goes on.
        let call = unsafe { call_of(call) }.ok_or("there is no call")?;
        let lease = call.job.reserve(bytes as u64, call.plugin).map_err(|error| error.text)?;
        let segment = if mode == LATENTD_READ { &mut self.read } else { &mut self.written };
        let from = segment.take(bytes).map_err(|error| format!("{bytes} bytes cannot be shared: {error}"))?;
        // SAFETY: the host lends so many bytes, and so many were taken.
        unsafe {
            match mode {
                LATENTD_REPLACE => segment.at(from).write_bytes(0, bytes),
                _ => std::ptr::copy_nonoverlapping(data, segment.at(from), bytes),
            }
        }
        Ok((from, lease))
    }

    /// Ends all mappings of a handle.
    pub(super) fn unmap(&mut self, call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
        let objects = objects_of(call);
        self.end(|mapped| mapped.objects == objects && mapped.handle == handle);
        host_unmap(call, handle)
    }

    /// Ends all mappings of a call, and of those within it.
    pub(super) fn end_level(&mut self, level: usize) {
        self.end(|mapped| mapped.level >= level);
    }

    /// Ends some: what was written is copied once, so that the child cannot change what is looked at then.
    fn end(&mut self, is_it: impl Fn(&Mapped) -> bool) {
        let mapped = std::mem::take(&mut self.mapped);
        let (ended, kept) = mapped.into_iter().partition(|mapped| is_it(mapped));
        self.mapped = kept;
        for Mapped { from, written, .. } in ended {
            let Some((data, bytes)) = written else {
                self.read.give_back(from);
                continue;
            };
            // SAFETY: what is mapped for writing stays where it is until it is unmapped, or its call ends; both come later.
            unsafe { std::ptr::copy_nonoverlapping(self.written.at(from), data, bytes) };
            self.written.give_back(from);
        }
    }
}
