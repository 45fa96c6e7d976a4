//! What pictures are told, by another host than this one.

use latentd_models::prompt::Chunk;
use latentd_plugin_api::abi::{latentd_cond, latentd_conds, latentd_pass, latentd_span, latentd_token};

use super::bench::Bench;
use super::conds::Conds;
use super::scene::{Made, Scene};
use super::wider::{Roomy, Wider};
use crate::error::Result;
use crate::plugins::call::AtHand;
use crate::plugins::stages::conditioning::{ToldConds, contents};
use crate::plugins::stages::{self, Called, JobStages};
use crate::plugins::texts::Texts;

impl Scene {
    pub(super) fn run_conds_wider(&self, stages: &JobStages<'_>, job: &Bench, wider: &Wider) -> Result<Made> {
        let Conds { conds, encoder } = &self.conds;
        let texts = Texts::new(encoder);
        let told = ToldConds::new(conds, &texts)?;
        let mut contents = contents(conds);
        let slots = contents.len();
        let function = |called: &Called<'_>| {
            let told = told.conds(called.handles);
            self.call_conds_wider(called, wider, told, &texts)
        };
        if let Some(instance) =
            stages.instances.first().filter(|instance| instance.member.want(self.stage).is_some())
        {
            let at_hand = AtHand { texts: Some(&texts), ..AtHand::default() };
            stages::call(instance, job, self.stage, (&mut contents, slots), at_hand, &function)?;
        }
        Ok(Made::of(&contents))
    }

    fn call_conds_wider(
        &self,
        called: &Called<'_>,
        wider: &Wider,
        mut told: Vec<latentd_cond>,
        texts: &Texts<'_>,
    ) -> u32 {
        let (more, between) = (wider.behind_structs, wider.between_elements);
        let pictures = self.pictures_wider(between);
        let pass: latentd_pass = self.pass_wider(wider, &pictures);
        let pass = Roomy::of(&pass, more);
        let mut lists = vec![];
        for (told, cond) in told.iter_mut().zip(&self.conds.conds) {
            let chunks: &[Chunk] = &cond.chunks;
            let tokens = Roomy::new::<latentd_token>(&texts.tokens(chunks), between);
            let call = |call: usize| u32::try_from(call).unwrap_or(u32::MAX);
            let span = |calls: &std::ops::Range<usize>| latentd_span {
                from: call(calls.start),
                until: call(calls.end),
            };
            let spans = Roomy::new(&cond.calls.iter().map(span).collect::<Vec<_>>(), between);
            (told.tokens, told.spans) = (tokens.list(), spans.list());
            lists.extend([tokens, spans]);
        }
        let conds = Roomy::new(&told, between);
        let args = latentd_conds { size: 0, reserved: 0, pass: pass.pointer(), conds: conds.list() };
        let args = Roomy::of(&args, more);
        called.tables.conditioning.and_then(|table| table.run).map_or(0, |run| {
            // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
            unsafe { run(called.instance, called.call, args.pointer()) }
        })
    }
}
