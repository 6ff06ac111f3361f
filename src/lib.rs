//! Mechanistic interpretability of language models: which parts of the forward pass decide a behaviour, and what
//! happens when they are changed.
//!
//! A [`plan::Plan`] says what to know: prompts, forks of them that differ by edits, and readouts. One engine computes it,
//! layer by layer for all of them together ([`run`]), over one decoder that covers every model family ([`model`]). The
//! analyses turn datasets into plans and readings into tables; see [`run`] for a custom sweep in twenty lines.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[path = "../analyses/mod.rs"]
pub mod analyses;
pub mod answers;
pub mod cli;
pub mod dataset;
pub mod demo;
pub mod figure;
mod files;
pub mod linear;
mod markup;
pub mod measured;
pub mod model;
pub mod names;
pub mod ops;
pub mod plan;
pub mod report;
pub mod run;
pub mod site;
pub mod stats;
pub mod study;
pub mod table;

pub use study::{rundir, session};

#[cfg(test)]
#[path = "../tests/suite/support/gguf_builder.rs"]
pub(crate) mod gguf_builder;
