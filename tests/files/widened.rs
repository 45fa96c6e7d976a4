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

/// A safetensors file of zeros: names, types, shapes and bytes.
fn zeros(tensors: &[(&str, &str, &str, usize)]) -> Vec<u8> {
    let mut end = 0;
    let entries = tensors.iter().map(|(name, dtype, shape, size)| {
        let start = end;
        end += size;
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    let mut bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    bytes.resize(bytes.len() + end, 0);
    bytes
}

/// Of a network in several files, which one has a weight's scale is by chance.
#[test]
fn a_scale_belongs_to_its_weight_in_another_file_too() {
    let folder = tempfile::tempdir().expect("folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    };
    write("model_index.json", b"{}");
    let list = "unet/diffusion_pytorch_model.safetensors.index.json";
    write(
        list,
        br#"{"weight_map":{"a.weight":"1","a.weight_scale":"2","b.weight":"2","b.scale_weight":"1"}}"#,
    );
    let mark = ("scaled_fp8", "F8_E4M3", "[0]", 0);
    let one = [mark, ("a.weight", "F8_E4M3", "[4,2]", 8), ("b.scale_weight", "F32", "[]", 4)];
    write("unet/1", &zeros(&one));
    write("unet/2", &zeros(&[mark, ("a.weight_scale", "F32", "[4]", 16), ("b.weight", "F8_E5M2", "[2]", 2)]));
    let file = files::open(folder.path()).expect("opens");
    assert_eq!(file.names().collect::<Vec<_>>(), ["unet/a.weight", "unet/b.weight"]);
    for name in ["unet/a.weight", "unet/b.weight"] {
        assert_eq!(file.weight_dtype(name).expect("weights"), WeightDtype::F32);
        let (dtype, bytes) = file.weights(name).expect("weights").expect("there");
        assert!(dtype == WeightDtype::F32 && bytes.iter().all(|byte| *byte == 0));
    }
}

/// Neither one for all nor one for each output.
#[test]
fn scales_that_do_not_fit_are_refused() {
    for (shape, dtype, size, expected) in [
        ("3", "F32", 12, "layer.weight has scales of shape [3] for 4 outputs"),
        ("0", "F32", 0, "layer.weight has scales of shape [0] for 4 outputs"),
        ("4,2", "F32", 32, "layer.weight has scales of shape [4, 2] for 4 outputs"),
        ("1,4", "F32", 16, "layer.weight has scales of shape [1, 4] for 4 outputs"),
        ("4", "I8", 4, "layer.weight has scales of type i8"),
    ] {
        let header = format!(
            r#"{{"layer.weight":{{"dtype":"F8_E4M3","shape":[4,2],"data_offsets":[0,8]}},
                "layer.weight_scale":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[8,{}]}}}}"#,
            8 + size
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + 8 + size, 0);
        let file = files::from_bytes("odd", bytes).expect("opens");
        let error = file.weights("layer.weight").expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}
