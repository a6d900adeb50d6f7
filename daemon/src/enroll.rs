//! Joining: one HTTPS request with a join code, and an answer that is believed only as far as the code's hash
//! and key vouch for it. Blocking; it ends at values: [`crate::store`] keeps them.

mod https;

use crate::{
    identity::{Identity, Keys},
    socket,
    tls::{self, TlsFailure},
};
use gatewrt_protocol::{
    Assignment, Endpoint, InterfaceReport, JoinAnswer, JoinCode, JoinRequest, NodeName, Policy, Problem,
    RecordError, json, jws,
};
use https::{Reply, Trouble};
use ring::digest;
use rustls::pki_types::CertificateDer;
use std::{fmt, net::SocketAddr};

/// What a router tells of itself at joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The name wanted.
    pub name: NodeName,
    /// What the router is.
    pub board: String,
    /// The UDP port WireGuard will listen on.
    pub port: u16,
    /// Where it may be reached.
    pub endpoints: Vec<Endpoint>,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceReport>,
}

/// Why a router is not in the network.
#[derive(Debug)]
pub enum EnrollError {
    /// Nothing answers.
    Unreachable {
        /// Of the coordinator.
        url: String,
        /// Each address tried with what the system said; empty when the name has none.
        tried: Vec<(SocketAddr, std::io::Error)>,
        /// What else was said, where no address was tried or the connection broke.
        why: String,
    },
    /// It answers, too slowly.
    Slow {
        /// Of the coordinator.
        url: String,
    },
    /// Something answers that is not to be trusted.
    Untrusted {
        /// Of the coordinator.
        url: String,
        /// Why not.
        failure: TlsFailure,
    },
    /// The coordinator says no.
    Refused(Problem),
    /// The coordinator answers something that can't be believed or read.
    BadAnswer {
        /// Of the coordinator.
        url: String,
        /// What was wrong.
        why: String,
    },
    /// The request could not be signed.
    Request(RecordError),
}

impl EnrollError {
    /// Whether trying again with the same code is in vain.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(problem) => {
                (400..500).contains(&problem.status) && ![408, 425, 429].contains(&problem.status)
            }
            Self::Untrusted { failure, .. } => *failure == TlsFailure::Foreign,
            Self::Request(_) => true,
            Self::Unreachable { .. } | Self::Slow { .. } | Self::BadAnswer { .. } => false,
        }
    }
}

impl fmt::Display for EnrollError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { url, tried, why } => {
                write!(f, "the coordinator at {url} can't be reached")?;
                for (addr, error) in tried {
                    write!(f, "; {addr}: {error}")?;
                }
                if !why.is_empty() {
                    write!(f, "; {why}")?;
                }
                f.write_str(". Check that it runs, and that this router has a way to it")
            }
            Self::Slow { url } => {
                write!(
                    f,
                    "the coordinator at {url} answers too slowly or not at all. Check that it runs; try again"
                )
            }
            Self::Untrusted { url, failure: TlsFailure::Foreign } => write!(
                f,
                "the coordinator at {url} is not the one the join code was made by. Have a new code made there, or find out who answers in its place"
            ),
            Self::Untrusted { url, failure } => {
                write!(f, "the coordinator at {url} can't be trusted: {failure}")
            }
            Self::Refused(Problem { title, detail, .. }) if detail.is_empty() => {
                write!(f, "the coordinator refuses: {title}")
            }
            Self::Refused(Problem { title, detail, .. }) => {
                write!(f, "the coordinator refuses: {title}; {detail}")
            }
            Self::BadAnswer { url, why } => {
                write!(f, "what answers at {url} is no coordinator that this version understands: {why}")
            }
            Self::Request(error) => write!(f, "the request to join can't be made: {error}"),
        }
    }
}
impl std::error::Error for EnrollError {}

/// Joins with `code` as the node that `keys` make: at most 28 seconds. `mark` is the bypass mark. The same keys
/// may be used again when no answer came: the coordinator then answers as it did before.
pub fn join(
    code: &JoinCode,
    keys: &Keys,
    facts: Facts,
    mark: u32,
) -> Result<(Identity, JoinAnswer), EnrollError> {
    let port = facts.port;
    let signed = keys.signer().sign(&request(code, keys, facts)).map_err(EnrollError::Request)?;
    let url = format!("{}/v1/join", code.url);
    let reply = https::post(&url, "application/jose", signed.as_bytes(), tls::for_joining(code.ca), mark);
    let reply = reply.map_err(|trouble| explain(&code.url, trouble))?;
    let bad = |why: String| EnrollError::BadAnswer { url: code.url.clone(), why };
    if !(200..300).contains(&reply.status) {
        return Err(refusal(&reply)
            .map_or_else(|| bad(format!("HTTP status {}", reply.status)), EnrollError::Refused));
    }
    let answer: JoinAnswer = json::read(&reply.body).map_err(|error| bad(error.to_string()))?;
    verify(code, keys, &answer).map_err(bad)?;
    Ok((Identity::new(code, keys.clone(), port, &answer), answer))
}

fn request(code: &JoinCode, keys: &Keys, facts: Facts) -> JoinRequest {
    JoinRequest {
        secret: code.secret_text(),
        key: keys.wireguard_public(),
        identity: keys.signer().public(),
        name: facts.name,
        board: facts.board,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        port: facts.port,
        endpoints: facts.endpoints,
        interfaces: facts.interfaces,
    }
}

fn explain(url: &str, trouble: Trouble) -> EnrollError {
    let url = url.to_owned();
    match trouble {
        Trouble::NoConnection(tried) => EnrollError::Unreachable { url, tried, why: String::new() },
        Trouble::Broken(why) => EnrollError::Unreachable { url, tried: Vec::new(), why },
        Trouble::Slow => EnrollError::Slow { url },
        Trouble::Tls(failure) => EnrollError::Untrusted { url, failure },
        Trouble::Nonsense(why) => EnrollError::BadAnswer { url, why },
    }
}

fn refusal(reply: &Reply) -> Option<Problem> {
    json::read(&reply.body).ok().map(|problem| Problem { status: reply.status, ..problem })
}

/// The join code vouches for the CA and for the record key; all else follows from these.
fn verify(code: &JoinCode, keys: &Keys, answer: &JoinAnswer) -> Result<(), String> {
    let record = |what: &str, error: RecordError| format!("its {what}: {error}");
    let policy: Policy = open(&answer.policy, code).map_err(|error| record("policy", error))?;
    let assignment: Assignment =
        open(&answer.assignment, code).map_err(|error| record("assignment", error))?;
    let here = policy.net == answer.net && policy.name == answer.network && answer.network == code.network;
    if !here || assignment.net != answer.net || assignment.node != answer.node {
        return Err("its records are for another network or node".to_owned());
    }
    tls::for_broker(&answer.ca, &answer.certificate, keys).map_err(|error| error.to_string())?;
    if first_der(&answer.ca).is_none_or(|ca| digest::digest(&digest::SHA256, &ca).as_ref() != code.ca) {
        return Err("its CA is not that of the join code".to_owned());
    }
    let public = keys.signer().public().0;
    if !first_der(&answer.certificate).is_some_and(|der| der.windows(public.len()).any(|part| part == public))
    {
        return Err("the certificate is not for this router's key".to_owned());
    }
    match answer.brokers.iter().find(|broker| socket::split_host_port(broker).is_none()) {
        Some(broker) => Err(format!("“{broker}” is no host:port of a broker")),
        None if answer.brokers.is_empty() => Err("it names no broker".to_owned()),
        None => Ok(()),
    }
}

fn open<T: gatewrt_protocol::Record>(token: &str, code: &JoinCode) -> Result<T, RecordError> {
    jws::open(token.as_bytes(), &code.record_key)
}

fn first_der(pem: &str) -> Option<CertificateDer<'static>> {
    tls::pem::certificates(pem)?.into_iter().next()
}

#[cfg(test)]
mod tests;
