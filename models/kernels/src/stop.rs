//! Work that may be told to stop in the middle of a kernel.
//!
//! One product over a large picture takes seconds or minutes. Kernels look between their tasks whether what they do is
//! still wanted; if not, the rest is left undone and what they give is unspecified. Whoever began the work asks
//! [`Stop::was_wanted`] before using any of it.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// What applies to kernels that this thread calls.
    static CURRENT: Cell<Option<NonNull<Stop<'static>>>> = const { Cell::new(None) };
}

/// Whether some work should stop. Once it should, that stays so.
pub struct Stop<'a> {
    wanted: Option<&'a (dyn Fn() -> bool + Sync)>,
    seen: AtomicBool,
}

impl<'a> Stop<'a> {
    /// Asks `wanted`, from any thread and often: it should only look. Without it nothing stops.
    pub fn new(wanted: Option<&'a (dyn Fn() -> bool + Sync)>) -> Self {
        Self { wanted, seen: AtomicBool::new(false) }
    }

    /// Does `work`; kernels that it calls from this thread stop when wanted.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Puts back what was there before, also when `work` panics.
        struct Restore(Option<NonNull<Stop<'static>>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let own = self.wanted.map(|_| NonNull::from(self).cast());
        let _restore = Restore(CURRENT.replace(own));
        work()
    }

    /// Whether any kernel has stopped, and so whether its results are worth nothing.
    pub fn was_wanted(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    fn is_wanted(&self) -> bool {
        if self.was_wanted() {
            return true;
        }
        let wanted = self.wanted.is_some_and(|wanted| wanted());
        if wanted {
            self.seen.store(true, Ordering::Relaxed);
        }
        wanted
    }
}

/// What one call of a kernel looks at; for its tasks, which end before it does.
#[derive(Clone, Copy)]
pub(crate) struct Polled(Option<NonNull<Stop<'static>>>);

// SAFETY: a `Stop` may be asked from any thread: its function is `Sync`, its flag atomic.
unsafe impl Send for Polled {}
// SAFETY: as above.
unsafe impl Sync for Polled {}

impl Polled {
    /// That of the calling thread. To be dropped before the kernel returns.
    pub(crate) fn current() -> Self {
        Self(CURRENT.get())
    }

    /// Whether the rest may be left undone.
    pub(crate) fn is_wanted(self) -> bool {
        // SAFETY: the kernel was called within `Stop::within`, which holds the `Stop` borrowed until the kernel, and with
        // it all its tasks, has ended.
        self.0.is_some_and(|stop| unsafe { stop.as_ref() }.is_wanted())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{AttentionShape, Epilogue, Isa, PackedMatrix, Weights, attention, linear};

    #[test]
    fn a_product_and_an_attention_end_between_two_tasks() {
        let (rows, width) = (4096, 64);
        let values = vec![1.0f32; rows * width];
        let bytes: Vec<u8> =
            vec![1.0f32; width * width].iter().flat_map(|value| value.to_le_bytes()).collect();
        let weights =
            PackedMatrix::linear(Weights { dtype: crate::WeightDtype::F32, bytes: &bytes }, width, width)
                .expect("packed");
        let shape =
            AttentionShape { batch: 1, heads: 1, head_dim: width, queries: rows, keys: rows, causal: false };
        let product = |out: &mut [f32]| {
            linear(Isa::current(), &values, rows, &weights, &Epilogue::default(), out);
        };
        let attention = |out: &mut [f32]| attention(Isa::current(), &values, &values, &values, shape, out);
        for kernel in [&product as &dyn Fn(&mut [f32]), &attention] {
            let asked = AtomicUsize::new(0);
            let count = || {
                asked.fetch_add(1, Ordering::Relaxed);
                false
            };
            let mut whole = vec![0.0; rows * width];
            let stop = Stop::new(Some(&count));
            stop.within(|| kernel(&mut whole));
            let tasks = asked.load(Ordering::Relaxed);
            assert!(!stop.was_wanted() && tasks > 4, "{tasks}");
            assert!(whole.iter().all(|value| *value != 0.0));

            asked.store(0, Ordering::Relaxed);
            let second = || asked.fetch_add(1, Ordering::Relaxed) > 0;
            let mut part = vec![0.0; rows * width];
            let stop = Stop::new(Some(&second));
            stop.within(|| kernel(&mut part));
            assert!(stop.was_wanted() && part.contains(&0.0));
            // Asked once more at most by each thread that looked at the same time.
            assert!(asked.load(Ordering::Relaxed) < tasks);
            // Nothing of it is left for what comes then.
            kernel(&mut part);
            assert_eq!(part, whole);
        }
    }

    #[test]
    fn what_is_inside_counts_and_what_is_around_comes_back() {
        let outer = Stop::new(Some(&|| true));
        let inner = Stop::new(None);
        outer.within(|| {
            assert!(Polled::current().is_wanted());
            inner.within(|| assert!(!Polled::current().is_wanted()));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inner.within(|| panic!("on purpose"))))
                .ok();
            assert!(Polled::current().is_wanted());
        });
        assert!(!Polled::current().is_wanted());
    }
}
