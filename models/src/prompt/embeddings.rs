//! Embeddings by name: which of them a prompt mentions, and where.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::emphasis::Piece;
use super::reading::Reading;
use super::tokenizer::tokenize;
use crate::adapters::Embedding;
use crate::{Error, Result};

/// Embeddings that a prompt may name. A name is found by its tokens, as A1111 finds it: letter case and some white space
/// make no difference, and a name at a word's end is found where the word's tokens end so. Where several begin at one place, that of the most tokens counts;
/// of those with the same tokens the first.
#[derive(Clone, Debug, Default)]
pub struct Embeddings {
    named: Vec<(String, Arc<Embedding>)>,
    names: Names,
}

impl PartialEq for Embeddings {
    fn eq(&self, other: &Self) -> bool {
        self.named == other.named
    }
}

impl Embeddings {
    /// These, by their names. A name without tokens, such as white space alone, is never found.
    pub fn new(named: impl IntoIterator<Item = (String, Arc<Embedding>)>) -> Result<Self> {
        let named: Vec<_> = named.into_iter().collect();
        let names = Names::new(named.iter().map(|(name, _)| name.as_str()))?;
        Ok(Self { named, names })
    }

    /// They and their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Embedding)> {
        self.named.iter().map(|(name, embedding)| (name.as_str(), &**embedding))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The names of those that stand in a prompt, in the order of their first use.
    pub fn used_in(&self, prompt: &str, reading: &Reading) -> Result<Vec<&str>> {
        Ok(self.used([prompt], reading)?.into_iter().map(|(name, _)| name).collect())
    }

    /// Those that are for a text encoder of this width; the names of others are words to it.
    pub(crate) fn fitting(&self, width: usize) -> Result<Self> {
        let fits = |(_, embedding): &&(String, Arc<Embedding>)| embedding.misfit(width).is_none();
        Self::new(self.named.iter().filter(fits).cloned())
    }

    /// Whether all of them are.
    pub(crate) fn all_fit(&self, width: usize) -> bool {
        self.named.iter().all(|(_, embedding)| embedding.misfit(width).is_none())
    }

    /// An error that names one that stands in these texts and is not for a text encoder of this width.
    pub(crate) fn check(&self, texts: &[String], reading: &Reading, width: usize) -> Result<()> {
        let used = self.used(texts, reading)?;
        let wrong = used.into_iter().find_map(|(name, embedding)| Some((name, embedding.misfit(width)?)));
        match wrong {
            Some((name, why)) => Err(Error::Request(format!("embedding '{name}' {why}"))),
            None => Ok(()),
        }
    }

    /// What tells texts with those that stand in them from the same texts with others; `None` if none does.
    pub(crate) fn digest(&self, texts: &[String], reading: &Reading) -> Result<Option<[u8; 32]>> {
        let used = self.used(texts, reading)?;
        if used.is_empty() {
            return Ok(None);
        }
        // With the names: they say which of them is where.
        let mut hasher = Sha256::new();
        for (name, embedding) in used {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(embedding.digest());
        }
        Ok(Some(hasher.finalize().into()))
    }

    /// The name of the one that has this vector.
    pub(super) fn name_of(&self, vector: &Arc<[f32]>) -> Option<&str> {
        let has = |embedding: &Embedding| embedding.vectors().iter().any(|own| Arc::ptr_eq(own, vector));
        self.named.iter().find(|(_, embedding)| has(embedding)).map(|(name, _)| name.as_str())
    }

    /// The one whose name these tokens begin with, and the number of its tokens.
    pub(super) fn at(&self, tokens: &[u32]) -> Option<(&Embedding, usize)> {
        let (place, count) = self.place_at(tokens)?;
        Some((&*self.named.get(place)?.1, count))
    }

    fn place_at(&self, tokens: &[u32]) -> Option<(usize, usize)> {
        let (places, count) = self.names.beginning(tokens).last()?;
        Some((*places.first()?, count))
    }

    fn used(
        &self,
        texts: impl IntoIterator<Item: AsRef<str>>,
        reading: &Reading,
    ) -> Result<Vec<(&str, &Embedding)>> {
        let (mut used, mut seen) = (vec![], HashSet::new());
        if self.is_empty() {
            return Ok(used);
        }
        for text in texts {
            for tokens in tokens_of_pieces(text.as_ref(), reading)? {
                let mut rest = &tokens[..];
                while !rest.is_empty() {
                    let found = self.place_at(rest);
                    if let Some((name, embedding)) = found
                        .filter(|(place, _)| seen.insert(*place))
                        .and_then(|(place, _)| self.named.get(place))
                    {
                        used.push((name.as_str(), &**embedding));
                    }
                    rest = rest.get(found.map_or(1, |(_, count)| count)..).unwrap_or_default();
                }
            }
        }
        Ok(used)
    }
}

/// The names of a whole library's embeddings, none of which is read for it.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingNames(Names);

impl EmbeddingNames {
    /// These names, in this order.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        Names::new(names).map(Self)
    }

    /// Which of them, by their places in the order that they were given in, stand anywhere in a prompt: those that
    /// [`Embeddings`] of them all would find, and those that it would find if others were not there. Sorted.
    pub fn mentioned(&self, prompt: &str, reading: &Reading) -> Result<Vec<usize>> {
        if self.0.is_empty() {
            return Ok(vec![]);
        }
        let mut found = HashSet::new();
        for tokens in tokens_of_pieces(prompt, reading)? {
            for start in 0..tokens.len() {
                let ends = self.0.beginning(tokens.get(start..).unwrap_or_default());
                found.extend(ends.flat_map(|(places, _)| places));
            }
        }
        let mut found: Vec<usize> = found.into_iter().copied().collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Those that [`Embeddings`] of the ones which `counts` says yes to would find in a prompt, by their places, in the order of
    /// their first use.
    pub fn used(
        &self,
        prompt: &str,
        reading: &Reading,
        counts: impl Fn(usize) -> bool,
    ) -> Result<Vec<usize>> {
        let mut used = vec![];
        if self.0.is_empty() {
            return Ok(used);
        }
        for tokens in tokens_of_pieces(prompt, reading)? {
            let mut rest = &tokens[..];
            while !rest.is_empty() {
                let counting = self.0.beginning(rest).filter_map(|(places, count)| {
                    Some((*places.iter().find(|place| counts(**place))?, count))
                });
                let found = counting.last();
                used.extend(found.map(|(place, _)| place).filter(|place| !used.contains(place)));
                rest = rest.get(found.map_or(1, |(_, count)| count)..).unwrap_or_default();
            }
        }
        Ok(used)
    }
}

/// A prompt's tokens: no name reaches from one stretch of emphasis into another.
fn tokens_of_pieces(prompt: &str, reading: &Reading) -> Result<Vec<Vec<u32>>> {
    let pieces = reading.pieces(prompt)?.into_iter().filter_map(|piece| match piece {
        Piece::Text(text, _) => Some(text),
        Piece::Break => None,
    });
    pieces.map(|text| tokenize(&text)).collect()
}

/// Names as paths of tokens, so that the time to look one up is that for its tokens, however many there are.
#[derive(Clone, Debug, Default)]
struct Names {
    /// From a node and a token to the next node. The first node is 0.
    next: HashMap<(u32, u32), u32>,
    /// Places of the names that end at each node, in the order of all names.
    ends: HashMap<u32, Vec<usize>>,
}

impl Names {
    fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut all = Self::default();
        for (place, name) in names.into_iter().enumerate() {
            let tokens = tokenize(name)?;
            if tokens.is_empty() {
                continue;
            }
            let mut node = 0;
            for token in tokens {
                let free = all.next.len() as u32 + 1;
                node = *all.next.entry((node, token)).or_insert(free);
            }
            all.ends.entry(node).or_default().push(place);
        }
        Ok(all)
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The names that these tokens begin with, those of fewer tokens first: places, and the number of tokens.
    fn beginning(&self, tokens: &[u32]) -> impl Iterator<Item = (&Vec<usize>, usize)> {
        let nodes = tokens.iter().scan(0, |node, token| {
            *node = *self.next.get(&(*node, *token))?;
            Some(*node)
        });
        nodes.zip(1..).filter_map(|(node, count)| Some((self.ends.get(&node)?, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::from_bytes;

    fn embedding(first: f32) -> Arc<Embedding> {
        let header = r#"{"emb_params":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}"#;
        let bytes =
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &first.to_le_bytes()].concat();
        Arc::new(Embedding::of(&from_bytes("x", bytes).expect("sound")).expect("an embedding"))
    }

    fn embeddings(names: &[&str]) -> Embeddings {
        let named =
            names.iter().zip(0u8..).map(|(name, place)| ((*name).to_owned(), embedding(place.into())));
        Embeddings::new(named).expect("named")
    }

    #[test]
    fn names_are_found_by_their_tokens() {
        type Texts = &'static [&'static str];
        // Names, a prompt, what is used, what is mentioned.
        let rows: &[(Texts, &str, Texts, &[usize])] = &[
            (&[], "a cat", &[], &[]),
            (&["cat"], "a dog", &[], &[]),
            (&["cat"], "a cat, a cat", &["cat"], &[0]),
            (&["Cat"], "a CAT", &["Cat"], &[0]),
            (&["cat"], "a bobcat, concatenate", &[], &[]),
            (&["cat"], "cat's (cat:1.2)", &["cat"], &[0]),
            // The longest in tokens, whatever the order.
            (&["cat", "cat house"], "a cat house", &["cat house"], &[0, 1]),
            (&["cat house", "cat"], "a cat house with a cat", &["cat house", "cat"], &[0, 1]),
            (&["cat house", "house of"], "a cat house of", &["cat house"], &[0, 1]),
            // One of two that are the same to the tokenizer, and both might be meant.
            (&["cat", "CAT"], "a cat", &["cat"], &[0, 1]),
            // Not across pieces.
            (&["cat house"], "cat (house:1.2)", &[], &[]),
            (&["cat house"], "cat BREAK house", &[], &[]),
            (&["cat house"], "(cat  house)", &["cat house"], &[0]),
            // Order of first use.
            (&["a1", "b2"], "b2, a1, b2", &["b2", "a1"], &[0, 1]),
            (&["bad-hands_v2 (1)"], r"x bad-hands_v2 \(1\)", &["bad-hands_v2 (1)"], &[0]),
            // Names that are no tokens.
            (&["", " ", "\u{345}", "cat"], "a \u{345} cat", &["cat"], &[3]),
        ];
        let reading = Reading::default();
        for (names, prompt, used, mentioned) in rows {
            assert_eq!(
                embeddings(names).used_in(prompt, &reading).expect("read"),
                *used,
                "{names:?} in {prompt}"
            );
            let all = EmbeddingNames::new(names.iter().copied()).expect("named");
            assert_eq!(all.mentioned(prompt, &reading).expect("read"), *mentioned, "{names:?} in {prompt}");
        }
    }

    #[test]
    fn the_same_prompt_with_other_embeddings_is_told_apart() {
        let digest = |named: &[(&str, f32)], prompt| {
            let named = named.iter().map(|(name, first)| ((*name).to_owned(), embedding(*first)));
            Embeddings::new(named)
                .expect("named")
                .digest(&[String::from(prompt)], &Reading::default())
                .expect("read")
        };
        assert_eq!(digest(&[], "a b a"), None);
        assert_eq!(digest(&[("cat", 1.0)], "a b a"), None, "none of them is used");
        let all = [
            digest(&[("a", 1.0)], "a b a"),
            digest(&[("b", 1.0)], "a b a"),
            digest(&[("a", 2.0)], "a b a"),
            digest(&[("a", 1.0), ("b", 2.0)], "a b a"),
            digest(&[("a", 2.0), ("b", 1.0)], "a b a"),
            digest(&[("a b", 1.0)], "a b a"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(one.is_some() && !all[..place].contains(one), "{place}");
        }
        let more = digest(&[("a", 1.0), ("cat", 5.0)], "a b a");
        assert_eq!(more, all[0], "others that are not used make no difference");
    }

    /// Looking one up takes the time for its tokens, not for all names.
    #[test]
    fn a_whole_library_of_names_costs_a_prompt_nothing() {
        let names: Vec<String> = (0..5_000).map(|index| format!("style {index}")).collect();
        let names = EmbeddingNames::new(names.iter().map(String::as_str)).expect("named");
        let prompt = "style ".repeat(5_000) + "style 7";
        assert_eq!(names.mentioned(&prompt, &Reading::default()).expect("read"), [7]);
    }
}
