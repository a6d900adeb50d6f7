//! GateWRT as it is built for OpenWrt, on an emulated MIPS router with 64 MB and kernel WireGuard.

use anyhow::Result;
use gatewrt_tests::{lab::Lab, vm::Router};

#[test]
fn it_boots() -> Result<()> {
    let lab = Lab::two_sites()?;
    let router = Router::boot(&lab.host("home")?)?;
    eprintln!("booted in {:?}", router.vm.booted_in);
    router.vm.run("ping -c 1 coordinator")?;
    router.vm.run("gatewrt version")?;
    Ok(())
}
