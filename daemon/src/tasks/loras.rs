//! The LoRAs of a request: from `<lora:…>` in its prompt and from its `loras` to patches of networks.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use latentd_client::protocol::{LibraryKind, LoraParams};
use latentd_models::adapters::{Adapter, Network, Scales};
use latentd_models::files::open_without_waiting;
use latentd_models::nn::Patch;
use latentd_models::prompt::{NamedNetwork, Wording};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::notices::Notices;
use super::tags::Tags;
use crate::error::{Class, Error, Result};
use crate::library::{Library, Pinned};
use crate::memory::{Changes, Known};
use crate::schema::shorten;

/// What a prompt calls it: A1111 takes both for the same.
const KINDS: [&str; 2] = ["lora", "lyco"];

/// What is known of its tag: arguments by name, and how many others, its own name first.
const NAMED: [&str; 3] = ["te", "unet", "dyn"];
const POSITIONAL: usize = 4;

/// Bytes of a configuration of PEFT's that are read.
const LONGEST_CONFIG: u64 = 1 << 20;

/// LoRAs that one request may have: each is a file that is held open.
const MOST: usize = 100;

/// A LoRA as a request asks for it.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    name: String,
    te: f64,
    unet: f64,
    dynamic: Option<usize>,
    /// Which of the prompt's networks it is; none of them if `None`.
    place: Option<usize>,
    /// Where its strength is another, and what tells that from other such.
    scales: (Scales, String),
}

/// One that changes something.
#[derive(Clone)]
struct Applied {
    wanted: Wanted,
    file: Arc<Pinned>,
}

/// Those of a request that change something, in order.
#[derive(Clone, Default)]
pub(super) struct Loras {
    applied: Vec<Applied>,
    pub changes: Changes,
    /// Which of the prompt's tags are a plugin's.
    claimed: Vec<usize>,
}

/// Whether it is for this file to apply.
pub(super) fn is_lora(network: &NamedNetwork) -> bool {
    KINDS.contains(&network.kind.as_str())
}

impl Loras {
    /// Finds the files and matches them to the model. What is not there or not for this model is told and left out.
    pub(super) fn resolve(
        prompt: &Wording,
        more: &[LoraParams],
        known: &Known,
        (library, tags): (&Library, &Tags),
        notices: &mut Notices,
    ) -> Result<Self> {
        let all = prompt.networks.iter().enumerate();
        let claimed = all.filter(|(_, network)| !is_lora(network) && tags.has(network));
        let mut loras = Self { claimed: claimed.map(|(place, _)| place).collect(), ..Self::default() };
        let mut all = vec![];
        for (place, network) in prompt.networks.iter().enumerate().filter(|(_, network)| is_lora(network)) {
            match Wanted::of_prompt(network, place, tags, notices)? {
                Ok(wanted) => all.push(wanted),
                Err(why) => {
                    let text = format!("{}: {why}; it was left out", shorten(&network.written));
                    notices.not_applied(Class::InvalidParams, text)?;
                }
            }
        }
        all.extend(more.iter().map(Wanted::of_field));
        if all.len() > MOST {
            return Err(Error::invalid(format!("{} LoRAs; up to {MOST} can be applied at once", all.len())));
        }
        for wanted in all {
            loras.take(wanted, known, library, notices)?;
        }
        Ok(loras)
    }

    fn take(
        &mut self,
        mut wanted: Wanted,
        known: &Known,
        library: &Library,
        notices: &mut Notices,
    ) -> Result<()> {
        let file = match library.pin_addon(LibraryKind::Lora, &wanted.name) {
            Ok(file) => file,
            Err(error) => {
                return notices.not_applied(error.class, format!("{}; it was left out", error.text));
            }
        };
        // A picture does not tell where its owner keeps files.
        if wanted.place.is_none() && wanted.name.contains(['/', '\\']) {
            let name = &file.item().name;
            if library
                .pin_addon(LibraryKind::Lora, name)
                .is_ok_and(|by_name| by_name.identity() == file.identity())
            {
                wanted.name.clone_from(name);
            }
        }
        let config = file.item().path().and_then(peft_config);
        if config.as_deref().is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_err()) {
            let text = format!(
                "lora '{}': adapter_config.json beside it is no JSON, so that the scales it may tell are not known",
                shorten(&wanted.name)
            );
            notices.not_applied(Class::Model, text)?;
        }
        let (tensors, targets) = (file.tensors()?, known.targets());
        let adapter = Arc::new(Adapter::of(tensors, targets, wanted.dynamic, config.as_deref())?);
        if let Some(left) = adapter.unapplied() {
            notices.not_applied(Class::Model, format!("lora '{}' {left}", shorten(&wanted.name)))?;
        }
        let mut does = false;
        for (network, strength, patches) in [
            (Network::Text, wanted.te, &mut self.changes.text_encoder),
            (Network::UNet, wanted.unet, &mut self.changes.unet),
        ] {
            let strength = strength as f32;
            let (scales, key) = &wanted.scales;
            let digest = digest(&file, network, (strength, key), wanted.dynamic, config.as_deref());
            if let Some(patch) = adapter.patch_scaled(network, strength, scales, digest) {
                patches.push(Arc::new(patch) as Arc<dyn Patch>);
                does = true;
            }
        }
        if does {
            self.changes.files.push(Arc::clone(&file));
            self.applied.push(Applied { wanted, file });
        }
        Ok(())
    }

    /// Whether one of the prompt's networks is among them, or a plugin's.
    pub(super) fn has(&self, place: usize) -> bool {
        self.claimed.contains(&place)
            || self.applied.iter().any(|applied| applied.wanted.place == Some(place))
    }

    /// Those that the request had beside its prompt, as a request has them.
    pub(super) fn beside(&self) -> Vec<LoraParams> {
        self.wanted_beside().map(Wanted::to_field).collect()
    }

    /// How a prompt says those, and the networks that are read of that; `None` if one of them cannot be said so.
    pub(super) fn written(&self) -> Option<(String, Vec<NamedNetwork>)> {
        let (mut text, mut networks) = (String::new(), vec![]);
        for wanted in self.wanted_beside() {
            let written = wanted.written();
            let read = Wording::of_prompt(&written).networks;
            let [network] = &read[..] else { return None };
            let again =
                Wanted::of_prompt(network, 0, &Tags::default(), &mut Notices::new(true)).ok()?.ok()?;
            if (Wanted { place: None, ..again }) != *wanted {
                return None;
            }
            text += &written;
            networks.extend(read);
        }
        Some((text, networks))
    }

    fn wanted_beside(&self) -> impl Iterator<Item = &Wanted> {
        self.applied.iter().map(|applied| &applied.wanted).filter(|wanted| wanted.place.is_none())
    }

    /// As A1111 writes them behind "Lora hashes": each name once, with 12 digits. Waits for hashes until `cancelled`.
    pub(super) fn hashes(&self, cancelled: &dyn Fn() -> bool) -> Result<String> {
        let mut all: Vec<(String, String)> = vec![];
        for Applied { wanted, file } in &self.applied {
            let name = wanted.name.replace([':', ','], "");
            if !all.iter().any(|(other, _)| *other == name) {
                let hash = file.addon_hash(cancelled)?;
                all.push((name, hash.get(..12).unwrap_or(&hash).to_owned()));
            }
        }
        Ok(all.iter().map(|(name, hash)| format!("{name}: {hash}")).collect::<Vec<_>>().join(", "))
    }
}

impl Wanted {
    /// `<lora:NAME:TE:UNET:DYN>`, each of the numbers also as `te=`, `unet=`, `dyn=`. What else it says is told. The inner
    /// error says what cannot be read.
    fn of_prompt(
        network: &NamedNetwork,
        place: usize,
        tags: &Tags,
        notices: &mut Notices,
    ) -> Result<std::result::Result<Self, String>> {
        let named =
            |name: &str| network.named.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value);
        let given = |at: usize, name: &str| named(name).or(network.positional.get(at));
        if !tags.has(network) {
            tell_unknown(network, &NAMED, POSITIONAL, notices)?;
        }
        Ok((|| {
            let te = given(1, "te").map_or(Ok(1.0), |text| number(text))?;
            let unet = given(2, "unet").map_or(Ok(te), |text| number(text))?;
            let dynamic = given(3, "dyn").map(|text| {
                let wrong = || format!("'{}' is no number of ranks", shorten(text));
                text.trim().parse::<usize>().ok().filter(|ranks| *ranks > 0).ok_or_else(wrong)
            });
            if network.name().is_empty() {
                return Err("it has no name".to_owned());
            }
            Ok(Self {
                name: network.name().to_owned(),
                te,
                unet,
                dynamic: dynamic.transpose()?,
                place: Some(place),
                scales: tags.scales(network),
            })
        })())
    }

    fn of_field(lora: &LoraParams) -> Self {
        let (te, unet) = lora.strengths();
        Self {
            name: lora.name.clone(),
            te,
            unet,
            dynamic: lora.dynamic.map(|ranks| ranks as usize),
            place: None,
            scales: Default::default(),
        }
    }

    fn to_field(&self) -> LoraParams {
        let dynamic = self.dynamic.and_then(|ranks| u32::try_from(ranks).ok());
        LoraParams { name: self.name.clone(), te: Some(self.te), unet: Some(self.unet), dynamic }
    }

    fn written(&self) -> String {
        let Self { name, te, unet, dynamic, .. } = self;
        let strengths = if te == unet { te.to_string() } else { format!("{te}:{unet}") };
        let dynamic = dynamic.map_or_else(String::new, |ranks| format!(":dyn={ranks}"));
        format!("<lora:{name}:{strengths}{dynamic}>")
    }
}

/// How strong anything may be, as in `loras`.
const STRONGEST: f64 = 1000.0;

/// A strength as Python reads one, if it is a number that can be meant.
pub(super) fn number(text: &str) -> std::result::Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    match number {
        None => Err(format!("'{}' is no number", shorten(text))),
        Some(number) if number.abs() > STRONGEST => Err(format!(
            "{} is beyond what can be computed with; up to {STRONGEST} is possible",
            shorten(text)
        )),
        Some(number) => Ok(number),
    }
}

/// Tells of arguments that nobody knows: those by name that are not among `named`, and those beyond the first `positional`.
pub(super) fn tell_unknown(
    network: &NamedNetwork,
    named: &[&str],
    positional: usize,
    notices: &mut Notices,
) -> Result<()> {
    let unknown = unknown(network, named, positional);
    if unknown.is_empty() {
        return Ok(());
    }
    let (written, unknown) = (shorten(&network.written), shorten(&unknown.join(", ")));
    notices.not_applied(Class::Unsupported, format!("{written}: {unknown} is not known and was left out"))
}

/// Whether a LoRA's tag has arguments that nobody knows.
pub(super) fn has_unknown(network: &NamedNetwork) -> bool {
    !unknown(network, &NAMED, POSITIONAL).is_empty()
}

fn unknown(network: &NamedNetwork, named: &[&str], positional: usize) -> Vec<String> {
    network
        .named
        .iter()
        .filter(|(name, _)| !named.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .chain(network.positional.iter().skip(positional).cloned())
        .collect()
}

/// Equal for what does the same to a network.
fn digest(
    file: &Pinned,
    network: Network,
    (strength, scales): (f32, &str),
    dynamic: Option<usize>,
    config: Option<&str>,
) -> [u8; 32] {
    let (identity, strength) = (file.identity(), strength.to_bits());
    let all = format!("{identity:?}\0{network:?}\0{strength:x}\0{dynamic:?}\0{config:?}\0{scales}");
    Sha256::digest(all).into()
}

/// What PEFT saved beside a file of its own name: the scales, which the file itself lacks.
pub(super) fn peft_config(path: &Path) -> Option<String> {
    if path.file_stem().is_none_or(|stem| stem != "adapter_model") {
        return None;
    }
    let file = open_without_waiting(&path.with_file_name("adapter_config.json")).ok()?;
    let mut text = String::new();
    file.take(LONGEST_CONFIG).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = std::result::Result<(f64, f64, Option<usize>), String>;

    fn read(prompt: &str) -> (Read, Vec<String>) {
        let wording = Wording::of_prompt(prompt);
        let mut notices = Notices::new(false);
        let network = wording.networks.first().expect("a network");
        let wanted = Wanted::of_prompt(network, 0, &Tags::default(), &mut notices).expect("not strict");
        (wanted.map(|wanted| (wanted.te, wanted.unet, wanted.dynamic)), notices.into_texts())
    }

    #[test]
    fn strengths_are_read_as_a1111_reads_them() {
        for (prompt, te, unet, dynamic) in [
            ("<lora:a>", 1.0, 1.0, None),
            ("<lora:a:0.5>", 0.5, 0.5, None),
            ("<lora:a: -.5 :2>", -0.5, 2.0, None),
            ("<lora:a:unet=0.25>", 1.0, 0.25, None),
            ("<lora:a:0.5:te=0>", 0.0, 0.0, None),
            ("<lora:a:te=0.1:0.5:0.7:4>", 0.1, 0.7, Some(4)),
            ("<lyco:a:1:dyn=8>", 1.0, 1.0, Some(8)),
        ] {
            assert_eq!(read(prompt), (Ok((te, unet, dynamic)), vec![]), "{prompt}");
        }
        for (prompt, why) in [
            ("<lora:a:strong>", "'strong' is no number"),
            ("<lora:a:nan>", "'nan' is no number"),
            ("<lora:a:1:2:0>", "'0' is no number of ranks"),
            ("<lora:te=1>", "it has no name"),
        ] {
            assert_eq!(read(prompt), (Err(why.to_owned()), vec![]), "{prompt}");
        }
        let (wanted, told) = read("<lora:a:1:lbw=OUTD:x=1>");
        assert!(wanted.is_ok());
        assert_eq!(told, ["<lora:a:1:lbw=OUTD:x=1>: lbw=OUTD, x=1 is not known and was left out"]);
    }

    #[test]
    fn what_stands_beside_a_prompt_is_written_as_in_one() {
        for (te, unet, dynamic, written) in [
            (None, None, None, "<lora:a:1>"),
            (Some(0.5), None, None, "<lora:a:0.5>"),
            (None, Some(-0.25), Some(4), "<lora:a:-0.25:dyn=4>"),
            (Some(0.5), Some(0.7), None, "<lora:a:0.5:0.7>"),
        ] {
            let lora = LoraParams { name: "a".into(), unet, te, dynamic };
            let wanted = Wanted::of_field(&lora);
            assert_eq!(wanted.written(), written);
            let again = Wording::of_prompt(written);
            let again = Wanted::of_prompt(&again.networks[0], 0, &Tags::default(), &mut Notices::new(true))
                .expect("known");
            assert_eq!(again, Ok(Wanted { place: Some(0), ..wanted }));
        }
    }
}
