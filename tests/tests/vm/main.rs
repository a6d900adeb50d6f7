//! Tests in virtual machines. `make vm` builds the packages that they install, and runs them; other runs ignore them.

mod mips;
#[path = "../lab/node_generator.rs"]
mod node_generator;
mod x86;
