//! Pictures on the wire.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes, as MessagePack's bin.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;

        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = items.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }

        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "binary", "description": "MessagePack bin"})
    }
}

/// A picture from the daemon: one of `png`, `jpeg`, `webp`, `raw` and `path` is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageOut {
    /// The PNG file; its text key `parameters` holds the infotext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub png: Option<Bytes>,
    /// The JPEG file; the user comment in its EXIF holds the infotext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<Bytes>,
    /// The WebP file, as `jpeg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webp: Option<Bytes>,
    /// 8-bit pixels, rows from the top, no padding: `width * height * channels` bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Bytes>,
    /// The file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes per pixel of `raw`: 3, RGB; 4, RGBA, where a plugin gave opacity; of artifacts also 1, grey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
    /// The seed that draws this picture alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// With it, the `subseed`; of a picture with a `subseed_strength`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subseed: Option<u64>,
    /// A1111's `parameters` text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infotext: Option<String>,
}

/// A picture for the daemon: one of `png`, `jpeg`, `webp`, `path`, `blob` and `raw`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageIn {
    /// A PNG file's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub png: Option<Bytes>,
    /// A JPEG file's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<Bytes>,
    /// A WebP file's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webp: Option<Bytes>,
    /// A file of one of these formats that the daemon can read: an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What the daemon was given before, by its SHA-256: see `blobs.put`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// 8-bit pixels, rows from the top, no padding: `width * height * channels` bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Bytes>,
    /// With `raw`: pixels in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// With `raw`: rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// With `raw`: bytes per pixel, 1 (grey), 3 (RGB) or 4 (RGBA).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
}

impl ImageIn {
    /// A PNG file's bytes.
    pub fn png(bytes: Vec<u8>) -> Self {
        Self { png: Some(Bytes(bytes)), ..Self::default() }
    }

    /// A JPEG file's bytes.
    pub fn jpeg(bytes: Vec<u8>) -> Self {
        Self { jpeg: Some(Bytes(bytes)), ..Self::default() }
    }

    /// A WebP file's bytes.
    pub fn webp(bytes: Vec<u8>) -> Self {
        Self { webp: Some(Bytes(bytes)), ..Self::default() }
    }

    /// A file that the daemon can read, by its absolute path.
    pub fn path(path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// What the daemon was given before, by its SHA-256.
    pub fn blob(sha256: impl Into<String>) -> Self {
        Self { blob: Some(sha256.into()), ..Self::default() }
    }

    /// Pixels.
    pub fn raw(pixels: Vec<u8>, width: u32, height: u32, channels: u32) -> Self {
        Self {
            raw: Some(Bytes(pixels)),
            width: Some(width),
            height: Some(height),
            channels: Some(channels),
            ..Self::default()
        }
    }
}
