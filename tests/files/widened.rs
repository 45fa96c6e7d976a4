//! 8-bit floats, with and without scales beside them, and f64: what torch makes of them, bit for bit.

use std::path::{Path, PathBuf};

use latentd_kernels::{WeightDtype, Weights};
use latentd_models::files;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/containers").join(name)
}

/// Bits of f32; all that is no number is the same.
fn bits(dtype: WeightDtype, bytes: &[u8]) -> Vec<u32> {
    let values = Weights { dtype, bytes }.to_f32();
    values.into_iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
}

#[test]
fn torch_widens_them_so_too() {
    let stored = files::open(&fixture("f8.safetensors")).expect("opens");
    let read = files::open(&fixture("f8-read.safetensors")).expect("opens");
    let names: Vec<_> = read.names().collect();
    assert_eq!(stored.names().collect::<Vec<_>>(), names, "what belongs to weights is no tensor of its own");
    assert_eq!(names.len(), 9);
    for name in names {
        let (dtype, values) = stored.weights(name).expect("weights").expect("there");
        let (wanted_dtype, wanted) = read.weights(name).expect("weights").expect("there");
        assert_eq!(dtype, wanted_dtype, "{name}");
        assert_eq!(stored.weight_dtype(name).expect("told before"), dtype, "{name}");
        assert_eq!(bits(dtype, &values), bits(wanted_dtype, &wanted), "{name}");
    }
}

/// Neither one for all nor one for each output.
#[test]
fn scales_that_do_not_fit_are_refused() {
    for (scales, dtype, size, expected) in [
        (3, "F32", 4, "layer.weight has 3 scales for 4 outputs"),
        (0, "F32", 4, "layer.weight has 0 scales for 4 outputs"),
        (8, "F32", 4, "layer.weight has 8 scales for 4 outputs"),
        (4, "I8", 1, "layer.weight has scales of type i8"),
    ] {
        let header = format!(
            r#"{{"layer.weight":{{"dtype":"F8_E4M3","shape":[4,2],"data_offsets":[0,8]}},
                "layer.weight_scale":{{"dtype":"{dtype}","shape":[{scales}],"data_offsets":[8,{}]}}}}"#,
            8 + scales * size
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + 8 + scales * size, 0);
        let file = files::from_bytes("odd", bytes).expect("opens");
        let error = file.weights("layer.weight").expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}
