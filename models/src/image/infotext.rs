//! A1111's `parameters` text.

/// The parts of an infotext in the order they are written; `Display` joins them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infotext {
    /// The prompt.
    pub prompt: String,
    /// The negative prompt; no line when empty.
    pub negative_prompt: String,
    /// `Key: value` pairs of the last line.
    pub fields: Vec<(String, String)>,
}

impl Infotext {
    /// Adds a pair at the end.
    pub fn push(&mut self, key: &str, value: impl std::fmt::Display) {
        self.fields.push((key.to_owned(), value.to_string()));
    }
}

impl std::fmt::Display for Infotext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.prompt)?;
        if !self.negative_prompt.is_empty() {
            write!(f, "\nNegative prompt: {}", self.negative_prompt)?;
        }
        for (index, (key, value)) in self.fields.iter().enumerate() {
            f.write_str(if index == 0 { "\n" } else { ", " })?;
            // A value that would be misread as the next pair is written as a JSON string, as A1111 does.
            if value.contains([',', '\n', ':']) {
                write!(f, "{key}: {}", serde_json::Value::from(value.as_str()))?;
            } else {
                write!(f, "{key}: {value}")?;
            }
        }
        Ok(())
    }
}
