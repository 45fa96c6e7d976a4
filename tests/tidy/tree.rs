//! A crate's modules: what each defines, imports and names; and in which file that is defined.
//!
//! Read by a real parser, but not by the compiler: names that macros make, and methods, are not seen. Code under
//! `#[cfg(test)]` is left out.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Spacing, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// The modules of a crate; the first is its root.
pub struct Tree {
    modules: Vec<Module>,
}

struct Module {
    file: String,
    /// Where files of modules in it lie.
    folder: String,
    parent: usize,
    modules: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: Vec<Import>,
    references: Vec<Reference>,
}

/// A name that a `use` brings in.
struct Import {
    /// `None`: all that is public there.
    name: Option<String>,
    reference: Reference,
    exported: bool,
}

/// A path as it is written.
struct Reference {
    path: Vec<String>,
    line: usize,
}

/// A file that needs another one.
pub struct Edge {
    /// The file that names something.
    pub from: String,
    /// The line there.
    pub line: usize,
    /// What it names.
    pub path: String,
    /// The file that defines it.
    pub to: String,
}

#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// Something that this module defines.
    Item(usize),
}

impl Tree {
    /// Reads a crate's files, given by their path in it.
    pub fn parse(sources: &BTreeMap<String, String>) -> Result<Self, String> {
        let root = ["lib.rs", "main.rs"].into_iter().find(|name| sources.contains_key(*name));
        let root = root.ok_or("neither lib.rs nor main.rs")?;
        let mut reader = Reader { sources, modules: Vec::new(), current: 0, failed: None };
        reader.read_file(root.to_owned(), String::new(), 0)?;
        reader.failed.map_or(Ok(Self { modules: reader.modules }), Err)
    }

    /// What needs what between files. A re-export in a folder's own file is none, and neither is a `mod`.
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (index, module) in self.modules.iter().enumerate() {
            let own = module.file.rsplit('/').next().unwrap_or_default();
            let heads_folder = matches!(own, "mod.rs" | "lib.rs" | "main.rs");
            let imports = module.imports.iter().filter(|import| !(import.exported && heads_folder));
            let named = imports.filter(|import| import.name.is_some()).map(|import| &import.reference);
            for reference in named.chain(&module.references) {
                let Some(Target::Item(definition)) = self.resolve(index, &reference.path, 0) else {
                    continue;
                };
                let to = &self.modules[definition].file;
                if *to != module.file {
                    let (from, path) = (module.file.clone(), reference.path.join("::"));
                    edges.push(Edge { from, line: reference.line, path, to: to.clone() });
                }
            }
        }
        edges
    }

    /// First names of paths that this crate does not define: file, line, name.
    pub fn foreign(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.modules.iter().enumerate().flat_map(move |(index, module)| {
            let all = module.imports.iter().map(|import| &import.reference).chain(&module.references);
            let foreign = all.filter(move |reference| self.resolve(index, &reference.path[..1], 0).is_none());
            foreign.map(|reference| (module.file.as_str(), reference.line, reference.path[0].as_str()))
        })
    }

    /// What a path means in a module; `None` if it begins in another crate, in the language, or in a function.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(module),
            "super" => Target::Module(self.modules[module].parent),
            _ => self.find(module, first, rest.is_empty(), depth)?,
        };
        while let (Target::Module(module), Some((name, after))) = (at, rest.split_first()) {
            rest = after;
            at = match name.as_str() {
                "self" => at,
                "super" => Target::Module(self.modules[module].parent),
                _ => self.find(module, name, rest.is_empty(), depth)?,
            };
        }
        Some(at)
    }

    /// What a name means in a module. At a path's end an item comes before the module of the same name.
    fn find(&self, index: usize, name: &str, last: bool, depth: usize) -> Option<Target> {
        /// Imports of imports beyond this go round in a circle.
        const DEEPEST: usize = 16;
        let module = &self.modules[index];
        let submodule = module.modules.get(name).map(|index| Target::Module(*index));
        if submodule.is_some() && !last {
            return submodule;
        }
        if module.items.contains(name) {
            return Some(Target::Item(index));
        }
        if depth > DEEPEST {
            return None;
        }
        // Private ones too: its children see them.
        let mut named = module.imports.iter().filter(|import| import.name.as_deref() == Some(name));
        let by_name = named.find_map(|import| self.resolve_import(index, import, depth));
        let by_glob = || {
            module.imports.iter().filter(|import| import.name.is_none()).find_map(|import| {
                match self.resolve_import(index, import, depth)? {
                    Target::Module(other) if other != index => self.find(other, name, last, depth + 1),
                    _ => None,
                }
            })
        };
        by_name.or(submodule).or_else(by_glob)
    }

    fn resolve_import(&self, index: usize, import: &Import, depth: usize) -> Option<Target> {
        // `use serde::Serialize` in a module that has an import called `serde` would find itself.
        let path = &import.reference.path;
        if path.len() == 1 && import.name.as_ref() == path.first() {
            return None;
        }
        self.resolve(index, path, depth + 1)
    }
}

struct Reader<'a> {
    sources: &'a BTreeMap<String, String>,
    modules: Vec<Module>,
    current: usize,
    failed: Option<String>,
}

impl Reader<'_> {
    fn read_file(&mut self, file: String, folder: String, parent: usize) -> Result<usize, String> {
        let text = self.sources.get(&file).ok_or_else(|| format!("no file {file}"))?;
        let parsed = syn::parse_file(text).map_err(|error| format!("{file}: {error}"))?;
        Ok(self.read_module(file, folder, parent, &parsed.items))
    }

    fn read_module(&mut self, file: String, folder: String, parent: usize, items: &[Item]) -> usize {
        let index = self.modules.len();
        self.modules.push(Module {
            file,
            folder,
            parent,
            modules: BTreeMap::new(),
            items: items.iter().filter(|item| !is_test(attributes(item))).filter_map(name).collect(),
            imports: Vec::new(),
            references: Vec::new(),
        });
        let outer = std::mem::replace(&mut self.current, index);
        for item in items {
            self.visit_item(item);
        }
        self.current = outer;
        index
    }

    fn module(&mut self) -> &mut Module {
        &mut self.modules[self.current]
    }

    fn import(&mut self, tree: &UseTree, prefix: &[String], exported: bool) {
        let mut add = |name: Option<String>, last: Option<String>, span: Span| {
            let mut path = prefix.to_vec();
            path.extend(last);
            let reference = Reference { path, line: span.start().line };
            self.module().imports.push(Import { name, reference, exported });
        };
        match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                self.import(&path.tree, &prefix, exported);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, prefix, exported)),
            UseTree::Name(name) if name.ident == "self" => {
                add(prefix.last().cloned(), None, name.ident.span());
            }
            UseTree::Name(name) => {
                add(Some(name.ident.to_string()), Some(name.ident.to_string()), name.ident.span());
            }
            UseTree::Rename(rename) => {
                let last = (rename.ident != "self").then(|| rename.ident.to_string());
                add(Some(rename.rename.to_string()), last, rename.ident.span());
            }
            UseTree::Glob(glob) => add(None, None, glob.star_token.spans[0]),
        }
    }

    /// Paths in a macro's input: what is written with `::` in between.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    let mut path = vec![ident.to_string()];
                    loop {
                        let mut ahead = tokens.clone();
                        let colon = |token: Option<TokenTree>, spacing: Spacing| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == spacing);
                        if !colon(ahead.next(), Spacing::Joint) || !colon(ahead.next(), Spacing::Alone) {
                            break;
                        }
                        let Some(TokenTree::Ident(next)) = ahead.next() else { break };
                        path.push(next.to_string());
                        tokens = ahead;
                    }
                    if path.len() > 1 {
                        self.module().references.push(Reference { path, line: ident.span().start().line });
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => (),
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        let (current, outer) = (self.current, self.module());
        let (file, folder) = (outer.file.clone(), format!("{}{name}/", outer.folder));
        let read = if let Some((_, items)) = &module.content {
            Ok(self.read_module(file, folder, current, items))
        } else {
            let head = format!("{folder}mod.rs");
            let alone = folder.trim_end_matches('/').to_owned() + ".rs";
            let file = if self.sources.contains_key(&head) { head } else { alone };
            self.read_file(file, folder, current)
        };
        match read {
            Ok(index) => drop(self.module().modules.insert(name, index)),
            Err(error) => self.failed = Some(error),
        }
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        // `use ::name` begins in another crate in any case.
        if import.leading_colon.is_none() {
            self.import(&import.tree, &[], !matches!(import.vis, Visibility::Inherited));
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let (None, Some(first)) = (path.leading_colon, path.segments.first()) {
            let line = first.ident.span().start().line;
            self.module().references.push(Reference { path: segments, line });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let condition = attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default();
        let words: Vec<&str> = condition.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        words.contains(&"test") && !words.contains(&"not") && !words.contains(&"any")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name by which a path reaches an item that is no module.
fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
