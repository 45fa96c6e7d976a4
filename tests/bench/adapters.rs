//! What a set of LoRAs costs at the real size: two of rank 32 that touch all attentions and feed-forward layers of SD 1.5's
//! UNet and text encoder, against the two things that nobody can do without, measured beside it: the touched weights copied
//! to pages that were never touched, and the products of the deltas. Makes its files (2.4 GB) in the folder that is given.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use half::f16;
use latentd_kernels::{Buffer, Epilogue, Isa, PackedMatrix, Weights, linear};
use latentd_models::adapters::{Adapter, Network, Targets};
use latentd_models::files;
use latentd_models::model::{Checkpoint, Component, ComponentKind, Estimate};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Patch, Precision};
use memmap2::{Advice, MmapMut};
use rayon::prelude::*;

type Failure = Box<dyn std::error::Error>;

const RANK: usize = 32;
const ROUNDS: usize = 5;
const KINDS: [ComponentKind; 2] = [ComponentKind::TextEncoder, ComponentKind::UNet];

fn main() -> Result<(), Failure> {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let Some(folder) = folder.map(PathBuf::from) else {
        println!("adapters: no folder given, nothing measured");
        return Ok(());
    };
    let shapes = make(&folder)?;
    let checkpoint = Checkpoint::open(&folder.join("sd15-random.safetensors"))?;
    let targets = Targets::new(shapes.iter().map(|(name, shape)| (name.clone(), shape.clone())));
    let touched: Vec<(&str, usize, usize)> = shapes
        .iter()
        .filter(|(name, shape)| is_touched(name, shape))
        .map(|(name, shape)| (name.as_str(), shape[0], shape[1]))
        .collect();
    let count: usize = touched.iter().map(|(_, outputs, inputs)| outputs * inputs).sum();
    println!(
        "{} layers are touched, {:.0} million weights; {} threads",
        touched.len(),
        count as f64 / 1e6,
        rayon::current_num_threads()
    );
    for precision in [Precision::F32, Precision::Bf16] {
        let mut base = vec![];
        for kind in KINDS {
            base.push(checkpoint.load(kind, &cpu(), precision, &|| false)?);
        }
        let weights = weights(&touched, precision);
        let file = File::open(folder.join("sd15-random.safetensors"))?;
        // The first time files are read from the disk.
        let (mut rounds, mut unrounded, mut again, mut one) = (vec![], vec![], vec![], vec![]);
        for round in 0..=ROUNDS {
            let (copied, multiplied) = (copy(&weights), products(&touched));
            // Rounded to bf16 the weights are in memory, as they are only in the file.
            let read = if precision == Precision::F32 { copied } else { read(&file, &touched) };
            let start = Instant::now();
            let patches = patches(&folder, &targets, &["one", "two"])?;
            let made = load(&checkpoint, &base, &[], &patches, precision)?;
            let changed = start.elapsed().as_secs_f64();
            // A set that differs in the text encoder alone.
            let start = Instant::now();
            drop(load(&checkpoint, &base[..1], &[], &patches, precision)?);
            let text = start.elapsed().as_secs_f64();
            // The same set: all of it is shared.
            let start = Instant::now();
            drop(load(&checkpoint, &base, &made, &patches, precision)?);
            let same = start.elapsed().as_secs_f64();
            if round > 0 {
                println!(
                    "  {changed:.2} s; copied in {copied:.2} s, from where they are unrounded in {read:.2} s, products {multiplied:.2} s: {:.2}, {:.2}",
                    changed / (copied + multiplied),
                    changed / (read + multiplied)
                );
                rounds.push(changed / (copied + multiplied));
                unrounded.push(changed / (read + multiplied));
                again.push(same);
                one.push(text);
            }
        }
        let median = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "{precision:?}: {:.2} times the copy and the products, {:.2} times with that of what is unrounded; the text encoder alone {:.2} s; the same set, were it not kept, {:.3} s",
            median(&mut rounds),
            median(&mut unrounded),
            median(&mut one),
            median(&mut again)
        );
    }
    Ok(())
}

fn load(
    checkpoint: &Checkpoint,
    base: &[Component],
    near: &[Component],
    patches: &[Vec<Arc<dyn Patch>>; 2],
    precision: Precision,
) -> Result<Vec<Component>, Failure> {
    let mut made = vec![];
    for (index, (base, patches)) in base.iter().zip(patches).enumerate() {
        let near = near.get(index).map(std::slice::from_ref).unwrap_or_default();
        made.push(checkpoint.load_patched(base, near, patches, &cpu(), precision, &|| false)?);
    }
    Ok(made)
}

fn patches(folder: &Path, targets: &Targets, names: &[&str]) -> Result<[Vec<Arc<dyn Patch>>; 2], Failure> {
    let mut all = [vec![], vec![]];
    for (number, name) in names.iter().enumerate() {
        let file = files::open(&folder.join(format!("{name}.safetensors")))?;
        let adapter = Arc::new(Adapter::of(file, targets, None, None)?);
        for (network, patches) in [Network::Text, Network::UNet].into_iter().zip(&mut all) {
            let patch = adapter.patch(network, 0.7, [number as u8; 32]).ok_or("it touches nothing")?;
            patches.push(Arc::new(patch) as Arc<dyn Patch>);
        }
    }
    Ok(all)
}

/// As many numbers as the touched weights are in a precision, each in memory of its own.
fn weights(touched: &[(&str, usize, usize)], precision: Precision) -> Vec<Buffer<f32>> {
    let bytes = if precision == Precision::F32 { 4 } else { 2 };
    let filled = |(_, outputs, inputs): &(&str, usize, usize)| {
        let mut buffer = Buffer::fixed(outputs * inputs * bytes / 4);
        buffer.fill(1.0);
        buffer
    };
    touched.par_iter().map(filled).collect()
}

/// Seconds that it takes to copy them to new pages.
fn copy(weights: &[Buffer<f32>]) -> f64 {
    let start = Instant::now();
    let copied = |weights: &Buffer<f32>| {
        let mut buffer = Buffer::fixed(weights.len());
        buffer.copy_from_slice(weights);
        buffer
    };
    let kept: Vec<Buffer<f32>> = weights.par_iter().map(copied).collect();
    let seconds = start.elapsed().as_secs_f64();
    drop(kept);
    seconds
}

/// The same of as many f16 numbers of the file.
fn read(file: &File, touched: &[(&str, usize, usize)]) -> f64 {
    let sizes = touched.iter().map(|(_, outputs, inputs)| outputs * inputs);
    let starts: Vec<(usize, usize)> = sizes
        .scan(0, |end, size| {
            *end += size;
            Some((*end - size, size))
        })
        .collect();
    let start = Instant::now();
    let copied = |(first, size): &(usize, usize)| {
        let mut pages = MmapMut::map_anon(size * 2).expect("memory");
        pages.advise(Advice::HugePage).ok();
        file.read_exact_at(&mut pages, 2 * *first as u64).expect("the file is as large");
        pages
    };
    let kept: Vec<MmapMut> = starts.par_iter().map(copied).collect();
    let seconds = start.elapsed().as_secs_f64();
    drop(kept);
    seconds
}

/// Seconds that the products of two LoRAs take, with everything at hand and nowhere to put it but where the last one was.
fn products(touched: &[(&str, usize, usize)]) -> f64 {
    let mut sizes: Vec<(usize, usize)> =
        touched.iter().map(|(_, outputs, inputs)| (*outputs, *inputs)).collect();
    sizes.sort_unstable();
    let packed: BTreeMap<usize, PackedMatrix> = sizes
        .iter()
        .map(|(_, inputs)| {
            let down = vec![0.01f32; inputs * RANK];
            (*inputs, PackedMatrix::linear(Weights::of(&down), *inputs, RANK).expect("finite"))
        })
        .collect();
    let largest = sizes.iter().map(|(outputs, inputs)| outputs * inputs).max().unwrap_or_default();
    let (up, mut out) = (vec![0.01f32; largest], vec![0f32; largest]);
    let start = Instant::now();
    for (outputs, inputs) in sizes.iter().flat_map(|size| [size, size]) {
        let (x, out) = (&up[..outputs * RANK], &mut out[..outputs * inputs]);
        linear(Isa::current(), x, *outputs, &packed[inputs], &Epilogue::default(), out);
    }
    start.elapsed().as_secs_f64()
}

/// What kohya's trainer touches by default: linear layers of transformers, 1×1 convolutions around them left out.
fn is_touched(name: &str, shape: &[usize]) -> bool {
    let is_layer = name.contains("transformer_blocks.") || name.contains("encoder.layers.");
    shape.len() == 2 && is_layer && name.ends_with(".weight")
}

/// Makes what is not there yet; names and shapes of the checkpoint's text encoder and UNet.
fn make(folder: &Path) -> Result<BTreeMap<String, Vec<usize>>, Failure> {
    std::fs::create_dir_all(folder)?;
    let estimate = Estimate::new(&Checkpoint::synthetic_sd15(), Precision::F32)?;
    let mut all = BTreeMap::new();
    for kind in ComponentKind::ALL {
        all.extend(estimate.tensors(kind).map(|(name, shape)| (name.to_owned(), shape)));
    }
    write(&folder.join("sd15-random.safetensors"), &all, 1)?;
    all.retain(|name, _| !name.starts_with("first_stage_model."));
    let mut lora = BTreeMap::new();
    for (name, shape) in all.iter().filter(|(name, shape)| is_touched(name, shape)) {
        let layer = name.trim_end_matches(".weight");
        let layer = layer
            .strip_prefix("model.diffusion_model.")
            .map(|layer| format!("lora_unet_{}", layer.replace('.', "_")));
        let of_text = || {
            name.trim_end_matches(".weight")
                .replace("cond_stage_model.transformer.", "lora_te_")
                .replace('.', "_")
        };
        let layer = layer.unwrap_or_else(of_text);
        lora.insert(format!("{layer}.lora_down.weight"), vec![RANK, shape[1]]);
        lora.insert(format!("{layer}.lora_up.weight"), vec![shape[0], RANK]);
    }
    write(&folder.join("one.safetensors"), &lora, 2)?;
    write(&folder.join("two.safetensors"), &lora, 3)?;
    Ok(all)
}

/// A safetensors file of f16 numbers that keep signals at their size.
fn write(path: &Path, tensors: &BTreeMap<String, Vec<usize>>, seed: u64) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let (mut header, mut end) = (String::from("{"), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let comma = if start == 0 { "" } else { "," };
        write!(
            header,
            r#"{comma}"{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        )?;
    }
    header.push('}');
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut word = seed;
    for shape in tensors.values() {
        let spread =
            if shape.len() == 1 { 0.05 } else { (3.0 / shape[1..].iter().product::<usize>() as f32).sqrt() };
        let centre = if shape.len() == 1 { 1.0 } else { 0.0 };
        for _ in 0..shape.iter().product() {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            let uniform = (word >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            out.write_all(&f16::from_f32(centre + spread * uniform).to_le_bytes())?;
        }
    }
    Ok(out.flush()?)
}
