//! What the parts of a model are called in the files that change them.

use std::collections::{BTreeMap, HashMap};

use crate::files::{CLIP, Layout, Names, UNET};

/// Which network of a model an add-on changes. It has a strength for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The text encoder.
    Text,
    /// The UNet.
    UNet,
}

/// The layers of a model by all the names that they have elsewhere, and the shapes of their tensors.
pub struct Targets {
    /// By LDM's name with its prefix.
    shapes: BTreeMap<String, Vec<usize>>,
    text: Layers,
    unet: Layers,
}

/// From a layer's name, `_` for each `.`, to its name in LDM's layout with the prefix.
type Layers = HashMap<String, String>;

impl Targets {
    /// Those of a model whose text encoder and UNet have these tensors, by LDM's names with their prefixes; others are
    /// left out.
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        let is_of = |name: &str| name.starts_with(CLIP) || name.starts_with(UNET);
        let shapes: BTreeMap<_, _> = tensors.into_iter().filter(|(name, _)| is_of(name)).collect();
        let of_unet = || shapes.keys().filter_map(|name| name.strip_prefix(UNET));
        let in_diffusers = Names::of_unet(Layout::Diffusers, of_unet());
        let (mut text, mut unet) = (Layers::new(), Layers::new());
        for name in of_unet() {
            let Some(layer) = layer(name) else { continue };
            let diffusers = in_diffusers.translated(name);
            for alias in [Some(layer), self::layer(&diffusers)].into_iter().flatten() {
                let alias = joined(alias);
                // As diffusers' attention processors call it.
                if let Some(short) = alias.strip_suffix("_to_out_0") {
                    unet.insert(format!("{short}_to_out"), format!("{UNET}{layer}"));
                }
                unet.insert(alias, format!("{UNET}{layer}"));
            }
        }
        for layer in shapes.keys().filter_map(|name| self::layer(name.strip_prefix(CLIP)?)) {
            let alias = joined(layer);
            // transformers leaves the beginning away since version 5; LDM has it.
            for beginning in ["", "text_model_", "transformer_text_model_"] {
                text.insert(format!("{beginning}{alias}"), format!("{CLIP}{layer}"));
            }
        }
        Self { shapes, text, unet }
    }

    /// The layer that a file calls so; of either network, the UNet first, if it does not say which.
    pub(super) fn layer(&self, network: Option<Network>, name: &str) -> Option<(Network, &str)> {
        let of_unet = || self.unet.get(name).map(|layer| (Network::UNet, layer.as_str()));
        let of_text = || {
            let found = self.text.get(name).or_else(|| self.text.get(&of_processor(name)?));
            found.map(|layer| (Network::Text, layer.as_str()))
        };
        match network {
            Some(Network::UNet) => of_unet(),
            Some(Network::Text) => of_text(),
            None => of_unet().or_else(of_text),
        }
    }

    /// The shape of a tensor, by LDM's name with its prefix.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// The width of the text encoder's tokens: what an embedding's vectors must have.
    pub fn token_width(&self) -> usize {
        let table = self.shape(&format!("{CLIP}embeddings.token_embedding.weight"));
        table.and_then(|shape| shape.get(1)).copied().unwrap_or_default()
    }

    /// The widths of the tokens that the UNet's attentions make keys and values of, each once.
    pub fn attended_widths(&self) -> Vec<usize> {
        let keys = self.shapes.iter().filter(|(name, _)| name.ends_with(".to_k.weight"));
        let mut widths: Vec<usize> = keys.filter_map(|(_, shape)| shape.get(1).copied()).collect();
        widths.sort_unstable();
        widths.dedup();
        widths
    }

    /// The width of the conditioning that the UNet attends to, if it attends.
    pub fn context_width(&self) -> Option<usize> {
        let keys = self.shapes.iter().find(|(name, _)| name.ends_with("attn2.to_k.weight"))?;
        keys.1.get(1).copied()
    }
}

/// A layer's name, of a tensor's.
fn layer(tensor: &str) -> Option<&str> {
    tensor.strip_suffix(".weight").or_else(|| tensor.strip_suffix(".bias"))
}

/// As files of kohya's manner write it.
pub(super) fn joined(name: &str) -> String {
    name.replace('.', "_")
}

/// CLIP's own name of what old diffusers called as in its UNet.
fn of_processor(name: &str) -> Option<String> {
    let parts = [("to_q", "q_proj"), ("to_k", "k_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")];
    parts.iter().find_map(|(own, clip)| Some(format!("{}{clip}", name.strip_suffix(own)?)))
}
