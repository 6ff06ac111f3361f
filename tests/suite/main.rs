//! Behaviour of the library and of the binary, without any download.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

mod commands;
mod faults;
mod hub;
mod parity;
mod streaming;
mod wavefront;
