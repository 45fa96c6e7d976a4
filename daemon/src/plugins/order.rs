//! The order of the plugins that share a stage. Pure: who is there, and what each asks for, comes in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::manifest::Place;

/// A plugin on a stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub name: &'a str,
    pub place: Place,
    /// Names of plugins that come before it, and of those that come after it, where they are there.
    pub after: &'a [String],
    pub before: &'a [String],
}

/// Plugins that each ask to come before the next, and the last before the first. Begins with the first by name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugins' order goes round: {}; mend 'after' or 'before' in one of their manifests", round(.0))]
pub(crate) struct Cycle(pub Vec<String>);

fn round(names: &[String]) -> String {
    let quoted = names.iter().chain(names.first()).map(|name| format!("'{name}'"));
    quoted.collect::<Vec<_>>().join(" before ")
}

/// The chain, the outermost first: the names in their order.
///
/// `after` and `before` always hold. Beside that the outermost come first and the innermost last; who must come before
/// a plugin that stands further out stands as far out as that one. Ties are decided by name, so the order in which the
/// plugins were found does not matter.
pub(crate) fn order<'a>(members: &[Member<'a>]) -> Result<Vec<&'a str>, Cycle> {
    let members: BTreeMap<&str, Member<'a>> = members.iter().map(|member| (member.name, *member)).collect();
    let mut followers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for member in members.values() {
        let earlier = member.after.iter().map(|other| (other.as_str(), member.name));
        let later = member.before.iter().map(|other| (member.name, other.as_str()));
        for (first, second) in earlier.chain(later) {
            if members.contains_key(first) && members.contains_key(second) {
                followers.entry(first).or_default().insert(second);
            }
        }
    }
    let after = |name: &str| followers.get(name).into_iter().flatten().copied();
    // From the inside out, so that who stands before another is seen with the place that this one came to have.
    let inside_out = sort(&members, &after, |_| 0)?.into_iter().rev();
    let mut places: BTreeMap<&str, u8> = BTreeMap::new();
    for name in inside_out {
        let own = members.get(name).map_or(0, |member| rank(member.place));
        let place = after(name).filter_map(|later| places.get(later).copied()).fold(own, u8::min);
        places.insert(name, place);
    }
    sort(&members, &after, |name| places.get(name).copied().unwrap_or(0))
}

fn rank(place: Place) -> u8 {
    match place {
        Place::Outermost => 0,
        Place::Usual => 1,
        Place::Innermost => 2,
    }
}

/// Each name before those that come `after` it; among those that may be next, by place and name.
fn sort<'a, Later: Iterator<Item = &'a str>>(
    members: &BTreeMap<&'a str, Member<'a>>,
    after: &impl Fn(&str) -> Later,
    place: impl Fn(&str) -> u8,
) -> Result<Vec<&'a str>, Cycle> {
    let mut waits_for: BTreeMap<&str, usize> = members.keys().map(|name| (*name, 0)).collect();
    for later in members.keys().flat_map(|name| after(name)) {
        waits_for.entry(later).and_modify(|count| *count += 1);
    }
    let free = waits_for.iter().filter(|(_, count)| **count == 0);
    let mut next: BinaryHeap<_> = free.map(|(name, _)| Reverse((place(name), *name))).collect();
    let mut sorted = Vec::with_capacity(members.len());
    while let Some(Reverse((_, name))) = next.pop() {
        sorted.push(name);
        waits_for.remove(name);
        for later in after(name) {
            if let Some(count) = waits_for.get_mut(later) {
                *count -= 1;
                if *count == 0 {
                    next.push(Reverse((place(later), later)));
                }
            }
        }
    }
    if waits_for.is_empty() { Ok(sorted) } else { Err(find_cycle(&waits_for, after)) }
}

/// A cycle among those that were never free.
fn find_cycle<'a, Later: Iterator<Item = &'a str>>(
    stuck: &BTreeMap<&'a str, usize>,
    after: &impl Fn(&str) -> Later,
) -> Cycle {
    // Each of them has one before it that is stuck too, so going from one to such a one comes round.
    let earlier = |name: &str| stuck.keys().copied().find(|other| after(other).any(|later| later == name));
    let mut path: Vec<&str> = Vec::new();
    let mut here = stuck.keys().next().copied();
    while let Some(name) = here {
        if let Some(start) = path.iter().position(|passed| *passed == name) {
            path.drain(..start);
            break;
        }
        path.push(name);
        here = earlier(name);
    }
    path.reverse();
    let first = path.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(index, _)| index);
    path.rotate_left(first);
    Cycle(path.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Plugin {
        name: String,
        place: Place,
        after: Vec<String>,
        before: Vec<String>,
    }

    impl Plugin {
        fn member(&self) -> Member<'_> {
            Member { name: &self.name, place: self.place, after: &self.after, before: &self.before }
        }
    }

    /// From "name", "name!" (outermost) or "name." (innermost), with ">x" for before x and "<x" for after x.
    fn plugin(text: &str) -> Plugin {
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        let place = match name.chars().last() {
            Some('!') => Place::Outermost,
            Some('.') => Place::Innermost,
            _ => Place::Usual,
        };
        let words: Vec<_> = words.collect();
        let of = |sign| words.iter().filter_map(|word| word.strip_prefix(sign)).map(str::to_owned).collect();
        Plugin { name: name.trim_end_matches(['!', '.']).to_owned(), place, after: of('<'), before: of('>') }
    }

    fn ordered(plugins: &[Plugin]) -> Result<Vec<&str>, Cycle> {
        order(&plugins.iter().map(Plugin::member).collect::<Vec<_>>())
    }

    #[test]
    fn places_names_and_wishes_make_the_order() {
        let check = |plugins: &[&str], expected: &str| {
            let plugins: Vec<_> = plugins.iter().map(|text| plugin(text)).collect();
            assert_eq!(ordered(&plugins).expect("an order").join(" "), expected, "{plugins:?}");
        };
        check(&[], "");
        check(&["b", "a"], "a b");
        check(&["z!", "a", "b.", "a2."], "z a a2 b");
        check(&["a <b", "b"], "b a");
        check(&["a", "b >a"], "b a");
        // Both may say the same, and more than once.
        check(&["a <b <b", "b >a"], "b a");
        check(&["a >absent <none", "b"], "a b");
        // Across places.
        check(&["z", "a", "o! <z"], "z o a");
        check(&["i. >m", "m", "a", "z"], "a i m z");
        check(&["a", "y <x", "x", "o! <y"], "x y o a");
    }

    #[test]
    fn a_cycle_names_its_members_in_their_order() {
        let check = |plugins: &[&str], expected: &[&str]| {
            let plugins: Vec<_> = plugins.iter().map(|text| plugin(text)).collect();
            let cycle = ordered(&plugins).expect_err("a cycle");
            assert_eq!(cycle.0, expected, "{plugins:?}");
        };
        check(&["a <a"], &["a"]);
        check(&["b <a", "a <b"], &["a", "b"]);
        check(&["c >a", "a >b", "b >c", "free", "behind <c", "ahead >a"], &["a", "b", "c"]);
        // A place does not break one.
        check(&["b! <a", "a. <b"], &["a", "b"]);
        assert_eq!(
            Cycle(vec!["a".into(), "b".into()]).to_string(),
            "the plugins' order goes round: 'a' before 'b' before 'a'; mend 'after' or 'before' in one of their \
             manifests"
        );
    }

    fn places() -> impl Strategy<Value = Place> {
        prop_oneof![Just(Place::Usual), Just(Place::Outermost), Just(Place::Innermost)]
    }

    /// Plugins with wishes among themselves and for some that are absent.
    fn plugins() -> impl Strategy<Value = Vec<Plugin>> {
        let names = || prop::collection::vec((0u8..12).prop_map(|name| format!("p{name}")), 0..3);
        prop::collection::btree_map(0u8..9, (places(), names(), names()), 0..9).prop_map(|plugins| {
            let plugin = |(name, (place, after, before)): (u8, _)| Plugin {
                name: format!("p{name}"),
                place,
                after,
                before,
            };
            plugins.into_iter().map(plugin).collect()
        })
    }

    /// Pairs of names: the first is to come before the second.
    fn wishes(plugins: &[Plugin]) -> Vec<(&str, &str)> {
        let mut wishes = Vec::new();
        for Plugin { name, after, before, .. } in plugins {
            wishes.extend(after.iter().map(|other| (other.as_str(), name.as_str())));
            wishes.extend(before.iter().map(|other| (name.as_str(), other.as_str())));
        }
        wishes
    }

    proptest! {
        #[test]
        fn what_is_asked_for_holds_whatever_the_order_of_the_input(
            (plugins, shuffled) in plugins().prop_flat_map(|plugins| {
                (Just(plugins.clone()), Just(plugins).prop_shuffle())
            })
        ) {
            let found = ordered(&plugins);
            prop_assert_eq!(&found, &ordered(&shuffled));
            let wishes = wishes(&plugins);
            match found {
                Ok(chain) => {
                    let at = |name: &str| chain.iter().position(|other| *other == name);
                    prop_assert_eq!(chain.len(), plugins.len());
                    prop_assert!(plugins.iter().all(|plugin| at(&plugin.name).is_some()));
                    for (first, second) in &wishes {
                        if let (Some(first), Some(second)) = (at(first), at(second)) {
                            prop_assert!(first < second, "{:?} of {:?}", chain, plugins);
                        }
                    }
                    // Who has none before or after it stands where its place is.
                    let is_free = |plugin: &&Plugin| {
                        !wishes.iter().any(|(first, second)| [first, second].contains(&&plugin.name.as_str()))
                    };
                    let free: Vec<_> = plugins.iter().filter(is_free).collect();
                    for (one, other) in free.iter().flat_map(|one| free.iter().map(move |other| (one, other))) {
                        if (rank(one.place), &one.name) < (rank(other.place), &other.name) {
                            prop_assert!(at(&one.name) < at(&other.name), "{:?} of {:?}", chain, plugins);
                        }
                    }
                }
                Err(Cycle(names)) => {
                    for (first, second) in names.iter().zip(names.iter().cycle().skip(1)) {
                        prop_assert!(wishes.contains(&(first.as_str(), second.as_str())), "{:?}", names);
                    }
                }
            }
        }
    }
}
