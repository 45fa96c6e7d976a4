//! Restorers: faces are found in a picture, cut out, restored by a network, and put back where they were.

use std::collections::BTreeMap;

use latentd_plugin_api::{Call, EngineRun, Entry, Error, File, Network, Result, Values};
use serde::Deserialize;

use crate::described::FaceRestorer;
use crate::faces::align::to_template;
use crate::faces::anchors::{Face, count, faces};
use crate::faces::blur::mask;
use crate::faces::laid::{Laid, lay};
use crate::faces::lanczos::{lanczos, linear};
use crate::faces::warp::warped;
use crate::faces::{Colours, Plane};

/// The shorter side of what faces are looked for in.
const LOOKED_AT: usize = 640;

/// The longer side that memory is planned for.
const LOOKED_AT_LONGER: usize = 1280;

/// Scores of faces, and what two may share.
const LEAST_SCORE: f32 = 0.97;
const MOST_SHARED: f32 = 0.4;

/// Pixels between eyes of faces that are not left as they are.
const BETWEEN_EYES: f32 = 5.0;

/// What a detector's colours are less, blue first.
const MEANS: [f32; 3] = [104.0, 117.0, 123.0];

/// What is beyond a picture: red, green and blue.
const GREY: [u8; 3] = [132, 133, 135];

/// The side of faces whose parts are told, and how many parts there are.
const PARSED: usize = 512;
const PARTS: usize = 19;

/// Faces that a picture is reckoned to have.
const FACES: f64 = 2.0;

/// Faces of a picture that are restored, at most, and among how many they are looked for.
const MOST_FACES: usize = 64;
const MOST_FOUND: usize = 1024;

/// Bytes beside a face that it is worked on in: its pixels as numbers in three colours, and its mask before and after each blur.
const WORKED_IN: usize = 9 * size_of::<f64>() * PARSED * PARSED;

/// Bytes of what goes into the networks for a face and comes out of them: two pictures each, and parts.
const TENSORS: usize = (9 + PARTS) * size_of::<f32>() * PARSED * PARSED;

/// The weight where a request has none, as A1111's.
const WEIGHT: f32 = 0.5;

/// A network beside the restorer, as facexlib calls its file.
struct Beside {
    name: &'static str,
    kind: &'static str,
    does: &'static str,
}

const DETECTOR: Beside = Beside { name: "detection_Resnet50_Final", kind: "retinaface", does: "finds faces" };
const PARSER: Beside =
    Beside { name: "parsing_parsenet", kind: "parsenet", does: "tells the parts of a face" };

impl Beside {
    /// Its file; an error says where it belongs.
    fn file(&self, call: &Call<'_>, entry: &str) -> Result<File> {
        let Self { name, kind, does } = self;
        let file = call.find_file("face_model", name).map_err(|error| {
            let known = call.file_names("face_model").unwrap_or_default();
            // Found twice, or not at all.
            if known.iter().any(|known| known == name) {
                return error;
            }
            Error::model(format!(
                "it needs {name}.pth, which {does}: '{entry}' restores what it finds. Put that file, which facexlib has, into the \
                 folder GFPGAN of the models"
            ))
        })?;
        let found = call.describe_network(file)?.kind;
        if found != *kind {
            let text = format!("{name} is a network of kind '{found}'; facexlib's, which {does}, is needed");
            return Err(Error::model(text));
        }
        Ok(file)
    }
}

/// What a run is told beside the picture.
#[derive(Deserialize)]
struct Wish {
    /// Of `CodeFormer`: how far the face that is there counts, 0…1.
    weight: Option<f32>,
}

/// What an entry needs, as a request names it.
pub fn describe(entry: &Entry<'_>, file: File) -> Result<()> {
    let (call, plan) = (&entry.call, &entry.plan);
    let FaceRestorer { side, is_weighted } = FaceRestorer::of(&call.describe_network(file)?)?;
    let face: (&str, &[usize]) = ("image", &[1, 3, side, side]);
    let inputs: &[_] = if is_weighted { &[face, ("weight", &[1])] } else { &[face] };
    plan.network(file, "", inputs, FACES)?;
    let detector = DETECTOR.file(call, entry.name)?;
    plan.network(detector, "", &[("image", &[1, 3, LOOKED_AT, LOOKED_AT_LONGER])], 1.0)?;
    // Tensors are in the host's memory, too.
    plan.memory((FACES as usize * Laid::bytes(side) + WORKED_IN + 2 * TENSORS) as u64, 0)?;
    let parser = PARSER.file(call, entry.name)?;
    plan.network(parser, "", &[("image", &[1, 3, PARSED, PARSED])], FACES)
}

/// Pixels of what the detector looks at: pictures more than forty times as long as wide are more.
const MOST_LOOKED_AT: usize = 1 << 24;

/// The networks of a job that were opened so far.
#[derive(Default)]
pub struct Networks(Vec<(File, Network)>);

impl Networks {
    /// That of a file, opened once.
    fn network(&mut self, call: &Call<'_>, file: File) -> Result<Network> {
        if let Some((_, network)) = self.0.iter().find(|(own, _)| *own == file) {
            return Ok(*network);
        }
        let network = call.open_network(file)?;
        self.0.push((file, network));
        Ok(network)
    }

    /// A picture with its faces restored.
    pub fn restore(&mut self, run: &EngineRun<'_>, file: File) -> Result<()> {
        let call = run.call();
        let Wish { weight } = run.params()?;
        let weight = weight.unwrap_or(WEIGHT);
        if !(0.0..=1.0).contains(&weight) {
            return Err(Error::invalid(format!("weight: {weight}; 0 to 1 are taken")));
        }
        let picture = Colours { width: run.image.width, height: run.image.height, pixels: run.image.read()? };
        let detector = self.network(call, DETECTOR.file(call, run.entry)?)?;
        let found = found(call, detector, &picture)?;
        let faces =
            if found.is_empty() { vec![] } else { self.faces(run, file, (&picture, &found), weight)? };
        let mut made = run.image.like()?;
        lay(&picture, &faces, made.pixels_mut(), || call.check())?;
        run.replace(made)
    }

    /// Faces that were found, restored.
    fn faces(
        &mut self,
        run: &EngineRun<'_>,
        file: File,
        (picture, found): (&Colours<'_>, &[Face]),
        weight: f32,
    ) -> Result<Vec<Laid>> {
        let call = run.call();
        let restorer = self.network(call, file)?;
        let parser = self.network(call, PARSER.file(call, run.entry)?)?;
        let FaceRestorer { side, is_weighted } = FaceRestorer::of(&call.describe_network(file)?)?;
        let weight = is_weighted.then_some(weight);
        call.reserve((found.len() * Laid::bytes(side) + WORKED_IN + TENSORS) as u64, 0)?;
        let mut laid = vec![];
        for (number, face) in found.iter().enumerate() {
            call.check()?;
            // Points that lie on one another tell nothing: such a face stays as it is.
            if let Some(matrix) = to_template(&face.points, side) {
                let cut = warped(picture, &matrix, (side, side), GREY);
                let restored = restored(call, restorer, &cut, weight)?;
                let mask = parsed(call, parser, &restored)?;
                laid.push(Laid::new(restored, mask, &matrix, (picture.width, picture.height)));
            }
            let done = number + 1;
            call.progress(done as f64 / found.len() as f64, &format!("face {done} of {}", found.len()))?;
        }
        Ok(laid)
    }
}

/// The faces in a picture, in its pixels.
fn found(call: &Call<'_>, detector: Network, picture: &Colours<'_>) -> Result<Vec<Face>> {
    let scale = picture.width.min(picture.height) as f64 / LOOKED_AT as f64;
    let side = |side: usize| ((side as f64 / scale) as usize).max(1);
    let size = (side(picture.width), side(picture.height));
    let (width, height) = size;
    if width.saturating_mul(height) > MOST_LOOKED_AT {
        call.notice(&format!(
            "{}x{} is too long to look for faces in, which would be done in {width}x{height}: they stay as they are",
            picture.width, picture.height
        ))?;
        return Ok(vec![]);
    }
    // The picture in bytes and in numbers, and 16 numbers of each anchor.
    let taken = (3 + 3 * size_of::<f32>()) * width * height + 16 * size_of::<f32>() * count(width, height);
    call.reserve(taken as u64, 0)?;
    let looked_at = lanczos(picture, size);
    let mut image = zeros(width, height);
    for (colour, plane) in image.numbers.chunks_exact_mut(width * height).enumerate() {
        let mean = MEANS.get(colour).copied().unwrap_or_default();
        for (value, pixel) in plane.iter_mut().zip(looked_at.pixels.chunks_exact(3)) {
            *value = f32::from(pixel.get(2 - colour).copied().unwrap_or_default()) - mean;
        }
    }
    let outputs = run(call, detector, &[("image", &image)])?;
    let numbers = |name: &str| output(&outputs, name).map(|values| values.numbers.as_slice());
    let (boxes, scores, points) = (numbers("boxes")?, numbers("scores")?, numbers("points")?);
    let anchors = count(width, height);
    if (boxes.len(), scores.len(), points.len()) != (4 * anchors, 2 * anchors, 10 * anchors) {
        let text = format!("{} numbers of boxes for {anchors} anchors", boxes.len());
        return Err(Error::model(text));
    }
    let mut found = faces(size, [boxes, scores, points], (LEAST_SCORE, MOST_SHARED), MOST_FOUND);
    for face in &mut found {
        let larger = |at: &mut f32| *at = (f64::from(*at) * scale) as f32;
        face.points.iter_mut().flatten().for_each(larger);
    }
    let is_large = |face: &Face| {
        let [[left, high], [right, low], ..] = face.points;
        (left - right).hypot(high - low) >= BETWEEN_EYES
    };
    found.retain(is_large);
    if found.len() > MOST_FACES {
        call.notice(&format!(
            "{} faces were found, and {MOST_FACES} of a picture are restored at most: the others stay as they are",
            found.len()
        ))?;
        found.truncate(MOST_FACES);
    }
    Ok(found)
}

/// What a network makes of this. Nothing of it is left in the host's memory: a picture may have many faces.
fn run(call: &Call<'_>, network: Network, inputs: &[(&str, &Values)]) -> Result<BTreeMap<String, Values>> {
    let outputs = network.run_values(call, "", inputs)?;
    check_finite(&outputs)?;
    Ok(outputs)
}

/// Weights may be finite and what they make may not be: it would be black where a face was, or no face at all.
fn check_finite(outputs: &BTreeMap<String, Values>) -> Result<()> {
    if let Some((name, _)) =
        outputs.iter().find(|(_, values)| values.numbers.iter().any(|value| !value.is_finite()))
    {
        return Err(Error::model(format!(
            "'{name}' of a restorer's networks came out with numbers that are not finite"
        )));
    }
    Ok(())
}

fn output<'a>(outputs: &'a BTreeMap<String, Values>, name: &str) -> Result<&'a Values> {
    outputs.get(name).ok_or_else(|| Error::failed(format!("no output '{name}' came out")))
}

/// A picture of zeros.
fn zeros(width: usize, height: usize) -> Values {
    Values { dims: vec![1, 3, height, width], numbers: vec![0.0; 3 * height * width] }
}

/// A face as numbers of −1…1.
fn as_numbers(face: &Colours<'_>) -> Values {
    let Colours { width, height, pixels } = face;
    let mut made = zeros(*width, *height);
    for (colour, plane) in made.numbers.chunks_exact_mut(width * height).enumerate() {
        for (value, pixel) in plane.iter_mut().zip(pixels.chunks_exact(3)) {
            let level = f32::from(pixel.get(colour).copied().unwrap_or_default()) / 255.0;
            *value = (level - 0.5) / 0.5;
        }
    }
    made
}

/// What the network makes of a face.
fn restored(
    call: &Call<'_>,
    restorer: Network,
    face: &Colours<'_>,
    weight: Option<f32>,
) -> Result<Colours<'static>> {
    let image = as_numbers(face);
    let weight = weight.map(|weight| Values { dims: vec![1], numbers: vec![weight] });
    let weight = weight.as_ref().map(|weight| ("weight", weight));
    let inputs: Vec<_> = [("image", &image)].into_iter().chain(weight).collect();
    let made = run(call, restorer, &inputs)?;
    let made = &output(&made, "image")?.numbers;
    let places = face.width * face.height;
    let level = |at: usize| {
        let value = made.get(at % 3 * places + at / 3).copied().unwrap_or_default();
        // A1111 cuts off what is beyond a level.
        (f32::midpoint(value.clamp(-1.0, 1.0), 1.0) * 255.0) as u8
    };
    let pixels: Vec<u8> = (0..3 * places).map(level).collect();
    Ok(Colours { width: face.width, height: face.height, pixels: pixels.into() })
}

/// How much of a restored face is seen at each of its pixels.
fn parsed(call: &Call<'_>, parser: Network, face: &Colours<'_>) -> Result<Plane> {
    let plane = |colour: usize| {
        let values = face.pixels.iter().skip(colour).step_by(3).copied().map(f64::from).collect();
        linear(&Plane { width: face.width, height: face.height, values }, (PARSED, PARSED))
    };
    let planes = [plane(0), plane(1), plane(2)];
    let pixel = |at: usize| {
        let value =
            planes.get(at % 3).and_then(|plane| plane.values.get(at / 3)).copied().unwrap_or_default();
        value.round_ties_even() as u8
    };
    let pixels: Vec<u8> = (0..3 * PARSED * PARSED).map(pixel).collect();
    let image = as_numbers(&Colours { width: PARSED, height: PARSED, pixels: pixels.into() });
    let made = run(call, parser, &[("image", &image)])?;
    let Values { dims, numbers } = output(&made, "parts")?;
    if *dims != [1, PARTS, PARSED, PARSED] {
        return Err(Error::model(format!("parts of a face {dims:?}; {PARTS} at {PARSED} are needed")));
    }
    Ok(linear(&mask(numbers, PARSED), (face.width, face.height)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_told_with_their_output() {
        let output =
            |name: &str, last: f32| (name.to_owned(), Values { dims: vec![2], numbers: vec![0.5, last] });
        assert_eq!(check_finite(&[output("boxes", -3e38), output("image", 1.0)].into()), Ok(()));
        for last in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error =
                check_finite(&[output("boxes", 0.0), output("parts", last)].into()).expect_err("refused");
            assert!(error.text.starts_with("'parts' of a restorer's networks"), "{error}");
        }
    }
}
