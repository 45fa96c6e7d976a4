//! What plugins will draw within a request: resolved with it, so that what is wrong in it is told before anything is drawn.

use std::cell::Cell;
use std::sync::Arc;

use latentd_client::protocol::ImageIn;

use super::draw::{Begun, Draw, Planned, Within};
use super::from_pictures::FromPictures;
use super::rewriting::Rewritten;
use super::studio::Studio;
use super::subrequest::{Asked, Method, Pictures, SubRequest, around};
use super::task::Watch;
use crate::error::{Class, Error, Result};
use crate::plugins::{MOST_DEPTH, SubPlan};

/// Of a request, with those of its own, at all depths.
const MOST: u32 = 256;

impl Draw {
    /// The same with what its plugins will draw within it. `planned` is the same request where that was settled before.
    pub(super) fn with_subjobs(
        self,
        studio: &Arc<Studio>,
        watch: &dyn Watch,
        planned: Option<&Self>,
    ) -> Result<Self> {
        self.planned_with((studio, watch), planned, &Cell::new(0))
    }

    fn planned_with(
        mut self,
        (studio, watch): (&Arc<Studio>, &dyn Watch),
        before: Option<&Self>,
        count: &Cell<u32>,
    ) -> Result<Self> {
        let mut subjobs = vec![];
        for (plugin, plan) in self.plugins.subplans() {
            let before =
                before.and_then(|before| before.subjob(plugin, plan.key)).map(|planned| &planned.draw);
            count.set(count.get() + 1);
            let planned = if count.get() > MOST {
                Err(Error::invalid(format!("a request has {MOST} sub-jobs at most, with those within them")))
            } else {
                self.planned(plugin, plan, (studio, watch), before, count)
            };
            subjobs.push(planned.map_err(|error| of_plan(error, plugin, plan))?);
        }
        self.subjobs = subjobs;
        Ok(self)
    }

    /// One that was planned.
    pub(super) fn subjob(&self, plugin: &str, key: u32) -> Option<&Planned> {
        self.subjobs.iter().find(|planned| planned.plugin == plugin && planned.key == key)
    }

    fn planned(
        &self,
        plugin: &str,
        plan: &SubPlan,
        (studio, watch): (&Arc<Studio>, &dyn Watch),
        before: Option<&Self>,
        count: &Cell<u32>,
    ) -> Result<Planned> {
        let SubPlan { key, expected, most, batch, ref method, ref patch, ref without } = *plan;
        let request = self.subrequest(method, patch, (plugin, without))?;
        let prompts = |field: &str| vec![request.prompt(field, 0).to_owned(); batch as usize];
        let seeds = vec![(self.drawing.seed, 0); batch as usize];
        let pictures = match request.method {
            Method::Txt2Img => Pictures::default(),
            // As large as those that there will be.
            Method::Img2Img => {
                let (width, height) = self.picture_size();
                let nothing = ImageIn::raw(vec![0; width * height], width as u32, height as u32, 1);
                Pictures { init: vec![nothing.clone()], masks: vec![nothing] }
            }
        };
        let asked = request.asked([prompts("prompt"), prompts("negative_prompt")], (0, 0), pictures)?;
        let draw = self.within(asked, &seeds, before, (studio, watch))?;
        let draw = draw.planned_with((studio, watch), before, count)?;
        Ok(Planned { plugin: plugin.to_owned(), key, request, expected, most, batch, draw })
    }

    /// What a plugin's patch makes of this request.
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
        let method = Method::named(method)?;
        let begun = self.told.begun.as_deref().filter(|_| self.told.outpaint.is_none());
        SubRequest::new(method, around(self.plugins.request(), begun)?, patch, planner)
    }

    /// Settles a request that is drawn within this one; its own are not looked at.
    pub(super) fn within(
        &self,
        asked: Asked,
        seeds: &[(u64, u64)],
        planned: Option<&Self>,
        (studio, watch): (&Arc<Studio>, &dyn Watch),
    ) -> Result<Self> {
        let within = Within {
            depth: self.depth + 1,
            beside: self.wishes.plugins,
            around: Some(&self.plugins),
            planned,
            seeds: Some(seeds),
        };
        match asked {
            Asked::Txt2Img(params) => Self::resolve(Rewritten::plain(*params), None, studio, watch, within),
            Asked::Img2Img(mut params) => {
                let drawing = std::mem::take(&mut params.drawing);
                let begun = Some(Begun::Pictures(*params));
                Self::resolve(Rewritten::plain(drawing), begun, studio, watch, within)
            }
        }
    }

    /// `(width, height)` of the largest picture that its plugins see.
    fn picture_size(&self) -> (usize, usize) {
        let drawn = self.drawing.largest();
        let finished = self.from.as_ref().map_or(drawn, FromPictures::finished_size);
        (drawn.0.max(finished.0), drawn.1.max(finished.1))
    }
}

/// An error of a plan, with whose it is.
fn of_plan(error: Error, plugin: &str, plan: &SubPlan) -> Error {
    if error.class == Class::Cancelled {
        return error;
    }
    let text = format!("plugin '{plugin}', sub-job {} ({}): {}", plan.key, plan.method, error.text);
    Error { text, ..error }
}
