//! What a checkpoint's UNet tells of noised latents. Its weights look alike either way; a file beside them or marks
//! among them say so.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::SafeTensors;
use crate::{Error, Result};

/// The Stability AI model metadata standard's name for it (1.0.1).
const METADATA: &str = "modelspec.prediction_type";

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
    /// What the file itself says.
    pub(crate) fn of(file: &SafeTensors) -> Self {
        let said = file.metadata().get(METADATA).map(String::as_str);
        if file.shape(MARK).is_some() || matches!(said, Some("v" | "v_prediction")) {
            Self::Velocity
        } else {
            Self::Epsilon
        }
    }

    /// What the configuration beside a checkpoint says. `None` without one.
    pub(crate) fn beside(checkpoint: &Path) -> Result<Option<Self>> {
        let path = config_beside(checkpoint);
        // Anything but a file could keep us waiting.
        if !path.is_file() {
            return Ok(None);
        }
        let mut text = vec![];
        File::open(&path)
            .and_then(|file| file.take(LARGEST_CONFIG + 1).read_to_end(&mut text))
            .map_err(|error| Error::model(&path, format!("cannot be read: {error}")))?;
        if text.len() as u64 > LARGEST_CONFIG {
            return Err(Error::model(&path, "is larger than any model's configuration"));
        }
        let text = String::from_utf8(text).map_err(|_| Error::model(&path, "is no UTF-8 text"))?;
        match parameterization(&text) {
            None | Some("eps") => Ok(Some(Self::Epsilon)),
            Some("v") => Ok(Some(Self::Velocity)),
            Some(other) => Err(Error::Unsupported(format!(
                "{}: the model predicts {other:?}; this version knows \"eps\" and \"v\"",
                path.display()
            ))),
        }
    }
}

/// The value of the one key that matters here. These files are YAML in block style, one key a line.
fn parameterization(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let value = value.split(" #").next().unwrap_or_default().trim();
        (key.trim().trim_matches(['"', '\'']) == "parameterization").then(|| value.trim_matches(['"', '\'']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_as_people_write_it() {
        let rows = [
            ("model:\n  params:\n    parameterization: \"v\"\n    channels: 4\n", Some("v")),
            ("parameterization: v", Some("v")),
            ("    parameterization: 'v'   # SD 2.x\r\n", Some("v")),
            ("    \"parameterization\" : eps\n", Some("eps")),
            ("    parameterization: x0", Some("x0")),
            ("    # parameterization: \"v\"\n", None),
            ("    old_parameterization: v\n", None),
            ("model:\n  params:\n    channels: 4\n", None),
            ("parameterization", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parameterization(text), expected, "{text}");
        }
    }
}
