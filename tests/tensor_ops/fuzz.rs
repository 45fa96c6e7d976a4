//! Whatever program somebody writes is refused or done, within the memory that was planned.

use latentd_models::Tensor;
use latentd_models::tensor_ops::{
    Border, Failed, MOST_OPS, Op, Operand, Pixels, Reduction, Resampling, Shape, Step, Value, plan, run,
};
use proptest::prelude::*;

use crate::alone;
use crate::counted::most_within;

/// What a program takes for itself, whatever it computes: lists of results and shapes, tasks of threads.
const BESIDE: usize = 64 << 10;

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![(0usize..4).prop_map(Operand::Given), (0usize..9).prop_map(Operand::Result)]
}

fn small() -> impl Strategy<Value = usize> {
    prop_oneof![9 => 0usize..9, 1 => Just(usize::MAX), 1 => Just(isize::MAX as usize)]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![8 => -3.0..3.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(1e300), 1 => Just(0.0)]
}

fn float() -> impl Strategy<Value = f32> {
    number().prop_map(|number| number as f32)
}

fn op() -> impl Strategy<Value = Op> {
    let (a, b) = (operand, operand);
    let reductions = prop_oneof![
        Just(Reduction::Sum),
        Just(Reduction::Mean),
        Just(Reduction::Min),
        Just(Reduction::Max),
        Just(Reduction::Std),
        number().prop_map(Reduction::Quantile)
    ];
    let filters = prop_oneof![
        Just(Resampling::Nearest),
        Just(Resampling::Bilinear),
        Just(Resampling::Bicubic),
        Just(Resampling::Area),
        Just(Resampling::Lanczos)
    ];
    let borders = prop_oneof![float().prop_map(Border::Constant), Just(Border::Edge), Just(Border::Reflect)];
    prop_oneof![
        (a(), float(), float()).prop_map(|(a, scale, shift)| Op::Affine { a, scale, shift }),
        (a(), b(), float(), float()).prop_map(|(a, b, of_a, of_b)| Op::Add { a, b, of_a, of_b }),
        (a(), b()).prop_map(|(a, b)| Op::Mul { a, b }),
        (a(), b()).prop_map(|(a, b)| Op::Div { a, b }),
        (a(), b(), proptest::option::of(operand()), float()).prop_map(|(a, b, c, share)| Op::Lerp {
            a,
            b,
            c,
            share
        }),
        (a(), float(), float()).prop_map(|(a, low, high)| Op::Clamp { a, low, high }),
        a().prop_map(|a| Op::Abs { a }),
        a().prop_map(|a| Op::Sqrt { a }),
        (a(), small(), small(), small()).prop_map(|(a, axis, from, until)| Op::Slice {
            a,
            axis,
            from,
            until
        }),
        (a(), b(), small()).prop_map(|(a, b, axis)| Op::Concat { a, b, axis }),
        (a(), b()).prop_map(|(a, b)| Op::Take { a, b }),
        (a(), proptest::collection::vec(-2i64..9, 0..10)).prop_map(|(a, dims)| Op::Reshape { a, dims }),
        (a(), proptest::collection::vec(0usize..4, 0..9)).prop_map(|(a, axes)| Op::Permute { a, axes }),
        a().prop_map(|a| Op::ToFloats { a }),
        a().prop_map(|a| Op::ToImage { a }),
        (a(), prop_oneof![0u64..40, any::<u64>()], reductions).prop_map(|(a, axes, how)| Op::Reduce {
            a,
            axes,
            how
        }),
        (a(), b()).prop_map(|(a, b)| Op::MatMul { a, b }),
        (a(), small(), small(), filters).prop_map(|(a, height, width, filter)| Op::Resize {
            a,
            height,
            width,
            filter
        }),
        (a(), [small(), small(), small(), small()], borders).prop_map(
            |(a, [left, right, top, bottom], border)| Op::Pad { a, left, right, top, bottom, border }
        ),
        (a(), small(), small(), [number(), number(), number(), number(), number(), number()], float())
            .prop_map(|(a, height, width, matrix, outside)| Op::Warp { a, height, width, matrix, outside }),
        (a(), [number(), number()], [small(), small()]).prop_map(|(a, sigmas, sizes)| Op::Blur {
            a,
            sigmas,
            sizes
        }),
    ]
}

/// Of like sizes mostly, so that much of it goes together.
fn value() -> impl Strategy<Value = Value> {
    let side = || prop_oneof![3 => Just(1usize), 3 => Just(3), 3 => Just(4), 1 => Just(40)];
    let floats = (proptest::collection::vec(side(), 1..5), float()).prop_map(|(dims, value)| {
        let count: usize = dims.iter().product();
        let values =
            (0..count).map(|index| if index % 7 == 0 { value } else { index as f32 % 3.0 }).collect();
        Value::Floats(Tensor::new(values, dims).expect("fits"))
    });
    let image = (side(), side(), prop_oneof![Just(1usize), Just(3), Just(4)]).prop_map(
        |(width, height, channels)| {
            let pixels = (0..width * height * channels).map(|at| at as u8).collect::<Vec<u8>>();
            Value::Image(Pixels { width, height, channels, pixels: pixels.into() })
        },
    );
    prop_oneof![4 => floats, 1 => image]
}

/// An operation whose operands are there.
trait On {
    fn on(self, results: usize) -> Self;
}

impl On for Op {
    fn on(mut self, results: usize) -> Self {
        let there = |operand: &mut Operand| {
            if let Operand::Result(index) = operand {
                *operand = index.checked_rem(results).map_or(Operand::Given(0), Operand::Result);
            }
        };
        match &mut self {
            Op::Add { a, b, .. }
            | Op::Mul { a, b }
            | Op::Div { a, b }
            | Op::Concat { a, b, .. }
            | Op::Take { a, b }
            | Op::MatMul { a, b } => [a, b].map(there),
            Op::Lerp { a, b, c, .. } => {
                c.as_mut().map(there);
                [a, b].map(there)
            }
            Op::Affine { a, .. }
            | Op::Clamp { a, .. }
            | Op::Abs { a }
            | Op::Sqrt { a }
            | Op::Slice { a, .. }
            | Op::Reshape { a, .. }
            | Op::Permute { a, .. }
            | Op::ToFloats { a }
            | Op::ToImage { a }
            | Op::Reduce { a, .. }
            | Op::Resize { a, .. }
            | Op::Pad { a, .. }
            | Op::Warp { a, .. }
            | Op::Blur { a, .. } => [a, &mut Operand::Given(0)].map(there),
        };
        self
    }
}

/// As much of a program as can be done, so that more than the first operation is.
fn possible(program: Vec<Step>, shapes: &[Shape]) -> Vec<Step> {
    let mut done: Vec<Step> = vec![];
    for step in program {
        done.push(Step { op: step.op.on(done.len()), ..step });
        // What is larger takes long, no more.
        let fits =
            plan(&done, shapes).is_ok_and(|plan| plan.working + plan.kept.iter().sum::<u64>() < 8 << 20);
        if !fits {
            done.pop();
        }
    }
    done
}

#[test]
fn no_program_panics_or_takes_more_than_was_planned() {
    let _alone = alone();
    let steps = proptest::collection::vec((op(), any::<bool>()), 1..24);
    let given = proptest::collection::vec(value(), 1..4);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    let done = std::cell::Cell::new(0usize);
    proptest!(config, |(steps in steps, given in given)| {
        let program: Vec<Step> = steps.into_iter().map(|(op, keep)| Step { op, keep }).collect();
        let shapes: Vec<Shape> = given.iter().map(Value::shape).collect();
        // Whatever it is, it is looked at.
        let _ = plan(&program, &shapes);
        let program = possible(program, &shapes);
        let plan = plan(&program, &shapes).expect("each of it was");
        let planned = plan.working + plan.kept.iter().sum::<u64>();
        let (found, most) = pool.install(|| most_within(|| run(&program, &plan, &given, &|| false)));
        match found {
            Ok(found) => {
                prop_assert_eq!(found.len(), plan.kept.len());
                let bytes: Vec<u64> = found.iter().map(|value| value.shape().bytes()).collect();
                prop_assert_eq!(bytes, plan.kept);
                done.set(done.get() + program.len());
            }
            // Numbers that choose no entry.
            Err(Failed::Wrong(wrong)) => {
                let is_take = matches!(program[wrong.op].op, Op::Take { .. });
                prop_assert!(is_take, "{:?}", wrong);
            }
            Err(other) => prop_assert!(false, "{:?}", other),
        }
        prop_assert!(most as u64 <= planned + BESIDE as u64, "{} bytes of {}: {:?}", most, planned, program);
    });
    assert!(done.get() > 3000, "{} operations were done", done.get());
}

#[test]
fn large_ones_take_what_was_planned() {
    let _alone = alone();
    let given = [Value::Floats(Tensor::full(0.5, [1, 8, 256, 256]))];
    let shapes: Vec<Shape> = given.iter().map(Value::shape).collect();
    let (first, second) = (Operand::Given(0), Operand::Result(0));
    let step = |op, keep| Step { op, keep };
    let resize = |filter, size| Op::Resize { a: first, height: size, width: size, filter };
    for (op, at_least) in [
        (resize(Resampling::Lanczos, 32), 8 * 32 * 256 * 4),
        (resize(Resampling::Area, 300), 8 * 256 * 300 * 4),
        (Op::Blur { a: first, sigmas: [2.0, 2.0], sizes: [0, 0] }, 8 * 256 * 256 * 4),
        (Op::Reduce { a: first, axes: 0b1111, how: Reduction::Quantile(0.5) }, 8 * 256 * 256 * 4),
        (Op::Permute { a: first, axes: vec![3, 2, 1, 0] }, 0),
    ] {
        let program = [step(op, false), step(Op::Affine { a: second, scale: 2.0, shift: 0.0 }, true)];
        let plan = plan(&program, &shapes).expect("possible");
        assert!(plan.working >= at_least, "{program:?}");
        let (found, most) = most_within(|| run(&program, &plan, &given, &|| false));
        found.expect("done");
        let planned = plan.working + plan.kept.iter().sum::<u64>();
        assert!(most as u64 <= planned + BESIDE as u64, "{most} of {planned}: {program:?}");
        assert!(most as u64 >= plan.working / 2, "what is planned is what is taken: {most} of {planned}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_number() {
    let _alone = alone();
    let shape = |dims: &[usize]| Shape { dims: dims.to_vec(), is_image: false };
    let shapes = [shape(&[2, 3]), Shape { dims: vec![1, 3, 4, 4], is_image: true }];
    let first = Operand::Given(0);
    let fine = Op::Abs { a: first };
    for (op, words) in [
        (Op::Abs { a: Operand::Given(2) }, "there is no value 2"),
        (Op::Abs { a: Operand::Result(1) }, "no operation before it has the number 1"),
        (Op::Abs { a: Operand::Given(1) }, "cast it to floats first"),
        (Op::Reshape { a: first, dims: vec![4] }, "[2, 3] cannot become [4]"),
        (Op::Reshape { a: first, dims: vec![i64::MAX, i64::MAX] }, "cannot become"),
        (Op::Resize { a: first, height: usize::MAX, width: 2, filter: Resampling::Area }, "can be counted"),
        (Op::Resize { a: first, height: 0, width: 2, filter: Resampling::Area }, "has no numbers"),
        (Op::Blur { a: first, sigmas: [1e6, 1.0], sizes: [0, 0] }, "8191 are possible"),
        (Op::Blur { a: first, sigmas: [1.0, 1.0], sizes: [4, 3] }, "an odd count"),
        (Op::Slice { a: first, axis: 1, from: 1, until: 4 }, "nothing from 1 until 4"),
        (Op::ToImage { a: first }, "an image is"),
        (Op::Clamp { a: first, low: f32::NAN, high: 1.0 }, "nothing lies"),
        (Op::Affine { a: first, scale: f32::INFINITY, shift: 0.0 }, "the factor is inf"),
    ] {
        let program = [Step { op: fine.clone(), keep: false }, Step { op, keep: true }];
        let wrong = plan(&program, &shapes).expect_err("refused");
        assert!(wrong.op == 1 && wrong.text.contains(words), "{wrong:?}");
    }
    let many = vec![Step { op: fine, keep: false }; MOST_OPS + 1];
    assert!(plan(&many, &shapes).is_err_and(|wrong| wrong.text.contains("4096 are possible")));
    let program = [Step { op: Op::Abs { a: first }, keep: true }];
    let plan = plan(&program, &shapes).expect("possible");
    let given = [Value::Floats(Tensor::full(1.0, [2, 3]))];
    assert_eq!(run(&program, &plan, &given, &|| true), Err(Failed::Cancelled));
}
