//! What a prompt asks for that is not applied, as sentences for whoever asked.

use latentd_models::prompt::{UnappliedKind, Wording};

/// How many of a kind are named.
const NAMED: usize = 3;

/// Kinds in the order in which they are told, with what becomes of them.
const KINDS: [(UnappliedKind, &str); 7] = [
    (UnappliedKind::Lora, "LoRA cannot be applied yet and was left out"),
    (UnappliedKind::Hypernetwork, "hypernetworks cannot be applied yet and were left out"),
    (UnappliedKind::OtherNetwork, "networks of extensions cannot be applied and were left out"),
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

/// One sentence for each kind that there is.
pub(super) fn notices(prompt: &Wording, negative_prompt: &Wording) -> Vec<String> {
    let all = || prompt.unapplied.iter().chain(&negative_prompt.unapplied);
    let told = KINDS.iter().filter_map(|(kind, what)| {
        let mut texts: Vec<&str> = vec![];
        for each in all().filter(|each| each.kind == *kind) {
            // Often the same stands in it more than once.
            if texts.len() <= NAMED && !texts.contains(&each.text.as_str()) {
                texts.push(&each.text);
            }
        }
        let more = if texts.len() > NAMED { " and others" } else { "" };
        texts.truncate(NAMED);
        (!texts.is_empty()).then(|| format!("{}{more}: {what}", texts.join(", ")))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once() {
        let prompt =
            "<lora:a:1> <lora:a:1> <lora:b> [c:d:5] [e|f] x AND <hypernet:h> <lora:g> <lora:i:0.5> <y:z>";
        let told = notices(&Wording::of_prompt(prompt), &Wording::of_negative_prompt("<lora:n> [k|l]"));
        let beginnings = [
            "<lora:a:1>, <lora:b>, <lora:g> and others: LoRA",
            "<hypernet:h>: hyper",
            "<y:z>: ",
            "<lora:n>: networks",
            "[c:d:5]: ",
            "[e|f], [k|l]: ",
            "AND: ",
        ];
        assert_eq!(told.len(), beginnings.len(), "{told:?}");
        for (notice, beginning) in told.iter().zip(beginnings) {
            assert!(notice.starts_with(beginning), "{notice}");
        }
        assert!(notices(&Wording::of_prompt("a [b] (c:1.2)"), &Wording::default()).is_empty());
    }
}
