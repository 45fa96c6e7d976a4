//! bright-spots: two engines and two methods. `sobel` makes edges of a picture, `bright spots` finds what is bright in it;
//! `bright-spots.outline` has both run, whoever's they are, and `bright-spots.brightness` looks at a picture at once.
//!
//!     cargo build --release
//!     latentd call bright-spots.outline '{"image": {"path": "photo.png"}}' -o out

use latentd_plugin_api::{
    Detector, EngineKind, EngineRun, Error, Found, GivenImage, Image, Job, MethodCall, Methods, Plugin,
    Preprocessor, Result, Sent, export,
};
use serde::{Deserialize, Serialize};

/// Neither engines nor methods keep anything.
struct BrightSpots;

export!(BrightSpots, "../bright-spots.toml", [Methods], engines: [Preprocessor, Detector]);

impl Plugin for BrightSpots {
    fn new(_job: &Job<'_>) -> Result<Self> {
        Ok(Self)
    }
}

/// How bright each pixel is, 0 to 255: Rec. 601, as most of what makes grey of colours.
struct Grey {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Grey {
    fn of(image: &Image<'_>) -> Result<Self> {
        let Image { width, height, channels, .. } = *image;
        let grey = |pixel: &[u8]| match pixel {
            [red, green, blue, ..] => {
                0.299 * f32::from(*red) + 0.587 * f32::from(*green) + 0.114 * f32::from(*blue)
            }
            _ => pixel.first().copied().map_or(0.0, f32::from),
        };
        Ok(Self { width, height, values: image.read()?.chunks_exact(channels).map(grey).collect() })
    }

    /// The value at a place; beyond the sides it is that at the side.
    fn at(&self, x: isize, y: isize) -> f32 {
        let within = |place: isize, size: usize| place.clamp(0, size as isize - 1) as usize;
        self.values[within(y, self.height) * self.width + within(x, self.width)]
    }

    /// How steep it is at a place: the length of Sobel's gradient, 255 where black meets white.
    fn steepness(&self, x: isize, y: isize) -> f32 {
        let along = |dx: isize, dy: isize| {
            let side = |sign: isize| {
                let at = |across: isize| self.at(x + sign * dx + across * dy, y + sign * dy + across * dx);
                at(-1) + 2.0 * at(0) + at(1)
            };
            side(1) - side(-1)
        };
        let (right, down) = (along(1, 0), along(0, 1));
        (right * right + down * down).sqrt() / 4.0
    }
}

impl Preprocessor for BrightSpots {
    fn preprocess(&self, run: &EngineRun<'_>) -> Result<()> {
        let grey = Grey::of(&run.image)?;
        let side = |wanted: u32, own: usize| if wanted == 0 { own } else { wanted as usize };
        let (width, height) = (side(run.width, grey.width), side(run.height, grey.height));
        let mut edges = run.call().new_image(width, height, 3)?;
        for (index, pixel) in edges.pixels_mut().chunks_exact_mut(3).enumerate() {
            // The nearest pixel, where another size is wanted.
            let x = (index % width * grey.width / width) as isize;
            let y = (index / width * grey.height / height) as isize;
            pixel.fill(grey.steepness(x, y).min(255.0).round() as u8);
        }
        run.replace(edges)
    }
}

/// Pixels that touch each other.
struct Spot {
    pixels: Vec<usize>,
    /// Left, top, right and bottom, half open.
    bounds: [usize; 4],
    mean: f32,
}

/// Those of at least this brightness, from the top on.
fn spots(grey: &Grey, least: f32) -> Vec<Spot> {
    let Grey { width, height, values } = grey;
    let mut is_seen = vec![false; values.len()];
    let mut spots = vec![];
    for start in 0..values.len() {
        if is_seen[start] || values[start] < least {
            continue;
        }
        let (mut waiting, mut pixels) = (vec![start], vec![]);
        is_seen[start] = true;
        let mut bounds = [usize::MAX, usize::MAX, 0, 0];
        while let Some(pixel) = waiting.pop() {
            let (x, y) = (pixel % width, pixel / width);
            bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x + 1), bounds[3].max(y + 1)];
            pixels.push(pixel);
            let beside = [
                (x > 0).then(|| pixel - 1),
                (x + 1 < *width).then_some(pixel + 1),
                (y > 0).then(|| pixel - width),
                (y + 1 < *height).then_some(pixel + width),
            ];
            for next in beside.into_iter().flatten() {
                if !is_seen[next] && values[next] >= least {
                    is_seen[next] = true;
                    waiting.push(next);
                }
            }
        }
        let mean = pixels.iter().map(|pixel| values[*pixel]).sum::<f32>() / pixels.len() as f32;
        spots.push(Spot { pixels, bounds, mean });
    }
    spots
}

/// Spots that are told of, the largest first.
const MOST: usize = 64;

impl Detector for BrightSpots {
    fn detect(&self, run: &EngineRun<'_>) -> Result<()> {
        let grey = Grey::of(&run.image)?;
        let mut spots = spots(&grey, run.threshold.max(0.01) as f32 * 255.0);
        spots.sort_by_key(|spot| std::cmp::Reverse(spot.pixels.len()));
        for spot in spots.iter().take(MOST) {
            run.call().check()?;
            let mut mask = run.call().new_image(grey.width, grey.height, 1)?;
            let pixels = mask.pixels_mut();
            spot.pixels.iter().for_each(|pixel| pixels[*pixel] = 255);
            let [left, top, right, bottom] = spot.bounds.map(|side| side as f32);
            run.found(Found {
                label: "spot",
                score: (spot.mean / 255.0).min(1.0),
                bounds: [left, top, right, bottom],
                points: &[[(left + right) / 2.0, (top + bottom) / 2.0]],
                mask: Some(mask.into()),
                ..Found::default()
            })?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct OfImage {
    image: GivenImage,
}

#[derive(Deserialize)]
struct Outline {
    image: GivenImage,
    detector: String,
    preprocessor: String,
    threshold: f64,
}

#[derive(Serialize)]
struct Brightness {
    mean: f64,
    histogram: Vec<f64>,
}

#[derive(Serialize)]
struct Outlined {
    images: Vec<Sent>,
    spots: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    label: String,
    score: f32,
    #[serde(rename = "box")]
    bounds: [f32; 4],
    mask: Option<Sent>,
}

impl Methods for BrightSpots {
    fn quick(method: &MethodCall<'_>) -> Result<()> {
        if method.name != "brightness" {
            return Err(method.unknown());
        }
        let grey = Grey::of(&method.params::<OfImage>()?.image.image(&method.call)?)?;
        let count = grey.values.len() as f64;
        let mut histogram = vec![0.0; 16];
        for value in &grey.values {
            histogram[(*value as usize / 16).min(15)] += 1.0 / count;
        }
        let mean = grey.values.iter().map(|value| f64::from(*value)).sum::<f64>() / count / 255.0;
        method.reply(&Brightness { mean: mean.clamp(0.0, 1.0), histogram })
    }

    fn method(&self, method: &MethodCall<'_>) -> Result<()> {
        if method.name != "outline" {
            return Err(method.unknown());
        }
        let params: Outline = method.params()?;
        let call = method.call;
        let image = params.image.image(&call)?;
        let size = (image.width as u32, image.height as u32);
        call.progress(0.0, "edges")?;
        let edges = call.engine(EngineKind::Preprocessor, &params.preprocessor).size(size.0, size.1).run(image)?;
        let edges = edges.image.ok_or_else(|| Error::failed("the preprocessor made no image"))?;
        call.progress(0.5, "spots")?;
        let detector = call.engine(EngineKind::Detector, &params.detector).threshold(params.threshold);
        let found = detector.run(image)?.detections;
        let mut drawn = edges.like()?;
        let pixels = drawn.pixels_mut();
        pixels.copy_from_slice(&edges.read()?);
        for spot in &found {
            outline(pixels, (edges.width, edges.height, edges.channels), spot.bounds);
        }
        let spots = found.iter().map(|spot| {
            let mask = spot.mask.map(|mask| method.sent(mask)).transpose()?;
            Ok(Shown { label: spot.label.to_owned(), score: spot.score, bounds: spot.bounds, mask })
        });
        let spots = spots.collect::<Result<_>>()?;
        method.reply(&Outlined { images: vec![method.sent(drawn)?], spots })
    }
}

/// Draws a box in white.
fn outline(pixels: &mut [u8], (width, height, channels): (usize, usize, usize), bounds: [f32; 4]) {
    let side = |place: f32, most: usize| place.clamp(0.0, most as f32) as usize;
    let [left, right] = [side(bounds[0], width), side(bounds[2], width)];
    let [top, bottom] = [side(bounds[1], height), side(bounds[3], height)];
    for y in top..bottom {
        for x in left..right {
            if x == left || x + 1 == right || y == top || y + 1 == bottom {
                let at = (y * width + x) * channels;
                pixels[at..at + channels].fill(255);
            }
        }
    }
}
