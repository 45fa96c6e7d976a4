//! What a latentd plugin and its host say to each other.
//!
//! [`abi`] is the C ABI: structs, tables, codes and ids, from which `include/latentd.h` is made. The host uses it from the one
//! side; plugins use the header, or these same types, from the other. Nothing here computes, and nothing of ours is imported.

pub mod abi;
