//! MessagePack-RPC messages out of a stream of bytes.
//!
//! MessagePack has no frame length, so a [`Decoder`] first finds where a value ends ([`scanner`]) and only
//! then builds it. The scan takes no memory for what a length claims, keeps its place between reads, and holds
//! a message against [`Limits`] as soon as its headers are seen.

mod decoder;
mod limits;
mod message;
mod scanner;
mod typed;

pub use decoder::Decoder;
pub use limits::{CodecError, Limits};
pub use message::{
    Message, MessageError, encode_error_response, encode_notification, encode_notification_head,
    encode_request, encode_response, encode_response_head,
};
pub use scanner::Scanner;
pub use typed::{decode_value, whole};
