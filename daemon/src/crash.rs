//! What is said of a crash by a program that was built without the messages of panics (`cross/README.md`): where it
//! stopped. Whoever has the same program with its symbols finds the line by that.

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd,
};
use std::{fmt::Write, io};

/// There a panic is an instruction that traps. The signal depends on the processor.
const TRAPS: [Signal; 2] = [Signal::SIGILL, Signal::SIGTRAP];

/// From now on a trap is said on stderr; the process still ends by it.
pub fn say_where() {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::SigAction(say), flags, SigSet::empty());
    for signal in TRAPS {
        // SAFETY: the handler formats numbers on its own stack and calls write(2): both are safe in a handler.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// On return the instruction traps again, and the signal has its usual effect.
extern "C" fn say(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a siginfo, which holds the address for these signals.
    let at = unsafe { (*info).si_addr() };
    let mut line = heapless::String::<128>::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(line, "gatewrt {version} has a fault at {at:p} and ends: please report this line");
    let _ = unistd::write(io::stderr(), line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        sys::wait::{WaitStatus, waitpid},
        unistd::{ForkResult, dup2_stderr, fork, pipe},
    };
    use std::{arch::asm, fs::File, io::Read};

    fn trap() {
        // SAFETY: it ends the process.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            asm!("ud2");
            #[cfg(target_arch = "aarch64")]
            asm!("brk #1");
        }
    }

    #[test]
    fn a_trap_is_said_with_its_address_and_ends_the_process() {
        let (ours, theirs) = pipe().unwrap();
        // SAFETY: the child calls nothing that other threads may have locked.
        let ForkResult::Parent { child } = (unsafe { fork() }).unwrap() else {
            let _ = dup2_stderr(&theirs);
            say_where();
            trap();
            unreachable!("it traps");
        };
        drop(theirs);
        let mut said = String::new();
        File::from(ours).read_to_string(&mut said).unwrap();
        let address = said.split_once("fault at 0x").and_then(|(_, rest)| rest.split(' ').next());
        let address = usize::from_str_radix(address.expect("an address"), 16).expect("hexadecimal");
        assert!(address.abs_diff(trap as *const () as usize) < 256, "{said}");
        assert!(
            matches!(waitpid(child, None), Ok(WaitStatus::Signaled(_, signal, _)) if TRAPS.contains(&signal))
        );
    }
}
