//! Merged checkpoints against the same sums made here, number by number, and what cannot be merged.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use half::f16;
use latentd_models::files::{self, Prediction, inspect};
use latentd_models::model::{Checkpoint, Interpolation, Merge, MergeLora, MergeSources, Merged, WeightDtype};
use latentd_models::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use crate::folder::{self, Fixture, Owned, read};

const SCHEDULE: &str = "alphas_cumprod";
const POSITIONS: &str = "cond_stage_model.transformer.text_model.embeddings.position_ids";
const FIRST: &str = "model.diffusion_model.input_blocks.0.0.weight";
const VAE: &str = "first_stage_model.decoder.conv_in.weight";

pub type Model = BTreeMap<String, Owned>;
/// What becomes of three numbers.
type Formula<'a> = &'a dyn Fn(f32, f32, f32) -> f32;

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

pub fn tiny() -> Model {
    read(&fixture("models/Stable-diffusion/tiny-sd1.safetensors"))
}

/// Numbers as f32; of what is no float none.
pub fn floats((dtype, _, bytes): &Owned) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::BF16 => {
            bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        _ => vec![],
    }
}

fn stored(dtype: Dtype, shape: &[usize], values: impl IntoIterator<Item = f32>) -> Owned {
    let values = values.into_iter();
    let bytes = match dtype {
        Dtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::BF16 => values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    };
    (dtype, shape.to_vec(), bytes)
}

/// The same model with other numbers, which depend on the place of each.
pub fn other(model: &Model, salt: usize) -> Model {
    let other = |(name, tensor): (&String, &Owned)| {
        let values = floats(tensor);
        let changed = values.iter().enumerate().map(|(place, value)| {
            value * 0.5 + ((place * 31 + name.len() * 7 + salt * 13) % 101) as f32 / 512.0 - 0.1
        });
        let tensor = if values.is_empty() { tensor.clone() } else { stored(tensor.0, &tensor.1, changed) };
        (name.clone(), tensor)
    };
    model.iter().map(other).collect()
}

/// Files in a folder of their own.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn put(&self, name: &str, model: &Model) -> PathBuf {
        folder::write(&self.at(name), model.clone().into_iter());
        self.at(name)
    }

    fn put_with(&self, name: &str, model: &Model, metadata: &[(&str, &str)]) -> PathBuf {
        let views = model.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("a view"))
        });
        let metadata: HashMap<_, _> =
            metadata.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let bytes = safetensors::serialize(views, Some(metadata)).expect("safetensors");
        fs::write(self.at(name), bytes).expect("written");
        self.at(name)
    }
}

/// What is merged, by paths.
#[derive(Clone, Copy, Default)]
pub struct From<'a> {
    pub a: Option<&'a Path>,
    pub b: Option<&'a Path>,
    pub c: Option<&'a Path>,
    pub vae: Option<&'a Path>,
    /// Files, with their strengths in the text encoder and in the UNet.
    pub loras: &'a [(&'a Path, f32, f32, Option<usize>)],
}

pub fn merge(interpolation: Interpolation, multiplier: f64) -> Merge {
    Merge { interpolation, multiplier, dtype: None, discard: None, metadata: BTreeMap::new() }
}

pub fn settled(merge: Merge, from: From<'_>) -> Result<Merged> {
    let open = |path: Option<&Path>| path.map(files::open).transpose();
    let loras = from.loras.iter().map(|(path, te, unet, dynamic)| {
        Ok(MergeLora { file: files::open(path)?, te: *te, unet: *unet, dynamic: *dynamic, config: None })
    });
    let a = from.a.map_or_else(|| fixture("models/Stable-diffusion/tiny-sd1.safetensors"), Path::to_owned);
    let sources = MergeSources {
        a: files::open(&a)?,
        b: open(from.b)?,
        c: open(from.c)?,
        vae: open(from.vae)?,
        loras: loras.collect::<Result<_>>()?,
    };
    merge.of(sources)
}

pub fn write(merged: &Merged, at: &Path) -> Result<()> {
    let (mut told, mut bytes) = (0, 0);
    merged.write_file(&mut File::create(at).expect("made"), at, &mut |of_one| {
        told += 1;
        bytes += of_one;
        Ok(())
    })?;
    assert_eq!((told, bytes), (merged.tensors(), merged.bytes()), "each is told");
    Ok(())
}

pub fn merged(merge: Merge, from: From<'_>) -> (Model, Vec<String>) {
    let folder = Files::new();
    let merged = settled(merge, from).expect("can be merged");
    let at = folder.at("merged.safetensors");
    write(&merged, &at).expect("written");
    let model = read(&at);
    let bytes: usize = model.values().map(|(.., bytes)| bytes.len()).sum();
    assert_eq!((model.len(), bytes as u64), (merged.tensors(), merged.bytes()));
    (model, merged.notices().to_vec())
}

#[track_caller]
pub fn refused(merge: Merge, from: From<'_>) -> String {
    settled(merge, from).err().expect("refused").to_string()
}

/// Whether it is mixed: the networks, and not the schedule or the numbers of positions.
fn takes_part(name: &str) -> bool {
    name.contains("model") && name != POSITIONS
}

#[test]
fn sums_are_those_of_the_formulas() {
    let folder = Files::new();
    let a = tiny();
    let (b, c) = (other(&a, 1), other(&a, 2));
    let (at_b, at_c) = (folder.put("b.safetensors", &b), folder.put("c.safetensors", &c));
    let two = From { b: Some(&at_b), ..From::default() };
    let three = From { c: Some(&at_c), ..two };
    for multiplier in [0.0, 0.3, 0.5, 1.0, 1.75, -0.5] {
        let (stays, m) = ((1.0 - multiplier) as f32, multiplier as f32);
        let sum: Formula<'_> = &|a, b, _| a * stays + b * m;
        let difference: Formula<'_> = &|a, b, c| a + (b - c) * m;
        for (interpolation, from, formula) in
            [(Interpolation::WeightedSum, two, sum), (Interpolation::AddDifference, three, difference)]
        {
            let (found, notices) = merged(merge(interpolation, multiplier), from);
            assert!(notices.is_empty(), "{notices:?}");
            assert!(found.keys().eq(a.keys()));
            for (name, tensor) in &a {
                let wanted = if takes_part(name) {
                    let (of_a, of_b, of_c) = (floats(tensor), floats(&b[name]), floats(&c[name]));
                    let numbers = of_a.iter().zip(&of_b).zip(&of_c);
                    stored(tensor.0, &tensor.1, numbers.map(|((a, b), c)| formula(*a, *b, *c)))
                } else {
                    tensor.clone()
                };
                assert!(found[name] == wanted, "{interpolation:?} {multiplier}: {name}");
            }
        }
    }
    assert!(merged(merge(Interpolation::WeightedSum, 1.0), two).0[FIRST] == b[FIRST], "all of it is B's");
    assert!(merged(merge(Interpolation::None, 0.3), From::default()).0 == a, "all of it is A's");
}

#[test]
fn what_only_one_has_stays_or_is_left_out_and_that_is_told() {
    let folder = Files::new();
    let a = tiny();
    let (mut b, mut c) = (other(&a, 1), other(&a, 2));
    b.remove(VAE);
    let extra = "model.diffusion_model.new.weight";
    b.insert(extra.to_owned(), b[FIRST].clone());
    c.remove(FIRST);
    let (b, c) = (folder.put("b.safetensors", &b), folder.put("c.safetensors", &c));
    let from = From { b: Some(&b), c: Some(&c), ..From::default() };
    let (found, notices) = merged(merge(Interpolation::AddDifference, 1.0), from);
    assert!(found[VAE] == a[VAE] && found[FIRST] == a[FIRST] && !found.contains_key(extra));
    let told = [
        format!("b.safetensors lacks 1 tensors, which are as in tiny-sd1.safetensors, the first {VAE}"),
        format!("1 tensors that only b.safetensors has were left out, the first {extra}"),
    ];
    assert_eq!(notices, told);

    // What it predicts is what its UNet is trained for.
    let v = folder.put_with("v.safetensors", &other(&a, 3), &[("modelspec.prediction_type", "v")]);
    let (_, notices) =
        merged(merge(Interpolation::WeightedSum, 0.5), From { b: Some(&v), ..From::default() });
    assert!(notices[0].contains("predicts epsilon and v.safetensors v"), "{notices:?}");
}

#[test]
fn types_are_the_first_models_or_those_that_are_wanted() {
    let folder = Files::new();
    let a = tiny();
    let wide: Model = other(&a, 1)
        .into_iter()
        .map(|(name, tensor)| {
            let values = floats(&tensor);
            if values.is_empty() { (name, tensor) } else { (name, stored(Dtype::F32, &tensor.1, values)) }
        })
        .collect();
    let b = folder.put("wide.safetensors", &wide);
    let (found, _) = merged(merge(Interpolation::WeightedSum, 0.5), From { b: Some(&b), ..From::default() });
    assert_eq!((found[FIRST].0, found[SCHEDULE].0, found[POSITIONS].0), (Dtype::F16, Dtype::F32, Dtype::I64));
    for (dtype, expected) in
        [(WeightDtype::F16, Dtype::F16), (WeightDtype::Bf16, Dtype::BF16), (WeightDtype::F32, Dtype::F32)]
    {
        let wanted = Merge { dtype: Some(dtype), ..merge(Interpolation::WeightedSum, 0.5) };
        let at_a = fixture("models/Stable-diffusion/tiny-sd1.safetensors");
        let (found, _) = merged(wanted.clone(), From { a: Some(&b), b: Some(&at_a), ..From::default() });
        assert_eq!((found[FIRST].0, found[SCHEDULE].0), (expected, Dtype::F32));
        let sums = floats(&wide[FIRST]).into_iter().zip(floats(&a[FIRST])).map(|(a, b)| a * 0.5 + b * 0.5);
        assert!(found[FIRST] == stored(expected, &a[FIRST].1, sums), "{dtype:?}");
        // Also of what nothing is mixed into.
        let (found, _) = merged(
            Merge { interpolation: Interpolation::None, ..wanted },
            From { a: Some(&b), ..From::default() },
        );
        assert!(found[FIRST] == stored(expected, &a[FIRST].1, floats(&wide[FIRST])), "{dtype:?}");
    }
    let mut large = wide;
    let values = floats(&large[FIRST]).into_iter().map(|_| 3e5);
    let large_first = stored(Dtype::F32, &a[FIRST].1, values);
    large.insert(FIRST.to_owned(), large_first);
    let large = folder.put("large.safetensors", &large);
    let from = From { b: Some(&large), ..From::default() };
    let settled = settled(merge(Interpolation::WeightedSum, 0.5), from).expect("not read yet");
    let error = write(&settled, &folder.at("x")).expect_err("refused").to_string();
    assert!(error.contains(FIRST) && error.contains("f16 cannot hold; convert to bf16 or f32"), "{error}");
}

#[test]
fn every_layout_is_read_and_ldms_is_written() {
    let folder = Fixture::unpack();
    let half = merge(Interpolation::WeightedSum, 0.5);
    let ldm = folder.at("ldm.safetensors");
    let b = Files::new();
    let b = b.put("b.safetensors", &other(&read(&ldm), 1));
    let (wanted, _) = merged(half.clone(), From { a: Some(&ldm), b: Some(&b), ..From::default() });
    for name in ["plain", "sharded", "bin"] {
        let at = folder.at(name);
        let (found, notices) = merged(half.clone(), From { a: Some(&at), b: Some(&b), ..From::default() });
        assert!(found == wanted, "{name}: {notices:?}");
    }
    let (wanted, _) = merged(half.clone(), From { a: Some(&b), b: Some(&ldm), ..From::default() });
    let (found, notices) =
        merged(half, From { a: Some(&b), b: Some(&folder.at("plain")), ..From::default() });
    assert!(found == wanted, "{notices:?}");
}

#[test]
fn a_vae_takes_the_place_of_the_first_models() {
    let folder = Files::new();
    let a = tiny();
    let prefix = "first_stage_model.";
    let bare = |model: &Model| -> Model {
        let bare = model
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
        bare.collect()
    };
    let vae = bare(&other(&a, 5));
    let at = folder.put("vae.safetensors", &vae);
    let b = folder.put("b.safetensors", &other(&a, 1));
    let from = From { b: Some(&b), vae: Some(&at), ..From::default() };
    let (found, notices) = merged(merge(Interpolation::WeightedSum, 0.5), from);
    assert!(bare(&found) == vae && notices.is_empty(), "nothing is mixed into it: {notices:?}");
    assert!(found[FIRST] != a[FIRST]);

    // Where there is none, too, and in the type that is wanted; of a decoder alone, that.
    let without: Model =
        a.iter().filter(|(name, _)| !name.starts_with(prefix)).map(|(n, t)| (n.clone(), t.clone())).collect();
    let pruned = folder.put("pruned.safetensors", &without);
    let wanted = Merge { dtype: Some(WeightDtype::F32), ..merge(Interpolation::None, 0.0) };
    let (found, _) = merged(wanted, From { a: Some(&pruned), vae: Some(&at), ..From::default() });
    assert!(bare(&found).keys().eq(vae.keys()) && found[VAE].0 == Dtype::F32);
    let decoder: Model = vae
        .iter()
        .filter(|(name, _)| name.starts_with("decoder.") || name.starts_with("post_quant"))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    let decoder = folder.put("decoder.safetensors", &decoder);
    let (found, notices) =
        merged(merge(Interpolation::None, 0.0), From { vae: Some(&decoder), ..From::default() });
    assert!(bare(&found)["decoder.conv_in.weight"] == vae["decoder.conv_in.weight"]);
    assert!(bare(&found)["encoder.conv_in.weight"] == bare(&a)["encoder.conv_in.weight"]);
    assert!(notices[0].contains("decoder.safetensors has no encoder"), "{notices:?}");

    let error = refused(merge(Interpolation::None, 0.0), From { vae: Some(&pruned), ..From::default() });
    assert!(error.contains("pruned.safetensors: holds no VAE"), "{error}");
    let mut wide = vae;
    wide.insert("encoder.conv_in.weight".into(), a[FIRST].clone());
    let wide = folder.put("wide.safetensors", &wide);
    let error = refused(merge(Interpolation::None, 0.0), From { vae: Some(&wide), ..From::default() });
    assert!(error.contains("wide.safetensors: tensor encoder.conv_in.weight is [32, 4, 3, 3]"), "{error}");
}

#[test]
fn an_inpainting_model_takes_the_channels_that_all_have() {
    let folder = Files::new();
    let (a, m) = (tiny(), 0.25);
    let b = other(&a, 1);
    let plain = folder.put("plain.safetensors", &b);
    let c = folder.put("c.safetensors", &other(&a, 2));
    for (channels, kind) in [(9, "an inpainting model"), (8, "an InstructPix2Pix model")] {
        let mut more = a.clone();
        let values: Vec<f32> = (0..32 * channels * 9).map(|place| (place % 97) as f32 / 64.0).collect();
        more.insert(FIRST.to_owned(), stored(Dtype::F16, &[32, channels, 3, 3], values.iter().copied()));
        let more = folder.put("more.safetensors", &more);
        let from = From { a: Some(&more), b: Some(&plain), ..From::default() };
        let (found, _) = merged(merge(Interpolation::WeightedSum, m), from);
        let of_b = floats(&b[FIRST]);
        let wanted = values.iter().enumerate().map(|(place, a)| {
            let (output, within) = (place / (channels * 9), place % (channels * 9));
            let b = of_b.get(output * 36 + within).filter(|_| within < 36);
            b.map_or(*a, |b| a * (1.0 - m as f32) + b * m as f32)
        });
        assert!(found[FIRST] == stored(Dtype::F16, &[32, channels, 3, 3], wanted), "{kind}");
        let (found, _) = merged(merge(Interpolation::AddDifference, 1.0), From { c: Some(&c), ..from });
        assert_eq!(found[FIRST].1, [32, channels, 3, 3]);

        let error = refused(merge(Interpolation::WeightedSum, m), From { b: Some(&more), ..From::default() });
        assert!(error.contains(kind) && error.contains("make it A") && error.contains(FIRST), "{error}");
    }
}

#[test]
fn what_cannot_be_merged_is_refused_before_anything_is_written() {
    let folder = Files::new();
    let a = tiny();
    let b = folder.put("b.safetensors", &other(&a, 1));
    let small = fixture("models/Stable-diffusion/tiny-sd1-ema.safetensors");
    let xl: Model = a
        .iter()
        .map(|(name, t)| {
            (name.replace("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."), t.clone())
        })
        .collect();
    let xl = folder.put("xl.safetensors", &xl);
    let vae: Model = a
        .iter()
        .filter(|(name, _)| name.starts_with("first_stage_model."))
        .map(|(n, t)| (n.clone(), t.clone()))
        .collect();
    let vae = folder.put("vae.safetensors", &vae);
    let other_names = folder.put("other.safetensors", &[("x.weight".to_owned(), a[FIRST].clone())].into());
    let sum = || merge(Interpolation::WeightedSum, 0.5);
    let with_b = |path| From { b: Some(path), ..From::default() };
    let discard =
        |pattern: &str| Merge { discard: Some(pattern.to_owned()), ..merge(Interpolation::None, 0.0) };
    let rows = [
        (sum(), From::default(), "\"Weighted sum\" takes two models; give b"),
        (sum(), From { c: Some(&b), ..with_b(&b) }, "leave c out"),
        (merge(Interpolation::AddDifference, 0.5), with_b(&b), "takes three models"),
        (merge(Interpolation::None, 0.5), with_b(&b), "takes one model, A"),
        (merge(Interpolation::WeightedSum, f64::NAN), with_b(&b), "NaN is no number"),
        (sum(), with_b(&small), "tiny-sd1-ema.safetensors: tensor cond_stage_model"),
        (sum(), with_b(&xl), "xl.safetensors: is an SDXL checkpoint and"),
        (sum(), with_b(&other_names), "other.safetensors: has no tensor that"),
        (sum(), From { a: Some(&vae), ..with_b(&b) }, "vae.safetensors: has no UNet"),
        (sum(), From { a: Some(&other_names), ..with_b(&b) }, "other.safetensors: has no UNet"),
        (discard("("), From::default(), "discard_weights: is no regular expression"),
        (discard("."), From::default(), "nothing is left"),
    ];
    for (merge, from, reason) in rows {
        let error = refused(merge, from);
        assert!(error.contains(reason), "{reason}: {error}");
    }

    let mut broken = other(&a, 1);
    broken.insert(FIRST.to_owned(), stored(Dtype::F16, &a[FIRST].1, vec![f32::NAN; 32 * 36]));
    let broken = folder.put("broken.safetensors", &broken);
    let settled = settled(sum(), with_b(&broken)).expect("not read yet");
    let error = write(&settled, &folder.at("x")).expect_err("refused").to_string();
    assert!(error.contains(FIRST) && error.contains("becomes NaN or infinite"), "{error}");
    let ended =
        settled.write_file(&mut File::create(folder.at("y")).expect("made"), &folder.at("y"), &mut |_| {
            Err(Error::Cancelled)
        });
    assert!(matches!(ended, Err(Error::Cancelled)));
}

#[test]
fn the_file_says_what_is_true_of_it_and_what_is_not_wanted_is_left_out() {
    let folder = Files::new();
    let a = tiny();
    let said = [
        ("modelspec.prediction_type", "v"),
        ("modelspec.resolution", "64x64"),
        ("modelspec.hash_sha256", "0x00"),
        ("modelspec.title", "A"),
        ("sshs_model_hash", "00"),
        ("sd_merge_recipe", "{}"),
        ("licence", "MIT"),
    ];
    let at = folder.put_with("a.safetensors", &a, &said);
    let wanted = Merge {
        discard: Some("^alphas_|model_ema".to_owned()),
        metadata: [("sd_merge_recipe".to_owned(), "{\"type\":\"x\"}".to_owned())].into(),
        ..merge(Interpolation::None, 0.0)
    };
    let settled = settled(wanted, From { a: Some(&at), ..From::default() }).expect("can be merged");
    let at = folder.at("merged.safetensors");
    write(&settled, &at).expect("written");
    let found = files::open(&at).expect("opens");
    assert!(
        found.shape(SCHEDULE).is_none() && found.shape(FIRST).is_some() && found.shape("betas").is_some()
    );
    let expected = [
        ("format", "pt"),
        ("licence", "MIT"),
        ("modelspec.prediction_type", "v"),
        ("modelspec.resolution", "64x64"),
        ("sd_merge_recipe", "{\"type\":\"x\"}"),
    ];
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    assert_eq!(found.metadata(), &expected);
    let checkpoint = Checkpoint::open(&at).expect("a model");
    assert_eq!((checkpoint.prediction, checkpoint.native_size), (Prediction::Velocity, (64, 64)));
    assert_eq!(inspect(&at).expect("inspects").architecture.as_deref(), Some("sd1"));
}

#[test]
fn methods_have_two_names() {
    for (name, expected) in [
        ("weighted_sum", Some(Interpolation::WeightedSum)),
        ("Weighted sum", Some(Interpolation::WeightedSum)),
        ("add difference", Some(Interpolation::AddDifference)),
        ("No interpolation", Some(Interpolation::None)),
        ("none", Some(Interpolation::None)),
        ("sum", None),
    ] {
        assert_eq!(Interpolation::from_name(name), expected, "{name}");
    }
    assert_eq!(Interpolation::AddDifference.title(), "Add difference");
}
