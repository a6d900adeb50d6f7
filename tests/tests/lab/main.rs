//! The lab's tests: real programs and real packets, in network namespaces. They are one program, because linking takes
//! most of the time of a build.

mod access;
mod api;
mod bad_input;
mod browser;
mod clients;
mod codes;
mod common;
mod confirm;
mod conflicting_programs;
mod coordinator_crash;
mod exit_cli;
mod exit_teardown;
mod exits;
mod failover;
mod handshakes;
mod hostile;
mod joining;
mod lab_self;
mod late_answers;
mod leaks;
mod many;
mod node_generator;
mod offline;
mod out_of_band;
mod package;
mod qr;
mod removal;
mod repair;
mod restart;
mod rpcd;
mod rules;
mod sites;
mod teardown;
mod wan;
mod without_nft;
