//! What is looked at in a plugin's engines: that each makes of whatever picture what its kind makes, the same again, and gives up in
//! peace.

use std::cell::RefCell;
use std::sync::Arc;

use latentd_client::protocol::LibraryKind;
use latentd_plugin_api::abi::{latentd_engine_run, latentd_job};

use super::bench::{Bench, Looked, Ready, fail, may, must};
use super::inputs::{Random, Values};
use super::outcome::Outcome;
use super::wider::Roomy;
use crate::error::{Class, Error, Result};
use crate::plugins::engine_calls::{Answered, Asked, RunsEngines};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::engines::{Engine, Engines, JobOf, coloured, described};
use crate::plugins::host::{bytes, detected, text};
use crate::plugins::lending::{Lending, Made};
use crate::plugins::objects::{Content, Image, Objects};
use crate::plugins::opened::Opened;

/// Entries of a kind that are looked at.
const ENTRIES: usize = 8;
/// Allocations of a call that are refused, each in a call of its own.
const REFUSALS: u32 = 8;
/// An empty map.
const NOTHING: &[u8] = &[0x80];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Usual,
    /// From a pixel on, narrow and wide.
    Sizes,
    /// Black, white, and what no picture is like.
    Extremes,
    /// With alpha, in grey.
    Channels,
    /// Sizes, strengths and thresholds at their ends, and a mask.
    Wishes,
    /// A host that gives no picture, and one whose structs are larger.
    NoImage,
    LargerStructs,
    Repeat,
    Cancelled,
    NoMemory,
    /// Entries that are library files.
    LibraryFiles,
}

/// All of them, by their names.
pub(super) const ALL: [(&str, Check); 10] = [
    ("usual", Check::Usual),
    ("sizes", Check::Sizes),
    ("extremes", Check::Extremes),
    ("channels", Check::Channels),
    ("wishes", Check::Wishes),
    ("no-image", Check::NoImage),
    ("larger-structs", Check::LargerStructs),
    ("repeat", Check::Repeat),
    ("cancelled", Check::Cancelled),
    ("no-memory", Check::NoMemory),
];

/// What is told of entries that are library files.
pub(super) const OF_FILES: (&str, Check) = ("library-files", Check::LibraryFiles);

/// Does one.
pub(super) fn run(ready: &Ready, kind: Kind, check: Check, random: &mut Random) -> Outcome {
    look(ready, kind, check, random).err().unwrap_or(Outcome::Ok)
}

fn look(ready: &Ready, kind: Kind, check: Check, random: &mut Random) -> Looked {
    let named = ready.plugin.manifest.engines.iter().find(|named| named.kind == kind);
    if check == Check::LibraryFiles {
        let library = named.and_then(|named| named.library);
        let library = LibraryKind::ALL.into_iter().find(|(own, _)| Some(*own) == library);
        return Err(Outcome::Skipped(format!(
            "each {} of the library is an entry, and there is no library here: none was run",
            library.map_or("file", |(_, name)| name)
        )));
    }
    let mut entries = named.into_iter().flat_map(|named| &named.entries).take(ENTRIES);
    entries.try_for_each(|entry| {
        ready.at(entry);
        Entry { ready, kind, name: entry }.look(check, random)
    })
}

/// An entry that is looked at.
struct Entry<'a> {
    ready: &'a Ready,
    kind: Kind,
    name: &'a str,
}

impl Entry<'_> {
    fn engine(&self, job: &Bench) -> Looked<Engine> {
        let engine =
            must(Engine::describe(Arc::clone(&self.ready.plugin), self.kind, (self.name, None), job), "")?;
        match engine.needed.first() {
            Some(other) => Err(Outcome::Skipped(format!(
                "'{}' runs the {} '{}', and there are no others here",
                self.name,
                other.kind.name(),
                other.name
            ))),
            None => Ok(engine),
        }
    }

    fn asked(
        &self,
        (width, height, channels): (usize, usize, usize),
        values: Values,
        random: &mut Random,
    ) -> Asked {
        let pixels = Arc::new(values.pixels(random, width * height * channels));
        Asked {
            kind: self.kind,
            entry: self.name.to_owned(),
            image: Image { width, height, channels, pixels },
            mask: None,
            width: 0,
            height: 0,
            strength: 1.0,
            threshold: 0.0,
            params: vec![],
        }
    }

    /// Runs it as the host does.
    fn made(&self, asked: &Asked, job: &Bench) -> Looked<Result<Answered>> {
        let all = [self.engine(job)?];
        let of = JobOf {
            method: "txt2img",
            request: &self.ready.request,
            pictures: 1,
            batch: 1,
            engines: &all,
            depth: 0,
        };
        Ok(Engines::new(of, job).run(asked))
    }

    fn look(&self, check: Check, random: &mut Random) -> Looked {
        let usual = (72, 40, 3);
        let at = |asked: &Asked| {
            let Asked { image, width, height, strength, threshold, .. } = asked;
            format!(
                "'{}' of {}x{}, wanted {width}x{height}, strength {strength}, threshold {threshold}",
                self.name, image.width, image.height
            )
        };
        let must_do = |asked: &Asked| must(self.made(asked, &Bench::new())?, &at(asked)).map(drop);
        let may_do = |asked: &Asked| {
            self.ready.at(&at(asked));
            may(self.made(asked, &Bench::new())?, &at(asked)).map(drop)
        };
        match check {
            Check::Usual => [usual, (128, 96, 3)]
                .into_iter()
                .try_for_each(|size| must_do(&self.asked(size, Values::Usual, random))),
            Check::Sizes => [(1, 1, 3), (1, 90, 3), (90, 1, 3), (17, 23, 3), (64, 64, 3)]
                .into_iter()
                .try_for_each(|size| may_do(&self.asked(size, Values::Usual, random))),
            Check::Extremes => {
                Values::EXTREME.into_iter().try_for_each(|values| may_do(&self.asked(usual, values, random)))
            }
            Check::Channels => [1, 4]
                .into_iter()
                .try_for_each(|channels| may_do(&self.asked((40, 24, channels), Values::Usual, random))),
            Check::Wishes => self.wishes(random).iter().try_for_each(may_do),
            Check::NoImage => {
                let job = Bench::new();
                let engine = self.engine(&job)?;
                // It says what is wrong, or does nothing: all that matters is that it is there afterwards.
                drop(call(&engine, None, 0, &job));
                Ok(())
            }
            Check::LargerStructs => {
                let job = Bench::new();
                let engine = self.engine(&job)?;
                let asked = self.asked((24, 16, 3), Values::Usual, random);
                let image = must(coloured(&asked.image, engine.as_float), "")?;
                must(call(&engine, Some(image), 64, &job), "its arguments' structs are larger")
            }
            Check::Repeat => {
                let asked = self.asked(usual, Values::Usual, random);
                let answer = || must(self.made(&asked, &Bench::new())?, &at(&asked)).map(|made| shown(&made));
                if answer()? == answer()? {
                    return Ok(());
                }
                fail(format!("{}: not repeatable: the same picture gives something else", at(&asked)))
            }
            Check::Cancelled => {
                let job = Bench::new();
                let asked = self.asked((24, 16, 3), Values::Usual, random);
                let engine = self.engine(&job)?;
                let image = must(coloured(&asked.image, engine.as_float), "")?;
                job.cancel();
                match call(&engine, Some(image), 0, &job) {
                    Err(Error { class: Class::Cancelled, .. }) => Ok(()),
                    answer => must(answer, "the job was cancelled"),
                }
            }
            Check::NoMemory => (0..REFUSALS).try_for_each(|count| {
                let job = Bench::new();
                let asked = self.asked(usual, Values::Usual, random);
                let all = [self.engine(&job)?];
                job.grant(count);
                let of =
                    JobOf { method: "txt2img", request: &[], pictures: 1, batch: 1, engines: &all, depth: 0 };
                match Engines::new(of, &job).run(&asked) {
                    Err(_) if job.refused() > 0 => Ok(()),
                    answer => {
                        must(answer, &format!("after {count} allocations there was no memory")).map(drop)
                    }
                }
            }),
            // Of those nothing is asked here.
            Check::LibraryFiles => Ok(()),
        }
    }

    fn wishes(&self, random: &mut Random) -> Vec<Asked> {
        let usual = self.asked((40, 24, 3), Values::Usual, random);
        let sized = |(width, height)| Asked { width, height, ..usual.clone() };
        let mut all: Vec<Asked> = [(1, 1), (512, 8), (0, 64), (80, 48)].map(sized).to_vec();
        all.extend([0.0, 0.5, 1.0].map(|strength| Asked { strength, ..usual.clone() }));
        all.extend([0.0, 1e-9, 0.5, 1.0].map(|threshold| Asked { threshold, ..usual.clone() }));
        for values in [Values::Usual, Values::EXTREME[0]] {
            let mask = self.asked((40, 24, 1), values, random).image;
            all.push(Asked { mask: Some(mask), ..usual.clone() });
        }
        all
    }
}

/// What it made, to be compared.
fn shown(made: &Answered) -> String {
    let Answered { image, detections, data } = made;
    let detections: Vec<_> =
        detections.iter().map(|found| (&found.label, found.score, found.bounds)).collect();
    format!("{image:?} {detections:?} {data:?}")
}

/// Calls it with an image or none, and zeros behind what it is told.
fn call(engine: &Engine, image: Option<Content>, behind: usize, job: &Bench) -> Result<()> {
    let (objects, opened) = (RefCell::<Objects>::default(), RefCell::<Opened>::default());
    let told = latentd_job {
        size: size_of::<latentd_job>() as u32,
        depth: 0,
        method: text("txt2img"),
        request: bytes(NOTHING),
        params: bytes(NOTHING),
        note: bytes(&[]),
        pictures: 1,
        batch: 1,
    };
    let (made, _) = Made::by(&engine.plugin, &told, job, (&objects, &opened))?;
    let Some(run) = engine.plugin.tables.engines.and_then(|table| table.run) else { return Ok(()) };
    let _ends = Lending::begin(&objects);
    let lend = |content| objects.borrow_mut().lend(content);
    let image = image.map(lend).transpose().map_err(|misuse| Error::internal(misuse.to_string()))?;
    let params = bytes(NOTHING);
    let image = image.unwrap_or_default();
    let told = latentd_engine_run { image, params, ..described(engine.kind, &engine.entry) };
    let told = Roomy::of(&told, behind);
    let call = engine.plugin.call(job, Some(&objects), None).with_opened(&opened);
    let finds = engine.kind.finds();
    call.with(|state| state.detections = finds.then(Vec::new));
    // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
    let status =
        unsafe { run(made.pointer(), call.pointer(), told.pointer(), finds.then_some(detected as _)) };
    call.end(status, &engine.at()).map(drop)
}
