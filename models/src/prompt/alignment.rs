//! Which bytes of a text are where it was cleaned.

use std::ops::Range;

/// Bytes of a text by those of what became of it. Where both have as many characters, one became the other; else where
/// they have as many words, these; else all is of all.
pub(super) struct Alignment {
    /// Ascending, without gaps in what became of the text: where each part begins there, and what it is of.
    parts: Vec<(usize, Source)>,
    /// The bytes of the text.
    whole: usize,
}

/// What a part is of.
enum Source {
    /// The same bytes, from here on.
    Same(usize),
    /// These together.
    All(Range<usize>),
}

impl Alignment {
    pub(super) fn new(source: &str, cleaned: &str) -> Self {
        let mut alignment = Self { parts: vec![], whole: source.len() };
        if source.len() == cleaned.len() && source.is_ascii() && cleaned.is_ascii() {
            alignment.parts.push((0, Source::Same(0)));
        } else if !alignment.characters((source, 0), (cleaned, 0)) {
            alignment.words(source, cleaned);
        }
        alignment
    }

    /// One by one, if there are as many; each with where it begins in its whole.
    fn characters(&mut self, source: (&str, usize), cleaned: (&str, usize)) -> bool {
        if source.0.chars().count() != cleaned.0.chars().count() {
            return false;
        }
        for ((from, of), (to, _)) in source.0.char_indices().zip(cleaned.0.char_indices()) {
            let from = source.1 + from;
            self.parts.push((cleaned.1 + to, Source::All(from..from + of.len_utf8())));
        }
        true
    }

    /// One by one, if there are as many.
    fn words(&mut self, source: &str, cleaned: &str) {
        let (from, to) = (words(source), words(cleaned));
        if from.len() != to.len() {
            self.parts.push((0, Source::All(0..source.len())));
            return;
        }
        for (from, to) in from.into_iter().zip(to) {
            let (of, became) = (&source[from.clone()], &cleaned[to.clone()]);
            if !self.characters((of, from.start), (became, to.start)) {
                self.parts.push((to.start, Source::All(from)));
            }
        }
    }

    /// What bytes of what became of it are of.
    pub(super) fn source(&self, cleaned: &Range<usize>) -> Range<usize> {
        let first = self.of(cleaned.start);
        let last = self.of(cleaned.end.saturating_sub(1).max(cleaned.start));
        let range = first.start.min(last.start)..first.end.max(last.end);
        range.start.min(self.whole)..range.end.min(self.whole)
    }

    /// The bytes that one is of.
    fn of(&self, at: usize) -> Range<usize> {
        let behind = self.parts.partition_point(|(start, _)| *start <= at);
        match behind.checked_sub(1).and_then(|place| self.parts.get(place)) {
            Some((start, Source::Same(from))) => from + at - start..from + at - start + 1,
            Some((_, Source::All(bytes))) => bytes.clone(),
            None => 0..self.whole,
        }
    }
}

/// What stands between white space.
fn words(text: &str) -> Vec<Range<usize>> {
    let place = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace().map(|word| place(word)..place(word) + word.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_of_some() {
        // A text, what became of it, a part of that, what that is of.
        for (source, cleaned, part, expected) in [
            ("A Cat", "a cat", "cat", "Cat"),
            ("a CAFÉ now", "a café now", "é", "É"),
            // More characters, of one word.
            ("a İ dog", "a i\u{307} dog", "i", "İ"),
            ("a İ dog", "a i\u{307} dog", "dog", "dog"),
            ("don&amp;t go", "don&t go", "&", "don&amp;t"),
            ("don&amp;t go", "don&t go", "go", "go"),
            // More words.
            ("a…b ½", "a... b 1/2", "b", "a…b ½"),
        ] {
            let start = cleaned.find(part).expect("there");
            let found = Alignment::new(source, cleaned).source(&(start..start + part.len()));
            assert_eq!(source.get(found), Some(expected), "{part} in {source}");
        }
        assert_eq!(Alignment::new("", "").source(&(0..0)), 0..0);
    }
}
