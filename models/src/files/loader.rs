//! Hands weights to networks by name and shape, and keeps account of what was wrong.
//!
//! A model is built twice: once against [`Source::Check`], where nothing is packed and every missing or
//! mis-shaped tensor is noted, so that one error can name them all; then for real.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use half::f16;
use latentd_kernels::tiled::TiledMatrix;
use latentd_kernels::{PackError, PackedMatrix, WeightDtype, Weights};

use super::SafeTensors;
use crate::nn::Precision;
use crate::{Error, Result};

/// Problems that an error spells out; beyond it only their number is told.
const NAMED_PROBLEMS: usize = 8;

enum Source<'a> {
    /// Looks at names and shapes only.
    Check(&'a SafeTensors),
    /// Reads weights.
    File(&'a SafeTensors),
    /// Makes up f16 weights of the right size, for measurements.
    Random(Cell<u64>),
}

/// Gives tensors to the networks' constructors.
pub struct Loader<'a> {
    source: Source<'a>,
    precision: Precision,
    used: RefCell<BTreeSet<String>>,
    problems: RefCell<Problems>,
}

/// What was wrong: the first few in words, all by number. A file can have any number of them.
#[derive(Default)]
struct Problems {
    named: Vec<String>,
    count: usize,
}

impl Problems {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.named.len() < NAMED_PROBLEMS {
            self.named.push(text());
        }
        self.count += 1;
    }
}

impl<'a> Loader<'a> {
    /// Checks names and shapes, reads nothing.
    pub fn check(file: &'a SafeTensors) -> Self {
        Self::new(Source::Check(file))
    }

    /// Reads a file.
    pub fn file(file: &'a SafeTensors) -> Self {
        Self::new(Source::File(file))
    }

    /// Random weights, the same for the same `seed`.
    pub fn random(seed: u64) -> Self {
        Self::new(Source::Random(Cell::new(seed | 1)))
    }

    fn new(source: Source<'a>) -> Self {
        Self { source, precision: Precision::F32, used: RefCell::default(), problems: RefCell::default() }
    }

    /// The same, for networks that compute in this precision; f32 otherwise.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// What the networks compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A linear layer's weights `(outputs, inputs)`; a 1×1 convolution's `(outputs, inputs, 1, 1)` do as well.
    pub fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<PackedMatrix> {
        let shapes: [&[usize]; 2] = [&[outputs, inputs], &[outputs, inputs, 1, 1]];
        let pack = |weights: Weights<'_>| PackedMatrix::linear(weights, outputs, inputs);
        self.packed(name, &shapes, pack, |none| PackedMatrix::linear(none, 0, 0))
    }

    /// As [`Self::linear`], for bf16.
    pub(crate) fn tiled_linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<TiledMatrix> {
        let shapes: [&[usize]; 2] = [&[outputs, inputs], &[outputs, inputs, 1, 1]];
        let pack = |weights: Weights<'_>| TiledMatrix::linear(weights, outputs, inputs);
        self.packed(name, &shapes, pack, |none| TiledMatrix::linear(none, 0, 0))
    }

    /// As [`Self::linear`], where the second half of the outputs are gates.
    pub(crate) fn gated(&self, name: &str, outputs: usize, inputs: usize) -> Result<PackedMatrix> {
        self.check_gates(name, outputs)?;
        let pack = |weights: Weights<'_>| PackedMatrix::gated(weights, outputs, inputs);
        self.packed(name, &[&[outputs, inputs]], pack, |none| PackedMatrix::linear(none, 0, 0))
    }

    fn check_gates(&self, name: &str, outputs: usize) -> Result<()> {
        if outputs.is_multiple_of(32) {
            return Ok(());
        }
        Err(self.refusal(&format!("{name} gives {outputs} outputs, no multiple of 32")))
    }

    /// As [`Self::gated`], for bf16.
    pub(crate) fn tiled_gated(&self, name: &str, outputs: usize, inputs: usize) -> Result<TiledMatrix> {
        self.check_gates(name, outputs)?;
        let pack = |weights: Weights<'_>| TiledMatrix::gated(weights, outputs, inputs);
        self.packed(name, &[&[outputs, inputs]], pack, |none| TiledMatrix::linear(none, 0, 0))
    }

    /// A convolution's weights `(outputs, inputs, kernel, kernel)`.
    pub fn convolution(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        kernel: usize,
    ) -> Result<PackedMatrix> {
        let shape = [outputs, inputs, kernel, kernel];
        let pack =
            |weights: Weights<'_>| PackedMatrix::convolution(weights, outputs, inputs, kernel * kernel);
        self.packed(name, &[&shape], pack, |none| PackedMatrix::linear(none, 0, 0))
    }

    /// As [`Self::convolution`], for bf16.
    pub(crate) fn tiled_convolution(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        kernel: usize,
    ) -> Result<TiledMatrix> {
        let shape = [outputs, inputs, kernel, kernel];
        let pack = |weights: Weights<'_>| TiledMatrix::convolution(weights, outputs, inputs, kernel * kernel);
        self.packed(name, &[&shape], pack, |none| TiledMatrix::linear(none, 0, 0))
    }

    /// A vector of f32: a bias, or a norm's weight.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        self.with(name, &[&[length]], |weights| {
            if weights.all_finite() { Ok(weights.to_f32()) } else { Err(PackError::NotFinite) }
        })
        .map(Option::unwrap_or_default)
    }

    /// A table of `rows` vectors of `width`, kept in the type it is stored in: little-endian bytes.
    pub fn table(&self, name: &str, rows: usize, width: usize) -> Result<(WeightDtype, Vec<u8>)> {
        let table = self.with(name, &[&[rows, width]], |weights| {
            let table = (weights.dtype, weights.bytes.to_vec());
            if weights.all_finite() { Ok(table) } else { Err(PackError::NotFinite) }
        })?;
        Ok(table.unwrap_or((WeightDtype::F32, Vec::new())))
    }

    /// Ends a check: an error that names all that was missing or mis-shaped, and what stood among
    /// `prefixes` without being used, unless `ignored` says it may.
    pub fn finish(self, prefixes: &[&str], ignored: impl Fn(&str) -> bool) -> Result<()> {
        let Source::Check(file) = self.source else {
            return Ok(());
        };
        let used = self.used.into_inner();
        let mut problems = self.problems.into_inner();
        let extra = file.names().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        for name in extra.filter(|name| !used.contains(*name) && !ignored(name)) {
            problems.add(|| format!("extra tensor {name}"));
        }
        if problems.count == 0 {
            return Ok(());
        }
        let more = problems.count - problems.named.len();
        let mut reason = format!("does not make a model: {}", problems.named.join("; "));
        if more > 0 {
            reason = format!("{reason}; and {more} more");
        }
        Err(Error::model(file.path(), reason))
    }

    /// An error for a network that cannot be built, naming the file.
    pub(crate) fn refusal(&self, reason: &str) -> Error {
        match self.source {
            Source::Check(file) | Source::File(file) => Error::model(file.path(), reason),
            Source::Random(_) => Error::Request(reason.to_owned()),
        }
    }

    /// Packs a tensor; `empty` stands for it while checking.
    fn packed<T>(
        &self,
        name: &str,
        shapes: &[&[usize]],
        pack: impl FnOnce(Weights<'_>) -> Result<T, PackError>,
        empty: impl FnOnce(Weights<'_>) -> Result<T, PackError>,
    ) -> Result<T> {
        match self.with(name, shapes, pack)? {
            Some(packed) => Ok(packed),
            None => empty(Weights { dtype: WeightDtype::F32, bytes: &[] })
                .map_err(|error| Error::Request(error.to_string())),
        }
    }

    /// Finds a tensor of one of the shapes and gives it to `read`; `None` while checking.
    fn with<T>(
        &self,
        name: &str,
        shapes: &[&[usize]],
        read: impl FnOnce(Weights<'_>) -> Result<T, PackError>,
    ) -> Result<Option<T>> {
        let shape = shapes.first().copied().unwrap_or_default();
        match &self.source {
            Source::Random(state) => {
                let bytes = random_f16(state, shape);
                let weights = Weights { dtype: WeightDtype::F16, bytes: &bytes };
                let value = read(weights).map_err(|error| Error::Request(format!("{name} {error}")))?;
                Ok(Some(value))
            }
            Source::Check(file) => {
                if file.shape(name).is_some() {
                    self.used.borrow_mut().insert(name.to_owned());
                }
                match fitting(file, name, shapes) {
                    Ok(()) => {
                        file.weights(name)?;
                    }
                    Err(found) => self.problems.borrow_mut().add(|| unfit(name, found, shape)),
                }
                Ok(None)
            }
            Source::File(file) => {
                let wrong = |reason: String| Error::model(file.path(), reason);
                fitting(file, name, shapes).map_err(|found| wrong(unfit(name, found, shape)))?;
                let weights = file.weights(name)?.ok_or_else(|| wrong(unfit(name, None, shape)))?;
                let value = read(weights).map_err(|error| wrong(format!("tensor {name} {error}")))?;
                file.let_go(name);
                Ok(Some(value))
            }
        }
    }
}

/// Whether a file has a tensor of one of the shapes; if not, the shape it has.
fn fitting<'a>(file: &'a SafeTensors, name: &str, shapes: &[&[usize]]) -> Result<(), Option<&'a [usize]>> {
    match file.shape(name) {
        Some(found) if shapes.contains(&found) => Ok(()),
        found => Err(found),
    }
}

fn unfit(name: &str, found: Option<&[usize]>, wanted: &[usize]) -> String {
    match found {
        None => format!("missing tensor {name} {wanted:?}"),
        Some(found) => format!("tensor {name} is {found:?}, {wanted:?} is needed"),
    }
}

/// Uniform values with the variance that keeps signals at their size: 1 / inputs. Vectors are near 1, so that
/// norms pass signals on.
fn random_f16(state: &Cell<u64>, shape: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let inputs: usize = shape.iter().skip(1).product();
    let (centre, spread) = if shape.len() == 1 { (1.0, 0.05) } else { (0.0, (3.0 / inputs as f32).sqrt()) };
    let mut word = state.get();
    let mut bytes = Vec::with_capacity(count * 2);
    for _ in 0..count {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let uniform = (word >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        bytes.extend(f16::from_f32(centre + spread * uniform).to_le_bytes());
    }
    state.set(word);
    bytes
}
