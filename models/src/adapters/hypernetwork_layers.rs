//! A hypernetwork's layers, from the names and shapes of its tensors and what its file says of itself. Dropout and
//! activations have places in the names and no tensors.

use std::collections::{BTreeMap, BTreeSet};

use latentd_kernels::WeightDtype;

use crate::Error;
use crate::files::Tensors;
use crate::nn::Pointwise;

/// Layers of a network; A1111's interface allows no such number.
const MOST_LAYERS: usize = 64;

/// Outputs of a layer: no more than a width can be multiplied to without taking gigabytes.
const WIDEST: usize = 1 << 16;

/// A linear layer, and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LayerPlan {
    /// Of its tensors, `{name}.weight` and `{name}.bias`.
    pub name: String,
    pub inputs: usize,
    pub outputs: usize,
    /// Of its weights, as they are stored.
    pub dtype: WeightDtype,
    pub activation: Option<Pointwise>,
    /// Of a layer norm's tensors, after the activation.
    pub norm: Option<String>,
}

/// What a file says of its networks.
pub(super) struct About {
    /// Widths after each layer, and before the first, as multiples of the tokens'.
    structure: Option<Vec<f64>>,
    activation: Option<Pointwise>,
    /// Whether an activation follows the last layer too.
    activate_output: bool,
    layer_norm: Option<bool>,
}

impl About {
    /// Reads A1111's keys; what is missing is as in files from before there was such a key.
    pub(super) fn of(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        let get = |key: &str| metadata.get(key).map(|text| text.trim());
        let flag = |key: &str| match get(key) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("says that its {key} is '{other}', which is neither true nor false")),
        };
        let structure =
            get("layer_structure").map(|text| {
                let numbers = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let numbers = numbers.map(|rest| rest.split(',').map(|number| number.trim().parse().ok()));
                let numbers: Option<Vec<f64>> = numbers.and_then(Iterator::collect);
                let ends_with_1 =
                    |of: &&Vec<f64>| of.first() == Some(&1.0) && of.last() == Some(&1.0) && of.len() > 1;
                numbers.as_ref().filter(ends_with_1).cloned().ok_or_else(|| {
                    format!("says that its layer_structure is {text}; it begins and ends with 1")
                })
            });
        Ok(Self {
            structure: structure.transpose()?,
            activation: get("activation_func").map_or(Ok(None), activation)?,
            activate_output: flag("activate_output")?.unwrap_or(true),
            layer_norm: flag("is_layer_norm")?,
        })
    }
}

/// An activation by A1111's name: its own few, or a class of `torch.nn` in lower case.
fn activation(name: &str) -> Result<Option<Pointwise>, String> {
    use Pointwise as P;
    Ok(Some(match name {
        "linear" => return Ok(None),
        "relu" => P::Relu,
        "relu6" => P::Relu6,
        "leakyrelu" => P::LeakyRelu,
        "rrelu" => P::RandomRelu,
        "elu" | "celu" => P::Elu,
        "selu" => P::Selu,
        "gelu" => P::Gelu,
        "silu" => P::Silu,
        "mish" => P::Mish,
        "softplus" => P::Softplus,
        "softsign" => P::Softsign,
        "sigmoid" => P::Sigmoid,
        "logsigmoid" => P::LogSigmoid,
        "tanh" => P::Tanh,
        "tanhshrink" => P::Tanhshrink,
        "hardtanh" => P::Hardtanh,
        "hardsigmoid" => P::Hardsigmoid,
        // A1111 calls it so.
        "hardswish" | "swish" => P::Hardswish,
        "hardshrink" => P::Hardshrink,
        "softshrink" => P::Softshrink,
        _ => return Err(format!("has the activation '{name}', which this version does not know")),
    }))
}

/// The layers of the network under `prefix`, for tokens of `width`; what is wrong with them.
pub(super) fn plan(
    file: &Tensors,
    prefix: &str,
    width: usize,
    about: &About,
) -> Result<Vec<LayerPlan>, String> {
    let modules = modules(file, prefix)?;
    let mut layers: Vec<LayerPlan> = vec![];
    let mut inputs = width;
    for name in &modules {
        let weight = format!("{name}.weight");
        match (file.shape(&weight), layers.last_mut()) {
            (Some(&[outputs, found]), _) if found == inputs && (1..=WIDEST).contains(&outputs) => {
                let dtype = stored_dtype(file, &weight)?;
                bias(file, name, outputs)?;
                layers.push(LayerPlan {
                    name: name.clone(),
                    inputs,
                    outputs,
                    dtype,
                    activation: about.activation,
                    norm: None,
                });
                inputs = outputs;
            }
            (Some(&[length]), Some(layer)) if length == inputs && layer.norm.is_none() => {
                stored_dtype(file, &weight)?;
                bias(file, name, length)?;
                layer.norm = Some(name.clone());
            }
            (Some(shape), _) => return Err(format!("tensor {weight} is {shape:?}, after {inputs} numbers")),
            (None, _) => return Err(format!("missing tensor {weight}")),
        }
    }
    if let Some(last) = layers.last_mut().filter(|_| !about.activate_output) {
        last.activation = None;
    }
    agree(prefix, width, about, &layers)?;
    Ok(layers)
}

/// The names of the modules that have tensors, in their order.
fn modules(file: &Tensors, prefix: &str) -> Result<Vec<String>, String> {
    let mut places = BTreeSet::new();
    for name in file.names().filter(|name| name.starts_with(prefix)) {
        let known = name.strip_prefix(prefix).and_then(|rest| {
            let (module, what) = rest.rsplit_once('.')?;
            // The first hypernetworks called their two layers linear1 and linear2.
            let place = module.strip_prefix("linear.").or_else(|| module.strip_prefix("linear"))?;
            let place: usize = place.parse().ok()?;
            matches!(what, "weight" | "bias").then(|| (place, format!("{prefix}{module}")))
        });
        places.insert(known.ok_or_else(|| format!("tensor {name} is of no layer that is known"))?);
    }
    if places.is_empty() || places.len() > MOST_LAYERS {
        let count = places.len();
        return Err(format!("has {count} layers under {prefix}; 1 to {MOST_LAYERS} are possible"));
    }
    Ok(places.into_iter().map(|(_, name)| name).collect())
}

fn bias(file: &Tensors, name: &str, length: usize) -> Result<(), String> {
    let name = format!("{name}.bias");
    match file.shape(&name) {
        Some(shape) if *shape == [length] => stored_dtype(file, &name).map(drop),
        Some(shape) => Err(format!("tensor {name} is {shape:?}, [{length}] is needed")),
        None => Err(format!("missing tensor {name}")),
    }
}

/// That the tensors are those that the file says.
fn agree(prefix: &str, width: usize, about: &About, layers: &[LayerPlan]) -> Result<(), String> {
    let found: Vec<usize> = layers.iter().map(|layer| layer.outputs).collect();
    if found.last() != Some(&width) {
        return Err(format!("the layers under {prefix} give {found:?} numbers; the last gives {width}"));
    }
    if let Some(structure) = &about.structure {
        // As Python's int() cuts it.
        let said: Vec<usize> =
            structure.iter().skip(1).map(|factor| (width as f64 * factor) as usize).collect();
        if said != found {
            return Err(format!(
                "the layers under {prefix} give {found:?} numbers, but by its layer_structure {said:?}"
            ));
        }
    }
    let wanted = about.layer_norm.unwrap_or_else(|| layers.iter().any(|layer| layer.norm.is_some()));
    match layers.iter().find(|layer| layer.norm.is_some() != wanted) {
        Some(LayerPlan { name, .. }) if wanted => {
            Err(format!("no layer norm follows {name}; others have one"))
        }
        Some(LayerPlan { name, .. }) => {
            Err(format!("a layer norm follows {name}, but by its is_layer_norm there is none"))
        }
        None => Ok(()),
    }
}

/// How a tensor is stored, for what it will take.
fn stored_dtype(file: &Tensors, name: &str) -> Result<WeightDtype, String> {
    file.weight_dtype(name).map_err(|error| match error {
        Error::Model { reason, .. } => reason,
        other => other.to_string(),
    })
}
