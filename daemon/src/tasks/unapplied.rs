//! What a prompt asks for that is not applied, as sentences for whoever asked.

use latentd_models::prompt::{NamedNetwork, UnappliedKind, Wording};

/// How many of a kind are named.
const NAMED: usize = 3;

/// Kinds in the order in which they are told, with what becomes of them.
const KINDS: [(UnappliedKind, &str); 4] = [
    (
        UnappliedKind::NegativeNetwork,
        "networks are applied from the prompt only; in the negative prompt they are words",
    ),
    (UnappliedKind::Schedule, "words cannot change from step to step yet; all of them were drawn as words"),
    (UnappliedKind::Alternation, "words cannot take turns yet; all of them were drawn as words"),
    (
        UnappliedKind::Composition,
        "prompts cannot be composed yet; they were drawn as one, without weights of their own",
    ),
];

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

/// One sentence for each kind that there is.
pub(super) fn notices(prompt: &Wording, negative_prompt: &Wording) -> Vec<String> {
    let all = || prompt.unapplied.iter().chain(&negative_prompt.unapplied);
    let told = KINDS.iter().filter_map(|(kind, what)| {
        let of_kind = all().filter(|each| each.kind == *kind);
        let texts = listed(of_kind.map(|each| each.text.as_str()))?;
        Some(format!("{texts}: {what}"))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once() {
        let prompt = "[c:d:5] [e|f] [e|f] [g|h] [i|j] [o|p] x AND y";
        let told = notices(&Wording::of_prompt(prompt), &Wording::of_negative_prompt("<lora:n> [k|l]"));
        let beginnings = ["<lora:n>: networks", "[c:d:5]: ", "[e|f], [g|h], [i|j] and others: ", "AND: "];
        assert_eq!(told.len(), beginnings.len(), "{told:?}");
        for (notice, beginning) in told.iter().zip(beginnings) {
            assert!(notice.starts_with(beginning), "{notice}");
        }
        assert!(notices(&Wording::of_prompt("a [b] (c:1.2)"), &Wording::default()).is_empty());
        let prompt = Wording::of_prompt("<a:1><lora:x><a:1><b:2>");
        let told = other_networks(&prompt, |network| network.kind == "lora").expect("told");
        assert!(told.starts_with("<a:1>, <b:2>: networks of"), "{told}");
        assert_eq!(other_networks(&prompt, |_| true), None);
    }
}
