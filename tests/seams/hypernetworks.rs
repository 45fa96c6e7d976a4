//! Hypernetworks: files with any layers, against the same sums in f64, on every device and in both precisions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use latentd_models::adapters::Hypernetwork;
use latentd_models::files::{Tensors, from_bytes};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::backend::dry_run::dry_run;
use latentd_models::nn::backend::fake::fake;
use latentd_models::nn::{Device, KeyValueTransform, Pointwise, Precision};

const WIDTH: usize = 32;
const TOKENS: usize = 7;

/// Tensors by name, with their shapes.
type Made = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Numbers of about ±1, the same each time.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn file(tensors: &Made, metadata: &[(&str, &str)]) -> Tensors {
    let said: Vec<String> = metadata.iter().map(|(key, text)| format!("\"{key}\":\"{text}\"")).collect();
    let (mut header, mut data) = (format!("{{\"__metadata__\":{{{}}}", said.join(",")), vec![]);
    for (name, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let end = data.len();
        write!(header, r#","{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
            .expect("written");
    }
    header.push('}');
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    from_bytes("h.safetensors", bytes).expect("sound")
}

/// What stands at one place of a network's list of modules.
#[derive(Clone, Copy, PartialEq)]
enum Module {
    Linear(usize),
    Norm,
    /// An activation or dropout, which have no tensors.
    Nothing,
}
use Module::{Linear, Norm, Nothing};

/// Both networks for a width.
fn networks(width: usize, modules: &[Module], seed: u64) -> Made {
    let mut made = Made::new();
    for which in 0..2u64 {
        let mut inputs = width;
        for (place, module) in modules.iter().enumerate() {
            let name = |what: &str| format!("{width}.{which}.linear.{place}.{what}");
            let seed = seed * 1000 + which * 100 + place as u64 * 2;
            match module {
                Linear(outputs) => {
                    let scale = (3.0 / inputs as f32).sqrt();
                    let weights = numbers(seed, inputs * outputs).iter().map(|x| x * scale).collect();
                    made.insert(name("weight"), (vec![*outputs, inputs], weights));
                    made.insert(name("bias"), (vec![*outputs], numbers(seed + 1, *outputs)));
                    inputs = *outputs;
                }
                Norm => {
                    let weights = numbers(seed, inputs).iter().map(|x| 1.0 + 0.3 * x).collect();
                    made.insert(name("weight"), (vec![inputs], weights));
                    made.insert(name("bias"), (vec![inputs], numbers(seed + 1, inputs)));
                }
                Nothing => {}
            }
        }
    }
    made
}

/// One token through a network, in f64: `x + strength · net(x)`.
fn expected(made: &Made, which: u64, about: &Case, strength: f32, x: &[f32]) -> Vec<f64> {
    let mut y: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let linears = about.modules.iter().filter(|module| matches!(module, Linear(_))).count();
    let mut done = 0;
    for (place, module) in about.modules.iter().enumerate() {
        let get = |what: &str| &made[&format!("{}.{which}.linear.{place}.{what}", x.len())].1;
        match module {
            Linear(outputs) => {
                let row = |output: usize| -> f64 {
                    let weights = &get("weight")[output * y.len()..][..y.len()];
                    let sum: f64 = weights.iter().zip(&y).map(|(w, y)| f64::from(*w) * y).sum();
                    sum + f64::from(get("bias")[output])
                };
                y = (0..*outputs).map(row).collect();
                done += 1;
                if done < linears || about.activate_output {
                    for y in &mut y {
                        *y = (about.function)(*y);
                    }
                }
            }
            Norm => {
                let mean = y.iter().sum::<f64>() / y.len() as f64;
                let variance = y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / y.len() as f64;
                let (weight, bias) = (get("weight"), get("bias"));
                for ((y, weight), bias) in y.iter_mut().zip(weight).zip(bias) {
                    *y = (*y - mean) / (variance + 1e-5).sqrt() * f64::from(*weight) + f64::from(*bias);
                }
            }
            Nothing => {}
        }
    }
    y.iter().zip(x).map(|(y, x)| f64::from(*x) + f64::from(strength) * y).collect()
}

struct Case {
    metadata: Vec<(&'static str, &'static str)>,
    modules: Vec<Module>,
    function: fn(f64) -> f64,
    activate_output: bool,
}

fn through(
    transform: &Arc<dyn KeyValueTransform>,
    device: &Device,
    precision: Precision,
    x: &[f32],
) -> [Vec<f32>; 2] {
    let tokens = device.upload(x, &[1, x.len() / WIDTH, WIDTH]).expect("uploads");
    let tokens = device.convert(&tokens, precision).expect("converts");
    [transform.keys(device, &tokens), transform.values(device, &tokens)].map(|out| {
        let out = out.expect("runs");
        assert_eq!((out.precision(), out.dims()), (precision, tokens.dims()));
        device.download(&out).expect("downloads")
    })
}

/// The largest difference, as a share of the largest number.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    differences.fold(0f64, f64::max) / largest
}

/// f32 rounds at 6e-8, bf16 at 4e-3: each of some layers adds its own.
const TOLERANCES: [(Precision, f64); 2] = [(Precision::F32, 2e-6), (Precision::Bf16, 3e-2)];

fn check(case: &Case, tolerances: &[(Precision, f64)]) {
    let made = networks(WIDTH, &case.modules, 5);
    let file = file(&made, &case.metadata);
    let told = format!("{:?}", case.metadata);
    let hypernetwork = Hypernetwork::of(&file).expect(&told);
    assert_eq!(hypernetwork.widths().collect::<Vec<_>>(), [WIDTH]);
    let (fake, _) = fake(64 << 20, None).expect("memory");
    let x = numbers(9, TOKENS * WIDTH);
    for strength in [0.0, 0.7, -1.5] {
        let expected = [0, 1].map(|which| {
            x.chunks_exact(WIDTH).flat_map(|x| expected(&made, which, case, strength, x)).collect::<Vec<_>>()
        });
        for &(precision, tolerance) in tolerances {
            let load = |device: &Device| {
                let loaded = hypernetwork.load(&file, device, precision, strength, [1; 32]).expect("loads");
                assert!(loaded.applies_to(WIDTH) && !loaded.applies_to(WIDTH * 2));
                through(&loaded, device, precision, &x)
            };
            let found = load(&cpu());
            for (found, expected) in found.iter().zip(&expected) {
                let error = error(found, expected);
                assert!(error < tolerance, "{told}, {strength}, {}: {error}", precision.name());
            }
            assert_eq!(load(&fake), found, "the same on a device of its own");
        }
    }
}

#[test]
fn layers_are_found_by_their_tensors() {
    let hard_swish = |x: f64| x * (x + 3.0).clamp(0.0, 6.0) / 6.0;
    let relu = |x: f64| x.max(0.0);
    let (off, on) = (("activate_output", "false"), ("activate_output", "true"));
    let case = |metadata: &[(&'static str, &'static str)], modules: &[Module], function, activate_output| {
        Case { metadata: metadata.to_vec(), modules: modules.to_vec(), function, activate_output }
    };
    let structure = ("layer_structure", "[1, 2, 1]");
    for case in [
        // Nothing is said: no activation.
        case(&[], &[Linear(64), Linear(32)], |x| x, false),
        case(&[structure, ("activation_func", "linear")], &[Linear(64), Linear(32)], |x| x, true),
        case(&[structure, ("activation_func", "relu"), off], &[Linear(64), Nothing, Linear(32)], relu, false),
        // Without the key the last one is activated too.
        case(
            &[structure, ("activation_func", "relu")],
            &[Linear(64), Nothing, Linear(32), Nothing],
            relu,
            true,
        ),
        case(
            &[
                ("layer_structure", "[1, 0.5, 0.25, 1]"),
                ("activation_func", "swish"),
                off,
                ("is_layer_norm", "true"),
            ],
            &[Linear(16), Nothing, Norm, Nothing, Linear(8), Nothing, Norm, Linear(32), Norm],
            hard_swish,
            false,
        ),
        case(
            &[("activation_func", "silu"), on, ("is_layer_norm", "true")],
            &[Linear(48), Nothing, Norm, Linear(32), Nothing, Norm],
            |x| x / (1.0 + (-x).exp()),
            true,
        ),
        case(&[("activation_func", "silu"), on], &[Linear(32), Nothing], |x| x / (1.0 + (-x).exp()), true),
        case(&[("layer_structure", "[1, 1]")], &[Linear(32)], |x| x, false),
    ] {
        check(&case, &TOLERANCES);
    }
}

/// erf by its series, whose terms are small enough for |x| < 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// Each activation's name, its row, and its definition.
type Activation = (&'static str, Pointwise, fn(f64) -> f64);

const ACTIVATIONS: [Activation; 21] = [
    ("relu", Pointwise::Relu, |x| x.max(0.0)),
    ("relu6", Pointwise::Relu6, |x| x.clamp(0.0, 6.0)),
    ("leakyrelu", Pointwise::LeakyRelu, |x| x.max(0.01 * x)),
    ("rrelu", Pointwise::RandomRelu, |x| x.max(0.5 * (0.125 + 1.0 / 3.0) * x)),
    ("elu", Pointwise::Elu, |x| if x > 0.0 { x } else { x.exp_m1() }),
    ("celu", Pointwise::Elu, |x| if x > 0.0 { x } else { x.exp_m1() }),
    ("selu", Pointwise::Selu, |x| {
        1.050_700_987_355_480_5 * if x > 0.0 { x } else { 1.673_263_242_354_377_2 * x.exp_m1() }
    }),
    ("gelu", Pointwise::Gelu, |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))),
    ("silu", Pointwise::Silu, |x| x / (1.0 + (-x).exp())),
    ("mish", Pointwise::Mish, |x| x * x.exp().ln_1p().tanh()),
    ("softplus", Pointwise::Softplus, |x| x.exp().ln_1p()),
    ("softsign", Pointwise::Softsign, |x| x / (1.0 + x.abs())),
    ("sigmoid", Pointwise::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
    ("logsigmoid", Pointwise::LogSigmoid, |x| -(-x).exp().ln_1p()),
    ("tanh", Pointwise::Tanh, f64::tanh),
    ("tanhshrink", Pointwise::Tanhshrink, |x| x - x.tanh()),
    ("hardtanh", Pointwise::Hardtanh, |x| x.clamp(-1.0, 1.0)),
    ("hardsigmoid", Pointwise::Hardsigmoid, |x| (x / 6.0 + 0.5).clamp(0.0, 1.0)),
    ("hardswish", Pointwise::Hardswish, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
    ("hardshrink", Pointwise::Hardshrink, |x| if x.abs() > 0.5 { x } else { 0.0 }),
    ("softshrink", Pointwise::Softshrink, |x| x.signum() * (x.abs() - 0.5).max(0.0)),
];

#[test]
fn every_activation_is_computed() {
    let (fake, _) = fake(64 << 20, None).expect("memory");
    // Both ends, and all that is between them, more than one thread takes.
    let x: Vec<f32> = (-50_000..50_000).map(|step| step as f32 * 1e-4 + 1e-5).collect();
    for (name, function, definition) in ACTIVATIONS {
        for precision in [Precision::F32, Precision::Bf16] {
            let apply = |device: &Device| {
                let x = device.upload(&x, &[1, 1000, 100]).expect("uploads");
                let x = device.convert(&x, precision).expect("converts");
                let y = device.pointwise(&x, function).expect("runs");
                assert_eq!((y.precision(), y.dims()), (precision, x.dims()));
                (device.download(&x).expect("downloads"), device.download(&y).expect("downloads"))
            };
            let (x, y) = apply(&cpu());
            let rounding = if precision == Precision::Bf16 { 2f64.powi(-8) } else { 0.0 };
            for (x, y) in x.iter().zip(&y) {
                let expected = definition(f64::from(*x));
                // A few roundings of numbers no larger than x, and of 1.
                let bound = 1e-6 * f64::from(x.abs()).max(1.0) + rounding * expected.abs();
                assert!((f64::from(*y) - expected).abs() <= bound, "{name}({x}) is {y}, not {expected}");
            }
            assert_eq!(apply(&fake).1, y, "{name}");
        }
        let case = Case {
            metadata: vec![("activation_func", name), ("activate_output", "true")],
            modules: vec![Linear(16), Nothing, Linear(32)],
            function: definition,
            activate_output: true,
        };
        // Where it jumps, a rounding makes the difference.
        let precisions = if function == Pointwise::Hardshrink { 1 } else { 2 };
        check(&case, &TOLERANCES[..precisions]);
    }
    let far = [-1e4f32, -100.0, 100.0, 1e4];
    for (name, function, _) in ACTIVATIONS {
        let x = cpu().upload(&far, &[4]).expect("uploads");
        let y = cpu().download(&cpu().pointwise(&x, function).expect("runs")).expect("downloads");
        assert!(y.iter().all(|y| y.is_finite()), "{name}: {y:?}");
    }
}

#[test]
fn several_act_one_after_the_other() {
    let modules = [Linear(32)];
    let metadata = [("layer_structure", "[1, 1]")];
    let case = Case {
        metadata: metadata.to_vec(),
        modules: modules.to_vec(),
        function: |x| x,
        activate_output: false,
    };
    let (first, second) = (networks(WIDTH, &modules, 1), networks(WIDTH, &modules, 2));
    let device = cpu();
    let load = |made: &Made, strength, identity| {
        let file = file(made, &metadata);
        let of = Hypernetwork::of(&file).expect("sound");
        of.load(&file, &device, Precision::F32, strength, [identity; 32]).expect("loads")
    };
    let (a, b) = (load(&first, 0.5, 1), load(&second, 0.25, 2));
    let x = numbers(3, TOKENS * WIDTH);
    let tokens = device.upload(&x, &[1, TOKENS, WIDTH]).expect("uploads");
    let found = b.keys(&device, &a.keys(&device, &tokens).expect("runs")).expect("runs");
    let wanted = x.chunks_exact(WIDTH).flat_map(|x| {
        let between: Vec<f32> = expected(&first, 0, &case, 0.5, x).iter().map(|x| *x as f32).collect();
        expected(&second, 0, &case, 0.25, &between)
    });
    assert!(error(&device.download(&found).expect("downloads"), &wanted.collect::<Vec<_>>()) < 2e-6);
    let digests = [a.digest(), b.digest(), load(&first, 0.25, 1).digest(), load(&first, 0.5, 1).digest()];
    assert!(digests[0] != digests[1] && digests[0] != digests[2] && digests[0] == digests[3]);
}

#[test]
fn weights_are_counted_before_they_are_read() {
    let mut made = networks(WIDTH, &[Linear(64), Nothing, Norm, Linear(32), Norm], 1);
    made.extend(networks(48, &[Linear(48), Nothing, Norm], 2));
    let file = file(&made, &[]);
    let hypernetwork = Hypernetwork::of(&file).expect("sound");
    assert_eq!(hypernetwork.widths().collect::<Vec<_>>(), [32, 48]);
    for precision in [Precision::F32, Precision::Bf16] {
        let (dry, counter) = dry_run();
        hypernetwork.load(&file, &dry, precision, 1.0, [0; 32]).expect("counted");
        let counted = hypernetwork.weight_bytes(precision).expect("counted");
        assert_eq!(counted, counter.counts().weights);
        let (device, _) = fake(64 << 20, None).expect("memory");
        let _loaded = hypernetwork.load(&file, &device, precision, 1.0, [0; 32]).expect("loads");
        let used = device.memory().used;
        assert!(counted <= used && used < counted + 64 * 4096, "{counted} of {used}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    type Change = fn(&mut Made);
    type Metadata = &'static [(&'static str, &'static str)];
    let rows: &[(Metadata, Change, &str)] = &[
        (&[("activation_func", "sinus")], |_| (), "activation 'sinus'"),
        (&[("activation_func", "prelu")], |_| (), "activation 'prelu'"),
        (&[("is_layer_norm", "perhaps")], |_| (), "is_layer_norm is 'perhaps'"),
        (&[("is_layer_norm", "true")], |_| (), "no layer norm follows 32.0.linear.0"),
        (&[("layer_structure", "[1, 2, 1]")], |_| (), "[8, 32] numbers, but by its layer_structure [64, 32]"),
        (&[("layer_structure", "[1, 0.25]")], |_| (), "layer_structure is [1, 0.25]"),
        (&[("layer_structure", "1, 1")], |_| (), "layer_structure is 1, 1"),
        (&[], |made| drop(made.remove("32.1.linear.1.bias")), "missing tensor 32.1.linear.1.bias"),
        (&[], |made| drop(made.remove("32.1.linear.0.weight")), "missing tensor 32.1.linear.0.weight"),
        (&[], |made| made.retain(|name, _| name.starts_with("32.0")), "0 layers under 32.1."),
        (&[], Made::clear, "has no networks"),
        (
            &[],
            |made| drop(made.insert("32.0.linear.0.weight".into(), (vec![8, 16], vec![0.0; 128]))),
            "tensor 32.0.linear.0.weight is [8, 16], after 32 numbers",
        ),
        (
            &[],
            |made| drop(made.insert("32.0.linear.0.bias".into(), (vec![9], vec![0.0; 9]))),
            "tensor 32.0.linear.0.bias is [9], [8] is needed",
        ),
        (
            &[],
            |made| drop(made.insert("32.0.other".into(), (vec![1], vec![0.0]))),
            "tensor 32.0.other is of no layer",
        ),
        (
            &[],
            |made| made.retain(|name, _| !name.contains("linear.1")),
            "the layers under 32.0. give [8] numbers; the last gives 32",
        ),
    ];
    for (metadata, change, expected) in rows {
        let mut made = networks(WIDTH, &[Linear(8), Linear(32)], 1);
        change(&mut made);
        // A file without tensors is refused before.
        made.entry("step".to_owned()).or_insert((vec![1], vec![1.0]));
        let error = Hypernetwork::of(&file(&made, metadata)).expect_err(expected).to_string();
        assert!(error.starts_with("h.safetensors: ") && error.contains(expected), "{error}");
    }
    let mut made = networks(WIDTH, &[Linear(8), Linear(32)], 1);
    made.get_mut("32.1.linear.0.weight").expect("there").1[3] = f32::NAN;
    let file = file(&made, &[]);
    let hypernetwork = Hypernetwork::of(&file).expect("its names are sound");
    let load = |strength| hypernetwork.load(&file, &cpu(), Precision::F32, strength, [0; 32]);
    let error = load(1.0).err().expect("refused").to_string();
    assert!(error.contains("32.1.linear.0.weight"), "{error}");
    assert!(load(f32::NAN).is_err());
}
