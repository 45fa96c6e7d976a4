//! What the pictures of passes are drawn from.

use latentd_models::image::inpaint::Prepared;

/// What pictures are drawn from.
#[derive(Clone, Copy)]
pub(crate) struct PassSources<'a> {
    /// One for all, one for each of a batch, or one for each.
    pub prepared: &'a [Prepared],
    /// Whether masks on latents have nothing between all and nothing.
    pub rounds: bool,
}

impl<'a> PassSources<'a> {
    /// What one of them is drawn from.
    pub(super) fn of(self, image: usize) -> Option<&'a Prepared> {
        self.prepared.get(image % self.prepared.len().max(1))
    }
}
