//! Crash log line of a program built without panic messages: the address where it crashed. `cross/symbolize` names the
//! function at that address, given the same program with its symbols (`cross/README.md`).

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd,
};
use std::{ffi::c_void, fmt::Write, hint::black_box, io};

/// Signals that a trap instruction raises. A panic is such an instruction there; the processor decides which signal.
const TRAPS: [Signal; 2] = [Signal::SIGILL, Signal::SIGTRAP];

/// Installs the signal handler that logs the address of a crash on stderr. The process still ends by the signal.
pub fn log_address() {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::SigAction(log), flags, SigSet::empty());
    for signal in TRAPS {
        // SAFETY: the handler formats numbers on its own stack and calls write(2): both are safe in a handler.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// Panics, for the test of the log line and of `cross/symbolize`. The condition is opaque: a function that only traps would
/// share its address with all others of that kind.
#[inline(never)]
pub fn panic_on_purpose() {
    assert!(!black_box(true), "asked to crash");
}

/// Handler of the traps. On return the instruction traps again, and the signal has its usual effect.
extern "C" fn log(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the handler both, valid until it returns.
    let address = unsafe { trap_address(info, context) };
    let mut line = heapless::String::<128>::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(line, "gatewrt {version} crashed at {address:#x}: please report this line");
    let _ = unistd::write(io::stderr(), line.as_bytes());
}

/// Address of the instruction that trapped.
///
/// # Safety
/// `info` is what the kernel passed to the handler.
#[cfg(not(target_arch = "mips"))]
unsafe fn trap_address(info: *const libc::siginfo_t, _: *const c_void) -> usize {
    // SAFETY: the kernel sets the address for these signals.
    unsafe { (*info).si_addr() }.addr()
}

/// Address of the instruction that trapped. MIPS kernels raise SIGTRAP without an address (`do_trap_or_bp` in
/// arch/mips/kernel/traps.c), so it is the saved program counter.
///
/// # Safety
/// `context` is what the kernel passed to the handler.
#[cfg(target_arch = "mips")]
unsafe fn trap_address(_: *const libc::siginfo_t, context: *const c_void) -> usize {
    // SAFETY: the kernel wrote a whole ucontext there.
    unsafe { (*context.cast::<MipsContext>()).registers.program_counter as usize }
}

/// `ucontext_t` of the o32 ABI up to the program counter; libc has none for musl on MIPS.
#[cfg(target_arch = "mips")]
#[repr(C)]
struct MipsContext {
    _flags: libc::c_ulong,
    _link: *const c_void,
    _stack: libc::stack_t,
    registers: MipsRegisters,
}

/// Saved registers: the beginning of `struct sigcontext` in arch/mips/include/uapi/asm/sigcontext.h.
#[cfg(target_arch = "mips")]
#[repr(C)]
struct MipsRegisters {
    _mask: u32,
    _status: u32,
    program_counter: u64,
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
    fn trap_logs_its_address_and_ends_the_process() {
        let (ours, theirs) = pipe().unwrap();
        // SAFETY: the child calls nothing that other threads may have locked.
        let ForkResult::Parent { child } = (unsafe { fork() }).unwrap() else {
            let _ = dup2_stderr(&theirs);
            log_address();
            trap();
            unreachable!("it traps");
        };
        drop(theirs);
        let mut logged = String::new();
        File::from(ours).read_to_string(&mut logged).unwrap();
        let address = logged.split_once("crashed at 0x").and_then(|(_, rest)| rest.split(':').next());
        let address = usize::from_str_radix(address.expect("an address"), 16).expect("hexadecimal");
        assert!(address.abs_diff(trap as *const () as usize) < 256, "{logged}");
        assert!(
            matches!(waitpid(child, None), Ok(WaitStatus::Signaled(_, signal, _)) if TRAPS.contains(&signal))
        );
    }
}
