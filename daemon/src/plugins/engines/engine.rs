//! An engine that a request names: its plugin in memory, and what it says of itself.

use std::cell::RefCell;
use std::sync::Arc;

use latentd_models::image::Tiling;
use latentd_plugin_api::abi::{LATENTD_SKIP, latentd_engine_facts, latentd_engine_run};

use crate::error::{Class, Error, Result};
use crate::library::Pinned;
use crate::plugins::call::{Answer, Job};
use crate::plugins::engine_calls::Needed;
use crate::plugins::engine_kinds::Kind;
use crate::plugins::host::{PLAN, bytes, text};
use crate::plugins::library::Plugin;
use crate::plugins::opened::Opened;

/// How many times as large an upscaler may make a picture.
const MOST_SCALE: u32 = 16;
/// Sides of a tile.
const MOST_TILE: u32 = 1 << 14;
/// What sides may have to be multiples of.
const MOST_MULTIPLE: u32 = 1 << 12;
/// Tiles at once.
const MOST_AT_ONCE: u32 = 64;

/// An engine.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(in crate::plugins) plugin: Arc<Plugin>,
    pub(crate) kind: Kind,
    pub(crate) entry: String,
    pub(in crate::plugins) tiling: Tiling,
    /// Whether pictures come and go as f32.
    pub(in crate::plugins) as_float: bool,
    /// The library file that it is, if it is one.
    pub(in crate::plugins) file: Option<Arc<Pinned>>,
    /// Bytes that it takes, as it says.
    pub(in crate::plugins) planned_bytes: u64,
    /// Others that it will run.
    pub(in crate::plugins) needed: Vec<Needed>,
}

impl Engine {
    /// The one of `known` that has its name, if one has: it stays as it was found.
    pub(crate) fn or_as_in(self, known: &[Self]) -> Self {
        let is_same = |other: &&Self| {
            (other.kind, &other.entry, other.version()) == (self.kind, &self.entry, self.version())
        };
        known.iter().find(is_same).cloned().unwrap_or(self)
    }

    /// Asks it of what it says of itself.
    pub(in crate::plugins) fn describe(
        plugin: Arc<Plugin>,
        kind: Kind,
        (entry, file): (&str, Option<Arc<Pinned>>),
        job: &dyn Job,
    ) -> Result<Self> {
        let mut facts = latentd_engine_facts {
            size: size_of::<latentd_engine_facts>() as u32,
            scale: 0,
            tile: 0,
            overlap: 0,
            multiple: 0,
            most_at_once: 0,
            as_float: 0,
            reserved: 0,
        };
        let at = format!("{} '{entry}'", kind.name());
        let name = &plugin.manifest.name;
        let wrong = |text: String| Error::new(Class::Plugin, format!("plugin '{name}', {at}: {text}"));
        let (mut planned_bytes, mut needed) = (0, vec![]);
        if let Some(describe) = plugin.tables.engines.and_then(|table| table.describe) {
            let opened = RefCell::new(Opened::new(file.iter().cloned().collect(), vec![]));
            let run = latentd_engine_run { file: u64::from(file.is_some()), ..asked(kind, entry) };
            let call = plugin.call(job, None, Some(Answer::default()));
            let call = call.with_opened(&opened);
            // SAFETY: what is lent lives until the function returns; the call is this one.
            let status = unsafe { describe(call.pointer(), &raw const run, &raw const PLAN, &raw mut facts) };
            let state = call.end(status, &at)?;
            if status == LATENTD_SKIP {
                return Err(wrong("describe answered SKIP, which plans and stages may".to_owned()));
            }
            let plan = state.plan.unwrap_or_default();
            if !plan.wants.is_empty() || !plan.note.is_empty() {
                return Err(wrong("describe wants stages or leaves a note, which are job.plan's".to_owned()));
            }
            if !plan.subjobs.is_empty() {
                return Err(wrong("describe plans sub-jobs, which are job.plan's".to_owned()));
            }
            planned_bytes = plan.planned_bytes();
            needed = plan.engines;
        }
        let (tiling, as_float) = checked(kind, &facts).map_err(wrong)?;
        let entry = entry.to_owned();
        Ok(Self { plugin, kind, entry, tiling, as_float, file, planned_bytes, needed })
    }

    /// The plugin's name.
    pub(crate) fn plugin(&self) -> &str {
        &self.plugin.manifest.name
    }

    /// The plugin's version.
    pub(crate) fn version(&self) -> &str {
        &self.plugin.manifest.version
    }

    /// How many times as large it makes pictures.
    pub(crate) fn scale(&self) -> usize {
        self.tiling.scale
    }

    /// As errors name it.
    pub(in crate::plugins) fn at(&self) -> String {
        format!("{} '{}'", self.kind.name(), self.entry)
    }
}

/// What a run is of that has no picture yet. It lives as long as `entry`.
pub(in crate::plugins) fn asked(kind: Kind, entry: &str) -> latentd_engine_run {
    latentd_engine_run {
        size: size_of::<latentd_engine_run>() as u32,
        kind: kind.code(),
        entry: text(entry),
        file: 0,
        image: 0,
        mask: 0,
        width: 0,
        height: 0,
        strength: 1.0,
        threshold: 0.0,
        params: bytes(&[]),
    }
}

/// What an engine says, if it can be meant.
fn checked(kind: Kind, facts: &latentd_engine_facts) -> Result<(Tiling, bool), String> {
    let latentd_engine_facts { scale, tile, overlap, multiple, most_at_once, as_float, .. } = *facts;
    let wanted = if kind == Kind::Upscaler { 1..=MOST_SCALE } else { 0..=1 };
    let within = |what: &str, value: u32, least: u32, most: u32| {
        if (least..=most).contains(&value) {
            return Ok(value as usize);
        }
        Err(format!("describe says {what} {value}; {least} to {most} are possible"))
    };
    let tiling = Tiling {
        scale: within("scale", scale, *wanted.start(), *wanted.end())?,
        size: within("tile", tile, 0, MOST_TILE)?,
        overlap: within("overlap", overlap, 0, if tile == 0 { MOST_TILE / 2 } else { tile / 2 })?,
        multiple: within("multiple", multiple, 0, MOST_MULTIPLE)?.max(1),
        at_once: within("most_at_once", most_at_once, 0, MOST_AT_ONCE)?.max(1),
    };
    if tiling.at_once > 1 && as_float == 0 {
        return Err(format!("describe says most_at_once {most_at_once}, which needs as_float"));
    }
    Ok((tiling, as_float != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_says_must_be_possible() {
        let facts = latentd_engine_facts {
            size: size_of::<latentd_engine_facts>() as u32,
            scale: 4,
            tile: 192,
            overlap: 8,
            multiple: 0,
            most_at_once: 0,
            as_float: 0,
            reserved: 0,
        };
        let tiling = Tiling { scale: 4, size: 192, overlap: 8, multiple: 1, at_once: 1 };
        assert_eq!(checked(Kind::Upscaler, &facts), Ok((tiling, false)));
        for (facts, expected) in [
            (latentd_engine_facts { scale: 0, ..facts }, "scale 0; 1 to 16"),
            (latentd_engine_facts { scale: 17, ..facts }, "scale 17; 1 to 16"),
            (latentd_engine_facts { overlap: 97, ..facts }, "overlap 97; 0 to 96"),
            (latentd_engine_facts { tile: u32::MAX, ..facts }, "tile 4294967295; 0 to"),
            (latentd_engine_facts { multiple: 5000, ..facts }, "multiple 5000"),
            (latentd_engine_facts { most_at_once: 4, ..facts }, "most_at_once 4, which needs as_float"),
        ] {
            let error = checked(Kind::Upscaler, &facts).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let float = latentd_engine_facts { most_at_once: 4, as_float: 1, ..facts };
        assert_eq!(
            checked(Kind::Upscaler, &float).map(|(tiling, float)| (tiling.at_once, float)),
            Ok((4, true))
        );
        assert!(checked(Kind::Restorer, &facts).expect_err("refused").contains("scale 4; 0 to 1"));
    }
}
