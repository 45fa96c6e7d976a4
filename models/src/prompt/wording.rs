//! What of a prompt is drawn, what it is drawn with, and what it asks for that cannot be.

use std::sync::LazyLock;

use regex::Regex;

use super::networks::{NamedNetwork, split_networks, with_networks};

/// A prompt as it is drawn. A picture's text has it like this too, with the networks that were applied, so that it draws the
/// same picture again, and so that nobody reads there of something that was not applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wording {
    /// The prompt without comments and networks, and without what is not applied.
    pub text: String,
    /// The networks that it names, in order. In what is steered away from these are words, as in A1111.
    pub networks: Vec<NamedNetwork>,
    /// The prompt without comments alone.
    written: String,
}

impl Wording {
    /// Of what is wanted.
    pub fn of_prompt(prompt: &str) -> Self {
        let written = without_comments(prompt);
        let (text, networks) = split_networks(&written);
        Self { text, networks, written }
    }

    /// The prompt as a picture's text has it: with those of its networks that `keeps` says yes to, by their place, where
    /// they stand.
    pub fn told(&self, keeps: impl Fn(usize) -> bool) -> String {
        with_networks(&self.written, keeps)
    }

    /// Of what is steered away from.
    pub fn of_negative_prompt(prompt: &str) -> Self {
        let text = without_comments(prompt);
        let (_, networks) = split_networks(&text);
        Self { text: text.clone(), networks, written: text }
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_and_networks_go() {
        for (prompt, text) in [
            ("a (cat:1.2) [dog:cat:5] a|b a AND b :2", "a (cat:1.2) [dog:cat:5] a|b a AND b :2"),
            ("#x\na <lora:b:1> c #d\n#e\nf", "\na  c \nf"),
            ("[<lora:b:1>:5]", "[:5]"),
        ] {
            let wording = Wording::of_prompt(prompt);
            assert_eq!(wording.text, text, "{prompt:?}");
        }
        let negative = Wording::of_negative_prompt("a AND <lora:b:1> [c|d] :2 # e");
        assert_eq!(negative.text, "a AND <lora:b:1> [c|d] :2 \n");
        assert_eq!(negative.networks.len(), 1);
    }

    #[test]
    fn a_picture_tells_the_networks_that_were_applied() {
        for (prompt, text, told) in [
            ("a <lora:x:1> cat <lora:y> # no", "a  cat  \n", "a <lora:x:1> cat  \n"),
            ("a <lora:x:1> [b|c] <lora:y>", "a  [b|c] ", "a <lora:x:1> [b|c] "),
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
        for prompt in ["<a:".repeat(60_000), "#\n".repeat(90_000), "AND ".repeat(40_000)] {
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
                prop_assert_eq!(&of(&once.text).text, &once.text);
            }
        }
    }
}
