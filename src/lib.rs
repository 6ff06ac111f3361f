//! Mechanistic interpretability of language models: which parts of the forward pass decide a behaviour, and what
//! happens when they are changed.
//!
//! A [`plan::Plan`] says what to know: prompts, forks of them that differ by edits, and readouts. One engine computes it,
//! layer by layer for all of them together ([`run`]), over one decoder that covers every model family ([`model`]). The
//! analyses turn datasets into plans and readings into tables ([`study`]). [`prelude`] brings what most programs need.
//!
//! # Features
//! - `report` (default): the analyses, with their tables, figures and reports.
//! - `cli` (default): the command line, and with it `report` and `hub`.
//! - `hub`: models by their names on the Hugging Face hub.
//! - `cuda`: NVIDIA GPUs.
//!
//! Without default features the library is engine, models, datasets and statistics.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(feature = "report")]
#[path = "../analyses/mod.rs"]
pub mod analyses;
#[cfg(feature = "report")]
pub mod answers;
#[cfg(feature = "cli")]
pub mod cli;
pub mod dataset;
pub mod demo;
#[cfg(feature = "report")]
pub mod figure;
mod files;
pub mod linear;
#[cfg(feature = "report")]
mod markup;
pub mod measured;
pub mod model;
pub mod names;
pub mod ops;
pub mod parameters;
pub mod plan;
pub mod prelude;
#[cfg(feature = "report")]
pub mod report;
pub mod run;
pub mod site;
pub mod stats;
pub mod study;
#[cfg(feature = "report")]
pub mod table;
#[cfg(feature = "report")]
pub mod task;

pub use study::{rundir, session};

/// The README's programs, compiled.
#[cfg(all(doctest, feature = "report"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
#[path = "../tests/suite/support/gguf_builder.rs"]
pub(crate) mod gguf_builder;

/// Without a command line there are no subcommands to declare.
#[cfg(not(feature = "cli"))]
#[macro_export]
macro_rules! subcommands {
    ($($module:ident :: $Params:ident),* $(,)?) => {};
}
