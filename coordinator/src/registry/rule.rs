//! Access rules: connections that are allowed or denied, in an admin's words.

use super::{
    AccessError, Moment, Network, Outcome, Registry, RegistryError, Row, Selector, range::check_count,
};
use gatewrt_protocol::{NetworkId, RuleId, Service, Verdict};
use serde::{Deserialize, Serialize};

/// Largest number of rules of a network.
pub const RULES: usize = 4096;
/// Largest number of selectors on one side, of services, and of characters of a note.
const MOST: usize = 256;

/// Access rule as the registry stores it: a verdict on connections between selectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Id; never changes.
    pub id: RuleId,
    /// Network it belongs to.
    pub net: NetworkId,
    /// Verdict on the connections that it matches. Deny takes precedence over allow.
    pub verdict: Verdict,
    /// Selectors of the side that opens the connection.
    pub from: Vec<Selector>,
    /// Selectors of the side that the connection is opened to.
    pub to: Vec<Selector>,
    /// Services; empty means every service.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Set if the rule is in effect.
    pub enabled: bool,
    /// Note for people: any text.
    #[serde(default)]
    pub note: String,
    /// Creation time, in seconds since 1970.
    pub created: u64,
}

/// Spec of a new access rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuleSpec {
    /// Verdict on the connections that it matches.
    #[schema(value_type = String)]
    pub verdict: Verdict,
    /// Selectors of the side that opens the connection.
    pub from: Vec<String>,
    /// Selectors of the side that the connection is opened to.
    pub to: Vec<String>,
    /// Services; empty means every service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub services: Vec<Service>,
    /// Set if the rule is in effect.
    #[serde(default = "on")]
    pub enabled: bool,
    /// Note: any text up to 256 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Changes to an access rule; fields that are left out stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RulePatch {
    /// Verdict on the connections that it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub verdict: Option<Verdict>,
    /// Selectors of the side that opens the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<String>>,
    /// Selectors of the side that the connection is opened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
    /// Services; an empty list means every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub services: Option<Vec<Service>>,
    /// Set if the rule is in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Note: any text up to 256 characters.
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
    /// Access rules of a network, oldest first.
    pub fn rules(&self, net: NetworkId) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.rules.values().filter(|rule| rule.net == net).collect();
        rules.sort_by_key(|rule| (rule.created, rule.id));
        rules
    }

    /// Finds an access rule of a network by its id, or by a unique beginning of it.
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

    /// Creates an access rule.
    pub fn create_rule(&self, net: &str, spec: &RuleSpec, moment: &Moment) -> Outcome<Rule> {
        let network = self.find_network(net)?;
        check_count("the number of rules", self.rules(network.id).len() + 1, RULES, "0 to 4096")?;
        let rule = Rule {
            id: RuleId::from_entropy(moment.bytes(0)),
            net: network.id,
            verdict: spec.verdict,
            from: self.selectors(network, "from", &spec.from)?,
            to: self.selectors(network, "to", &spec.to)?,
            services: services(&spec.services)?,
            enabled: spec.enabled,
            note: note(&spec.note)?,
            created: moment.now,
        };
        Ok((vec![rule.row()], rule))
    }

    /// Changes an access rule. Selectors that are left out stay, even those of deleted objects.
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
        if let Some(spec) = &patch.services {
            changed.services = services(spec)?;
        }
        if let Some(text) = &patch.note {
            changed.note = note(text)?;
        }
        Ok((if changed == *rule { Vec::new() } else { vec![changed.row()] }, changed))
    }

    /// Deletes an access rule.
    pub fn delete_rule(&self, net: &str, rule: &str) -> Outcome<Rule> {
        let rule = self.find_rule(net, rule)?;
        Ok((vec![Row::Rule(rule.id, None)], rule.clone()))
    }

    /// Warnings about an access rule, such as selectors that match nothing.
    pub fn rule_warnings(&self, rule: &Rule) -> Vec<String> {
        let default = self.network(rule.net).map(|network| network.access);
        let idle = rule.verdict == Verdict::Allow && default == Some(Verdict::Allow);
        let idle = idle
            .then(|| "this network allows what no rule denies: a rule that allows has no effect".to_owned());
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

    /// Parses the selectors of a rule or a group, in order, without duplicates.
    pub(super) fn named(&self, network: &Network, texts: &[String]) -> Result<Vec<Selector>, RegistryError> {
        check_count("the number of selectors", texts.len(), MOST, "1 to 256; a group can hold more")?;
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

fn services(spec: &[Service]) -> Result<Vec<Service>, RegistryError> {
    check_count("the number of services", spec.len(), MOST, "0 to 256")?;
    let mut services = Vec::new();
    for service in spec {
        if !services.contains(service) {
            services.push(*service);
        }
    }
    Ok(services)
}

fn note(text: &str) -> Result<String, RegistryError> {
    check_count("the length of the note", text.chars().count(), MOST, "0 to 256 characters")?;
    Ok(text.to_owned())
}
