//! A model in a folder, as diffusers saves it: `model_index.json`, and beside it a folder for each network, with one weight
//! file or several. All of it is one view, in which tensors are called `unet/` and the name their file has for them.
//!
//! The folder is read through its open descriptor: one that is renamed meanwhile is still the one that was opened. Links
//! are followed wherever they lead, since the Hugging Face cache consists of them; names that stand in a file are not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::joined::join;
use super::mapped::open_without_waiting;
use super::tensors::Tensors;
use super::{index, prediction, resolution};
use crate::{Error, Result};

/// What makes a folder one of diffusers'.
pub(crate) const MODEL_INDEX: &str = "model_index.json";

/// Bytes of a configuration. Real ones have a few kilobytes.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Files beside a network's that are looked at before the folder is taken for something else.
const MOST_FILES: usize = 10_000;

/// A network's folder, and how the names of its weight files begin.
struct Network {
    folder: &'static str,
    safetensors: &'static str,
    bin: &'static str,
    /// Which is read where there is a whole file beside a list of parts: each as the library that wrote it does.
    parts_first: bool,
}

const DIFFUSERS: &str = "diffusion_pytorch_model";

const NETWORKS: [Network; 4] = [
    Network { folder: "unet", safetensors: DIFFUSERS, bin: DIFFUSERS, parts_first: true },
    Network { folder: "vae", safetensors: DIFFUSERS, bin: DIFFUSERS, parts_first: true },
    Network { folder: "text_encoder", safetensors: "model", bin: "pytorch_model", parts_first: false },
    Network { folder: "text_encoder_2", safetensors: "model", bin: "pytorch_model", parts_first: false },
];

/// Variants that are taken where there is no plain file, the first first; others come between them and the last.
const FIRST_VARIANT: &str = "fp16";
/// What training goes on from; the plain file has the averaged weights.
const LAST_VARIANT: &str = "non_ema";

/// Reads a folder that is open; `open` opens each of its weight files. Errors call it `path`.
pub(super) fn read(
    folder: &File,
    path: &Path,
    open: impl Fn(&File, &Path) -> Result<Tensors>,
) -> Result<Tensors> {
    let folder =
        Folder { file: folder.try_clone().map_err(|error| unread(path, &error))?, path: path.to_owned() };
    if folder.config::<serde_json::Map<String, Value>>(MODEL_INDEX)?.is_none() {
        let reason = format!(
            "is a folder without {MODEL_INDEX}, so no model as diffusers saves it; name a file in it, or the folder \
             that has {MODEL_INDEX}"
        );
        return Err(Error::file(path, reason));
    }
    let mut files = vec![];
    let mut metadata = BTreeMap::new();
    for network in &NETWORKS {
        let Some(within) = folder.folder(network.folder)? else { continue };
        for (file, path) in within.weights(network)? {
            let file = open(&file, &path)?;
            if network.folder == "unet" {
                metadata.extend(file.metadata().clone());
            }
            files.push((format!("{}/", network.folder), file));
        }
    }
    metadata.extend(told(&folder)?);
    if files.is_empty() {
        return Err(Error::file(path, "has none of the folders unet, vae and text_encoder"));
    }
    join(path, metadata, files)
}

/// Of `scheduler/scheduler_config.json`.
#[derive(Deserialize)]
struct Scheduler {
    prediction_type: Option<String>,
}

/// Of `unet/config.json`.
#[derive(Deserialize)]
struct UNet {
    /// A side of the latents, or height and width.
    sample_size: Option<Value>,
}

/// What the configurations say of the model, under the names that the metadata of a single file would have.
fn told(folder: &Folder) -> Result<BTreeMap<String, String>> {
    let mut told = BTreeMap::new();
    if let Some(scheduler) = folder.folder("scheduler")? {
        let config = scheduler.config::<Scheduler>("scheduler_config.json")?;
        if let Some(kind) = config.and_then(|config| config.prediction_type) {
            told.insert(prediction::METADATA.to_owned(), kind);
        }
    }
    if let Some(unet) = folder.folder("unet")? {
        let config = unet.config::<UNet>("config.json")?;
        let size = config.and_then(|config| config.sample_size);
        let pixels = |latents: &Value| latents.as_u64()?.checked_mul(8);
        let sides = match &size {
            Some(Value::Array(sides)) => match sides.as_slice() {
                [height, width] => pixels(width).zip(pixels(height)),
                _ => None,
            },
            Some(side) => pixels(side).zip(pixels(side)),
            None => None,
        };
        if let Some((width, height)) = sides {
            told.insert(resolution::KEY.to_owned(), format!("{width}x{height}"));
        }
    }
    Ok(told)
}

/// A folder that is open.
struct Folder {
    file: File,
    /// What errors call it.
    path: PathBuf,
}

impl Folder {
    /// Where a file in it is to be found, whatever the folder is called by now.
    fn within(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.file.as_raw_fd()))
    }

    /// What lies in it under this name, open; `None` if there is nothing.
    fn open(&self, name: &str) -> Result<Option<File>> {
        match open_without_waiting(&self.within(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unread(&self.path.join(name), &error)),
        }
    }

    /// A folder in it.
    fn folder(&self, name: &str) -> Result<Option<Self>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let path = self.path.join(name);
        let found = file.metadata().map_err(|error| unread(&path, &error))?;
        if !found.is_dir() {
            return Err(Error::file(path, "is no folder, as it is in a model that diffusers saves"));
        }
        Ok(Some(Self { file, path }))
    }

    /// A small file's bytes, if it is there.
    fn small(&self, name: &str, largest: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let path = self.path.join(name);
        let found = file.metadata().map_err(|error| unread(&path, &error))?;
        if !found.is_file() {
            return Err(Error::file(path, "is not a regular file"));
        }
        let mut bytes = vec![];
        file.take(largest + 1).read_to_end(&mut bytes).map_err(|error| unread(&path, &error))?;
        if bytes.len() as u64 > largest {
            return Err(Error::file(path, format!("is larger than the {largest} bytes that are believed")));
        }
        Ok(Some(bytes))
    }

    /// What is needed of a configuration, if it is there. JSON that is nested deeper than 128 is refused by its parser.
    fn config<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.small(name, LARGEST_CONFIG)? else { return Ok(None) };
        let wrong = |error| Error::file(self.path.join(name), format!("is no configuration: {error}"));
        serde_json::from_slice(&bytes).map(Some).map_err(wrong)
    }

    /// A network's weight files, open, and what errors call them.
    fn weights(&self, network: &Network) -> Result<Vec<(File, PathBuf)>> {
        let Some(choice) = self.choices(network)?.into_iter().min() else {
            let Network { safetensors, bin, .. } = network;
            let reason =
                format!("has no weights that are read: neither {safetensors}.safetensors nor {bin}.bin");
            return Err(Error::file(&self.path, reason));
        };
        let gone = |name: &str, why: &str| Error::file(self.path.join(name), format!("is not there{why}"));
        if !choice.is_list {
            let file = self.open(&choice.name)?.ok_or_else(|| gone(&choice.name, " any more"))?;
            return Ok(vec![(file, self.path.join(&choice.name))]);
        }
        let list = &choice.name;
        let json = self.small(list, index::LARGEST)?.ok_or_else(|| gone(list, " any more"))?;
        let shards = index::shards(&json).map_err(|reason| Error::file(self.path.join(list), reason))?;
        let shard = |name: String| {
            let missing = || gone(&name, &format!(", though {list} names it; download it too"));
            Ok((self.open(&name)?.ok_or_else(missing)?, self.path.join(&name)))
        };
        shards.into_iter().map(shard).collect()
    }

    /// What a network could be read from.
    fn choices(&self, network: &Network) -> Result<Vec<Choice>> {
        let failed = |error: std::io::Error| unread(&self.path, &error);
        let mut choices = vec![];
        for (count, entry) in std::fs::read_dir(self.within("")).map_err(failed)?.enumerate() {
            if count == MOST_FILES {
                return Err(Error::file(
                    &self.path,
                    format!("has more than the {MOST_FILES} files that are looked at"),
                ));
            }
            let name = entry.map_err(failed)?.file_name();
            choices.extend(name.to_str().and_then(|name| Choice::of(name, network)));
        }
        Ok(choices)
    }
}

fn unread(path: &Path, error: &std::io::Error) -> Error {
    Error::unread(path, error.to_string())
}

/// A file that a network could be read from. The least is: without a variant before one with, as diffusers reads unless it
/// is told otherwise, and the only one that is there where diffusers would have to be told; safetensors before pickles.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    variant_rank: usize,
    variant: String,
    is_pickle: bool,
    is_second: bool,
    /// Whether it is a list of the weight files.
    is_list: bool,
    name: String,
}

impl Choice {
    /// What a file's name says, if it is a network's. With a variant the list's has been written in two ways.
    fn of(name: &str, network: &Network) -> Option<Self> {
        let of = |stem: &str, ending: &str, is_pickle: bool| {
            let rest = name.strip_prefix(stem)?;
            let (variant, is_list) = if let Some(variant) = rest.strip_suffix(ending) {
                (variant, false)
            } else {
                let (before, after) = rest.strip_suffix(".json")?.split_once(".index")?;
                match (before.strip_suffix(ending)?, after) {
                    (variant, "") | ("", variant) => (variant, true),
                    _ => return None,
                }
            };
            let variant = match variant.strip_prefix('.') {
                Some(variant) if is_variant(variant) => variant,
                None if variant.is_empty() => "",
                _ => return None,
            };
            let variant_rank = match variant {
                "" => 0,
                FIRST_VARIANT => 1,
                LAST_VARIANT => 3,
                _ => 2,
            };
            Some(Self {
                variant_rank,
                variant: variant.to_owned(),
                is_pickle,
                is_second: is_list != network.parts_first,
                is_list,
                name: name.to_owned(),
            })
        };
        of(network.safetensors, ".safetensors", false).or_else(|| of(network.bin, ".bin", true))
    }
}

/// Shards, whose names go on with `-00001-of-00002`, are none.
fn is_variant(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_files_the_one_that_diffusers_would_read_is_taken() {
        let [unet, _, text, _] = &NETWORKS;
        let d = DIFFUSERS;
        let rows: [(&Network, &[&str], Option<&str>); 13] = [
            (unet, &["D.bin", "D.safetensors", "D.fp16.safetensors"], Some("D.safetensors")),
            (unet, &["D.bin", "D.fp16.safetensors"], Some("D.bin")),
            (
                unet,
                &["D.fp16.bin", "D.fp16.safetensors", "D.non_ema.safetensors"],
                Some("D.fp16.safetensors"),
            ),
            (unet, &["D.non_ema.bin", "D.bf16.bin"], Some("D.bf16.bin")),
            (unet, &["D.non_ema.bin"], Some("D.non_ema.bin")),
            (unet, &["D.safetensors", "D.safetensors.index.json"], Some("D.safetensors.index.json")),
            (
                unet,
                &[
                    "D-00001-of-00002.safetensors",
                    "D.fp16-00001-of-00002.safetensors",
                    "D.safetensors.index.fp16.json",
                ],
                Some("D.safetensors.index.fp16.json"),
            ),
            (unet, &["D.fp16.safetensors.index.json"], Some("D.fp16.safetensors.index.json")),
            (unet, &["D.bin.index.json", "D.fp16.bin"], Some("D.bin.index.json")),
            (
                unet,
                &["D.msgpack", "D.safetensors.txt", "config.json", "model.safetensors", "D.index.json"],
                None,
            ),
            (text, &["model.safetensors", "model.safetensors.index.json"], Some("model.safetensors")),
            (text, &["pytorch_model.bin", "model.fp16.safetensors"], Some("pytorch_model.bin")),
            (text, &["model.bin", "pytorch_model.safetensors", "model.onnx"], None),
        ];
        for (network, names, expected) in rows {
            let names: Vec<String> = names.iter().map(|name| name.replace('D', d)).collect();
            let choice = names.iter().filter_map(|name| Choice::of(name, network)).min();
            let expected = expected.map(|name| name.replace('D', d));
            assert_eq!(choice.map(|choice| choice.name), expected, "{names:?}");
        }
    }
}
