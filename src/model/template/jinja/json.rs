//! `tojson`: Python's `json.dumps`, as `transformers` calls it.

use super::error::{Res, fail};
use super::filters::WIDEST_INDENT;
use super::macros::Arguments;
use super::run::Run;
use super::value::Value;
use super::{ops, print};

struct Writer<'r> {
    run: &'r Run,
    ascii: bool,
    indent: Option<String>,
    between: String,
    behind_key: String,
    sort: bool,
    out: String,
}

/// A value as JSON. Characters beyond ASCII stay as they are unless `ensure_ascii` is asked for, and nothing is escaped for
/// HTML.
///
/// # Errors
/// For a value that JSON has not, and if the text is too long.
pub(super) fn to_json(run: &Run, value: &Value, arguments: Arguments) -> Res<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort] = arguments.bind("tojson", names, 0)?;
    let is_true = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let indent = margin(indent)?;
    let mut between = if indent.is_some() { "," } else { ", " }.to_owned();
    let mut behind_key = ": ".to_owned();
    match separators {
        None | Some(Value::None) => {}
        Some(given) => {
            let given = run.iterated(&given)?;
            let [Some(first), Some(second)] = [given.first(), given.get(1)].map(|part| part.and_then(Value::as_text))
            else {
                return Err(fail("the separators of `tojson` are two strings"));
            };
            (between, behind_key) = (first.to_owned(), second.to_owned());
        }
    }
    let mut writer =
        Writer { run, ascii: is_true(ascii), indent, between, behind_key, sort: is_true(sort), out: String::new() };
    writer.value(value, 0)?;
    run.text(writer.out)
}

fn margin(indent: Option<Value>) -> Res<Option<String>> {
    let margin = match indent {
        None | Some(Value::None) => return Ok(None),
        Some(Value::Text(margin)) => margin.to_string(),
        Some(width) => {
            let width =
                width.as_int().ok_or_else(|| fail("the indentation of `tojson` is a whole number or a string"))?;
            " ".repeat(usize::try_from(width.max(0)).unwrap_or(usize::MAX).min(WIDEST_INDENT + 1))
        }
    };
    if margin.len() > WIDEST_INDENT { Err(fail("the indentation is too wide")) } else { Ok(Some(margin)) }
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Res<()> {
        self.run.budget.step()?;
        self.run.budget.reserve(self.out.len())?;
        match value {
            Value::None => self.out.push_str("null"),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Int(number) => self.out.push_str(&number.to_string()),
            Value::Float(number) => self.out.push_str(&float(*number)),
            Value::Text(text) => self.text(text),
            Value::List(items) | Value::Tuple(items) => {
                let entries = items.values.iter().map(|value| (None, value));
                self.container(entries.collect(), ['[', ']'], depth)?;
            }
            Value::Dict(dict) => {
                let mut entries: Vec<_> = dict.entries.iter().map(|(key, value)| (Some(key), value)).collect();
                if self.sort {
                    self.sort(&mut entries)?;
                }
                self.container(entries, ['{', '}'], depth)?;
            }
            other => {
                return Err(fail(format!("object of type {} is not JSON serializable", other.type_name())));
            }
        }
        Ok(())
    }

    fn sort(&self, entries: &mut [(Option<&Value>, &Value)]) -> Res<()> {
        let mut failed = None;
        entries.sort_by(|(a, _), (b, _)| {
            match (a, b) {
                (Some(a), Some(b)) => ops::order(self.run, a, b).unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                }),
                _ => None,
            }
            .unwrap_or(std::cmp::Ordering::Equal)
        });
        failed.map_or(Ok(()), Err)
    }

    fn container(&mut self, entries: Vec<(Option<&Value>, &Value)>, [open, close]: [char; 2], depth: usize) -> Res<()> {
        self.out.push(open);
        let empty = entries.is_empty();
        for (index, (key, value)) in entries.into_iter().enumerate() {
            if index > 0 {
                let between = self.between.clone();
                self.out.push_str(&between);
            }
            self.line(depth + 1)?;
            if let Some(key) = key {
                self.key(key)?;
            }
            self.value(value, depth + 1)?;
        }
        if !empty {
            self.line(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Res<()> {
        if let Some(margin) = &self.indent {
            self.run.budget.reserve(self.out.len() + margin.len() * depth)?;
            self.out.push('\n');
            self.out.push_str(&margin.repeat(depth));
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Res<()> {
        match key {
            Value::Text(text) => self.text(text),
            Value::None => self.text("null"),
            Value::Bool(value) => self.text(if *value { "true" } else { "false" }),
            Value::Int(number) => self.text(&number.to_string()),
            Value::Float(number) => self.text(&float(*number)),
            other => return Err(fail(format!("keys of JSON are strings, not {}", other.type_name()))),
        }
        let behind_key = self.behind_key.clone();
        self.out.push_str(&behind_key);
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || self.ascii && (c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn float(number: f64) -> String {
    match print::float(number).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        plain => plain.to_owned(),
    }
}
