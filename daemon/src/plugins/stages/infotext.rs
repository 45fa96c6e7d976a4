//! Texts of finished pictures, to which plugins add pairs.

use latentd_plugin_api::abi::{LATENTD_INFOTEXT_WRITE, latentd_pictures};

use super::told::{list, with_pixels};
use super::{Called, JobStages, Whole};
use crate::error::{Class, Error};
use crate::plugins::call::AtHand;
use crate::plugins::infotext::{self, Pair};

impl JobStages<'_> {
    /// The pairs that plugins add to the texts of pictures, in their order; none has a key that `is_taken`.
    pub(crate) fn infotext_pairs(
        &self,
        pictures: &mut [Whole],
        is_taken: &dyn Fn(&str) -> bool,
    ) -> latentd_models::Result<Vec<Vec<Pair>>> {
        let mut all: Vec<Vec<Pair>> = pictures.iter().map(|_| vec![]).collect();
        let Some(chain) = self.plugins.chains.get(LATENTD_INFOTEXT_WRITE) else { return Ok(all) };
        let mut told: Vec<(&mut Whole, &mut Vec<Pair>)> =
            pictures.iter_mut().zip(&mut all).filter(|(whole, _)| whole.is_last).collect();
        let whose: Vec<(usize, u64)> = told.iter().map(|(whole, _)| (whole.index, whole.seed)).collect();
        let mut contents: Vec<_> = told.iter_mut().map(|(whole, _)| whole.lend()).collect();
        for index in chain {
            let Some(instance) = self.instances.get(*index) else { continue };
            let function = |called: &Called<'_>| called.infotext_write(&whose);
            let at_hand = AtHand::default();
            let left =
                self.called(instance, LATENTD_INFOTEXT_WRITE, (&mut contents, 0), at_hand, function)?;
            for (slot, reply) in left.replies {
                let added = match told.get_mut(slot as usize) {
                    Some((_, pairs)) => added(pairs, &reply, is_taken),
                    None => Err("there is no such picture".to_owned()),
                };
                added.map_err(|text| {
                    let name = instance.member.name();
                    let text = format!("plugin '{name}', {LATENTD_INFOTEXT_WRITE}: slot {slot}: {text}");
                    self.fail(Error::new(Class::Plugin, text))
                })?;
            }
        }
        for ((whole, _), content) in told.iter_mut().zip(contents) {
            whole.take_back(content)?;
        }
        Ok(all)
    }
}

/// Adds what a plugin gives.
fn added(pairs: &mut Vec<Pair>, reply: &[u8], is_taken: &dyn Fn(&str) -> bool) -> Result<(), String> {
    for (key, value) in infotext::pairs(reply)? {
        if is_taken(&key) {
            return Err(format!("the key '{key}' is the daemon's own; give another"));
        }
        if pairs.iter().any(|(other, _)| *other == key) {
            return Err(format!("another plugin has the key '{key}'; give one with the plugin's name"));
        }
        pairs.push((key, value));
    }
    Ok(())
}

impl Called<'_> {
    /// Calls one plugin with pictures of these places and seeds.
    pub(in crate::plugins) fn infotext_write(&self, whose: &[(usize, u64)]) -> u32 {
        let pictures = with_pixels(whose, self.handles);
        let args = latentd_pictures {
            size: size_of::<latentd_pictures>() as u32,
            reserved: 0,
            pass: std::ptr::null(),
            pictures: list(&pictures),
        };
        self.tables.infotext_write.and_then(|table| table.run).map_or(0, |run| {
            // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
            unsafe { run(self.instance, self.call, &raw const args) }
        })
    }
}
