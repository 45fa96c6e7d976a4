//! What a checkpoint's UNet tells of noised latents. Its weights look alike either way; a file beside them or marks
//! among them say so.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use saphyr_parser::{Event, Parser, ScanError};

use super::mapped::open_without_waiting;
use super::tensors::Tensors;
use crate::{Error, Result};

/// The Stability AI model metadata standard's name for it (1.0.1).
pub(crate) const METADATA: &str = "modelspec.prediction_type";

/// An empty tensor that ComfyUI and trainers after it put into checkpoints that predict v.
const MARK: &str = "v_pred";

/// LDM's configurations have some 70 lines.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Where a checkpoint's configuration in LDM's YAML may be: under its name with the ending `.yaml`, as A1111 has it.
pub fn config_beside(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("yaml")
}

/// What a UNet's output is, for latents x = signal · x0 + level · noise with signal² + level² = 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    #[default]
    Epsilon,
    /// signal · noise − level · x0 (Salimans and Ho 2022).
    Velocity,
}

impl Prediction {
    /// "epsilon" or "v", as the Stability AI model metadata standard has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Epsilon, Self::Velocity].into_iter().find(|each| each.name() == name)
    }

    /// What the configuration beside a checkpoint says; without one that says it, what the file itself says.
    pub(crate) fn of_file(checkpoint: &Path, file: &Tensors) -> Result<Self> {
        Self::told(checkpoint, file).map(|(prediction, _)| prediction)
    }

    /// As a checkpoint is drawn with, and where that stands.
    pub fn told(checkpoint: &Path, file: &Tensors) -> Result<(Self, ToldBy)> {
        // A folder has its own configurations, and dots in its name are no endings.
        if file.format() == "folder" {
            return Self::of(file);
        }
        let path = config_beside(checkpoint);
        let text = read(&path).map_err(|error| Error::model(&path, format!("cannot be read: {error}")))?;
        match text.map(|text| Self::of_config(&path, text)).transpose()?.flatten() {
            Some(said) => Ok((said, ToldBy::Beside)),
            None => Self::of(file),
        }
    }

    /// What a configuration in LDM's YAML says, if it does; errors call it `path`.
    pub fn of_config(path: &Path, text: Vec<u8>) -> Result<Option<Self>> {
        let wrong = |reason: String| Error::model(path, reason);
        if text.len() as u64 > LARGEST_CONFIG {
            return Err(wrong("is larger than any model's configuration".to_owned()));
        }
        let text = String::from_utf8(text).map_err(|_| wrong("is no UTF-8 text".to_owned()))?;
        match parameterization(&text).map_err(|error| wrong(format!("is no YAML: {error}")))?.as_deref() {
            None => Ok(None),
            Some("eps") => Ok(Some(Self::Epsilon)),
            Some("v") => Ok(Some(Self::Velocity)),
            Some(other) => Err(unknown(path, other)),
        }
    }

    /// What the file itself says.
    pub(crate) fn of(file: &Tensors) -> Result<(Self, ToldBy)> {
        let told_by = if file.format() == "folder" { ToldBy::Scheduler } else { ToldBy::Metadata };
        match file.metadata().get(METADATA).map(String::as_str) {
            Some("v" | "v_prediction") => Ok((Self::Velocity, told_by)),
            Some("epsilon" | "eps") => Ok((Self::Epsilon, told_by)),
            Some(other) => Err(unknown(file.path(), other)),
            None if file.shape(MARK).is_some() => Ok((Self::Velocity, ToldBy::Mark)),
            None => Ok((Self::Epsilon, ToldBy::Nothing)),
        }
    }
}

/// Where it stands what a checkpoint predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// In the configuration beside it, `NAME.yaml`.
    Beside,
    /// In a folder's `scheduler/scheduler_config.json`.
    Scheduler,
    /// In its metadata.
    Metadata,
    /// A tensor without elements says it.
    Mark,
    /// Nowhere: it is what most do.
    Nothing,
}

impl ToldBy {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Beside => "said by the .yaml beside it",
            Self::Scheduler => "said by scheduler/scheduler_config.json",
            Self::Metadata => "said by modelspec.prediction_type in its metadata",
            Self::Mark => "said by its tensor v_pred",
            Self::Nothing => "said by nothing; it is what most predict",
        }
    }
}

fn unknown(path: &Path, named: &str) -> Error {
    let named: String = named.chars().take(40).collect();
    Error::Unsupported(format!(
        "{}: the model predicts {named:?}; this version draws with models that predict noise or v",
        path.display()
    ))
}

/// The configuration, or a little more than the largest that is believed; `None` where there is no such file.
fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match open_without_waiting(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = vec![];
    file.take(LARGEST_CONFIG + 1).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// The value of the one key that matters here. Aliases stay what they are, so no text can grow.
fn parameterization(text: &str) -> std::result::Result<Option<String>, ScanError> {
    let mut was_key = false;
    for event in Parser::new_from_str(text.trim_start_matches('\u{FEFF}')) {
        let Event::Scalar(value, ..) = event?.0 else {
            was_key = false;
            continue;
        };
        let is_key = value == "parameterization";
        if was_key && !is_key {
            return Ok(Some(value.into_owned()));
        }
        was_key = is_key;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_however_it_is_written() {
        let rows = [
            ("model:\n  params:\n    parameterization: \"v\"\n    channels: 4\n", Some("v")),
            ("parameterization: v", Some("v")),
            ("    parameterization: 'v'\t# SD 2.x\r\n", Some("v")),
            ("    \"parameterization\" : eps\n", Some("eps")),
            ("params: {channels: 4, parameterization: v}", Some("v")),
            ("{\"model\": {\"parameterization\": \"v\"}}", Some("v")),
            ("\u{FEFF}parameterization: v\n", Some("v")),
            ("name: parameterization\nparameterization: v\n", Some("v")),
            ("    parameterization: x0", Some("x0")),
            ("    # parameterization: \"v\"\n", None),
            ("    old_parameterization: v\n", None),
            ("parameterization: [v]\n", None),
            ("model:\n  params:\n    channels: 4\n", None),
            ("parameterization", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let found = parameterization(text).expect("YAML");
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn hostile_yaml_ends_in_an_error_or_nothing() {
        let deep = |open: &str| open.repeat(LARGEST_CONFIG as usize / open.len());
        let laughs = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n";
        for text in
            [&deep("["), &deep("{a: "), &deep("- "), &deep("? "), laughs, "a: *none", "a: 'b", "\t- a", "%\0"]
        {
            let found = parameterization(text);
            assert!(found.is_err() || found == Ok(None), "{found:?}");
        }
    }
}
