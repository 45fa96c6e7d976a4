//! What plugins will draw within a job: resolved with it, so that what is wrong in it is told before anything is drawn.

use std::cell::Cell;
use std::sync::Arc;

use latentd_client::protocol::ImageIn;
use rmpv::Value;

use super::draw::{Begun, Draw, Planned, Within};
use super::from_pictures::FromPictures;
use super::rewriting::Rewritten;
use super::studio::Studio;
use super::subrequest::{self, Asked, Method, Pictures, SubRequest};
use super::task::Watch;
use crate::error::{Class, Error, Result};
use crate::memory::{Expected, Memory};
use crate::plugins::{JobPlugins, MOST_DEPTH, SubPlan};

/// Of a job, with those of its own, at all depths.
const MOST: u32 = 256;

/// What jobs are drawn within: a request, or what a plugin's method does.
pub(super) struct Around<'a> {
    /// What patches are laid over: a map.
    pub request: Value,
    pub depth: u32,
    /// Bytes that are taken beside what is drawn.
    pub beside: u64,
    /// Its plugins: what they were given stays as it was settled.
    pub plugins: Option<&'a JobPlugins>,
    /// `(width, height)` of the largest picture that plugins see of it.
    pub largest: (usize, usize),
}

impl Around<'_> {
    /// Settles what plugins planned, each with its name; what was settled `before` names what it named then.
    pub(super) fn planned<'p>(
        &self,
        plans: impl IntoIterator<Item = (&'p str, &'p SubPlan)>,
        asking: (&Arc<Studio>, &dyn Watch),
        before: &[Planned],
    ) -> Result<Vec<Planned>> {
        self.planned_with(plans, asking, before, &Cell::new(0))
    }

    fn planned_with<'p>(
        &self,
        plans: impl IntoIterator<Item = (&'p str, &'p SubPlan)>,
        asking: (&Arc<Studio>, &dyn Watch),
        before: &[Planned],
        count: &Cell<u32>,
    ) -> Result<Vec<Planned>> {
        let plans = plans.into_iter().map(|(plugin, plan)| {
            let before = find(before, plugin, plan.key);
            count.set(count.get() + 1);
            let planned = if count.get() > MOST {
                Err(Error::invalid(format!("a job has {MOST} sub-jobs at most, with those within them")))
            } else {
                self.planned_one(plugin, plan, asking, before, count)
            };
            planned.map_err(|error| of_plan(error, plugin, plan))
        });
        plans.collect()
    }

    fn planned_one(
        &self,
        plugin: &str,
        plan: &SubPlan,
        asking: (&Arc<Studio>, &dyn Watch),
        before: Option<&Planned>,
        count: &Cell<u32>,
    ) -> Result<Planned> {
        let SubPlan { key, expected, most, batch, ref method, ref patch, ref without } = *plan;
        let request = self.subrequest(method, patch, (plugin, without))?;
        let prompts = |field: &str| vec![request.prompt(field, 0).to_owned(); batch as usize];
        let seeds = vec![(0, 0); batch as usize];
        let pictures = match request.method {
            Method::Txt2Img => Pictures::default(),
            // As large as those that there will be.
            Method::Img2Img => {
                let (width, height) = self.largest;
                let nothing = ImageIn::raw(vec![0; width * height], width as u32, height as u32, 1);
                Pictures { init: vec![nothing.clone()], masks: vec![nothing] }
            }
        };
        let asked = request.asked([prompts("prompt"), prompts("negative_prompt")], (0, 0), pictures)?;
        let mut draw = self.settled(asked, &seeds, before.map(|before| &before.draw), asking)?;
        let within = before.map_or(&[][..], |before| &before.draw.subjobs);
        draw.subjobs = draw.around()?.planned_with(draw.plugins.subplans(), asking, within, count)?;
        Ok(Planned { plugin: plugin.to_owned(), key, request, expected, most, batch, draw })
    }

    /// What a plugin's patch makes of the request.
    pub(super) fn subrequest(
        &self,
        method: &str,
        patch: &[u8],
        planner: (&str, &[String]),
    ) -> Result<SubRequest> {
        if self.depth >= MOST_DEPTH {
            let text = format!("jobs lie {MOST_DEPTH} deep within one another at most");
            return Err(Error::new(Class::Unsupported, text));
        }
        SubRequest::new(Method::named(method)?, self.request.clone(), patch, planner)
    }

    /// Settles a request that is drawn within this, but for those of its own.
    fn settled(
        &self,
        asked: Asked,
        seeds: &[(u64, u64)],
        planned: Option<&Draw>,
        (studio, watch): (&Arc<Studio>, &dyn Watch),
    ) -> Result<Draw> {
        let within = Within {
            depth: self.depth + 1,
            beside: self.beside,
            around: self.plugins,
            planned,
            seeds: Some(seeds),
        };
        match asked {
            Asked::Txt2Img(params) => Draw::resolve(Rewritten::plain(*params), None, studio, watch, within),
            Asked::Img2Img(mut params) => {
                let drawing = std::mem::take(&mut params.drawing);
                let begun = Some(Begun::Pictures(*params));
                Draw::resolve(Rewritten::plain(drawing), begun, studio, watch, within)
            }
        }
    }

    /// Settles a request that is drawn within this, with those of its own. It names what it named as it was `planned`.
    pub(super) fn whole(
        &self,
        asked: Asked,
        seeds: &[(u64, u64)],
        planned: Option<&Draw>,
        asking: (&Arc<Studio>, &dyn Watch),
    ) -> Result<Draw> {
        let draw = self.settled(asked, seeds, planned, asking)?;
        draw.with_subjobs(asking, planned.map_or(&[], |planned| &planned.subjobs))
    }
}

impl Draw {
    /// The same with what its plugins will draw within it. What was settled `before` names what it named then.
    pub(super) fn with_subjobs(
        mut self,
        asking: (&Arc<Studio>, &dyn Watch),
        before: &[Planned],
    ) -> Result<Self> {
        if self.plugins.subplans().next().is_some() {
            self.subjobs = self.around()?.planned(self.plugins.subplans(), asking, before)?;
        }
        Ok(self)
    }

    /// What it is for jobs that are drawn within it.
    pub(super) fn around(&self) -> Result<Around<'_>> {
        let begun = self.told.begun.as_deref().filter(|_| self.told.outpaint.is_none());
        let drawn = self.drawing.largest();
        let finished = self.from.as_ref().map_or(drawn, FromPictures::finished_size);
        Ok(Around {
            request: subrequest::around(self.plugins.request(), begun)?,
            depth: self.depth,
            beside: self.wishes.plugins,
            plugins: Some(&self.plugins),
            largest: (drawn.0.max(finished.0), drawn.1.max(finished.1)),
        })
    }
}

/// What a plugin planned with this number.
pub(super) fn find<'a>(planned: &'a [Planned], plugin: &str, key: u32) -> Option<&'a Planned> {
    planned.iter().find(|planned| planned.plugin == plugin && planned.key == key)
}

/// Steps of what was planned, as often as is expected.
pub(super) fn steps(planned: &[Planned]) -> u32 {
    let steps = planned.iter().map(|planned| planned.draw.steps().saturating_mul(planned.expected));
    steps.fold(0, u32::saturating_add)
}

/// Tells that the checkpoints of what is drawn later are needed until this is dropped: they do not go between two runs.
pub(super) fn expected<'a>(planned: &[Planned], memory: &'a Memory) -> Vec<Expected<'a>> {
    let draws = planned.iter().map(|planned| &planned.draw);
    let all = draws.flat_map(|draw| {
        let own = Expected::new(memory, &draw.files, &draw.known, draw.wishes.keep_alive);
        std::iter::once(own).chain(expected(&draw.subjobs, memory))
    });
    all.collect()
}

/// An error of a plan, with whose it is.
fn of_plan(error: Error, plugin: &str, plan: &SubPlan) -> Error {
    if error.class == Class::Cancelled {
        return error;
    }
    let text = format!("plugin '{plugin}', sub-job {} ({}): {}", plan.key, plan.method, error.text);
    Error { text, ..error }
}
