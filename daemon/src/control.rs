//! The control socket, `<run dir>/control.sock`, mode 0600: one line of JSON asks, one line answers. The
//! command line and the rpcd plugin use it; nothing else needs to.

use crate::{
    config::OwnScope,
    core::report::Status,
    log,
    show::{self, View},
    task,
};
use gatewrt_protocol::{
    JoinCode, NetworkName, NodeName, Tag,
    json::{self, FromJson, JsonError, Reader},
    json_fields,
};
use serde::Serialize;
use std::{
    convert::Infallible,
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::{mpsc, oneshot},
};

/// The longest request or answer, in bytes.
const LONGEST: u64 = 4 << 20;
/// Requests waiting for the daemon at the most.
const WAITING: usize = 8;
/// How long the last answers may take to get through at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What can be asked of a running daemon.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// State of everything; answers a [`Status`].
    Status,
    /// What would be done to the kernel now; answers a [`PlanAnswer`].
    Plan,
    /// Join a network; answers a [`Joined`].
    Join {
        /// The join code.
        code: JoinCode,
        /// The name wanted.
        name: Option<NodeName>,
    },
    /// Leave a network; answers a [`Done`] when nothing of it is left in the kernel.
    Leave {
        /// The network.
        network: NetworkName,
    },
    /// Send this traffic through an exit from now on; answers a [`Done`].
    ExitEnable {
        /// The network; absent where there is only one.
        network: Option<NetworkName>,
        /// What the scope is called, whatever it says itself; absent for the network's name.
        only: Option<Tag>,
        /// Which traffic, and through which exits.
        scope: Box<OwnScope>,
    },
    /// Send traffic through no exit any more, whatever the coordinator says; answers a [`Done`].
    ExitDisable {
        /// The network; absent where there is only one.
        network: Option<NetworkName>,
        /// The traffic of this scope alone.
        only: Option<Tag>,
    },
    /// Forget what was said of exits here: the coordinator's word counts again; answers a [`Done`].
    ExitForget {
        /// The network; absent where there is only one.
        network: Option<NetworkName>,
    },
    /// Read the configuration again; answers a [`Done`].
    Reload,
    /// End the daemon; answers a [`Done`].
    Stop {
        /// Take everything of ours out of the kernel first.
        teardown: bool,
    },
}

/// A request as it comes: of the fields, each kind uses its own.
struct Line {
    what: String,
    code: Option<JoinCode>,
    name: Option<NodeName>,
    network: Option<NetworkName>,
    teardown: Option<bool>,
    scope: Option<Box<OwnScope>>,
    only: Option<Tag>,
}
json_fields!(Line: what "do"; code, name, network, teardown, scope, only);

impl FromJson for Request {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        Line::from_json(reader)?.request().map_err(|why| reader.fault(&why))
    }
}

impl Line {
    fn request(self) -> Result<Request, String> {
        let Self { what, code, name, network, teardown, scope, only } = self;
        let without = |field: &str| format!("“{what}” without “{field}”");
        Ok(match what.as_str() {
            "status" => Request::Status,
            "plan" => Request::Plan,
            "join" => Request::Join { code: code.ok_or_else(|| without("code"))?, name },
            "leave" => Request::Leave { network: network.ok_or_else(|| without("network"))? },
            "exit-enable" => {
                Request::ExitEnable { network, only, scope: scope.ok_or_else(|| without("scope"))? }
            }
            "exit-disable" => Request::ExitDisable { network, only },
            "exit-forget" => Request::ExitForget { network },
            "reload" => Request::Reload,
            "stop" => Request::Stop { teardown: teardown.ok_or_else(|| without("teardown"))? },
            _ => return Err(format!("“{what}” is none that is known")),
        })
    }
}

/// Answer to [`Request::Plan`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlanAnswer {
    /// What would be done, in order; empty when the kernel is as it shall be.
    pub steps: Vec<String>,
}

/// Answer to [`Request::Join`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Joined {
    /// The network.
    pub network: NetworkName,
    /// The name this router got.
    pub name: NodeName,
    /// Its overlay addresses.
    pub addresses: Vec<std::net::IpAddr>,
}

/// Answer where there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// What remains to be done by the person who asked, if anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// The daemon's answer to any request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// State.
    Status(Box<Status>),
    /// Plan.
    Plan(PlanAnswer),
    /// Joined.
    Joined(Joined),
    /// Done.
    Done(Done),
    /// It could not be done, and why.
    Failed(String),
}

/// The same as it is sent: as text, see [`show::answer`].
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Shown {
    Text(String),
    Failed(String),
}

impl FromJson for Shown {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut shown = None;
        reader.object(&mut |reader, key| {
            shown = Some(match key {
                "text" => Self::Text(String::from_json(reader)?),
                "failed" => Self::Failed(String::from_json(reader)?),
                _ => return Err(reader.fault("an unknown kind of answer")),
            });
            Ok(())
        })?;
        shown.ok_or_else(|| reader.fault("an object with one key is expected"))
    }
}

/// Why the daemon gave no answer.
#[derive(Debug)]
pub enum ControlError {
    /// No daemon listens there.
    NotRunning(PathBuf),
    /// The socket is for root only.
    Permission(PathBuf),
    /// The connection broke or what came is no answer.
    Broken(String),
    /// The daemon answered that it could not be done.
    Failed(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(path) => write!(
                f,
                "the daemon is not running (nothing listens on {}): start it with “gatewrtd” or “/etc/init.d/gatewrt start”",
                path.display()
            ),
            Self::Permission(path) => write!(f, "not permitted to use {}: run it as root", path.display()),
            Self::Broken(what) => write!(f, "no answer from the daemon: {what}"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}
impl std::error::Error for ControlError {}

/// Where the socket is.
pub fn socket_of(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// Asks the daemon that listens below `run_dir` for an answer as text; waits at most `patience`.
pub fn ask(
    run_dir: &Path,
    request: &Request,
    view: &View,
    patience: Duration,
) -> Result<String, ControlError> {
    let path = socket_of(run_dir);
    let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Permission(path.clone()),
        _ => ControlError::NotRunning(path.clone()),
    })?;
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ControlError::Broken(format!("none within {} s; it may still be at it", patience.as_secs()))
        }
        _ => ControlError::Broken(error.to_string()),
    };
    stream.set_read_timeout(Some(patience)).map_err(broken)?;
    let line = json::write(&(request, view)).map_err(|error| ControlError::Broken(error.to_string()))?;
    (&stream).write_all(format!("{line}\n").as_bytes()).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(stream).take(LONGEST).read_line(&mut answer).map_err(broken)?;
    match json::read(answer.as_bytes()) {
        Ok(Shown::Text(text)) => Ok(text),
        Ok(Shown::Failed(why)) => Err(ControlError::Failed(why)),
        Err(error) => Err(ControlError::Broken(error.to_string())),
    }
}

/// A request and where its answer goes.
pub type Call = (Request, oneshot::Sender<Answer>);

/// What comes over the socket.
pub struct Calls {
    calls: mpsc::Receiver<Call>,
    /// Ends when no connection is being served any more.
    serving: mpsc::Receiver<Infallible>,
}

impl Calls {
    /// The next request.
    pub async fn recv(&mut self) -> Option<Call> {
        self.calls.recv().await
    }

    /// Takes no more requests, and waits until the answers that were given are with those who asked.
    pub async fn finish(mut self) {
        drop(self.calls);
        let _ = tokio::time::timeout(LAST_WORDS, self.serving.recv()).await;
    }
}

/// Listens below `run_dir` in a task of its own. A socket that a dead daemon left behind is taken over; one
/// on which a daemon answers is an error.
pub fn listen(run_dir: &Path) -> io::Result<Calls> {
    let path = socket_of(run_dir);
    if UnixStream::connect(&path).is_ok() {
        let what = format!("a daemon is running already: it listens on {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let (sender, calls) = mpsc::channel(WAITING);
    let (guard, serving) = mpsc::channel(1);
    task::spawn(async move {
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
    });
    Ok(Calls { calls, serving })
}

async fn serve(stream: tokio::net::UnixStream, calls: mpsc::Sender<Call>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader).take(LONGEST);
    let read = tokio::time::timeout(Duration::from_secs(5), reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(length)) if length > 0) {
        return;
    }
    let shown = match json::read::<(Request, View)>(line.as_bytes()) {
        Ok((request, view)) => show::answer(&view, &call(request, &calls).await),
        Err(error) => Err(format!("not a request: {error}")),
    };
    let shown = shown.map_or_else(Shown::Failed, Shown::Text);
    let text = json::write(&shown).unwrap_or_default();
    let _ = writer.write_all(format!("{text}\n").as_bytes()).await;
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

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for_any_longer() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = std::os::unix::net::UnixListener::bind(socket_of(dir.path())).unwrap();
        let error =
            ask(dir.path(), &Request::Status, &View::default(), Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.to_string(), "no answer from the daemon: none within 0 s; it may still be at it");
    }

    #[test]
    fn the_last_answer_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = tokio.block_on(async {
            let mut calls = listen(&path).unwrap();
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
