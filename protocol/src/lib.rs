//! gatewrt-protocol
