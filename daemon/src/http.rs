//! HTTP requests of the daemon's own (RFC 9112), by ureq: over connections that carry the bypass mark, with the one TLS
//! configuration of this program, and with bounds on what an answer may cost. They block: call them in a thread for that
//! ([`crate::task::start_blocking`]). It ends at a status and a body; redirects are not followed.

mod transport;

use crate::tls::TlsFailure;
use rustls::ClientConfig;
use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use transport::{MarkedConnector, MarkedResolver};
use ureq::{
    Agent, Body,
    http::{Response, header::TRANSFER_ENCODING},
};

/// Longest body of an answer, in bytes.
const MAX_BODY: u64 = 64 * 1024;
/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Size of each of the two buffers of a connection, in bytes. More than [`MAX_HEAD`]: a head that is too long shows as such
/// only once it is in the buffer.
const BUFFER: usize = 16 * 1024;

/// HTTP answer of a server, of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body, of 64 KB at most.
    pub body: Vec<u8>,
}

/// Failure to get an answer to an HTTP request.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is no URL, or not `https` where TLS is to be spoken.
    #[error("no address of an HTTP server")]
    Url,
    /// Refusal or silence at every address of the host, with the errors.
    #[error("no address of the host takes a connection")]
    Connect(Vec<(SocketAddr, io::Error)>),
    /// The name has no address, or the connection broke; in words.
    #[error("{0}")]
    Broken(String),
    /// Time is up.
    #[error("no answer in time")]
    Slow,
    /// The server is not to be trusted, or does not trust us.
    #[error(transparent)]
    Tls(TlsFailure),
    /// The server speaks, but not HTTP as expected; in words.
    #[error("{0}")]
    BadAnswer(String),
}

/// HTTP client for requests that each take `timeout` at most, from the resolved name to the last byte of the answer;
/// looking the name up takes 8 seconds at most. With `tls` it speaks `https` alone, without it `http` alone. `mark` is
/// the bypass mark.
///
/// Requests are to have the header `Connection: close`: no connection is used twice.
pub fn agent(tls: Option<Arc<ClientConfig>>, mark: u32, timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .https_only(tls.is_some())
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_response_header_size(MAX_HEAD)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .user_agent(concat!("gatewrt/", env!("CARGO_PKG_VERSION")))
        .accept("")
        .build();
    Agent::with_parts(config, MarkedConnector { tls, mark, timeout }, MarkedResolver { mark })
}

/// Reads the answer to an HTTP request whole, with a body of 64 KB at most. One in pieces (`chunked`) is refused: no
/// server of ours sends any.
pub fn read(outcome: Result<Response<Body>, ureq::Error>) -> Result<Reply, HttpError> {
    let mut response = outcome?;
    let status = response.status().as_u16();
    if response.headers().contains_key(TRANSFER_ENCODING) {
        return Err(HttpError::BadAnswer("its answer comes in pieces".to_owned()));
    }
    let body = response.body_mut();
    if body.content_length().is_some_and(|length| length > MAX_BODY) {
        return Err(ureq::Error::BodyExceedsLimit(MAX_BODY).into());
    }
    // ureq takes a limit that is reached for one that is exceeded.
    let body = body.with_config().limit(MAX_BODY + 1).read_to_vec()?;
    Ok(Reply { status, body })
}

impl From<ureq::Error> for HttpError {
    fn from(error: ureq::Error) -> Self {
        use ureq::Error;
        match error {
            Error::Other(error) => match error.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(error) => Self::Broken(error.to_string()),
            },
            Error::BadUri(_) | Error::Http(_) | Error::RequireHttpsOnly(_) | Error::TlsRequired => Self::Url,
            Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Self::Broken("the answer breaks off".to_owned())
            }
            Error::Protocol(error) => Self::BadAnswer(format!("its answer is no HTTP: {error}")),
            Error::LargeResponseHeader(..) => Self::BadAnswer("the head of its answer has no end".to_owned()),
            Error::BodyExceedsLimit(_) => {
                Self::BadAnswer(format!("its answer is larger than {} KB", MAX_BODY / 1024))
            }
            error => Self::Broken(error.to_string()),
        }
    }
}

/// An error of our transport passes through ureq as it is.
impl From<HttpError> for ureq::Error {
    fn from(error: HttpError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> Self {
        match (error.kind(), TlsFailure::of(&error)) {
            (_, Some(failure)) => Self::Tls(failure),
            (ErrorKind::WouldBlock | ErrorKind::TimedOut, _) => Self::Slow,
            _ => Self::Broken(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
