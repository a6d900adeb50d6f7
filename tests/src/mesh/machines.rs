//! Routers of a [`Mesh`] that are virtual machines ([`Router`]): they join as others do, and answer the same commands.

use super::{Mesh, NETWORK, owner_config};
use crate::vm::Router;
use anyhow::{Context, Result};

impl Mesh {
    /// Boots an emulated router in place of one of the lab's, which must not have been used so far, and has it join
    /// under that name. `options` are added to its network's section of the UCI file.
    pub fn join_machine(&mut self, name: &str, options: &str) -> Result<()> {
        let router = Router::boot(&self.host(name)?)?;
        let config = owner_config(&router.host, NETWORK)?;
        let config = config.unwrap_or_else(|| format!("config network '{NETWORK}'\n"));
        router.vm.write_file(super::CONFIG, format!("{config}{options}"))?;
        router.start_daemon()?;
        self.machines.insert(name.to_owned(), router);
        let code = self.code(1)?;
        self.gatewrt(name, &["join", &code, "--name", name]).map(drop)
    }

    /// Router that [`Mesh::join_machine`] has booted.
    pub fn machine(&self, name: &str) -> Result<&Router> {
        self.machines.get(name).with_context(|| format!("{name} is no machine"))
    }
}
