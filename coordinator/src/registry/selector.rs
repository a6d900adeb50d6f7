//! Selectors: the way in which a rule or a group names nodes, clients and prefixes. Admins write names, ids
//! are stored: a rule follows an object that is renamed, and never applies to another that gets its old name.

use super::{AccessError, Registry, RegistryError, SelectorContext};
use gatewrt_protocol::{ClientId, GroupName, NetworkId, NodeId, Prefix, Tag};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// Selector of some addresses of a network. Its text has ids where [`Registry::selector_text`] has names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// `all`: overlay prefixes, served prefixes, prefixes behind clients.
    All,
    /// `tag:T`: overlay addresses of nodes, and all addresses of clients, with this tag.
    Tag(Tag),
    /// `node:N`: overlay addresses of a node.
    Node(NodeId),
    /// `site:N`: prefixes that a node serves.
    Site(NodeId),
    /// `client:C`: addresses of a client and the prefixes behind it.
    Client(ClientId),
    /// `group:G`: all members of a group.
    Group(GroupName),
    /// Address or prefix, as far as it is part of the network.
    Prefix(Prefix),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Tag(tag) => write!(f, "tag:{tag}"),
            Self::Node(id) => write!(f, "node:{id}"),
            Self::Site(id) => write!(f, "site:{id}"),
            Self::Client(id) => write!(f, "client:{id}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Prefix(prefix) if *prefix == Prefix::host(prefix.addr()) => write!(f, "{}", prefix.addr()),
            Self::Prefix(prefix) => write!(f, "{prefix}"),
        }
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl TryFrom<String> for Selector {
    type Error = AccessError;
    fn try_from(text: String) -> Result<Self, AccessError> {
        text.parse()
    }
}

/// Parses a selector with ids; [`Registry::selector`] parses names.
impl FromStr for Selector {
    type Err = AccessError;
    fn from_str(text: &str) -> Result<Self, AccessError> {
        let unknown = |why: String| AccessError::selector(text, why);
        Ok(match Form::of(text)? {
            Form::All => Self::All,
            Form::Prefix(prefix) => Self::Prefix(prefix),
            Form::Tag(tag) => Self::Tag(tag),
            Form::Group(name) => Self::Group(name),
            Form::Node(id) => Self::Node(id.parse().map_err(|error| unknown(format!("{error}")))?),
            Form::Site(id) => Self::Site(id.parse().map_err(|error| unknown(format!("{error}")))?),
            Form::Client(id) => Self::Client(id.parse().map_err(|error| unknown(format!("{error}")))?),
        })
    }
}

/// Syntax of a selector, before its names are looked up.
enum Form<'a> {
    All,
    Tag(Tag),
    Node(&'a str),
    Site(&'a str),
    Client(&'a str),
    Group(GroupName),
    Prefix(Prefix),
}

impl<'a> Form<'a> {
    fn of(text: &'a str) -> Result<Self, AccessError> {
        let bad = |why: String| AccessError::selector(text, why);
        match text.split_once(':') {
            _ if text == "all" => Ok(Self::All),
            Some(("tag", name)) => name.parse().map(Self::Tag).map_err(|error| bad(format!("{error}"))),
            Some(("group", name)) => name.parse().map(Self::Group).map_err(|error| bad(format!("{error}"))),
            Some(("node", name)) => Ok(Self::Node(name)),
            Some(("site", name)) => Ok(Self::Site(name)),
            Some(("client", name)) => Ok(Self::Client(name)),
            _ => literal(text).map(Self::Prefix).map_err(bad),
        }
    }
}

fn literal(text: &str) -> Result<Prefix, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(Prefix::host(addr));
    }
    text.parse().map_err(|error| match error {
        gatewrt_protocol::prefix::PrefixError::Syntax(_) => "nothing of this form is known".to_owned(),
        error => error.to_string(),
    })
}

impl Registry {
    /// Parses a selector and looks up the objects of the network that it names. All of them must exist.
    pub fn selector(&self, net: &str, text: &str) -> Result<Selector, RegistryError> {
        let form = Form::of(text).map_err(|error| self.did_you_mean(net, text).unwrap_or(error))?;
        Ok(match form {
            Form::All => Selector::All,
            Form::Prefix(prefix) => Selector::Prefix(prefix),
            Form::Tag(tag) => Selector::Tag(tag),
            Form::Group(name) => Selector::Group(self.find_group(net, name.as_str())?.name.clone()),
            Form::Node(name) => Selector::Node(self.find_node(net, name)?.id),
            Form::Site(name) => Selector::Site(self.find_node(net, name)?.id),
            Form::Client(name) => Selector::Client(self.find_client(net, name)?.id),
        })
    }

    /// Error that suggests a selector for the bare name of an existing object.
    fn did_you_mean(&self, net: &str, text: &str) -> Option<AccessError> {
        let forms = is_name(text).then(|| bare_forms(text))?;
        let form = forms.iter().find(|form| self.selector(net, form).is_ok())?;
        Some(AccessError::selector(text, format!("did you mean {form}?")))
    }

    /// Parses a selector as [`Registry::selector`] does, but accepts the bare name of a node, a client or a group too.
    pub fn selector_or_name(&self, net: &str, text: &str) -> Result<Selector, RegistryError> {
        let network = self.find_network(net)?;
        let forms = bare_forms(text);
        let found = forms.iter().filter_map(|form| Some((form, self.selector(net, form).ok()?)));
        let mut found: Vec<_> = found.collect();
        match (found.len(), self.selector(net, text)) {
            (_, Ok(selector)) => Ok(selector),
            (0, Err(RegistryError::Access(AccessError::BadSelector { .. }))) if is_name(text) => {
                let (text, network) = (text.to_owned(), network.name.clone());
                let nodes = self.live_nodes(self.find_network(net)?.id).map(|node| node.name.to_string());
                Err(AccessError::NoSuchName { text, network, known: nodes.collect() }.into())
            }
            (0, Err(error)) => Err(error),
            (1, Err(_)) => Ok(found.remove(0).1),
            (_, Err(_)) => {
                let forms = found.into_iter().map(|(form, _)| form.clone()).collect();
                Err(AccessError::Ambiguous { text: text.to_owned(), forms }.into())
            }
        }
    }

    /// Text of a selector with names, also of deleted objects.
    pub fn selector_text(&self, selector: &Selector) -> String {
        let node = |id: &NodeId| self.node(*id).map_or_else(|| id.to_string(), |node| node.name.to_string());
        match selector {
            Selector::Node(id) => format!("node:{}", node(id)),
            Selector::Site(id) => format!("site:{}", node(id)),
            Selector::Client(id) => {
                let client = self.client(*id).map(|client| client.name.to_string());
                format!("client:{}", client.unwrap_or_else(|| id.to_string()))
            }
            selector => selector.to_string(),
        }
    }

    /// Warning that a selector matches nothing, with the reason.
    pub fn selector_warning(&self, net: NetworkId, selector: &Selector) -> Option<String> {
        let text = self.selector_text(selector);
        let empty = |why: &str| Some(format!("{text} matches nothing: {why}"));
        match selector {
            Selector::All => None,
            Selector::Tag(tag) => {
                let node = self.live_nodes(net).any(|node| node.tags.contains(tag));
                let client = self.live_clients(net).any(|client| client.tags.contains(tag));
                if node || client { None } else { empty("no node and no client has it") }
            }
            Selector::Node(id) if self.live_node(*id).is_none() => empty("the node was removed"),
            Selector::Node(_) => None,
            Selector::Site(id) => match self.live_node(*id) {
                None => empty("the node was removed"),
                Some(node) if node.egress.is_empty() => empty("the node serves no prefix"),
                Some(_) => None,
            },
            Selector::Client(id) => match self.client(*id).filter(|client| client.is_live()) {
                None => empty("the client was deleted"),
                Some(_) => None,
            },
            Selector::Group(name) => match self.group(net, name) {
                Some(group) if !group.members.is_empty() => None,
                _ => empty("nothing is in it"),
            },
            Selector::Prefix(_) if !SelectorContext::new(self, net).addresses([selector]).is_empty() => None,
            Selector::Prefix(_) => {
                empty("it is no part of this network, and rules do not apply to the Internet")
            }
        }
    }
}

/// Texts of the selectors that a bare name can stand for.
fn bare_forms(name: &str) -> [String; 3] {
    ["node", "client", "group"].map(|form| format!("{form}:{name}"))
}

fn is_name(text: &str) -> bool {
    text.parse::<GroupName>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selector_text_with_ids_is_parsed_back() {
        for text in [
            "all",
            "tag:phones",
            "node:aaaaaaaaaaaaaaaa",
            "site:aaaaaaaaaaaaaaaa",
            "client:aaaaaaaaaaaaaaaa",
            "group:cameras",
            "10.0.0.0/8",
            "10.0.0.1",
            "fd00::/64",
            "fd00::1",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        assert_eq!("10.0.0.1/32".parse::<Selector>().unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn invalid_selector_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "nothing of this form"),
            ("phones", "nothing of this form"),
            ("All", "nothing of this form"),
            ("host:x", "nothing of this form"),
            ("10.0.0.1/8", "did you mean 10.0.0.0/8"),
            ("10.0.0.0/33", "length 33"),
            ("tag:", "1 to 32 characters"),
            ("tag:Phones", "can't be a name"),
            ("group:a b", "can't be a name"),
            ("node:office", "no id"),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
            assert!(error.advice().contains("tag:"), "{}", error.advice());
        }
    }

    #[test]
    fn bare_name_gets_a_suggestion() {
        let mut registry = Registry::default();
        let moment = crate::registry::Moment { now: 0, entropy: [1; 32] };
        let spec = crate::registry::NetworkSpec {
            name: "home".parse().unwrap(),
            prefix4: None,
            prefix6: None,
            mtu: None,
            keepalive: None,
        };
        registry.apply(registry.create_network(&spec, &moment).unwrap().0);
        let members = crate::registry::GroupSpec { members: vec!["all".into()] };
        registry.apply(registry.set_group("home", &"nas".parse().unwrap(), &members).unwrap().0);
        let error = registry.selector("home", "nas").unwrap_err();
        assert!(error.to_string().contains("did you mean group:nas?"), "{error}");
        for text in ["other", "Bad", "group:Bad", "group:group:nas", "node:", ":", "a:b", "*"] {
            assert!(registry.selector("home", text).is_err(), "{text}");
            assert!(registry.selector_or_name("home", text).is_err(), "{text}");
        }
        assert_eq!(registry.selector_or_name("home", "nas").unwrap().to_string(), "group:nas");
    }

    proptest! {
        #[test]
        fn any_text_gives_a_selector_or_an_error(text in ".*") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
            }
        }
    }
}
