//! What a prompt draws with beside its words: `<lora:name:1>` and its like, taken out before anything else is read.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// A network that a prompt names: `<kind:argument:…>`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedNetwork {
    /// "lora", "hypernet", or an extension's.
    pub kind: String,
    /// What stands between colons, the name first.
    pub positional: Vec<String>,
    /// Arguments as `name=value`.
    pub named: Vec<(String, String)>,
    /// How it stands in the prompt.
    pub written: String,
}

static NETWORK: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"<([\p{L}\p{N}_]+):([^>]+)>").ok());

/// The networks that a prompt names, in order, and the prompt without them.
pub fn split_networks(prompt: &str) -> (String, Vec<NamedNetwork>) {
    let Some(network) = NETWORK.as_ref() else { return (prompt.to_owned(), vec![]) };
    let found = network.captures_iter(prompt).map(|found| NamedNetwork::of(&found)).collect();
    (network.replace_all(prompt, "").into_owned(), found)
}

/// The same prompt with only those of its networks that `keeps` says yes to, by their place.
pub fn with_networks(prompt: &str, keeps: impl Fn(usize) -> bool) -> String {
    let Some(network) = NETWORK.as_ref() else { return prompt.to_owned() };
    let mut place = 0;
    let kept = network.replace_all(prompt, |found: &Captures<'_>| {
        place += 1;
        if keeps(place - 1) { found[0].to_owned() } else { String::new() }
    });
    kept.into_owned()
}

impl NamedNetwork {
    fn of(found: &Captures<'_>) -> Self {
        let mut of = Self { kind: found[1].to_owned(), written: found[0].to_owned(), ..Self::default() };
        for argument in found[2].split(':') {
            // As A1111 splits: more than one `=` makes it no named one.
            match argument.split_once('=').filter(|(_, value)| !value.contains('=')) {
                Some((name, value)) => of.named.push((name.to_owned(), value.to_owned())),
                None => of.positional.push(argument.to_owned()),
            }
        }
        of
    }

    /// Its name: the first argument.
    pub fn name(&self) -> &str {
        self.positional.first().map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_taken_out_with_their_arguments() {
        for (prompt, text, networks) in [
            ("a cat", "a cat", &[][..]),
            (
                "<lora:a:0.8> x <lora:b>",
                " x ",
                &[("lora", &["a", "0.8"][..], &[][..]), ("lora", &["b"], &[])],
            ),
            (
                "<lyco:a b:1:te=0.5:dyn=4:a=b=c>",
                "",
                &[("lyco", &["a b", "1", "a=b=c"], &[("te", "0.5"), ("dyn", "4")])],
            ),
            ("<b> <lora:> <:a> < lora:a> <ü_1:x>", "<b> <lora:> <:a> < lora:a> ", &[("ü_1", &["x"], &[])]),
            ("<lora:te=1>", "", &[("lora", &[], &[("te", "1")])]),
        ] {
            let (found, of) = split_networks(prompt);
            assert_eq!(found, text, "{prompt}");
            let of: Vec<_> = of
                .iter()
                .map(|network| {
                    let named: Vec<_> =
                        network.named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                    let positional: Vec<_> = network.positional.iter().map(String::as_str).collect();
                    (network.kind.as_str(), positional, named)
                })
                .collect();
            let expected: Vec<_> =
                networks.iter().map(|(kind, all, named)| (*kind, all.to_vec(), named.to_vec())).collect();
            assert_eq!(of, expected, "{prompt}");
        }
        assert_eq!(with_networks("a <l:1> b <l:2> c", |place| place == 1), "a  b <l:2> c");
    }
}
