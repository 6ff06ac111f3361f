//! An interpreter of Jinja templates that renders what Python's Jinja2 renders as `transformers` sets it up: an immutable
//! sandbox with `trim_blocks` and `lstrip_blocks`, `break` and `continue`, the `generation` tag and a `tojson` that leaves
//! characters as they are.
//!
//! Values are Python's, with Python's operators, methods and texts: a chat template is written against those, and what a
//! model reads must not differ by a quote. A template is someone else's program, so steps, sizes and depths are bounded
//! ([`budget`]), and it reaches nothing but what it is given.

mod ast;
mod budget;
mod checks;
mod error;
mod escapes;
mod eval;
mod expressions;
mod filters;
mod functions;
mod json;
mod letters;
mod lexer;
mod looping;
mod macros;
mod methods;
mod numbers;
mod ops;
mod parse;
mod print;
mod printf;
mod run;
mod sequences;
mod strformat;
mod strings;
mod value;

use serde_json::{Map, Value as Json};

use super::Day;
use value::{Dict, Value};

pub(super) use budget::STACK;
pub(super) use error::{Error, ErrorKind};

/// A template that was parsed.
#[derive(Debug)]
pub(super) struct Program {
    body: ast::Body,
}

/// The bounds of a run.
pub(super) struct Bounds {
    pub steps: usize,
    /// Bytes that it may write.
    pub output: usize,
}

impl Program {
    /// Parses a template.
    ///
    /// # Errors
    /// With the line where it is no Jinja.
    pub fn parse(source: &str) -> Result<Self, Error> {
        parse::parse(source).map(|body| Self { body })
    }

    /// What the template writes for some variables; later ones go before earlier ones of the same name. It must run on a
    /// stack of [`STACK`] bytes.
    ///
    /// # Errors
    /// What it fails with.
    pub fn run(&self, variables: &[&Map<String, Json>], day: Day, bounds: &Bounds) -> Result<String, Error> {
        let mut given = Dict::default();
        for (name, value) in variables.iter().flat_map(|variables| variables.iter()) {
            given.set(Value::text(name), Value::from_json(value)?)?;
        }
        run::Run::new(given, day, bounds.steps, bounds.output).whole(&self.body)
    }
}
