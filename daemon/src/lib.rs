//! gatewrt
