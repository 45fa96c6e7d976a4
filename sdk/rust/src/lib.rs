//! Protocol types and client for the latentd daemon.
//!
//! - [`codec`]: MessagePack-RPC messages out of a stream of bytes, with every size bounded;
//! - [`protocol`]: what the methods take and give, the same types the daemon decodes with;
//! - [`socket`]: where the daemon listens;
//! - [`Client`] (tokio) and [`blocking::Client`]: call it.
//!
//! ```no_run
//! use latentd_client::{blocking::Client, protocol::Txt2ImgParams};
//!
//! # fn main() -> Result<(), latentd_client::Error> {
//! let mut client = Client::connect(None)?;
//! let drawn = client.txt2img(&Txt2ImgParams { prompt: "a red circle".into(), ..Default::default() })?;
//! for image in &drawn.images {
//!     println!("{}×{}, seed {:?}", image.width, image.height, image.seed);
//! }
//! # Ok(())
//! # }
//! ```

mod client;
pub mod codec;
pub mod protocol;
pub mod socket;

pub use client::{Client, Error, EventStream, LibraryStream, SubmitOptions, blocking};
