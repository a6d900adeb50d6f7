//! Foreign objects on every router of a [`Mesh`](super::Mesh): placed before its daemon starts, and compared byte for
//! byte at the end of every test.

use super::INTERFACE;
use crate::lab::{Foreign, ForeignKit, Host};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// The daemon's own table and the priority of its rule, which others may use too.
const OUR_TABLE: u32 = 26487;
const OUR_PRIORITY: u32 = 900;
/// Selector and table of the daemon's rule, as `ip rule add` takes them.
const OUR_RULE: &str = "not fwmark 0x1000000/0xf000000 lookup 26487";
/// File that marks the objects of a router as placed; a reboot removes it as it removes them.
const MARKER: &str = "/run/foreign-objects";

/// Foreign objects for every router: the usual kit, and look-alikes of our own objects.
pub fn foreign_kit(router: &Host) -> ForeignKit {
    let kit = Foreign::kit(router).in_table(OUR_TABLE);
    let kit = (OUR_PRIORITY - 1..=OUR_PRIORITY + 1).fold(kit, ForeignKit::with_rule);
    kit.with_rule_like(OUR_PRIORITY, OUR_RULE)
}

/// Foreign objects of a lab's routers.
#[derive(Default)]
pub(super) struct Bystanders {
    routers: BTreeMap<String, Placed>,
}

/// Foreign objects of one router, since its last boot.
struct Placed {
    router: Host,
    everywhere: Foreign,
    on_interface: Option<Foreign>,
}

impl Bystanders {
    /// Places the objects that need nothing of ours, once per boot of the router.
    pub(super) fn place(&mut self, router: &Host) -> Result<()> {
        if router.exists(MARKER)? {
            return Ok(());
        }
        let everywhere = foreign_kit(router).place()?;
        router.write_file(MARKER, "")?;
        let placed = Placed { router: router.clone(), everywhere, on_interface: None };
        self.routers.insert(router.name().to_owned(), placed);
        Ok(())
    }

    /// Places the objects on our interface, which must be up, once per boot of the router.
    pub(super) fn place_on_interface(&mut self, router: &str) -> Result<()> {
        let placed = self.routers.get_mut(router);
        let placed = placed.with_context(|| format!("no daemon was started on {router}"))?;
        if placed.on_interface.is_none() {
            placed.on_interface = Some(Foreign::on_interface(&placed.router, INTERFACE)?);
        }
        Ok(())
    }

    /// Removes the objects of a router, so that they can be placed again.
    pub(super) fn remove(&mut self, router: &Host) -> Result<()> {
        if let Some(placed) = self.routers.remove(router.name()) {
            placed.everywhere.remove()?;
            router.remove(MARKER)?;
        }
        Ok(())
    }

    /// Stops expecting the objects on our interface, which is about to go; the next one starts without any.
    pub(super) fn forget_interface(&mut self, router: &str) {
        if let Some(placed) = self.routers.get_mut(router) {
            placed.on_interface = None;
        }
    }

    /// Objects that were touched, on any router. A reboot removes them all and doesn't count.
    pub(super) fn changes(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (name, placed) in &self.routers {
            if placed.router.exists(MARKER)? {
                let changes = [Some(&placed.everywhere), placed.on_interface.as_ref()];
                for foreign in changes.into_iter().flatten() {
                    all.extend(foreign.changes()?.into_iter().map(|change| format!("{name}: {change}")));
                }
            }
        }
        Ok(all)
    }
}
