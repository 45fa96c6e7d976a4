//! Upscalers against spandrel in f32, with weights that both make up by one rule (`tests/fixtures/upscalers.py`). Tolerance: 1e-4
//! of the picture's largest number; the deepest here has 90 convolutions of up to 1728 terms.

use latentd_models::files;
use latentd_models::image::Tiling;
use latentd_models::networks::known::KnownNetwork;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Device, Precision, Run};
use latentd_models::{Error, Tensor};
use serde_json::json;

use crate::golden::{Golden, assert_close, fixture};
use crate::made_up::{cases, safetensors, tensors};

/// What a file's network makes of a picture, its scale as it tells of itself, and its kind.
fn enlarged(
    file: &files::Tensors,
    device: &Device,
    precision: Precision,
    image: &Tensor,
) -> (Tensor, String) {
    let known = KnownNetwork::of(file).expect("whole").expect("known");
    let described = known.described();
    let entry = described.entry("").expect("the whole");
    let network = known.open(file, device, precision).expect("opens");
    let [made] = &network.run(entry, std::slice::from_ref(image), &Run::WHOLE).expect("runs")[..] else {
        panic!("one picture comes out")
    };
    (made.clone(), format!("{} {}", described.kind, entry.outputs[0].sides[2]))
}

/// The last rows and columns, as many as the golden picture has.
fn corner(made: &Tensor, golden: &Tensor) -> Tensor {
    let (rows, columns) = (golden.dim(2), golden.dim(3));
    let below = made.narrow(2, made.dim(2) - rows, rows).expect("rows");
    below.narrow(3, made.dim(3) - columns, columns).expect("columns")
}

/// Of all cases but those that are not yet run here.
fn check(family: &str) {
    let (golden, mut checked) = (Golden::open("upscalers"), 0);
    for (name, case) in cases("upscalers").iter().filter(|(name, _)| name.starts_with(family)) {
        let tensors = tensors(case);
        let acts = name.split('-').nth(1).filter(|kind| kind.ends_with("relu"));
        let metadata = acts.map_or_else(|| json!({}), |kind| json!({ "act_type": kind }));
        let file = files::from_bytes(name, safetensors(&tensors, str::to_owned, &metadata)).expect("opens");
        let image = golden.get(if name == "rrdbnet-real-x4" { "small" } else { "image" });
        let grey = name.contains("grey").then(|| image.narrow(1, 0, 1).expect("a colour"));
        let image = grey.as_ref().unwrap_or(image);
        let (made, told) = enlarged(&file, &cpu(), Precision::F32, image);
        assert_eq!(told, format!("{family} {} height", case["scale"]), "{name}");
        assert_eq!(made.dim(2) as u64, image.dim(2) as u64 * case["scale"].as_u64().expect("a scale"));
        let golden = golden.get(name);
        assert_close(name, &corner(&made, golden), golden, 1e-4);
        checked += 1;
    }
    assert!(checked >= 2, "{family}: {checked} cases");
}

#[test]
fn rrdbnet_is_spandrels_by_all_names() {
    check("rrdbnet");
}

#[test]
fn compact_is_spandrels_with_all_activations() {
    check("compact");
}

#[test]
fn span_is_spandrels_with_and_without_norm() {
    check("span");
}

#[test]
fn swinir_is_spandrels_in_all_its_forms() {
    check("swinir");
}

#[test]
fn dat_is_spandrels_in_both_forms() {
    check("dat");
}

#[test]
fn pytorch_files_and_wrapped_names_are_the_same_networks() {
    let golden = Golden::open("upscalers");
    for (name, case) in [
        ("averaged.pth", "compact-tiny-x2"),
        ("parallel.pth", "compact-tiny-x2"),
        ("bare.pth", "compact-tiny-x2"),
        ("relu.pth", "compact-relu-x2"),
    ] {
        let file = files::open(&fixture(&format!("upscalers/{name}"))).expect(name);
        let (made, _) = enlarged(&file, &cpu(), Precision::F32, golden.get("image"));
        assert_close(name, &made, golden.get(case), 1e-4);
    }
    let tensors = tensors(&cases("upscalers")["compact-tiny-x2"]);
    for wrapper in ["params_ema.", "params-ema.", "params.", "state_dict.", "module.", "params.module."] {
        let bytes = safetensors(&tensors, |name| format!("{wrapper}{name}"), &json!({}));
        let file = files::from_bytes(wrapper, bytes).expect("opens");
        let (made, _) = enlarged(&file, &cpu(), Precision::F32, golden.get("image"));
        assert_close(wrapper, &made, golden.get("compact-tiny-x2"), 1e-4);
    }
    // The averaged weights count where both are there.
    let half = tensors.iter().map(|(name, shape, values)| {
        let values = values.iter().map(|value| value / 2.0).collect();
        (format!("params.{name}"), shape.clone(), values)
    });
    let both = tensors
        .iter()
        .map(|(name, shape, values)| (format!("params_ema.{name}"), shape.clone(), values.clone()));
    let both: Vec<_> = half.chain(both).collect();
    let file = files::from_bytes("both", safetensors(&both, str::to_owned, &json!({}))).expect("opens");
    let (made, _) = enlarged(&file, &cpu(), Precision::F32, golden.get("image"));
    assert_close("both", &made, golden.get("compact-tiny-x2"), 1e-4);
}

/// A picture `(1, 3, height, width)` in tiles through a network, as the host cuts it for an engine.
fn tiled(file: &files::Tensors, image: &Tensor, tiling: Tiling) -> Tensor {
    let known = KnownNetwork::of(file).expect("whole").expect("known");
    let entry = known.described().entry("").expect("the whole").clone();
    let network = known.open(file, &cpu(), Precision::F32).expect("opens");
    let (height, width) = (image.dim(2), image.dim(3));
    let colours = |x: usize, y: usize| [0, 1, 2].map(|c| image.values()[(c * height + y) * width + x]);
    let mut make = |tile: Tensor, _| Ok(network.run(&entry, &[tile], &Run::WHOLE)?.remove(0));
    let mut rows = vec![];
    tiling.go((width, height), &colours, &mut make, &mut |row| rows.extend_from_slice(row)).expect("made");
    let (high, wide) = (height * tiling.scale, width * tiling.scale);
    Tensor::new(rows, [1, high, wide, 3]).and_then(|rows| rows.to_channels_first()).expect("a picture")
}

#[test]
fn tiles_are_laid_over_one_another_as_by_spandrel_and_a1111() {
    let golden = Golden::open("upscalers");
    let bytes = safetensors(&tensors(&cases("upscalers")["rrdbnet-trunk-x2"]), str::to_owned, &json!({}));
    let file = files::from_bytes("tiled", bytes).expect("opens");
    let tiling = Tiling { scale: 2, size: 24, overlap: 8, multiple: 1, at_once: 1 };
    assert_close("tiled", &tiled(&file, golden.get("large"), tiling), golden.get("tiled"), 1e-4);
    // A network sees a tile's border, as spandrel's does; what fades in over it shows no more than the network's own detail does.
    let bytes = safetensors(&tensors(&cases("upscalers")["compact-x2"]), str::to_owned, &json!({}));
    let file = files::from_bytes("tiled", bytes).expect("opens");
    let (height, width, size, overlap) = (64, 112, 64, 16);
    let tiling = Tiling { size, overlap, ..tiling };
    let gradient = |at: usize| 0.2 + 0.6 * (at % width) as f32 / width as f32;
    let pictures: [(&str, Vec<f32>); 2] = [
        ("flat", vec![0.5; 3 * height * width]),
        ("gradient", (0..3 * height * width).map(gradient).collect()),
    ];
    for (name, values) in pictures {
        let image = Tensor::new(values, [1, 3, height, width]).expect("a picture");
        let made = tiled(&file, &image, tiling);
        let whole = tiled(&file, &image, Tiling { size: 0, ..tiling });
        let (high, wide) = (2 * height, 2 * width);
        let margin = 24;
        let step = |made: &Tensor, x: usize| -> f32 {
            let at = |c: usize, y: usize, x: usize| made.values()[(c * high + y) * wide + x];
            let rows = (0..3).flat_map(|c| (margin..high - margin).map(move |y| (c, y)));
            rows.map(|(c, y)| (at(c, y, x + 1) - at(c, y, x)).abs()).fold(0.0, f32::max)
        };
        // Two tiles, of which the second begins at column 48.
        let seam = 2 * (width - size) - 1..2 * size;
        let most = |made: &Tensor, columns: &mut dyn Iterator<Item = usize>| {
            columns.map(|x| step(made, x)).fold(0.0, f32::max)
        };
        let inside = most(&made, &mut (margin..wide - margin - 1).filter(|x| !seam.contains(x)));
        let (across, uncut) = (most(&made, &mut seam.clone()), most(&whole, &mut seam.clone()));
        println!(
            "{name}: {across:.4} across the seam, {inside:.4} inside, {uncut:.4} there if it is not cut"
        );
        // A tile's border is not the picture's: what is left of that in the middle of the overlap does not reach the next level of 8
        // bits.
        assert!(
            across <= inside.max(uncut) + 0.5 / 255.0,
            "{name}: {across} across the seam, {inside} inside, {uncut}"
        );
    }
}

/// What a file's network is refused with.
fn refusal(bytes: Vec<u8>) -> String {
    let file = files::from_bytes("some.pth", bytes).expect("opens");
    let error = match KnownNetwork::of(&file) {
        Ok(Some(known)) => known.open(&file, &cpu(), Precision::F32).err(),
        Ok(None) => Some(Error::Request("unknown".to_owned())),
        Err(error) => Some(error),
    };
    error.expect("refused").to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_told_by_its_tensors() {
    let cases = cases("upscalers");
    let old = tensors(&cases["rrdbnet-old-x4"]);
    let change = |of: &[(String, Vec<usize>, Vec<f32>)], name: &str, to: Option<(Vec<usize>, f32)>| {
        let mut changed = of.to_vec();
        let place = changed.iter().position(|(own, ..)| own == name).expect("there");
        match to {
            None => drop(changed.remove(place)),
            Some((shape, value)) => {
                let count = shape.iter().product();
                changed[place] = (name.to_owned(), shape, vec![value; count]);
            }
        }
        refusal(safetensors(&changed, str::to_owned, &json!({})))
    };
    let inner = "model.1.sub.0.RDB2.conv3.0.weight";
    for (found, wanted) in [
        (change(&old, inner, None), format!("missing tensor {inner} [32, 72, 3, 3]")),
        (
            change(&old, inner, Some((vec![32, 8, 3, 3], 0.1))),
            format!("tensor {inner} is [32, 8, 3, 3], [32, 72, 3, 3] is needed"),
        ),
        (change(&old, inner, Some((vec![32, 72, 3, 3], f32::NAN))), format!("tensor {inner} ")),
        (change(&old, "model.3.bias", Some((vec![8], f32::INFINITY))), "tensor model.3.bias ".to_owned()),
        (change(&old, "model.10.weight", None), "missing tensor model.10.weight".to_owned()),
    ] {
        assert!(found.starts_with("some.pth: ") && found.contains(&wanted), "{found}\n{wanted}");
    }
    let compact = tensors(&cases["compact-tiny-x2"]);
    let found = change(&compact, "body.4.weight", Some((vec![10, 6, 3, 3], 0.1)));
    assert!(found.contains("tensor body.4.weight has 10 outputs, which are no picture"), "{found}");
    let found = change(&tensors(&cases["compact-relu-x2"]), "body.0.bias", None);
    assert!(found.contains("no body.1.weight") && found.contains("act_type"), "{found}");
    let mut more = old.clone();
    more.push(("model.11.weight".to_owned(), vec![1], vec![0.0]));
    let found = refusal(safetensors(&more, str::to_owned, &json!({})));
    assert!(found.contains("extra tensor model.11.weight"), "{found}");
    // Twelve channels for three, and only one doubling: a scale of 1 at least; at a scale of ½ it is none.
    let smaller = tensors(&cases["rrdbnet-body-unshuffle-x1"]);
    let without: Vec<_> = smaller.into_iter().filter(|(name, ..)| !name.starts_with("conv_up2")).collect();
    let found = refusal(safetensors(&without, str::to_owned, &json!({})));
    assert!(found.contains("would make pictures smaller"), "{found}");
}

#[test]
fn neither_batch_nor_threads_nor_device_change_a_bit_and_memory_is_foreseen() {
    use latentd_models::nn::backend::fake::fake;
    let golden = Golden::open("upscalers");
    for name in ["rrdbnet-body-unshuffle-x2", "compact-x4", "span-x4", "swinir-classical-x4", "dat-x2"] {
        let bytes = safetensors(&tensors(&cases("upscalers")[name]), str::to_owned, &json!({}));
        let file = files::from_bytes(name, bytes).expect("opens");
        let image = golden.get("image");
        let two = Tensor::cat(&[&image.scaled(0.5), image], 0).expect("two");
        for precision in [Precision::F32, Precision::Bf16] {
            let (alone, _) = enlarged(&file, &cpu(), precision, image);
            let (both, _) = enlarged(&file, &cpu(), precision, &two);
            assert_eq!(both.narrow(0, 1, 1).expect("the second").values(), alone.values(), "{name}: batch");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
            let (threads, _) = pool.install(|| enlarged(&file, &cpu(), precision, image));
            assert_eq!(threads.values(), alone.values(), "{name}: threads");
            let (device, _) = fake(512 << 20, None).expect("a fake device");
            let (other, _) = enlarged(&file, &device, precision, image);
            assert_eq!(other.values(), alone.values(), "{name}: device");
            // What runs take beside the weights.
            let known = KnownNetwork::of(&file).expect("whole").expect("known");
            let entry = known.described().entry("").expect("the whole");
            let network = known.open(&file, &device, precision).expect("opens");
            let large = Tensor::full(0.5, [1, 3, 96, 80]);
            let before = device.memory().used;
            network.run(entry, std::slice::from_ref(&large), &Run::WHOLE).expect("runs");
            let (taken, foreseen) =
                (device.memory().most - before, known.activation_bytes(entry, &[vec![1, 3, 96, 80]]));
            assert!(taken <= foreseen && foreseen <= 4 * taken, "{name}: {taken} of {foreseen}");
        }
    }
}

#[test]
fn a_run_ends_within_once_it_is_cancelled() {
    let bytes = safetensors(&tensors(&cases("upscalers")["rrdbnet-trunk-x4"]), str::to_owned, &json!({}));
    let file = files::from_bytes("cancelled", bytes).expect("opens");
    let known = KnownNetwork::of(&file).expect("whole").expect("known");
    let network = known.open(&file, &cpu(), Precision::F32).expect("opens");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let cancelled = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 2;
    let image = Tensor::full(0.5, [1, 3, 64, 64]);
    let entry = known.described().entry("").expect("the whole");
    let ran = network.run(entry, &[image], &Run::until(&cancelled));
    assert!(matches!(ran, Err(Error::Cancelled)), "{:?}", ran.map(drop));
}
