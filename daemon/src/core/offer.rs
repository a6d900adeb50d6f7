//! What this router could serve as an exit: where its uplink leads, and whom it asks for names.

use super::owner;
use crate::{
    config::Config,
    core::desired::is_public,
    model::{Family, Observed},
    ownership::INTERFACE_PREFIX,
};
use gatewrt_protocol::{ExitOffer, NetworkName, Role};

/// What it could serve in this network; `None` where the router's owner forbids it.
pub fn offer(config: &Config, name: &NetworkName, observed: &Observed) -> Option<ExitOffer> {
    let allowed = owner(config, name).allowed.contains(&Role::Exit);
    let leads = |family| leads(observed, family);
    let dns = observed.resolvers.clone();
    allowed.then(|| ExitOffer { v4: leads(Family::V4), v6: leads(Family::V6), dns })
}

/// Whether there is a way to the Internet of this family over the WAN. IPv6 needs a public address too: a provider
/// without IPv6 may have its box announce itself as a router all the same.
pub fn leads(observed: &Observed, family: Family) -> bool {
    let default = |prefix: &gatewrt_protocol::Prefix| prefix.is_default() && Family::of(prefix) == family;
    let mut addresses = observed.addresses.iter();
    let foreign = |link: &str| !link.starts_with(INTERFACE_PREFIX);
    let mut public =
        || addresses.any(|it| it.addr.is_ipv6() && is_public(it.addr) && foreign(it.link.as_str()));
    observed.main_routes.iter().any(|route| default(&route.prefix)) && (family == Family::V4 || public())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, IfName, MainRoute};

    fn observed(prefix: &str, addr: &str, link: &str) -> Observed {
        let link = IfName::new(link).unwrap();
        let route = MainRoute { prefix: prefix.parse().unwrap(), link: IfName::new("wan"), on_link: false };
        let address = Address { link, addr: addr.parse().unwrap(), len: 64 };
        Observed { main_routes: [route].into(), addresses: [address].into(), ..Observed::default() }
    }

    #[test]
    fn an_uplink_leads_where_it_has_a_default_route_and_for_ipv6_an_address() {
        for (prefix, addr, link, v4, v6) in [
            ("0.0.0.0/0", "198.51.100.1", "wan", true, false),
            ("::/0", "2001:db8::1", "wan", false, true),
            ("::/0", "2001:db8::1", "br-lan", false, true),
            ("::/0", "2001:db8::1", "gw-home", false, false),
            ("::/0", "fe80::1", "wan", false, false),
            ("::/0", "fd00::1", "wan", false, false),
            ("2000::/3", "2001:db8::1", "wan", false, false),
        ] {
            let observed = observed(prefix, addr, link);
            let found = (leads(&observed, Family::V4), leads(&observed, Family::V6));
            assert_eq!(found, (v4, v6), "{prefix} {addr} {link}");
        }
    }

    #[test]
    fn an_exit_is_offered_only_where_the_owner_allows_it() {
        let observed = Observed {
            resolvers: vec!["9.9.9.9".parse().unwrap()],
            ..observed("0.0.0.0/0", "198.51.100.1", "wan")
        };
        let name: NetworkName = "home".parse().unwrap();
        assert_eq!(offer(&Config::default(), &name, &observed), None);
        let config = Config::parse("", b"config network 'home'\n option allow_exit '1'").unwrap();
        let expected = ExitOffer { v4: true, v6: false, dns: observed.resolvers.clone() };
        assert_eq!(offer(&config, &name, &observed), Some(expected));
    }
}
