//! Prompts on the wire.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A prompt: a text for all pictures of a request, or a list with one for each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// For all of them.
    All(String),
    /// For each of them, `batch_size * n_iter` texts.
    Each(Vec<String>),
}

impl Prompt {
    /// Characters of a text.
    const LONGEST: usize = 200_000;
    /// Pictures of a request.
    const MOST: usize = 64_000;

    /// All texts that there are.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::All(text) => std::slice::from_ref(text),
            Self::Each(texts) => texts,
        }
    }

    /// That of the first picture.
    pub fn first(&self) -> &str {
        self.texts().first().map_or("", String::as_str)
    }
}

impl Default for Prompt {
    fn default() -> Self {
        Self::All(String::new())
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::All(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::All(text)
    }
}

impl From<Vec<String>> for Prompt {
    fn from(texts: Vec<String>) -> Self {
        Self::Each(texts)
    }
}

impl Serialize for Prompt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(text) => serializer.serialize_str(text),
            Self::Each(texts) => texts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptVisitor;

        impl<'de> Visitor<'de> for PromptVisitor {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt::All(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Prompt, E> {
                Ok(Prompt::All(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Prompt, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Prompt::Each(texts))
            }
        }

        deserializer.deserialize_any(PromptVisitor)
    }
}

impl JsonSchema for Prompt {
    fn schema_name() -> Cow<'static, str> {
        "Prompt".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = json_schema!({"type": "string", "maxLength": Self::LONGEST});
        json_schema!({
            "anyOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": Self::MOST}]
        })
    }
}

/// What brackets do to the words in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Emphasis {
    /// Weights multiply what the text encoder gives, whose mean is restored.
    #[default]
    Original,
    /// Brackets are text, and so is `BREAK`.
    None,
    /// Brackets are taken out, and weigh nothing.
    Ignore,
    /// Weights multiply what the text encoder gives.
    #[serde(rename = "No norm")]
    NoNorm,
}

impl Emphasis {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Original, Self::None, Self::Ignore, Self::NoNorm];

    /// As it stands in requests, and behind "Emphasis" in a picture's text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "Original",
            Self::None => "None",
            Self::Ignore => "Ignore",
            Self::NoNorm => "No norm",
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
    pub(super) fn is_original(&self) -> bool {
        *self == Self::Original
    }
}
