//! Behaviour of the library and of the binary, without any download.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

mod ablation;
mod aligned;
mod analyses;
mod arguments;
mod attribution;
mod checkpoints;
mod circuit;
mod commands;
mod committed;
mod dates;
mod demo;
mod devices;
mod edges;
mod experiments;
mod families;
mod faults;
mod generate;
mod gradient;
mod halves;
mod hub;
mod inputs;
mod interactions;
mod kv;
mod metric;
mod parity;
mod pieces;
mod policy_cipher;
mod policy_circuit;
mod policy_flags;
mod policy_signal;
mod policy_suite;
mod readme;
mod reporting;
mod rerun;
mod sites;
mod spans;
mod steering;
mod streaming;
mod tasks;
mod texts;
mod toy_analysis;
mod wavefront;
