//! From text to conditioning: tokenizer, A1111's emphasis grammar, chunks, and the text encoder's states.

mod cache;
mod chunks;
mod clean;
mod conditioning;
mod emphasis;
mod tokenizer;

pub(crate) use cache::ConditioningCache;
pub use chunks::{Chunk, chunks};
pub use conditioning::{Conditioning, encode, encode_chunks, pad_alike};
pub use emphasis::{Piece, parse_emphasis};
pub use tokenizer::{BOS, COMMA, EOS, tokenize};
