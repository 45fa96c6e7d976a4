//! What is drawn with beside a checkpoint: files of the LoRA family become patches of weights, embeddings vectors in the
//! place of tokens, hypernetworks transforms of keys and values.
//!
//! A file of the LoRA family is matched to a model by names and shapes alone ([`Adapter::of`]); its numbers are read when a
//! network is built ([`Patch`](crate::nn::Patch)). Formulas are those of A1111, of LyCORIS where that has none, of PEFT where
//! it wrote the file; one file here for each.

mod adapter;
mod boft;
mod change;
mod dora;
mod embedding;
mod embedding_picture;
mod family;
mod full;
mod glora;
mod hypernetwork;
mod hypernetwork_layers;
mod ia3;
mod keys;
mod loha;
mod lokr;
mod lora;
mod math;
mod oft;
mod patch;
mod peft;
mod source;
mod targets;

pub use adapter::{Adapter, Unapplied};
pub use embedding::{Embedding, MOST_VECTORS};
pub use embedding_picture::{LARGEST_PICTURE, PictureEmbedding, embedding_of_picture};
pub use hypernetwork::Hypernetwork;
pub use patch::{AdapterPatch, Scales};
pub use targets::{Network, Targets};
