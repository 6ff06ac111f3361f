//! `pattern % values`.

use super::error::{Res, fail};
use super::numbers::{Spec, size, whole};
use super::print;
use super::run::Run;
use super::value::{Key, Value};

/// The values that a pattern takes one after the other.
struct Values<'v> {
    given: &'v Value,
    taken: usize,
    by_name: bool,
}

impl Values<'_> {
    fn next(&mut self) -> Res<Value> {
        let value = match self.given {
            Value::Tuple(items) => items.values.get(self.taken).cloned(),
            other => (self.taken == 0).then(|| other.clone()),
        };
        self.taken += 1;
        value.ok_or_else(|| fail("not enough arguments for format string"))
    }

    fn named(&mut self, name: &str) -> Res<Value> {
        self.by_name = true;
        match self.given {
            Value::Dict(dict) => {
                dict.get(&Key::Text(name.into())).cloned().ok_or_else(|| fail(format!("there is no value '{name}'")))
            }
            _ => Err(fail("format requires a mapping")),
        }
    }

    /// Whether values are left over; dictionaries and lists are none.
    fn all_taken(&self) -> bool {
        match self.given {
            Value::Tuple(items) => self.taken >= items.values.len(),
            Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) => true,
            _ => self.taken > 0 || self.by_name,
        }
    }
}

/// The pattern with values in its places.
///
/// # Errors
/// If they do not fit, or ask for too much.
pub(super) fn formatted(run: &Run, pattern: &str, given: &Value) -> Res<Value> {
    let mut values = Values { given, taken: 0, by_name: false };
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = place(run, &rest[at + 1..], &mut values, &mut out)?;
        run.budget.step()?;
        run.budget.reserve(out.len())?;
    }
    out.push_str(rest);
    if !values.all_taken() {
        return Err(fail("not all arguments converted during string formatting"));
    }
    run.text(out)
}

/// Writes one place, and gives back what follows it.
fn place<'p>(run: &Run, pattern: &'p str, values: &mut Values, out: &mut String) -> Res<&'p str> {
    let mut rest = pattern;
    if let Some(after) = rest.strip_prefix('%') {
        out.push('%');
        return Ok(after);
    }
    let mut named = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (name, after) = inner.split_once(')').ok_or_else(|| fail("incomplete format key"))?;
        named = Some(values.named(name)?);
        rest = after;
    }
    let after = rest.trim_start_matches(['-', '+', ' ', '#', '0']);
    let flags = &rest[..rest.len() - after.len()];
    let mut spec = Spec { alternate: flags.contains('#'), ..Spec::default() };
    spec.sign = ['+', ' '].into_iter().find(|sign| flags.contains(*sign));
    let zeros = flags.contains('0') && !flags.contains('-');
    spec.align = Some(if flags.contains('-') { '<' } else { '>' });
    rest = after;
    let width;
    (width, rest) = asked(rest, values)?;
    if let Some(width) = width {
        if width < 0 {
            spec.align = Some('<');
        }
        spec.width = width.unsigned_abs();
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = asked(after, values)?;
        spec.precision = Some(usize::try_from(precision.unwrap_or(0)).unwrap_or(0));
        rest = after;
    }
    rest = rest.trim_start_matches(['h', 'l', 'L']);
    let letter = rest.chars().next().ok_or_else(|| fail("incomplete format"))?;
    rest = &rest[letter.len_utf8()..];
    let value = match named {
        Some(value) => value,
        None => values.next()?,
    };
    if zeros && !matches!(letter, 's' | 'r' | 'a' | 'c') {
        (spec.fill, spec.align) = (Some('0'), Some('='));
    }
    out.push_str(&written(run, spec, letter, &value)?);
    Ok(rest)
}

/// A width or precision: digits, or a value in place of `*`.
fn asked<'p>(text: &'p str, values: &mut Values) -> Res<(Option<isize>, &'p str)> {
    if let Some(rest) = text.strip_prefix('*') {
        let number = values.next()?.as_int().filter(|number| number.unsigned_abs() < 10_000);
        let number = number.ok_or_else(|| fail("a width in a format string is no whole number, or too large"))?;
        return Ok((Some(number as isize), rest));
    }
    let (size, rest) = size(text)?;
    Ok((size.map(|size| size as isize), rest))
}

fn written(run: &Run, mut spec: Spec, letter: char, value: &Value) -> Res<String> {
    match letter {
        's' => spec.text(run, &print::text_of(run, value)?),
        'r' => spec.text(run, &print::repr(run, value)?),
        'a' => spec.text(run, &ascii(&print::repr(run, value)?)),
        'd' | 'i' | 'u' => of_int(run, spec, whole(value)?, 'd'),
        'x' | 'X' | 'o' => match value {
            Value::Float(_) => Err(fail(format!("%{letter} format: an integer is required, not float"))),
            other => of_int(run, spec, whole(other)?, letter),
        },
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            value.defined()?;
            let number = value.as_float();
            let number = number.ok_or_else(|| fail(format!("must be real number, not {}", value.type_name())))?;
            spec.float(run, number, letter)
        }
        'c' => {
            spec.precision = None;
            let character = match value {
                Value::Text(text) if text.chars().count() == 1 => text.chars().next(),
                other => other.as_int().and_then(|code| char::from_u32(u32::try_from(code).ok()?)),
            };
            spec.text(run, &character.ok_or_else(|| fail("%c requires one character"))?.to_string())
        }
        other => Err(fail(format!("unsupported format character '{other}'"))),
    }
}

/// A precision of a whole number is the least number of digits.
fn of_int(run: &Run, mut spec: Spec, number: i128, letter: char) -> Res<String> {
    if let Some(least) = spec.precision.take() {
        let bare = Spec::default().int(run, number.checked_abs().unwrap_or(i128::MAX), letter)?;
        run.budget.made(least)?;
        let digits = format!("{}{bare}", "0".repeat(least.saturating_sub(bare.len())));
        let sign = if number < 0 { "-" } else { spec.sign.map_or("", |sign| if sign == '+' { "+" } else { " " }) };
        return spec.padded(run, sign, &digits, '>');
    }
    spec.int(run, number, letter)
}

/// With escapes for all that is not ASCII.
fn ascii(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match u32::from(c) {
            0..=0x7f => out.push(c),
            code @ 0x80..=0xff => out.push_str(&format!("\\x{code:02x}")),
            code @ 0x100..=0xffff => out.push_str(&format!("\\u{code:04x}")),
            code => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out
}
