//! A request's prompts: one for all images, or one for each.

/// What images are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Texts {
    /// The same for all of them.
    One(String),
    /// For each of them, in their order.
    Each(Vec<String>),
}

impl Texts {
    /// What an image is told, counted over the whole request.
    pub fn of(&self, image: usize) -> &str {
        match self {
            Self::One(text) => text,
            Self::Each(texts) => texts.get(image).map_or("", String::as_str),
        }
    }

    /// All of them, in their order.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Each(texts) => texts,
        }
    }

    /// How many images they are for; any number if `None`.
    pub fn images(&self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::Each(texts) => Some(texts.len()),
        }
    }
}

impl From<String> for Texts {
    fn from(text: String) -> Self {
        Self::One(text)
    }
}

impl From<&str> for Texts {
    fn from(text: &str) -> Self {
        Self::One(text.to_owned())
    }
}
