//! gatewrt-tests
