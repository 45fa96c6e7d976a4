//! What of a prompt can be drawn, and what it asks for that cannot be yet.

use std::sync::LazyLock;

use regex::Regex;

use super::networks::{NamedNetwork, split_networks, with_networks};
use super::weight::split_weight;
use crate::python::words;

/// A prompt as it is drawn. A picture's text has it like this too, with the networks that were applied, so that it draws the
/// same picture again, and so that nobody reads there of something that was not applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wording {
    /// The prompt without comments and networks, and without what is not applied.
    pub text: String,
    /// The networks that it names, in order.
    pub networks: Vec<NamedNetwork>,
    /// What is not applied, in the order in which it stands there.
    pub unapplied: Vec<Unapplied>,
    /// The prompt without comments alone.
    written: String,
}

/// Something a prompt asks for that is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unapplied {
    /// What it is.
    pub kind: UnappliedKind,
    /// How it stands in the prompt; of a long one the beginning.
    pub text: String,
}

/// What a prompt can ask for that is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnappliedKind {
    /// A network in the negative prompt, where it is words in A1111 too.
    NegativeNetwork,
    /// `[from:to:when]`.
    Schedule,
    /// `[a|b]`.
    Alternation,
    /// `a AND b`.
    Composition,
}

impl Wording {
    /// Of what is wanted.
    pub fn of_prompt(prompt: &str) -> Self {
        let written = without_comments(prompt);
        let (text, networks) = split_networks(&written);
        let mut wording = Self { text, networks, unapplied: vec![], written };
        wording.take_composition();
        wording.take_changes();
        wording
    }

    /// The prompt as a picture's text has it: with those of its networks that `keeps` says yes to, by their place, where
    /// they stand; behind the text where that is another than what was written.
    pub fn told(&self, keeps: impl Fn(usize) -> bool) -> String {
        let (bare, _) = split_networks(&self.written);
        if bare == self.text {
            return with_networks(&self.written, keeps);
        }
        let kept = self.networks.iter().enumerate().filter(|(place, _)| keeps(*place));
        kept.fold(self.text.clone(), |text, (_, network)| text + &network.written)
    }

    /// Of what is steered away from: it names no networks and is one prompt.
    pub fn of_negative_prompt(prompt: &str) -> Self {
        let text = without_comments(prompt);
        let mut wording = Self { text: text.clone(), written: text, ..Self::default() };
        for network in split_networks(&wording.text).1 {
            wording.push(UnappliedKind::NegativeNetwork, &network.written);
        }
        wording.take_changes();
        wording
    }

    /// Joins prompts that `AND` would compose with the word "and", which has the same token. Their weights go: applied to
    /// the whole they would mean something else.
    fn take_composition(&mut self) {
        let mut parts = vec![];
        let mut start = 0;
        for place in words(&self.text, "AND").chain([self.text.len()]) {
            let mut part = self.text.get(start..place).unwrap_or_default();
            // What stands before a weight may end with another one.
            while split_weight(part).0.len() < part.trim_end().len() {
                part = split_weight(part).0;
            }
            parts.push(part.trim());
            start = place + "AND".len();
        }
        if parts.len() > 1 {
            let text = parts.join(" and ");
            self.text = text;
            self.push(UnappliedKind::Composition, "AND");
        }
    }

    /// Writes `[from:to:when]` and `[a|b]` as `(from:to:when:0.9…)` and `(a|b:0.9…)`: the same words with the same weight,
    /// but nothing that changes from step to step. A `|` beside such brackets, or a `\` before nothing, makes A1111 take
    /// the whole prompt for words.
    fn take_changes(&mut self) {
        let before = self.unapplied.len();
        let written = std::mem::take(&mut self.text);
        let mut text = String::with_capacity(written.len());
        let mut open: Vec<Bracket> = vec![];
        let mut rounded = vec![];
        // Bars that turns are not made of yet, and whether all else is read.
        let (mut bars, mut is_read) = (0, true);
        let mut characters = written.char_indices();
        while let Some((place, character)) = characters.next() {
            text.push(character);
            match character {
                '\\' => {
                    let escaped = characters.next().map(|(_, escaped)| escaped);
                    is_read &= escaped.is_some_and(|escaped| escaped != '\n');
                    text.extend(escaped);
                }
                '(' | '[' => open.push(Bracket {
                    kind: character,
                    written: place,
                    start: text.len() - 1,
                    ..Bracket::default()
                }),
                ':' => {
                    if let Some(bracket) = open.last_mut() {
                        bracket.colons += 1;
                        bracket.last_colon = text.len();
                    }
                }
                '|' => {
                    bars += 1;
                    if let Some(bracket) = open.last_mut() {
                        bracket.bars += 1;
                    }
                }
                ')' | ']' => {
                    let opening = if character == ')' { '(' } else { '[' };
                    let Some(bracket) = open.pop().filter(|bracket| bracket.kind == opening) else {
                        // Brackets that cross are text.
                        open.clear();
                        continue;
                    };
                    if let Some(kind) = bracket.asks_for(&text) {
                        text.pop();
                        text.push_str(AS_IN_BRACKETS);
                        rounded.push(bracket.start);
                        bars -= bracket.bars;
                        self.push(kind, written.get(bracket.written..=place).unwrap_or_default());
                    }
                }
                _ => (),
            }
        }
        if bars > 0 || !is_read {
            self.text = written;
            self.unapplied.truncate(before);
            return;
        }
        let mut bytes = text.into_bytes();
        for start in rounded {
            if let Some(byte) = bytes.get_mut(start) {
                *byte = b'(';
            }
        }
        self.text = String::from_utf8(bytes).unwrap_or(written);
    }

    fn push(&mut self, kind: UnappliedKind, written: &str) {
        let end = written.char_indices().nth(LONGEST).map(|(end, _)| end);
        let text = match end.and_then(|end| written.get(..end)) {
            Some(beginning) => format!("{beginning}…"),
            None => written.to_owned(),
        };
        self.unapplied.push(Unapplied { kind, text });
    }
}

/// Characters of what is not applied that are told.
const LONGEST: usize = 60;

/// How a bracket ends that weighs as much as `[…]`, which divides by 1.1.
const AS_IN_BRACKETS: &str = ":0.9090909090909091)";

/// Removes lines that begin with `#`, and what stands behind a `#` in others.
fn without_comments(prompt: &str) -> String {
    static COMMENTS: LazyLock<Option<[Regex; 2]>> = LazyLock::new(|| {
        let whole_lines = Regex::new(r"(?:^|\n)#[^\n]*(?:\n|$)").ok()?;
        Some([whole_lines, Regex::new(r"#[^\n]*(?:\n|$)").ok()?])
    });
    if !prompt.contains('#') {
        return prompt.to_owned();
    }
    let comments = COMMENTS.iter().flatten();
    comments.fold(prompt.to_owned(), |text, comment| comment.replace_all(&text, "\n").into_owned())
}

/// A bracket that is open. Signs are counted that stand in it, but not in brackets within it.
#[derive(Default)]
struct Bracket {
    kind: char,
    /// Where it stands in the prompt.
    written: usize,
    /// Where it stands in what the prompt becomes.
    start: usize,
    colons: usize,
    /// Behind the last colon.
    last_colon: usize,
    bars: usize,
}

impl Bracket {
    /// What it asks for in a text that ends with its partner.
    fn asks_for(&self, text: &str) -> Option<UnappliedKind> {
        static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
            Regex::new(r"^\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*\]$").ok()
        });
        match (self.kind, self.colons, self.bars) {
            ('[', 0, 1..) => Some(UnappliedKind::Alternation),
            ('[', 1..=2, 0) => {
                let last = text.get(self.last_colon..)?;
                NUMBER.as_ref()?.is_match(last).then_some(UnappliedKind::Schedule)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompt::parse_emphasis;

    #[test]
    fn what_is_not_applied_is_not_there() {
        use UnappliedKind::*;
        for (prompt, text, unapplied) in [
            ("a (cat:1.2) [dog] a|b a:b", "a (cat:1.2) [dog] a|b a:b", &[][..]),
            ("a [b:c:5] d", "a (b:c:5:0.9090909090909091) d", &[(Schedule, "[b:c:5]")]),
            (
                "[b:0.5][c::.5][:d: 1e1 ]",
                "(b:0.5:0.9090909090909091)(c::.5:0.9090909090909091)(:d: 1e1 :0.9090909090909091)",
                &[(Schedule, "[b:0.5]"), (Schedule, "[c::.5]"), (Schedule, "[:d: 1e1 ]")],
            ),
            ("[a|b|(c:1.1)]", "(a|b|(c:1.1):0.9090909090909091)", &[(Alternation, "[a|b|(c:1.1)]")]),
            (
                "[a:[b|c]:3]",
                "(a:(b|c:0.9090909090909091):3:0.9090909090909091)",
                &[(Alternation, "[b|c]"), (Schedule, "[a:[b|c]:3]")],
            ),
            // Others of their look: too many colons, both signs, no number, escaped, brackets that cross.
            (
                "[a:b:c:5] [a|b:5] [a:b] \\[a:b:5\\] [a (b:5] [a|b",
                "[a:b:c:5] [a|b:5] [a:b] \\[a:b:5\\] [a (b:5] [a|b",
                &[],
            ),
            ("[a:b:c:5] [a:b] \\[a:b:5\\] [a (b:5]", "[a:b:c:5] [a:b] \\[a:b:5\\] [a (b:5]", &[]),
            ("((a][:b:c [d:3]", "((a][:b:c (d:3:0.9090909090909091)", &[(Schedule, "[d:3]")]),
            // What makes A1111 take all of it for words.
            ("[a:b:5] | [c|d]", "[a:b:5] | [c|d]", &[]),
            ("[a:b:5] (c|d)", "[a:b:5] (c|d)", &[]),
            ("[a:b:5]\\", "[a:b:5]\\", &[]),
            ("a :1.5 AND  b:2 :1\nAND c", "a and b and c", &[(Composition, "AND")]),
            ("BAND AND_ and a:2", "BAND AND_ and a:2", &[]),
        ] {
            let unapplied: Vec<Unapplied> = unapplied
                .iter()
                .map(|(kind, text)| Unapplied { kind: *kind, text: (*text).into() })
                .collect();
            let wording = Wording::of_prompt(prompt);
            assert_eq!((wording.text.as_str(), &wording.unapplied), (text, &unapplied), "{prompt:?}");
        }
        let negative = Wording::of_negative_prompt("a AND <lora:b:1> [c|d] :2 # e");
        assert_eq!(negative.text, "a AND <lora:b:1> (c|d:0.9090909090909091) :2 \n");
        let kinds: Vec<_> = negative.unapplied.iter().map(|each| each.kind).collect();
        assert_eq!(kinds, [NegativeNetwork, Alternation]);
    }

    #[test]
    fn a_picture_tells_the_networks_that_were_applied() {
        for (prompt, text, told) in [
            ("a <lora:x:1> cat <lora:y> # no", "a  cat  \n", "a <lora:x:1> cat  \n"),
            (
                "a <lora:x:1> [b|c] <lora:y>",
                "a  (b|c:0.9090909090909091) ",
                "a  (b|c:0.9090909090909091) <lora:x:1>",
            ),
        ] {
            let wording = Wording::of_prompt(prompt);
            assert_eq!(wording.networks.len(), 2);
            assert_eq!((wording.text.as_str(), wording.told(|place| place == 0).as_str()), (text, told));
            let again = Wording::of_prompt(told);
            assert_eq!((again.text.as_str(), again.networks.len()), (text, 1), "it is drawn again");
        }
    }

    #[test]
    fn hostile_prompts_take_no_longer_than_their_length() {
        let start = std::time::Instant::now();
        let nested = "[".repeat(50_000) + "a" + &":5]".repeat(50_000);
        for prompt in [
            nested,
            "a :1".repeat(50_000) + " AND b",
            "<a:".repeat(60_000),
            "[a|".repeat(60_000),
            "#\n".repeat(90_000),
            "AND ".repeat(40_000),
        ] {
            Wording::of_prompt(&prompt);
            Wording::of_negative_prompt(&prompt);
        }
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_drawn_again(prompt in r"([\[\]():|\\#<> \n]|[0-9]|1\.5|a|b|AND|BREAK|<lora:x:1>|[a:b:5]|[a|b]){0,24}") {
            for of in [Wording::of_prompt, Wording::of_negative_prompt] {
                let once = of(&prompt);
                // What is taken out may leave another network behind, which are words then, as in A1111.
                prop_assume!(split_networks(&Wording::of_prompt(&prompt).text).1.is_empty());
                let again = of(&once.text);
                prop_assert_eq!(&again.text, &once.text);
                prop_assert!(again.unapplied.iter().all(|each| each.kind == UnappliedKind::NegativeNetwork), "{:?}", again);
            }
            // Words in brackets weigh as before.
            let mut changed = Wording { text: prompt.clone(), ..Wording::default() };
            changed.take_changes();
            if let Ok(before) = parse_emphasis(&prompt) {
                prop_assert_eq!(parse_emphasis(&changed.text).expect("parses"), before);
            }
        }
    }
}
