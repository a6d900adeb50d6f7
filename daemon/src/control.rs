//! The control socket, `<run dir>/control.sock`, mode 0600: one line of JSON asks, one line answers. The
//! command line and the rpcd plugin use it; nothing else needs to.

use crate::{
    config::OwnScope,
    core::report::Status,
    log,
    show::{self, View},
    wait::Wait,
};
use gatewrt_protocol::{
    JoinCode, NetworkName, NodeName, Tag,
    json::{self, FromJson, JsonError, Reader},
    json_fields,
};
use serde::Serialize;
use std::{
    fmt,
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The longest request or answer, in bytes.
const LONGEST: usize = 4 << 20;
/// How long a request may take to come.
const REQUEST: Duration = Duration::from_secs(5);
/// How long the daemon waits for one who asks and does not read the answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long none is let in after that failed.
const PAUSE: Duration = Duration::from_secs(1);

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
    let mut answer = Vec::new();
    stream.take(LONGEST as u64).read_to_end(&mut answer).map_err(broken)?;
    match json::read(&answer) {
        Ok(Shown::Text(text)) => Ok(text),
        Ok(Shown::Failed(why)) => Err(ControlError::Failed(why)),
        Err(error) => Err(ControlError::Broken(error.to_string())),
    }
}

/// A request and where its answer goes.
pub type Call = (Request, Reply);

/// Where the answer to a request goes. Dropped without one, it says that the daemon is stopping.
#[derive(Debug)]
pub struct Reply {
    to: Option<UnixStream>,
    view: View,
}

impl Reply {
    /// Answers.
    pub fn send(mut self, answer: &Answer) {
        self.say(answer);
    }

    fn say(&mut self, answer: &Answer) {
        if let Some(to) = self.to.take() {
            tell(&to, show::answer(&self.view, answer));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.say(&Answer::Failed("the daemon is stopping".to_owned()));
    }
}

fn tell(mut to: &UnixStream, shown: Result<String, String>) {
    let shown = shown.map_or_else(Shown::Failed, Shown::Text);
    let mut text = json::write(&shown).unwrap_or_default();
    text.push('\n');
    let patient = to.set_nonblocking(false).and_then(|()| to.set_write_timeout(Some(ANSWER)));
    let _ = patient.and_then(|()| to.write_all(text.as_bytes()));
}

/// What comes over the socket.
pub struct Calls {
    listener: UnixListener,
    deaf_until: Option<Instant>,
    asking: Vec<Asking>,
}

/// Someone whose request is still coming.
struct Asking {
    stream: UnixStream,
    line: Vec<u8>,
    by: Instant,
}

impl Calls {
    /// Listens below `run_dir`. A socket that a dead daemon left behind is taken over; one on which a daemon answers is
    /// an error.
    pub fn listen(run_dir: &Path) -> io::Result<Self> {
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
        listener.set_nonblocking(true)?;
        Ok(Self { listener, deaf_until: None, asking: Vec::new() })
    }

    /// The next request, if one is there.
    pub fn poll(&mut self) -> Option<Call> {
        self.accept();
        while let Some(at) = self.asking.iter_mut().position(Asking::has_asked) {
            let Asking { stream, line, .. } = self.asking.swap_remove(at);
            match json::read::<(Request, View)>(&line) {
                Ok((request, view)) => return Some((request, Reply { to: Some(stream), view })),
                Err(_) if line.is_empty() => {}
                Err(error) => tell(&stream, Err(format!("not a request: {error}"))),
            }
        }
        None
    }

    /// Adds what to wait for.
    pub fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        match self.deaf_until {
            Some(until) => wait.no_longer(until),
            None => wait.to_read(self.listener.as_fd()),
        }
        for asking in &self.asking {
            wait.to_read(asking.stream.as_fd());
            wait.no_longer(asking.by);
        }
    }

    fn accept(&mut self) {
        let now = Instant::now();
        if self.deaf_until.is_some_and(|until| now < until) {
            return;
        }
        self.deaf_until = None;
        let accepted = self.listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        match accepted {
            Ok(stream) => self.asking.push(Asking { stream, line: Vec::new(), by: now + REQUEST }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("control socket: {error}");
                self.deaf_until = Some(now + PAUSE);
            }
        }
    }
}

impl Asking {
    /// Reads what is there; whether nothing more is to be waited for. Of what does not come in time nothing counts.
    fn has_asked(&mut self) -> bool {
        let mut part = [0; 2048];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Ok(length) => {
                    self.line.extend_from_slice(&part[..length]);
                    if self.line.ends_with(b"\n") || self.line.len() > LONGEST {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < self.by => {
                    return false;
                }
                Err(_) => {
                    self.line.clear();
                    return true;
                }
            }
        }
    }
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

    /// The next request.
    fn wait_for(calls: &mut Calls) -> Call {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(call) = calls.poll() {
                return call;
            }
            assert!(Instant::now() < until, "a request");
            let mut wait = Wait::until(until);
            calls.enlist(&mut wait);
            wait.wait();
        }
    }

    fn asked(dir: &Path) -> std::thread::JoinHandle<Result<String, ControlError>> {
        let (path, stop) = (dir.to_owned(), Request::Stop { teardown: false });
        std::thread::spawn(move || ask(&path, &stop, &View::default(), Duration::from_secs(10)))
    }

    #[test]
    fn the_last_answer_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let mut calls = Calls::listen(dir.path()).unwrap();
        let asked = asked(dir.path());
        let (_, reply) = wait_for(&mut calls);
        reply.send(&Answer::Done(Done { hint: "bye".to_owned() }));
        drop(calls);
        let answer = asked.join().unwrap();
        assert!(matches!(&answer, Ok(text) if text == "bye\n"), "{answer:?}");
    }

    #[test]
    fn who_gets_no_answer_is_told_why_and_who_asks_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut calls = Calls::listen(dir.path()).unwrap();
        let mut silent = UnixStream::connect(socket_of(dir.path())).unwrap();
        let mut wrong = UnixStream::connect(socket_of(dir.path())).unwrap();
        wrong.write_all(b"nonsense\n").unwrap();
        let asked = asked(dir.path());
        drop(wait_for(&mut calls));
        let error = asked.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the daemon is stopping");
        let mut answer = String::new();
        wrong.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("not a request"), "{answer}");
        let [waiting] = calls.asking.as_mut_slice() else { panic!("the silent one") };
        waiting.by = Instant::now();
        assert!(calls.poll().is_none() && calls.asking.is_empty());
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    }
}
