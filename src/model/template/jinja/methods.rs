//! Attributes, items and methods of values, as far as Jinja's immutable sandbox allows them.

use std::rc::Rc;
use std::sync::Arc;

use super::error::{Res, fail};
use super::functions;
use super::macros::Arguments;
use super::ops;
use super::run::Run;
use super::strings;
use super::value::{Dict, Function, Key, Value, View};

const OF_LISTS: [&str; 3] = ["copy", "count", "index"];
const OF_DICTS: [&str; 6] = ["copy", "get", "items", "keys", "values", "fromkeys"];
const OF_LOOPS: [&str; 2] = ["changed", "cycle"];
/// Methods that change what they are called on, which the sandbox does not give away.
const OF_LISTS_UNSAFE: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const OF_DICTS_UNSAFE: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// What Python's `getattr` finds.
enum Found {
    Value(Value),
    Unsafe,
    Nothing,
}

fn found(run: &Run, value: &Value, name: &str) -> Found {
    let method = || Found::Value(Value::Method(Rc::new((value.clone(), Arc::from(name)))));
    if name.starts_with("__") && name.ends_with("__") {
        return Found::Unsafe;
    }
    match value {
        Value::Text(_) if strings::METHODS.contains(&name) => method(),
        Value::List(_) if OF_LISTS.contains(&name) => method(),
        Value::Tuple(items) if items.group && name == "grouper" => {
            items.values.first().cloned().map_or(Found::Nothing, Found::Value)
        }
        Value::Tuple(items) if items.group && name == "list" => {
            items.values.get(1).cloned().map_or(Found::Nothing, Found::Value)
        }
        Value::Tuple(_) | Value::Range(_) if ["count", "index"].contains(&name) => method(),
        Value::Range(range) => match name {
            "start" => Found::Value(Value::Int(range.start)),
            "stop" => Found::Value(Value::Int(range.stop)),
            "step" => Found::Value(Value::Int(range.step)),
            _ => Found::Nothing,
        },
        Value::Dict(_) if OF_DICTS.contains(&name) => method(),
        Value::List(_) if OF_LISTS_UNSAFE.contains(&name) => Found::Unsafe,
        Value::Dict(_) if OF_DICTS_UNSAFE.contains(&name) => Found::Unsafe,
        Value::Float(_) | Value::Int(_) | Value::Bool(_) => of_number(value, name, method),
        Value::Namespace(place) => {
            let namespaces = run.namespaces.borrow();
            let value = namespaces.get(*place).and_then(|dict| dict.get_text(name)).cloned();
            value.map_or(Found::Nothing, Found::Value)
        }
        Value::Loop(_) if OF_LOOPS.contains(&name) => method(),
        Value::Loop(state) => state.attribute(name).map_or(Found::Nothing, Found::Value),
        Value::Macro(called) => match name {
            "name" => Found::Value(Value::Text(called.of.name.clone())),
            "catch_kwargs" => Found::Value(Value::Bool(called.of.uses_kwargs)),
            "catch_varargs" => Found::Value(Value::Bool(called.of.uses_varargs)),
            "caller" => Found::Value(Value::Bool(called.of.uses_caller)),
            _ => Found::Nothing,
        },
        Value::Function(Function::Dict) if name == "fromkeys" => method(),
        Value::Cycler(cycler) if name == "current" => {
            cycler.values.get(cycler.at.get()).cloned().map_or(Found::Nothing, Found::Value)
        }
        Value::Cycler(_) if ["next", "reset"].contains(&name) => method(),
        _ => Found::Nothing,
    }
}

fn of_number(value: &Value, name: &str, method: impl Fn() -> Found) -> Found {
    let int = value.as_int();
    match name {
        "real" => Found::Value(int.map_or(value.clone(), Value::Int)),
        "imag" => Found::Value(if int.is_some() { Value::Int(0) } else { Value::Float(0.0) }),
        "numerator" if int.is_some() => Found::Value(int.map_or(Value::None, Value::Int)),
        "denominator" if int.is_some() => Found::Value(Value::Int(1)),
        "is_integer" if int.is_none() => method(),
        "bit_length" | "bit_count" if int.is_some() => method(),
        "conjugate" => method(),
        _ => Found::Nothing,
    }
}

fn unsafe_undefined(value: &Value, name: &str) -> Value {
    Value::undefined(format!("access to attribute '{name}' of '{}' object is unsafe", value.type_name()))
}

/// `value.name`: a method before an entry.
///
/// # Errors
/// For an undefined value.
pub(super) fn attribute(run: &Run, value: &Value, name: &str) -> Res<Value> {
    value.defined()?;
    match found(run, value, name) {
        Found::Value(value) => return Ok(value),
        Found::Unsafe => return Ok(unsafe_undefined(value, name)),
        Found::Nothing => {}
    }
    let entry = match value {
        Value::Dict(dict) => dict.get_text(name).cloned(),
        _ => None,
    };
    Ok(entry.unwrap_or_else(|| Value::undefined(format!("'{} object' has no attribute '{name}'", value.type_name()))))
}

/// `value[key]`: an entry before a method.
///
/// # Errors
/// For an undefined value.
pub(super) fn item(run: &Run, value: &Value, key: &Value) -> Res<Value> {
    value.defined()?;
    let index = |length: usize| {
        let index = key.as_int()?;
        let from_end = if index < 0 { index + length as i128 } else { index };
        usize::try_from(from_end).ok().filter(|at| *at < length)
    };
    let entry = match value {
        Value::Text(text) => {
            run.budget.work(text.len())?;
            let length = value.length().unwrap_or(0);
            index(length).and_then(|at| text.chars().nth(at)).map(|character| Value::text(character.to_string()))
        }
        Value::List(items) | Value::Tuple(items) => index(items.values.len()).map(|at| items.values[at].clone()),
        Value::Range(range) => index(range.len()).map(|at| Value::Int(range.get(at))),
        Value::Dict(dict) => Key::of(key).ok().and_then(|key| dict.get(&key)).cloned(),
        _ => None,
    };
    if let Some(entry) = entry {
        return Ok(entry);
    }
    let Some(name) = key.as_text() else {
        return Ok(Value::undefined(format!("'{} object' has no such element", value.type_name())));
    };
    Ok(match found(run, value, name) {
        Found::Value(value) => value,
        Found::Unsafe => unsafe_undefined(value, name),
        Found::Nothing => Value::undefined(format!("'{} object' has no attribute '{name}'", value.type_name())),
    })
}

/// Calls a method.
///
/// # Errors
/// What Python fails with.
pub(super) fn call(run: &Run, value: &Value, name: &str, arguments: Arguments) -> Res<Value> {
    match value {
        Value::Text(text) => {
            run.budget.work(text.len())?;
            strings::call(run, text, name, arguments)
        }
        Value::Dict(dict) => of_dict(run, dict, name, arguments),
        Value::Function(Function::Dict) => from_keys(run, arguments),
        Value::List(_) if name == "copy" => {
            let [] = arguments.bare("copy", 0)?;
            run.list(run.iterated(value)?)
        }
        Value::List(_) | Value::Tuple(_) | Value::Range(_) => of_sequence(run, value, name, arguments),
        Value::Loop(state) if name == "changed" => Ok(Value::Bool(state.changed(run, arguments.positional)?)),
        Value::Loop(state) => {
            let values = arguments.positional;
            let at = state.index0().checked_rem(values.len()).ok_or_else(|| fail("no items for cycling given"))?;
            Ok(values[at].clone())
        }
        Value::Cycler(cycler) => {
            let [] = arguments.bare(name, 0)?;
            let at = if name == "next" { cycler.at.get() } else { 0 };
            cycler.at.set(if name == "next" { (at + 1) % cycler.values.len() } else { 0 });
            Ok(if name == "next" { cycler.values[at].clone() } else { Value::None })
        }
        other => {
            let [] = arguments.bare(name, 0)?;
            number_method(other, name)
        }
    }
}

fn number_method(value: &Value, name: &str) -> Res<Value> {
    Ok(match (name, value.as_int(), value.as_float()) {
        ("is_integer", None, Some(number)) => Value::Bool(number.fract() == 0.0),
        ("bit_length", Some(number), _) => Value::Int((128 - number.unsigned_abs().leading_zeros()).into()),
        ("bit_count", Some(number), _) => Value::Int(number.unsigned_abs().count_ones().into()),
        ("conjugate", Some(number), _) => Value::Int(number),
        ("conjugate", None, Some(number)) => Value::Float(number),
        _ => return Err(fail(format!("'{}' object has no method '{name}'", value.type_name()))),
    })
}

fn of_dict(run: &Run, dict: &Rc<Dict>, name: &str, arguments: Arguments) -> Res<Value> {
    if let Some((_, view)) = View::NAMED.iter().find(|(known, _)| *known == name) {
        let [] = arguments.bare(name, 0)?;
        return Ok(Value::View(*view, dict.clone()));
    }
    match name {
        "copy" => {
            let [] = arguments.bare(name, 0)?;
            run.budget.items(2 * dict.entries.len())?;
            Ok(Value::Dict(Rc::new((**dict).clone())))
        }
        "fromkeys" => from_keys(run, arguments),
        _ => {
            let [key, default] = arguments.bare(name, 1)?;
            let found = run.entry(dict, &key.unwrap_or(Value::None))?;
            Ok(found.or(default).unwrap_or(Value::None))
        }
    }
}

fn from_keys(run: &Run, arguments: Arguments) -> Res<Value> {
    let [keys, value] = arguments.bare("fromkeys", 1)?;
    let pairs = run.iterated(&keys.unwrap_or(Value::None))?.into_iter();
    let value = value.unwrap_or(Value::None);
    let pairs = pairs.map(|key| run.tuple(vec![key, value.clone()])).collect::<Res<_>>()?;
    functions::call(run, Function::Dict, Arguments::of(vec![run.list(pairs)?]))
}

fn of_sequence(run: &Run, value: &Value, name: &str, arguments: Arguments) -> Res<Value> {
    let [wanted, start, stop] = arguments.bare(name, 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let items = run.iterated(value)?;
    if name == "count" {
        let mut count = 0;
        for item in &items {
            count += i128::from(ops::equal(run, item, &wanted)?);
        }
        return Ok(Value::Int(count));
    }
    let length = items.len();
    let (start, stop) = (bound(start, 0, length)?, bound(stop, length, length)?);
    for (at, item) in items.iter().enumerate().take(stop).skip(start) {
        if ops::equal(run, item, &wanted)? {
            return Ok(Value::Int(at as i128));
        }
    }
    Err(fail("the value is not in the sequence"))
}

/// A bound within a length: none is `otherwise`, a negative one counts from the end.
///
/// # Errors
/// For what is no whole number.
pub(super) fn bound(given: Option<Value>, otherwise: usize, length: usize) -> Res<usize> {
    match given {
        None | Some(Value::None) => Ok(otherwise),
        Some(value) => {
            let at = value.as_int().ok_or_else(|| fail("the bounds are whole numbers"))?;
            let at = if at < 0 { at.saturating_add(length as i128).max(0) } else { at };
            Ok(usize::try_from(at).unwrap_or(usize::MAX))
        }
    }
}
