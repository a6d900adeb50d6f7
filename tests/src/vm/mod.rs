//! Virtual machines with a kernel of their own, which stand in for hosts of the [`lab`](crate::lab): another architecture,
//! and kernel WireGuard, which the machine that runs the tests may lack.
//!
//! Kernels and programs are Debian's; `tests/bootstrap vm` unpacks them into `target/tools/vm`. What a machine boots from is
//! an initramfs made here ([`Initramfs`]), with an agent in it that runs what it is told over a port of its own ([`Vm::run`]):
//! no network is needed to talk to it, none can cut it off. QEMU emulates, with or without hardware that helps.

mod initramfs;
mod machine;
mod packages;
mod router;
mod shell;
mod twin;
mod wiring;

pub use initramfs::Initramfs;
pub use machine::{Hardware, Vm};
pub use packages::Packages;
pub use router::{Memory, Router};
pub use twin::{Copying, Twin};
pub use wiring::plug;
