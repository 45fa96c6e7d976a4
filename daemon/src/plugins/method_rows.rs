//! What manifests say of a plugin's own methods: `[methods.NAME]` with `kind`, `since`, `description`, `params` and `result`.

use std::collections::BTreeMap;

use latentd_client::protocol::PluginMethodKind;
use serde::Deserialize;
use serde_json::Value as Json;

use super::parameters::read_parameters;
use crate::schema::shorten;

/// Methods of one plugin.
const MOST: usize = 64;
/// Bytes of a method's name, of what is said of it, and of the version that first had it.
const LONGEST: usize = 64;
const LONGEST_TEXT: usize = 1024;

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MethodKind {
    /// At once, without an instance, within a few seconds.
    Quick,
    /// As a job: it waits for its turn, and has an instance.
    Job,
}

impl MethodKind {
    /// As it is told.
    pub(super) fn told(self) -> PluginMethodKind {
        match self {
            Self::Quick => PluginMethodKind::Quick,
            Self::Job => PluginMethodKind::Job,
        }
    }
}

/// A method of a plugin's own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MethodRow {
    /// Without the plugin's.
    pub name: String,
    pub kind: MethodKind,
    /// The plugin's version that first had it.
    pub since: Option<String>,
    pub description: Option<String>,
    /// JSON Schemas, which can be compiled: of the parameters, and of the result.
    pub params: Option<Json>,
    pub result: Option<Json>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    kind: MethodKind,
    since: Option<String>,
    description: Option<String>,
    params: Option<String>,
    result: Option<String>,
}

/// What is written, by names; why it cannot be meant.
pub(super) fn read(written: BTreeMap<String, Written>) -> Result<Vec<MethodRow>, String> {
    if written.len() > MOST {
        return Err(format!("methods: there are {}, {MOST} are allowed", written.len()));
    }
    let row = |(name, written): (String, Written)| {
        if !is_method(&name) {
            let text =
                format!("must be 1 to {LONGEST} of a-z, 0-9, '_', '.' and '-', and begin with a letter");
            return Err(format!("methods: '{}' {text}", shorten(&name)));
        }
        read_row(&name, written).map_err(|text| format!("methods.{name}: {text}"))
    };
    written.into_iter().map(row).collect()
}

fn read_row(name: &str, written: Written) -> Result<MethodRow, String> {
    let Written { kind, since, description, params, result } = written;
    let texts = [("since", &since, LONGEST), ("description", &description, LONGEST_TEXT)];
    for (key, text, most) in texts {
        let Some(text) = text else { continue };
        if text.len() > most {
            return Err(format!("{key} is {} bytes long, {most} are allowed; shorten it", text.len()));
        }
        if let Some(character) = text.chars().find(|character| character.is_control() && *character != '\n') {
            return Err(format!("{key} has the control character {character:?}; remove it"));
        }
    }
    let schema = |key: &str, text: Option<String>| {
        let read = text.map(|text| read_parameters(&text)).transpose();
        read.map_err(|error| format!("{key}: {error}"))
    };
    let (params, result) = (schema("params", params)?, schema("result", result)?);
    Ok(MethodRow { name: name.to_owned(), kind, since, description, params, result })
}

/// Whether a text can be the name of a method, without the plugin's.
pub(super) fn is_method(name: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    begins && name.len() <= LONGEST && name.bytes().all(in_name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_text(text: &str) -> Result<Vec<MethodRow>, String> {
        let written: BTreeMap<String, Written> = toml::from_str(text).map_err(|error| error.to_string())?;
        read(written)
    }

    #[test]
    fn methods_are_read_by_name() {
        let text = "[detect]\nkind = 'job'\nsince = '1.2'\nparams = '{\"type\": \"object\"}'\n\
                    [\"list.all\"]\nkind = 'quick'\ndescription = 'What there is.'\n";
        let found = read_text(text).expect("read");
        let row = |name: &str, kind| MethodRow {
            name: name.into(),
            kind,
            since: None,
            description: None,
            params: None,
            result: None,
        };
        let detect = MethodRow {
            since: Some("1.2".into()),
            params: Some(json!({"type": "object"})),
            ..row("detect", MethodKind::Job)
        };
        let list =
            MethodRow { description: Some("What there is.".into()), ..row("list.all", MethodKind::Quick) };
        assert_eq!(found, [detect, list]);
        let long = "x".repeat(LONGEST + 1);
        for (text, expected) in [
            ("[Detect]\nkind = 'job'".to_owned(), "methods: 'Detect' must be 1 to 64 of a-z"),
            ("[1a]\nkind = 'job'".to_owned(), "methods: '1a' must be"),
            ("[\"\"]\nkind = 'job'".to_owned(), "methods: '' must be"),
            (format!("[{long}]\nkind = 'job'"), "and begin with a letter"),
            ("[a]\nkind = 'slow'".to_owned(), "unknown variant `slow`"),
            ("[a]".to_owned(), "missing field `kind`"),
            ("[a]\nkind = 'job'\nargs = 1".to_owned(), "unknown field `args`"),
            ("[a]\nkind = 'job'\nparams = '[]'".to_owned(), "methods.a: params: the schema is an array"),
            ("[a]\nkind = 'job'\nresult = '{}'".to_owned(), "methods.a: result: its type is missing"),
            ("[a]\nkind = 'job'\nsince = \"\\u0007\"".to_owned(), "methods.a: since has the control"),
        ] {
            let error = read_text(&text).expect_err(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let many: Vec<String> = (0..=MOST).map(|number| format!("[m{number}]\nkind = 'job'")).collect();
        assert!(read_text(&many.join("\n")).expect_err("many").contains("there are 65, 64 are allowed"));
    }
}
