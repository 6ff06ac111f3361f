//! Numbers written by a format, which `%` and `format` share.

use super::error::{Res, fail};
use super::print;
use super::run::Run;
use super::value::Value;

/// Floats from here on are no whole number of 128 bits.
pub(super) const LARGEST: f64 = 1.7e38;
/// Digits of a width or precision in a format.
const MOST_DIGITS: usize = 4;

/// What a format asks for.
#[derive(Clone, Default)]
pub(super) struct Spec {
    pub fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    pub align: Option<char>,
    /// What stands before a number that is not negative.
    pub sign: Option<char>,
    /// Marks of other bases, and a point behind whole floats.
    pub alternate: bool,
    /// Zeros between the sign and a number.
    pub zeros: bool,
    pub width: usize,
    /// `,` or `_` between thousands.
    pub grouping: Option<char>,
    pub precision: Option<usize>,
}

/// A width or precision that begins a text, and what follows it.
///
/// # Errors
/// If it is too large.
pub(super) fn size(text: &str) -> Res<(Option<usize>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.trim_start_matches('0').len() > MOST_DIGITS {
        return Err(fail("a width in a format string is too large"));
    }
    Ok((digits.parse().ok(), rest))
}

impl Spec {
    /// A text as wide as is asked for.
    ///
    /// # Errors
    /// If that is too much.
    pub fn text(&self, run: &Run, text: &str) -> Res<String> {
        let length = text.chars().count();
        let kept: String = match self.precision {
            Some(most) if most < length => text.chars().take(most).collect(),
            _ => text.to_owned(),
        };
        self.padded(run, "", &kept, '<')
    }

    /// A sign and digits as wide as is asked for.
    ///
    /// # Errors
    /// If that is too much.
    pub fn padded(&self, run: &Run, sign: &str, text: &str, align: char) -> Res<String> {
        let missing = self.width.saturating_sub(sign.len() + text.chars().count());
        run.budget.made(text.len() + missing * 4)?;
        let fill = |count: usize| self.fill.unwrap_or(' ').to_string().repeat(count);
        let align = if self.zeros && align == '>' { '=' } else { align };
        Ok(match self.align.unwrap_or(align) {
            '<' => format!("{sign}{text}{}", fill(missing)),
            '^' => format!("{}{sign}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{sign}{}{text}", fill(missing)),
            _ => format!("{}{sign}{text}", fill(missing)),
        })
    }

    fn sign_of(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        }
    }

    /// A whole number in the base of a letter.
    ///
    /// # Errors
    /// If that is too much.
    pub fn int(&self, run: &Run, number: i128, letter: char) -> Res<String> {
        let size = number.unsigned_abs();
        let (mark, mut digits) = match letter {
            'x' => ("0x", format!("{size:x}")),
            'X' => ("0X", format!("{size:X}")),
            'o' => ("0o", format!("{size:o}")),
            'b' => ("0b", format!("{size:b}")),
            _ => ("", size.to_string()),
        };
        digits = self.grouped(&digits, if mark.is_empty() { 3 } else { 4 });
        let mark = if self.alternate { mark } else { "" };
        let sign = format!("{}{mark}", self.sign_of(number < 0));
        self.padded(run, &sign, &digits, '>')
    }

    fn grouped(&self, digits: &str, by: usize) -> String {
        let Some(separator) = self.grouping else { return digits.to_owned() };
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(by) {
                out.push(separator);
            }
            out.push(digit);
        }
        out
    }

    /// A float in the form of a letter: `f`, `e`, `g`, `%`, their upper cases, or `r` for that of `repr`.
    ///
    /// # Errors
    /// If that is too much.
    pub fn float(&self, run: &Run, number: f64, letter: char) -> Res<String> {
        let precision = self.precision.unwrap_or(6);
        run.budget.made(precision + 320)?;
        let size = number.abs();
        let mut text = match letter.to_ascii_lowercase() {
            _ if !number.is_finite() => if number.is_nan() { "nan" } else { "inf" }.to_owned(),
            'f' => format!("{size:.precision$}"),
            'e' => exponent_form(&format!("{size:.precision$e}")),
            '%' => format!("{:.precision$}", size * 100.0),
            'r' => print::float(size),
            _ => general(size, precision, self.alternate),
        };
        if self.alternate && precision == 0 && matches!(letter, 'f' | 'F') {
            text.push('.');
        }
        if letter.is_ascii_uppercase() {
            text = text.to_uppercase();
        }
        if self.grouping.is_some() {
            let whole = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text = self.grouped(&text[..whole], 3) + &text[whole..];
        }
        if letter == '%' {
            text.push('%');
        }
        self.padded(run, self.sign_of(number.is_sign_negative() && !number.is_nan()), &text, '>')
    }
}

/// Rust's `1.5e7` as Python's `1.5e+07`.
fn exponent_form(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The form of `g`: so many digits, with an exponent where the number is large or small.
fn general(size: f64, precision: usize, keep_zeros: bool) -> String {
    let precision = precision.max(1);
    let scientific = format!("{size:.*e}", precision - 1);
    let exponent: i64 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let small = exponent < -4 || exponent >= precision as i64;
    let text = if small {
        scientific
    } else {
        format!("{size:.*}", usize::try_from(precision as i64 - 1 - exponent).unwrap_or(0))
    };
    let (digits, behind) = text.split_once('e').map_or((text.as_str(), None), |(d, e)| (d, Some(e)));
    let digits =
        if keep_zeros || !digits.contains('.') { digits } else { digits.trim_end_matches('0').trim_end_matches('.') };
    match behind {
        Some(exponent) => exponent_form(&format!("{digits}e{exponent}")),
        None => digits.to_owned(),
    }
}

/// A whole number from a value that has one.
///
/// # Errors
/// If it has none.
pub(super) fn whole(value: &Value) -> Res<i128> {
    match value {
        Value::Float(number) if number.abs() < LARGEST => Ok(number.trunc() as i128),
        Value::Float(_) => Err(fail("a number is too large, or none")),
        other => {
            other.defined()?;
            other.as_int().ok_or_else(|| fail(format!("a number is required, not {}", other.type_name())))
        }
    }
}
