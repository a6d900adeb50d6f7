//! Joining: one HTTPS request with a join code, and an answer that is believed only as far as the code's hash
//! and key vouch for it. Blocking; it ends at values: [`crate::store`] keeps them.

use crate::{
    http::{self, HttpError, Reply},
    identity::{Identity, Keys},
    model,
    tls::{self, TlsFailure},
};
use gatewrt_protocol::{
    Assignment, Endpoint, InterfaceReport, JoinAnswer, JoinCode, JoinRequest, NodeName, Policy, Problem,
    RecordError, jws,
};
use ring::digest;
use rustls::pki_types::CertificateDer;
use std::{io, net::SocketAddr, time::Duration};

/// Time from the resolved name to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Facts of a router that it reports when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Requested name of the node.
    pub name: NodeName,
    /// Board, as the system names it.
    pub board: String,
    /// The UDP port WireGuard will listen on.
    pub port: u16,
    /// Addresses at which others may reach it.
    pub endpoints: Vec<Endpoint>,
    /// Interfaces of the router.
    pub interfaces: Vec<InterfaceReport>,
}

/// Failure to join a network.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No answer.
    #[error(
        "the coordinator at {url} can't be reached{}. Check that it runs, and that this router has a way to it",
        attempts(tried, why)
    )]
    Unreachable {
        /// URL of the coordinator.
        url: String,
        /// Addresses tried, each with the error of the system; empty when the name has none.
        tried: Vec<(SocketAddr, io::Error)>,
        /// Further explanation, where no address was tried or the connection broke.
        why: String,
    },
    /// No answer in time.
    #[error("the coordinator at {url} answers too slowly or not at all. Check that it runs; try again")]
    Slow {
        /// URL of the coordinator.
        url: String,
    },
    /// Answer of a server that is not to be trusted.
    #[error("the coordinator at {url} {}", distrust(failure))]
    Untrusted {
        /// URL of the coordinator.
        url: String,
        /// Reason for the distrust.
        failure: TlsFailure,
    },
    /// Refusal by the coordinator.
    #[error("the coordinator refuses: {}", reason(.0))]
    Refused(Problem),
    /// Answer of the coordinator that is unreadable or not vouched for by the join code.
    #[error("what answers at {url} is no coordinator that this version understands: {why}")]
    BadAnswer {
        /// URL of the coordinator.
        url: String,
        /// Description of the fault.
        why: String,
    },
    /// Failure to sign the request.
    #[error("the request to join can't be made")]
    Request(#[source] RecordError),
}

impl EnrollError {
    /// True when a retry with the same join code is in vain.
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

/// Joins the network of a join code as the node of `keys`; blocks for 28 seconds at most. `mark` is the bypass mark.
/// Idempotent: after a lost answer a retry with the same keys gets the same answer.
pub fn join(
    code: &JoinCode,
    keys: &Keys,
    facts: Facts,
    mark: u32,
) -> Result<(Identity, JoinAnswer), EnrollError> {
    let port = facts.port;
    let signed = keys.signer().sign(&request(code, keys, facts)).map_err(EnrollError::Request)?;
    let url = format!("{}/v1/join", code.url);
    let client = http::agent(Some(tls::for_joining(code.ca)), mark, TIMEOUT);
    let request = client.post(&url).content_type("application/jose").header("connection", "close");
    let reply = http::read(request.send(signed.as_bytes())).map_err(|error| explain(code, &url, error))?;
    let bad = |why: String| EnrollError::BadAnswer { url: code.url.clone(), why };
    if !(200..300).contains(&reply.status) {
        return Err(refusal(&reply)
            .map_or_else(|| bad(format!("HTTP status {}", reply.status)), EnrollError::Refused));
    }
    let answer: JoinAnswer = serde_json::from_slice(&reply.body).map_err(|error| bad(error.to_string()))?;
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

fn explain(code: &JoinCode, asked: &str, error: HttpError) -> EnrollError {
    let url = code.url.clone();
    let unreachable = |url, why| EnrollError::Unreachable { url, tried: Vec::new(), why };
    match error {
        HttpError::Url => unreachable(url, format!("“{asked}” is no https address")),
        HttpError::Connect(tried) => EnrollError::Unreachable { url, tried, why: String::new() },
        HttpError::Broken(why) => unreachable(url, why),
        HttpError::Slow => EnrollError::Slow { url },
        HttpError::Tls(failure) => EnrollError::Untrusted { url, failure },
        HttpError::BadAnswer(why) => EnrollError::BadAnswer { url, why },
    }
}

fn attempts(tried: &[(SocketAddr, io::Error)], why: &str) -> String {
    let mut text: String = tried.iter().map(|(addr, error)| format!("; {addr}: {error}")).collect();
    if !why.is_empty() {
        text = format!("{text}; {why}");
    }
    text
}

fn distrust(failure: &TlsFailure) -> String {
    match failure {
        TlsFailure::Foreign => "is not the one the join code was made by. Have a new code made there, or find out who answers in its place".to_owned(),
        failure => format!("can't be trusted: {failure}"),
    }
}

fn reason(problem: &Problem) -> String {
    match problem.detail.as_str() {
        "" => problem.title.clone(),
        detail => format!("{}; {detail}", problem.title),
    }
}

fn refusal(reply: &Reply) -> Option<Problem> {
    serde_json::from_slice(&reply.body).ok().map(|problem| Problem { status: reply.status, ..problem })
}

/// Checks the coordinator's answer to a join request against the CA hash and the record key of the join code; all else
/// follows from these two.
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
    match answer.brokers.iter().find(|broker| model::split_host_port(broker).is_none()) {
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
