//! The three shapes of a MessagePack-RPC message.

use rmpv::Value;
use serde::Serialize;
use serde::ser::SerializeSeq;

/// One message. Method names come as str or, from pynvim, as bin.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// `[0, id, method, params]`
    Request {
        /// Chosen by the caller; the response carries it.
        id: u32,
        /// Which method.
        method: String,
        /// An array with one map, if the caller keeps to the protocol.
        params: Value,
    },
    /// `[1, id, error, result]`
    Response {
        /// The request's.
        id: u32,
        /// Nil when it went well.
        error: Value,
        /// Nil when it did not.
        result: Value,
    },
    /// `[2, method, params]`
    Notification {
        /// Which method.
        method: String,
        /// An array.
        params: Value,
    },
}

/// A value that is sound MessagePack but no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MessagePack-RPC message: {reason}")]
pub struct MessageError {
    /// The id to answer to, where the value has one in a request's place.
    pub id: Option<u32>,
    /// What is wrong with it.
    pub reason: String,
}

impl Message {
    /// Reads a message from a decoded value.
    pub fn from_value(value: Value) -> Result<Self, MessageError> {
        let refuse = |id: Option<u32>, reason: String| Err(MessageError { id, reason });
        let Value::Array(parts) = value else {
            return refuse(None, "it is not an array".into());
        };
        let kind = parts.first().and_then(Value::as_u64);
        let arity = parts.len();
        let mut parts = parts.into_iter().skip(1);
        let mut next = || parts.next().unwrap_or(Value::Nil);
        match (kind, arity) {
            (Some(0), _) => {
                let given = next();
                let id = given.as_u64().and_then(|id| u32::try_from(id).ok());
                let number = match (id, arity) {
                    (Some(number), 4) => number,
                    (None, 4) => return refuse(None, format!("the id {given} is not an integer of 32 bits")),
                    (id, arity) => {
                        return refuse(
                            id,
                            format!("a request is [0, id, method, params], this has {arity} parts"),
                        );
                    }
                };
                match name(next()) {
                    Some(method) => Ok(Self::Request { id: number, method, params: next() }),
                    None => refuse(id, "the method is not a string".into()),
                }
            }
            (Some(1), 4) => match next().as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => Ok(Self::Response { id, error: next(), result: next() }),
                None => refuse(None, "the id is not an integer of 32 bits".into()),
            },
            (Some(2), 3) => match name(next()) {
                Some(method) => Ok(Self::Notification { method, params: next() }),
                None => refuse(None, "the method is not a string".into()),
            },
            (Some(kind), arity) => refuse(None, format!("type {kind} with {arity} parts")),
            (None, _) => refuse(None, "its first part is not 0, 1 or 2".into()),
        }
    }
}

fn name(value: Value) -> Option<String> {
    match value {
        Value::String(text) => text.into_str(),
        Value::Binary(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// `[0, id, method, [params]]`, structs as maps.
pub fn encode_request<P>(id: u32, method: &str, params: &P) -> Result<Vec<u8>, rmp_serde::encode::Error>
where
    P: Serialize + ?Sized,
{
    rmp_serde::to_vec_named(&(0, id, method, (params,)))
}

const NIL: u8 = 0xc0;

/// `[1, id, error, result]` around a result, or an error, that is already encoded.
pub fn encode_response(id: u32, outcome: Result<&[u8], &[u8]>) -> Vec<u8> {
    match outcome {
        Ok(result) => [&encode_response_head(id), result].concat(),
        Err(error) => encode_error_response(id, error),
    }
}

/// What stands before an encoded result in the answer to request `id`: `[1, id, nil, …`.
pub fn encode_response_head(id: u32) -> [u8; 8] {
    let [a, b, c, d] = id.to_be_bytes();
    [0x94, 0x01, 0xce, a, b, c, d, NIL]
}

/// `[1, id, error, nil]` around an error that is already encoded.
pub fn encode_error_response(id: u32, error: &[u8]) -> Vec<u8> {
    let [before @ .., _] = encode_response_head(id);
    [&before, error, &[NIL]].concat()
}

/// `[2, method, [params]]`, structs as maps; with `args`, `[2, method, [args…, [params]]]`.
pub fn encode_notification<P>(
    method: &str,
    args: &[String],
    params: &P,
) -> Result<Vec<u8>, rmp_serde::encode::Error>
where
    P: Serialize + ?Sized,
{
    if args.is_empty() {
        return rmp_serde::to_vec_named(&(2, method, (params,)));
    }
    rmp_serde::to_vec_named(&(2, method, AfterArgs { args, params }))
}

/// What stands before the encoded params' map in such a notification.
pub fn encode_notification_head(method: &str, args: &[String]) -> Vec<u8> {
    // Texts are encoded into memory, which cannot fail; nothing, in the params' place, is one byte.
    let mut head = encode_notification(method, args, &()).unwrap_or_default();
    head.pop();
    head
}

/// `[args…, [params]]`.
struct AfterArgs<'a, P: ?Sized> {
    args: &'a [String],
    params: &'a P,
}

impl<P: Serialize + ?Sized> Serialize for AfterArgs<'_, P> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.args.len() + 1))?;
        for arg in self.args {
            list.serialize_element(arg)?;
        }
        list.serialize_element(&(self.params,))?;
        list.end()
    }
}
