//! ControlNets whose files say by what their weights differ from those of a checkpoint's UNet: files with `difference`, as
//! sd-webui-controlnet adds them, and `ControlLoRA`s (Stability AI 2023), whose `lora_controlnet` have products of narrow matrices
//! and leave out what stays as it is.
//!
//! What is added to is the UNet as a job's patches leave it.

use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_kernels::PackError;

use crate::error::{Error, Result, bail};
use crate::files::{CONTROL, Compute, Tensors, UNET, computed};
use crate::nn::{LowRank, Patch};

/// How a file tells its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// As they are.
    Whole,
    /// By what is added to the UNet's tensors of the same names.
    Differences,
    /// `NAME.up` and `NAME.down`, whose product is added to the UNet's `NAME.weight`; tensors that are neither replace the UNet's,
    /// and what is missing is as there.
    Products,
}

/// Tensors that mark files that are not whole; what is in them is of no matter.
const MARKS: [(&str, Told); 2] = [("lora_controlnet", Told::Products), ("difference", Told::Differences)];

/// Begins the names of what no UNet has.
const OWN: [&str; 3] = ["input_hint_block.", "zero_convs.", "middle_block_out."];

/// Begins the names of what a UNet has and a ControlNet has a copy of.
const COPIED: [&str; 3] = ["time_embed.", "input_blocks.", "middle_block."];

impl Told {
    pub(super) fn of(file: &Tensors) -> Self {
        let is = |mark: &str| file.names().any(|name| name.strip_prefix(CONTROL).unwrap_or(name) == mark);
        MARKS.iter().find(|(mark, _)| is(mark)).map_or(Self::Whole, |(_, told)| *told)
    }

    /// Names and shapes of the tensors that the file tells, without elements.
    pub(super) fn outline(self, file: &Tensors) -> Result<Tensors> {
        Ok(computed(file.path(), self.shapes(file)?, Box::new(Outline)))
    }

    /// The whole weights over those of a checkpoint's UNet, each made as it is asked for.
    ///
    /// # Errors
    /// The UNet is none that they can be added to.
    pub(super) fn over(self, file: Tensors, base: Tensors, patches: &[Arc<dyn Patch>]) -> Result<Tensors> {
        let mut shapes = self.shapes(&file)?;
        for (name, shape) in &shapes {
            let rest = name.strip_prefix(CONTROL).unwrap_or(name);
            let is_added = match self {
                Self::Whole => false,
                Self::Differences => !OWN.iter().any(|own| rest.starts_with(own)),
                Self::Products => pair(&file, name).is_some() && file.shape(name).is_none(),
            };
            let there = base.shape(&format!("{UNET}{rest}"));
            if is_added && there.is_none_or(|there| !is_alike(there, shape)) {
                let there =
                    there.map_or_else(|| "is not there".to_owned(), |there| format!("is {there:?} there"));
                let (path, reason) = (file.path(), "is made over another UNet than that of");
                let text = format!(
                    "{reason} {}: {rest}, {shape:?}, {there}; draw with a checkpoint of the kind that it was made for",
                    base.path().display()
                );
                return Err(Error::model(path, text));
            }
        }
        if self == Self::Products {
            for (name, _) in base.names_under(UNET) {
                let rest = name.strip_prefix(UNET).unwrap_or(name);
                if let (true, Some(shape)) =
                    (COPIED.iter().any(|way| rest.starts_with(way)), base.shape(name))
                {
                    shapes.entry(format!("{CONTROL}{rest}")).or_insert_with(|| shape.to_vec());
                }
            }
        }
        let path = file.path().to_owned();
        let patches = patches.to_vec();
        Ok(computed(&path, shapes, Box::new(Over { told: self, file, base, patches })))
    }

    fn shapes(self, file: &Tensors) -> Result<BTreeMap<String, Vec<usize>>> {
        let mut shapes = BTreeMap::new();
        for (name, own) in file.names_under(CONTROL) {
            let rest = name.strip_prefix(CONTROL).unwrap_or(name);
            if MARKS.iter().any(|(mark, _)| *mark == rest) {
                continue;
            }
            let of_pair = name.strip_suffix(".up").or_else(|| name.strip_suffix(".down"));
            let Some(layer) = of_pair.filter(|_| self == Self::Products) else {
                shapes.insert(name.to_owned(), file.shape(name).unwrap_or_default().to_vec());
                continue;
            };
            let weight = format!("{layer}.weight");
            let refused = |reason: &str| {
                Error::model(file.path(), format!("tensor {own}: {layer}.up and {layer}.down {reason}"))
            };
            let Some(Pair { rank, shape, .. }) = pair(file, &weight) else {
                return Err(refused("are no two matrices of one product"));
            };
            // More would be no narrow ones, and take any memory for a small product.
            let inputs = shape.iter().skip(1).product::<usize>();
            if rank > shape.first().copied().unwrap_or_default().min(inputs) {
                return Err(refused(&format!("are {rank} wide, more than what they make, {shape:?}")));
            }
            let whole = file.shape(&weight);
            if whole.is_some_and(|whole| !is_alike(whole, &shape)) {
                return Err(refused(&format!("make {shape:?}, and {layer}.weight is {whole:?}")));
            }
            shapes.insert(weight, shape);
        }
        Ok(shapes)
    }
}

/// The two that make what is added to a weight.
struct Pair {
    up: String,
    down: String,
    rank: usize,
    /// Of what they make.
    shape: Vec<usize>,
}

fn pair(file: &Tensors, weight: &str) -> Option<Pair> {
    let layer = weight.strip_suffix(".weight")?;
    let [up, down] = ["up", "down"].map(|end| format!("{layer}.{end}"));
    let (&[outputs, ref ranks @ ..], &[rank, ref inputs @ ..]) = (file.shape(&up)?, file.shape(&down)?)
    else {
        return None;
    };
    let product = |sides: &[usize]| sides.iter().try_fold(1usize, |all, side| all.checked_mul(*side));
    let fits = rank > 0 && outputs > 0 && !inputs.is_empty() && product(ranks) == Some(rank);
    let shape: Vec<usize> = [outputs].iter().chain(inputs).copied().collect();
    (fits && product(&shape).is_some()).then_some(Pair { up, down, rank, shape })
}

/// Whether shapes are the same but for sides of 1 at their ends.
fn is_alike(one: &[usize], other: &[usize]) -> bool {
    let without_ones = |shape: &[usize]| {
        let count = shape.iter().rposition(|side| *side != 1).map_or(0, |last| last + 1);
        shape.get(..count).unwrap_or_default().to_vec()
    };
    without_ones(one) == without_ones(other)
}

/// Of files that are looked at before there is a checkpoint.
struct Outline;

impl Compute for Outline {
    fn values(&self, name: &str) -> Result<Vec<f32>> {
        bail!("{name} is made over a checkpoint's UNet")
    }
}

/// A file over a checkpoint's.
struct Over {
    told: Told,
    file: Tensors,
    base: Tensors,
    /// What the job does to the UNet.
    patches: Vec<Arc<dyn Patch>>,
}

impl Over {
    /// The UNet's tensor that a ControlNet's is a copy of.
    fn of_base(name: &str) -> String {
        format!("{UNET}{}", name.strip_prefix(CONTROL).unwrap_or(name))
    }

    /// That tensor as the patches leave it; `None` if there is none.
    fn base(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let name = Self::of_base(name);
        let (Some(shape), Some(mut values)) = (self.base.shape(&name), read(&self.base, &name)?) else {
            return Ok(None);
        };
        for patch in self.patches.iter().filter(|patch| patch.touches(&name)) {
            patch.apply(&name, shape, &mut values)?;
            if !are_finite(&values) {
                // Said of the patch, not of the ControlNet.
                return Err(patch.not_finite(&name));
            }
        }
        Ok(Some(values))
    }

    fn missing(&self, name: &str) -> Error {
        Error::model(self.file.path(), format!("missing tensor {name}"))
    }
}

impl Compute for Over {
    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let own = read(&self.file, name)?;
        if self.told == Told::Products {
            let mut values = match own {
                Some(own) => own,
                None => self.base(name)?.ok_or_else(|| self.missing(name))?,
            };
            if let Some(Pair { up, down, rank, .. }) = pair(&self.file, name) {
                let factor = |name: &str| read(&self.file, name)?.ok_or_else(|| self.missing(name));
                LowRank { rank, up: factor(&up)?, down: factor(&down)? }.add_to(&mut values)?;
            }
            return Ok(values);
        }
        let mut values = own.ok_or_else(|| self.missing(name))?;
        if let Some(base) = self.base(name)? {
            values.iter_mut().zip(base).for_each(|(value, base)| *value += base);
        }
        Ok(values)
    }

    fn let_go(&self, name: &str) {
        if let Some(Pair { up, down, .. }) = pair(&self.file, name) {
            self.file.let_go(&up);
            self.file.let_go(&down);
        }
        self.file.let_go(name);
        self.base.let_go(&Self::of_base(name));
    }

    fn check(&self) -> Result<()> {
        self.file.check_intact()?;
        self.base.check_intact()?;
        self.patches.iter().try_for_each(|patch| patch.check_intact())
    }
}

fn are_finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// All elements of a tensor, if there is one of that name.
///
/// # Errors
/// They are not finite: said here of the file that has them, for what is made of them has another's name.
fn read(file: &Tensors, name: &str) -> Result<Option<Vec<f32>>> {
    let (Some(shape), Some(elements)) = (file.shape(name), file.elements(name)?) else { return Ok(None) };
    let count: usize = shape.iter().product();
    let mut values = vec![];
    let refused = |_| Error::OutOfMemory { bytes: count as u64 * 4 };
    values.try_reserve_exact(count).map_err(refused)?;
    values.resize(count, 0.0);
    elements.read(0, &mut values)?;
    if !are_finite(&values) {
        return Err(Error::model(file.path(), format!("tensor {name} {}", PackError::NotFinite)));
    }
    Ok(Some(values))
}
