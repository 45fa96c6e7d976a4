//! What a prompt asks for that is not applied, as sentences for whoever asked.

use latentd_models::prompt::{NamedNetwork, Wording};

/// How many of a kind are named.
const NAMED: usize = 3;

/// A sentence about networks that nobody here applies, if there are any.
pub(super) fn other_networks(prompt: &Wording, is_known: impl Fn(&NamedNetwork) -> bool) -> Option<String> {
    let others = prompt.networks.iter().filter(|network| !is_known(network));
    let texts = listed(others.map(|network| network.written.as_str()))?;
    Some(format!("{texts}: networks of extensions cannot be applied and were left out"))
}

/// Some of these, each once; none of none.
fn listed<'a>(all: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut texts: Vec<&str> = vec![];
    for text in all {
        // Often the same stands in it more than once.
        if texts.len() <= NAMED && !texts.contains(&text) {
            texts.push(text);
        }
    }
    let more = if texts.len() > NAMED { " and others" } else { "" };
    texts.truncate(NAMED);
    (!texts.is_empty()).then(|| format!("{}{more}", texts.join(", ")))
}

/// A sentence about networks in a negative prompt, if there are any.
pub(super) fn negative_networks<'a>(networks: impl Iterator<Item = &'a NamedNetwork>) -> Option<String> {
    let texts = listed(networks.map(|network| network.written.as_str()))?;
    Some(format!("{texts}: networks are applied from the prompt only; in the negative prompt they are words"))
}

/// A sentence about networks in the prompts of later pictures, if there are any.
pub(super) fn later_networks<'a>(networks: impl Iterator<Item = &'a NamedNetwork>) -> Option<String> {
    let texts = listed(networks.map(|network| network.written.as_str()))?;
    Some(format!(
        "{texts}: all pictures of a request are drawn with the networks of its first prompt; these were left out"
    ))
}

/// A sentence about networks in the prompts of regions, if there are any.
pub(super) fn region_networks<'a>(networks: impl Iterator<Item = &'a NamedNetwork>) -> Option<String> {
    let texts = listed(networks.map(|network| network.written.as_str()))?;
    Some(format!(
        "{texts}: networks are of whole pictures; in the prompts of regions they were left out; name them in prompt"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        let negative = Wording::of_negative_prompt("<lora:n> [k|l] <a:1><lora:n><b:2><c:3><d:4>");
        let told = negative_networks(negative.networks.iter()).expect("told");
        assert!(told.starts_with("<lora:n>, <a:1>, <b:2> and others: networks are"), "{told}");
        assert_eq!(negative_networks(Wording::default().networks.iter()), None);
        let prompt = Wording::of_prompt("<a:1><lora:x><a:1><b:2>");
        let told = other_networks(&prompt, |network| network.kind == "lora").expect("told");
        assert!(told.starts_with("<a:1>, <b:2>: networks of"), "{told}");
        assert_eq!(other_networks(&prompt, |_| true), None);
        assert!(
            later_networks(prompt.networks.iter())
                .is_some_and(|told| told.starts_with("<a:1>, <lora:x>, <b:2>: "))
        );
    }
}
