//! From text to conditioning: A1111's grammar of prompts, tokenizer, chunks, and the text encoder's states.

mod alignment;
mod cache;
mod changes;
mod chunks;
mod clean;
mod composition;
mod conditioning;
mod doubts;
mod embeddings;
mod emphasis;
mod networks;
mod padding;
mod reading;
mod schedule;
mod shown;
mod tokenizer;
mod weight;
mod wording;

pub(crate) use cache::{ConditioningCache, Encoded};
pub use chunks::{CHUNK_TOKENS, Chunk, chunks};
pub use composition::Part;
pub use conditioning::{Conditioning, Encoding, Variant, encode, encode_variants};
pub(crate) use conditioning::{encode_with, states};
pub use doubts::{doubts, doubts_of_text};
pub use embeddings::{EmbeddingNames, Embeddings};
pub use emphasis::{Piece, parse_emphasis};
pub use networks::NamedNetwork;
pub use padding::{pad_with_empty, pad_with_last};
pub use reading::{Emphasis, Reading};
pub use schedule::{CallSpan, PromptSchedule, ScheduleEntry, Timeline};
pub use shown::{ShownToken, shown_chunks};
pub use tokenizer::{BOS, COMMA, EOS, tokenize};
pub(crate) use tokenizer::{merges, vocabulary};
pub use weight::split_weight;
pub use wording::Wording;
