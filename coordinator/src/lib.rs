//! gatewrt-coordinator

pub mod access;
pub mod broker;
