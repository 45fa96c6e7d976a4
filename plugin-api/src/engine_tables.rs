//! What [`export!`](crate::export!) makes of a plugin's engines: one table, which tells kinds apart.

use std::ffi::c_void;
use std::marker::PhantomData;

use crate::abi::{
    LATENTD_DETECTOR, LATENTD_OK, LATENTD_PREPROCESSOR, LATENTD_RESTORER, LATENTD_TAGGER,
    LATENTD_UNSUPPORTED, LATENTD_UPSCALER, latentd_call, latentd_engine_facts, latentd_engine_run,
    latentd_engine_stage, latentd_plan, latentd_status,
};
use crate::call::Call;
pub use crate::engines::DetectedFn;
use crate::engines::{self, EngineRun, Entry, Upscaling, asked};
use crate::error::{Error, Result};
use crate::host::{give_back, lent};
use crate::job::{Plan, Plugin};
use crate::running::{instance, run};

type Describe = fn(&Entry<'_>, &mut latentd_engine_facts) -> Result<()>;
type Run<P> = unsafe fn(&P, Call<'_>, &latentd_engine_run, Option<DetectedFn>) -> Result<()>;

/// What a plugin has of one kind.
pub struct Of<P> {
    kind: u32,
    describe: Describe,
    run: Run<P>,
}

type DescribeFn = unsafe extern "C" fn(
    call: *mut latentd_call,
    run: *const latentd_engine_run,
    plan: *const latentd_plan,
    facts: *mut latentd_engine_facts,
) -> latentd_status;
type RunFn = unsafe extern "C" fn(
    instance: *mut c_void,
    call: *mut latentd_call,
    run: *const latentd_engine_run,
    detected: Option<DetectedFn>,
) -> latentd_status;

/// The table of both.
pub const fn table(describe: DescribeFn, run: RunFn) -> latentd_engine_stage {
    latentd_engine_stage {
        size: size_of::<latentd_engine_stage>() as u32,
        reserved: 0,
        describe: Some(describe),
        run: Some(run),
    }
}

/// As a request comes.
///
/// # Safety
/// As the ABI says.
pub unsafe fn describe<P>(
    kinds: &[Of<P>],
    call: *mut latentd_call,
    told: *const latentd_engine_run,
    plan: *const latentd_plan,
    facts: *mut latentd_engine_facts,
) -> latentd_status {
    run(call, |call| {
        // SAFETY: as the ABI says.
        let (told, mut own) = unsafe { (asked(told)?, lent(facts.cast_const())?) };
        // SAFETY: as the ABI says.
        let entry = unsafe { Entry::of(call, &told, Plan::of(call, plan)?) };
        (of(kinds, &told)?.describe)(&entry, &mut own)?;
        // SAFETY: as the ABI says; as far as the host knows it.
        unsafe { give_back(&own, facts) };
        Ok(LATENTD_OK)
    })
}

/// A run.
///
/// # Safety
/// As the ABI says.
pub unsafe fn run_engine<P: Plugin>(
    kinds: &[Of<P>],
    given: *mut c_void,
    call: *mut latentd_call,
    told: *const latentd_engine_run,
    detected: Option<DetectedFn>,
) -> latentd_status {
    run(call, |call| {
        // SAFETY: as the ABI says.
        let (plugin, told) = unsafe { (instance::<P>(given)?, asked(told)?) };
        // SAFETY: as the ABI says.
        unsafe { (of(kinds, &told)?.run)(plugin, call, &told, detected) }?;
        Ok(LATENTD_OK)
    })
}

fn of<'a, P>(kinds: &'a [Of<P>], told: &latentd_engine_run) -> Result<&'a Of<P>> {
    let of = kinds.iter().find(|of| of.kind == told.kind);
    of.ok_or_else(|| Error::new(LATENTD_UNSUPPORTED, "the plugin has no engines of this kind"))
}

/// What a plugin has of upscalers.
pub struct Upscaler<P>(PhantomData<P>);

/// cbindgen:ignore
impl<P: engines::Upscaler> Upscaler<P> {
    /// Of this kind.
    pub const OF: Of<P> = Of { kind: LATENTD_UPSCALER, describe: Self::describe, run: Self::run };

    fn describe(entry: &Entry<'_>, facts: &mut latentd_engine_facts) -> Result<()> {
        let said = P::describe(entry)?;
        (facts.scale, facts.tile, facts.overlap) = (said.scale, said.tile, said.overlap);
        (facts.multiple, facts.most_at_once, facts.as_float) = (said.multiple, said.most_at_once, 1);
        Ok(())
    }

    unsafe fn run(
        plugin: &P,
        call: Call<'_>,
        told: &latentd_engine_run,
        _: Option<DetectedFn>,
    ) -> Result<()> {
        // SAFETY: as the caller says.
        plugin.upscale(&unsafe { Upscaling::of(call, told) })
    }
}

macro_rules! kind {
    ($(#[doc = $doc:literal])+ $name:ident: $kind:ident, $function:ident) => {
        $(#[doc = $doc])+
        pub struct $name<P>(PhantomData<P>);

        impl<P: engines::$name> $name<P> {
            /// Of this kind.
            pub const OF: Of<P> = Of { kind: $kind, describe: Self::describe, run: Self::run };

            fn describe(entry: &Entry<'_>, _: &mut latentd_engine_facts) -> Result<()> {
                P::describe(entry)
            }

            unsafe fn run(
                plugin: &P,
                call: Call<'_>,
                told: &latentd_engine_run,
                detected: Option<DetectedFn>,
            ) -> Result<()> {
                // SAFETY: as the caller says.
                plugin.$function(&unsafe { EngineRun::of(call, told, detected) }?)
            }
        }
    };
}

kind!(/// What a plugin has of restorers.
    Restorer: LATENTD_RESTORER, restore);
kind!(/// What a plugin has of preprocessors.
    Preprocessor: LATENTD_PREPROCESSOR, preprocess);
kind!(/// What a plugin has of detectors.
    Detector: LATENTD_DETECTOR, detect);
kind!(/// What a plugin has of taggers.
    Tagger: LATENTD_TAGGER, tag);
