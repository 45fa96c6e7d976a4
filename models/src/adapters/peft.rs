//! What PEFT writes beside its tensors: alpha is no tensor there, but a number in the configuration, which diffusers puts
//! into the file's metadata, and PEFT itself into a file beside it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::targets::Network;
use crate::files::Tensors;

/// Where diffusers puts it.
const METADATA: &str = "lora_adapter_metadata";

/// Bytes of a configuration that are read.
const LONGEST: usize = 4 << 20;

/// The scales of a file's layers.
#[derive(Default)]
pub(super) struct PeftConfig {
    networks: BTreeMap<Network, Scales>,
}

/// Those of one network.
#[derive(Default)]
struct Scales {
    alpha: Option<f64>,
    /// By layer, or the end of its name.
    alphas: Vec<(String, f64)>,
    /// Alpha is divided by the rank's root (Kalajdzievski 2023).
    by_root: bool,
}

impl PeftConfig {
    /// What the file says, or `beside`, the text of the configuration that PEFT saved with it. What cannot be read says
    /// nothing.
    pub(super) fn of(file: &Tensors, beside: Option<&str>) -> Self {
        if let Some(config) = beside.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok()) {
            let scales = || Scales::of(|key| config.get(key));
            // It does not say of which network it is; the file's names do.
            return Self { networks: [(Network::UNet, scales()), (Network::Text, scales())].into() };
        }
        let text = file.metadata().get(METADATA).filter(|text| text.len() <= LONGEST);
        let config = text.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        let Some(config) = config else { return Self::default() };
        let prefixes = [("unet.", Network::UNet), ("text_encoder.", Network::Text)];
        let of = |(prefix, network): (&str, Network)| {
            (network, Scales::of(|key| config.get(&format!("{prefix}{key}"))))
        };
        Self { networks: prefixes.map(of).into() }
    }

    /// What the product of a layer of this rank is multiplied by, if the configuration says so. `layer` is diffusers' name.
    pub(super) fn scale(&self, network: Network, layer: &str, rank: usize) -> Option<f32> {
        let Scales { alpha, alphas, by_root } = self.networks.get(&network)?;
        let is = |name: &str| {
            layer.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let own = alphas.iter().find(|(name, _)| is(name.trim_start_matches('^').trim_end_matches('$')));
        let alpha = own.map(|(_, alpha)| *alpha).or(*alpha)?;
        let rank = rank.max(1) as f64;
        Some((alpha / if *by_root { rank.sqrt() } else { rank }) as f32)
    }
}

impl Scales {
    /// Of what a configuration says.
    fn of<'a>(value: impl Fn(&str) -> Option<&'a Value>) -> Self {
        let pattern = value("alpha_pattern").and_then(Value::as_object).into_iter().flatten();
        Self {
            alpha: value("lora_alpha").and_then(Value::as_f64),
            alphas: pattern.filter_map(|(name, alpha)| Some((name.clone(), alpha.as_f64()?))).collect(),
            by_root: value("use_rslora").and_then(Value::as_bool).unwrap_or_default(),
        }
    }
}
