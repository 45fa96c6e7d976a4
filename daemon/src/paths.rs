//! Paths as people write them in settings, and the folders that settings begin from.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};

/// Why a path cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("'{}' means the home folder of another user, which is not looked up; give the whole path", .0.display())]
    OtherHome(PathBuf),
    #[error("'{}' cannot be found: there is no home folder; give the whole path", .0.display())]
    NoHome(PathBuf),
    #[error("'{}' cannot be found: {reason}; give the whole path", path.display())]
    NoFolder { path: PathBuf, reason: String },
    #[error("a path is empty; leave it out, or give one")]
    Empty,
}

/// The whole path: `~` at its front is the home folder, and a relative one begins in `base`.
pub(crate) fn absolute(path: &Path, base: &Path) -> Result<PathBuf, PathError> {
    expand(path, base, home())
}

/// As [`absolute`], beginning where this process was started.
pub(crate) fn absolute_from_here(path: &Path) -> Result<PathBuf, PathError> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let here = std::env::current_dir();
    let here =
        here.map_err(|error| PathError::NoFolder { path: path.to_owned(), reason: error.to_string() })?;
    absolute(path, &here)
}

/// What reads a path that a flag, or the variable that stands for it, gives.
pub(crate) fn parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| absolute_from_here(&path))
}

/// A base folder: the variable if it holds an absolute path, else the place under the home folder.
pub(crate) fn xdg(variable: &str, under_home: &str) -> PathBuf {
    let given = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    given.unwrap_or_else(|| home().unwrap_or_else(std::env::temp_dir).join(under_home))
}

/// The user's home folder.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

fn expand(path: &Path, base: &Path, home: Option<PathBuf>) -> Result<PathBuf, PathError> {
    let mut parts = path.components();
    let Some(first) = parts.next() else {
        return Err(PathError::Empty);
    };
    if !first.as_os_str().as_encoded_bytes().starts_with(b"~") {
        return Ok(base.join(path));
    }
    if first.as_os_str() != "~" {
        return Err(PathError::OtherHome(path.to_owned()));
    }
    let home = home.ok_or_else(|| PathError::NoHome(path.to_owned()))?;
    // Part by part: joined with nothing, a path would get a `/` at its end.
    Ok(home.components().chain(parts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_in_front_is_the_home_folder() {
        let rows = [
            ("~", Ok("/home/me")),
            ("~/", Ok("/home/me")),
            ("~/a/b", Ok("/home/me/a/b")),
            ("a/~", Ok("/base/a/~")),
            ("./~", Ok("/base/./~")),
            ("/~", Ok("/~")),
            ("a", Ok("/base/a")),
            ("/a", Ok("/a")),
            ("", Err("a path is empty")),
            ("~you", Err("home folder of another user")),
            ("~you/a", Err("'~you/a' means the home folder of another user")),
        ];
        for (path, expected) in rows {
            let found = expand(Path::new(path), Path::new("/base"), Some("/home/me".into()));
            match expected {
                Ok(expected) => assert_eq!(found.expect(path).as_os_str(), expected),
                Err(expected) => {
                    let error = found.expect_err(path).to_string();
                    assert!(error.contains(expected), "{error}");
                }
            }
        }
        let error = expand(Path::new("~/a"), Path::new("/base"), None).expect_err("no home").to_string();
        assert!(error.contains("there is no home folder"), "{error}");
    }
}
