//! Packs the demo checkpoint for the binary, where the feature `demo` is on: writes `demo.packed`, and `demo.rs`
//! with what is known of it, into `OUT_DIR`.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha2::{Digest, Sha256};

#[path = "src/demo/unpack.rs"]
mod unpack;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/demo/unpack.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let file = if env::var_os("CARGO_FEATURE_DEMO").is_some() { checkpoint()? } else { Vec::new() };
    let packed = pack(&file)?;
    if unpack::unpack(&packed, file.len())? != file {
        return Err("the packed demo checkpoint does not unpack to what it was".into());
    }
    fs::write(folder.join("demo.packed"), &packed)?;
    let mut sha256 = String::new();
    for byte in Sha256::digest(&file) {
        write!(sha256, "{byte:02x}")?;
    }
    let (size, parameters) = (file.len(), parameters(&file)?);
    let constants = format!(
        "const SIZE: usize = {size};\nconst PARAMETERS: u64 = {parameters};\nconst SHA256: &str = \"{sha256}\";\n"
    );
    fs::write(folder.join("demo.rs"), constants)?;
    Ok(())
}

fn checkpoint() -> Result<Vec<u8>, Box<dyn Error>> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let path = manifest.join("../models/demo/latentd-demo.safetensors");
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read(&path).map_err(|error| {
        let path = path.display();
        format!("{path}: {error}; build with --no-default-features to go without the demo model").into()
    })
}

/// Weights of a file that holds nothing but f16 after its header.
fn parameters(file: &[u8]) -> Result<u64, Box<dyn Error>> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Ok(0);
    };
    let header = u64::from_le_bytes(*length);
    let weights = (rest.len() as u64).checked_sub(header).ok_or("the demo checkpoint is cut off")?;
    Ok(weights / 2)
}

fn pack(file: &[u8]) -> io::Result<Vec<u8>> {
    let (even, odd) = (file.iter().step_by(2), file.iter().skip(1).step_by(2));
    let planes: Vec<u8> = even.chain(odd).copied().collect();
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&planes)?;
    packer.finish()
}
