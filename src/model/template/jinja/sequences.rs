//! Filters over sequences.

use std::cmp::Ordering;
use std::rc::Rc;

use super::error::{Res, fail};
use super::macros::Arguments;
use super::run::Run;
use super::value::{Items, Key, Value, depth_of};
use super::{checks, filters, letters, methods, ops, print};

/// A value through a filter.
///
/// # Errors
/// If there is no such filter, and what Python fails with.
pub(super) fn apply(run: &Run, name: &str, value: &Value, arguments: Arguments) -> Res<Value> {
    match name {
        "list" => {
            let [] = arguments.bind(name, [], 0)?;
            run.list(run.iterated(value)?)
        }
        "first" | "last" => {
            let [] = arguments.bind(name, [], 0)?;
            end(run, name, value)
        }
        "join" => join(run, value, arguments),
        "reverse" => {
            let [] = arguments.bind(name, [], 0)?;
            match value {
                Value::Text(text) => run.text(text.chars().rev().collect()),
                other => run.stream(run.iterated(other)?.into_iter().rev().collect()),
            }
        }
        "sort" => {
            let [reverse, exact, attribute] = arguments.bind(name, ["reverse", "case_sensitive", "attribute"], 0)?;
            let keys = Keys::many(attribute, exact)?;
            let values = sorted(run, run.iterated(value)?, &keys, is_true(reverse))?;
            run.list(values)
        }
        "dictsort" => dict_sort(run, value, arguments),
        "unique" => unique(run, value, arguments),
        "min" | "max" => {
            let [exact, attribute] = arguments.bind(name, ["case_sensitive", "attribute"], 0)?;
            extreme(run, name, value, &Keys::one(attribute, exact)?)
        }
        "sum" => sum(run, value, arguments),
        "batch" => {
            let [count, fill] = arguments.bind(name, ["linecount", "fill_with"], 1)?;
            run.lazy(|rows| batch(run, value, count, fill, rows))
        }
        "slice" => {
            let [count, fill] = arguments.bind(name, ["slices", "fill_with"], 1)?;
            run.lazy(|columns| slice(run, value, count, fill, columns))
        }
        "groupby" => group_by(run, value, arguments),
        // Jinja reads nothing of a value that is false, be it none or a number.
        "map" | "select" | "reject" | "selectattr" | "rejectattr" if !value.is_true() => run.stream(Vec::new()),
        "map" => run.lazy(|mapped| map(run, value, arguments, mapped)),
        "select" | "reject" | "selectattr" | "rejectattr" => run.lazy(|kept| select(run, name, value, arguments, kept)),
        _ => Err(fail(format!("there is no filter `{name}`"))),
    }
}

fn is_true(flag: Option<Value>) -> bool {
    flag.is_some_and(|flag| flag.is_true())
}

fn end(run: &Run, name: &str, value: &Value) -> Res<Value> {
    if name == "last" && matches!(value, Value::Stream(..)) {
        return Err(fail("'generator' object is not reversible"));
    }
    if let Value::Stream(stream) = value
        && let Some(first) = stream.values.borrow_mut().pop_front()
    {
        return Ok(first);
    }
    let values = run.iterated(value)?;
    let found = if name == "first" { values.first() } else { values.last() };
    Ok(found.cloned().unwrap_or_else(|| Value::undefined(format!("No {name} item, sequence was empty."))))
}

fn join(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [between, attribute] = arguments.bind("join", ["d", "attribute"], 0)?;
    let between = print::text_of(run, &between.unwrap_or_else(|| Value::text("")))?;
    let keys = Keys::one(attribute, Some(Value::Bool(true)))?;
    let mut out = String::new();
    for (index, item) in run.iterated(value)?.into_iter().enumerate() {
        if index > 0 {
            out.push_str(&between);
        }
        let text = print::text_of(run, &keys.of(run, &item)?)?;
        run.budget.reserve(out.len() + between.len() + text.len())?;
        out.push_str(&text);
    }
    run.text(out)
}

/// By what elements are ordered, grouped or told apart.
struct Keys {
    /// Attributes of attributes, for each key.
    paths: Vec<Vec<Value>>,
    /// Whether several keys make one, as a list.
    many: bool,
    case_sensitive: bool,
}

impl Keys {
    fn one(attribute: Option<Value>, case_sensitive: Option<Value>) -> Res<Self> {
        Ok(Self { paths: vec![path(attribute)?], many: false, case_sensitive: is_true(case_sensitive) })
    }

    fn many(attribute: Option<Value>, case_sensitive: Option<Value>) -> Res<Self> {
        let paths = match attribute {
            Some(Value::Text(names)) => {
                names.split(',').map(|name| path(Some(Value::text(name)))).collect::<Res<_>>()?
            }
            other => vec![path(other)?],
        };
        Ok(Self { paths, many: true, case_sensitive: is_true(case_sensitive) })
    }

    fn of(&self, run: &Run, item: &Value) -> Res<Value> {
        let mut keys = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            let mut key = item.clone();
            for part in path {
                key = methods::item(run, &key, part)?;
            }
            keys.push(if self.case_sensitive { key } else { without_case(key) });
        }
        if self.many { run.list(keys) } else { Ok(keys.pop().unwrap_or(Value::None)) }
    }
}

fn without_case(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::text(text.to_lowercase()),
        other => other,
    }
}

/// `a.0.b` as its parts.
fn path(attribute: Option<Value>) -> Res<Vec<Value>> {
    match attribute {
        None | Some(Value::None) => Ok(Vec::new()),
        Some(Value::Text(names)) => {
            let part = |name: &str| match letters::asked(name, "isdigit") {
                Some(true) => name.parse().map(Value::Int).map_err(|_| fail("an index is too large")),
                _ => Ok(Value::text(name)),
            };
            names.split('.').map(part).collect()
        }
        Some(other) => Ok(vec![other]),
    }
}

/// The values by their keys; those of equal keys stay in their order.
fn sorted(run: &Run, values: Vec<Value>, keys: &Keys, reverse: bool) -> Res<Vec<Value>> {
    let mut keyed = Vec::with_capacity(values.len());
    for value in values {
        keyed.push((keys.of(run, &value)?, value));
    }
    let mut failed = None;
    keyed.sort_by(|(a, _), (b, _)| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        let order = ops::order(run, a, b).unwrap_or_else(|error| {
            failed = Some(error);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, value)| value).collect()),
    }
}

fn dict_sort(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [exact, by, reverse] = arguments.bind("dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let by = by.unwrap_or_else(|| Value::text("key"));
    let place = match by.as_text() {
        Some("key") => 0,
        Some("value") => 1,
        _ => return Err(fail("a dictionary is sorted by `key` or by `value`")),
    };
    value.defined()?;
    let Value::Dict(dict) = value else { return Err(fail(format!("'{}' is no dictionary", value.type_name()))) };
    let keys = Keys { paths: vec![vec![Value::Int(place)]], many: false, case_sensitive: is_true(exact) };
    let entries = run.viewed(super::value::View::Entries, dict)?;
    run.list(sorted(run, entries, &keys, is_true(reverse))?)
}

fn unique(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [exact, attribute] = arguments.bind("unique", ["case_sensitive", "attribute"], 0)?;
    let keys = Keys::one(attribute, exact)?;
    run.lazy(|kept| {
        let mut seen = std::collections::HashSet::new();
        for item in run.iterated(value)? {
            if seen.insert(Key::of(&keys.of(run, &item)?)?) {
                kept.push(item);
            }
        }
        Ok(())
    })
}

fn extreme(run: &Run, name: &str, value: &Value, keys: &Keys) -> Res<Value> {
    let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
    let mut best: Option<(Value, Value)> = None;
    for item in run.iterated(value)? {
        let key = keys.of(run, &item)?;
        let better = match &best {
            None => true,
            Some((best, _)) => ops::order(run, &key, best)? == Some(wanted),
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, item)| item))
}

fn sum(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [attribute, start] = arguments.bind("sum", ["attribute", "start"], 0)?;
    let keys = Keys::one(attribute, Some(Value::Bool(true)))?;
    let mut total = start.unwrap_or(Value::Int(0));
    if total.as_text().is_some() {
        return Err(fail("strings are joined, not summed"));
    }
    for item in run.iterated(value)? {
        total = ops::binary(run, "+", &total, &keys.of(run, &item)?)?;
    }
    Ok(total)
}

fn whole(count: Option<Value>) -> Res<i128> {
    let count = count.unwrap_or(Value::None);
    count.defined()?;
    count.as_int().ok_or_else(|| fail("the number of pieces is a whole number"))
}

fn batch(run: &Run, value: &Value, count: Option<Value>, fill: Option<Value>, rows: &mut Vec<Value>) -> Res<()> {
    let count = whole(count)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let values = run.iterated(value)?;
    if count == 0 && !values.is_empty() {
        // Jinja ends the first row before it has anything, and none after it.
        rows.push(run.list(Vec::new())?);
    }
    let width = usize::try_from(count).unwrap_or(0);
    run.budget.reserve_items(width)?;
    for row in values.chunks(if width == 0 { values.len().max(1) } else { width }) {
        let mut row = row.to_vec();
        if let Some(fill) = &fill {
            row.resize(row.len().max(width), fill.clone());
        }
        rows.push(run.list(row)?);
    }
    Ok(())
}

fn slice(run: &Run, value: &Value, count: Option<Value>, fill: Option<Value>, columns: &mut Vec<Value>) -> Res<()> {
    let count = whole(count)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let values = run.iterated(value)?;
    if count == 0 {
        return Err(fail("integer division or modulo by zero"));
    }
    let count = usize::try_from(count).unwrap_or(0);
    run.budget.reserve_items(count)?;
    let (each, longer) = (values.len() / count.max(1), values.len() % count.max(1));
    let mut start = 0;
    for column in 0..count {
        let end = start + each + usize::from(column < longer);
        let mut part = values[start..end].to_vec();
        if column >= longer {
            part.extend(fill.clone());
        }
        columns.push(run.list(part)?);
        start = end;
    }
    Ok(())
}

fn group_by(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let [attribute, default, exact] = arguments.bind("groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let keys = Keys::one(attribute.clone(), exact)?;
    let shown = Keys::one(attribute, Some(Value::Bool(true)))?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let given = |keys: &Keys, item: &Value| -> Res<Value> {
        let key = keys.of(run, item)?;
        let key = match (&key, &default) {
            (Value::Undefined(_), Some(default)) => default.clone(),
            _ => key,
        };
        Ok(if keys.case_sensitive { key } else { without_case(key) })
    };
    let mut pairs = Vec::new();
    for item in run.iterated(value)? {
        pairs.push(run.tuple(vec![given(&keys, &item)?, item])?);
    }
    let first = Keys { paths: vec![vec![Value::Int(0)]], many: false, case_sensitive: true };
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for pair in sorted(run, pairs, &first, false)? {
        let (key, item) = (methods::item(run, &pair, &Value::Int(0))?, methods::item(run, &pair, &Value::Int(1))?);
        match groups.last_mut() {
            Some((last, items)) if ops::equal(run, last, &key)? => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut tuples = Vec::new();
    for (_, items) in groups {
        // The group's name is that of its first element, its case kept.
        let name = items.first().map_or(Ok(Value::None), |item| given(&shown, item))?;
        let values = vec![name, run.list(items)?];
        let depth = depth_of(&values)?;
        tuples.push(Value::Tuple(Rc::new(Items { values, depth, group: true })));
    }
    run.list(tuples)
}

fn map(run: &Run, value: &Value, mut arguments: Arguments, mapped: &mut Vec<Value>) -> Res<()> {
    if arguments.positional.is_empty() {
        let [attribute, default] = arguments.bind("map", ["attribute", "default"], 1)?;
        let keys = Keys::one(attribute, Some(Value::Bool(true)))?;
        let default = default.filter(|default| !matches!(default, Value::None));
        for item in run.iterated(value)? {
            mapped.push(match (keys.of(run, &item)?, &default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                (found, _) => found,
            });
        }
        return Ok(());
    }
    let filter = arguments.positional.remove(0);
    let filter = filter.as_text().ok_or_else(|| fail("`map` takes the name of a filter"))?;
    for item in run.iterated(value)? {
        mapped.push(filters::apply(run, filter, item, arguments.clone())?);
    }
    Ok(())
}

fn select(run: &Run, name: &str, value: &Value, mut arguments: Arguments, kept: &mut Vec<Value>) -> Res<()> {
    let mut keys = Keys::one(None, Some(Value::Bool(true)))?;
    if name.ends_with("attr") {
        if arguments.positional.is_empty() {
            return Err(fail(format!("`{name}` needs the name of an attribute")));
        }
        keys = Keys::one(Some(arguments.positional.remove(0)), Some(Value::Bool(true)))?;
    }
    let test = if arguments.positional.is_empty() { None } else { Some(arguments.positional.remove(0)) };
    for item in run.iterated(value)? {
        let asked = keys.of(run, &item)?;
        let holds = match &test {
            None => asked.is_true(),
            Some(test) => {
                let test = test.as_text().ok_or_else(|| fail("the name of a test is a string"))?;
                checks::holds(run, test, &asked, arguments.clone())?
            }
        };
        if holds == name.starts_with("select") {
            kept.push(item);
        }
    }
    Ok(())
}
