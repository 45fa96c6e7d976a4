//! From text to conditioning: A1111's grammar of prompts, tokenizer, chunks, and the text encoder's states.

mod cache;
mod chunks;
mod clean;
mod conditioning;
mod embeddings;
mod emphasis;
mod networks;
mod tokenizer;
mod weight;
mod wording;

pub(crate) use cache::ConditioningCache;
pub use chunks::{CHUNK_TOKENS, Chunk, chunks};
pub use conditioning::{Conditioning, encode, encode_chunks, pad_alike};
pub use embeddings::{EmbeddingNames, Embeddings};
pub use emphasis::{Piece, parse_emphasis};
pub use networks::NamedNetwork;
pub use tokenizer::{BOS, COMMA, EOS, tokenize};
pub(crate) use tokenizer::{merges, vocabulary};
pub use weight::split_weight;
pub use wording::{Unapplied, UnappliedKind, Wording};
