//! Reading golden files, and saying how far a result is from one.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

/// A file under `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

/// A tiny checkpoint.
pub fn checkpoint(name: &str) -> PathBuf {
    fixture(&format!("models/Stable-diffusion/{name}.safetensors"))
}

/// One golden file.
pub struct Golden(std::collections::HashMap<String, Tensor>);

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = fixture(&format!("golden/{name}.safetensors"));
        Self(candle_core::safetensors::load(&path, &Device::Cpu).expect("golden file"))
    }

    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        values(self.get(name))
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.get(name).flatten_all().and_then(|t| t.to_vec1()).expect("integers")
    }

    /// Token ids, one sequence per row.
    pub fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let rows: Vec<Vec<i64>> = self.get(name).to_vec2().expect("ids");
        rows.into_iter().map(|row| row.into_iter().map(|id| id as u32).collect()).collect()
    }
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()).expect("values")
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
