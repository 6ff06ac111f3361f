//! Jinja's tests: what stands behind `is`.

use std::rc::Rc;

use super::error::{Res, fail};
use super::macros::Arguments;
use super::run::Run;
use super::value::Value;
use super::{filters, letters, ops, print};

/// Those of one value.
const OF_ONE: [&str; 22] = [
    "boolean",
    "callable",
    "defined",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
    "sameas",
];

/// Those that compare two values, and Python's operator.
const OF_TWO: [(&str, &str); 17] = [
    ("==", "=="),
    ("eq", "=="),
    ("equalto", "=="),
    ("!=", "!="),
    ("ne", "!="),
    ("<", "<"),
    ("lt", "<"),
    ("lessthan", "<"),
    ("<=", "<="),
    ("le", "<="),
    (">", ">"),
    ("gt", ">"),
    ("greaterthan", ">"),
    (">=", ">="),
    ("ge", ">="),
    ("in", "in"),
    ("divisibleby", "%"),
];

pub(super) fn is_known(name: &str) -> bool {
    OF_ONE.contains(&name) || OF_TWO.iter().any(|(known, _)| *known == name)
}

/// Whether a test holds for a value.
///
/// # Errors
/// If there is no such test, and what Python fails with.
pub(super) fn holds(run: &Run, name: &str, value: &Value, arguments: Arguments) -> Res<bool> {
    run.budget.work(value.as_text().map_or(0, str::len))?;
    if name == "sameas" {
        let [other] = arguments.bind(name, ["other"], 1)?;
        return Ok(same(value, &other.unwrap_or(Value::None)));
    }
    if let Some((_, operator)) = OF_TWO.iter().find(|(known, _)| *known == name) {
        let [other] = arguments.bind(name, [if name == "divisibleby" { "num" } else { "other" }], 1)?;
        let other = other.unwrap_or(Value::None);
        if *operator == "%" {
            let rest = ops::binary(run, "%", value, &other)?;
            return ops::equal(run, &rest, &Value::Int(0));
        }
        return ops::compare(run, operator, value, &other);
    }
    let [] = arguments.bind(name, [], 0)?;
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_float().is_some(),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => value.length().is_some() || matches!(value, Value::Stream(..)),
        "sequence" => match value {
            Value::View(..) | Value::Loop(_) => false,
            other => other.length().is_some(),
        },
        "callable" => match value {
            Value::Macro(_) | Value::Loop(_) | Value::Function(_) | Value::Method(_) | Value::Joiner(_) => true,
            // Calling an undefined value fails, but it has what is asked for.
            Value::Undefined(_) => true,
            _ => false,
        },
        "escaped" => false,
        "odd" | "even" => {
            let rest = ops::binary(run, "%", value, &Value::Int(2))?;
            ops::equal(run, &rest, &Value::Int(i128::from(name == "odd")))?
        }
        "lower" | "upper" => {
            let text = print::text_of(run, value)?;
            letters::asked(&text, if name == "lower" { "islower" } else { "isupper" }) == Some(true)
        }
        "filter" => value.as_text().is_some_and(filters::is_known),
        "test" => value.as_text().is_some_and(is_known),
        _ => return Err(fail(format!("there is no test `{name}`"))),
    })
}

/// Python's `is`. Small numbers and literals are one object there; so are all equal numbers and texts here.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Undefined(a), Value::Undefined(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}
