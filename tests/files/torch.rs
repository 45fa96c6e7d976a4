//! PyTorch's own files: what torch wrote is read as torch reads it, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use latentd_models::files::{self, ElementType};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub fn containers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/containers")
}

/// What torch calls a type.
fn name_of(dtype: ElementType) -> &'static str {
    match dtype {
        ElementType::F32 => "float32",
        ElementType::F16 => "float16",
        ElementType::Bf16 => "bfloat16",
        ElementType::F64 => "float64",
        ElementType::I64 => "int64",
        ElementType::I32 => "int32",
        ElementType::I16 => "int16",
        ElementType::I8 => "int8",
        ElementType::U8 => "uint8",
        ElementType::Bool => "bool",
        other => other.name(),
    }
}

/// Each tensor's type, shape and hash.
fn described(file: &files::Tensors) -> BTreeMap<String, (String, Vec<u64>, String)> {
    let describe = |name: &str| {
        let shape = file.shape(name).expect("named").iter().map(|size| *size as u64).collect();
        let dtype = name_of(file.dtype(name).expect("named")).to_owned();
        let bytes = file.bytes(name).unwrap_or_else(|error| panic!("{error}")).expect("named");
        let hash =
            Sha256::digest(&bytes).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        (name.to_owned(), (dtype, shape, hash))
    };
    file.names().map(describe).collect()
}

#[test]
fn what_torch_wrote_is_read_as_torch_reads_it() {
    let table = fs::read(containers().join("torch.json")).expect("fixture");
    let table: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&table).expect("JSON");
    assert!(table.len() >= 20, "{}", table.len());
    for (name, tensors) in table {
        let expected: BTreeMap<_, _> = tensors
            .into_iter()
            .map(|(name, of)| {
                let shape = of["shape"].as_array().expect("shape").iter().filter_map(Value::as_u64).collect();
                let text = |key: &str| of[key].as_str().expect("text").to_owned();
                (name, (text("dtype"), shape, text("sha256")))
            })
            .collect();
        let path = containers().join(&name);
        let file = files::open(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(described(&file), expected, "{name}");
        assert_eq!(file.format(), "PyTorch");
        file.check_intact().expect("whole");
        let held = files::from_bytes("held", fs::read(&path).expect("read")).expect("opens from memory too");
        assert_eq!(described(&held), expected, "{name} from memory");
        assert_eq!(held.metadata(), file.metadata());
    }
}
