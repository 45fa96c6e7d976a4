//! The text that a picture carries, and the request in it: one table of A1111's keys, by which both are done.
//!
//! What is told is the request that draws the picture alone, as it was settled: what was left out of a request, drawn by
//! lot, or not applied stands in it as it was. `image.info` gives it back, of pictures of other programs as far as they are
//! understood: A1111's family, whatever its year and its branch, in [`rows`] and [`forms`]; others in [`foreign`].

mod foreign;
mod forms;
mod rows;
mod samplers;
mod told;
mod values;
mod versions;

pub(super) use foreign::infotext;
pub(super) use rows::{is_own_key, read, write};
pub(super) use told::{Named, Told, ToldEngine, ToldRewriting, blurs, told_outpaint};
pub(super) use values::engines;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod identity;
