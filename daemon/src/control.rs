//! Control socket of the daemon, `<run dir>/control.sock`, mode 0600. A connection carries one request and one answer,
//! each a line of JSON. The command line and the rpcd plugin are its clients.
//!
//! One process at a time has the run-time directory and the state directory: the one that holds the locks on
//! `<run dir>/lock` and on the state directory itself. Whether something listens on the socket does not tell: a program
//! that a daemon was starting when it was killed holds its socket for a moment, until `execve` closes it. It never holds
//! the first lock (fcntl(2), F_SETLK), and the second for that moment alone.

use crate::{
    config::OwnScope,
    show::{self, Answer, View},
    task,
};
use gatewrt_protocol::{JoinCode, NetworkName, NodeName, Tag};
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::{mpsc, oneshot},
};

/// Longest request or answer, in bytes.
const MAX_LINE: u64 = 4 << 20;
/// Requests that wait for the daemon at most; further clients wait on their connections.
const QUEUE: usize = 8;
/// Time for a client to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last answers to reach their clients when the daemon ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Request of a client to the running daemon, over its control socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// State of everything; answered with [`Answer::Status`].
    Status,
    /// Changes that are due in the kernel; answered with [`Answer::Plan`].
    Plan,
    /// Join a network; answered with [`Answer::Joined`].
    Join {
        /// Join code.
        code: JoinCode,
        /// Preferred name; absent for the hostname.
        name: Option<NodeName>,
    },
    /// Leave a network; answered with [`Answer::Done`] when the kernel holds nothing of it any more.
    Leave {
        /// Network.
        network: NetworkName,
    },
    /// Send traffic through an exit from now on; answered with [`Answer::Done`].
    ExitEnable {
        /// Network; absent where there is only one.
        network: Option<NetworkName>,
        /// Name of the scope, in place of the one in `scope`; absent for the network's name.
        only: Option<Tag>,
        /// Traffic, and the exits that it goes through.
        scope: Box<OwnScope>,
    },
    /// Stop using exits, whatever the coordinator's assignment says; answered with [`Answer::Done`].
    ExitDisable {
        /// Network; absent where there is only one.
        network: Option<NetworkName>,
        /// Single scope to stop; absent for all.
        only: Option<Tag>,
    },
    /// Forget this router's own choice of exits, so that the coordinator's counts again; answered with
    /// [`Answer::Done`].
    ExitForget {
        /// Network; absent where there is only one.
        network: Option<NetworkName>,
    },
    /// Read the configuration again; answered with [`Answer::Done`].
    Reload,
    /// End the daemon; answered with [`Answer::Done`].
    Stop {
        /// Remove everything of ours from the kernel first.
        teardown: bool,
    },
}

/// Answer as it is sent over the control socket: the text that the client prints, or the reason of a failure.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Text(String),
    Failed(String),
}

/// Reason why a request to the daemon got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens on the socket.
    #[error(
        "the daemon is not running (nothing listens on {}): start it with “gatewrtd” or “/etc/init.d/gatewrt start”",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket is for root only.
    #[error("not permitted to use {}: run it as root", .0.display())]
    Permission(PathBuf),
    /// The connection broke, or its content is no answer.
    #[error("no answer from the daemon: {0}")]
    Broken(String),
    /// The daemon could not do it.
    #[error("{0}")]
    Failed(String),
}

/// Path of the daemon's control socket below the run-time directory `run_dir`.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// Sends a request to the daemon that listens below `run_dir` and returns its answer as text, rendered by the daemon
/// as `view` says. Gives up after `timeout`.
pub fn ask(
    run_dir: &Path,
    request: &Request,
    view: &View,
    timeout: Duration,
) -> Result<String, ControlError> {
    let stream = connect(&socket_path(run_dir))?;
    let line =
        serde_json::to_string(&(request, view)).map_err(|error| ControlError::Broken(error.to_string()))?;
    let answer = exchange(&stream, &line, timeout).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ControlError::Broken(format!("none within {} s; it may still be at it", timeout.as_secs()))
        }
        _ => ControlError::Broken(error.to_string()),
    })?;
    match serde_json::from_slice(answer.as_bytes()) {
        Ok(Reply::Text(text)) => Ok(text),
        Ok(Reply::Failed(why)) => Err(ControlError::Failed(why)),
        Err(error) => Err(ControlError::Broken(error.to_string())),
    }
}

fn connect(path: &Path) -> Result<UnixStream, ControlError> {
    UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Permission(path.to_owned()),
        _ => ControlError::NotRunning(path.to_owned()),
    })
}

fn exchange(mut stream: &UnixStream, line: &str, timeout: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).take(MAX_LINE).read_line(&mut answer)?;
    Ok(answer)
}

/// Request over the control socket, and the channel for its answer.
pub type Call = (Request, oneshot::Sender<Answer>);

/// Queue of the requests that come over the control socket.
pub struct Calls {
    calls: mpsc::Receiver<Call>,
    /// Ends when no connection is being served any more.
    serving: mpsc::Receiver<Infallible>,
    _claim: Claim,
}

/// Locks of the one process that works on these directories, until it ends.
pub struct Claim {
    _run_dir: File,
    /// `None` where the file system can't lock it.
    _state_dir: Option<File>,
}

impl Calls {
    /// Next request that came over the control socket.
    pub async fn recv(&mut self) -> Option<Call> {
        self.calls.recv().await
    }

    /// Refuses further requests over the control socket, and waits until the answers that were given have reached their
    /// clients.
    pub async fn finish(mut self) {
        drop(self.calls);
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.serving.recv()).await;
    }
}

/// Claims both directories, which are made if they are missing, for this process. Waits for a daemon that is ending, but
/// not longer than `patience`; one that goes on is an error.
pub fn claim(run_dir: &Path, state_dir: &Path, patience: Duration) -> io::Result<Claim> {
    DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    let _ = DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    let end = Instant::now() + patience;
    let until_free = |take: &dyn Fn() -> io::Result<File>| loop {
        match take() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(Duration::from_millis(50));
            }
            taken => return taken,
        }
    };
    let run_dir = until_free(&|| lock(&run_dir.join("lock")))?;
    let state_dir = match until_free(&|| lock_dir(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        taken => taken.ok(),
    };
    Ok(Claim { _run_dir: run_dir, _state_dir: state_dir })
}

fn lock_dir(path: &Path) -> io::Result<File> {
    let dir = File::open(path)?;
    match dir.try_lock() {
        Ok(()) => Ok(dir),
        Err(TryLockError::WouldBlock) => Err(held(path)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn held(path: &Path) -> io::Error {
    let what = format!("a daemon is running already: it holds {}", path.display());
    io::Error::new(io::ErrorKind::AddrInUse, what)
}

/// Opens the control socket below `run_dir` and serves it in a task of its own. A socket that a dead daemon left behind
/// is replaced.
pub fn listen(run_dir: &Path, claim: Claim) -> io::Result<Calls> {
    let path = socket_path(run_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let (sender, calls) = mpsc::channel(QUEUE);
    let (guard, serving) = mpsc::channel(1);
    task::spawn(accept(listener, sender, guard));
    Ok(Calls { calls, serving, _claim: claim })
}

/// Locks a file until the process ends.
fn lock(path: &Path) -> io::Result<File> {
    use nix::{
        errno::Errno,
        fcntl::{FcntlArg, fcntl},
        libc,
    };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    // From its first byte to its end, and beyond.
    let range = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_SETLK(&range)) {
        Ok(_) => Ok(file),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(held(path)),
        Err(error) => Err(error.into()),
    }
}

/// Serves each connection to the control socket in a task of its own until [`Calls`] is dropped. Every task holds
/// `guard` while it serves.
async fn accept(listener: UnixListener, sender: mpsc::Sender<Call>, guard: mpsc::Sender<Infallible>) {
    loop {
        tokio::select! {
            () = sender.closed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (sender, guard) = (sender.clone(), guard.clone());
                    task::spawn(async move {
                        serve(stream, sender).await;
                        drop(guard);
                    });
                }
                Err(error) => {
                    log::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
}

async fn serve(stream: tokio::net::UnixStream, calls: mpsc::Sender<Call>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader).take(MAX_LINE);
    let read = tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(length)) if length > 0) {
        return;
    }
    let text = match serde_json::from_slice::<(Request, View)>(line.as_bytes()) {
        Ok((request, view)) => show::render(&view, &call(request, &calls).await),
        Err(error) => Err(format!("not a request: {error}")),
    };
    let reply = text.map_or_else(Reply::Failed, Reply::Text);
    let line = serde_json::to_string(&reply).unwrap_or_default();
    let _ = writer.write_all(format!("{line}\n").as_bytes()).await;
}

async fn call(request: Request, calls: &mpsc::Sender<Call>) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let gone = || Answer::Failed("the daemon is stopping".to_owned());
    if calls.send((request, sender)).await.is_err() {
        return gone();
    }
    receiver.await.unwrap_or_else(|_| gone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::Done;

    fn claimed(dir: &Path) -> Claim {
        claim(dir, dir, Duration::ZERO).unwrap()
    }

    #[test]
    fn state_directory_is_claimed_whatever_the_run_time_directory() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, state] = ["one", "two", "state"].map(|name| dir.path().join(name));
        let first = claim(&one, &state, Duration::ZERO).unwrap();
        let error = claim(&two, &state, Duration::from_millis(1)).err().unwrap().to_string();
        assert!(error.starts_with("a daemon is running already") && error.ends_with("/state"), "{error}");
        let ends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        assert!(claim(&two, &state, Duration::from_secs(10)).is_ok(), "it waits for one that ends");
        ends.join().unwrap();
    }

    #[test]
    fn request_without_an_answer_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = std::os::unix::net::UnixListener::bind(socket_path(dir.path())).unwrap();
        let error =
            ask(dir.path(), &Request::Status, &View::default(), Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.to_string(), "no answer from the daemon: none within 0 s; it may still be at it");
    }

    #[tokio::test]
    async fn socket_held_by_a_child_of_a_dead_daemon_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let _held = std::os::unix::net::UnixListener::bind(socket_path(dir.path())).unwrap();
        assert!(listen(dir.path(), claimed(dir.path())).is_ok());
    }

    #[test]
    fn answer_before_shutdown_reaches_its_client() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = tokio.block_on(async {
            let mut calls = listen(&path, claimed(&path)).unwrap();
            let stop = Request::Stop { teardown: false };
            let asked =
                std::thread::spawn(move || ask(&path, &stop, &View::default(), Duration::from_secs(10)));
            let (_, reply) = calls.recv().await.unwrap();
            reply.send(Answer::Done(Done { hint: "bye".to_owned() })).unwrap();
            calls.finish().await;
            asked
        });
        drop(tokio);
        let answer = asked.join().unwrap();
        assert!(matches!(&answer, Ok(text) if text == "bye\n"), "{answer:?}");
    }
}
