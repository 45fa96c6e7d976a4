//! What is done with bytes from outside, by kind: it may end in an error, in nothing else. The fuzz targets and the test of
//! what they found once do the same.

use std::path::Path;

use latentd_models::files::{self, FileInfo, Prediction};
use latentd_models::image::{Infotext, Picture, PictureHeader, read_infotext};
use latentd_models::model::Model;
use latentd_models::nn::Precision;

/// Opens a weight file of any format, looks at it, reads each tensor, and makes a model of it where it is one.
pub fn weights(bytes: &[u8]) {
    let Ok(file) = files::from_bytes("fuzzed", bytes.to_vec()) else { return };
    let info = FileInfo::of(&file);
    for name in file.names() {
        let told = file.weight_dtype(name);
        if let Ok(Some((dtype, weights))) = file.weights(name) {
            assert_eq!(told.ok(), Some(dtype), "what was told before is what there is");
            let shape = file.shape(name).unwrap_or_default();
            let elements = shape.iter().fold(1usize, |all, size| all.saturating_mul(*size));
            assert_eq!(weights.len(), elements * dtype.size(), "as many as its shape says: {name}");
        }
    }
    assert_eq!(info.tensors, file.names().count());
    drop(Model::from_bytes("fuzzed", bytes.to_vec(), Precision::F32));
}

/// Reads the `.yaml` beside a checkpoint.
pub fn config(bytes: &[u8]) {
    drop(Prediction::of_config(Path::new("fuzzed.yaml"), bytes.to_vec()));
}

/// Decodes a picture of at most 16 MiB, and looks for the text in it.
pub fn pictures(bytes: &[u8]) {
    drop(PictureHeader::read(bytes));
    drop(Picture::decode(bytes, 16 << 20));
    drop(read_infotext(bytes));
}

/// Takes an infotext apart, and what it writes of it once more.
pub fn infotext(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = Infotext::parse(text);
    for key in ["Size", "Seed", "Steps", "Model", ""] {
        assert!(parsed.size(key).is_none() || parsed.get(key).is_some_and(|value| value.contains('x')));
    }
    drop(Infotext::parse(&parsed.to_string()));
}
