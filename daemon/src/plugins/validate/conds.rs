//! What pictures are told in a made-up scene, and a text encoder that makes numbers of any tokens.

use std::sync::Arc;

use latentd_models::pipeline::{Cond, Role, TextEncoding};
use latentd_models::prompt::{CHUNK_TOKENS, Chunk, Conditioning, Embeddings, Reading, chunks};
use latentd_models::{Error, Result, Tensor};

use super::inputs::{Random, Values};

/// Of a context's tokens.
const WIDTH: usize = 64;

/// Texts of what is wanted.
const TEXTS: [&str; 5] = [
    "a red circle on a blue background",
    "a (green:1.4) square, [small] and \\(round\\), white dress",
    "",
    "one, two, three BREAK four",
    "naïve café, a “quoted” word &amp; 日本語 🦀",
];

/// What pictures of a scene are told.
#[derive(Clone)]
pub(super) struct Conds {
    pub conds: Vec<Cond>,
    pub encoder: Encoder,
}

/// How many there are of what.
pub(super) struct Counts {
    pub first_image: usize,
    pub images: usize,
    /// Branches of what is wanted.
    pub wanted: usize,
    pub has_uncond: bool,
    /// Chunks of the longest.
    pub chunks: usize,
}

impl Conds {
    /// Some whose contexts have these values; the text encoder's, if these are usual.
    pub(super) fn new(counts: &Counts, values: Values, random: &mut Random) -> Result<Self> {
        let encoder = Encoder(random.bits());
        let mut conds = vec![];
        for image in counts.first_image..counts.first_image + counts.images {
            let branches = counts.wanted + usize::from(counts.has_uncond);
            for branch in 0..branches {
                let is_wanted = branch < counts.wanted;
                let texts: &[&str] = match (is_wanted, branch) {
                    (false, _) => &["blurry, (dark:0.8)"],
                    // One that changes from step to step.
                    (true, 1) => &["a [red] dog", "a (blue) dog"],
                    (true, _) => &TEXTS[(image + branch) % TEXTS.len()..][..1],
                };
                for (place, text) in texts.iter().enumerate() {
                    let mut chunks = encoder.chunks(text)?;
                    let longest = chunks.len().max(counts.chunks);
                    chunks.resize_with(longest, Chunk::empty);
                    let conditioning = match values {
                        Values::Usual => encoder.encode(&chunks, None)?,
                        _ => Conditioning {
                            tokens: values.tensor(random, &[1, chunks.len() * CHUNK_TOKENS, WIDTH])?,
                            pooled: None,
                        },
                    };
                    let calls = match (texts.len(), place) {
                        (1, _) => std::iter::once(0..usize::MAX).collect(),
                        (_, 0) => vec![0..5, 9..usize::MAX],
                        _ => std::iter::once(5..9).collect(),
                    };
                    conds.push(Cond {
                        image,
                        branch,
                        role: if is_wanted { Role::Cond } else { Role::Uncond },
                        calls,
                        text: (*text).into(),
                        chunks: chunks.into(),
                        conditioning: Arc::new(conditioning),
                    });
                }
            }
        }
        Ok(Self { conds, encoder })
    }
}

/// Makes numbers of tokens, of a seed.
#[derive(Clone, Copy)]
pub(super) struct Encoder(u64);

impl TextEncoding for Encoder {
    fn chunks(&self, text: &str) -> Result<Vec<Chunk>> {
        chunks(text, &Embeddings::default(), &Reading::default())
    }

    fn encode(&self, chunks: &[Chunk], _like: Option<usize>) -> Result<Conditioning> {
        let mut values = vec![];
        for chunk in chunks {
            for (place, (id, weight)) in chunk.ids.iter().zip(&chunk.weights).enumerate() {
                if *id > 49407 {
                    return Err(Error::Request(format!("token {id} is beyond the vocabulary of 49408")));
                }
                // Attention is causal: the token before counts too.
                let before = place.checked_sub(1).and_then(|place| chunk.ids.get(place)).unwrap_or(id);
                let seed = self.0 ^ (u64::from(*id) << 32) ^ (u64::from(*before) << 8) ^ place as u64;
                let mut random = Random::of(seed, "token");
                values.extend((0..WIDTH).map(|_| weight * (2.0 * random.share() as f32 - 1.0)));
            }
        }
        Ok(Conditioning {
            tokens: Tensor::new(values, [1, chunks.len() * CHUNK_TOKENS, WIDTH])?,
            pooled: None,
        })
    }
}
