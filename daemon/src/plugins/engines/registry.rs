//! Which engines there are: the entries of all plugins that may be used, each name once.

use crate::error::{Class, Error, Result};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::manifest::Manifest;
use crate::schema::shorten;
use crate::suggest::nearest;

/// Names that an error lists.
const MOST_LISTED: usize = 40;

/// The names of a kind, sorted, each once.
fn names<'a>(kind: Kind, manifests: impl Iterator<Item = &'a Manifest>) -> Vec<&'a str> {
    let mut names: Vec<&str> = of_kind(kind, manifests).map(|(_, entry)| entry).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn of_kind<'a>(
    kind: Kind,
    manifests: impl Iterator<Item = &'a Manifest>,
) -> impl Iterator<Item = (&'a Manifest, &'a str)> {
    manifests.flat_map(move |manifest| {
        let named = manifest.engines.iter().filter(move |named| named.kind == kind);
        named.flat_map(|named| &named.entries).map(move |entry| (manifest, entry.as_str()))
    })
}

/// Where a name stands that is not known, and what else it might have meant.
pub(in crate::plugins) struct Unknown<'a> {
    /// The field that has it.
    pub field: &'a str,
    /// Names that need no plugin.
    pub beside: &'a [&'a str],
}

/// The plugin that has an entry of this name.
pub(in crate::plugins) fn find<'a>(
    kind: Kind,
    name: &str,
    manifests: impl Iterator<Item = &'a Manifest> + Clone,
    unknown: &Unknown<'_>,
) -> Result<&'a Manifest> {
    let Unknown { field, beside } = unknown;
    let mut found = of_kind(kind, manifests.clone()).filter(|(_, entry)| *entry == name);
    match (found.next(), found.next()) {
        (Some((manifest, _)), None) => Ok(manifest),
        (Some((one, _)), Some((other, _))) => {
            let (kind, one, other) = (kind.name(), &one.name, &other.name);
            let text = format!(
                "{field}: plugins '{one}' and '{other}' both have the {kind} '{name}'; take one of them away, or rename its \
                 entry"
            );
            Err(Error::new(Class::Plugin, text))
        }
        (None, _) => {
            let all: Vec<&str> = beside.iter().copied().chain(names(kind, manifests)).collect();
            let kind = kind.name();
            let known = match all.len() {
                0 => String::new(),
                count if count > MOST_LISTED => {
                    let listed = all.get(..MOST_LISTED).unwrap_or_default().join(", ");
                    format!("; known: {listed} and {} more", count - MOST_LISTED)
                }
                _ => format!("; known: {}", all.join(", ")),
            };
            let meant = nearest(name, all.iter().copied());
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"));
            let text = format!(
                "{field}: '{}' is not known{known}{meant}; a plugin with engines of kind '{kind}' brings more: see `latentd \
                 plugins list`",
                shorten(name)
            );
            Err(Error::not_found(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::engine_kinds::Named;

    fn manifest(name: &str, kind: Kind, entries: &[&str]) -> Manifest {
        Manifest {
            name: name.to_owned(),
            version: "1".to_owned(),
            abi: (0, 1),
            engines: vec![Named { kind, entries: entries.iter().map(|entry| (*entry).to_owned()).collect() }],
            ..Manifest::default()
        }
    }

    #[test]
    fn names_are_found_once_or_it_is_said_why_not() {
        let all = [
            manifest("one", Kind::Upscaler, &["2x", "4x"]),
            manifest("two", Kind::Upscaler, &["4x", "8x"]),
            manifest("three", Kind::Restorer, &["2x"]),
        ];
        let unknown = Unknown { field: "hr_upscaler", beside: &["Lanczos"] };
        let find = |kind, name: &str| find(kind, name, all.iter(), &unknown).map(|found| &found.name[..]);
        assert_eq!(find(Kind::Upscaler, "2x"), Ok("one"));
        assert_eq!(find(Kind::Upscaler, "8x"), Ok("two"));
        assert_eq!(find(Kind::Restorer, "2x"), Ok("three"));
        let twice = find(Kind::Upscaler, "4x").expect_err("twice");
        assert_eq!(twice.class, Class::Plugin);
        assert!(twice.text.contains("plugins 'one' and 'two' both have the upscaler '4x'"), "{twice}");
        let none = find(Kind::Upscaler, "Lanzcos").expect_err("none");
        assert_eq!(none.class, Class::NotFound);
        let text = "hr_upscaler: 'Lanzcos' is not known; known: Lanczos, 2x, 4x, 8x; did you mean 'Lanczos'?; a plugin with \
                    engines of kind 'upscaler' brings more: see `latentd plugins list`";
        assert_eq!(none.text, text);
        assert_eq!(names(Kind::Upscaler, all.iter()), ["2x", "4x", "8x"]);
    }
}
