//! What was drawn as it is given back: over the picture that it was drawn from, and as plugins leave it.

use latentd_models::image::{Picture, RgbImage};
use latentd_models::pipeline::Output;
use latentd_models::{Error, Result};

use super::from_pictures::Ready;
use super::infotext;
use super::task::Watch;
use crate::memory::Lease;
use crate::plugins::{JobStages, Pair, Whole};

/// A picture that is given back.
pub(super) struct Finished {
    pub picture: Picture,
    /// What drew it, without its pixels.
    pub drawn: Output,
    /// What it takes beyond what was planned, until it is packed.
    pub room: Option<Lease>,
    /// What plugins add to its text.
    pub pairs: Vec<Pair>,
}

/// How pictures of a drawing are finished.
pub(super) struct Finishing<'a> {
    /// What they were drawn from.
    pub ready: Option<&'a Ready>,
    pub watch: &'a dyn Watch,
    /// Whether each becomes part of another.
    pub is_part: bool,
    /// Bytes that they may have together, as plugins leave them.
    pub most_bytes: u64,
}

/// Finishes all pictures of a drawing.
pub(super) fn finished(
    outputs: Vec<Output>,
    finishing: &Finishing<'_>,
    stages: &JobStages<'_>,
) -> Result<Vec<Finished>> {
    let Finishing { ready, watch, is_part, most_bytes } = *finishing;
    // A picture of the first of two passes is given back as it was drawn.
    let last = outputs.last().map(|output| output.pass);
    let (mut pictures, mut drawn) = (vec![], vec![]);
    for mut output in outputs {
        if watch.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let blank = RgbImage { width: 0, height: 0, pixels: vec![] };
        let image = std::mem::replace(&mut output.image, blank);
        let exchanged = stages.exchanged(output.index);
        let begun = exchanged.as_ref().or_else(|| ready.and_then(|ready| ready.of(output.index)));
        let image = match begun {
            Some(begun) => begun.finish(image, output.seen.as_ref())?,
            None => image,
        };
        let is_last = Some(output.pass) == last;
        pictures.push(Whole { picture: image.into(), seed: output.seed, index: output.index, is_last });
        drawn.push(output);
    }
    let rooms = stages.batch_post(&mut pictures, is_part, most_bytes)?;
    let pairs = stages.infotext_pairs(&mut pictures, &infotext::is_own_key)?;
    let all = pictures.into_iter().zip(rooms).zip(drawn).zip(pairs);
    let finished = |(((whole, room), drawn), pairs): (((Whole, _), _), _)| Finished {
        picture: whole.picture,
        drawn,
        room,
        pairs,
    };
    Ok(all.map(finished).collect())
}
