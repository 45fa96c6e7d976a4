//! Stages within the UNet, as its visitor.

use std::ops::Range;

use super::evaluation::Evaluation;
use super::handles::{Handle, Handles};
use super::stages::{Stages, UNetBlock};
use crate::Result;
use crate::networks::unet_sites::{Site, Visited, Visitor};
use crate::tensor::Tensor;

/// Calls stages for one group of an evaluation's rows.
pub(super) struct BlockStages<'a> {
    pub stages: &'a mut dyn Stages,
    pub handles: &'a mut Handles,
    pub evaluation: &'a Evaluation,
    /// Whether anybody is called at all.
    pub is_wanted: bool,
    pub rows: Range<usize>,
    pub group: usize,
    pub groups: usize,
}

impl Visitor for BlockStages<'_> {
    fn wants(&self, site: Site) -> bool {
        self.is_wanted && self.stages.wants_site(self.evaluation, site)
    }

    fn visit(&mut self, site: Site, h: Tensor, skip: Option<Tensor>) -> Result<Visited> {
        let of_h = self.handles.insert(h.clone());
        let of_skip = skip.as_ref().map(|skip| self.handles.insert(skip.clone()));
        let stage = UNetBlock {
            evaluation: self.evaluation,
            rows: self.rows.clone(),
            group: self.group,
            groups: self.groups,
            site,
            h: of_h,
            skip: of_skip,
        };
        self.stages.unet_block(&stage, self.handles)?;
        let h = self.changed(of_h, &h)?;
        let skip = match of_skip.zip(skip) {
            Some((handle, skip)) => self.changed(handle, &skip)?,
            None => None,
        };
        self.handles.end_call();
        Ok(Visited { h, skip })
    }
}

impl BlockStages<'_> {
    /// What a handle stands for now, if it is no longer what it was: its numbers were copied before they were written to.
    fn changed(&mut self, handle: Handle, was: &Tensor) -> Result<Option<Tensor>> {
        let now = self.handles.take(handle)?;
        Ok((now.values().as_ptr() != was.values().as_ptr()).then_some(now))
    }
}
