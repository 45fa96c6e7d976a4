//! The engines that a job will run, found and described as its request comes, with those that these run in their turn.

use super::Plugins;
use super::call::Job;
use super::engine_calls::Needed;
use super::engines::Engine;
use crate::error::{Class, Error, Result};

/// Engines that run one within the other, and of one job in all.
const DEEPEST: usize = 4;
const MOST: usize = 256;

impl Plugins {
    /// Puts to `engines` those that are needed, each once, and those that they need. What is `known` stays as it was found.
    pub(crate) fn plan_engines(
        &self,
        needed: &[Needed],
        known: &[Engine],
        job: &dyn Job,
        engines: &mut Vec<Engine>,
    ) -> Result<()> {
        let planning = Planning { plugins: self, known, job };
        let first: Vec<(String, Vec<Needed>)> =
            engines.iter().map(|engine| (engine.at(), engine.needed.clone())).collect();
        for (at, needed) in first {
            let mut path = vec![at];
            needed.iter().try_for_each(|needed| planning.plan(needed, &mut path, engines))?;
        }
        needed.iter().try_for_each(|needed| planning.plan(needed, &mut vec![], engines))
    }
}

/// Where engines are looked for.
struct Planning<'a> {
    plugins: &'a Plugins,
    /// Those that were found for what is around.
    known: &'a [Engine],
    job: &'a dyn Job,
}

impl Planning<'_> {
    fn plan(&self, needed: &Needed, path: &mut Vec<String>, engines: &mut Vec<Engine>) -> Result<()> {
        let at = format!("{} '{}'", needed.kind.name(), needed.name);
        let round = |text: &str| {
            let names = [&path[..], std::slice::from_ref(&at)].concat().join(", ");
            Err(Error::new(Class::Plugin, format!("{}: engines run each other {text}: {names}", needed.by)))
        };
        if path.contains(&at) {
            return round("in a circle");
        }
        let is_it = |engine: &Engine| engine.kind == needed.kind && engine.entry == needed.name;
        if engines.iter().any(is_it) {
            return Ok(());
        }
        if path.len() >= DEEPEST {
            return round("more than four deep");
        }
        if engines.len() >= MOST {
            return Err(Error::invalid(format!("{}: more than {MOST} engines in one job", needed.by)));
        }
        let Needed { kind, name, by } = needed;
        let versions = self.job.versions();
        let is_wanted = |engine: &&Engine| {
            let version = versions.get(engine.plugin());
            is_it(engine) && version.is_none_or(|version| version == engine.version())
        };
        let engine = match self.known.iter().find(is_wanted) {
            Some(engine) => engine.clone(),
            None => self.plugins.engine(*kind, name, (by, &[]), self.job)?,
        };
        path.push(at);
        engine.needed.iter().try_for_each(|needed| self.plan(needed, path, engines))?;
        path.pop();
        engines.push(engine);
        Ok(())
    }
}
