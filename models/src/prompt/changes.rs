//! What in a prompt changes from step to step: `[from:to:when]`, `[to:when]`, `[from::when]`, and turns, `[a|b]`.
//!
//! The grammar is A1111's. There a parser for ambiguous grammars reads it. Of a prompt whose brackets all have partners it
//! makes one thing; of one that has stray brackets beside such changes it makes, by chance, one of several. Here brackets
//! that can have a meaning have it, and the others are text, which is one of those several.

use std::ops::Range;

use crate::python::is_space;

/// A prompt, and where something changes in it.
#[derive(Clone, Debug)]
pub(super) struct Changes<'a> {
    text: &'a str,
    /// In the order in which they begin. One may stand in another.
    found: Vec<Change>,
}

/// A bracket that stands for a part of what is in it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// All of it, with its brackets.
    pub place: Range<usize>,
    pub kind: Kind,
}

/// What a bracket stands for.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// One text up to a step, another behind it.
    Schedule { before: Range<usize>, after: Range<usize>, when: Range<usize> },
    /// These texts in turn.
    Turns(Vec<Range<usize>>),
}

/// What a bracket with a partner means.
enum Meaning {
    /// Its words weigh more or less.
    Emphasis,
    Change(Kind),
}

/// A bracket whose partner is not found yet. Signs count that stand in it, but not in brackets within it.
struct Open {
    is_round: bool,
    place: usize,
    colons: usize,
    /// The first one and the last one.
    colon: [usize; 2],
    /// How many bars of brackets around it there are.
    bars: usize,
}

impl<'a> Changes<'a> {
    /// Reads a prompt in time linear in its length. One that the grammar does not allow, for a `|` that stands in no turns or
    /// a `\` before nothing, is text.
    pub(super) fn of(text: &'a str) -> Self {
        let found = read(text).unwrap_or_default();
        Self { text, found }
    }

    /// Whether the grammar allows a prompt.
    pub(super) fn is_read(text: &str) -> bool {
        read(text).is_some()
    }

    /// Those that there are.
    pub(super) fn found(&self) -> &[Change] {
        &self.found
    }

    /// How one stands in the prompt.
    pub(super) fn written(&self, place: &Range<usize>) -> &'a str {
        self.text.get(place.clone()).unwrap_or_default()
    }

    /// The stretches of text that `choose` leaves: it says which of a change's texts counts, given its index too.
    pub(super) fn stretches(&self, choose: impl Fn(usize, &Change) -> Range<usize>) -> Vec<&'a str> {
        let mut stretches = vec![];
        let mut changes = self.found.iter().enumerate().peekable();
        // Ends of the texts that are chosen, and where it goes on behind their brackets.
        let mut around: Vec<(usize, usize)> = vec![];
        let mut place = 0;
        loop {
            while changes.peek().is_some_and(|(_, change)| change.place.start < place) {
                changes.next();
            }
            let end = around.last().map_or(self.text.len(), |(end, _)| *end);
            if let Some((index, change)) = changes.next_if(|(_, change)| change.place.start < end) {
                stretches.push(self.written(&(place..change.place.start)));
                let chosen = choose(index, change);
                around.push((chosen.end, change.place.end));
                place = chosen.start;
            } else {
                stretches.push(self.written(&(place..end)));
                match around.pop() {
                    Some((_, behind)) => place = behind,
                    None => return stretches,
                }
            }
        }
    }
}

/// `None` if the grammar does not allow it.
fn read(text: &str) -> Option<Vec<Change>> {
    let mut found = vec![];
    let mut open: Vec<Open> = vec![];
    // Those of all open brackets, the inner ones' behind the outer ones'.
    let mut bars: Vec<usize> = vec![];
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next().filter(|(_, escaped)| *escaped != '\n')?;
            }
            '(' | '[' => {
                let is_round = character == '(';
                open.push(Open { is_round, place, colons: 0, colon: [place; 2], bars: bars.len() });
            }
            ':' => {
                if let Some(bracket) = open.last_mut() {
                    if bracket.colons == 0 {
                        bracket.colon[0] = place;
                    }
                    bracket.colon[1] = place;
                    bracket.colons += 1;
                }
            }
            '|' => {
                open.last()?;
                bars.push(place);
            }
            ')' | ']' => {
                let partner = open.pop().filter(|bracket| bracket.is_round == (character == ')'));
                let own = partner.as_ref().and_then(|bracket| bars.get(bracket.bars..)).unwrap_or_default();
                match partner.as_ref().and_then(|bracket| bracket.meaning(own, text, place)) {
                    Some(meaning) => {
                        bars.truncate(bars.len() - own.len());
                        let start = partner.map_or(place, |bracket| bracket.place);
                        if let Meaning::Change(kind) = meaning {
                            found.push(Change { place: start..place + 1, kind });
                        }
                    }
                    // It is text, and with it all brackets that stand around it.
                    None if bars.is_empty() => open.clear(),
                    None => return None,
                }
            }
            _ => (),
        }
    }
    if !bars.is_empty() {
        return None;
    }
    found.sort_by_key(|change: &Change| change.place.start);
    Some(found)
}

impl Open {
    /// What it means with a partner at `end` and these bars in it; `None` if it means nothing.
    fn meaning(&self, bars: &[usize], text: &str, end: usize) -> Option<Meaning> {
        let start = self.place + 1;
        let [first, last] = self.colon;
        match (self.is_round, self.colons, bars.len()) {
            (true, 0 | 1, 0) | (false, 0, 0) => Some(Meaning::Emphasis),
            (false, 0, 1..) => {
                let starts = std::iter::once(start).chain(bars.iter().map(|bar| bar + 1));
                let ends = bars.iter().copied().chain([end]);
                let texts = starts.zip(ends).map(|(start, end)| start..end).collect();
                Some(Meaning::Change(Kind::Turns(texts)))
            }
            (false, 1 | 2, 0) => {
                let when = number(text, last + 1..end)?;
                let before = if self.colons == 2 { start..first } else { start..start };
                let after = if self.colons == 2 { first + 1..last } else { start..first };
                Some(Meaning::Change(Kind::Schedule { before, after, when }))
            }
            _ => None,
        }
    }
}

/// Where the number stands that fills a place but for white space around it.
fn number(text: &str, place: Range<usize>) -> Option<Range<usize>> {
    let all = text.get(place.clone())?;
    let behind = all.trim_start_matches(is_space);
    let number = behind.trim_end_matches(is_space);
    let start = place.start + all.len() - behind.len();
    is_number(number).then_some(start..start + number.len())
}

/// Whether it is one as the grammar writes them: `5`, `-.5`, `+1.`, `1e-3`.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = digits(unsigned);
    let rest = unsigned.get(whole..).unwrap_or_default();
    let (decimals, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let exponent = rest.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
    let ends = exponent.map_or(rest.is_empty(), |power| !power.is_empty() && digits(power) == power.len());
    ends && (whole > 0 || !decimals.is_empty())
}
