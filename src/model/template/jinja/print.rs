//! Values as Python prints them: `str` and `repr`.

use std::fmt::Write;

use super::error::Res;
use super::run::Run;
use super::value::{Value, View};

/// `str(value)`.
///
/// # Errors
/// If it is too long.
pub(super) fn text_of(run: &Run, value: &Value) -> Res<String> {
    match value {
        Value::Text(text) => Ok(text.to_string()),
        Value::Undefined(_) => Ok(String::new()),
        other => repr(run, other),
    }
}

/// `repr(value)`.
///
/// # Errors
/// If it is too long.
pub(super) fn repr(run: &Run, value: &Value) -> Res<String> {
    let mut out = String::new();
    write_repr(run, value, &mut out)?;
    Ok(out)
}

fn write_repr(run: &Run, value: &Value, out: &mut String) -> Res<()> {
    run.budget.step()?;
    run.budget.reserve(out.len())?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Text(text) => quoted(text, out),
        Value::List(items) => write_items(run, &items.values, ["[", "]"], out)?,
        Value::Tuple(items) if items.values.len() == 1 => write_items(run, &items.values, ["(", ",)"], out)?,
        Value::Tuple(items) => write_items(run, &items.values, ["(", ")"], out)?,
        Value::Dict(dict) => write_dict(run, &dict.entries, out)?,
        Value::Range(range) if range.step == 1 => out.push_str(&format!("range({}, {})", range.start, range.stop)),
        Value::Range(range) => out.push_str(&format!("range({}, {}, {})", range.start, range.stop, range.step)),
        Value::View(view, dict) => {
            out.push_str(value.type_name());
            out.push('(');
            let parts: Vec<Value> = run.viewed(*view, dict)?;
            write_items(run, &parts, ["[", "]"], out)?;
            out.push(')');
        }
        Value::Namespace(place) => {
            let entries = run.namespaces.borrow().get(*place).map(|dict| dict.entries.clone()).unwrap_or_default();
            out.push_str("<Namespace ");
            run.budget.deeper(|| write_dict(run, &entries, out))?;
            out.push('>');
        }
        Value::Macro(called) => {
            out.push_str("<Macro ");
            quoted(&called.of.name, out);
            out.push('>');
        }
        Value::Loop(looping) => {
            out.push_str(&format!("<LoopContext {}/{}>", looping.index0() + 1, looping.length()));
        }
        Value::Stream(..) | Value::Function(_) | Value::Method(_) | Value::Cycler(_) | Value::Joiner(_) => {
            out.push_str(&format!("<{}>", value.type_name()));
        }
    }
    Ok(())
}

fn write_items(run: &Run, values: &[Value], [open, close]: [&str; 2], out: &mut String) -> Res<()> {
    out.push_str(open);
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(run, value, out)?;
    }
    out.push_str(close);
    Ok(())
}

fn write_dict(run: &Run, entries: &[(Value, Value)], out: &mut String) -> Res<()> {
    out.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(run, key, out)?;
        out.push_str(": ");
        write_repr(run, value, out)?;
    }
    out.push('}');
    Ok(())
}

/// A text in single quotes; in double ones where it holds single ones and no double one.
pub(super) fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => out.extend(['\\', quote]),
            _ if is_printable(character) => out.push(character),
            _ => {
                let code = u32::from(character);
                // Writing to a string does not fail.
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Whether Python prints a character as it is. Rust's escapes are by the same categories, but for marks that join the
/// character before, which it escapes at the beginning only.
pub(super) fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    let after_a = ['a', character].iter().collect::<String>();
    after_a.escape_debug().count() == 2
}

/// A number as Python prints a float: the shortest digits that mean it.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Keys, values or entries.
impl View {
    pub const NAMED: [(&'static str, View); 3] =
        [("keys", View::Keys), ("values", View::Values), ("items", View::Entries)];
}
