//! Uplinks of the router: which links are WANs and LANs, at which addresses the router can be reached, and what it could
//! serve as an exit. Pure: read off an observation.

mod exit_service;
mod local_routes;
mod offer;
mod place;

pub(super) use exit_service::internet_sources;
pub(super) use local_routes::LocalRoutes;
pub use offer::{has_internet, offer};
pub use place::{Place, lan_links, link_prefixes, outer_links, place, wan_links};
