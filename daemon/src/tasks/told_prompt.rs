//! The prompt as a picture's text has it: with what was applied, so that whoever reads it again draws the same.

use latentd_client::protocol::{LoraParams, Txt2ImgParams};
use latentd_models::prompt::{NamedNetwork, Wording};

use super::hypernetworks::Hypernetworks;
use super::infotext::Told;
use super::loras::Loras;

/// What a picture's text says of a prompt and of what was applied with it.
#[derive(Debug, PartialEq)]
pub(super) struct ToldPrompt {
    pub prompt: String,
    /// LoRAs beside the prompt that no prompt can say: their names hold colons, for one.
    pub loras: Vec<LoraParams>,
    /// The last hypernetwork, which A1111 tells apart and puts behind the prompt when it reads that.
    pub hypernetwork: Option<(String, String)>,
}

impl ToldPrompt {
    /// Leaves what was not applied out of the prompt, takes the last hypernetwork out of it and adds LoRAs beside it: each of
    /// that if what is told then means the same. Mostly it does; a `<` that nothing closes takes in what is put behind it.
    pub(super) fn of(prompt: &Wording, loras: &Loras, hypernetworks: &Hypernetworks) -> Self {
        let is_applied = |place: usize| loras.has(place) || hypernetworks.has(place);
        let networks = |keeps: &dyn Fn(usize) -> bool| -> Vec<NamedNetwork> {
            let all = prompt.networks.iter().enumerate();
            all.filter(|(place, _)| keeps(*place)).map(|(_, network)| network.clone()).collect()
        };
        let means = |text: &str, networks: &[NamedNetwork]| {
            let read = Wording::of_prompt(text);
            read.text == prompt.text && read.networks == networks
        };
        let (beside, written) = (loras.beside(), loras.written());
        let mut told = Self { prompt: prompt.told(|_| true), loras: beside, hypernetwork: None };
        let mut all = networks(&|_| true);
        // What a reader puts behind the prompt.
        let mut behind = String::new();
        let (applied, of_applied) = (prompt.told(is_applied), networks(&is_applied));
        if means(&applied, &of_applied) {
            (told.prompt, all) = (applied, of_applied);
            if let Some((last, name, strength)) = hypernetworks.last() {
                let tag = format!("<hypernet:{name}:{strength}>");
                let keeps = |place: usize| place != last && is_applied(place);
                let (shorter, mut fewer) = (prompt.told(keeps), networks(&keeps));
                fewer.extend(Wording::of_prompt(&tag).networks);
                if fewer.len() == all.len() && means(&format!("{shorter}{tag}"), &fewer) {
                    (told.prompt, all, behind) = (shorter, fewer, tag);
                    told.hypernetwork = Some((name, strength.to_string()));
                }
            }
        }
        if let Some((written, of_beside)) = written.filter(|_| !told.loras.is_empty()) {
            let at = all.len() - usize::from(!behind.is_empty());
            all.splice(at..at, of_beside);
            if means(&format!("{}{written}{behind}", told.prompt), &all) {
                told.prompt += &written;
                told.loras.clear();
            }
        }
        told
    }
}

/// The same of a prompt that a text has all of in one: with its networks that were applied, and `beside` behind it, those that
/// the request had beside its prompts, if it is read in the same way then.
pub(super) fn whole(prompt: &Wording, loras: &Loras, hypernetworks: &Hypernetworks, beside: bool) -> String {
    let is_applied = |place: usize| loras.has(place) || hypernetworks.has(place);
    let mut networks: Vec<NamedNetwork> = prompt
        .networks
        .iter()
        .enumerate()
        .filter(|(place, _)| is_applied(*place))
        .map(|(_, network)| network.clone())
        .collect();
    let means = |text: &str, networks: &[NamedNetwork]| {
        let read = Wording::of_prompt(text);
        read.text == prompt.text && read.networks == networks
    };
    let applied = prompt.told(is_applied);
    let mut told = if means(&applied, &networks) {
        applied
    } else {
        networks.clone_from(&prompt.networks);
        prompt.told(|_| true)
    };
    if let Some((written, of_beside)) = loras.written().filter(|_| beside) {
        networks.extend(of_beside);
        let longer = format!("{told}{written}");
        if means(&longer, &networks) {
            told = longer;
        }
    }
    // Nothing at all would be the first pass's.
    if told.is_empty() { " ".to_owned() } else { told }
}

/// What is told of a picture that was drawn from these.
pub(super) fn with_prompts(told: &Told, prompt: &ToldPrompt, negative_prompt: &str) -> Told {
    let request = Txt2ImgParams {
        prompt: prompt.prompt.as_str().into(),
        loras: prompt.loras.clone(),
        negative_prompt: negative_prompt.into(),
        ..told.request.clone()
    };
    Told { request, hypernetwork: prompt.hypernetwork.clone(), ..told.clone() }
}
