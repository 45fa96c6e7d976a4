//! What a prompt is made of: text, variants, wildcards and variables.
//!
//! `{a|b}`, `{2::a|b}` with weights, `{2$$a|b|c}`, `{1-2$$ and $$a|b|c}` several, `__name__`, `${name=value}`, `${name=!value}`
//! settled at once, `${name}`, `${name:default}`. A backslash before `{`, `}`, `|`, `$` or `_` takes their meaning away. A comment
//! (`#`) outside of braces and what stands in square brackets are text, but for what is within. What only looks like one of these is
//! text, too.

use std::collections::HashSet;

/// Levels of variants within variants.
const DEEPEST: usize = 32;
/// Characters of a wildcard's name.
const LONGEST_NAME: usize = 200;
/// Parts of a prompt.
const MOST_PARTS: usize = 20_000;

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Text(String),
    Variants(Variants),
    Wildcard(String),
    /// Sets a variable; now, or as it is read.
    Set {
        name: String,
        value: Vec<Part>,
        is_now: bool,
    },
    Get {
        name: String,
        default: Option<Vec<Part>>,
    },
}

/// Options, of which so many are picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Variants {
    /// How many; no more than there are.
    pub least: usize,
    pub most: usize,
    pub separator: String,
    pub options: Vec<Choice>,
}

/// One of several texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub weight: f64,
    pub parts: Vec<Part>,
}

/// Takes a prompt apart.
pub fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parser = Parser { rest: text, length: text.len(), brackets: brackets(text), parts: 0 };
    let parts = parser.sequence(0, &[])?;
    match parser.rest.chars().next() {
        Some(stray) => Err(format!("a '{stray}' that nothing opens, before '{}'", shown(parser.rest))),
        None => Ok(parts),
    }
}

/// One option: a line of a wildcard's, or what stands between two bars.
pub fn parse_choice(text: &str) -> Result<Choice, String> {
    let (weight, rest) = weight(text);
    Ok(Choice { weight, parts: parse(rest)? })
}

/// A weight (`2::`) and what is behind it; 1 if there is none.
fn weight(text: &str) -> (f64, &str) {
    let digits = text.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    match (number.parse::<f64>(), rest.strip_prefix("::")) {
        (Ok(weight), Some(rest)) if weight.is_finite() => (weight, rest),
        _ => (1.0, text),
    }
}

/// A text of such characters up to `$$`, and what is behind that.
fn before_dollars(text: &str, is_part: impl Fn(char) -> bool) -> Option<(&str, &str)> {
    let (before, rest) = text.split_at(text.find(|c| !is_part(c))?);
    Some((before, rest.strip_prefix("$$")?))
}

/// Where square brackets open that are closed within the same braces.
fn brackets(text: &str) -> HashSet<usize> {
    let (mut open, mut closed, mut is_escaped) = (vec![], HashSet::new(), false);
    for (place, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => {
                is_escaped = false;
                continue;
            }
            '\\' => is_escaped = true,
            '[' | '{' => open.push((letter, place)),
            ']' if open.last().is_some_and(|(letter, _)| *letter == '[') => {
                closed.extend(open.pop().map(|(_, place)| place));
            }
            '}' => while open.pop().is_some_and(|(letter, _)| letter == '[') {},
            _ => (),
        }
    }
    closed
}

struct Parser<'a> {
    rest: &'a str,
    /// Of the whole text.
    length: usize,
    brackets: HashSet<usize>,
    parts: usize,
}

impl<'a> Parser<'a> {
    /// Parts up to one of `ends`, a closing brace within braces, or the end.
    fn sequence(&mut self, depth: usize, ends: &[char]) -> Result<Vec<Part>, String> {
        if depth > DEEPEST {
            return Err(format!("more than {DEEPEST} levels within each other"));
        }
        let mut parts = Parts::default();
        while let Some(next) = self.rest.chars().next() {
            if ends.contains(&next) || next == '}' {
                break;
            }
            self.parts += 1;
            if self.parts > MOST_PARTS {
                return Err(format!("more than {MOST_PARTS} parts"));
            }
            match next {
                '\\' => parts.text(self.escaped()),
                '#' if ends.is_empty() => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    parts.text(self.take(end));
                }
                '{' => parts.push(self.variants(depth)?),
                '[' => self.bracket(depth, &mut parts)?,
                '$' if self.rest.starts_with("${") => match self.variable(depth)? {
                    Some(part) => parts.push(part),
                    None => parts.text(self.take(1)),
                },
                '_' => match self.wildcard() {
                    Some(name) => parts.push(Part::Wildcard(name)),
                    None => {
                        // A longer row of underscores is one text.
                        let row = self.rest.find(|c| c != '_').unwrap_or(self.rest.len());
                        parts.text(self.take(row));
                    }
                },
                _ => {
                    let special = |c: char| "\\#{}[$_".contains(c) || ends.contains(&c);
                    let length = self.rest.find(special).filter(|end| *end > 0);
                    parts.text(self.take(
                        length.unwrap_or_else(
                            || {
                                if special(next) { next.len_utf8() } else { self.rest.len() }
                            },
                        ),
                    ));
                }
            }
        }
        Ok(parts.done())
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    /// Past a text, if it is what comes.
    fn skip(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A backslash takes itself away only before what would mean something here; other grammars have theirs.
    fn escaped(&mut self) -> &'a str {
        let next = self.rest.chars().nth(1);
        match next {
            Some('{' | '}' | '|' | '$' | '_') => {
                self.take(1);
                self.take(1)
            }
            Some(other) => self.take(1 + other.len_utf8()),
            None => self.take(1),
        }
    }

    /// `[a|b]` and `[a:b:0.5]` are the prompt grammar's: no bar in them ends an option. One that is not closed is text.
    fn bracket(&mut self, depth: usize, parts: &mut Parts) -> Result<(), String> {
        let is_closed = self.brackets.contains(&(self.length - self.rest.len()));
        parts.text(self.take(1));
        if is_closed {
            parts.extend(self.sequence(depth + 1, &[']'])?);
            // A comment may have taken the end.
            parts.text(if self.rest.starts_with(']') { self.take(1) } else { "" });
        }
        Ok(())
    }

    fn variants(&mut self, depth: usize) -> Result<Part, String> {
        let from = self.rest;
        self.take(1);
        let (least, most, separator) = self.bounds();
        let mut options = vec![];
        loop {
            let (weight, rest) = weight(self.rest);
            self.rest = rest;
            let parts = self.sequence(depth + 1, &['|'])?;
            options.push(Choice { weight, parts });
            if self.skip("|") {
                continue;
            }
            if self.skip("}") {
                break;
            }
            return Err(format!("a '{{' that nothing closes, at '{}'", shown(from)));
        }
        Ok(Part::Variants(Variants { least, most, separator, options }))
    }

    /// `2$$`, `1-3$$`, `-3$$`, `1-$$`, each with a separator and `$$` behind it or not.
    fn bounds(&mut self) -> (usize, usize, String) {
        let whole = |text: &str| text.parse::<usize>().ok();
        let usual = (1, 1, String::new());
        let Some((bounds, rest)) = before_dollars(self.rest, |c| c.is_ascii_digit() || "- ".contains(c))
        else {
            return usual;
        };
        let bounds = bounds.trim();
        let bounds = match bounds.split_once('-') {
            None => whole(bounds).map(|count| (count, count)),
            Some(("", most)) => whole(most).map(|most| (most.min(1), most)),
            Some((least, "")) => whole(least).map(|least| (least, usize::MAX)),
            Some((least, most)) => whole(least).zip(whole(most)).map(|(a, b)| (a.min(b), a.max(b))),
        };
        let Some((least, most)) = bounds else { return usual };
        self.rest = rest;
        let separator = before_dollars(rest, |c| !"{}|$".contains(c));
        if let Some((_, rest)) = separator {
            self.rest = rest;
        }
        (least, most, separator.map_or_else(|| ", ".to_owned(), |(text, _)| text.to_owned()))
    }

    /// The name in `__name__`.
    fn wildcard(&mut self) -> Option<String> {
        let rest = self.rest.strip_prefix("__")?;
        let is_end = |place: usize| rest.get(place..).is_some_and(|rest| rest.starts_with("__"));
        let is_name = |c: char| c.is_alphanumeric() || "-_/*. ".contains(c);
        let letters = rest.char_indices().take_while(|(place, c)| !is_end(*place) && is_name(*c));
        let end = letters.take(LONGEST_NAME).last().map(|(place, c)| place + c.len_utf8())?;
        let (name, rest) = rest.split_at(end);
        let rest = rest.strip_prefix("__").filter(|_| !name.trim().is_empty())?;
        self.rest = rest;
        Some(name.trim().to_owned())
    }

    /// `${…}`; `None` if that is no variable.
    fn variable(&mut self, depth: usize) -> Result<Option<Part>, String> {
        let before = (self.rest, self.parts);
        self.take(2);
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let name = self.take(end).to_owned();
        let part = if name.is_empty() {
            None
        } else if self.skip("=") {
            let is_now = self.skip("!");
            let value = self.sequence(depth + 1, &[])?;
            Some(Part::Set { name, value, is_now })
        } else if self.skip(":") {
            let default = Some(self.sequence(depth + 1, &[])?);
            Some(Part::Get { name, default })
        } else {
            Some(Part::Get { name, default: None })
        };
        if part.is_some() && self.skip("}") {
            return Ok(part);
        }
        (self.rest, self.parts) = before;
        Ok(None)
    }
}

/// Parts, in which texts that lie side by side are one.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn text(&mut self, more: &str) {
        match self.0.last_mut() {
            Some(Part::Text(text)) => text.push_str(more),
            _ if more.is_empty() => (),
            _ => self.0.push(Part::Text(more.to_owned())),
        }
    }

    fn push(&mut self, part: Part) {
        self.0.push(part);
    }

    fn extend(&mut self, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Text(text) => self.text(&text),
                other => self.push(other),
            }
        }
    }

    fn done(self) -> Vec<Part> {
        self.0
    }
}

/// The beginning of a text, for an error.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(30).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn variants(least: usize, most: usize, separator: &str, options: &[(f64, Vec<Part>)]) -> Part {
        let options =
            options.iter().map(|(weight, parts)| Choice { weight: *weight, parts: parts.clone() }).collect();
        Part::Variants(Variants { least, most, separator: separator.to_owned(), options })
    }

    #[test]
    fn what_means_something_is_taken_apart() {
        let one = |options: &[(f64, Vec<Part>)]| variants(1, 1, "", options);
        let letters = |count: usize| -> Vec<(f64, Vec<Part>)> {
            ["a", "b", "c"].iter().take(count).map(|letter| (1.0, vec![text(letter)])).collect()
        };
        for (prompt, expected) in [
            ("", vec![]),
            ("a cat", vec![text("a cat")]),
            ("{a|b}", vec![one(&letters(2))]),
            ("x {a|b} y", vec![text("x "), one(&letters(2)), text(" y")]),
            ("{2::a|0.5::b}", vec![one(&[(2.0, vec![text("a")]), (0.5, vec![text("b")])])]),
            ("{a|}", vec![one(&[(1.0, vec![text("a")]), (1.0, vec![])])]),
            ("{a|{b|c}}", vec![one(&[(1.0, vec![text("a")]), (1.0, vec![one(&letters(3)[1..])])])]),
            ("{2$$a|b|c}", vec![variants(2, 2, ", ", &letters(3))]),
            ("{1-2$$ and $$a|b|c}", vec![variants(1, 2, " and ", &letters(3))]),
            ("{-2$$a|b}", vec![variants(1, 2, ", ", &letters(2))]),
            ("{2-$$a|b}", vec![variants(2, usize::MAX, ", ", &letters(2))]),
            ("{0$$a}", vec![variants(0, 0, ", ", &letters(1))]),
            ("__colour__", vec![Part::Wildcard("colour".into())]),
            ("a__warm/*__b", vec![text("a"), Part::Wildcard("warm/*".into()), text("b")]),
            ("a_b __ c", vec![text("a_b __ c")]),
            ("____", vec![text("____")]),
            (r"\{a|b\} \_\_c\_\_ \(d\) \\", vec![text(r"{a|b} __c__ \(d\) \\")]),
            (
                "[a|b] {[a|b]|c}",
                vec![text("[a|b] "), one(&[(1.0, vec![text("[a|b]")]), (1.0, vec![text("c")])])],
            ),
            ("{[a|b}", vec![one(&[(1.0, vec![text("[a")]), (1.0, vec![text("b")])])]),
            ("[{a|b}:c:0.5]", vec![text("["), one(&letters(2)), text(":c:0.5]")]),
            ("a # {b\nc", vec![text("a # {b\nc")]),
            ("$5 $", vec![text("$5 $")]),
        ] {
            assert_eq!(parse(prompt), Ok(expected), "{prompt}");
        }
        let set = |is_now| Part::Set { name: "x".into(), value: vec![one(&letters(2))], is_now };
        assert_eq!(parse("${x={a|b}}"), Ok(vec![set(false)]));
        assert_eq!(parse("${x=!{a|b}}"), Ok(vec![set(true)]));
        let get = |default| Part::Get { name: "x".into(), default };
        assert_eq!(parse("${x}"), Ok(vec![get(None)]));
        assert_eq!(parse("${x:a}"), Ok(vec![get(Some(vec![text("a")]))]));
        assert_eq!(parse_choice(" 3::a"), Ok(Choice { weight: 3.0, parts: vec![text("a")] }));
        assert_eq!(parse_choice("16:9"), Ok(Choice { weight: 1.0, parts: vec![text("16:9")] }));
    }

    #[test]
    fn what_cannot_be_meant_is_told_and_breaks_nothing() {
        for (prompt, expected) in [
            ("{a", "a '{' that nothing closes, at '{a'"),
            ("a}", "a '}' that nothing opens"),
            ("$5 ${", "that nothing closes"),
            ("{a|{b}", "that nothing closes"),
        ] {
            assert!(parse(prompt).expect_err(prompt).contains(expected), "{prompt}");
        }
        let deep = "{".repeat(100_000);
        assert_eq!(parse(&deep), Err("more than 32 levels within each other".into()));
        assert!(parse(&("[".repeat(100_000) + &"]".repeat(100_000))).is_err());
        assert!(parse(&"[".repeat(10_000)).is_ok(), "none of them is closed");
        assert!(parse(&"${x=".repeat(100_000)).is_err());
        assert!(parse(&"{a}".repeat(100_000)).is_err(), "too many");
        assert!(parse("{99999999999999999999$$a}").is_ok(), "a number that is none is text");
        // Whatever stands there.
        let letters = [
            "{", "}", "|", "$$", "::", "_", "__", "a", "1", "-", "\\", "[", "]", "${", "=", "!", ":", "#",
            "\n", "é",
        ];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut prompt = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                prompt.push_str(letters[(state >> 33) as usize % letters.len()]);
            }
            parse(&prompt).ok();
        }
    }
}
