//! Against NumPy, torch, Pillow and OpenCV, with the same bytes whatever the number of threads.

use std::io::Read;
use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::tensor_ops::{
    Border, Op, Operand, Pixels, Reduction, Resampling, Shape, Step, Value, plan, run,
};
use serde_json::Value as Json;

use crate::alone;

fn words(seed: u64, count: usize) -> impl Iterator<Item = u32> {
    (0..count as u32).map(move |index| {
        let mut x = index.wrapping_mul(0x9E37_79B1).wrapping_add((seed as u32).wrapping_mul(0x85EB_CA77));
        x ^= x >> 15;
        x = x.wrapping_mul(0x2C1B_3C6D);
        x ^= x >> 12;
        x = x.wrapping_mul(0x297A_2D39);
        x ^ x >> 15
    })
}

fn sizes(json: &Json) -> Vec<usize> {
    json.as_array().expect("sizes").iter().map(|size| size.as_u64().expect("a size") as usize).collect()
}

fn given(spec: &Json) -> Value {
    let dims = sizes(&spec["dims"]);
    let count = dims.iter().product();
    if let Some(seed) = spec["image"].as_u64() {
        // The bytes are those of planes.
        let planes: Vec<u8> = words(seed, count).map(|word| (word >> 24) as u8).collect();
        let [_, channels, height, width] = dims[..] else { panic!("{dims:?}") };
        return Value::Image(side_by_side(&planes, channels, height, width));
    }
    let values: Vec<f32> = match spec["values"].as_array() {
        Some(values) => {
            let number = |value: &Json| value.as_str().expect("a number").parse::<f64>().expect("a number");
            values.iter().map(|value| number(value) as f32).collect()
        }
        None => words(spec["seed"].as_u64().expect("a seed"), count)
            .map(|word| (word >> 8) as f32 / (1 << 24) as f32 * 4.0 - 2.0)
            .collect(),
    };
    Value::Floats(Tensor::new(values, dims).expect("fits"))
}

fn side_by_side(planes: &[u8], channels: usize, height: usize, width: usize) -> Pixels {
    let plane = height * width;
    let pixels = (0..planes.len()).map(|at| planes[at % channels * plane + at / channels]).collect();
    Pixels { width, height, channels, pixels: Arc::new(pixels) }
}

fn step(json: &Json) -> Step {
    let operand = |key: &str| {
        let number = json[key].as_i64().unwrap_or_else(|| panic!("{key}: {json}"));
        usize::try_from(number).map_or_else(|_| Operand::Result((-1 - number) as usize), Operand::Given)
    };
    let whole = |index: usize| json["n"][index].as_i64().unwrap_or_else(|| panic!("n{index}: {json}"));
    let n = |index: usize| usize::try_from(whole(index)).expect("a number");
    let f64_of = |index: usize| json["v"][index].as_f64().unwrap_or_else(|| panic!("v{index}: {json}"));
    let v = |index: usize| f64_of(index) as f32;
    let how = || json["how"].as_str().expect("how");
    let (a, b) = (|| operand("a"), || operand("b"));
    let all = || json["n"].as_array().expect("numbers").iter();
    let op = match json["op"].as_str().expect("an operation") {
        "affine" => Op::Affine { a: a(), scale: v(0), shift: v(1) },
        "add" => Op::Add { a: a(), b: b(), of_a: v(0), of_b: v(1) },
        "mul" => Op::Mul { a: a(), b: b() },
        "div" => Op::Div { a: a(), b: b() },
        "lerp" if json["c"].is_null() => Op::Lerp { a: a(), b: b(), c: None, share: v(0) },
        "lerp" => Op::Lerp { a: a(), b: b(), c: Some(operand("c")), share: 0.0 },
        "clamp" => Op::Clamp { a: a(), low: v(0), high: v(1) },
        "abs" => Op::Abs { a: a() },
        "sqrt" => Op::Sqrt { a: a() },
        "slice" => Op::Slice { a: a(), axis: n(0), from: n(1), until: n(2) },
        "concat" => Op::Concat { a: a(), b: b(), axis: n(0) },
        "take" => Op::Take { a: a(), b: b() },
        "reshape" => Op::Reshape { a: a(), dims: all().map(|size| size.as_i64().expect("a size")).collect() },
        "permute" => Op::Permute { a: a(), axes: sizes(&json["n"]) },
        "floats" => Op::ToFloats { a: a() },
        "image" => Op::ToImage { a: a() },
        "reduce" => {
            let how = match how() {
                "sum" => Reduction::Sum,
                "mean" => Reduction::Mean,
                "min" => Reduction::Min,
                "max" => Reduction::Max,
                "std" => Reduction::Std,
                _ => Reduction::Quantile(f64_of(0)),
            };
            Op::Reduce { a: a(), axes: n(0) as u64, how }
        }
        "matmul" => Op::MatMul { a: a(), b: b() },
        "resize" => {
            let filter = match how() {
                "nearest" => Resampling::Nearest,
                "bilinear" => Resampling::Bilinear,
                "bicubic" => Resampling::Bicubic,
                "area" => Resampling::Area,
                _ => Resampling::Lanczos,
            };
            Op::Resize { a: a(), height: n(0), width: n(1), filter }
        }
        "pad" => {
            let border = match how() {
                "constant" => Border::Constant(v(0)),
                "edge" => Border::Edge,
                _ => Border::Reflect,
            };
            Op::Pad { a: a(), left: n(0), right: n(1), top: n(2), bottom: n(3), border }
        }
        "warp" => {
            let matrix = std::array::from_fn(f64_of);
            Op::Warp { a: a(), height: n(0), width: n(1), matrix, outside: v(6) }
        }
        "blur" => Op::Blur { a: a(), sigmas: [f64_of(0), f64_of(1)], sizes: [n(0), n(1)] },
        other => panic!("{other}"),
    };
    Step { op, keep: json["keep"].as_bool().unwrap_or_default() }
}

/// How much of what is allowed something is off, 1 being all.
fn off(found: &Value, wanted: &Json, row: &Json) -> f64 {
    let text = wanted["data"].as_str().expect("data");
    let byte = |at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..text.len() / 2).map(byte).collect();
    assert_eq!(found.shape().dims, sizes(&wanted["dims"]), "{row}");
    let share = |difference: f64, allowed: f64| {
        if difference == 0.0 { 0.0 } else { difference / allowed }
    };
    match found {
        Value::Image(Pixels { width, height, channels, pixels }) => {
            let wanted_bytes = side_by_side(&bytes, *channels, *height, *width);
            let allowed = wanted["off"].as_f64().unwrap_or_default();
            let each = pixels.iter().zip(wanted_bytes.pixels.iter());
            each.map(|(a, b)| share(f64::from(a.abs_diff(*b)), allowed)).fold(0.0, f64::max)
        }
        Value::Floats(tensor) => {
            let wanted_values =
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four")));
            let each = tensor.values().iter().zip(wanted_values).map(|(found, value)| {
                if found.is_nan() && value.is_nan() || *found == value {
                    return 0.0;
                }
                let allowed = match row["relative"].as_f64() {
                    Some(relative) => relative * f64::from(value.abs()),
                    // What was stored is rounded to f32, too.
                    None => wanted["off"].as_f64().expect("off") + f64::from(value.abs()) * 2f64.powi(-24),
                };
                let off = share((f64::from(*found) - f64::from(value)).abs(), allowed);
                if off.is_nan() { f64::INFINITY } else { off }
            });
            each.fold(0.0, f64::max)
        }
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "how far off it is, with --nocapture")]
fn results_are_those_of_who_defined_them() {
    let _alone = alone();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tensor_ops.json.gz");
    let file = std::fs::File::open(path).expect("the fixture");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("unpacked");
    let all: Json = serde_json::from_str(&text).expect("JSON");
    let pools: Vec<rayon::ThreadPool> = [1, 5]
        .map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"))
        .into();
    let (mut worst, mut rows, mut wrong) = ((0.0, String::new()), 0, vec![]);
    for row in all["rows"].as_array().expect("rows") {
        let values: Vec<Value> = row["given"].as_array().expect("values").iter().map(given).collect();
        let program: Vec<Step> = row["ops"].as_array().expect("operations").iter().map(step).collect();
        let shapes: Vec<Shape> = values.iter().map(Value::shape).collect();
        let plan = plan(&program, &shapes).unwrap_or_else(|error| panic!("{error:?}: {row}"));
        let mut found = pools.iter().map(|pool| {
            pool.install(|| run(&program, &plan, &values, &|| false))
                .unwrap_or_else(|error| panic!("{error:?}: {row}"))
        });
        let (one, more) = (found.next().expect("one"), found.next().expect("more"));
        assert_eq!(bits(&one), bits(&more), "threads change {row}");
        for (found, wanted) in one.iter().zip(row["results"].as_array().expect("results")) {
            let off = off(found, wanted, row);
            if off > 1.0 {
                wrong.push(format!("{off:.2} of what is allowed: {}", row["ops"]));
            }
            if off > worst.0 {
                worst = (off, row["ops"].to_string());
            }
        }
        rows += 1;
    }
    assert!(rows > 500, "{rows} rows");
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("{rows} programs; the worst is {:.3} of what is allowed: {}", worst.0, worst.1);
}

fn bits(values: &[Value]) -> Vec<Vec<u32>> {
    let each = |value: &Value| match value {
        Value::Floats(tensor) => tensor.values().iter().map(|value| value.to_bits()).collect(),
        Value::Image(image) => image.pixels.iter().map(|byte| u32::from(*byte)).collect(),
    };
    values.iter().map(each).collect()
}
