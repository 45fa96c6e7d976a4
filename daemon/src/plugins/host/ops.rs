//! Tensors computed by the host: programs of operations, and noise.

use std::cell::RefMut;

use latentd_models::Tensor;
use latentd_models::sampling::NoiseGenerator;
use latentd_models::tensor_ops::{
    self, Border, Failed, MOST_OPS, Op, Operand, Pixels, Reduction, Resampling, Shape, Step, Value, Wrong,
};
use latentd_plugin_api::abi as codes;
use latentd_plugin_api::abi::{
    LATENTD_CANCELLED, LATENTD_FAILED, LATENTD_FLOAT, LATENTD_INVALID, LATENTD_MEMORY, LATENTD_RESULT_BIT,
    LATENTD_UINT, LATENTD_UNSUPPORTED, latentd_call, latentd_handle, latentd_list, latentd_op, latentd_ops,
    latentd_status, latentd_tensor_info,
};
use sha2::{Digest, Sha256};

use super::serving::{Failure, Served, elements, misuse, objects, reserve, serve, taken};
use super::tensors::asked_sizes;
use crate::plugins::call::{Call, State};
use crate::plugins::objects::{Content, Image, Objects};

pub(super) static OPS: latentd_ops =
    latentd_ops { size: size_of::<latentd_ops>() as u32, reserved: 0, run: Some(run), noise: Some(noise) };

fn invalid<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

fn wrong<T>(Wrong { op, text }: Wrong) -> Served<T> {
    invalid(format!("op {op}: {text}"))
}

unsafe extern "C" fn run(
    call: *mut latentd_call,
    ops: latentd_list,
    results: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a list.
        let ops = unsafe { read(ops) }?;
        let keeps = ops.iter().filter(|op| op.keep != 0).count();
        if results.is_null() && keeps > 0 {
            return misuse("results is null");
        }
        let mut objects = objects(state)?;
        let (program, given) = decoded(&ops, &mut objects)?;
        let shapes: Vec<Shape> = given.iter().map(Value::shape).collect();
        let plan = tensor_ops::plan(&program, &shapes).or_else(wrong)?;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let leases = plan.kept.iter().map(|kept| reserve(call, bytes(*kept)));
        let leases = leases.collect::<Served<Vec<_>>>()?;
        // Beside what is handed out, as long as it runs.
        let _working = reserve(call, bytes(plan.working))?;
        let mut made = Err(Failed::Cancelled);
        let stop = || call.job.is_cancelled();
        call.job.compute(&mut || made = tensor_ops::run(&program, &plan, &given, &stop));
        let made = match made {
            Ok(made) => made,
            Err(Failed::Cancelled) => return Err(Failure(LATENTD_CANCELLED, "cancelled".to_owned())),
            Err(Failed::Memory(bytes)) => {
                return Err(Failure(LATENTD_MEMORY, format!("{bytes} bytes cannot be had")));
            }
            Err(Failed::Wrong(text)) => return wrong(text),
        };
        for (index, (value, lease)) in made.into_iter().zip(leases).enumerate() {
            let handle = objects.allocate(content(value), Some(lease))?;
            // SAFETY: it has a place for each, by the plugin's word.
            unsafe { results.add(index).write(handle) };
        }
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// A plugin's operations.
///
/// # Safety
/// `ops` points to as many elements of as many bytes as it says, or is empty.
unsafe fn read(ops: latentd_list) -> Served<Vec<latentd_op>> {
    let count = ops.count as usize;
    if count > MOST_OPS {
        return invalid(format!("a program of {count} operations; {MOST_OPS} are possible"));
    }
    // SAFETY: as the caller says.
    unsafe { elements(ops, MOST_OPS as u32, "operations") }
}

/// The program that they are, and what it is given.
fn decoded(ops: &[latentd_op], objects: &mut RefMut<'_, Objects>) -> Served<(Vec<Step>, Vec<Value>)> {
    let (mut handles, mut given): (Vec<u64>, Vec<Value>) = (vec![], vec![]);
    let mut program = vec![];
    for (number, op) in ops.iter().enumerate() {
        let mut operand = |operand: u64| -> Served<Operand> {
            if operand & LATENTD_RESULT_BIT != 0 {
                let index = usize::try_from(operand & !LATENTD_RESULT_BIT).unwrap_or(usize::MAX);
                return Ok(Operand::Result(index));
            }
            if let Some(index) = handles.iter().position(|handle| *handle == operand) {
                return Ok(Operand::Given(index));
            }
            let content = objects.readable_content(operand);
            let content = content.or_else(|misuse| self::misuse(format!("op {number}: {misuse}")))?;
            given.push(match content {
                Content::Tensor(tensor) => Value::Floats(tensor.clone()),
                Content::Image(Image { width, height, channels, pixels }) => Value::Image(Pixels {
                    width: *width,
                    height: *height,
                    channels: *channels,
                    pixels: pixels.clone(),
                }),
                Content::Bytes(_) => {
                    return self::misuse(format!("op {number}: a file's bytes are no tensor"));
                }
            });
            handles.push(operand);
            Ok(Operand::Given(handles.len() - 1))
        };
        let a = operand(op.a)?;
        let b = if op.b == 0 { None } else { Some(operand(op.b)?) };
        let c = if op.c == 0 { None } else { Some(operand(op.c)?) };
        let op = operation(op, a, b, c).or_else(|text| wrong(Wrong { op: number, text }))?;
        program.push(Step { op, keep: ops[number].keep != 0 });
    }
    Ok((program, given))
}

/// What an operation is by its code; else why it is none.
fn operation(op: &latentd_op, a: Operand, b: Option<Operand>, c: Option<Operand>) -> Result<Op, String> {
    let n = |index: usize| {
        let number = op.n[index];
        usize::try_from(number).map_err(|_| format!("n[{index}] is {number}; numbers from 0 are meant"))
    };
    let v = |index: usize| op.v[index];
    let f = |index: usize| op.v[index] as f32;
    let has_b = || b.ok_or("it works on two, and b is 0");
    Ok(match op.code {
        codes::LATENTD_OP_AFFINE => Op::Affine { a, scale: f(0), shift: f(1) },
        codes::LATENTD_OP_ADD => Op::Add { a, b: has_b()?, of_a: f(0), of_b: f(1) },
        codes::LATENTD_OP_MUL => Op::Mul { a, b: has_b()? },
        codes::LATENTD_OP_DIV => Op::Div { a, b: has_b()? },
        codes::LATENTD_OP_LERP => Op::Lerp { a, b: has_b()?, c, share: f(0) },
        codes::LATENTD_OP_CLAMP => Op::Clamp { a, low: f(0), high: f(1) },
        codes::LATENTD_OP_ABS => Op::Abs { a },
        codes::LATENTD_OP_SQRT => Op::Sqrt { a },
        codes::LATENTD_OP_SLICE => Op::Slice { a, axis: n(0)?, from: n(1)?, until: n(2)? },
        codes::LATENTD_OP_CONCAT => Op::Concat { a, b: has_b()?, axis: n(0)? },
        codes::LATENTD_OP_TAKE => Op::Take { a, b: has_b()? },
        codes::LATENTD_OP_RESHAPE => {
            Op::Reshape { a, dims: op.n.iter().copied().take_while(|size| *size != 0).collect() }
        }
        codes::LATENTD_OP_PERMUTE => {
            Op::Permute { a, axes: (0..8).map_while(|index| n(index).ok()).collect() }
        }
        codes::LATENTD_OP_CAST => match (op.n[0], op.n[1]) {
            (code, 32) if code == i64::from(LATENTD_FLOAT) => Op::ToFloats { a },
            (code, 8) if code == i64::from(LATENTD_UINT) => Op::ToImage { a },
            (code, bits) => {
                return Err(format!("no tensor here is of code {code}, {bits} bits: f32, or u8 of images"));
            }
        },
        codes::LATENTD_OP_REDUCE => {
            let how = match u32::try_from(op.n[1]) {
                Ok(codes::LATENTD_SUM) => Reduction::Sum,
                Ok(codes::LATENTD_MEAN) => Reduction::Mean,
                Ok(codes::LATENTD_MIN) => Reduction::Min,
                Ok(codes::LATENTD_MAX) => Reduction::Max,
                Ok(codes::LATENTD_STD) => Reduction::Std,
                Ok(codes::LATENTD_QUANTILE) => Reduction::Quantile(v(0)),
                _ => return Err(format!("n[1] is {}, no reduction", op.n[1])),
            };
            Op::Reduce { a, axes: op.n[0].cast_unsigned(), how }
        }
        codes::LATENTD_OP_MATMUL => Op::MatMul { a, b: has_b()? },
        codes::LATENTD_OP_RESIZE => {
            let filter = match u32::try_from(op.n[2]) {
                Ok(codes::LATENTD_NEAREST) => Resampling::Nearest,
                Ok(codes::LATENTD_BILINEAR) => Resampling::Bilinear,
                Ok(codes::LATENTD_BICUBIC) => Resampling::Bicubic,
                Ok(codes::LATENTD_AREA) => Resampling::Area,
                Ok(codes::LATENTD_LANCZOS) => Resampling::Lanczos,
                _ => return Err(format!("n[2] is {}, no filter", op.n[2])),
            };
            Op::Resize { a, height: n(0)?, width: n(1)?, filter }
        }
        codes::LATENTD_OP_PAD => {
            let border = match u32::try_from(op.n[4]) {
                Ok(codes::LATENTD_CONSTANT) => Border::Constant(f(0)),
                Ok(codes::LATENTD_EDGE) => Border::Edge,
                Ok(codes::LATENTD_REFLECT) => Border::Reflect,
                _ => return Err(format!("n[4] is {}, no border", op.n[4])),
            };
            Op::Pad { a, left: n(0)?, right: n(1)?, top: n(2)?, bottom: n(3)?, border }
        }
        codes::LATENTD_OP_WARP => {
            let matrix = std::array::from_fn(v);
            Op::Warp { a, height: n(0)?, width: n(1)?, matrix, outside: f(6) }
        }
        codes::LATENTD_OP_BLUR => Op::Blur { a, sigmas: [v(0), v(1)], sizes: [n(0)?, n(1)?] },
        other => return Err(format!("this latentd has no operation {other}")),
    })
}

fn content(value: Value) -> Content {
    match value {
        Value::Floats(tensor) => Content::Tensor(tensor),
        Value::Image(Pixels { width, height, channels, pixels }) => {
            Content::Image(Image { width, height, channels, pixels })
        }
    }
}

/// The seed of another stream of a seed.
fn seed_of(seed: u64, stream: u64) -> u64 {
    if stream == 0 {
        return seed;
    }
    let mut hash = Sha256::new();
    hash.update("latentd noise");
    hash.update(seed.to_le_bytes());
    hash.update(stream.to_le_bytes());
    hash.finalize().iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

unsafe extern "C" fn noise(
    call: *mut latentd_call,
    seed: u64,
    stream: u64,
    info: *const latentd_tensor_info,
    noise: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(info) = (unsafe { taken(info) }) else { return misuse("info is null") };
        if noise.is_null() {
            return misuse("noise is null");
        }
        if info.bits != 0 && (info.code, info.bits) != (LATENTD_FLOAT, 32) {
            return Err(Failure(LATENTD_UNSUPPORTED, "noise is f32".to_owned()));
        }
        let (sizes, total) = asked_sizes(&info, size_of::<f32>())?;
        let mut objects = objects(state)?;
        let lease = reserve(call, total)?;
        let pictures = if sizes.len() == 4 { sizes[0] } else { 1 };
        let each = total / size_of::<f32>() / pictures;
        let mut values = vec![];
        let no_memory = |_| Failure(LATENTD_MEMORY, format!("{total} bytes cannot be had"));
        values.try_reserve_exact(each * pictures).map_err(no_memory)?;
        // One picture's at a time is there twice.
        let _twice = reserve(call, total / pictures)?;
        for picture in 0..pictures as u64 {
            let seed = seed_of(seed.wrapping_add(picture), stream);
            values.extend(NoiseGenerator::new(call.job.noise_source(), seed).normal(each));
        }
        let tensor = Tensor::new(values, sizes);
        let tensor = tensor.map_err(|error| Failure(LATENTD_FAILED, error.to_string()))?;
        let handle = objects.allocate(Content::Tensor(tensor), Some(lease))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { noise.write(handle) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_seed_stay_what_they_are() {
        assert_eq!(seed_of(42, 0), 42);
        // `hashlib.sha256(b"latentd noise" + struct.pack("<QQ", 42, 1)).digest()[:8]`, little-endian.
        assert_eq!(seed_of(42, 1), 0x8ae108bbb51da5bf);
        assert_ne!(seed_of(43, 1), seed_of(42, 2));
    }
}
