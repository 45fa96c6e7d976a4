//! Which methods plugins have, by their whole names.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::result::OWN;
use crate::error::{Class, Error, Result};
use crate::plugins::choices::with_choices;
use crate::plugins::engines::{self, Files};
use crate::plugins::library::Plugin;
use crate::plugins::manifest::{Manifest, check_name};
use crate::plugins::method_rows::{MethodKind, MethodRow, is_method};
use crate::plugins::{HIGHEST, Plugins, named};
use crate::schema::shorten;
use crate::suggest::nearest;

/// Methods that an error lists.
const MOST_LISTED: usize = 40;

/// A plugin's method, for lists.
pub(crate) struct Listed {
    /// The whole name.
    pub name: String,
    pub plugin: String,
    pub kind: MethodKind,
    pub description: Option<String>,
    /// JSON Schemas of parameters and result.
    pub params: Json,
    pub result: Json,
}

impl Listed {
    fn of(manifest: &Manifest, row: &MethodRow) -> Self {
        let MethodRow { name, kind, description, params, result, .. } = row.clone();
        let nothing = || json!({"type": "object", "properties": {}, "additionalProperties": false});
        let mut result = result.unwrap_or_else(|| json!({"type": "object"}));
        // What latentd puts beside what the plugin answers.
        if let Some(map) = result.as_object_mut() {
            let properties = map.entry("properties").or_insert_with(|| json!({}));
            for name in OWN {
                let kind = if ["job", "method"].contains(&name) { "string" } else { "array" };
                if let Some(properties) = properties.as_object_mut() {
                    properties.insert(name.to_owned(), json!({"type": kind}));
                }
            }
        }
        Self {
            name: format!("{}.{name}", manifest.name),
            plugin: manifest.name.clone(),
            kind,
            description,
            params: params.unwrap_or_else(nothing),
            result,
        }
    }
}

/// Whether a plugin may have a method of this name.
pub(crate) fn may_be(name: &str) -> bool {
    name.split_once('.').is_some_and(|(plugin, method)| check_name(plugin).is_ok() && is_method(method))
}

impl Plugins {
    /// The kind of a method that was there as plugins were looked for last. Looks at no file.
    pub(crate) fn known_method(&self, name: &str) -> Option<MethodKind> {
        self.known.kind(name)
    }

    /// The kind of a method.
    pub(crate) fn method_kind(&self, name: &str) -> Result<MethodKind> {
        let found = self.found();
        let (plugin, method) = parts(name)?;
        let (_, (manifest, _)) = named(plugin, &HIGHEST, &found).map_err(|error| no_method(name, &error))?;
        Ok(row(&manifest, method)?.kind)
    }

    /// A method, with its plugin in memory.
    pub(in crate::plugins) fn method(&self, name: &str) -> Result<(Arc<Plugin>, MethodRow)> {
        let found = self.found();
        let (plugin, method) = parts(name)?;
        let (_, (manifest, _)) = named(plugin, &HIGHEST, &found).map_err(|error| no_method(name, &error))?;
        let row = row(&manifest, method)?.clone();
        Ok((self.load(plugin, &HIGHEST, &found)?, row))
    }

    /// All methods, by their names.
    pub(crate) fn methods(&self, files: Files<'_>) -> Vec<Listed> {
        let found = self.found();
        let manifests = self.enabled(&found, &HIGHEST);
        let names = |kind| engines::names(kind, manifests.iter().copied(), files);
        let mut all: Vec<Listed> = manifests
            .iter()
            .flat_map(|manifest| manifest.methods.iter().map(move |row| Listed::of(manifest, row)))
            .collect();
        for listed in &mut all {
            with_choices(&mut listed.params, &names);
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

fn parts(name: &str) -> Result<(&str, &str)> {
    name.split_once('.').ok_or_else(|| Error::not_found(format!("no method '{}'", shorten(name))))
}

fn no_method(name: &str, error: &Error) -> Error {
    Error::new(error.class, format!("no method '{}': {}", shorten(name), error.text))
}

fn row<'a>(manifest: &'a Manifest, method: &str) -> Result<&'a MethodRow> {
    let mut rows = manifest.methods.iter();
    if let Some(row) = rows.find(|row| row.name == method) {
        return Ok(row);
    }
    let names: Vec<&str> = manifest.methods.iter().map(|row| row.name.as_str()).collect();
    let there = match nearest(method, names.iter().copied()) {
        Some(meant) => format!("did you mean '{}.{meant}'?", manifest.name),
        None if names.is_empty() => "it has none".to_owned(),
        None => format!("it has {}", names[..names.len().min(MOST_LISTED)].join(", ")),
    };
    let text = format!("plugin '{}' has no method '{}'; {there}", manifest.name, shorten(method));
    Err(Error::new(Class::NotFound, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_methods_are_told_from_others() {
        for name in ["controlnet.preprocess", "a.b.c", "1-a.list_all"] {
            assert!(may_be(name), "{name}");
        }
        for name in ["txt2img", "image.fit", "jobs.x", "a.", ".a", "A.b", "a.B", "a b.c", "plugins.list2", ""]
        {
            assert!(!may_be(name), "{name}");
        }
    }
}
