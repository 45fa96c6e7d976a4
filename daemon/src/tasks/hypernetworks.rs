//! The hypernetworks of a request: from `<hypernet:…>` in its prompt to transforms of keys and values.

use std::sync::Arc;

use latentd_client::protocol::LibraryKind;
use latentd_models::adapters::Hypernetwork;
use latentd_models::prompt::{NamedNetwork, Wording};

use super::loras::{number, tell_unknown};
use super::notices::Notices;
use crate::error::{Class, Error, Result};
use crate::library::Library;
use crate::memory::{HypernetworkWish, Known};
use crate::schema::shorten;

/// What a prompt calls it.
const KIND: &str = "hypernet";

/// Those that one request may have.
const MOST: usize = 20;

/// Those of a request that do something, in order, each with its place among the prompt's networks.
#[derive(Clone, Default)]
pub(super) struct Hypernetworks {
    places: Vec<usize>,
    pub wishes: Vec<HypernetworkWish>,
}

/// Whether it is for this file to apply.
pub(super) fn is_hypernetwork(network: &NamedNetwork) -> bool {
    network.kind == KIND
}

impl Hypernetworks {
    /// Finds the files. What is not there or not for this model is told and left out.
    pub(super) fn resolve(
        prompt: &Wording,
        known: &Known,
        library: &Library,
        notices: &mut Notices,
    ) -> Result<Self> {
        let mut found = Self::default();
        for (place, network) in prompt.networks.iter().enumerate().filter(|(_, of)| is_hypernetwork(of)) {
            tell_unknown(network, &[], 2, notices)?;
            let strength = network.positional.get(1).map_or(Ok(1.0), |text| number(text));
            let strength = match strength {
                Ok(strength) => strength as f32,
                Err(why) => {
                    let text = format!("{}: {why}; it was left out", shorten(&network.written));
                    notices.not_applied(Class::InvalidParams, text)?;
                    continue;
                }
            };
            let file = match library.pin_addon(LibraryKind::Hypernetwork, network.name()) {
                Ok(file) => file,
                Err(error) => {
                    notices.not_applied(error.class, format!("{}; it was left out", error.text))?;
                    continue;
                }
            };
            let hypernetwork = Hypernetwork::of(&file.tensors()?)?;
            let (own, attended): (Vec<usize>, _) =
                (hypernetwork.widths().collect(), known.targets().attended_widths());
            if !own.iter().any(|width| attended.contains(width)) {
                let text = format!(
                    "hypernetwork '{}' is for another model: it changes tokens of the widths {own:?}, this model's have \
                     {attended:?}; it was left out",
                    shorten(network.name())
                );
                notices.not_applied(Class::Model, text)?;
                continue;
            }
            if strength != 0.0 {
                found.places.push(place);
                found.wishes.push(HypernetworkWish { file, network: Arc::new(hypernetwork), strength });
            }
            if found.places.len() > MOST {
                let text = format!("more than {MOST} hypernetworks; so many can be applied at once");
                return Err(Error::invalid(text));
            }
        }
        Ok(found)
    }

    /// Whether one of the prompt's networks is among them.
    pub(super) fn has(&self, place: usize) -> bool {
        self.places.contains(&place)
    }

    /// The last one: which of the prompt's networks it is, its name and its strength.
    pub(super) fn last(&self) -> Option<(usize, String, f32)> {
        let (place, wish) = self.places.last().zip(self.wishes.last())?;
        Some((*place, wish.file.item().name.clone(), wish.strength))
    }
}
