//! Starts a program, and follows it to its end. By fork and exec: `std::process::Command` does it for every case there is,
//! which are 5 KB of the package.

use crate::gather::Gather;
use nix::{
    fcntl::OFlag,
    libc,
    unistd::{ForkResult, fork, pipe2},
};
use std::{
    env,
    ffi::{CString, c_char},
    fs::File,
    io::{self, Read},
    iter::once,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, process::ExitStatusExt},
    },
    path::Path,
    process::ExitStatus,
    ptr,
};

/// Open files beyond this are not looked for.
const MOST_FILES: i32 = 4096;

/// A process of ours. Nothing happens to it when this is dropped.
pub struct Child(libc::pid_t);

/// Starts `program` with these as its standard input, output and error, and with our environment, but speaking English.
pub fn start(program: &Path, arguments: &[&str], ends: [BorrowedFd<'_>; 3]) -> io::Result<Child> {
    let ours = env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    // The first of a name counts.
    spawn(program, arguments, &once(b"LC_ALL=C".to_vec()).chain(ours).gather(), ends, false)
}

/// Starts `program` in a session of its own, with no environment but `PATH` and with nothing of ours open: it goes on when
/// we end, however we end.
pub fn start_apart(program: &Path, arguments: &[&str], path: &str) -> io::Result<Child> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    spawn(program, arguments, &[["PATH=", path].concat().into_bytes()], [null.as_fd(); 3], true)
}

fn spawn(
    program: &Path,
    arguments: &[&str],
    environment: &[Vec<u8>],
    ends: [BorrowedFd<'_>; 3],
    apart: bool,
) -> io::Result<Child> {
    let program = program.as_os_str().as_bytes();
    let arguments = texts(&mut once(program).chain(arguments.iter().map(|argument| argument.as_bytes())))?;
    let environment = texts(&mut environment.iter().map(Vec::as_slice))?;
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    let (failure, tell) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: until it is another program, the child only makes system calls, on what was made before.
    match unsafe { fork() }? {
        ForkResult::Child => unsafe {
            let errno = become_(&arguments, &environment, ends.map(|end| end.as_raw_fd()), apart);
            libc::write(tell.as_raw_fd(), ptr::from_ref(&errno).cast(), size_of_val(&errno));
            libc::_exit(127)
        },
        ForkResult::Parent { child } => {
            drop(tell);
            let child = Child(child.as_raw());
            let mut errno = [0; 4];
            if File::from(failure).read_exact(&mut errno).is_ok() {
                let _ = child.wait();
                return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)));
            }
            Ok(child)
        }
    }
}

fn texts(all: &mut dyn Iterator<Item = &[u8]>) -> io::Result<Vec<CString>> {
    let mut texts = Vec::new();
    for text in all {
        texts.push(CString::new(text)?);
    }
    Ok(texts)
}

/// As `execve` takes it: ends with a null.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain(once(ptr::null())).gather()
}

/// Makes this process, which has just been forked, another program. Comes back with the error when it can't.
///
/// # Safety
/// Both lists end with a null, and what they point to lives.
unsafe fn become_(
    arguments: &[*const c_char],
    environment: &[*const c_char],
    ends: [i32; 3],
    apart: bool,
) -> i32 {
    // SAFETY: system calls that touch no memory but what they are given.
    unsafe {
        for (number, end) in (0..).zip(ends) {
            libc::dup2(end, number);
        }
        if apart {
            libc::setsid();
            libc::chdir(c"/".as_ptr());
            for file in 3..MOST_FILES {
                libc::fcntl(file, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        // We ignore it, which would be handed on.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr());
    }
    nix::errno::Errno::last_raw()
}

impl Child {
    /// Ends it at once.
    pub fn kill(&self) {
        // SAFETY: a system call on a process that is ours until it was waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// Waits for its end.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            match self.poll(0) {
                Ok(Some(status)) => return Ok(status),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// How it ended; `None` while it runs.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.poll(libc::WNOHANG)
    }

    fn poll(&self, options: i32) -> io::Result<Option<ExitStatus>> {
        let mut status = 0;
        // SAFETY: it writes to `status` alone.
        match unsafe { libc::waitpid(self.0, &mut status, options) } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(None),
            _ => Ok(Some(ExitStatus::from_raw(status))),
        }
    }
}
