//! A file of the LoRA family, matched to a model.

use std::collections::BTreeMap;
use std::fmt;

use super::boft::Boft;
use super::change::{Added, Change, Delta, Sizes, scale};
use super::dora::{Axis, Dora};
use super::family::{family, of_context_width};
use super::full::Full;
use super::glora::Glora;
use super::ia3::Ia3;
use super::keys::{Key, Role};
use super::loha::{Factor, Loha};
use super::lokr::{Lokr, Side};
use super::lora::Lora;
use super::oft::Oft;
use super::peft::PeftConfig;
use super::source::Stored;
use super::targets::{Network, Targets};
use crate::files::Tensors;
use crate::{Error, Result};

/// A file of the LoRA family as it changes a model. Its numbers are read when they are applied.
pub struct Adapter {
    pub(super) file: Tensors,
    /// By the tensor that they change, by LDM's name with its prefix.
    pub(super) changes: BTreeMap<String, Matched>,
    unapplied: Option<Unapplied>,
}

/// A change and what it is of.
pub(super) struct Matched {
    pub network: Network,
    pub change: Box<dyn Change>,
    /// Of what it changes: of an inpainting model's first convolution the part that every model has.
    pub sizes: Sizes,
    /// Whether that is all of the tensor.
    pub whole: bool,
}

/// What of a file is not applied to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unapplied {
    /// Tensors that are not.
    pub count: usize,
    /// Tensors that the file has.
    pub of: usize,
    /// The first of those that are not.
    pub first: String,
    /// Its shape and the model's, if those differ: nothing of the file is applied then.
    pub shapes: Option<String>,
    /// The family that the file is for, where that is another than the model's.
    pub family: Option<&'static str>,
}

impl fmt::Display for Unapplied {
    /// The rest of a sentence whose subject is the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, of, first, shapes, family } = self;
        if let Some(family) = family {
            write!(f, "is for {family} and ")?;
        }
        match shapes {
            Some(shapes) => write!(
                f,
                "was left out: {count} of its {of} tensors do not fit this model, the first {first} ({shapes})"
            ),
            None if count == of => write!(
                f,
                "was left out: this model has no place for any of its {of} tensors, the first {first}"
            ),
            None => write!(
                f,
                "was applied in part: this model has no place for {count} of its {of} tensors, the first {first}"
            ),
        }
    }
}

/// The tensors of a layer.
#[derive(Default)]
struct Layer {
    parts: BTreeMap<Role, Stored>,
    /// By diffusers' name, as far as the file has it.
    dotted: String,
}

/// A channel more for the mask and four more for the picture beneath it are what an inpainting model sees.
const INPAINTING: (usize, usize) = (9, 4);

impl Adapter {
    /// Matches a file to a model, by names and shapes. `dynamic` uses so many ranks of each LoRA in it; `config` is the text of
    /// the `adapter_config.json` that PEFT saved beside the file, which has the alpha that such a file lacks.
    ///
    /// # Errors
    /// If the file is broken: a half is missing, ranks differ, alpha is no number, or two tensors are of one place. What
    /// it has for other models than this one is no error: see [`Self::unapplied`].
    pub fn of(
        file: Tensors,
        targets: &Targets,
        dynamic: Option<usize>,
        config: Option<&str>,
    ) -> Result<Self> {
        let config = PeftConfig::of(&file, config);
        let mut layers: BTreeMap<(Network, String), Layer> = BTreeMap::new();
        let mut unmatched = vec![];
        for name in file.names() {
            let place = Key::of(name).and_then(|key| {
                let joined = key.joined();
                let (network, layer) = targets.layer(key.network, &joined)?;
                Some((key, network, layer.to_owned()))
            });
            let Some((key, network, layer)) = place else {
                unmatched.push(name);
                continue;
            };
            let stored =
                Stored { name: name.to_owned(), shape: file.shape(name).unwrap_or_default().to_vec() };
            let group = layers.entry((network, layer)).or_default();
            key.layer.clone_into(&mut group.dotted);
            if let Some(other) = group.parts.insert(key.role, stored) {
                let reason =
                    format!("tensors {} and {name} are for the same place; one of them must go", other.name);
                return Err(Error::model(file.path(), reason));
            }
        }
        let of = file.names().count();
        if of == 0 {
            return Err(Error::model(file.path(), "holds no tensors; copy or download it again"));
        }
        let mut found =
            Found { file: &file, targets, changes: BTreeMap::new(), unmatched: vec![], misfits: vec![] };
        for ((network, layer), group) in &layers {
            let peft = |rank| config.scale(*network, &group.dotted, rank);
            found.layer(*network, layer, &group.parts, &peft, dynamic)?;
        }
        let Found { mut changes, unmatched: more, misfits, .. } = found;
        unmatched.extend(more.iter().map(|stored| stored.name.as_str()));
        unmatched.sort_unstable();
        let other_family =
            || family(&file).filter(|name| targets.context_width().and_then(of_context_width) != Some(name));
        let unapplied = if let Some((first, shapes, _)) = misfits.first() {
            changes.clear();
            Some(Unapplied {
                count: misfits.iter().map(|(_, _, count)| count).sum(),
                of,
                first: first.name.clone(),
                shapes: Some(shapes.clone()),
                family: other_family(),
            })
        } else {
            unmatched.first().map(|first| Unapplied {
                count: unmatched.len(),
                of,
                first: (*first).to_owned(),
                shapes: None,
                family: other_family().filter(|_| unmatched.len() * 2 > of || changes.is_empty()),
            })
        };
        Ok(Self { file, changes, unapplied })
    }

    /// What of the file does not change this model, if anything.
    pub fn unapplied(&self) -> Option<&Unapplied> {
        self.unapplied.as_ref()
    }

    /// Whether it changes a network of the model at all.
    pub fn changes(&self, network: Network) -> bool {
        self.changes.values().any(|matched| matched.network == network)
    }

    /// The tensors that it changes, by LDM's names with their prefixes, sorted.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.changes.keys().map(String::as_str)
    }
}

/// What is found while a file is matched.
struct Found<'a> {
    file: &'a Tensors,
    targets: &'a Targets,
    changes: BTreeMap<String, Matched>,
    /// Tensors of layers that have no such tensor.
    unmatched: Vec<Stored>,
    /// Layers of other sizes: one of their tensors, both shapes, and how many tensors they have.
    misfits: Vec<(Stored, String, usize)>,
}

impl Found<'_> {
    /// Takes in the tensors of one layer.
    fn layer(
        &mut self,
        network: Network,
        layer: &str,
        parts: &BTreeMap<Role, Stored>,
        peft: &dyn Fn(usize) -> Option<f32>,
        dynamic: Option<usize>,
    ) -> Result<()> {
        let weight = format!("{layer}.weight");
        let outputs =
            self.targets.shape(&weight).and_then(|shape| shape.first()).copied().unwrap_or_default();
        let first = parts.values().next().map_or_else(String::new, |stored| stored.name.clone());
        let mut build =
            Build { file: self.file, parts: parts.clone(), unused: vec![], first, peft, dynamic, outputs };
        for (role, tensor) in
            [(Role::DiffBias, "bias"), (Role::NormBias, "bias"), (Role::NormWeight, "weight")]
        {
            if let Some(difference) = build.parts.remove(&role) {
                let change = Added(Box::new(Full { difference: difference.clone(), scale: 1.0 }));
                self.take(network, &format!("{layer}.{tensor}"), Box::new(change), &[difference])?;
            }
        }
        let of: Vec<Stored> = build.parts.values().cloned().collect();
        let Some(change) = build.change()? else {
            self.unmatched.extend(of);
            return Ok(());
        };
        let of: Vec<Stored> = of.into_iter().filter(|stored| !build.unused.contains(stored)).collect();
        self.unmatched.append(&mut build.unused);
        self.take(network, &weight, change, &of)
    }

    /// Takes in the change of one tensor, made of these of the file's, of which the first is told if it does not fit.
    fn take(&mut self, network: Network, tensor: &str, change: Box<dyn Change>, of: &[Stored]) -> Result<()> {
        let (Some(shape), Some(first)) = (self.targets.shape(tensor), of.first()) else {
            self.unmatched.extend_from_slice(of);
            return Ok(());
        };
        let own = Sizes::of(shape);
        let part = Some(Sizes { inputs: INPAINTING.1, ..own }).filter(|_| own.inputs == INPAINTING.0);
        let fitting = [Some(own), part].into_iter().flatten().find(|sizes| change.fits(*sizes));
        let Some(sizes) = fitting else {
            let shapes = format!("{}, the model's is {shape:?}", change.told());
            self.misfits.push((first.clone(), shapes, of.len()));
            return Ok(());
        };
        if self
            .changes
            .insert(tensor.to_owned(), Matched { network, change, sizes, whole: sizes == own })
            .is_some()
        {
            let reason = format!("has two changes of {tensor}, one of them {}; use another file", first.name);
            return Err(Error::model(self.file.path(), reason));
        }
        Ok(())
    }
}

/// Puts the tensors of a layer together.
struct Build<'a> {
    file: &'a Tensors,
    parts: BTreeMap<Role, Stored>,
    /// Those that belong to nothing.
    unused: Vec<Stored>,
    /// The name of one of them.
    first: String,
    /// What PEFT's configuration says for a rank.
    peft: &'a dyn Fn(usize) -> Option<f32>,
    dynamic: Option<usize>,
    outputs: usize,
}

impl Build<'_> {
    /// The change of the layer's weights; `None` if its tensors are of no kind that is known.
    fn change(&mut self) -> Result<Option<Box<dyn Change>>> {
        let alpha = self.number(Role::Alpha)?;
        let scale = self.number(Role::Scale)?;
        if let Some(on_input) = self.number(Role::OnInput)? {
            let change = Ia3 { factors: self.take(Role::Weight)?, on_input: on_input != 0.0 };
            return self.whole(Box::new(change)).map(Some);
        }
        // Weights alone are nobody's.
        self.unused.extend(self.parts.remove(&Role::Weight));
        if self.has(Role::OftDiag) || self.has(Role::OftBlocks) {
            let is_rotation = self.has(Role::OftDiag);
            let blocks = self.take(if is_rotation { Role::OftDiag } else { Role::OftBlocks })?;
            let rescale = self.parts.remove(&Role::Rescale);
            let constraint = alpha;
            let change: Box<dyn Change> = if blocks.shape.len() == 4 {
                Box::new(Boft { blocks, constraint, rescale })
            } else {
                Box::new(Oft { blocks, is_rotation, constraint, rescale })
            };
            return self.whole(change).map(Some);
        }
        if [Role::GloraA1, Role::GloraA2, Role::GloraB1, Role::GloraB2].iter().any(|role| self.has(*role)) {
            let parts = [
                self.take(Role::GloraA1)?,
                self.take(Role::GloraA2)?,
                self.take(Role::GloraB1)?,
                self.take(Role::GloraB2)?,
            ];
            let change = Glora::new(self.file, parts, alpha, self.outputs)?;
            return self.whole(Box::new(change)).map(Some);
        }
        let Some(delta) = self.delta(alpha, scale)? else { return Ok(None) };
        let per_output = self.parts.remove(&Role::Magnitude).map(|magnitude| (magnitude, Axis::Outputs));
        let of_lycoris = || {
            let magnitude = self.parts.remove(&Role::DoraScale)?;
            let axis = Axis::of_lycoris(&magnitude);
            Some((magnitude, axis))
        };
        let change: Box<dyn Change> = match per_output.or_else(of_lycoris) {
            Some((magnitude, axis)) => Box::new(Dora { delta, magnitude, axis }),
            None => Box::new(Added(delta)),
        };
        self.whole(change).map(Some)
    }

    /// The kinds that are sums.
    fn delta(&mut self, alpha: Option<f32>, scale_of: Option<f32>) -> Result<Option<Box<dyn Delta>>> {
        let file = self.file;
        if self.has(Role::Up) || self.has(Role::Down) || self.has(Role::Mid) {
            let (up, down) = (self.take(Role::Up)?, self.take(Role::Down)?);
            let rank = down.size(0);
            let scale = match (scale_of, alpha) {
                (None, None) => (self.peft)(rank).unwrap_or(1.0),
                _ => scale(scale_of, alpha, rank),
            };
            let mid = self.parts.remove(&Role::Mid);
            return Ok(Some(Box::new(Lora::new(file, (up, down, mid), scale, self.dynamic)?)));
        }
        if [Role::Hada1A, Role::Hada1B, Role::Hada2A, Role::Hada2B].iter().any(|role| self.has(*role)) {
            let mut factor = |a, b, t| {
                let t = self.parts.remove(&t);
                Ok::<_, Error>(Factor { a: self.take(a)?, b: self.take(b)?, t })
            };
            let factors = [
                factor(Role::Hada1A, Role::Hada1B, Role::HadaT1)?,
                factor(Role::Hada2A, Role::Hada2B, Role::HadaT2)?,
            ];
            let scale = scale(scale_of, alpha, factors[0].rank());
            return Ok(Some(Box::new(Loha::new(file, factors, scale)?)));
        }
        let of_kron = [Role::Kron1, Role::Kron1A, Role::Kron1B, Role::Kron2, Role::Kron2A, Role::Kron2B];
        if of_kron.iter().any(|role| self.has(*role)) {
            let mut side = |whole, a, b, t: Option<Role>| {
                if let Some(whole) = self.parts.remove(&whole) {
                    return Ok::<_, Error>(Side::Whole(whole));
                }
                let t = t.and_then(|t| self.parts.remove(&t));
                Ok(Side::Factored(Factor { a: self.take(a)?, b: self.take(b)?, t }))
            };
            let first = side(Role::Kron1, Role::Kron1A, Role::Kron1B, None)?;
            let second = side(Role::Kron2, Role::Kron2A, Role::Kron2B, Some(Role::KronT2))?;
            let rank = first.rank().or(second.rank());
            let scale = scale(scale_of, alpha.filter(|_| rank.is_some()), rank.unwrap_or(1));
            return Ok(Some(Box::new(Lokr::new(file, first, second, scale)?)));
        }
        if self.has(Role::Diff) {
            let difference = self.take(Role::Diff)?;
            return Ok(Some(Box::new(Full { difference, scale: scale_of.unwrap_or(1.0) })));
        }
        Ok(None)
    }

    fn has(&self, role: Role) -> bool {
        self.parts.contains_key(&role)
    }

    /// A part that must be there.
    fn take(&mut self, role: Role) -> Result<Stored> {
        self.parts.remove(&role).ok_or_else(|| {
            let reason = format!("has {} without {}; copy or download it again", self.first, role.name());
            Error::model(self.file.path(), reason)
        })
    }

    /// All parts were used.
    fn whole(&self, change: Box<dyn Change>) -> Result<Box<dyn Change>> {
        match self.parts.values().next() {
            None => Ok(change),
            Some(more) => {
                let reason = format!("has tensor {} beside others that it does not go with", more.name);
                Err(Error::model(self.file.path(), reason))
            }
        }
    }

    /// A part that is one number; an error if it is none.
    fn number(&mut self, role: Role) -> Result<Option<f32>> {
        let Some(stored) = self.parts.remove(&role) else { return Ok(None) };
        let reason =
            || format!("tensor {} {:?} is not one number; use another file", stored.name, stored.shape);
        if stored.count() != 1 {
            return Err(Error::model(self.file.path(), reason()));
        }
        // Counts are whole numbers in some files.
        let value = match self.file.weight_dtype(&stored.name) {
            Ok(_) => stored.read(self.file)?.first().copied(),
            Err(_) => stored.integer(self.file)?.map(|value| value as f32),
        };
        value.map(Some).ok_or_else(|| Error::model(self.file.path(), reason()))
    }
}
