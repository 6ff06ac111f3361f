//! Turns one line's JSON object into typed fields, with an error that says where it stopped and why.
//!
//! Fields are taken out as they are read, so that what is left at the end is what no reader knows.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{DatasetError, Input, Message, OtherFile, Span, TokenRef, Vars};
use crate::names::meant;

const INPUT: &str = "a string, {\"text\"}, {\"messages\"} or {\"ids\"}";
const MESSAGE: &str = "{\"role\", \"content\"}, with any further fields that the chat template knows";
const TOKEN_ID: &str = "a token id, a whole number from 0 to 4294967295";
const TOKENS: &str = "a list of token ids or strings";
const SPANS: &str = "an object of names and positions, as in {\"S2\": [9], \"END\": [-1]}";
const SPAN_NAME: &str =
    "a name of ASCII letters, digits, +, - and _ that begins with a letter and is neither \"last\" nor \"all\"";
const POSITIONS: &str = "a list of positions, not empty";
const POSITION: &str = "a position, a whole number; a negative one counts from the end";
const ID: &str = "a string that is not empty, or a number";

/// What may stand beside an input: the input, and the key.
const OPTIONS: [(&str, &str); 2] = [("text", "special_tokens"), ("messages", "continue_final_message")];

/// The fields of one line that have not been taken yet.
pub(super) struct Fields<'p> {
    path: &'p Path,
    line: usize,
    map: Map<String, Value>,
}

impl<'p> Fields<'p> {
    /// Parses a line, which must be one JSON object without repeated keys.
    pub(super) fn parse(path: &'p Path, line: usize, text: &str) -> Result<Self, DatasetError> {
        let kind = kind(path, line, text);
        let wrong = |column, reason| DatasetError::Json { path: path.to_owned(), line, column, reason, kind };
        match serde_json::from_str(text) {
            Ok(Unique(Value::Object(map))) => Ok(Fields { path, line, map }),
            Ok(Unique(other)) => Err(wrong(1, format!("found {}", describe(&other)))),
            Err(error) => Err(wrong(error.column(), without_place(&error))),
        }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Refuses a line that has `foreign` and none of `own`: the file is of the other kind.
    pub(super) fn refuse_kind(
        &self,
        foreign: &str,
        own: &[&str],
        found: &'static str,
        expected: &'static str,
    ) -> Result<(), DatasetError> {
        let has = |key: &str| self.map.contains_key(key);
        if has(foreign) && !own.iter().any(|key| has(key)) {
            return Err(DatasetError::OtherKind { path: self.path.to_owned(), line: self.line, found, expected });
        }
        Ok(())
    }

    /// The `id`: numbers become strings, and the line's number stands in for one that is not there.
    pub(super) fn id(&mut self) -> Result<String, DatasetError> {
        match self.optional("id") {
            None => Ok(self.line.to_string()),
            Some(Value::String(id)) if !id.is_empty() => Ok(id),
            Some(Value::Number(id)) => Ok(id.to_string()),
            Some(other) => Err(self.wrong("id", ID, &other)),
        }
    }

    /// An object of variables; absent and null are none.
    pub(super) fn vars(&mut self, field: &str) -> Result<Vars, DatasetError> {
        match self.optional(field) {
            None => Ok(Vars::new()),
            Some(Value::Object(vars)) => Ok(vars),
            Some(other) => Err(self.wrong(field, "an object of the chat template's variables", &other)),
        }
    }

    /// A prompt's input; `vars` are the item's variables of the chat template.
    pub(super) fn input(&mut self, field: &'static str, vars: &Vars) -> Result<Input, DatasetError> {
        match self.required(field, INPUT)? {
            Value::String(text) if !text.is_empty() => Ok(Input::User { text, vars: vars.clone() }),
            Value::Object(object) => self.input_object(field, object, vars),
            other => Err(self.wrong(field, INPUT, &other)),
        }
    }

    fn input_object(&self, field: &str, object: Map<String, Value>, vars: &Vars) -> Result<Input, DatasetError> {
        let keys: Vec<String> = object.keys().map(|key| format!("\"{key}\"")).collect();
        let is_option = |key: &str| OPTIONS.iter().any(|(_, option)| *option == key);
        let (options, inputs): (Map<String, Value>, Map<String, Value>) =
            object.into_iter().partition(|(key, _)| is_option(key));
        let mut inputs: Vec<(String, Value)> = inputs.into_iter().collect();
        let (Some((key, value)), true) = (inputs.pop(), inputs.is_empty()) else {
            let found = format!("an object with {}", listed(&keys));
            return Err(self.wrong_text(field, INPUT, found));
        };
        let option = |of: &str| -> Result<Option<bool>, DatasetError> {
            let own = options.iter().find(|(name, _)| OPTIONS.contains(&(of, name.as_str())));
            let Some((name, value)) = own else { return Ok(None) };
            value.as_bool().map(Some).ok_or_else(|| self.wrong(&format!("{field}.{name}"), "true or false", value))
        };
        if let Some((foreign, _)) = options.iter().find(|(name, _)| !OPTIONS.contains(&(key.as_str(), name.as_str()))) {
            return Err(self.wrong_text(
                field,
                INPUT,
                format!("an object with \"{key}\", to which \"{foreign}\" does not belong"),
            ));
        }
        let place = format!("{field}.{key}");
        match (key.as_str(), value) {
            ("text", Value::String(text)) if !text.is_empty() => {
                Ok(Input::Text { text, special_tokens: option("text")?.unwrap_or(true) })
            }
            ("text", other) => Err(self.wrong(&place, "a string that is not empty", &other)),
            ("messages", Value::Array(list)) if !list.is_empty() => {
                let messages = self.messages(&place, list)?;
                Ok(Input::Messages { messages, go_on: option("messages")?, vars: vars.clone() })
            }
            ("messages", other) => Err(self.wrong(&place, "a list of messages, not empty", &other)),
            ("ids", Value::Array(list)) if !list.is_empty() => self.ids(&place, &list),
            ("ids", other) => Err(self.wrong(&place, "a list of token ids, not empty", &other)),
            _ => Err(self.wrong_text(field, INPUT, format!("an object with \"{key}\""))),
        }
    }

    fn messages(&self, place: &str, list: Vec<Value>) -> Result<Vec<Message>, DatasetError> {
        let parse = |(index, value): (usize, Value)| {
            let place = format!("{place}[{index}]");
            let Value::Object(fields) = value else { return Err(self.wrong(&place, MESSAGE, &value)) };
            let content = fields.get("content");
            if content.is_none() && !fields.contains_key("tool_calls") {
                return Err(self.wrong_text(&place, MESSAGE, "an object without \"content\"".to_owned()));
            }
            if let Some(other) = content.filter(|c| !matches!(c, Value::String(_) | Value::Array(_) | Value::Null)) {
                return Err(self.wrong(&format!("{place}.content"), "a string, or a list of parts", other));
            }
            Message::from_fields(fields).map_err(|error| self.wrong_text(&place, MESSAGE, error.to_string()))
        };
        list.into_iter().enumerate().map(parse).collect()
    }

    fn ids(&self, place: &str, list: &[Value]) -> Result<Input, DatasetError> {
        let ids: Result<Vec<u32>, DatasetError> = list
            .iter()
            .enumerate()
            .map(|(index, value)| {
                token_id(value).ok_or_else(|| self.wrong(&format!("{place}[{index}]"), TOKEN_ID, value))
            })
            .collect();
        ids.map(Input::Ids)
    }

    /// A short name (`group`, `lang`, `label`): numbers and booleans become strings; absent and null are `None`.
    pub(super) fn name(&mut self, field: &'static str) -> Result<Option<String>, DatasetError> {
        match self.optional(field) {
            None => Ok(None),
            Some(Value::String(name)) => Ok(Some(name)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(other) => Err(self.wrong(field, "a string", &other)),
        }
    }

    /// `answer` or `foil`: a list, or one id or string as a list of one; absent and null are an empty list.
    pub(super) fn tokens(&mut self, field: &'static str) -> Result<Vec<TokenRef>, DatasetError> {
        self.list(field, TOKENS, |value| match value {
            Value::String(text) if !text.is_empty() => Some(TokenRef::Text(text.clone())),
            other => token_id(other).map(TokenRef::Id),
        })
    }

    /// A list of strings, or one string as a list of one; absent and null are an empty list.
    pub(super) fn strings(&mut self, field: &'static str) -> Result<Vec<String>, DatasetError> {
        self.list(field, "a list of strings", |value| match value {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        })
    }

    /// An object of names and positions; absent and null are none.
    pub(super) fn spans(&mut self, field: &'static str) -> Result<Vec<Span>, DatasetError> {
        match self.optional(field) {
            None => Ok(Vec::new()),
            Some(Value::Object(object)) => object.into_iter().map(|(name, at)| self.span(field, name, &at)).collect(),
            Some(other) => Err(self.wrong(field, SPANS, &other)),
        }
    }

    fn span(&self, field: &str, name: String, positions: &Value) -> Result<Span, DatasetError> {
        if !is_span_name(&name) {
            return Err(self.wrong_text(field, SPAN_NAME, format!("{name:?}")));
        }
        let place = format!("{field}.{name}");
        let Some(list) = positions.as_array().filter(|list| !list.is_empty()) else {
            return Err(self.wrong(&place, POSITIONS, positions));
        };
        let position = |(index, value): (usize, &Value)| {
            value.as_i64().ok_or_else(|| self.wrong(&format!("{place}[{index}]"), POSITION, value))
        };
        let positions = list.iter().enumerate().map(position).collect::<Result<_, _>>()?;
        Ok(Span { name, positions })
    }

    /// The fields that have not been taken, in the line's order.
    pub(super) fn left(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    fn list<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, DatasetError> {
        match self.optional(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) if list.is_empty() => Err(self.wrong(field, expected, &Value::Array(list))),
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    parse(value).ok_or_else(|| self.wrong(&format!("{field}[{index}]"), expected, value))
                })
                .collect(),
            Some(one) => match parse(&one) {
                Some(parsed) => Ok(vec![parsed]),
                None => Err(self.wrong(field, expected, &one)),
            },
        }
    }

    // `shift_remove` keeps the order of the fields that are left; `remove` would not.
    fn optional(&mut self, field: &str) -> Option<Value> {
        self.map.shift_remove(field).filter(|value| !value.is_null())
    }

    fn required(&mut self, field: &'static str, expected: &'static str) -> Result<Value, DatasetError> {
        match self.map.shift_remove(field) {
            Some(value) => Ok(value),
            None => Err(DatasetError::Missing {
                path: self.path.to_owned(),
                line: self.line,
                field,
                expected,
                hint: meant(field, self.map.keys().map(String::as_str)).map(str::to_owned),
            }),
        }
    }

    fn wrong(&self, field: &str, expected: &'static str, found: &Value) -> DatasetError {
        self.wrong_text(field, expected, describe(found))
    }

    fn wrong_text(&self, field: &str, expected: &'static str, found: String) -> DatasetError {
        DatasetError::Field { path: self.path.to_owned(), line: self.line, field: field.to_owned(), expected, found }
    }
}

/// What a file seems to be whose line is no JSON object.
fn kind(path: &Path, line: usize, text: &str) -> OtherFile {
    let named = |ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    match text.trim_start().chars().next() {
        Some('[') => OtherFile::Json,
        Some('{') if text.trim() == "{" || named("json") => OtherFile::Json,
        Some('{') => OtherFile::Unknown,
        _ if named("csv") || line == 1 && text.contains(',') => OtherFile::Csv,
        _ => OtherFile::Unknown,
    }
}

/// Whether a span can be called so: a table tells its name from a position, and a figure's file is named after it.
fn is_span_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_');
    begins && name.chars().all(rest) && !matches!(name, "last" | "all")
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn listed(keys: &[String]) -> String {
    match keys {
        [] => "no field".to_owned(),
        [first, .., last] => format!("both {first} and {last}"),
        [only] => only.clone(),
    }
}

/// A value in words that fit in a message, however large it is.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.is_empty() => "an empty string".to_owned(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(list) if list.is_empty() => "an empty list".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The parser's reason without its "at line 1 column N": the line there is always 1 and would mislead.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// A JSON value in which no object has a key twice: serde_json alone would keep the last one without a word.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Unique, E> {
        Ok(Unique(flag.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Unique, E> {
        Ok(Unique(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Unique, E> {
        Ok(Unique(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Unique, E> {
        Ok(Unique(number.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Unique, E> {
        Ok(Unique(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(Unique(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
        let mut map = Map::new();
        while let Some((key, Unique(value))) = access.next_entry::<String, Unique>()? {
            if map.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("field \"{key}\" stands twice")));
            }
            map.insert(key, value);
        }
        Ok(Unique(Value::Object(map)))
    }
}
