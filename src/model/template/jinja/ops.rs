//! Python's operators.

use std::cmp::Ordering;
use std::rc::Rc;

use super::error::{Error, Res, fail};
use super::printf;
use super::run::Run;
use super::value::{Dict, Items, Key, Range, Value, View};

fn unsupported(operator: &str, left: &Value, right: &Value) -> Error {
    let (left, right) = (left.type_name(), right.type_name());
    fail(format!("unsupported operand types for {operator}: '{left}' and '{right}'"))
}

/// A number, in Python's two kinds.
enum Numbers {
    Ints(i128, i128),
    Floats(f64, f64),
}

fn numbers(left: &Value, right: &Value) -> Option<Numbers> {
    match (left.as_int(), right.as_int()) {
        (Some(left), Some(right)) => Some(Numbers::Ints(left, right)),
        _ => Some(Numbers::Floats(left.as_float()?, right.as_float()?)),
    }
}

fn int(result: Option<i128>) -> Res<Value> {
    result.map(Value::Int).ok_or_else(|| fail("a whole number is too large"))
}

pub(super) fn binary(run: &Run, operator: &str, left: &Value, right: &Value) -> Res<Value> {
    if let ("%", Value::Text(pattern)) = (operator, left) {
        return printf::formatted(run, pattern, right);
    }
    left.defined()?;
    right.defined()?;
    match (operator, left, right) {
        ("+", Value::Text(a), Value::Text(b)) => {
            run.budget.reserve(a.len() + b.len())?;
            return run.text(format!("{a}{b}"));
        }
        ("+", Value::List(a), Value::List(b)) => return run.list(joined(run, a, b)?),
        ("+", Value::Tuple(a), Value::Tuple(b)) => return run.tuple(joined(run, a, b)?),
        ("*", value @ (Value::Text(_) | Value::List(_) | Value::Tuple(_)), count)
        | ("*", count, value @ (Value::Text(_) | Value::List(_) | Value::Tuple(_))) => {
            let times = count.as_int().ok_or_else(|| unsupported("*", left, right))?;
            return repeated(run, value, usize::try_from(times.max(0)).unwrap_or(usize::MAX));
        }
        _ => {}
    }
    match numbers(left, right).ok_or_else(|| unsupported(operator, left, right))? {
        Numbers::Ints(a, b) => of_ints(operator, a, b),
        Numbers::Floats(a, b) => of_floats(operator, a, b),
    }
}

fn joined(run: &Run, a: &Items, b: &Items) -> Res<Vec<Value>> {
    run.budget.reserve_items(a.values.len() + b.values.len())?;
    Ok(a.values.iter().chain(&b.values).cloned().collect())
}

fn repeated(run: &Run, value: &Value, times: usize) -> Res<Value> {
    match value {
        Value::Text(text) => {
            run.budget.reserve(text.len().saturating_mul(times))?;
            run.text(text.repeat(times))
        }
        Value::List(items) | Value::Tuple(items) => {
            run.budget.reserve_items(items.values.len().saturating_mul(times))?;
            let values = std::iter::repeat_n(&items.values, times).flatten().cloned().collect();
            if matches!(value, Value::List(_)) { run.list(values) } else { run.tuple(values) }
        }
        other => Err(fail(format!("'{}' cannot be repeated", other.type_name()))),
    }
}

fn of_ints(operator: &str, a: i128, b: i128) -> Res<Value> {
    let by_zero = || fail("division by zero");
    match operator {
        "+" => int(a.checked_add(b)),
        "-" => int(a.checked_sub(b)),
        "*" => int(a.checked_mul(b)),
        "/" | "//" | "%" if b == 0 => Err(by_zero()),
        "/" => Ok(Value::Float(a as f64 / b as f64)),
        "//" => int(a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q })),
        "%" => int(a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })),
        "**" if b >= 0 => int(u32::try_from(b).ok().and_then(|b| a.checked_pow(b)).or(if (0..2).contains(&a) {
            Some(a)
        } else {
            None
        })),
        "**" if a == 0 => Err(by_zero()),
        "**" => Ok(Value::Float((a as f64).powf(b as f64))),
        _ => Err(fail(format!("unknown operator {operator}"))),
    }
}

fn of_floats(operator: &str, a: f64, b: f64) -> Res<Value> {
    if matches!(operator, "/" | "//" | "%") && b == 0.0 || operator == "**" && a == 0.0 && b < 0.0 {
        return Err(fail("division by zero"));
    }
    Ok(Value::Float(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => floor_division(a, b).0,
        "%" => floor_division(a, b).1,
        "**" if a < 0.0 && b.fract() != 0.0 => return Err(fail("a complex number has no place in a template")),
        "**" => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(fail("a number is too large"));
            }
            power
        }
        _ => return Err(fail(format!("unknown operator {operator}"))),
    }))
}

/// Quotient and rest as CPython's `float_divmod` has them: the rest has the divisor's sign.
fn floor_division(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0f64.copysign(b);
    } else if (b < 0.0) != (rest < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

pub(super) fn negative(value: &Value, negate: bool) -> Res<Value> {
    value.defined()?;
    match (value.as_int(), value) {
        (Some(number), _) => int(if negate { number.checked_neg() } else { Some(number) }),
        (_, Value::Float(number)) => Ok(Value::Float(if negate { -number } else { *number })),
        _ => Err(fail(format!("bad operand type for a sign: '{}'", value.type_name()))),
    }
}

/// Python's `==`.
pub(super) fn equal(run: &Run, left: &Value, right: &Value) -> Res<bool> {
    run.budget.step()?;
    let of_items = |a: &[Value], b: &[Value]| -> Res<bool> {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(b) {
            if !equal(run, a, b)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok(match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Text(a), Value::Text(b)) => {
            run.budget.work(a.len().min(b.len()))?;
            a == b
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => of_items(&a.values, &b.values)?,
        (Value::Dict(a), Value::Dict(b)) => equal_dicts(run, a, b)?,
        (Value::Range(a), Value::Range(b)) => {
            a.len() == b.len() && (a.len() == 0 || a.start == b.start && (a.len() == 1 || a.step == b.step))
        }
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Stream(a), Value::Stream(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::View(View::Keys, a), Value::View(View::Keys, b)) => {
            a.entries.len() == b.entries.len()
                && a.entries.iter().all(|(key, _)| Key::of(key).is_ok_and(|key| b.contains(&key)))
        }
        _ => match numbers(left, right) {
            Some(Numbers::Ints(a, b)) => a == b,
            Some(Numbers::Floats(a, b)) => a == b,
            None => false,
        },
    })
}

fn equal_dicts(run: &Run, a: &Dict, b: &Dict) -> Res<bool> {
    if a.entries.len() != b.entries.len() {
        return Ok(false);
    }
    for (key, value) in &a.entries {
        match b.get(&Key::of(key)?) {
            Some(other) if equal(run, value, other)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Python's order; none between numbers of which one is not a number.
///
/// # Errors
/// For values that Python does not order.
pub(super) fn order(run: &Run, left: &Value, right: &Value) -> Res<Option<Ordering>> {
    run.budget.step()?;
    left.defined()?;
    right.defined()?;
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => {
            run.budget.work(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.values.iter().zip(&b.values) {
                if !equal(run, a, b)? {
                    return order(run, a, b);
                }
            }
            Ok(Some(a.values.len().cmp(&b.values.len())))
        }
        _ => match numbers(left, right) {
            Some(Numbers::Ints(a, b)) => Ok(Some(a.cmp(&b))),
            Some(Numbers::Floats(a, b)) => Ok(a.partial_cmp(&b)),
            None => Err(unsupported("a comparison", left, right)),
        },
    }
}

/// Whether a comparison holds.
pub(super) fn compare(run: &Run, operator: &str, left: &Value, right: &Value) -> Res<bool> {
    Ok(match operator {
        "==" => equal(run, left, right)?,
        "!=" => !equal(run, left, right)?,
        "in" => contains(run, right, left)?,
        "not in" => !contains(run, right, left)?,
        _ => {
            let order = order(run, left, right)?;
            match operator {
                "<" => order == Some(Ordering::Less),
                "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                ">" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }
        }
    })
}

/// Python's `value in holder`.
pub(super) fn contains(run: &Run, holder: &Value, value: &Value) -> Res<bool> {
    match holder {
        Value::Text(text) => {
            run.budget.work(text.len())?;
            let part = value.as_text();
            let part =
                part.ok_or_else(|| fail(format!("'in <string>' requires a string, not {}", value.type_name())))?;
            Ok(text.contains(part))
        }
        Value::Dict(dict) | Value::View(View::Keys, dict) => Ok(dict.contains(&Key::of(value)?)),
        Value::Range(range) => Ok(match value.as_float() {
            Some(number) if number.fract() == 0.0 => in_range(*range, number as i128),
            _ => false,
        }),
        _ => {
            for item in run.iterated(holder)? {
                if equal(run, &item, value)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

fn in_range(range: Range, number: i128) -> bool {
    let from = number - range.start;
    from % range.step == 0 && from / range.step >= 0 && ((from / range.step) as usize) < range.len()
}

/// Python's `value[start:stop:step]`.
pub(super) fn slice(run: &Run, value: &Value, bounds: [Value; 3]) -> Res<Value> {
    value.defined()?;
    let mut parts = [None; 3];
    for (part, bound) in parts.iter_mut().zip(&bounds) {
        *part = match bound {
            Value::None => None,
            Value::Int(_) | Value::Bool(_) => bound.as_int(),
            other => {
                other.defined()?;
                return Err(fail("the bounds of a slice are whole numbers or none"));
            }
        };
    }
    let length = value.length().unwrap_or(0);
    match value {
        Value::Text(text) => {
            run.budget.work(text.len())?;
            let (start, stop, step) = resolved(parts, length)?;
            if step == 1 {
                let [skipped, taken] = [start, stop - start].map(|count| usize::try_from(count).unwrap_or(0));
                return run.text(text.chars().skip(skipped).take(taken).collect());
            }
            let characters: Vec<char> = text.chars().collect();
            run.text(places(parts, length)?.map(|at| characters[at]).collect::<String>())
        }
        Value::List(items) => run.list(places(parts, length)?.map(|at| items.values[at].clone()).collect()),
        Value::Tuple(items) => run.tuple(places(parts, length)?.map(|at| items.values[at].clone()).collect()),
        Value::Range(range) => {
            let (start, stop, step) = resolved(parts, length)?;
            let at = |index: i128| range.start + range.step * index;
            Ok(Value::Range(Range { start: at(start), stop: at(stop), step: range.step * step }))
        }
        other => Err(fail(format!("'{}' cannot be sliced", other.type_name()))),
    }
}

fn places(parts: [Option<i128>; 3], length: usize) -> Res<impl Iterator<Item = usize>> {
    let (start, stop, step) = resolved(parts, length)?;
    let count = Range { start, stop, step }.len();
    Ok((0..count).filter_map(move |index| usize::try_from(start + step * index as i128).ok()))
}

/// Start, stop and step within a length, as `slice.indices` gives them.
fn resolved([start, stop, step]: [Option<i128>; 3], length: usize) -> Res<(i128, i128, i128)> {
    let length = length as i128;
    let step = step.unwrap_or(1).clamp(-(1 << 62), 1 << 62);
    if step == 0 {
        return Err(fail("the step of a slice is zero"));
    }
    let (lowest, highest) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let bound = |given: Option<i128>, otherwise: i128| match given {
        None => otherwise,
        Some(at) if at < 0 => at.saturating_add(length).max(lowest),
        Some(at) => at.min(highest),
    };
    let (first, last) = if step < 0 { (highest, lowest) } else { (lowest, highest) };
    Ok((bound(start, first), bound(stop, last), step))
}
