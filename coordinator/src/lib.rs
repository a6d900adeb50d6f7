//! gatewrt-coordinator
