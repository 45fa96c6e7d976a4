//! Circles in what files need of each other, looked for between files and, folder by folder, between what lies in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tree::{Edge, Tree};

/// Files or folders that need each other.
pub struct Circle {
    /// Its members, in the order in which each needs the next.
    pub name: String,
    /// A line of source for each step.
    pub lines: Vec<String>,
}

/// Each node's successors, and the edge that says so.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Edge>>;

/// The shortest circle through each knot of files and of folders.
pub fn circles(tree: &Tree) -> Vec<Circle> {
    let edges = tree.edges();
    let mut found = circles_of(&graph(&edges, |edge| Some((&edge.from, &edge.to))));
    for folder in folders(&edges) {
        let graph = graph(&edges, |edge| {
            let pair = (child(&folder, &edge.from)?, child(&folder, &edge.to)?);
            (pair.0 != pair.1).then_some(pair)
        });
        // Between files alone it has been said.
        found.extend(
            circles_of(&graph)
                .into_iter()
                .filter(|circle| circle.name.split(" → ").any(|n| n.ends_with('/'))),
        );
    }
    found
}

fn graph<'a>(edges: &'a [Edge], ends: impl Fn(&'a Edge) -> Option<(&'a str, &'a str)>) -> Graph<'a> {
    let mut graph = Graph::new();
    for edge in edges {
        if let Some((from, to)) = ends(edge) {
            graph.entry(from).or_default().entry(to).or_insert(edge);
            graph.entry(to).or_default();
        }
    }
    graph
}

/// All folders, the crate's own as the empty one; others end with a slash.
fn folders(edges: &[Edge]) -> BTreeSet<String> {
    let files = edges.iter().flat_map(|edge| [&edge.from, &edge.to]);
    let above =
        |file: &String| file.match_indices('/').map(|(at, _)| file[..=at].to_owned()).collect::<Vec<_>>();
    files.flat_map(above).chain([String::new()]).collect()
}

/// The file or folder directly in `folder` that a file is or lies in.
fn child<'a>(folder: &str, file: &'a str) -> Option<&'a str> {
    let below = file.strip_prefix(folder)?;
    let length = below.find('/').map_or(below.len(), |slash| slash + 1);
    Some(&file[..folder.len() + length])
}

/// One circle for each set of nodes that all reach each other.
fn circles_of(graph: &Graph<'_>) -> Vec<Circle> {
    let mut left: BTreeSet<&str> = graph.keys().copied().collect();
    let mut found = Vec::new();
    while let Some(node) = left.pop_first() {
        let Some(path) = way_back(graph, node) else { continue };
        let reached = reach(graph, node);
        // Those that are reached and reach back are of the same knot.
        left.retain(|other| !(reached.contains(other) && reach(graph, other).contains(node)));
        let steps = path.windows(2).filter_map(|pair| graph.get(pair[0])?.get(pair[1]));
        let lines = steps
            .map(|edge| format!("{}:{} names {}, defined in {}", edge.from, edge.line, edge.path, edge.to));
        found.push(Circle { name: path.join(" → "), lines: lines.collect() });
    }
    found
}

/// The shortest path from a node to itself.
fn way_back<'a>(graph: &Graph<'a>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.get(node)?.keys().copied() {
            if next == start {
                let mut path = vec![start, node];
                while let Some(previous) = path.last().and_then(|node| before.get(node)) {
                    path.push(previous);
                }
                path.dedup();
                path.reverse();
                return Some(path);
            }
            if !before.contains_key(next) {
                before.insert(next, node);
                queue.push_back(next);
            }
        }
    }
    None
}

fn reach<'a>(graph: &Graph<'a>, start: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![start];
    while let Some(node) = left.pop() {
        for next in graph.get(node).into_iter().flat_map(|next| next.keys().copied()) {
            if reached.insert(next) {
                left.push(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        let tree = Tree::parse(&sources).expect("a crate");
        circles(&tree)
            .into_iter()
            .map(|circle| format!("{}: {}", circle.name, circle.lines.join("; ")))
            .collect()
    }

    #[test]
    fn a_circle_is_found_with_its_lines() {
        let circle = found(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;"),
            ("a.rs", "use crate::b::B;\npub struct A(B);"),
            ("b.rs", "pub struct B;\nfn f() {\n    super::c::g();\n}"),
            ("c.rs", "pub fn g() { let _ = vec![crate::a::A::new()]; }"),
        ]);
        let steps = "a.rs:1 names crate::b::B, defined in b.rs; b.rs:3 names super::c::g, defined in c.rs; \
                     c.rs:1 names crate::a::A::new, defined in a.rs";
        assert_eq!(circle, [format!("a.rs → b.rs → c.rs → a.rs: {steps}")]);
    }

    #[test]
    fn what_is_no_edge_makes_no_circle() {
        for (what, files) in [
            (
                "mod and re-export",
                vec![
                    ("lib.rs", "mod a;\npub use a::A;\npub struct Root;"),
                    ("a.rs", "use crate::Root;\npub struct A(Root);"),
                ],
            ),
            (
                "tests",
                vec![
                    ("lib.rs", "mod a; mod b;"),
                    ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
                    ("b.rs", "use crate::a::A; pub struct B(A); #[cfg(test)] use crate::a::A as C;"),
                ],
            ),
            (
                "a re-export followed to the definition",
                vec![
                    ("lib.rs", "mod a; mod b;"),
                    ("a/mod.rs", "mod inner; mod user; pub use inner::*; pub use user::User;"),
                    ("a/inner.rs", "pub struct Inner;"),
                    ("a/user.rs", "use super::Inner; use crate::b; pub struct User(Inner, b::B);"),
                    ("b.rs", "pub struct B;"),
                ],
            ),
        ] {
            assert_eq!(found(&files), [""; 0], "{what}");
        }
    }

    #[test]
    fn re_exports_hide_no_circle() {
        let files = [
            ("lib.rs", "mod a;\nmod b;"),
            ("a/mod.rs", "mod inner;\npub use inner::Inner as Renamed;"),
            ("a/inner.rs", "use crate::b::{self};\npub struct Inner(b::B);"),
            ("b.rs", "pub struct B;\nfn f(_: crate::a::Renamed) {}"),
        ];
        let circles = found(&files);
        assert!(
            circles[0].starts_with("a/inner.rs → b.rs → a/inner.rs: a/inner.rs:2 names b::B"),
            "{circles:?}"
        );
        assert!(circles[1].starts_with("a/ → b.rs → a/: "), "{circles:?}");
    }

    #[test]
    fn folders_count_though_no_files_do() {
        let files = [
            ("main.rs", "mod a; mod b;"),
            ("a/mod.rs", "pub mod one; pub mod two;"),
            ("a/one.rs", "use crate::b::one::B; pub struct A(B);"),
            ("a/two.rs", "pub struct Two;"),
            ("b/mod.rs", "pub mod one; pub mod two;"),
            ("b/one.rs", "pub struct B;"),
            ("b/two.rs", "use crate::a::two::*; pub struct C(Two);"),
        ];
        let circles = found(&files);
        assert_eq!(circles.len(), 1, "{circles:?}");
        assert!(circles[0].starts_with("a/ → b/ → a/: "), "{circles:?}");
    }

    #[test]
    fn parent_and_child_count() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod child; use child::Child; pub struct Parent(Child);"),
            ("a/child.rs", "pub struct Child; impl Child { fn f(_: &super::Parent) {} }"),
        ];
        assert_eq!(found(&files).len(), 1);
    }

    #[test]
    fn a_function_and_a_module_of_one_name_are_told_apart() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod listen; pub use listen::listen; pub struct A;"),
            ("a/listen.rs", "pub fn listen() {}"),
            ("b.rs", "use crate::a; pub fn f() { a::listen(); }"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }
}
