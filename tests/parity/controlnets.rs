//! ControlNets and T2I-Adapters against diffusers in f32, with weights that both make up by one rule
//! (`tests/fixtures/controlnets.py`), by all names that files have. Tolerance: 1e-4 of the largest number.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::files;
use latentd_models::networks::known::KnownNetwork;
use latentd_models::networks::standalone::Standalone;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::backend::fake::fake;
use latentd_models::nn::{Device, Patch, Precision, Run};
use serde_json::json;

use crate::golden::{Golden, assert_close};
use crate::made_up::{self, cases, safetensors, tensors};

/// Sizes of latents that are tried: one whose levels divide, and one whose do not.
const SIZES: [&str; 2] = ["square", "odd"];

/// A case's file, some of whose tensors may be left out or called otherwise.
fn file(case: &str, called: impl Fn(&str) -> Option<String>) -> files::Tensors {
    let bytes = made_up::file("controlnets", case, |name, shape| Some((called(name)?, shape)));
    files::from_bytes(case, bytes).expect("opens")
}

/// As it is.
fn whole(case: &str) -> files::Tensors {
    file(case, |name| Some(name.to_owned()))
}

fn run(
    known: &KnownNetwork,
    network: &dyn Standalone,
    part: &str,
    inputs: &[(&str, &Tensor)],
) -> Vec<(String, Tensor)> {
    let entry = known.described().entry(part).expect("a part");
    let given = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone())).collect();
    let ordered = entry.in_order(given, |tensor: &Tensor| tensor.dims().to_vec()).expect("fits");
    let made = network.run(entry, &ordered, &Run::WHOLE).expect("runs");
    entry.outputs.iter().map(|port| port.name.to_owned()).zip(made).collect()
}

fn controls(file: &files::Tensors, device: &Device, case: &str) {
    let golden = Golden::open("controlnets");
    let known = KnownNetwork::of(file).expect("whole").expect("known");
    assert_eq!(known.described().kind, "controlnet");
    let network = known.open(file, device, Precision::F32).expect("opens");
    for size in SIZES {
        let given = |name: &str| golden.get(&format!("{size}.{name}"));
        let hint = run(&known, network.as_ref(), "hint", &[("image", given("image"))]).remove(0).1;
        assert_close(&format!("{case} {size} hint"), &hint, given("hint"), 1e-4);
        let inputs =
            [("x", given("x")), ("timestep", given("t")), ("context", given("context")), ("hint", &hint)];
        let made = run(&known, network.as_ref(), "residuals", &inputs);
        assert_eq!(made.len(), 7, "{case}");
        for (name, made) in &made {
            assert_close(&format!("{case} {size} {name}"), made, given(name), 1e-4);
        }
    }
}

#[test]
fn controlnets_are_diffusers_by_all_names() {
    for case in ["control-diffusers", "control-ldm", "control-bare"] {
        controls(&whole(case), &cpu(), case);
    }
    let (device, _) = fake(512 << 20, None).expect("a fake device");
    controls(&whole("control-ldm"), &device, "on the fake device");
}

const UNET: &str = "model.diffusion_model.";

/// The checkpoint that files are over, some of whose tensors may be changed.
fn base(change: impl Fn(&str, &mut Vec<f32>)) -> files::Tensors {
    let path = format!(
        "{}/../tests/fixtures/models/Stable-diffusion/tiny-sd1.safetensors",
        env!("CARGO_MANIFEST_DIR")
    );
    let file = files::open(path.as_ref()).expect("opens");
    let tensors: Vec<_> = file
        .under(UNET)
        .map(|tensor| {
            let tensor = tensor.expect("read");
            let name = format!("{UNET}{}", tensor.name);
            let elements = tensor.bytes.chunks_exact(2);
            let mut values =
                elements.map(|two| half::f16::from_le_bytes([two[0], two[1]]).to_f32()).collect();
            change(&name, &mut values);
            (name, tensor.shape.to_vec(), values)
        })
        .collect();
    files::from_bytes("base", safetensors(&tensors, str::to_owned, &json!({}))).expect("opens")
}

/// A file's ControlNet over a checkpoint's UNet as patches leave it.
fn over(
    kind: &str,
    base: files::Tensors,
    patches: &[Arc<dyn Patch>],
) -> latentd_models::Result<files::Tensors> {
    KnownNetwork::of(&whole(kind)).expect("sound").expect("known").over(whole(kind), base, patches)
}

#[test]
fn files_over_a_checkpoint_are_diffusers_with_the_sums_as_weights() {
    let golden = Golden::open("controlnets");
    let (fake, _) = fake(512 << 20, None).expect("a fake device");
    for kind in ["difference", "lora"] {
        let known = KnownNetwork::of(&whole(kind)).expect("sound").expect("known");
        assert!(known.is_over_base() && known.making_bytes() > 0);
        assert!(known.open(&whole(kind), &cpu(), Precision::F32).is_err(), "{kind}: alone it is nothing");
        let whole = over(kind, base(|_, _| ()), &[]).expect("fits");
        for device in [&cpu(), &fake] {
            let network = known.open(&whole, device, Precision::F32).expect("opens");
            for size in SIZES {
                let given = |name: &str| golden.get(&format!("{size}.{name}"));
                let made_here = |name: &str| golden.get(&format!("{size}.{kind}.{name}"));
                let hint = run(&known, network.as_ref(), "hint", &[("image", given("image"))]).remove(0).1;
                assert_close(&format!("{kind} {size} hint"), &hint, made_here("hint"), 1e-4);
                let inputs = [
                    ("x", given("x")),
                    ("timestep", given("t")),
                    ("context", given("context")),
                    ("hint", &hint),
                ];
                let made = run(&known, network.as_ref(), "residuals", &inputs);
                assert_eq!(made.len(), 7, "{kind}");
                for (name, made) in &made {
                    assert_close(&format!("{kind} {size} {name}"), made, made_here(name), 1e-4);
                }
            }
        }
    }
    assert!(!KnownNetwork::of(&whole("control-ldm")).expect("whole").expect("known").is_over_base());
}

/// Adds to a tensor of the UNet.
struct More(f32);

const CHANGED: &str = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight";

impl Patch for More {
    fn digest(&self) -> [u8; 32] {
        [1; 32]
    }

    fn touches(&self, name: &str) -> bool {
        name == CHANGED
    }

    fn apply(&self, _name: &str, _shape: &[usize], weights: &mut [f32]) -> latentd_models::Result<()> {
        for weight in weights {
            *weight += self.0;
        }
        Ok(())
    }
}

#[test]
fn what_a_job_changes_in_the_checkpoint_counts_in_what_is_over_it() {
    for kind in ["difference", "lora"] {
        let elements = |file: &files::Tensors| {
            let all = file
                .under("")
                .map(|tensor| tensor.map(|tensor| (tensor.name.to_owned(), tensor.bytes.into_owned())));
            all.collect::<Result<Vec<_>, _>>().expect("read")
        };
        let patched = over(kind, base(|_, _| ()), &[Arc::new(More(0.25))]).expect("fits");
        let merged = over(
            kind,
            base(|name, values| {
                if name == CHANGED {
                    for value in values {
                        *value += 0.25;
                    }
                }
            }),
            &[],
        )
        .expect("fits");
        let plain = over(kind, base(|_, _| ()), &[]).expect("fits");
        assert!(elements(&patched) == elements(&merged) && elements(&patched) != elements(&plain), "{kind}");
    }
}

#[test]
fn whose_numbers_are_not_finite_is_told() {
    let read = |whole: files::Tensors| whole.under("").find_map(Result::err).expect("refused").to_string();
    for kind in ["difference", "lora"] {
        let broken = base(|name, values| {
            if name == CHANGED {
                values[3] = f32::INFINITY;
            }
        });
        let text = read(over(kind, broken, &[]).expect("fits"));
        assert!(
            text.contains("base") && text.contains(CHANGED) && text.contains("holds NaN or infinite"),
            "{kind}: {text}"
        );
        let text = read(over(kind, base(|_, _| ()), &[Arc::new(More(f32::INFINITY))]).expect("fits"));
        assert!(text.contains("a patch makes") && text.contains(CHANGED), "{kind}: {text}");
        // The file's own: of a pair, or what is added.
        let name = if kind == "lora" {
            "middle_block.0.in_layers.2.down"
        } else {
            "middle_block.0.in_layers.2.weight"
        };
        let made_up = tensors(&cases("controlnets")[kind]).into_iter().map(|(own, shape, mut values)| {
            if own.ends_with(name) {
                values[0] = f32::NAN;
            }
            (own, shape, values)
        });
        let bytes = safetensors(&made_up.collect::<Vec<_>>(), str::to_owned, &json!({}));
        let file = || files::from_bytes("own", bytes.clone()).expect("opens");
        let known = KnownNetwork::of(&file()).expect("sound").expect("known");
        let text = read(known.over(file(), base(|_, _| ()), &[]).expect("fits"));
        assert!(
            text.contains("own") && text.contains(name) && text.contains("holds NaN or infinite"),
            "{kind}: {text}"
        );
    }
}

/// A tensor's shape by its name; `None`: it is left out.
type Change<'a> = &'a dyn Fn(&str, Vec<usize>) -> Option<Vec<usize>>;

#[test]
fn checkpoints_that_nothing_can_be_over_are_told_with_the_tensor() {
    let other = |change: Change<'_>| {
        let plain = base(|_, _| ());
        let tensors: Vec<_> = plain
            .under("")
            .filter_map(|tensor| {
                let tensor = tensor.expect("read");
                let shape = change(tensor.name, tensor.shape.to_vec())?;
                Some((tensor.name.to_owned(), shape.clone(), vec![0.0; shape.iter().product()]))
            })
            .collect();
        files::from_bytes("other", safetensors(&tensors, str::to_owned, &json!({}))).expect("opens")
    };
    let wider = |name: &str, mut shape: Vec<usize>| {
        if name.ends_with("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight") {
            shape[1] = 48;
        }
        Some(shape)
    };
    let without = |name: &str, shape| (!name.contains("input_blocks.1.0.in_layers.2")).then_some(shape);
    for kind in ["difference", "lora"] {
        let text = |base| over(kind, base, &[]).err().expect("refused").to_string();
        let told = text(other(&wider));
        assert!(
            told.contains("attn2.to_k.weight, [32, 32], is [32, 48] there; draw with a checkpoint"),
            "{told}"
        );
        let told = text(other(&without));
        assert!(told.contains("input_blocks.1.0.in_layers.2.") && told.contains("is not there"), "{told}");
    }
    // Two that make no product, and one without the other.
    for (part, shape) in
        [("input_blocks.1.0.in_layers.2.up", vec![32, 4, 1, 1]), ("middle_block.0.in_layers.2.down", vec![3])]
    {
        let bytes = made_up::file("controlnets", "lora", |name, own| {
            Some((name.to_owned(), if name == part { shape.clone() } else { own }))
        });
        let error = KnownNetwork::of(&files::from_bytes("lora", bytes).expect("opens"))
            .err()
            .expect("refused")
            .to_string();
        assert!(error.contains("no two matrices of one product"), "{error}");
    }
    let alone =
        file("lora", |name| (!name.ends_with("input_blocks.1.0.in_layers.2.down")).then(|| name.to_owned()));
    let error = KnownNetwork::of(&alone).err().expect("refused").to_string();
    assert!(error.contains("no two matrices of one product"), "{error}");
    // Wider than what they make, and beside a weight of another size.
    let refused = |change: &dyn Fn(&str, &mut Vec<usize>), more: &[(&str, usize)]| {
        let made_up = tensors(&cases("controlnets")["lora"]).into_iter().map(|(name, mut shape, _)| {
            change(&name, &mut shape);
            let count = shape.iter().product();
            (name, shape, vec![0.5; count])
        });
        let more = more.iter().map(|(name, size)| ((*name).to_owned(), vec![*size], vec![0.5; *size]));
        let all: Vec<_> = made_up.chain(more).collect();
        let file = files::from_bytes("lora", safetensors(&all, str::to_owned, &json!({}))).expect("opens");
        KnownNetwork::of(&file).err().expect("refused").to_string()
    };
    let wide = |name: &str, shape: &mut Vec<usize>| {
        if let Some((layer, which @ ("up" | "down"))) = name.rsplit_once('.')
            && layer.ends_with("middle_block.0.in_layers.2")
        {
            shape[usize::from(which == "up")] = 1000;
        }
    };
    let error = refused(&wide, &[]);
    assert!(error.contains("are 1000 wide, more than what they make"), "{error}");
    let error = refused(&|_, _| (), &[("control_model.middle_block.0.in_layers.2.weight", 7)]);
    assert!(error.contains("and control_model.middle_block.0.in_layers.2.weight is"), "{error}");
    // Nothing else has one to be over.
    let known = KnownNetwork::of(&whole("control-ldm")).expect("whole").expect("known");
    assert!(known.over(whole("control-ldm"), base(|_, _| ()), &[]).is_err());
}

#[test]
fn adapters_are_diffusers_by_all_names() {
    let golden = Golden::open("controlnets");
    for case in [
        "full-diffusers",
        "full-authors",
        "grey-diffusers",
        "grey-authors",
        "light-diffusers",
        "light-authors",
    ] {
        let (kind, _) = case.split_once('-').expect("two words");
        for prefix in ["", "adapter."] {
            let bare =
                |name: &str| Some(format!("{prefix}{}", name.strip_prefix("adapter.").unwrap_or(name)));
            let file = file(case, bare);
            let known = KnownNetwork::of(&file).expect("whole").expect("known");
            assert_eq!(known.described().kind, "t2i-adapter", "{case}");
            let network = known.open(&file, &cpu(), Precision::F32).expect("opens");
            for size in SIZES {
                let image = golden.get(&format!("{size}.image"));
                let image =
                    if kind == "grey" { image.narrow(1, 0, 1).expect("a colour") } else { image.clone() };
                let made = run(&known, network.as_ref(), "features", &[("image", &image)]);
                assert_eq!(made.len(), 3, "{case}");
                for (level, (name, made)) in made.iter().enumerate() {
                    assert_eq!(*name, format!("level.{level}"));
                    let wanted = golden.get(&format!("{size}.{kind}.{level}"));
                    assert_close(&format!("{prefix}{case} {size} {name}"), made, wanted, 1e-4);
                }
            }
        }
    }
}

#[test]
fn what_makes_no_network_is_named() {
    let without = |case: &str, part: &'static str| {
        let file = file(case, |name| (!name.contains(part)).then(|| name.to_owned()));
        KnownNetwork::of(&file).err().expect("refused").to_string()
    };
    for (case, part, expected) in [
        ("control-ldm", "zero_convs.2.0.bias", "missing tensor control_model.zero_convs.2.0.bias"),
        ("control-diffusers", "controlnet_mid_block.weight", "missing tensor controlnet_mid_block.weight"),
        (
            "control-diffusers",
            "controlnet_cond_embedding.blocks.5.bias",
            "controlnet_cond_embedding.blocks.5.bias",
        ),
        ("full-authors", "body.1.block2.bias", "missing tensor body.1.block2.bias"),
    ] {
        let error = without(case, part);
        assert!(error.contains(expected), "{case}: {error}");
    }
    for (case, more, expected) in [
        ("control-ldm", "control_model.label_emb.0.0.weight", "SDXL"),
        ("control-bare", "control_model.other", "extra tensor"),
        ("light-authors", "adapter.other", "extra tensor"),
    ] {
        let made_up = tensors(&cases("controlnets")[case]);
        let all = made_up.into_iter().chain([(more.to_owned(), vec![1], vec![0.0])]).collect::<Vec<_>>();
        let file = files::from_bytes(case, safetensors(&all, str::to_owned, &json!({}))).expect("opens");
        let error = KnownNetwork::of(&file).err().expect("refused").to_string();
        assert!(error.contains(expected), "{case}: {error}");
    }
}

/// Inputs of a case's second part, of so many rows and latents.
fn asked(rows: usize, height: usize, width: usize) -> Vec<(&'static str, Tensor)> {
    let wave = |dims: &[usize], step: f64| {
        let count: usize = dims.iter().product();
        let values = (0..count).map(|at| (at as f64 * step).sin() as f32).collect();
        Tensor::new(values, dims).expect("a tensor")
    };
    vec![
        ("x", wave(&[rows, 4, height, width], 0.37)),
        ("timestep", Tensor::full(333.5, [rows])),
        ("context", wave(&[rows, 77, 32], 0.21)),
        ("hint", wave(&[1, 32, height, width], 0.11)),
    ]
}

fn borrowed<'a>(inputs: &'a [(&'static str, Tensor)]) -> Vec<(&'a str, &'a Tensor)> {
    inputs.iter().map(|(name, tensor)| (*name, tensor)).collect()
}

#[test]
fn neither_batch_nor_threads_nor_device_change_a_bit_and_memory_is_foreseen() {
    let file = whole("control-ldm");
    let known = KnownNetwork::of(&file).expect("whole").expect("known");
    for precision in [Precision::F32, Precision::Bf16] {
        let on = |device: &Device, inputs: &[(&'static str, Tensor)]| {
            let network = known.open(&file, device, precision).expect("opens");
            run(&known, network.as_ref(), "residuals", &borrowed(inputs))
        };
        let both = asked(2, 8, 8);
        let second = both.iter().map(|(name, tensor)| {
            let rows = if *name == "hint" { tensor.clone() } else { tensor.narrow(0, 1, 1).expect("a row") };
            (*name, rows)
        });
        let second: Vec<_> = second.collect();
        let (together, alone) = (on(&cpu(), &both), on(&cpu(), &second));
        for ((name, both), (_, alone)) in together.iter().zip(&alone) {
            assert_eq!(both.narrow(0, 1, 1).expect("the second").values(), alone.values(), "{name}: batch");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
        assert!(pool.install(|| on(&cpu(), &both)) == together, "threads");
        let (device, _) = fake(512 << 20, None).expect("a fake device");
        assert!(on(&device, &both) == together, "device");
        // What runs take beside the weights.
        let network = known.open(&file, &device, precision).expect("opens");
        let image = vec![("image", Tensor::full(0.5, [1, 3, 192, 160]))];
        for (part, inputs) in [("residuals", asked(2, 24, 20)), ("hint", image)] {
            let before = device.memory().used;
            run(&known, network.as_ref(), part, &borrowed(&inputs));
            let taken = device.memory().most - before;
            let sizes: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.dims().to_vec()).collect();
            let foreseen = known.activation_bytes(known.described().entry(part).expect("a part"), &sizes);
            assert!(taken <= foreseen && foreseen <= 8 * taken, "{part}: {taken} of {foreseen}");
        }
    }
}

#[test]
fn a_run_ends_within_once_it_is_cancelled() {
    let file = whole("control-ldm");
    let known = KnownNetwork::of(&file).expect("whole").expect("known");
    let network = known.open(&file, &cpu(), Precision::F32).expect("opens");
    let count = std::sync::atomic::AtomicUsize::new(0);
    let cancelled = || count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 2;
    let inputs: Vec<_> = asked(1, 32, 32).into_iter().map(|(_, tensor)| tensor).collect();
    let entry = known.described().entry("residuals").expect("a part");
    let ran = network.run(entry, &inputs, &Run::until(&cancelled));
    assert!(matches!(ran, Err(latentd_models::Error::Cancelled)));
}
