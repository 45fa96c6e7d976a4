//! Networks of faces against spandrel and facexlib in f32, with weights that both make up by one rule (`tests/fixtures/restorers.py`).
//! Tolerance: 1e-4 of what a picture's numbers are apart from the mean of their colour, so that flat pictures prove nothing.

use std::collections::BTreeMap;

use latentd_models::files;
use latentd_models::networks::known::KnownNetwork;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Device, Precision, Run};
use latentd_models::{Error, Tensor};
use serde_json::{Value, json};

use crate::golden::Golden;
use crate::made_up::{self, safetensors, uniform};

/// Name, shape and numbers of a tensor.
type Made = (String, Vec<usize>, Vec<f32>);

/// Names and shapes, by cases.
type Cases = BTreeMap<String, Vec<(String, Vec<usize>)>>;

fn told(cases: BTreeMap<String, Value>) -> Cases {
    let tensors = |tensors| serde_json::from_value(tensors).expect("names and shapes");
    cases.into_iter().map(|(name, case)| (name, tensors(case))).collect()
}

fn cases() -> Cases {
    told(made_up::cases("restorers"))
}

/// Names, shapes and numbers of a case's file.
fn tensors(case: &[(String, Vec<usize>)]) -> Vec<Made> {
    let numbers = |(index, (name, shape)): (usize, &(String, Vec<usize>))| {
        let mut values = uniform(index, shape);
        let is_norm = name.ends_with("weight") && shape.len() == 1;
        if name.contains(".noises.") {
            let side = *shape.last().expect("a side") as f32;
            for value in &mut values {
                *value *= side;
            }
        } else if name.ends_with("running_var") || is_norm {
            for value in &mut values {
                *value += 1.0;
            }
        }
        (name.clone(), shape.clone(), values)
    };
    case.iter().enumerate().map(numbers).collect()
}

fn file(name: &str, tensors: &[Made]) -> files::Tensors {
    files::from_bytes(name, safetensors(tensors, str::to_owned, &json!({}))).expect("opens")
}

/// What a part of a file's network makes of a picture.
fn made(
    file: &files::Tensors,
    device: &Device,
    precision: Precision,
    entry: &str,
    inputs: &[Tensor],
) -> Vec<Tensor> {
    let known = KnownNetwork::of(file).expect("whole").expect("known");
    let entry = known.described().entry(entry).expect("a part");
    let network = known.open(file, device, precision).expect("opens");
    network.run(entry, inputs, &Run::WHOLE).expect("runs")
}

/// The deviation of each colour's numbers from their mean, which is that of `of`.
fn apart(x: &Tensor, of: &Tensor) -> Vec<f64> {
    let colours = if x.dims().len() == 4 { x.dim(1) } else { 1 };
    let size = x.values().len() / colours;
    let means =
        of.values().chunks(size).map(|of| of.iter().copied().map(f64::from).sum::<f64>() / size as f64);
    let means: Vec<f64> = means.collect();
    x.values().iter().enumerate().map(|(at, value)| f64::from(*value) - means[at / size]).collect()
}

#[track_caller]
fn assert_close(name: &str, found: &Tensor, wanted: &Tensor) {
    assert_eq!(found.dims(), wanted.dims(), "{name}: shape");
    let (found, apart) = (apart(found, wanted), apart(wanted, wanted));
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(&apart).map(|(a, b)| a - b));
    let error = difference / norm(&mut apart.iter().copied());
    println!("{name}: relative error {error:.2e}");
    assert!(error < 1e-4, "{name}: relative error {error:.2e}");
}

/// What there is to run of a family: its parts with what goes in beside the picture, and the golden's names of what comes out.
fn runs(family: &str) -> Vec<(&'static str, Option<f32>, Vec<&'static str>)> {
    match family {
        "gfpgan" => vec![("", None, vec!["image"])],
        "codeformer" => vec![
            ("", Some(0.0), vec!["weight 0.0"]),
            ("", Some(0.5), vec!["weight 0.5"]),
            ("", Some(1.0), vec!["weight 1.0"]),
            ("plain", Some(0.5), vec!["plain"]),
        ],
        "retinaface" => vec![("", None, vec!["boxes", "scores", "points"])],
        _ => vec![("", None, vec!["parts"])],
    }
}

fn check_case(golden: &Golden, name: &str, case: &[(String, Vec<usize>)]) {
    let family = name.split('-').next().expect("a family");
    let file = file(name, &tensors(case));
    let known = KnownNetwork::of(&file).expect("whole").expect("known");
    assert_eq!(known.described().kind, family, "{name}");
    for (entry, weight, outputs) in runs(family) {
        let mut inputs = vec![golden.get(&format!("{name} in")).clone()];
        inputs.extend(weight.map(|weight| Tensor::full(weight, [1])));
        let made = made(&file, &cpu(), Precision::F32, entry, &inputs);
        assert_eq!(made.len(), outputs.len(), "{name}");
        for (made, output) in made.iter().zip(outputs) {
            let name = format!("{name} {output}");
            assert_close(&name, made, golden.get(&name));
        }
    }
}

#[test]
fn networks_of_faces_are_spandrels_and_facexlibs() {
    let golden = Golden::open("restorers");
    let cases = cases();
    assert_eq!(cases.len(), 8);
    for (name, case) in cases {
        check_case(&golden, &name, &case);
    }
}

/// Networks of the real sizes, which the script writes to a folder: by hand, with its path in `LATENTD_REAL_RESTORERS`.
#[test]
fn those_of_real_sizes_are_too() {
    let Some(folder) = std::env::var_os("LATENTD_REAL_RESTORERS").map(std::path::PathBuf::from) else {
        return;
    };
    let golden = Golden::read(&folder.join("restorers.safetensors"));
    let cases = told(made_up::cases_in(&folder.join("restorers.json.gz")));
    for (name, case) in cases {
        check_case(&golden, &name, &case);
    }
}

#[test]
fn wrapped_names_and_half_precision_are_the_same_networks() {
    let (golden, cases) = (Golden::open("restorers"), cases());
    for (case, wrapper) in [
        ("gfpgan-32", "params_ema."),
        ("codeformer-32", "params_ema."),
        ("retinaface-narrow", "module."),
        ("parsenet-4", "state_dict.module."),
    ] {
        let tensors = tensors(&cases[case]);
        let bytes = safetensors(&tensors, |name| format!("{wrapper}{name}"), &json!({}));
        let wrapped = files::from_bytes(wrapper, bytes).expect("opens");
        let mut inputs = vec![golden.get(&format!("{case} in")).clone()];
        if case.starts_with("codeformer") {
            inputs.push(Tensor::full(0.5, [1]));
        }
        let plain = made(&file(case, &tensors), &cpu(), Precision::F32, "", &inputs);
        let other = made(&wrapped, &cpu(), Precision::F32, "", &inputs);
        for (plain, other) in plain.iter().zip(&other) {
            assert_eq!(plain.values(), other.values(), "{case}");
        }
    }
}

/// What a file's network is refused with.
fn refusal(tensors: &[Made]) -> String {
    let file = file("some.pth", tensors);
    let error = match KnownNetwork::of(&file) {
        Ok(Some(known)) => known.open(&file, &cpu(), Precision::F32).err(),
        Ok(None) => Some(Error::Request("unknown".to_owned())),
        Err(error) => Some(error),
    };
    error.expect("refused").to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_told_by_its_tensors() {
    let cases = cases();
    for (case, name, to, wanted) in [
        (
            "gfpgan-32",
            "conv_body_up.1.skip.weight",
            None,
            "missing tensor conv_body_up.1.skip.weight [16, 16]",
        ),
        (
            "gfpgan-32",
            "stylegan_decoder.style_convs.3.modulated_conv.weight",
            Some((vec![1, 32, 32, 1, 1], 0.1)),
            "is [1, 32, 32, 1, 1], [1, 32, 32, 3, 3] is needed",
        ),
        (
            "gfpgan-32",
            "stylegan_decoder.noises.noise2",
            Some((vec![1, 1, 8, 8], f32::NAN)),
            "tensor stylegan_decoder.noises.noise2 ",
        ),
        (
            "codeformer-32",
            "quantize.embedding.weight",
            Some((vec![40, 256], f32::INFINITY)),
            "quantize.embedding.weight ",
        ),
        ("codeformer-32", "ft_layers.0.linear2.bias", None, "missing tensor ft_layers.0.linear2.bias [64]"),
        ("codeformer-32", "position_emb", Some((vec![250, 64], 0.1)), "is [250, 64]; a square of places"),
        (
            "retinaface-narrow",
            "body.layer2.1.bn2.running_var",
            Some((vec![9], 1.0)),
            "tensor body.layer2.1.bn2.running_var is [9], [8] is needed",
        ),
        (
            "retinaface-narrow",
            "LandmarkHead.2.conv1x1.bias",
            Some((vec![20], f32::NAN)),
            "LandmarkHead.2.conv1x1.bias ",
        ),
        (
            "parsenet-4",
            "decoder.1.conv2.norm.norm.bias",
            None,
            "missing tensor decoder.1.conv2.norm.norm.bias",
        ),
        ("parsenet-4", "decoder.1.conv1.conv2d.weight", Some((vec![8, 9, 3, 3], 1.0)), "[8, 9, 3, 3]"),
    ] {
        let mut tensors = tensors(&cases[case]);
        let place = tensors.iter().position(|(own, ..)| own == name).expect("there");
        match to {
            None => drop(tensors.remove(place)),
            Some((shape, value)) => {
                let count = shape.iter().product();
                tensors[place] = (name.to_owned(), shape, vec![value; count]);
            }
        }
        let found = refusal(&tensors);
        assert!(found.starts_with("some.pth: ") && found.contains(wanted), "{found}\n{wanted}");
    }
    for case in ["gfpgan-32", "codeformer-32", "retinaface-narrow", "parsenet-4"] {
        let mut more = tensors(&cases[case]);
        more.push(("body.none".to_owned(), vec![1], vec![0.0]));
        let found = refusal(&more);
        assert!(found.contains("extra tensor body.none"), "{found}");
    }
    // GFPGAN's first version.
    let mut first = tensors(&cases["gfpgan-32"]);
    first.push(("conv_body_first.0.weight".to_owned(), vec![1], vec![0.0]));
    assert!(refusal(&first).contains("is GFPGAN's first version, which has other layers; take GFPGANv1.3"));
}

#[test]
fn neither_batch_nor_threads_nor_device_change_a_bit_and_memory_is_foreseen() {
    use latentd_models::nn::backend::fake::fake;
    let (golden, cases) = (Golden::open("restorers"), cases());
    for name in ["gfpgan-64", "codeformer-32", "retinaface-wide", "parsenet-16"] {
        let file = file(name, &tensors(&cases[name]));
        let image = golden.get(&format!("{name} in"));
        let two = Tensor::cat(&[&image.scaled(0.5), image], 0).expect("two");
        let weighted = name.starts_with("codeformer");
        let with = |image: &Tensor, weights: &[f32]| {
            let weights = || Tensor::new(weights.to_vec(), [weights.len()]).expect("weights");
            std::iter::once(image.clone()).chain(weighted.then(weights)).collect::<Vec<_>>()
        };
        for precision in [Precision::F32, Precision::Bf16] {
            let one = with(image, &[0.7]);
            let alone = made(&file, &cpu(), precision, "", &one);
            let both = made(&file, &cpu(), precision, "", &with(&two, &[0.1, 0.7]));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
            let threads = pool.install(|| made(&file, &cpu(), precision, "", &one));
            let (device, _) = fake(512 << 20, None).expect("a fake device");
            let other = made(&file, &device, precision, "", &one);
            for (index, alone) in alone.iter().enumerate() {
                let second = both[index].narrow(0, 1, 1).expect("the second");
                assert_eq!(second.values(), alone.values(), "{name}: batch");
                assert_eq!(threads[index].values(), alone.values(), "{name}: threads");
                assert_eq!(other[index].values(), alone.values(), "{name}: device");
                assert!(alone.values().iter().all(|value| value.is_finite()), "{name}: {precision:?}");
            }
            // What runs take beside the weights.
            let known = KnownNetwork::of(&file).expect("whole").expect("known");
            let entry = known.described().entry("").expect("the whole");
            let network = known.open(&file, &device, precision).expect("opens");
            let before = device.memory().used;
            network.run(entry, &one, &Run::WHOLE).expect("runs");
            let taken = device.memory().most - before;
            let foreseen = known.activation_bytes(entry, &[image.dims().to_vec()]);
            assert!(taken <= foreseen, "{name}: {taken} of {foreseen}");
        }
    }
}

#[test]
fn a_run_ends_within_once_it_is_cancelled() {
    let (golden, cases) = (Golden::open("restorers"), cases());
    for name in ["gfpgan-32", "codeformer-32", "retinaface-narrow", "parsenet-4"] {
        let file = file(name, &tensors(&cases[name]));
        let known = KnownNetwork::of(&file).expect("whole").expect("known");
        let network = known.open(&file, &cpu(), Precision::F32).expect("opens");
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let cancelled = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 2;
        let image = golden.get(&format!("{name} in")).clone();
        let entry = known.described().entry("").expect("the whole");
        let mut inputs = vec![image];
        inputs.extend(name.starts_with("codeformer").then(|| Tensor::full(0.5, [1])));
        let ran = network.run(entry, &inputs, &Run::until(&cancelled));
        assert!(matches!(ran, Err(Error::Cancelled)), "{name}: {:?}", ran.map(drop));
    }
}
