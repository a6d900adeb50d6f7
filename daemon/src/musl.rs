//! Replacements for functions of the C library that would bring unused code to a router's flash.

use nix::libc::{c_char, c_int, pthread_t};

/// Threads stay without a name: the C library's way to give one brings all of `printf` with it.
// SAFETY: it has the signature of the one that it stands for, and does nothing.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_: pthread_t, _: *const c_char) -> c_int {
    0
}
