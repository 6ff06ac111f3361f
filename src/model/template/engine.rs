//! The Jinja engine, set up as Hugging Face sets up its own, and the bounds on what a template may do.
//!
//! Steps, output, recursion and widths are bounded here, what is made on the way by [`super::made`].

use std::io;

use super::made;
use minijinja::value::{Kwargs, Rest, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter, filters};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};

/// Calls of macros within macros; templates in use have two or three.
const DEEPEST_CALL: usize = 64;
/// The widest indentation, in spaces.
const WIDEST_INDENT: usize = 256;
/// Digits of a width or precision in a format string.
const MOST_DIGITS: usize = 4;

/// An error of this toolkit's own that travels through the engine's error type.
#[derive(Debug, thiserror::Error)]
pub(super) enum Raised {
    /// The template called `raise_exception`.
    #[error("{0}")]
    ByTemplate(String),
    /// More was written than is allowed, be it into a variable.
    #[error("too much output")]
    Flood,
}

/// An environment with Hugging Face's settings, functions and filters, and no template.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_recursion_limit(DEEPEST_CALL);
    environment.set_unknown_method_callback(python_method);
    environment.set_formatter(write_value);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment.add_filter("indent", indent);
    environment.add_filter("format", format);
    environment.add_filter("join", made::join);
    environment.add_filter("replace", made::replace);
    environment.add_filter(made::MADE, made::made);
    environment
}

/// The engine's own words for an error, without its repeated heading.
pub(super) fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Hugging Face knows a `generation` block that marks the assistant's words and changes nothing in the
/// text. The engine does not, so the block becomes an `if` that always holds.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let (tag, after) = tag.split_at(tag.find("%}").unwrap_or(tag.len()));
        let inner = tag.strip_prefix("{%").unwrap_or(tag);
        match inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace()) {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised::ByTemplate(message)))
}

/// Counts what is written, also into variables (`{% set x %}...{% endset %}`), which the bound on the output does not see.
/// The engine writes as Python prints, but for the texts in a list or dictionary, which stand in double quotes.
fn write_value(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    made::count_value(state, value)?;
    escape_formatter(out, state, value)
}

/// Python's methods of strings, lists and dictionaries.
fn python_method(state: &State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (method, value.as_str(), arguments) {
        ("format", ..) => check_widths(state, value)?,
        ("join", Some(between), [all]) => {
            made::count_value(state, all)?;
            made::count(state, (between.len() as u64).saturating_mul(all.len().unwrap_or(0) as u64))?;
        }
        ("replace", Some(text), [from, to, ..]) => {
            made::count_replaced(state, text, from.as_str().unwrap_or_default(), to.as_str().unwrap_or_default())?;
        }
        _ => {}
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)
}

fn format(state: &State, pattern: &Value, arguments: Rest<Value>) -> Result<Value, Error> {
    check_widths(state, pattern)?;
    filters::format(state, pattern, arguments)
}

/// A width in a format string is memory that the template asks for.
fn check_widths(state: &State, pattern: &Value) -> Result<(), Error> {
    let text = pattern.as_str().unwrap_or_default();
    let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if longest > MOST_DIGITS {
        return Err(invalid("a width in a format string is too large"));
    }
    // Each place may be as wide as its digits say.
    let places = text.matches(['%', '{']).count() as u64;
    made::count(state, places * 10u64.pow(longest as u32))
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

/// Jinja's `indent(width=4, first=false, blank=false)`, where the width may be the margin itself; with a bound on it.
fn indent(state: &State, text: String, arguments: Rest<Value>) -> Result<String, Error> {
    let (positional, options): (&[Value], Kwargs) = from_args(&arguments)?;
    let flag = |i: usize, name: &str| -> Result<bool, Error> {
        let given = positional.get(i).map(|v| v.is_true());
        Ok(given.or(options.get(name)?).unwrap_or(false))
    };
    let named: Option<Value> = options.get("width")?;
    let margin = margin(positional.first().cloned().or(named))?;
    let (first, blank) = (flag(1, "first")?, flag(2, "blank")?);
    options.assert_all_used()?;
    made::count(state, (text.len() + margin.len() * text.matches('\n').count()) as u64)?;
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        if if number == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// What is put before a line, by the width that is asked for.
fn margin(width: Option<Value>) -> Result<String, Error> {
    let too_wide = || invalid("the indentation is too wide");
    match width {
        None => Ok(" ".repeat(4)),
        Some(text) if text.as_str().is_some() => {
            text.as_str().filter(|text| text.len() <= WIDEST_INDENT).map(str::to_owned).ok_or_else(too_wide)
        }
        Some(number) => match usize::try_from(number)? {
            width if width <= WIDEST_INDENT => Ok(" ".repeat(width)),
            _ => Err(too_wide()),
        },
    }
}

/// `json.dumps` as Hugging Face calls it: characters beyond ASCII as they are, `", "` and `": "`
/// between, nothing escaped for HTML.
fn to_json(state: &State, value: Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    made::count_value(state, &value)?;
    let value = serde_json::Value::deserialize(value)?;
    let indent = indent.or(options.get::<Option<usize>>("indent")?);
    // Accepted because templates pass it; leaving characters as they are is the only form.
    let _ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        None => write_json(&value, &mut out, OneLine),
        Some(width) if width <= WIDEST_INDENT => {
            write_json(&value, &mut out, PrettyFormatter::with_indent(" ".repeat(width).as_bytes()))
        }
        Some(_) => return Err(invalid("the indentation is too wide")),
    };
    written.map_err(|error| invalid("cannot be written as JSON").with_source(error))?;
    String::from_utf8(out).map_err(|error| invalid("cannot be written as JSON").with_source(error))
}

fn write_json(value: &serde_json::Value, out: &mut Vec<u8>, formatter: impl Formatter) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, formatter))
}

/// JSON in one line with Python's spaces.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Collects output up to a bound, and refuses more.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Bounded {
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, full: false }
    }

    /// Whether something was refused.
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn into_text(self) -> Option<String> {
        String::from_utf8(self.bytes).ok()
    }
}

impl io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if part.len() > self.limit.saturating_sub(self.bytes.len()) {
            self.full = true;
            return Err(io::Error::other("too much output"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
