//! Answers of the daemon to requests over its control socket.

use crate::core::status::Status;
use gatewrt_protocol::{NetworkName, NodeName};
use serde::Serialize;
use std::net::IpAddr;

/// Answer of the daemon to any request over its control socket.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Status.
    Status(Box<Status>),
    /// Plan.
    Plan(PlanAnswer),
    /// Network that was joined.
    Joined(Joined),
    /// Success without a result.
    Done(Done),
    /// Failure, with its reason.
    Failed(String),
}

/// Answer with the plan for the current state of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlanAnswer {
    /// Steps in order; empty when the kernel is as desired.
    pub steps: Vec<String>,
}

/// Answer with the network that was joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Joined {
    /// Name of the network.
    pub network: NetworkName,
    /// Name of this router in it.
    pub name: NodeName,
    /// Overlay addresses of this router.
    pub addresses: Vec<IpAddr>,
}

/// Answer to a request that succeeded without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Remaining work for the person who asked, if any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}
