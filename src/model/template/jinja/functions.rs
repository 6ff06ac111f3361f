//! The functions that every template can call.

use std::cell::Cell;
use std::rc::Rc;

use super::error::{Error, ErrorKind, Res, fail};
use super::macros::Arguments;
use super::print;
use super::run::Run;
use super::value::{Cycler, Dict, Function, Range, Value, depth_of};

/// The longest range, as Jinja's sandbox has it.
const LONGEST_RANGE: usize = 100_000;

pub(super) fn call(run: &Run, function: Function, arguments: Arguments) -> Res<Value> {
    match function {
        Function::Cycler => {
            if arguments.positional.is_empty() || !arguments.named.is_empty() {
                return Err(fail("a cycler needs items"));
            }
            let (values, at) = (arguments.positional, Cell::new(0));
            let depth = depth_of(&values)?;
            Ok(Value::Cycler(Rc::new(Cycler { values, at, depth })))
        }
        Function::Joiner => {
            let [between] = arguments.bind("joiner", ["sep"], 0)?;
            let between = between.unwrap_or_else(|| Value::text(", "));
            depth_of(std::slice::from_ref(&between))?;
            Ok(Value::Joiner(Rc::new((between, Cell::new(false)))))
        }
        Function::Range => range(arguments),
        Function::Dict => {
            let dict = dict(run, arguments)?;
            run.budget.items(2 * dict.entries.len())?;
            Ok(Value::Dict(Rc::new(dict)))
        }
        Function::Namespace => run.namespace(dict(run, arguments)?),
        Function::RaiseException => {
            let [message] = arguments.bind("raise_exception", ["message"], 1)?;
            let message = print::text_of(run, &message.unwrap_or(Value::None))?;
            Err(Error { line: 0, kind: ErrorKind::Raised(message) })
        }
        Function::StrftimeNow => {
            let [format] = arguments.bind("strftime_now", ["format"], 1)?;
            let format = format.unwrap_or(Value::None);
            let format = format.as_text().ok_or_else(|| fail("`strftime_now` takes a string"))?;
            run.budget.reserve(format.len().saturating_mul(16))?;
            run.text(run.day.format(format))
        }
    }
}

fn range(arguments: Arguments) -> Res<Value> {
    let bounds: [Option<Value>; 3] = arguments.bare("range", 1)?;
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(&bounds) {
        if let Some(bound) = bound {
            bound.defined()?;
            let whole = bound.as_int().filter(|number| number.unsigned_abs() < 1 << 100);
            *number = Some(whole.ok_or_else(|| fail("the bounds of a range are whole numbers"))?);
        }
    }
    let (start, stop) = match numbers {
        [Some(stop), None, _] => (0, stop),
        [start, stop, _] => (start.unwrap_or(0), stop.unwrap_or(0)),
    };
    let step = numbers[2].unwrap_or(1);
    if step == 0 {
        return Err(fail("the step of a range is zero"));
    }
    let range = Range { start, stop, step };
    if range.len() > LONGEST_RANGE {
        return Err(fail(format!("a range has more than {LONGEST_RANGE} numbers")));
    }
    Ok(Value::Range(range))
}

/// `dict(entries, name=value)`.
fn dict(run: &Run, mut arguments: Arguments) -> Res<Dict> {
    let mut dict = Dict::default();
    let named = std::mem::take(&mut arguments.named);
    let [entries] = arguments.bare("dict", 0)?;
    match entries {
        None => {}
        Some(Value::Dict(entries)) => dict = (*entries).clone(),
        Some(other) => {
            for entry in run.iterated(&other)? {
                match &run.iterated(&entry)?[..] {
                    [key, value] => dict.set(key.clone(), value.clone())?,
                    _ => return Err(fail("the entries of a dictionary are pairs")),
                }
            }
        }
    }
    for (name, value) in named {
        dict.set(Value::Text(name), value)?;
    }
    Ok(dict)
}
