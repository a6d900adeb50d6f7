//! Exit service that this router could offer: families that its uplink carries, and its resolvers.

use crate::{
    config::Config,
    core::owner,
    model::{Family, Observed},
    ownership::INTERFACE_PREFIX,
};
use gatewrt_protocol::{ExitOffer, NetworkName, Role, is_public};

/// Exit service that this router could offer in a network; `None` where the router's owner forbids it.
pub fn offer(config: &Config, name: &NetworkName, observed: &Observed) -> Option<ExitOffer> {
    let allowed = owner(config, name).allowed.contains(&Role::Exit);
    let has = |family| has_internet(observed, family);
    let dns = observed.resolvers.clone();
    allowed.then(|| ExitOffer { v4: has(Family::V4), v6: has(Family::V6), dns })
}

/// True if the WAN carries a family to the Internet. IPv6 needs a public address too: a provider's box may announce
/// itself as an IPv6 router although the provider has no IPv6.
pub fn has_internet(observed: &Observed, family: Family) -> bool {
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
    use crate::model::{Address, ForeignRoute, IfName};

    fn observed(prefix: &str, addr: &str, link: &str) -> Observed {
        let link = IfName::new(link).unwrap();
        let route =
            ForeignRoute { prefix: prefix.parse().unwrap(), link: IfName::new("wan"), on_link: false };
        let address = Address { link, addr: addr.parse().unwrap(), len: 64 };
        Observed {
            main_routes: [route].into_iter().collect(),
            addresses: [address].into_iter().collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn uplink_without_default_route_or_public_ipv6_address_carries_no_internet() {
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
            let found = (has_internet(&observed, Family::V4), has_internet(&observed, Family::V6));
            assert_eq!(found, (v4, v6), "{prefix} {addr} {link}");
        }
    }

    #[test]
    fn router_whose_owner_forbids_it_offers_no_exit() {
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
