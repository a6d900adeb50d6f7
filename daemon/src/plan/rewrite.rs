//! How one text of our firewall table becomes another in place, in one transaction: elements that differ are added and
//! deleted, chains that differ are flushed and filled anew, what is new comes and what is left over goes. No set that
//! stays loses an element that stays, so no packet misses it. It ends at the text for `nft -f`.

use super::text::head;
use crate::{gather::Gather, ownership::NFT_TABLE, sorted::sort_by};

/// A set or a chain, as [`Firewall`](super::Firewall) writes it.
pub(super) struct Part<'a> {
    /// All of it.
    text: &'a str,
    /// `set` or `chain`.
    pub(super) kind: &'a str,
    /// Of its kind there is one of this name.
    pub(super) name: &'a str,
    /// What a set is; all of a chain.
    pub(super) body: &'a str,
    /// Elements of a set, in order.
    pub(super) elements: Vec<&'a str>,
}

/// The transaction; empty where nothing differs. `None` where it takes a table made anew: a set is of another type, or
/// one of the texts is not of our making.
pub fn change(old: &str, new: &str) -> Option<String> {
    let (old, new) = (parts(old)?, parts(new)?);
    let (mut flushed, mut written, mut deleted) = (String::new(), String::new(), String::new());
    for part in &new {
        match find(&old, part) {
            Some(before) if part.kind == "set" => {
                if before.body != part.body {
                    return None;
                }
                flushed += &elements("delete", part, &missing(&before.elements, &part.elements));
                flushed += &elements("add", part, &missing(&part.elements, &before.elements));
            }
            Some(before) if before.body == part.body => {}
            before => {
                flushed += &before.map(|before| command("flush", before)).unwrap_or_default();
                written += part.text;
            }
        }
    }
    // Chains first: they are what uses sets. Those that go may jump to each other until they are flushed.
    let gone: Vec<&Part<'_>> = old.iter().filter(|part| find(&new, part).is_none()).gather();
    let (sets, chains): (Vec<&Part<'_>>, Vec<_>) = gone.into_iter().partition(|part| part.kind == "set");
    chains.iter().for_each(|part| flushed += &command("flush", part));
    chains.iter().chain(&sets).for_each(|part| deleted += &command("delete", part));
    if !written.is_empty() {
        written = format!("table inet {NFT_TABLE} {{\n{written}}}\n");
    }
    Some(flushed + &written + &deleted)
}

pub(super) fn parts(text: &str) -> Option<Vec<Part<'_>>> {
    let body = text.strip_prefix(&head())?.strip_suffix("}\n")?;
    body.split_inclusive("\n\t}\n").map(part).collect()
}

fn part(text: &str) -> Option<Part<'_>> {
    let (first, rest) = text.trim_start().split_once(" {\n")?;
    let (kind, name) = first.split_once(' ')?;
    let (body, elements) = rest.split_once("\t\telements = {\n").unwrap_or((rest, ""));
    let mut elements: Vec<&str> =
        elements.lines().filter_map(|line| line.trim_start().strip_suffix(',')).gather();
    sort_by(&mut elements, Ord::cmp);
    Some(Part { text, kind, name, body, elements })
}

fn find<'a>(parts: &'a [Part<'a>], like: &Part<'_>) -> Option<&'a Part<'a>> {
    parts.iter().find(|part| part.kind == like.kind && part.name == like.name)
}

/// What is in the first only; both are in order.
fn missing<'a>(these: &[&'a str], those: &[&str]) -> Vec<&'a str> {
    these.iter().copied().filter(|element| those.binary_search(element).is_err()).gather()
}

fn elements(verb: &str, set: &Part<'_>, elements: &[&str]) -> String {
    match elements {
        [] => String::new(),
        some => format!("{verb} element inet {NFT_TABLE} {} {{ {} }}\n", set.name, some.join(", ")),
    }
}

fn command(verb: &str, part: &Part<'_>) -> String {
    format!("{verb} {} inet {NFT_TABLE} {}\n", part.kind, part.name)
}
