//! From a prompt's parts to a text: by a seed, or one for each way to pick.

use std::collections::{BTreeMap, HashSet};

use crate::template::{Choice, Part, Variants, parse_choice};
use crate::wildcards::Wildcards;

/// Bytes of a text, and parts that are gone through for it.
const LONGEST: usize = 64 << 10;
const MOST_PARTS: usize = 100_000;
/// Wildcards and variables within each other.
const DEEPEST: usize = 32;

/// Says which of several is picked.
trait Picks {
    /// The place of one of these weights, which are not all 0.
    fn pick(&mut self, weights: &[f64]) -> usize;
}

/// By numbers that look random (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Picks for Random {
    fn pick(&mut self, weights: &[f64]) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        let mut left = share * weights.iter().sum::<f64>();
        let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
        for (place, weight) in weights.iter().enumerate() {
            if left < *weight {
                return place;
            }
            left -= weight;
        }
        last
    }
}

/// All ways to pick, one after the other, the last pick soonest.
#[derive(Default)]
struct Ways {
    /// Of each pick which it is, and how many there are.
    picks: Vec<(usize, usize)>,
    next: usize,
}

impl Picks for Ways {
    fn pick(&mut self, weights: &[f64]) -> usize {
        let possible: Vec<usize> = (0..weights.len()).filter(|place| weights[*place] > 0.0).collect();
        if self.next == self.picks.len() {
            self.picks.push((0, possible.len()));
        }
        let (which, _) = self.picks[self.next];
        self.next += 1;
        possible.get(which).copied().unwrap_or(0)
    }
}

impl Ways {
    /// Goes on to the next; whether there is one.
    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((which, count)) = self.picks.pop() {
            if which + 1 < count {
                self.picks.push((which + 1, count));
                return true;
            }
        }
        false
    }
}

/// The text that a seed picks.
pub fn by_seed(parts: &[Part], seed: u64, wildcards: &Wildcards) -> Result<String, String> {
    let mut text = Text::new(wildcards);
    text.add(parts, &mut Random(seed), 0)?;
    Ok(text.text)
}

/// The first `most` different texts of all.
pub fn all(parts: &[Part], most: usize, wildcards: &Wildcards) -> Result<Vec<String>, String> {
    let (mut ways, mut seen, mut texts) = (Ways::default(), HashSet::new(), vec![]);
    // Many ways may lead to one text.
    for _ in 0..most.saturating_mul(16) {
        let mut text = Text::new(wildcards);
        text.add(parts, &mut ways, 0)?;
        if seen.insert(text.text.clone()) {
            texts.push(text.text);
        }
        if texts.len() >= most || !ways.advance() {
            break;
        }
    }
    Ok(texts)
}

struct Text<'a> {
    wildcards: &'a Wildcards,
    text: String,
    parts: usize,
    variables: BTreeMap<String, Vec<Part>>,
}

impl<'a> Text<'a> {
    fn new(wildcards: &'a Wildcards) -> Self {
        Self { wildcards, text: String::new(), parts: 0, variables: BTreeMap::new() }
    }

    fn add(&mut self, parts: &[Part], picks: &mut dyn Picks, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!(
                "wildcards, variables and variants are more than {DEEPEST} levels within each other"
            ));
        }
        for part in parts {
            self.parts += 1;
            if self.parts > MOST_PARTS || self.text.len() > LONGEST {
                return Err(format!(
                    "what comes of it is longer than {LONGEST} bytes, or of more than {MOST_PARTS} parts"
                ));
            }
            match part {
                Part::Text(text) => self.text.push_str(text),
                Part::Variants(variants) => self.variants(variants, picks, depth)?,
                Part::Wildcard(name) => self.wildcard(name, picks, depth)?,
                Part::Set { name, value, is_now: false } => {
                    self.variables.insert(name.clone(), value.clone());
                }
                Part::Set { name, value, is_now: true } => {
                    let settled = self.apart(value, picks, depth)?;
                    self.variables.insert(name.clone(), vec![Part::Text(settled)]);
                }
                Part::Get { name, default } => match (self.variables.get(name).cloned(), default) {
                    (Some(value), _) => self.add(&value, picks, depth + 1)?,
                    (None, Some(value)) => self.add(value, picks, depth + 1)?,
                    (None, None) => return Err(format!("the variable '{name}' is read before it is set")),
                },
            }
        }
        Ok(())
    }

    /// A text beside the one that is being made.
    fn apart(&mut self, parts: &[Part], picks: &mut dyn Picks, depth: usize) -> Result<String, String> {
        let before = std::mem::take(&mut self.text);
        let done = self.add(parts, picks, depth + 1);
        let made = std::mem::replace(&mut self.text, before);
        done.map(|()| made)
    }

    fn variants(&mut self, variants: &Variants, picks: &mut dyn Picks, depth: usize) -> Result<(), String> {
        // Several of one wildcard are several of its texts.
        let of_wildcard = match (&variants.options[..], variants.most) {
            ([Choice { parts, .. }], 2..) => match &parts[..] {
                [Part::Wildcard(name)] => self.choices(name)?,
                _ => None,
            },
            _ => None,
        };
        let options = of_wildcard.as_ref().unwrap_or(&variants.options);
        let mut weights: Vec<f64> = options.iter().map(|option| option.weight).collect();
        let possible = weights.iter().filter(|weight| **weight > 0.0).count();
        let (least, most) = (variants.least.min(possible), variants.most.min(possible));
        let count = least + if most > least { picks.pick(&vec![1.0; most - least + 1]) } else { 0 };
        for number in 0..count {
            let place = picks.pick(&weights);
            // Each once.
            weights[place] = 0.0;
            if number > 0 {
                self.text.push_str(&variants.separator);
            }
            if let Some(option) = options.get(place) {
                self.add(&option.parts, picks, depth + 1)?;
            }
        }
        Ok(())
    }

    /// A wildcard's texts, if there are any.
    fn choices(&self, name: &str) -> Result<Option<Vec<Choice>>, String> {
        let texts = self.wildcards.texts(name);
        if texts.is_empty() {
            return Ok(None);
        }
        let choice = |text: &&str| parse_choice(text).map_err(|error| format!("wildcard '{name}': {error}"));
        texts.iter().map(choice).collect::<Result<Vec<_>, _>>().map(Some)
    }

    fn wildcard(&mut self, name: &str, picks: &mut dyn Picks, depth: usize) -> Result<(), String> {
        match self.choices(name)? {
            Some(choices) => {
                let weights: Vec<f64> = choices.iter().map(|choice| choice.weight).collect();
                match choices.get(picks.pick(&weights)) {
                    Some(choice) => self.add(&choice.parts, picks, depth + 1),
                    None => Ok(()),
                }
            }
            None => {
                // As it was written; who asked is told.
                self.text.push_str(&format!("__{name}__"));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::parse;

    fn wildcards() -> Wildcards {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Wildcards::of([
            ("colour".to_owned(), texts(&["red", "blue", "{light|dark} green"])),
            ("animal/wild".to_owned(), texts(&["fox"])),
            ("animal/tame".to_owned(), texts(&["cat", "dog"])),
            ("round".to_owned(), texts(&["__round__"])),
        ])
    }

    fn ways(prompt: &str, most: usize) -> Vec<String> {
        all(&parse(prompt).expect(prompt), most, &wildcards()).expect(prompt)
    }

    #[test]
    fn all_ways_are_gone_through_in_their_order() {
        for (prompt, expected) in [
            ("a", vec!["a"]),
            ("{a|b} {c|d}", vec!["a c", "a d", "b c", "b d"]),
            ("{a|a|b}", vec!["a", "b"]),
            ("{0::a|b}", vec!["b"]),
            ("{2$$a|b|c}", vec!["a, b", "a, c", "b, a", "b, c", "c, a", "c, b"]),
            ("{0-1$$+$$a|b}", vec!["", "a", "b"]),
            ("{5$$ and $$a|b}", vec!["a and b", "b and a"]),
            ("__colour__", vec!["red", "blue", "light green", "dark green"]),
            ("__animal/*__", vec!["cat", "dog", "fox"]),
            ("{2$$__animal/tame__}", vec!["cat, dog", "dog, cat"]),
            ("__none__", vec!["__none__"]),
            ("${x=!{a|b}}${x}${x}", vec!["aa", "bb"]),
            ("${x={a|b}}${x}${x}", vec!["aa", "ab", "ba", "bb"]),
            ("${y:{a|b}}", vec!["a", "b"]),
        ] {
            assert_eq!(ways(prompt, 100), expected, "{prompt}");
        }
        assert_eq!(ways("{a|b|c|d}{a|b|c|d}{a|b|c|d}", 3), ["aaa", "aab", "aac"]);
    }

    #[test]
    fn a_seed_picks_the_same_each_time_and_weights_count() {
        let parts = parse("{3::a|b} {x|y|z}").expect("parsed");
        let picked = |seed| by_seed(&parts, seed, &wildcards()).expect("picked");
        let mut counts = BTreeMap::<String, usize>::new();
        for seed in 0..4000 {
            assert_eq!(picked(seed), picked(seed));
            *counts.entry(picked(seed)).or_default() += 1;
        }
        assert_eq!(counts.len(), 6);
        for (text, count) in counts {
            let expected = if text.starts_with('a') { 1000 } else { 333 };
            assert!(count.abs_diff(expected) < expected / 5, "{text}: {count}");
        }
    }

    #[test]
    fn what_never_ends_is_refused() {
        for prompt in ["__round__", "${x=${x}}${x}", "${x=${x} ${x}}${x}"] {
            let parts = parse(prompt).expect(prompt);
            let error = by_seed(&parts, 1, &wildcards()).expect_err(prompt);
            assert!(error.contains("levels within each other"), "{error}");
            assert!(all(&parts, 10, &wildcards()).is_err());
        }
        // Twice as long thirty times over.
        let mut bomb = "${a=0123456789}".to_owned();
        for letter in 'b'..='z' {
            let before = char::from(letter as u8 - 1);
            bomb.push_str(&format!("${{{letter}=!${{{before}}}${{{before}}}}}"));
        }
        let error = by_seed(&parse(&(bomb + "${z}")).expect("parsed"), 1, &wildcards()).expect_err("a bomb");
        assert!(error.contains("longer than"), "{error}");
        assert!(
            by_seed(&parse("${x}").expect("parsed"), 1, &wildcards())
                .is_err_and(|error| error.contains("'x'"))
        );
    }
}
