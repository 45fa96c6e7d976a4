//! `attention`: what plugins declare once per pass and model.

use std::cell::{Cell, RefCell};

use latentd_models::pipeline::{AttentionStage, Rule};
use latentd_plugin_api::abi::{LATENTD_ATTENTION, latentd_attention};

use super::{AtHand, Called, JobStages};
use crate::plugins::call::Declared;
use crate::plugins::host::add_rule;

impl JobStages<'_> {
    /// The rules of all, in the order of their chain.
    pub(super) fn rules(&self, stage: &AttentionStage) -> latentd_models::Result<Vec<Rule>> {
        let mut rules = vec![];
        let pass = self.pass();
        for index in self.plugins.chains.get(LATENTD_ATTENTION).into_iter().flatten() {
            let Some(instance) = self.instances.get(*index) else { continue };
            let declared = Declared { stage: stage.clone(), rules: RefCell::default() };
            let status = Cell::new(0);
            let function = |called: &Called<'_>| {
                let args = latentd_attention {
                    size: size_of::<latentd_attention>() as u32,
                    context_width: stage.context_width as u32,
                    pass: &raw const pass.told,
                    add: Some(add_rule),
                };
                let answer = called.tables.attention.and_then(|table| table.run).map_or(0, |run| {
                    // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                    unsafe { run(called.instance, called.call, &raw const args) }
                });
                status.set(answer);
                answer
            };
            let at_hand = AtHand { attention: Some(&declared), ..AtHand::default() };
            self.called(instance, LATENTD_ATTENTION, (&mut [], 0), at_hand, function)?;
            // What is skipped is as if it had never been called.
            if status.get() == 0 {
                rules.extend(declared.rules.into_inner());
            }
        }
        Ok(rules)
    }
}
