//! Access rules: which connections are allowed or denied, in an admin's words.

use super::{AccessError, Moment, Network, Outcome, Registry, RegistryError, Row, Selector};
use gatewrt_protocol::{NetworkId, RuleId, Service, Verdict};
use serde::{Deserialize, Serialize};

/// Rules a network may have.
pub const RULES: usize = 4096;
/// Selectors on one side of a rule, services of a rule, characters of a note.
const MOST: usize = 256;

/// A rule as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Never changes.
    pub id: RuleId,
    /// Its network.
    pub net: NetworkId,
    /// What becomes of the connections that it fits. One that denies wins over one that allows.
    pub verdict: Verdict,
    /// Who opens the connection: any of these.
    pub from: Vec<Selector>,
    /// What it is opened to: any of these.
    pub to: Vec<Selector>,
    /// Services; none is every one.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Whether it counts.
    pub enabled: bool,
    /// What people wrote beside it: any text.
    #[serde(default)]
    pub note: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// What an admin asks of a new rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuleWish {
    /// What becomes of the connections that it fits.
    #[schema(value_type = String)]
    pub verdict: Verdict,
    /// Selectors: who opens the connection.
    pub from: Vec<String>,
    /// Selectors: what it is opened to.
    pub to: Vec<String>,
    /// Services; none is every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub services: Vec<Service>,
    /// Whether it counts.
    #[serde(default = "on")]
    pub enabled: bool,
    /// Any text of up to 256 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What an admin changes about a rule; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RulePatch {
    /// What becomes of the connections that it fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub verdict: Option<Verdict>,
    /// Selectors: who opens the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<String>>,
    /// Selectors: what it is opened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
    /// Services; an empty list is every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub services: Option<Vec<Service>>,
    /// Whether it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Any text of up to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

fn on() -> bool {
    true
}

impl Rule {
    fn row(&self) -> Row {
        Row::Rule(self.id, Some(self.clone()))
    }
}

impl Registry {
    /// The rules of a network, oldest first.
    pub fn rules(&self, net: NetworkId) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.rules.values().filter(|rule| rule.net == net).collect();
        rules.sort_by_key(|rule| (rule.created, rule.id));
        rules
    }

    /// A rule of a network by its id, or by the beginning of it that no other has.
    pub fn find_rule(&self, net: &str, text: &str) -> Result<&Rule, RegistryError> {
        let network = self.find_network(net)?;
        let rules = self.rules.values().filter(|rule| rule.net == network.id);
        let begins = |rule: &&Rule| text.len() >= 4 && rule.id.to_string().starts_with(text);
        let found: Vec<_> = rules.filter(begins).collect();
        match found[..] {
            [rule] => Ok(rule),
            _ => Err(AccessError::NoSuchRule {
                text: text.to_owned(),
                network: network.name.clone(),
                several: !found.is_empty(),
            }
            .into()),
        }
    }

    /// Makes a rule.
    pub fn create_rule(&self, net: &str, wish: &RuleWish, moment: &Moment) -> Outcome<Rule> {
        let network = self.find_network(net)?;
        check("the number of rules", self.rules(network.id).len() + 1, RULES, "0 to 4096")?;
        let rule = Rule {
            id: RuleId::from_entropy(moment.bytes(0)),
            net: network.id,
            verdict: wish.verdict,
            from: self.selectors(network, "from", &wish.from)?,
            to: self.selectors(network, "to", &wish.to)?,
            services: services(&wish.services)?,
            enabled: wish.enabled,
            note: note(&wish.note)?,
            created: moment.now,
        };
        Ok((vec![rule.row()], rule))
    }

    /// Changes a rule. Selectors that are left out stay as they are, also those of what is gone.
    pub fn change_rule(&self, net: &str, rule: &str, patch: &RulePatch) -> Outcome<Rule> {
        let network = self.find_network(net)?;
        let rule = self.find_rule(net, rule)?;
        let mut changed = rule.clone();
        changed.verdict = patch.verdict.unwrap_or(rule.verdict);
        changed.enabled = patch.enabled.unwrap_or(rule.enabled);
        if let Some(from) = &patch.from {
            changed.from = self.selectors(network, "from", from)?;
        }
        if let Some(to) = &patch.to {
            changed.to = self.selectors(network, "to", to)?;
        }
        if let Some(wish) = &patch.services {
            changed.services = services(wish)?;
        }
        if let Some(text) = &patch.note {
            changed.note = note(text)?;
        }
        Ok((if changed == *rule { Vec::new() } else { vec![changed.row()] }, changed))
    }

    /// Deletes a rule.
    pub fn delete_rule(&self, net: &str, rule: &str) -> Outcome<Rule> {
        let rule = self.find_rule(net, rule)?;
        Ok((vec![Row::Rule(rule.id, None)], rule.clone()))
    }

    /// What will surprise about a rule.
    pub fn rule_warnings(&self, rule: &Rule) -> Vec<String> {
        let default = self.network(rule.net).map(|network| network.access);
        let idle = rule.verdict == Verdict::Allow && default == Some(Verdict::Allow);
        let idle = idle.then(|| {
            "this network allows what no rule denies: a rule that allows changes nothing there".to_owned()
        });
        let empty = rule.from.iter().chain(&rule.to);
        idle.into_iter().chain(empty.filter_map(|part| self.selector_warning(rule.net, part))).collect()
    }

    fn selectors(
        &self,
        network: &Network,
        side: &'static str,
        texts: &[String],
    ) -> Result<Vec<Selector>, RegistryError> {
        if texts.is_empty() {
            return Err(AccessError::NothingNamed { side }.into());
        }
        self.named(network, texts)
    }

    /// The selectors that texts stand for, each once, in order.
    pub(super) fn named(&self, network: &Network, texts: &[String]) -> Result<Vec<Selector>, RegistryError> {
        check("the number of selectors", texts.len(), MOST, "1 to 256; a group can hold more")?;
        let mut selectors = Vec::new();
        for text in texts {
            let selector = self.selector(&network.id.to_string(), text)?;
            if !selectors.contains(&selector) {
                selectors.push(selector);
            }
        }
        Ok(selectors)
    }
}

fn services(wish: &[Service]) -> Result<Vec<Service>, RegistryError> {
    check("the number of services", wish.len(), MOST, "0 to 256")?;
    let mut services = Vec::new();
    for service in wish {
        if !services.contains(service) {
            services.push(*service);
        }
    }
    Ok(services)
}

fn note(text: &str) -> Result<String, RegistryError> {
    check("the length of the note", text.chars().count(), MOST, "0 to 256 characters")?;
    Ok(text.to_owned())
}

pub(super) fn check(
    what: &'static str,
    value: usize,
    most: usize,
    range: &'static str,
) -> Result<(), RegistryError> {
    let value = value as u64;
    if value <= most as u64 { Ok(()) } else { Err(RegistryError::OutOfRange { what, value, range }) }
}
