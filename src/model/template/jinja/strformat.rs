//! `pattern.format(values)`.

use super::error::{Res, fail};
use super::macros::Arguments;
use super::methods;
use super::numbers::{Spec, size, whole};
use super::print;
use super::run::Run;
use super::value::Value;

/// Formats within the specifications of formats.
const DEEPEST: usize = 2;

/// The pattern with values in its places.
///
/// # Errors
/// If they do not fit, or ask for too much.
pub(super) fn formatted(run: &Run, pattern: &str, values: &Arguments) -> Res<Value> {
    let mut next = Some(0);
    let text = filled(run, pattern, values, &mut next, DEEPEST)?;
    run.text(text)
}

/// `next` is the place of the next value without a name; none once values were asked for by their places.
fn filled(run: &Run, pattern: &str, values: &Arguments, next: &mut Option<usize>, depth: usize) -> Res<String> {
    if depth == 0 {
        return Err(fail("max string recursion exceeded"));
    }
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        run.budget.step()?;
        run.budget.reserve(out.len())?;
        if let Some(after) = after.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(fail("single '}' encountered in format string"));
        }
        let end = field_end(after).ok_or_else(|| fail("expected '}' before end of string"))?;
        out.push_str(&field(run, &after[..end], values, next, depth)?);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that ends a field stands. In brackets, a brace is a character as any other.
fn field_end(text: &str) -> Option<usize> {
    let (mut depth, mut bracket) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' => bracket = true,
            ']' => bracket = false,
            '{' if !bracket => depth += 1,
            '}' if !bracket && depth == 0 => return Some(at),
            '}' if !bracket => depth -= 1,
            _ => {}
        }
    }
    None
}

fn field(run: &Run, field: &str, values: &Arguments, next: &mut Option<usize>, depth: usize) -> Res<String> {
    let bracket = field.rfind(']').unwrap_or(0);
    let end =
        field.char_indices().find(|(at, c)| matches!(c, ':' | '!') && (*at > bracket || !field[..*at].contains('[')));
    let (name, rest) = field.split_at(end.map_or(field.len(), |(at, _)| at));
    let (conversion, spec) = match rest.strip_prefix('!') {
        None => (None, rest.strip_prefix(':').unwrap_or("")),
        Some(rest) => {
            let letter = rest.chars().next().ok_or_else(|| fail("a conversion is missing"))?;
            let after = &rest[letter.len_utf8()..];
            let spec = if after.is_empty() { Some("") } else { after.strip_prefix(':') };
            (Some(letter), spec.ok_or_else(|| fail("expected ':' after conversion specifier"))?)
        }
    };
    let mut value = found(run, name, values, next)?;
    match conversion {
        None => {}
        Some('s') => value = Value::text(print::text_of(run, &value)?),
        Some('r') => value = Value::text(print::repr(run, &value)?),
        Some(other) => return Err(fail(format!("unknown conversion specifier {other}"))),
    }
    let spec = filled(run, spec, values, next, depth - 1)
        .or_else(|error| if spec.is_empty() { Ok(String::new()) } else { Err(error) })?;
    written(run, &value, &spec)
}

/// The value that a field names: `0`, `name`, `0.attribute`, `name[key]`.
fn found(run: &Run, name: &str, values: &Arguments, next: &mut Option<usize>) -> Res<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let place = |at: usize| {
        values
            .positional
            .get(at)
            .cloned()
            .ok_or_else(|| fail("replacement index out of range for positional arguments"))
    };
    let mut value = if first.is_empty() {
        let at = next.ok_or_else(|| fail("cannot switch from manual field specification to automatic numbering"))?;
        *next = Some(at + 1);
        place(at)?
    } else if let Ok(at) = first.parse::<usize>() {
        if next.is_some_and(|next| next > 0) {
            return Err(fail("cannot switch from automatic field numbering to manual specification"));
        }
        *next = None;
        place(at)?
    } else {
        let named = values.named.iter().find(|(given, _)| **given == *first);
        named.map(|(_, value)| value.clone()).ok_or_else(|| fail(format!("there is no value '{first}'")))?
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = methods::attribute(run, &value, &after[..end])?;
            rest = &after[end..];
        } else {
            let inner =
                rest.strip_prefix('[').ok_or_else(|| fail("only '.' or '[' may follow ']' in a format field"))?;
            let (key, after) = inner.split_once(']').ok_or_else(|| fail("missing ']' in format string"))?;
            let key = key.parse().map_or_else(|_| Value::text(key), Value::Int);
            value = methods::item(run, &value, &key)?;
            rest = after;
        }
    }
    Ok(value)
}

/// A value by a specification, as `format(value, spec)` writes it.
fn written(run: &Run, value: &Value, spec: &str) -> Res<String> {
    if spec.is_empty() {
        return print::text_of(run, value);
    }
    let (parsed, letter) = parsed(spec)?;
    match (value, letter) {
        (Value::Text(text), None | Some('s')) if parsed.sign.is_none() && parsed.align != Some('=') => {
            parsed.text(run, text)
        }
        (Value::Int(_) | Value::Bool(_), None | Some('d' | 'x' | 'X' | 'o' | 'b' | 'n'))
            if parsed.precision.is_none() =>
        {
            parsed.int(run, whole(value)?, letter.unwrap_or('d'))
        }
        (Value::Int(_), Some('c')) => {
            let code = u32::try_from(whole(value)?).ok().and_then(char::from_u32);
            parsed.text(run, &code.ok_or_else(|| fail("%c arg not in range"))?.to_string())
        }
        (
            Value::Int(_) | Value::Float(_) | Value::Bool(_),
            Some(letter @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')),
        ) => parsed.float(run, value.as_float().unwrap_or(f64::NAN), letter),
        (Value::Float(number), None) => float_without_letter(run, &parsed, *number),
        (other, _) => Err(fail(format!("unsupported format string '{spec}' for {}", other.type_name()))),
    }
}

/// A float whose specification names no form: that of `repr`, or `g` with a point where a precision is given.
fn float_without_letter(run: &Run, spec: &Spec, number: f64) -> Res<String> {
    let Some(precision) = spec.precision else { return spec.float(run, number, 'r') };
    let bare = Spec { precision: Some(precision.max(1)), ..Spec::default() };
    let mut text = bare.float(run, number.abs(), 'g')?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if number.is_finite() && !text.contains(['.', 'e']) {
        if digits >= precision.max(1) {
            let scientific = Spec { precision: Some(precision.max(1) - 1), ..Spec::default() };
            let exponent = scientific.float(run, number.abs(), 'e')?;
            let (head, tail) = exponent.split_once('e').unwrap_or((&exponent, "+00"));
            let head = if head.contains('.') { head.trim_end_matches('0').trim_end_matches('.') } else { head };
            text = format!("{head}e{tail}");
        } else {
            text += ".0";
        }
    }
    let sign = if number.is_sign_negative() {
        "-"
    } else {
        spec.sign.filter(|c| *c != '-').map_or("", |c| if c == '+' { "+" } else { " " })
    };
    spec.padded(run, sign, &text, '>')
}

/// `[[fill]align][sign][#][0][width][,][.precision][letter]`
fn parsed(spec: &str) -> Res<(Spec, Option<char>)> {
    let is_align = |c: Option<char>| c.filter(|c| matches!(c, '<' | '>' | '^' | '='));
    let mut parsed = Spec::default();
    let mut characters = spec.chars();
    let (first, second) = (characters.next(), characters.next());
    let mut rest = spec;
    if let (Some(fill), Some(align)) = (first, is_align(second)) {
        (parsed.fill, parsed.align) = (Some(fill), Some(align));
        rest = &rest[fill.len_utf8() + 1..];
    } else if let Some(align) = is_align(first) {
        parsed.align = Some(align);
        rest = &rest[1..];
    }
    if let Some(sign) = rest.chars().next().filter(|c| matches!(c, '+' | '-' | ' ')) {
        parsed.sign = Some(sign);
        rest = &rest[1..];
    }
    if let Some(after) = rest.strip_prefix('#') {
        parsed.alternate = true;
        rest = after;
    }
    if rest.starts_with('0') {
        parsed.fill.get_or_insert('0');
        parsed.zeros = true;
    }
    let width;
    (width, rest) = size(rest)?;
    parsed.width = width.unwrap_or(0);
    if let Some(separator) = rest.chars().next().filter(|c| matches!(c, ',' | '_')) {
        parsed.grouping = Some(separator);
        rest = &rest[1..];
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = size(after)?;
        parsed.precision = Some(precision.ok_or_else(|| fail("format specifier missing precision"))?);
        rest = after;
    }
    let mut letters = rest.chars();
    match (letters.next(), letters.next()) {
        (letter, None) => Ok((parsed, letter)),
        _ => Err(fail(format!("invalid format specifier '{spec}'"))),
    }
}
