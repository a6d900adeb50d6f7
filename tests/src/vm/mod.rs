//! Virtual machines with a kernel of their own, which stand in for hosts of the [`lab`](crate::lab): another architecture,
//! and kernel WireGuard, which the machine that runs the tests may lack.
//!
//! Kernels and programs are Debian's; `tests/bootstrap vm` unpacks them into `target/tools/vm`. A machine boots from an
//! initramfs made here ([`Initramfs`]). An agent in it runs commands that come over a serial port of its own
//! ([`Vm::run`]): no network is needed to reach the machine, and none can cut it off. QEMU emulates the processor, so
//! that no hardware support is needed.

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
