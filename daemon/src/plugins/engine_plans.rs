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
    /// Puts to `engines` those that are needed, each once, and those that they need.
    pub(crate) fn plan_engines(
        &self,
        needed: &[Needed],
        job: &dyn Job,
        engines: &mut Vec<Engine>,
    ) -> Result<()> {
        let first: Vec<(String, Vec<Needed>)> =
            engines.iter().map(|engine| (engine.at(), engine.needed.clone())).collect();
        for (at, needed) in first {
            let mut path = vec![at];
            needed.iter().try_for_each(|needed| self.plan_engine(needed, &mut path, job, engines))?;
        }
        needed.iter().try_for_each(|needed| self.plan_engine(needed, &mut vec![], job, engines))
    }

    fn plan_engine(
        &self,
        needed: &Needed,
        path: &mut Vec<String>,
        job: &dyn Job,
        engines: &mut Vec<Engine>,
    ) -> Result<()> {
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
        let engine = self.engine(needed.kind, &needed.name, (&needed.by, &[]), job)?;
        path.push(at);
        engine.needed.iter().try_for_each(|needed| self.plan_engine(needed, path, job, engines))?;
        path.pop();
        engines.push(engine);
        Ok(())
    }
}
