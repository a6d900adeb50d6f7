//! Client of the coordinator's API: over its unix socket on the same machine, or over HTTPS. It trusts the coordinator's
//! CA only.

use super::{
    args::Connection,
    local::{LocalConnector, NoResolver},
};
use crate::{
    backup::BackupError,
    data_dir::LOCAL_URL,
    obeyed::{Changed, Obeyed},
    pki,
};
use gatewrt_protocol::Problem;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    cell::RefCell,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use ureq::{
    Agent, Body, RequestBuilder,
    config::ConfigBuilder,
    http::Response,
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
    typestate::AgentScope,
};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(40);

/// Error of a command of the coordinator's command line.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The coordinator refused.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// The coordinator did not answer.
    #[error("the coordinator at {url} can't be reached: {why}")]
    Unreachable { url: String, why: String },
    /// A file can't be read.
    #[error("can't read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A file can't be written.
    #[error("can't write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// The private key is missing.
    #[error("a QR code needs the private key of client {client}, which is not kept here")]
    NoKey { network: String, client: String },
    /// The file does not contain the client's key.
    #[error("{} can't be used: {why}", path.display())]
    BadKey { path: PathBuf, why: String },
    /// The text is too long for a QR code.
    #[error("the file is too long for a QR code")]
    TooLong,
    /// The answer is not one of the API.
    #[error("{url} does not answer like a coordinator: {why}")]
    UnexpectedAnswer { url: String, why: String },
    /// Nodes have not confirmed a change in the time that it was to wait for them. They were printed.
    #[error("not all nodes have confirmed the change")]
    Pending,
    /// The answer of `check` is no. It was printed.
    #[error("not allowed")]
    NotAllowed,
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// A backup or a restore failed. Its text says what to do.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Writing to stdout failed.
    #[error("can't print: {0}")]
    Print(#[from] io::Error),
}

impl CommandError {
    /// Advice how to fix the error; empty if its message says it.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Refused(problem) => problem.detail.clone(),
            Self::Unreachable { .. } => {
                "is it running (gatewrt-coordinator serve)? From another machine: --url, --ca-file, --token-file".into()
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as the user the coordinator runs as (often root)".into()
            }
            Self::File { .. } => {
                "name the directory the coordinator runs with: --data DIR; from another machine: --url, --ca-file, --token-file".into()
            }
            Self::Unwritable { .. } => "name another file with --out, or none for stdout".into(),
            Self::NoKey { network, client } => format!(
                "name a file with it: --private-key-file FILE; or make a new one: gatewrt-coordinator client reissue {network} {client} --qr"
            ),
            Self::BadKey { .. } => {
                "name a file with the client's private key alone, or the file that the client was issued".into()
            }
            Self::TooLong => "hand it over as a file: --out FILE".into(),
            Self::UnexpectedAnswer { .. } => "check --url, and that both are of the same version".into(),
            Self::Pending | Self::NotAllowed | Self::Usage(_) | Self::Backup(_) | Self::Print(_) => {
                String::new()
            }
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::NotAllowed => 4,
            Self::Pending => 5,
            _ => 1,
        }
    }
}

/// URL of the API over the unix socket; its host is only for the form.
const LOCAL_URL_OF_SOCKET: &str = "http://coordinator";

/// Client of the coordinator's API. See the module.
pub(super) struct ApiClient {
    agent: Agent,
    /// URL of the API, without a path.
    url: String,
    /// Address for messages: the URL, or the path of the socket.
    shown: String,
    /// Token; none over the unix socket, where the kernel says who the user is.
    token: Option<String>,
    /// Seconds that changes wait for nodes; none leaves it to the coordinator.
    wait: Option<u64>,
    /// Answers to changes: who obeys them.
    obeyed: RefCell<Vec<Obeyed>>,
}

impl ApiClient {
    /// Client over the unix socket in the data directory, unless options name another way or the coordinator can't be
    /// reached there; else over HTTPS. Changes wait `wait` seconds for nodes.
    pub(super) fn new(connection: &Connection, wait: Option<u64>) -> Result<Self, CommandError> {
        let url = connection.url.as_ref().filter(|url| !url.is_empty());
        let is_remote = url.is_some() || connection.token_file.is_some() || connection.ca_file.is_some();
        let local = if is_remote { None } else { LocalConnector::find(&connection.data) };
        local.map_or_else(|| Self::remote(connection, url, wait), |local| Ok(Self::local(local, wait)))
    }

    fn local(connector: LocalConnector, wait: Option<u64>) -> Self {
        let shown = connector.path().display().to_string();
        let agent = Agent::with_parts(config(wait).build(), connector, NoResolver);
        let (url, obeyed) = (LOCAL_URL_OF_SOCKET.to_owned(), RefCell::default());
        Self { agent, url, shown, token: None, wait, obeyed }
    }

    fn remote(
        connection: &Connection,
        url: Option<&String>,
        wait: Option<u64>,
    ) -> Result<Self, CommandError> {
        let beside = |name: &str| connection.data.join(name);
        let url = match url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => read(&beside(LOCAL_URL))?.trim().to_owned(),
        };
        let token = read(&connection.token_file.clone().unwrap_or_else(|| beside(pki::ADMIN_TOKEN)))?;
        let ca_file = connection.ca_file.clone().unwrap_or_else(|| beside(pki::CA_CERT));
        let ca = Certificate::from_pem(read(&ca_file)?.as_bytes()).map_err(|error| CommandError::File {
            path: ca_file,
            source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        })?;
        let (agent, token, obeyed) =
            (https_agent(ca, wait), Some(token.trim().to_owned()), RefCell::default());
        Ok(Self { agent, shown: url.clone(), url, token, wait, obeyed })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.answer(self.authorized(self.agent.get(self.at(path))).call())
    }

    /// Reads all parts of a list of the API.
    pub(super) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, CommandError> {
        self.list_up_to(path, usize::MAX)
    }

    /// Reads parts of a list of the API until there are `enough` items.
    pub(super) fn list_up_to<T: DeserializeOwned>(
        &self,
        path: &str,
        enough: usize,
    ) -> Result<Vec<T>, CommandError> {
        let (mut all, mut next) = (Vec::new(), Some(self.at(path)));
        while let Some(url) = next.filter(|_| all.len() < enough) {
            let outcome = self.authorized(self.agent.get(url)).call();
            let response = self.sound(outcome)?;
            let link = response.headers().get("link").and_then(|link| link.to_str().ok());
            next = link.and_then(|link| next_of(link)).map(|path| format!("{}{path}", self.url));
            all.extend(self.content::<Vec<T>>(response)?);
        }
        Ok(all)
    }

    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<Changed<T>, CommandError> {
        self.changed(self.authorized(self.agent.delete(self.change_at(path))).call())
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Changed<T>, CommandError> {
        self.changed(self.authorized(self.agent.post(self.change_at(path))).send_json(body))
    }

    pub(super) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Changed<T>, CommandError> {
        self.changed(self.authorized(self.agent.put(self.change_at(path))).send_json(body))
    }

    pub(super) fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Changed<T>, CommandError> {
        self.changed(self.authorized(self.agent.patch(self.change_at(path))).send_json(body))
    }

    /// Reads a resource of the API with its entity tag.
    pub(super) fn get_seen<T: DeserializeOwned>(&self, path: &str) -> Result<(T, String), CommandError> {
        let request = self.authorized(self.agent.get(self.at(path)));
        let response = self.sound(request.call())?;
        let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or("*").to_owned();
        Ok((self.answer(Ok(response))?, tag))
    }

    /// Changes a resource of the API if it still has the entity tag `seen`.
    pub(super) fn patch_seen<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        seen: &str,
    ) -> Result<Changed<T>, CommandError> {
        let request = self.authorized(self.agent.patch(self.change_at(path)));
        self.changed(request.header("If-Match", seen).send_json(body))
    }

    /// Reads server-sent events of the API, each with its name and data, until `each` fails.
    pub(super) fn events(
        &self,
        path: &str,
        mut each: impl FnMut(&str, &str) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let request = self.authorized(self.agent.get(self.at(path)));
        let request = request.config().timeout_global(None).build();
        let response = self.sound(request.call())?;
        let mut event = String::new();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|error| self.unreachable(error))?;
            if let Some(name) = line.strip_prefix("event: ") {
                event = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                each(&event, data)?;
            }
        }
        Err(self.unreachable("it ended the connection"))
    }

    /// Who obeys the changes that were made.
    pub(super) fn obeyed(&self) -> Vec<Obeyed> {
        self.obeyed.borrow().clone()
    }

    /// Content of the answer to a change.
    fn changed<T: DeserializeOwned>(
        &self,
        outcome: Result<Response<Body>, ureq::Error>,
    ) -> Result<Changed<T>, CommandError> {
        let text = self.text(self.sound(outcome)?)?;
        let obeyed = Some(self.parsed::<Obeyed>(&text)?).filter(|obeyed| *obeyed != Obeyed::default());
        self.obeyed.borrow_mut().extend(obeyed.clone());
        Ok(Changed { view: self.parsed(&text)?, obeyed })
    }

    fn answer<T: DeserializeOwned>(
        &self,
        outcome: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, CommandError> {
        self.content(self.sound(outcome)?)
    }

    fn content<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, CommandError> {
        self.parsed(&self.text(response)?)
    }

    fn text(&self, response: Response<Body>) -> Result<String, CommandError> {
        response.into_body().read_to_string().map_err(|error| self.unreachable(error))
    }

    fn parsed<T: DeserializeOwned>(&self, text: &str) -> Result<T, CommandError> {
        serde_json::from_str(text).map_err(|error| self.unexpected(error))
    }

    fn sound(&self, outcome: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, CommandError> {
        let response = outcome.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().read_to_string().unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(problem) => Err(CommandError::Refused(problem)),
            Err(_) => Err(self.unexpected(format!("status {status}"))),
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.url)
    }

    /// URL of a change, which says how long to wait for nodes.
    fn change_at(&self, path: &str) -> String {
        let Some(wait) = self.wait else { return self.at(path) };
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{}{mark}wait={wait}", self.at(path))
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn unreachable(&self, why: impl ToString) -> CommandError {
        CommandError::Unreachable { url: self.shown.clone(), why: why.to_string() }
    }

    fn unexpected(&self, why: impl ToString) -> CommandError {
        CommandError::UnexpectedAnswer { url: self.shown.clone(), why: why.to_string() }
    }
}

/// Path of the next part of a list, from a `Link` header such as `</v1/nodes?after=x>; rel="next"`.
fn next_of(link: &str) -> Option<&str> {
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    (path.starts_with('/') && rest.contains("rel=\"next\"")).then_some(path)
}

fn https_agent(ca: Certificate<'static>, wait: Option<u64>) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&[ca]))
        .build();
    config(wait).tls_config(tls).build().into()
}

fn config(wait: Option<u64>) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(ANSWER + Duration::from_secs(wait.unwrap_or_default())))
        .user_agent(format!("{}/{}", crate::http::USER_AGENT, crate::http::VERSION))
        .proxy(None)
}

fn read(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|source| CommandError::File { path: path.into(), source })
}
