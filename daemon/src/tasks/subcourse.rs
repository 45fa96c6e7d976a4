//! How far a request is that others are drawn within, and how long it waited for those.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use latentd_client::protocol::{ImageOut, Pass, PluginProgress};

use super::task::Watch;

/// Who follows a request: of its own steps and of those of what is drawn within it.
pub(super) struct Along<'a> {
    watch: &'a dyn Watch,
    /// Steps in all, as far as they are planned.
    all: u32,
    /// The request's own that are done, and those of what was drawn within it.
    own: AtomicU32,
    within: AtomicU32,
    /// Nanoseconds that it waited for those.
    waited: AtomicU64,
}

impl<'a> Along<'a> {
    /// Where so many steps were done within it before.
    pub(super) fn new(watch: &'a dyn Watch, all: u32, within: u32) -> Self {
        let (own, within, waited) = (AtomicU32::new(0), AtomicU32::new(within), AtomicU64::new(0));
        Self { watch, all, own, within, waited }
    }

    /// Steps that were done within it.
    pub(super) fn within(&self) -> u32 {
        self.within.load(Ordering::Relaxed)
    }

    fn add(&self, steps: u32, waited: Duration) {
        self.within.fetch_add(steps, Ordering::Relaxed);
        self.waited.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Tells that so many steps of the whole are done, where `left` are known to be to do, which take `eta_s`.
    fn tell(&self, pass: Option<Pass>, stage: &str, done: u32, (left, eta_s): (u32, Option<f64>)) {
        let all = self.all.max(done.saturating_add(left));
        let to_do = all.saturating_sub(done);
        let eta_s = eta_s.filter(|_| left > 0 || to_do == 0);
        let eta_s = eta_s.map(|eta| if left > 0 { eta / f64::from(left) * f64::from(to_do) } else { eta });
        self.watch.progress_of(pass, stage, (done, all), eta_s);
    }
}

impl Watch for Along<'_> {
    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }

    fn progress_of(&self, pass: Option<Pass>, stage: &str, (step, steps): (u32, u32), eta_s: Option<f64>) {
        let within = self.within();
        self.own.store(step, Ordering::Relaxed);
        if within == 0 {
            return self.watch.progress_of(pass, stage, (step, steps), eta_s);
        }
        // What the request counts as left has what was drawn within it meanwhile.
        let left = steps.saturating_sub(step).saturating_sub(within);
        let eta_s = eta_s.map(|eta| eta / f64::from(steps.saturating_sub(step).max(1)) * f64::from(left));
        self.tell(pass, stage, step.saturating_add(within), (left, eta_s));
    }

    fn preview(&self, pass: Pass, step: u32, image: ImageOut) {
        self.watch.preview(pass, step.saturating_add(self.within()), image);
    }

    fn plugin_progress(&self, progress: PluginProgress) {
        self.watch.plugin_progress(progress);
    }

    fn plugin_preview(&self, plugin: &str, image: ImageOut) {
        self.watch.plugin_preview(plugin, image);
    }

    fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }
}

/// Who follows a request that is drawn within another one.
pub(super) struct Nested<'a> {
    along: &'a Along<'a>,
    /// Is told which share is done.
    told: &'a (dyn Fn(f64) + Sync),
}

impl<'a> Nested<'a> {
    pub(super) fn new(along: &'a Along<'a>, told: &'a (dyn Fn(f64) + Sync)) -> Self {
        Self { along, told }
    }

    /// It has ended, with so many steps, after so long.
    pub(super) fn end(self, steps: u32, waited: Duration) {
        self.along.add(steps, waited);
    }

    fn before(&self) -> u32 {
        self.along.own.load(Ordering::Relaxed).saturating_add(self.along.within())
    }
}

impl Watch for Nested<'_> {
    fn is_cancelled(&self) -> bool {
        self.along.is_cancelled()
    }

    fn progress_of(&self, pass: Option<Pass>, stage: &str, (step, steps): (u32, u32), eta_s: Option<f64>) {
        (self.told)(f64::from(step) / f64::from(steps.max(1)));
        let left = steps.saturating_sub(step);
        self.along.tell(pass, stage, self.before().saturating_add(step), (left, eta_s));
    }

    fn preview(&self, pass: Pass, step: u32, image: ImageOut) {
        self.along.watch.preview(pass, self.before().saturating_add(step), image);
    }

    fn plugin_progress(&self, progress: PluginProgress) {
        self.along.plugin_progress(progress);
    }

    fn plugin_preview(&self, plugin: &str, image: ImageOut) {
        self.along.plugin_preview(plugin, image);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Remembers what it is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<(u32, u32, Option<f64>)>>);

    impl Watch for Told {
        fn is_cancelled(&self) -> bool {
            false
        }

        fn progress_of(
            &self,
            _pass: Option<Pass>,
            _stage: &str,
            (step, steps): (u32, u32),
            eta_s: Option<f64>,
        ) {
            self.0.lock().expect("told").push((step, steps, eta_s));
        }

        fn preview(&self, _pass: Pass, _step: u32, _image: ImageOut) {}
    }

    #[test]
    fn steps_within_count_as_the_requests_own() {
        let told = Told::default();
        // 10 of its own, and twice 4 within.
        let along = Along::new(&told, 18, 0);
        let shares = Mutex::new(vec![]);
        along.progress("denoising", 10, 18, Some(8.0));
        for _ in 0..2 {
            let share = |share: f64| shares.lock().expect("told").push(share);
            let nested = Nested::new(&along, &share);
            nested.progress("denoising", 2, 4, Some(1.0));
            nested.progress("decoding", 4, 4, Some(0.0));
            nested.end(4, Duration::from_secs(1));
        }
        // More than was planned.
        let share = |_: f64| ();
        let nested = Nested::new(&along, &share);
        nested.progress("denoising", 1, 4, Some(3.0));
        nested.end(4, Duration::ZERO);
        along.progress("denoising", 10, 18, Some(8.0));
        let expected = [
            (10, 18, Some(8.0)),
            (12, 18, Some(3.0)),
            (14, 18, None),
            (16, 18, Some(1.0)),
            (18, 18, Some(0.0)),
            (19, 22, Some(3.0)),
            (22, 22, Some(0.0)),
        ];
        assert_eq!(*told.0.lock().expect("told"), expected);
        assert_eq!(*shares.lock().expect("told"), [0.5, 1.0, 0.5, 1.0]);
        assert_eq!(along.waited(), Duration::from_secs(2));
    }
}
