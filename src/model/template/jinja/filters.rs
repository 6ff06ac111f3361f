//! Jinja's filters, and `tojson` as `transformers` has it. Those over sequences are in [`super::sequences`].

use super::error::{Res, fail};
use super::macros::Arguments;
use super::numbers::{LARGEST, Spec};
use super::run::Run;
use super::strings::{self, soft_text};
use super::value::{Items, Value, View};
use super::{json, letters, methods, printf, sequences};

/// The widest indentation, in characters.
pub(super) const WIDEST_INDENT: usize = 256;

/// Filters that are known. `pprint`, `random`, `striptags`, `urlencode`, `urlize`, `wordwrap` and `xmlattr` have no use in
/// a chat template.
const KNOWN: [&str; 47] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "wordcount",
];

pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// A value through a filter.
///
/// # Errors
/// If there is no such filter, and what Python fails with.
pub(super) fn apply(run: &Run, name: &str, value: Value, arguments: Arguments) -> Res<Value> {
    run.budget.work(value.as_text().map_or(0, str::len))?;
    match name {
        "capitalize" | "lower" | "upper" | "title" | "string" | "safe" | "e" | "escape" | "forceescape"
        | "wordcount" => {
            let [] = arguments.bind(name, [], 0)?;
            plain(run, name, &value)
        }
        "trim" => {
            let [characters] = arguments.bind(name, ["chars"], 0)?;
            strings::strip(run, &soft_text(run, &value)?, name, characters)
        }
        "center" => {
            let [width] = arguments.bind(name, ["width"], 0)?;
            let width = width.unwrap_or(Value::Int(80));
            strings::call(run, &soft_text(run, &value)?, name, Arguments::of(vec![width]))
        }
        "replace" => replace(run, &value, arguments),
        "truncate" => truncate(run, &value, arguments),
        "indent" => indent(run, &value, arguments),
        "format" => format(run, &value, arguments),
        "tojson" => json::to_json(run, &value, arguments),
        "int" | "float" => number(name, &value, arguments),
        "abs" => abs(&value, arguments),
        "round" => round(&value, arguments),
        "filesizeformat" => file_size(run, &value, arguments),
        "default" | "d" => {
            let [default, falsy] = arguments.bind(name, ["default_value", "boolean"], 0)?;
            let falsy = falsy.is_some_and(|falsy| falsy.is_true());
            let taken = matches!(value, Value::Undefined(_)) || falsy && !value.is_true();
            Ok(if taken { default.unwrap_or_else(|| Value::text("")) } else { value })
        }
        "length" | "count" => {
            let [] = arguments.bind(name, [], 0)?;
            let length =
                value.length().ok_or_else(|| fail(format!("object of type '{}' has no len()", value.type_name())))?;
            Ok(Value::Int(length as i128))
        }
        "items" => {
            let [] = arguments.bind(name, [], 0)?;
            run.lazy(|entries| {
                match &value {
                    Value::Undefined(_) => {}
                    Value::Dict(dict) => *entries = run.viewed(View::Entries, dict)?,
                    _ => return Err(fail("can only get item pairs from a mapping")),
                }
                Ok(())
            })
        }
        "attr" => {
            let [attribute] = arguments.bind(name, ["name"], 1)?;
            let attribute = attribute.unwrap_or(Value::None);
            attr(run, &value, attribute.as_text().ok_or_else(|| fail("an attribute's name is a string"))?)
        }
        _ => sequences::apply(run, name, &value, arguments),
    }
}

/// `attr`: an attribute that is no entry.
fn attr(run: &Run, value: &Value, name: &str) -> Res<Value> {
    match value {
        Value::Dict(_) => match methods::attribute(run, value, name)? {
            method @ Value::Method(_) => Ok(method),
            _ => Ok(Value::undefined(format!("'dict object' has no attribute '{name}'"))),
        },
        _ => methods::attribute(run, value, name),
    }
}

fn plain(run: &Run, name: &str, value: &Value) -> Res<Value> {
    let text = soft_text(run, value)?;
    match name {
        "capitalize" => run.text(letters::capitalized(&text)),
        "lower" => run.text(text.to_lowercase()),
        "upper" => run.text(text.to_uppercase()),
        "title" => run.text(title(&text)),
        "wordcount" => Ok(Value::Int(strings::count_words(&text) as i128)),
        "string" | "safe" => run.text(text),
        _ => {
            run.budget.reserve(text.len().saturating_mul(5))?;
            let escaped = text.replace('&', "&amp;").replace('>', "&gt;").replace('<', "&lt;");
            run.text(escaped.replace('\'', "&#39;").replace('"', "&#34;"))
        }
    }
}

/// Each word's first letter in upper case. Words begin behind spaces, hyphens and opening brackets.
fn title(text: &str) -> String {
    let (mut out, mut word) = (String::with_capacity(text.len()), String::new());
    let end = |word: &mut String, out: &mut String| {
        let mut letters = word.chars();
        out.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(&letters.as_str().to_lowercase());
        word.clear();
    };
    for c in text.chars() {
        if super::lexer::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<') {
            end(&mut word, &mut out);
            out.push(c);
        } else {
            word.push(c);
        }
    }
    end(&mut word, &mut out);
    out
}

fn replace(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [old, new, count] = arguments.bind("replace", ["old", "new", "count"], 2)?;
    let [old, new] = [old, new].map(|text| text.unwrap_or(Value::None));
    let count = match count {
        None | Some(Value::None) => -1,
        Some(count) => count.as_int().ok_or_else(|| fail("the count of `replace` is a whole number"))?,
    };
    strings::replace(run, &soft_text(run, value)?, &soft_text(run, &old)?, &soft_text(run, &new)?, count)
}

fn truncate(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [length, killwords, end, leeway] = arguments.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let size = |given: Option<Value>, otherwise: usize| match given {
        None | Some(Value::None) => Ok(otherwise),
        Some(value) => {
            value.as_int().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| fail("`truncate` takes whole numbers"))
        }
    };
    let (length, leeway) = (size(length, 255)?, size(leeway, 5)?);
    let end = end.unwrap_or_else(|| Value::text("..."));
    let end = end.as_text().ok_or_else(|| fail("the end of `truncate` is a string"))?;
    let ending = end.chars().count();
    if length < ending {
        return Err(fail(format!("expected length >= {ending}, got {length}")));
    }
    value.length().ok_or_else(|| fail(format!("object of type '{}' has no len()", value.type_name())))?;
    let Some(text) = value.as_text() else {
        return match value.length() {
            Some(count) if count <= length.saturating_add(leeway) => Ok(value.clone()),
            _ => Err(fail("`truncate` takes a string")),
        };
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let mut kept: String = text.chars().take(length - ending).collect();
    if !killwords.is_some_and(|kill| kill.is_true())
        && let Some(at) = kept.rfind(' ')
    {
        kept.truncate(at);
    }
    run.text(kept + end)
}

/// `indent(width=4, first=false, blank=false)`, where the width may be the margin itself.
fn indent(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [width, first, blank] = arguments.bind("indent", ["width", "first", "blank"], 0)?;
    let [first, blank] = [first, blank].map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let margin = match width.unwrap_or(Value::Int(4)) {
        Value::Text(margin) => margin.to_string(),
        width => {
            let width = width.as_int().ok_or_else(|| fail("the width of `indent` is a whole number or a string"))?;
            let width = usize::try_from(width).unwrap_or(if width < 0 { 0 } else { usize::MAX });
            " ".repeat(width.min(WIDEST_INDENT + 1))
        }
    };
    if margin.len() > WIDEST_INDENT {
        return Err(fail("the indentation is too wide"));
    }
    value.defined()?;
    let text = value.as_text().ok_or_else(|| fail(format!("`indent` takes a string, not {}", value.type_name())))?;
    // Jinja adds a line break so that one at the end is kept.
    let text = format!("{text}\n");
    let lines = strings::lines(&text, false);
    run.budget.reserve(text.len() + (margin.len() + 1) * lines.len())?;
    let mut out = String::with_capacity(text.len());
    for (number, line) in lines.into_iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        if if number == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    run.text(out)
}

fn format(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let pattern = soft_text(run, value)?;
    if !arguments.positional.is_empty() && !arguments.named.is_empty() {
        return Err(fail("`format` takes arguments by place or by name, not both"));
    }
    let values = if arguments.named.is_empty() {
        Value::Tuple(Items::new(arguments.positional)?)
    } else {
        let none = Arguments { positional: Vec::new(), named: arguments.named };
        super::functions::call(run, super::value::Function::Dict, none)?
    };
    printf::formatted(run, &pattern, &values)
}

fn number(name: &str, value: &Value, arguments: Arguments) -> Res<Value> {
    if name == "float" {
        let [default] = arguments.bind(name, ["default"], 0)?;
        let number = match value {
            Value::Text(text) => float_of(text),
            other => {
                other.defined()?;
                other.as_float()
            }
        };
        return Ok(number.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)));
    }
    let [default, base] = arguments.bind(name, ["default", "base"], 0)?;
    let default = default.unwrap_or(Value::Int(0));
    let base = base.map_or(Some(10), |base| base.as_int()).and_then(|base| u32::try_from(base).ok());
    value.defined()?;
    let number = match value {
        Value::Text(text) => {
            let base = base.filter(|base| *base == 0 || (2..=36).contains(base));
            match base.and_then(|base| int_of(text, base)) {
                Some(number) => Some(number),
                None => float_of(text).map_or(Ok(None), truncated)?,
            }
        }
        Value::Float(number) => truncated(*number)?,
        other => other.as_int(),
    };
    Ok(number.map_or(default, Value::Int))
}

/// The whole part of a number; none where it has none.
///
/// # Errors
/// If it has more than 128 bits.
fn truncated(number: f64) -> Res<Option<i128>> {
    if number.is_finite() && number.abs() >= LARGEST {
        return Err(fail("a whole number is too large"));
    }
    Ok(number.is_finite().then_some(number.trunc() as i128))
}

/// What Python's `float` reads.
fn float_of(text: &str) -> Option<f64> {
    let text = without_underscores(text.trim_matches(super::lexer::is_space))?;
    let plain = text.to_ascii_lowercase();
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let word = matches!(unsigned, "inf" | "infinity" | "nan");
    if !word && unsigned.contains(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | 'e' | '+' | '-')) {
        return None;
    }
    plain.parse().ok()
}

/// What Python's `int` reads.
fn int_of(text: &str, base: u32) -> Option<i128> {
    let text = without_underscores(text.trim_matches(super::lexer::is_space))?;
    let (sign, mut digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let marks = [("0x", 16), ("0o", 8), ("0b", 2)];
    let lower = digits.to_ascii_lowercase();
    let marked = marks.iter().find(|(mark, of)| lower.starts_with(mark) && (base == *of || base == 0));
    let base = match marked {
        Some((mark, of)) => {
            digits = digits[mark.len()..].strip_prefix('_').unwrap_or(&digits[mark.len()..]);
            *of
        }
        None if base == 0 => 10,
        None => base,
    };
    let ascii: String =
        digits.chars().map(|c| letters::decimal(c).and_then(|d| char::from_digit(d, 10)).unwrap_or(c)).collect();
    if ascii.starts_with(['+', '-']) {
        return None;
    }
    i128::from_str_radix(&ascii, base).ok()?.checked_mul(sign)
}

/// Without the underscores that may stand between digits.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let between = |at: usize| {
        at > 0 && bytes[at - 1].is_ascii_alphanumeric() && bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric)
    };
    let sound = text.match_indices('_').all(|(at, _)| between(at));
    sound.then(|| text.replace('_', ""))
}

fn abs(value: &Value, arguments: Arguments) -> Res<Value> {
    let [] = arguments.bind("abs", [], 0)?;
    value.defined()?;
    match (value.as_int(), value) {
        (Some(number), _) => number.checked_abs().map(Value::Int).ok_or_else(|| fail("a number is too large")),
        (_, Value::Float(number)) => Ok(Value::Float(number.abs())),
        _ => Err(fail(format!("bad operand type for abs(): '{}'", value.type_name()))),
    }
}

fn round(value: &Value, arguments: Arguments) -> Res<Value> {
    let [precision, method] = arguments.bind("round", ["precision", "method"], 0)?;
    let precision = precision.unwrap_or(Value::Int(0)).as_int().filter(|p| p.abs() < 300);
    let precision = precision.ok_or_else(|| fail("the precision of `round` is a small whole number"))? as i32;
    let method = method.unwrap_or_else(|| Value::text("common"));
    value.defined()?;
    let number = value.as_float().ok_or_else(|| fail(format!("`round` takes a number, not {}", value.type_name())))?;
    let scale = 10f64.powi(precision);
    let of_int = |number: f64| if precision == 0 { number } else { number / scale };
    match method.as_text() {
        Some("common") => match value.as_int() {
            Some(whole) if precision >= 0 => Ok(Value::Int(whole)),
            Some(whole) => Ok(Value::Int(rounded_int(whole, precision))),
            None if precision >= 0 => {
                let digits = usize::try_from(precision).unwrap_or(0);
                Ok(Value::Float(format!("{number:.digits$}").parse().unwrap_or(number)))
            }
            None => Ok(Value::Float((number * scale).round_ties_even() / scale)),
        },
        Some("ceil") => Ok(Value::Float(of_int((number * scale).ceil()))),
        Some("floor") => Ok(Value::Float(of_int((number * scale).floor()))),
        _ => Err(fail("the method of `round` is common, ceil or floor")),
    }
}

/// A whole number rounded to tens, hundreds and so on; halves go to the even one.
fn rounded_int(number: i128, precision: i32) -> i128 {
    let Some(unit) = 10i128.checked_pow(precision.unsigned_abs()) else { return 0 };
    let (down, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = 2 * rest > unit || 2 * rest == unit && down % 2 != 0;
    (down + i128::from(up)) * unit
}

fn file_size(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [binary] = arguments.bind("filesizeformat", ["binary"], 0)?;
    let binary = binary.is_some_and(|binary| binary.is_true());
    let bytes = match value {
        Value::Text(text) => float_of(text),
        other => other.as_float(),
    };
    let bytes = bytes.ok_or_else(|| fail("`filesizeformat` takes a number"))?;
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return run.text("1 Byte".to_owned());
    }
    if bytes < base {
        return run.text(format!("{} Bytes", bytes.trunc() as i128));
    }
    let (mut unit, mut name) = (base * base, "");
    for (index, letter) in ["k", "M", "G", "T", "P", "E", "Z", "Y"].into_iter().enumerate() {
        (unit, name) = (base.powi(index as i32 + 2), letter);
        if bytes < unit {
            break;
        }
    }
    let number = Spec { precision: Some(1), ..Spec::default() }.float(run, base * bytes / unit, 'f')?;
    let name = if binary { format!("{}iB", name.to_uppercase()) } else { format!("{name}B") };
    run.text(format!("{number} {name}"))
}
