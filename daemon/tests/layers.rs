//! Floors of the daemon and the coordinator: a module uses only modules below it, and no two modules use each other,
//! not even by way of others. The uses are read from the sources: each mention of `crate::x` or `super::x` outside of
//! tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Modules of the daemon by floor, the lowest first.
const DAEMON: &[&[&str]] = &[
    &["atomic_file", "crash", "error_chain", "log", "musl", "ownership", "resolvers", "task"],
    &["model"],
    &["config", "identity", "plan", "socket", "tls"],
    &["core"],
    // Drivers.
    &["apply", "dns", "enroll", "http", "kernel", "mqtt", "probe", "store"],
    &["show"],
    &["control"],
    &["runtime"],
    &["cli"],
];

/// Folders of the daemon whose own modules have no circle either.
const DAEMON_FOLDERS: &[&str] = &["core", "core/desired", "kernel", "model", "mqtt", "runtime", "store"];

/// Folders of the coordinator whose own modules have no circle either.
const COORDINATOR_FOLDERS: &[&str] = &["api", "cli", "controller", "http", "records", "registry", "store"];

/// Uses between modules: each module with those it uses, and where.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

/// A source file: its module path within the crate, and its text.
type Source = (Vec<String>, String);

#[test]
fn daemon_modules_use_only_lower_floors() {
    let uses = uses(&sources(&folder("src")), 0, &[]);
    assert_eq!(upward(&uses, DAEMON), [""; 0]);
}

#[test]
fn daemon_modules_have_no_circle() {
    let sources = sources(&folder("src"));
    assert_eq!(circle(&uses(&sources, 0, &[])), None);
    for within in DAEMON_FOLDERS {
        let within: Vec<&str> = within.split('/').collect();
        assert_eq!(circle(&uses(&sources, within.len(), &within)), None, "in {within:?}");
    }
}

#[test]
fn coordinator_modules_have_no_circle() {
    let sources = sources(&folder("../coordinator/src"));
    assert_eq!(circle(&uses(&sources, 0, &[])), None);
    for within in COORDINATOR_FOLDERS {
        assert_eq!(circle(&uses(&sources, 1, &[within])), None, "in {within}");
    }
}

/// The checker on a small input: it finds the planted errors, and no others.
#[test]
fn planted_circle_and_upward_use_are_found() {
    let source = |path: &str, text: &str| -> Source {
        (path.split('/').map(str::to_owned).collect(), text.to_owned())
    };
    let clean = [
        source("core/a", "use super::b::B;\nuse crate::{model::{Link, Route}, plan::Plan};\n"),
        source("core/b", "/// See [`core`](crate::core::a).\n// crate::core::a\n"),
        source("model", "#[cfg(test)]\nmod tests {\n    use crate::core::Core;\n}\n"),
        source("plan", "fn f() -> crate::model::Link;\n"),
    ];
    let floors: &[&[&str]] = &[&["model"], &["plan"], &["core"]];
    assert_eq!(circle(&uses(&clean, 0, &[])), None);
    assert_eq!(circle(&uses(&clean, 1, &["core"])), None);
    assert_eq!(upward(&uses(&clean, 0, &[]), floors), [""; 0]);

    let mut planted = clean.to_vec();
    planted.push(source("model/link", "fn f() { crate::core::g() }\n"));
    assert_eq!(circle(&uses(&planted, 0, &[])).map(|circle| circle.len()), Some(2));
    assert_eq!(upward(&uses(&planted, 0, &[]), floors), ["model/link: model must not use core"]);

    let mut planted = clean.to_vec();
    planted.push(source("core/b", "use super::{\n    a::A,\n};\n"));
    assert_eq!(circle(&uses(&planted, 1, &["core"])), Some(vec!["a".to_owned(), "b".to_owned()]));

    let mut planted = clean.to_vec();
    planted.push(source("stray", ""));
    assert_eq!(upward(&uses(&planted, 0, &[]), floors), ["stray is on no floor"]);
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// All sources below a crate's `src`, except the roots and the files of tests.
fn sources(root: &Path) -> Vec<Source> {
    let mut all = Vec::new();
    collect(root, &[], &mut all);
    assert!(all.len() > 20, "no sources in {}", root.display());
    all
}

fn collect(folder: &Path, path: &[String], into: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let is_rust = entry.extension().is_some_and(|extension| extension == "rs");
        let inner: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
        if entry.is_dir() {
            collect(&entry, &inner, into);
        } else if is_rust && name == "mod" {
            into.push((path.to_vec(), fs::read_to_string(&entry).expect("a readable file")));
        } else if is_rust && !["main", "lib", "tests", "testing"].contains(&name.as_str()) {
            into.push((inner, fs::read_to_string(&entry).expect("a readable file")));
        }
    }
}

/// Uses between the modules directly in the folder `within`, which is `depth` deep.
fn uses(sources: &[Source], depth: usize, within: &[&str]) -> Uses {
    let mut uses = Uses::new();
    let is_within = |path: &[String]| path.len() > depth && path.iter().zip(within).all(|(a, b)| a == b);
    let names: BTreeSet<&String> =
        sources.iter().filter(|(path, _)| is_within(path)).map(|(path, _)| &path[depth]).collect();
    for (path, text) in sources.iter().filter(|(path, _)| is_within(path)) {
        let from = uses.entry(path[depth].clone()).or_default();
        for used in mentions(path, text).iter().filter(|used| is_within(used)) {
            if used[depth] != path[depth] && names.contains(&used[depth]) {
                from.entry(used[depth].clone()).or_insert_with(|| path.join("/"));
            }
        }
    }
    uses
}

/// Paths within the crate that a file mentions outside of its tests and comments.
fn mentions(path: &[String], text: &str) -> Vec<Vec<String>> {
    let is_code = |line: &str| !line.trim_start().starts_with("//");
    let lines: Vec<&str> = text.lines().collect();
    let is_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    let code: String =
        lines[..end].iter().filter(|line| is_code(line)).map(|line| format!("{line}\n")).collect();
    let mut all = Vec::new();
    for (at, word) in ["crate::", "super::"].iter().flat_map(|word| code.match_indices(word)) {
        let before = code[..at].chars().next_back();
        let is_start = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'));
        if !is_start {
            continue;
        }
        let (mut base, mut rest) = (path.to_vec(), &code[at..]);
        if word == "crate::" {
            base.clear();
            rest = &rest[word.len()..];
        }
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        tree(&base, rest, &mut all);
    }
    all
}

/// Adds the paths of a use tree, or a single path, at the beginning of `text`; returns what follows it.
fn tree<'a>(base: &[String], text: &'a str, into: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if rest.is_empty() {
                return rest;
            }
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let next = tree(base, rest, into);
            // Anything that is no path, such as `*`, is skipped.
            rest = if next.len() == rest.len() {
                &rest[rest.chars().next().map_or(0, char::len_utf8)..]
            } else {
                next
            };
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name == "super" {
        let above = &base[..base.len().saturating_sub(1)];
        return tree(above, rest.strip_prefix("::").unwrap_or(rest), into);
    }
    let path: Vec<String> = base.iter().cloned().chain([name.to_owned()]).collect();
    match rest.strip_prefix("::") {
        Some(rest) => tree(&path, rest, into),
        None => {
            into.push(path);
            rest
        }
    }
}

/// Uses of a higher floor. (Uses within a floor are fine as long as they are no circle.)
fn upward(uses: &Uses, floors: &[&[&str]]) -> Vec<String> {
    let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
    let mut all = Vec::new();
    for (from, used) in uses {
        let Some(own) = floor(from) else {
            all.push(format!("{from} is on no floor"));
            continue;
        };
        for (to, place) in used.iter().filter(|(to, _)| floor(to).is_some_and(|other| other > own)) {
            all.push(format!("{place}: {from} must not use {to}"));
        }
    }
    all
}

/// Modules of a circle, in the order of their uses.
fn circle(uses: &Uses) -> Option<Vec<String>> {
    uses.keys().find_map(|start| way(uses, start, start, &mut BTreeSet::new()))
}

/// Modules on a way of uses from one to another.
fn way(uses: &Uses, from: &str, to: &str, seen: &mut BTreeSet<String>) -> Option<Vec<String>> {
    for next in uses.get(from)?.keys() {
        if next == to {
            return Some(vec![from.to_owned()]);
        }
        if seen.insert(next.clone())
            && let Some(rest) = way(uses, next, to, seen)
        {
            return Some([from.to_owned()].into_iter().chain(rest).collect());
        }
    }
    None
}
