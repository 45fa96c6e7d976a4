//! Reading golden files, and saying how far a result is from one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use latentd_models::Tensor;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// A file under `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

/// A tiny checkpoint.
pub fn checkpoint(name: &str) -> PathBuf {
    fixture(&format!("models/Stable-diffusion/{name}.safetensors"))
}

/// One golden file: numbers as f32, and whole numbers as they are.
pub struct Golden {
    floats: BTreeMap<String, Tensor>,
    integers: BTreeMap<String, (Vec<usize>, Vec<i64>)>,
}

impl Golden {
    pub fn open(name: &str) -> Self {
        Self::read(&fixture(&format!("golden/{name}.safetensors")))
    }

    /// Any `.safetensors` file.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("golden file");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut golden = Self { floats: BTreeMap::new(), integers: BTreeMap::new() };
        for (name, view) in file.tensors() {
            let (dims, data) = (view.shape().to_vec(), view.data());
            let floats: Vec<f32> = match view.dtype() {
                Dtype::F32 => numbers(data, f32::from_le_bytes),
                Dtype::F64 => numbers(data, |bytes| f64::from_le_bytes(bytes) as f32),
                Dtype::F16 => numbers(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
                Dtype::I64 => {
                    golden.integers.insert(name, (dims, numbers(data, i64::from_le_bytes)));
                    continue;
                }
                Dtype::U32 => {
                    let values = numbers(data, |bytes| i64::from(u32::from_le_bytes(bytes)));
                    golden.integers.insert(name, (dims, values));
                    continue;
                }
                other => panic!("a golden tensor of type {other:?}"),
            };
            golden.floats.insert(name, Tensor::new(floats, dims).expect("as many as it says"));
        }
        golden
    }

    pub fn get(&self, name: &str) -> &Tensor {
        self.floats.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.floats.contains_key(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.floats.keys().map(String::as_str)
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        values(self.get(name))
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.whole(name).1.clone()
    }

    /// Token ids, one sequence per row.
    pub fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let (dims, values) = self.whole(name);
        let length = dims.last().copied().expect("rows");
        values.chunks_exact(length).map(|row| row.iter().map(|id| *id as u32).collect()).collect()
    }

    fn whole(&self, name: &str) -> &(Vec<usize>, Vec<i64>) {
        self.integers.get(name).unwrap_or_else(|| panic!("no golden integers {name}"))
    }
}

fn numbers<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).map(|bytes| read(bytes.try_into().expect("N bytes"))).collect()
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.values().to_vec()
}

/// |found − wanted| / |wanted|, both as vectors.
pub fn relative_error(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len(), "sizes differ");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(wanted).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut wanted.iter().map(|v| f64::from(*v))).max(1e-30)
}

/// Fails unless `found` has the golden's shape and is within `tolerance` of it.
#[track_caller]
pub fn assert_close(name: &str, found: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), wanted.dims(), "{name}: shape");
    let error = relative_error(&values(found), &values(wanted));
    println!("{name}: relative error {error:.2e}");
    assert!(error < tolerance, "{name}: relative error {error:.2e}, {tolerance:.0e} is allowed");
}
