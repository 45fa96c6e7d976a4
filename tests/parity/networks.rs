//! CLIP, UNet and VAE against transformers and diffusers in f32.
//!
//! Tolerance: f32 has 2⁻²⁴ ≈ 6e-8 per operation; through some tens of layers of sums of up to thousands of terms
//! the references differ among themselves by about 1e-6. The project's bar of 1e-4 is a hundred times that; what
//! is asserted is 1e-5.

use latentd_models::Tensor;
use latentd_models::files::{self, Tensors};
use latentd_models::networks::clip::{ClipConfig, ClipText};
use latentd_models::networks::unet::{UNet, UNetConfig};
use latentd_models::networks::vae::{Vae, VaeConfig};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Loader, Precision, Run, Wrap};

use crate::golden::{Golden, assert_close, checkpoint, relative_error, values};

const TOLERANCE: f64 = 1e-5;
const CLIP: &str = "cond_stage_model.transformer.text_model.";
const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

fn open(name: &str) -> Tensors {
    files::open(&checkpoint(name)).expect("opens")
}

fn loader(file: &Tensors) -> Loader<'_> {
    Loader::file(file, &cpu(), Precision::F32)
}

fn clip(file: &Tensors) -> ClipText {
    ClipText::load(&loader(file), CLIP, ClipConfig::detect(file, CLIP).expect("config")).expect("loads")
}

fn unet(file: &Tensors) -> UNet {
    UNet::load(&loader(file), UNET, UNetConfig::detect(file, UNET).expect("config")).expect("loads")
}

fn vae(file: &Tensors) -> Vae {
    Vae::load(&loader(file), VAE, VaeConfig::detect(file, VAE).expect("config")).expect("loads")
}

#[test]
fn clip_gives_every_hidden_state() {
    let golden = Golden::open("clip");
    let clip = clip(&open("tiny-sd1"));
    let states = clip.hidden_states(&golden.ids("ids"), &[], &Run::WHOLE).expect("runs");
    assert_eq!(states.len(), clip.config().layers + 1);
    for (index, state) in states.iter().enumerate() {
        assert_close(&format!("hidden {index}"), state, golden.get(&format!("hidden_{index}")), TOLERANCE);
    }
    let norm = |index: usize| clip.final_norm(&states[index]).expect("norm");
    assert_close("final", &norm(states.len() - 1), golden.get("final"), TOLERANCE);
    assert_close("clip skip 2", &norm(states.len() - 2), golden.get("skip2"), TOLERANCE);
}

/// Along x, y and both; and what is drawn so is the same wherever its border is.
#[test]
fn what_tiles_goes_on_with_its_other_end() {
    let (golden, of_unet, of_vae) = (Golden::open("tiling"), Golden::open("unet"), Golden::open("vae"));
    let file = open("tiny-sd1");
    let (unet, vae) = (unet(&file), vae(&file));
    for (along, wrap) in [
        ("x", Wrap { x: true, y: false }),
        ("y", Wrap { x: false, y: true }),
        ("xy", Wrap { x: true, y: true }),
    ] {
        let (unet, vae) = (unet.wrapping(wrap), vae.wrapping(wrap));
        let (x, t, context) =
            (of_unet.get("case1.x"), of_unet.floats("case1.t"), of_unet.get("case1.context"));
        let out = unet.forward(x, &t, context, None).expect("runs");
        assert_close(&format!("unet {along}"), &out, golden.get(&format!("unet.{along}")), TOLERANCE);
        let latents = of_vae.get("decode1.latents");
        let image = vae.decode(latents, &Run::WHOLE).expect("decodes");
        assert_close(&format!("decode {along}"), &image, golden.get(&format!("decode.{along}")), TOLERANCE);
        let posterior = vae.encode(of_vae.get("encode1.image"), &Run::WHOLE).expect("encodes");
        assert_close(
            &format!("encode {along}"),
            &posterior.mean,
            golden.get(&format!("encode.{along}")),
            TOLERANCE,
        );
        // Turned by a few latents the picture is turned too.
        let turned = |x: &Tensor, dimension: usize, by: usize| {
            let (first, rest) = (x.narrow(dimension, 0, by), x.narrow(dimension, by, x.dim(dimension) - by));
            Tensor::cat(&[&rest.expect("fits"), &first.expect("fits")], dimension).expect("fits")
        };
        for (dimension, wraps) in [(3, wrap.x), (2, wrap.y)] {
            let of_turned = vae.decode(&turned(latents, dimension, 3), &Run::WHOLE).expect("decodes");
            let error = relative_error(&values(&of_turned), &values(&turned(&image, dimension, 24)));
            assert!((error < TOLERANCE) == wraps, "decode {along}, dimension {dimension}: {error}");
        }
    }
    let off = unet.wrapping(Wrap { x: true, y: true }).wrapping(Wrap::default());
    let (x, t, context) = (of_unet.get("case1.x"), of_unet.floats("case1.t"), of_unet.get("case1.context"));
    let (plain, off) = (unet.forward(x, &t, context, None), off.forward(x, &t, context, None));
    assert!(plain.expect("runs") == off.expect("runs"), "off is the very bytes of never on");
}

#[test]
fn unet_predicts() {
    let golden = Golden::open("unet");
    let unet = unet(&open("tiny-sd1"));
    let mut cases: Vec<&str> = golden.names().filter_map(|name| name.strip_suffix(".x")).collect();
    cases.sort_unstable();
    assert!(cases.len() >= 6, "cases: {cases:?}");
    for case in cases {
        let part = |part: &str| format!("{case}.{part}");
        let mut residuals: Vec<Tensor> = (0..)
            .map_while(|i| {
                golden.has(&part(&format!("res_{i}"))).then(|| golden.get(&part(&format!("res_{i}"))).clone())
            })
            .collect();
        if golden.has(&part("mid")) {
            residuals.push(golden.get(&part("mid")).clone());
        }
        let residuals = (!residuals.is_empty()).then_some(residuals);
        let out = unet
            .forward(
                golden.get(&part("x")),
                &golden.floats(&part("t")),
                golden.get(&part("context")),
                residuals.as_deref(),
            )
            .expect("runs");
        assert_close(case, &out, golden.get(&part("out")), TOLERANCE);
    }
}

#[test]
fn unet_refuses_residuals_that_do_not_fit() {
    let golden = Golden::open("unet");
    let unet = unet(&open("tiny-sd1"));
    let mut residuals: Vec<Tensor> =
        (0..6).map(|index| golden.get(&format!("case5.res_{index}")).clone()).collect();
    let run = |residuals: &[Tensor]| {
        let (x, context) = (golden.get("case5.x"), golden.get("case5.context"));
        unet.forward(x, &golden.floats("case5.t"), context, Some(residuals))
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    let error = run(&residuals).expect_err("one too few");
    assert!(error.contains("6 residuals were given, 7 are needed"), "{error}");
    residuals.push(golden.get("case5.res_0").clone());
    let error = run(&residuals).expect_err("wrong shape");
    assert!(error.contains("the residual of the middle is"), "{error}");
}

/// Some thirty layers, each of which rounds by 2⁻⁹ of what it gives: √30 · 2⁻⁹ ≈ 1.1e-2, and as much again where
/// errors add up.
#[test]
fn vae_encodes_and_decodes_in_bf16() {
    let golden = Golden::open("vae");
    let file = open("tiny-sd1");
    let loader = Loader::file(&file, &cpu(), Precision::Bf16);
    let vae = Vae::load(&loader, VAE, VaeConfig::detect(&file, VAE).expect("config")).expect("loads");
    for case in ["encode0", "encode1"] {
        let posterior = vae.encode(golden.get(&format!("{case}.image")), &Run::WHOLE).expect("runs");
        for (name, found) in [("mean", &posterior.mean), ("logvar", &posterior.logvar)] {
            let name = format!("{case}.{name}");
            assert_close(&name, found, golden.get(&name), 2.2e-2);
        }
    }
    for case in ["decode0", "decode1", "decode2"] {
        let image = vae.decode(golden.get(&format!("{case}.latents")), &Run::WHOLE).expect("runs");
        assert_close(case, &image, golden.get(&format!("{case}.image")), 2.2e-2);
    }
}

#[test]
fn vae_encodes_and_decodes() {
    let golden = Golden::open("vae");
    let vae = vae(&open("tiny-sd1"));
    for case in ["encode0", "encode1"] {
        let posterior = vae.encode(golden.get(&format!("{case}.image")), &Run::WHOLE).expect("runs");
        assert_close(
            &format!("{case} mean"),
            &posterior.mean,
            golden.get(&format!("{case}.mean")),
            TOLERANCE,
        );
        assert_close(
            &format!("{case} logvar"),
            &posterior.logvar,
            golden.get(&format!("{case}.logvar")),
            TOLERANCE,
        );
    }
    for case in ["decode0", "decode1", "decode2"] {
        let image = vae.decode(golden.get(&format!("{case}.latents")), &Run::WHOLE).expect("runs");
        assert_close(case, &image, golden.get(&format!("{case}.image")), TOLERANCE);
    }
    // 256×256 pixels: only parts of it are kept.
    let image = vae.decode(golden.get("decode3.latents"), &Run::WHOLE).expect("runs");
    let crop = image.narrow(2, 100, 48).and_then(|image| image.narrow(3, 100, 48)).expect("crop");
    assert_close("decode3 crop", &crop, golden.get("decode3.crop"), TOLERANCE);
    let every = |image: &Tensor, dim: usize| {
        let parts: Vec<Tensor> =
            (0..256).step_by(16).map(|at| image.narrow(dim, at, 1).expect("row")).collect();
        Tensor::cat(&parts.iter().collect::<Vec<_>>(), dim).expect("rows")
    };
    let rows = every(&every(&image, 2), 3);
    assert_close("decode3 rows", &rows, golden.get("decode3.rows"), TOLERANCE);
}

/// Tiles of 20 latents that share 8 over 32×32 latents. Group norms see less of the picture, so tiles are close
/// to the whole, not equal to it; without blending, seams alone would cost more than this.
#[test]
fn tiled_decoding_stays_close_to_the_whole() {
    let golden = Golden::open("vae");
    let vae = vae(&open("tiny-sd1"));
    let latents = golden.get("decode3.latents");
    let whole = vae.decode(latents, &Run::WHOLE).expect("runs");
    let one_tile = vae.decode_tiled(latents, 32, 8, &Run::WHOLE).expect("runs");
    assert_close("one tile", &one_tile, &whole, TOLERANCE);
    let tiled = vae.decode_tiled(latents, 20, 8, &Run::WHOLE).expect("runs");
    assert_eq!(tiled.dims(), whole.dims());
    assert_close("tiles", &tiled, &whole, 0.1);
    // What the tiles change, they change as smoothly at their borders as elsewhere: a border would show as a step.
    let (_, planes, rows, columns) = whole.dims4().expect("a picture");
    let changed: Vec<f32> = tiled.values().iter().zip(whole.values()).map(|(a, b)| a - b).collect();
    let step = |x: usize| {
        let lines = 0..planes * rows;
        lines
            .map(|line| f64::from((changed[line * columns + x] - changed[line * columns + x - 1]).abs()))
            .sum::<f64>()
    };
    let usual = (1..columns).map(step).sum::<f64>() / (columns - 1) as f64;
    for border in [12 * 8, 20 * 8] {
        assert!(step(border) < 2.0 * usual, "{border}: {} where {usual} is usual", step(border));
    }
}

/// Tiles that become 20 latents each and share 8 of them. Norms and the attention in the middle see one tile: what that
/// costs is what it costs one tile alone, and blending adds nothing to it.
#[test]
fn tiled_encoding_is_as_close_to_the_whole_as_its_tiles() {
    let golden = Golden::open("vae");
    let vae = vae(&open("tiny-sd1"));
    let image = vae.decode(golden.get("decode3.latents"), &Run::WHOLE).expect("runs");
    let whole = vae.encode(&image, &Run::WHOLE).expect("runs").mean;
    let one_tile = vae.encode_tiled(&image, 32, 8, &Run::WHOLE).expect("runs").mean;
    assert_close("one tile", &one_tile, &whole, TOLERANCE);
    let part = |of: &Tensor, top: usize, left: usize, side: usize| {
        of.narrow(2, top, side).and_then(|rows| rows.narrow(3, left, side)).expect("a part")
    };
    let squares = |a: &Tensor, b: &Tensor| {
        a.values().iter().zip(b.values()).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>()
    };
    let alone = |(top, left): (usize, usize)| {
        let tile = part(&image, top * 8, left * 8, 160);
        let encoded = vae.encode(&tile, &Run::WHOLE).expect("runs").mean;
        squares(&encoded, &part(&whole, top, left, 20)) / encoded.values().len() as f64
    };
    let worst = [(0, 0), (0, 12), (12, 0), (12, 12)].map(alone).into_iter().fold(0.0, f64::max);
    let tiled = vae.encode_tiled(&image, 20, 8, &Run::WHOLE).expect("runs").mean;
    let blended = squares(&tiled, &whole) / tiled.values().len() as f64;
    assert!(blended <= worst, "{blended} where the worst tile has {worst}");
}

/// A network of other depths and widths, in bf16, beside a second copy of its weights.
#[test]
fn another_architecture_is_read_from_its_tensors() {
    let golden = Golden::open("ema");
    let file = open("tiny-sd1-ema");
    let clip = clip(&file);
    let states = clip.hidden_states(&golden.ids("ids"), &[], &Run::WHOLE).expect("runs");
    let last = clip.final_norm(states.last().expect("states")).expect("norm");
    assert_close("clip", &last, golden.get("final"), TOLERANCE);
    let out = unet(&file).forward(golden.get("x"), &golden.floats("t"), &last, None).expect("runs");
    assert_close("unet", &out, golden.get("out"), TOLERANCE);
    let image = vae(&file).decode(golden.get("latents"), &Run::WHOLE).expect("runs");
    assert_close("vae", &image, golden.get("image"), TOLERANCE);
}
