//! Hands weights to networks by name and shape, and keeps account of what was wrong.
//!
//! A network is built twice: first on a device that only counts, where nothing is read and every missing or mis-shaped
//! tensor is noted, so that one error can name them all; then for real.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use half::f16;
use latentd_kernels::{PackError, WeightDtype, Weights};
use rayon::prelude::*;

use super::backend::{Device, Layout, Matrix, Precision, Vector};
use super::low_rank::LowRank;
use super::parts::{Part, Parts, Table};
use super::patch::{Patch, joined_rank};
use crate::files::{Tensors, would_be};
use crate::{Error, Result};

/// Problems that an error spells out; beyond it only their number is told.
const NAMED_PROBLEMS: usize = 8;

enum Source<'a> {
    File(&'a Tensors),
    /// Makes up f16 weights of the right size, for measurements.
    Random(Cell<u64>),
}

/// Gives tensors to the networks' constructors.
pub struct Loader<'a> {
    source: Source<'a>,
    device: Device,
    precision: Precision,
    /// In order; each sees what the former left.
    patches: &'a [Arc<dyn Patch>],
    /// Networks of the same file on the same device, whose tensors are shared where the same patches made them.
    near: &'a [&'a Parts],
    /// Tensors that were made ahead.
    ready: RefCell<BTreeMap<String, Part>>,
    cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
    parts: RefCell<Parts>,
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

/// Why a tensor cannot be taken.
enum Unfit {
    /// It is not there, or of this other shape.
    Shape(Option<Vec<usize>>),
    Packed(PackError),
    Other(Error),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl<'a> Loader<'a> {
    /// Reads a file, for networks on a device that compute in a precision.
    pub fn file(file: &'a Tensors, device: &Device, precision: Precision) -> Self {
        Self::new(Source::File(file), device, precision)
    }

    /// Random weights, the same for the same `seed`.
    pub fn random(seed: u64, device: &Device, precision: Precision) -> Self {
        Self::new(Source::Random(Cell::new(seed | 1)), device, precision)
    }

    fn new(source: Source<'a>, device: &Device, precision: Precision) -> Self {
        Self {
            source,
            device: device.clone(),
            precision,
            patches: &[],
            near: &[],
            ready: RefCell::default(),
            cancelled: None,
            parts: RefCell::default(),
            used: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    /// The same, where `patches` change weights on the way. `near` are networks of the same file on the same device, the
    /// unpatched one first: a tensor that the same patches made, or none, is theirs. Matrices of another precision are
    /// loaded anew.
    #[must_use]
    pub fn patched(self, near: &'a [&'a Parts], patches: &'a [Arc<dyn Patch>]) -> Self {
        Self { patches, near, ..self }
    }

    /// Makes the matrices that patches touch, several at once, as the first of the networks near has them: a network takes
    /// its tensors one after the other.
    pub fn make_patched(&self) -> Result<()> {
        let (Source::File(file), Some(base), true) =
            (&self.source, self.near.first(), self.device.computes())
        else {
            return Ok(());
        };
        let is_made = |name: &str, made_by: &[[u8; 32]]| {
            self.near.iter().any(|near| near.made_by(name, made_by).is_some())
        };
        let wanted: Vec<(&str, &Matrix)> = base
            .iter()
            .filter_map(|(name, part)| match part {
                Part::Matrix(matrix) if !is_made(name, &self.made_by(name)) => Some((name, matrix)),
                _ => None,
            })
            .collect();
        let (device, patches, cancelled) = (&self.device, self.patches, self.cancelled);
        let made: Vec<_> = wanted
            .into_par_iter()
            .map_init(Vec::new, |scratch, (name, base)| {
                if cancelled.is_some_and(|cancelled| cancelled()) {
                    return (name, Err(Unfit::Other(Error::Cancelled)), base);
                }
                let shapes = shapes_of(base.layout);
                let made = plus_products(device, file, name, base, patches).and_then(|made| {
                    if let Some(matrix) = made {
                        return Ok(matrix);
                    }
                    let values = patched(file, name, &shapes, patches, scratch)?;
                    let matrix = device.matrix(base.layout, base.precision, Weights::of(values))?;
                    matrix.map_err(Unfit::Packed)
                });
                // Looked for only where there is one: looking takes as long as the rest.
                let made = made.map_err(|unfit| match unfit {
                    Unfit::Packed(PackError::NotFinite) => not_finite(file, name, &shapes, patches),
                    other => other,
                });
                file.let_go(name);
                (name, made, base)
            })
            .collect();
        let mut ready = self.ready.borrow_mut();
        for (name, made, base) in made {
            let matrix = made.map_err(|unfit| self.refused(name, &base.layout.shape(), unfit))?;
            ready.insert(name.to_owned(), Part::Matrix(matrix));
        }
        Ok(())
    }

    /// The same, which ends between two tensors once `cancelled` says so.
    #[must_use]
    pub fn until(self, cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { cancelled: Some(cancelled), ..self }
    }

    /// What the networks compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the networks are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What was handed out so far, by name.
    pub fn into_parts(self) -> Parts {
        self.parts.into_inner()
    }

    /// A matrix of weights.
    pub fn matrix(&self, name: &str, layout: Layout, precision: Precision) -> Result<Matrix> {
        let fits = |part: &Part| matches!(part, Part::Matrix(matrix) if (matrix.layout, matrix.precision) == (layout, precision));
        if let Some(Part::Matrix(matrix)) = self.shared(name, fits) {
            return Ok(matrix);
        }
        let matrix = self.take(name, &shapes_of(layout), |weights| {
            self.device.matrix(layout, precision, weights)?.map_err(Unfit::Packed)
        })?;
        self.keep(name, Part::Matrix(matrix.clone()));
        Ok(matrix)
    }

    /// As [`Self::matrix`], whose output `i` is the file's output `order(i)`. No patch touches it.
    pub fn matrix_in_order(
        &self,
        name: &str,
        layout: Layout,
        precision: Precision,
        order: &dyn Fn(usize) -> usize,
    ) -> Result<Matrix> {
        let (outputs, ..) = layout.sizes();
        self.take(name, &shapes_of(layout), |weights| {
            let bytes = in_order(weights.bytes, outputs, order);
            let weights = Weights { dtype: weights.dtype, bytes: &bytes };
            self.device.matrix(layout, precision, weights)?.map_err(Unfit::Packed)
        })
    }

    /// As [`Self::vector`], whose number `i` is the file's number `order(i)`.
    pub fn vector_in_order(
        &self,
        name: &str,
        length: usize,
        order: &dyn Fn(usize) -> usize,
    ) -> Result<Vector> {
        self.take(name, &[vec![length]], |weights| {
            let values = if self.device.computes() { finite(weights)?.to_f32() } else { vec![] };
            let ordered = (0..values.len()).filter_map(|index| values.get(order(index)).copied());
            Ok(self.device.vector(ordered.collect(), length)?)
        })
    }

    /// Numbers that stay on the host, in the file's order; zeros where nothing is computed.
    pub fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if let Source::File(file) = &self.source {
            // Where nothing is computed as many zeros are made as the file has numbers, not as many as it claims.
            fitting(file, name, &[shape.to_vec()]).map_err(|unfit| self.refused(name, shape, unfit))?;
        }
        self.take(name, &[shape.to_vec()], |weights| {
            let count = shape.iter().product();
            Ok(if self.device.computes() { finite(weights)?.to_f32() } else { vec![0.0; count] })
        })
    }

    /// A vector of f32: a bias, or a norm's weight.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vector> {
        let fits = |part: &Part| matches!(part, Part::Vector(vector) if vector.length == length);
        if let Some(Part::Vector(vector)) = self.shared(name, fits) {
            return Ok(vector);
        }
        let vector = self.take(name, &[vec![length]], |weights| {
            let values = if self.device.computes() { finite(weights)?.to_f32() } else { vec![] };
            Ok(self.device.vector(values, length)?)
        })?;
        self.keep(name, Part::Vector(vector.clone()));
        Ok(vector)
    }

    /// A table of `rows` vectors of `width`, which stays on the host.
    pub fn table(&self, name: &str, rows: usize, width: usize) -> Result<Arc<Table>> {
        let fits = |part: &Part| matches!(part, Part::Table(table) if table.size == rows * width * table.dtype.size());
        if let Some(Part::Table(table)) = self.shared(name, fits) {
            return Ok(table);
        }
        let table = self.take(name, &[vec![rows, width]], |weights| {
            let mut bytes = vec![];
            if self.device.computes() {
                let table = finite(weights)?.bytes;
                let refused = |_| Error::OutOfMemory { bytes: table.len() as u64 };
                bytes.try_reserve_exact(table.len()).map_err(refused)?;
                bytes.extend_from_slice(table);
            }
            let size = rows * width * weights.dtype.size();
            Ok(Arc::new(Table { dtype: weights.dtype, bytes, size, shape: [rows, width] }))
        })?;
        self.keep(name, Part::Table(Arc::clone(&table)));
        Ok(table)
    }

    /// Ends the building of an empty network: an error that names all that was missing or mis-shaped, and what stood
    /// among `prefixes` without being used, unless `ignored` says it may.
    pub fn finish(self, prefixes: &[&str], ignored: impl Fn(&str) -> bool) -> Result<()> {
        let Source::File(file) = self.source else {
            return Ok(());
        };
        let used = self.used.into_inner();
        let mut problems = self.problems.into_inner();
        for (name, own) in prefixes.iter().flat_map(|prefix| file.names_under(prefix)) {
            if !used.contains(own) && !ignored(name) && !ignored(own) {
                problems.add(|| format!("extra tensor {own}"));
            }
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
            Source::File(file) => Error::model(file.path(), reason),
            Source::Random(_) => Error::Request(reason.to_owned()),
        }
    }

    /// A tensor of this name that the same patches made, if it `fits`: of a network near, or made ahead.
    fn shared(&self, name: &str, fits: impl Fn(&Part) -> bool) -> Option<Part> {
        let made_by = self.made_by(name);
        let near = self.near.iter().find_map(|near| near.made_by(name, &made_by).filter(|part| fits(part)));
        let ready = || self.ready.borrow_mut().remove(name).filter(|part| fits(part));
        let part = near.cloned().or_else(ready)?;
        self.parts.borrow_mut().insert(name, part.clone(), made_by);
        Some(part)
    }

    fn keep(&self, name: &str, part: Part) {
        self.parts.borrow_mut().insert(name, part, self.made_by(name));
    }

    /// Digests of the patches that touch a tensor.
    fn made_by(&self, name: &str) -> Vec<[u8; 32]> {
        self.patches.iter().filter(|patch| patch.touches(name)).map(|patch| patch.digest()).collect()
    }

    fn is_patched(&self, name: &str) -> bool {
        self.patches.iter().any(|patch| patch.touches(name))
    }

    /// Finds a tensor of one of the shapes, patches it, and gives it to `read`. Where nothing is computed, a tensor that
    /// does not fit is noted and replaced by a dummy of the right shape.
    fn take<T>(
        &self,
        name: &str,
        shapes: &[Vec<usize>],
        read: impl Fn(Weights<'_>) -> Result<T, Unfit>,
    ) -> Result<T> {
        if self.cancelled.is_some_and(|cancelled| cancelled()) {
            return Err(Error::Cancelled);
        }
        let shape = shapes.first().map(Vec::as_slice).unwrap_or_default();
        if !self.device.computes() {
            let dtype = match self.noted(name, shapes) {
                Ok(_) if self.is_patched(name) => WeightDtype::F32,
                Ok(dtype) => dtype,
                Err(Unfit::Other(error)) => return Err(error),
                // In words only where they are told: what a tensor would be called takes a look at all names.
                Err(Unfit::Shape(found)) => {
                    self.problems.borrow_mut().add(|| self.unfit(name, found.as_deref(), shape));
                    WeightDtype::F32
                }
                Err(Unfit::Packed(error)) => {
                    self.problems.borrow_mut().add(|| format!("tensor {name} {error}"));
                    WeightDtype::F32
                }
            };
            let dummy = read(Weights { dtype, bytes: &[] });
            return dummy.map_err(|unfit| self.refused(name, shape, unfit));
        }
        let taken = match &self.source {
            Source::File(file) if self.is_patched(name) => {
                let mut scratch = vec![];
                let values = patched(file, name, shapes, self.patches, &mut scratch);
                values.and_then(|values| read(Weights::of(values))).map_err(|unfit| match unfit {
                    Unfit::Packed(PackError::NotFinite) => not_finite(file, name, shapes, self.patches),
                    other => other,
                })
            }
            _ => self.weights(name, shapes).and_then(|weights| {
                let bytes: Cow<'_, [u8]> = weights.bytes;
                read(Weights { dtype: weights.dtype, bytes: &bytes })
            }),
        };
        if let Source::File(file) = &self.source {
            file.let_go(name);
        }
        taken.map_err(|unfit| self.refused(name, shape, unfit))
    }

    /// Notes that a tensor is used; its type if it fits.
    fn noted(&self, name: &str, shapes: &[Vec<usize>]) -> Result<WeightDtype, Unfit> {
        let Source::File(file) = &self.source else { return Ok(WeightDtype::F16) };
        if let Some(own) = file.own_name(name) {
            self.used.borrow_mut().insert(own.to_owned());
        }
        fitting(file, name, shapes)?;
        Ok(file.weight_dtype(name)?)
    }

    fn weights(&self, name: &str, shapes: &[Vec<usize>]) -> Result<Stored<'a>, Unfit> {
        match &self.source {
            Source::Random(_) if self.is_patched(name) => {
                Err(Error::Request("made-up weights take no patches".to_owned()).into())
            }
            Source::Random(state) => {
                let shape = shapes.first().map(Vec::as_slice).unwrap_or_default();
                Ok(Stored { dtype: WeightDtype::F16, bytes: Cow::Owned(random_f16(state, shape)) })
            }
            Source::File(file) => {
                fitting(file, name, shapes)?;
                let (dtype, bytes) = file.weights(name)?.ok_or(Unfit::Shape(None))?;
                Ok(Stored { dtype, bytes })
            }
        }
    }

    fn refused(&self, name: &str, wanted: &[usize], unfit: Unfit) -> Error {
        match unfit {
            Unfit::Shape(found) => self.refusal(&self.unfit(name, found.as_deref(), wanted)),
            Unfit::Packed(error) => match self.source {
                Source::File(_) => self.refusal(&format!("tensor {name} {error}")),
                Source::Random(_) => self.refusal(&format!("{name} {error}")),
            },
            Unfit::Other(error) => error,
        }
    }

    /// What is wrong with a tensor; by both names where the file calls it otherwise.
    fn unfit(&self, name: &str, found: Option<&[usize]>, wanted: &[usize]) -> String {
        let own = match &self.source {
            Source::File(file) => match file.own_name(name) {
                Some(own) => (own != name).then(|| own.to_owned()),
                None => would_be(file, name),
            },
            Source::Random(_) => None,
        };
        let named = own.map_or_else(|| name.to_owned(), |own| format!("{own} ({name})"));
        match found {
            None => format!("missing tensor {named} {wanted:?}"),
            Some(found) => format!("tensor {named} is {found:?}, {wanted:?} is needed"),
        }
    }
}

/// Rows of one length in another order: row `i` of the result is row `order(i)`.
fn in_order(bytes: &[u8], rows: usize, order: &dyn Fn(usize) -> usize) -> Vec<u8> {
    let length = bytes.len() / rows.max(1);
    let mut ordered = Vec::with_capacity(bytes.len());
    for row in (0..rows).map(order) {
        ordered.extend_from_slice(bytes.get(row * length..(row + 1) * length).unwrap_or_default());
    }
    ordered
}

/// The shapes that a file may have a matrix in: a linear layer's may also be stored as a 1×1 convolution's.
fn shapes_of(layout: Layout) -> Vec<Vec<usize>> {
    let mut shapes = vec![layout.shape()];
    if let Layout::Linear { outputs, inputs } = layout {
        shapes.push(vec![outputs, inputs, 1, 1]);
    }
    shapes
}

/// A tensor of one of the shapes with the patches that touch it, in `scratch`.
fn patched<'s>(
    file: &Tensors,
    name: &str,
    shapes: &[Vec<usize>],
    patches: &[Arc<dyn Patch>],
    scratch: &'s mut Vec<f32>,
) -> Result<&'s [f32], Unfit> {
    let shape = fitting(file, name, shapes)?;
    let elements = file.elements(name)?.ok_or(Unfit::Shape(None))?;
    let count = shape.iter().product();
    if count > scratch.len() {
        let refused = |_| Error::OutOfMemory { bytes: count as u64 * 4 };
        scratch.try_reserve_exact(count - scratch.len()).map_err(refused)?;
        scratch.resize(count, 0.0);
    }
    let values = scratch.get_mut(..count).unwrap_or_default();
    elements.read(0, values)?;
    match products(name, patches)? {
        Some(product) => product.add_to(values)?,
        None => {
            for patch in patches.iter().filter(|patch| patch.touches(name)) {
                patch.apply(name, &shape, values)?;
            }
        }
    }
    Ok(values)
}

/// What patches make of a matrix, if all of them are products: in one go, without the weights anywhere in between.
fn plus_products(
    device: &Device,
    file: &Tensors,
    name: &str,
    base: &Matrix,
    patches: &[Arc<dyn Patch>],
) -> Result<Option<Matrix>, Unfit> {
    let Some(product) = products(name, patches)? else { return Ok(None) };
    let made = if device.packs_exactly(base.precision) {
        device.matrix_plus(base, None, &product)?
    } else {
        let elements = file.elements(name)?.ok_or(Unfit::Shape(None))?;
        device.matrix_plus(base, Some(&|first, out| elements.read(first, out)), &product)?
    };
    made.map(Some).map_err(Unfit::Packed)
}

/// The product that all patches of a tensor are together, if each is one and they are not too many.
fn products(name: &str, patches: &[Arc<dyn Patch>]) -> Result<Option<LowRank>, Unfit> {
    if joined_rank(name, patches).is_none() {
        return Ok(None);
    }
    let mut all = vec![];
    for patch in patches.iter().filter(|patch| patch.touches(name)) {
        let Some(product) = patch.product(name)? else { return Ok(None) };
        all.push(product);
    }
    Ok((!all.is_empty()).then(|| LowRank::joined(&all)))
}

/// Whose numbers are not finite: the file's, or what one of the patches makes of them.
fn not_finite(file: &Tensors, name: &str, shapes: &[Vec<usize>], patches: &[Arc<dyn Patch>]) -> Unfit {
    let mut values = vec![];
    for count in 0..=patches.len() {
        let patched = patched(file, name, shapes, patches.get(..count).unwrap_or_default(), &mut values);
        match patched {
            Ok(values) if values.iter().all(|value| value.is_finite()) => (),
            Ok(_) => {
                let patch = count.checked_sub(1).and_then(|last| patches.get(last));
                let of_file = Unfit::Packed(PackError::NotFinite);
                return patch.map_or(of_file, |patch| Unfit::Other(patch.not_finite(name)));
            }
            Err(unfit) => return unfit,
        }
    }
    Unfit::Packed(PackError::NotFinite)
}

/// Weights on their way, of a file or made up.
struct Stored<'a> {
    dtype: WeightDtype,
    bytes: Cow<'a, [u8]>,
}

fn finite(weights: Weights<'_>) -> Result<Weights<'_>, Unfit> {
    if weights.all_finite() { Ok(weights) } else { Err(Unfit::Packed(PackError::NotFinite)) }
}

/// The shape of these that a file's tensor has. Formats that do not keep leading sizes of 1 do not change what it is.
fn fitting(file: &Tensors, name: &str, shapes: &[Vec<usize>]) -> Result<Vec<usize>, Unfit> {
    let found = file.shape(name).ok_or(Unfit::Shape(None))?;
    let exact = shapes.iter().find(|shape| *shape == found);
    let alike = || shapes.iter().find(|shape| without_leading_ones(shape) == without_leading_ones(found));
    exact.or_else(alike).cloned().ok_or_else(|| Unfit::Shape(Some(found.to_vec())))
}

fn without_leading_ones(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|size| **size == 1).count();
    shape.get(ones..).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::from_bytes;
    use crate::nn::backend::dry_run::dry_run;

    /// For each name that is told all of the file's are looked at: for each that is missing it would take hours.
    #[test]
    fn of_all_that_is_missing_a_few_are_told_as_the_file_would_call_them() {
        const COUNT: usize = 30_000;
        let names = (0..COUNT).map(|index| format!("decoder.up_blocks.0.other.{index}"));
        let tensors = names.chain(["decoder.conv_in.weight".to_owned()]);
        let entry = |name| format!(r#""{name}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#);
        let header = format!("{{{}}}", tensors.map(entry).collect::<Vec<_>>().join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let file = from_bytes("many", bytes).expect("sound");
        let (device, _) = dry_run();
        let loader = Loader::file(&file, &device, Precision::F32);
        for index in 0..COUNT {
            loader.vector(&format!("first_stage_model.decoder.mid.block_1.{index}"), 1).expect("noted");
        }
        let error = loader.finish(&[], |_| true).expect_err("all are missing").to_string();
        let first =
            "missing tensor decoder.mid_block.resnets.0.0 (first_stage_model.decoder.mid.block_1.0) [1]; ";
        assert!(error.contains(first) && error.ends_with("; and 29992 more"), "{error}");
    }
}
