//! Which engines there are: the entries of all plugins that may be used, each name once.

use latentd_client::protocol::LibraryKind;

use super::shown::shown;
use crate::error::{Class, Error, Result};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::manifest::Manifest;
use crate::schema::shorten;
use crate::suggest::nearest;

/// Names that an error lists.
const MOST_LISTED: usize = 40;

/// The names of the library files of a kind.
pub(in crate::plugins) type Files<'a> = &'a dyn Fn(LibraryKind) -> Vec<String>;

/// The names of a kind, sorted, each once.
pub(in crate::plugins) fn names<'a>(
    kind: Kind,
    manifests: impl Iterator<Item = &'a Manifest>,
    files: Files<'_>,
) -> Vec<String> {
    let mut names: Vec<String> = manifests.flat_map(|manifest| own_names(kind, manifest, files)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Those of one plugin; files as they are shown.
pub(in crate::plugins) fn own_names(kind: Kind, manifest: &Manifest, files: Files<'_>) -> Vec<String> {
    let named = manifest.engines.iter().filter(|named| named.kind == kind);
    let of_files = |kind| files(kind).into_iter().map(move |name| shown(kind, &name).to_owned());
    named
        .flat_map(|named| named.entries.iter().cloned().chain(named.library.into_iter().flat_map(of_files)))
        .collect()
}

/// A library file: its kind and its own name.
pub(in crate::plugins) type OfLibrary = (LibraryKind, String);

/// Whether a plugin has an entry of this name; `Some` is the library file that it is, if it is one.
fn entry(kind: Kind, name: &str, manifest: &Manifest, files: Files<'_>) -> (bool, Option<OfLibrary>) {
    let Some(named) = manifest.engines.iter().find(|named| named.kind == kind) else {
        return (false, None);
    };
    if named.entries.iter().any(|entry| entry == name) {
        return (true, None);
    }
    let file = named.library.and_then(|library| {
        let names = files(library);
        let own = names.iter().find(|file| *file == name);
        let own = own.or_else(|| names.iter().find(|file| shown(library, file) == name));
        own.map(|own| (library, own.clone()))
    });
    (file.is_some(), file)
}

/// Where a name stands that is not known, and what else it might have meant.
pub(in crate::plugins) struct Unknown<'a> {
    /// The field that has it.
    pub field: &'a str,
    /// Names that need no plugin.
    pub beside: &'a [&'a str],
}

/// The plugin that has an entry of this name, and the library file that it is, if it is one.
pub(in crate::plugins) fn find<'a>(
    kind: Kind,
    name: &str,
    manifests: impl Iterator<Item = &'a Manifest> + Clone,
    files: Files<'_>,
    unknown: &Unknown<'_>,
) -> Result<(&'a Manifest, Option<OfLibrary>)> {
    let Unknown { field, beside } = unknown;
    let all = manifests.clone();
    let mut found = all.filter_map(|manifest| {
        let (is_there, file) = entry(kind, name, manifest, files);
        is_there.then_some((manifest, file))
    });
    match (found.next(), found.next()) {
        (Some(found), None) => Ok(found),
        (Some((one, _)), Some((other, _))) => {
            let (kind, one, other) = (kind.name(), &one.name, &other.name);
            let text = format!(
                "{field}: plugins '{one}' and '{other}' both have the {kind} '{name}'; take one of them away, or rename its \
                 entry"
            );
            Err(Error::new(Class::Plugin, text))
        }
        (None, _) => {
            let there = names(kind, manifests, files);
            let all: Vec<&str> = beside.iter().copied().chain(there.iter().map(String::as_str)).collect();
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
            engines: vec![Named {
                kind,
                entries: entries.iter().map(|entry| (*entry).to_owned()).collect(),
                library: None,
            }],
            ..Manifest::default()
        }
    }

    #[test]
    fn names_are_found_once_or_it_is_said_why_not() {
        let mut of_files = manifest("four", Kind::Detector, &["any"]);
        of_files.engines[0].library = Some(LibraryKind::Detector);
        let mut upscalers = manifest("five", Kind::Upscaler, &[]);
        upscalers.engines[0].library = Some(LibraryKind::Upscaler);
        let files = |kind| match kind {
            LibraryKind::Detector => vec!["face".to_owned()],
            LibraryKind::Upscaler => vec!["RealESRGAN_x4plus".to_owned(), "other".to_owned()],
            _ => vec![],
        };
        let all = [
            of_files,
            manifest("one", Kind::Upscaler, &["2x", "4x"]),
            manifest("two", Kind::Upscaler, &["4x", "8x"]),
            manifest("three", Kind::Restorer, &["2x"]),
        ];
        let unknown = Unknown { field: "hr_upscaler", beside: &["Lanczos"] };
        let find_any = |kind, name: &str| find(kind, name, all.iter(), &files, &unknown);
        let find = |kind, name: &str| find_any(kind, name).map(|(found, _)| &found.name[..]);
        let file = find_any(Kind::Detector, "face").map(|(found, library)| (&found.name[..], library));
        assert_eq!(file, Ok(("four", Some((LibraryKind::Detector, "face".to_owned())))));
        assert_eq!(find_any(Kind::Detector, "any").map(|(_, library)| library), Ok(None));
        // As A1111 shows it, and as it is called.
        for name in ["R-ESRGAN 4x+", "RealESRGAN_x4plus"] {
            let found = super::find(Kind::Upscaler, name, [&upscalers].into_iter(), &files, &unknown);
            let file = found.map(|(_, file)| file);
            assert_eq!(file, Ok(Some((LibraryKind::Upscaler, "RealESRGAN_x4plus".to_owned()))));
        }
        assert_eq!(names(Kind::Upscaler, [&upscalers].into_iter(), &files), ["R-ESRGAN 4x+", "other"]);
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
        assert_eq!(names(Kind::Upscaler, all.iter(), &files), ["2x", "4x", "8x"]);
        assert_eq!(names(Kind::Detector, all.iter(), &files), ["any", "face"]);
    }
}
