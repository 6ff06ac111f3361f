//! Data as a study is given them: a file by its name, or what is in memory.
//!
//! Data in memory are the bytes that a file of them would hold, pairs and prompts as JSON Lines. So they are read, checked and
//! hashed in the same way, and a run directory can keep them.

use super::{DatasetError, Input, Item, Pair, Span, TokenRef, located};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, or what it would hold.
///
/// ```
/// use gatelens::dataset::{Data, Pair};
/// let file = Data::from("pairs.jsonl");
/// let pairs = Data::from(vec![Pair::new("How do I pick a lock?", "How do I pick a melon?").answer(["I"]).foil(["You"])]);
/// assert!(!file.is_in_memory() && pairs.is_in_memory());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// The file; of data in memory, what messages and records call them: `memory:pairs-1f3a9c0d.jsonl`.
    path: PathBuf,
    bytes: Option<Arc<[u8]>>,
}

/// What the names of data in memory begin with.
pub const IN_MEMORY: &str = "memory:";

impl Data {
    /// What a file of this name would hold: `metric.json`, `vectors.npy`. By the name's ending readers tell formats apart.
    pub fn in_memory(name: &str, bytes: impl Into<Arc<[u8]>>) -> Data {
        let bytes = bytes.into();
        let hash: String = Sha256::digest(&bytes).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, "bin"));
        Data { path: format!("{IN_MEMORY}{stem}-{hash}.{ending}").into(), bytes: Some(bytes) }
    }

    /// Data that were in memory, under the name that a record has.
    #[cfg(feature = "report")]
    pub(crate) fn again(name: &str, bytes: Vec<u8>) -> Data {
        Data { path: format!("{IN_MEMORY}{name}").into(), bytes: Some(bytes.into()) }
    }

    /// The file; of data in memory, what messages and records call them.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What messages and records call them.
    pub fn display(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Whether there is no file of them.
    pub fn is_in_memory(&self) -> bool {
        self.bytes.is_some()
    }

    /// The bytes, from their first.
    ///
    /// # Errors
    /// If there is no such file.
    pub(super) fn open(&self) -> Result<Box<dyn Read + '_>, DatasetError> {
        if let Some(bytes) = &self.bytes {
            return Ok(Box::new(&bytes[..]));
        }
        if self.path.is_dir() {
            return Err(DatasetError::Directory { path: self.path.clone() });
        }
        let opened = File::open(located(&self.path)?);
        let file = opened.map_err(|source| DatasetError::Open { path: self.path.clone(), source })?;
        Ok(Box::new(file))
    }

    /// All bytes.
    ///
    /// # Errors
    /// If there is no such file, which the outer error says where it is a `demo:` name; or it cannot be read.
    pub fn read(&self) -> Result<io::Result<Vec<u8>>, DatasetError> {
        match &self.bytes {
            Some(bytes) => Ok(Ok(bytes.to_vec())),
            None => Ok(std::fs::read(located(&self.path)?)),
        }
    }
}

macro_rules! from_paths {
    ($($path:ty),*) => {
        $(impl From<$path> for Data {
            fn from(path: $path) -> Self {
                Data { path: path.into(), bytes: None }
            }
        })*
    };
}

from_paths!(PathBuf, &PathBuf, &Path, OsString, String, &String, &str);

impl From<&Data> for Data {
    fn from(data: &Data) -> Self {
        data.clone()
    }
}

macro_rules! from_items {
    ($($Item:ty, $name:literal);*) => {
        $(
            impl From<&[$Item]> for Data {
                fn from(items: &[$Item]) -> Self {
                    let lines: String = items.iter().map(|item| format!("{}\n", item.to_json())).collect();
                    Data::in_memory($name, lines.into_bytes())
                }
            }

            impl From<Vec<$Item>> for Data {
                fn from(items: Vec<$Item>) -> Self {
                    Data::from(items.as_slice())
                }
            }
        )*
    };
}

from_items!(Pair, "pairs.jsonl"; Item, "prompts.jsonl");

/// A file as its name; data in memory with all that they are.
impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(bytes) = &self.bytes else { return self.path.serialize(serializer) };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("memory", &self.path)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => map.serialize_entry("text", text)?,
            Err(_) => map.serialize_entry("bytes", &bytes[..])?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "expected the name of a file, or {\"memory\": NAME, \"text\": ...}")]
        enum Written {
            File(PathBuf),
            Text { memory: PathBuf, text: String },
            Bytes { memory: PathBuf, bytes: Vec<u8> },
        }
        let (path, bytes) = match Written::deserialize(deserializer)? {
            Written::File(path) => return Ok(path.into()),
            Written::Text { memory, text } => (memory, text.into_bytes()),
            Written::Bytes { memory, bytes } => (memory, bytes),
        };
        match path.to_str().is_some_and(|path| path.starts_with(IN_MEMORY)) {
            true => Ok(Data { path, bytes: Some(bytes.into()) }),
            false => Err(D::Error::custom(format!("the name of data in memory begins with `{IN_MEMORY}`"))),
        }
    }
}

impl Pair {
    /// Two matched prompts. A text alone is a user's message.
    pub fn new(positive: impl Into<Input>, negative: impl Into<Input>) -> Pair {
        Pair {
            line: 0,
            id: String::new(),
            positive: positive.into(),
            negative: negative.into(),
            group: None,
            lang: None,
            answer: Vec::new(),
            foil: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// With these tokens for the behaviour: texts, of which the first token counts, or ids.
    pub fn answer<T: Into<TokenRef>>(self, tokens: impl IntoIterator<Item = T>) -> Pair {
        Pair { answer: tokens.into_iter().map(Into::into).collect(), ..self }
    }

    /// With these tokens against it.
    pub fn foil<T: Into<TokenRef>>(self, tokens: impl IntoIterator<Item = T>) -> Pair {
        Pair { foil: tokens.into_iter().map(Into::into).collect(), ..self }
    }

    /// With a named part of the prompts: positions in the positive prompt's token ids.
    pub fn span(mut self, name: impl Into<String>, positions: impl IntoIterator<Item = i64>) -> Pair {
        self.spans.push(Span { name: name.into(), positions: positions.into_iter().collect() });
        self
    }

    /// As a line of a file.
    fn to_json(&self) -> Value {
        let mut line = Line::new(&self.id, [&self.positive, &self.negative]);
        line.input("positive", &self.positive);
        line.input("negative", &self.negative);
        line.subsets(&self.group, &self.lang);
        line.tokens(&self.answer, &self.foil);
        line.spans(&self.spans);
        line.done()
    }
}

impl Item {
    /// A prompt. A text alone is a user's message.
    pub fn new(prompt: impl Into<Input>) -> Item {
        Item {
            line: 0,
            id: String::new(),
            prompt: prompt.into(),
            label: None,
            group: None,
            lang: None,
            answer: Vec::new(),
            foil: Vec::new(),
            facts: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// With these tokens for the behaviour: texts, of which the first token counts, or ids.
    pub fn answer<T: Into<TokenRef>>(self, tokens: impl IntoIterator<Item = T>) -> Item {
        Item { answer: tokens.into_iter().map(Into::into).collect(), ..self }
    }

    /// With these tokens against it.
    pub fn foil<T: Into<TokenRef>>(self, tokens: impl IntoIterator<Item = T>) -> Item {
        Item { foil: tokens.into_iter().map(Into::into).collect(), ..self }
    }

    /// With a named part of the prompt: positions in its token ids.
    pub fn span(mut self, name: impl Into<String>, positions: impl IntoIterator<Item = i64>) -> Item {
        self.spans.push(Span { name: name.into(), positions: positions.into_iter().collect() });
        self
    }

    /// As a line of a file.
    fn to_json(&self) -> Value {
        let mut line = Line::new(&self.id, [&self.prompt]);
        line.input("prompt", &self.prompt);
        line.put("label", self.label.as_ref().map(|label| json!(label)));
        line.subsets(&self.group, &self.lang);
        line.tokens(&self.answer, &self.foil);
        line.put("facts", Some(json!(self.facts)).filter(|_| !self.facts.is_empty()));
        line.spans(&self.spans);
        line.done()
    }
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Input::user(text)
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Input::user(text)
    }
}

impl From<&str> for TokenRef {
    fn from(text: &str) -> Self {
        TokenRef::Text(text.to_string())
    }
}

impl From<u32> for TokenRef {
    fn from(id: u32) -> Self {
        TokenRef::Id(id)
    }
}

/// A line in the making. A field that is not there is left out.
struct Line {
    fields: Map<String, Value>,
    /// The variables of all inputs, which stand in the line once.
    vars: Map<String, Value>,
}

impl Line {
    fn new<const N: usize>(id: &str, inputs: [&Input; N]) -> Line {
        let vars = inputs.into_iter().filter_map(vars).find(|vars| !vars.is_empty()).cloned().unwrap_or_default();
        let mut line = Line { fields: Map::new(), vars };
        line.put("id", Some(json!(id)).filter(|_| !id.is_empty()));
        line
    }

    fn put(&mut self, field: &str, value: Option<Value>) {
        self.fields.extend(value.map(|value| (field.to_string(), value)));
    }

    fn input(&mut self, field: &str, input: &Input) {
        // Inputs of one line that differ in their variables cannot be written: the reader says so.
        let differ = vars(input).filter(|vars| **vars != self.vars);
        let mut value = match input {
            Input::User { text, .. } if differ.is_none() => json!(text),
            Input::User { text, .. } => json!({"messages": [{"role": "user", "content": text}]}),
            Input::Text { text, special_tokens: true } => json!({ "text": text }),
            Input::Text { text, special_tokens: false } => json!({"text": text, "special_tokens": false}),
            Input::Messages { messages, go_on: None, .. } => json!({ "messages": messages }),
            Input::Messages { messages, go_on: Some(go_on), .. } => {
                json!({"messages": messages, "continue_final_message": go_on})
            }
            Input::Ids(ids) => json!({ "ids": ids }),
        };
        if let (Some(vars), Some(object)) = (differ, value.as_object_mut()) {
            object.insert(super::VARS.to_string(), json!(vars));
        }
        self.put(field, Some(value));
    }

    fn subsets(&mut self, group: &Option<String>, lang: &Option<String>) {
        self.put("group", group.as_ref().map(|group| json!(group)));
        self.put("lang", lang.as_ref().map(|lang| json!(lang)));
    }

    fn tokens(&mut self, answer: &[TokenRef], foil: &[TokenRef]) {
        for (field, tokens) in [("answer", answer), ("foil", foil)] {
            let one = |token: &TokenRef| match token {
                TokenRef::Id(id) => json!(id),
                TokenRef::Text(text) => json!(text),
            };
            let list: Vec<Value> = tokens.iter().map(one).collect();
            self.put(field, Some(json!(list)).filter(|_| !tokens.is_empty()));
        }
    }

    fn spans(&mut self, spans: &[Span]) {
        let spans: Map<String, Value> = spans.iter().map(|span| (span.name.clone(), json!(span.positions))).collect();
        self.put("spans", Some(json!(spans)).filter(|_| !spans.is_empty()));
    }

    fn done(mut self) -> Value {
        let vars = std::mem::take(&mut self.vars);
        self.put(super::VARS, Some(json!(vars)).filter(|_| !vars.is_empty()));
        Value::Object(self.fields)
    }
}

/// The variables of an input that goes through the chat template.
fn vars(input: &Input) -> Option<&Map<String, Value>> {
    match input {
        Input::User { vars, .. } | Input::Messages { vars, .. } => Some(vars),
        Input::Text { .. } | Input::Ids(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{read_pairs, read_prompts};

    #[test]
    fn items_in_memory_come_back_as_they_are() {
        for file in ["demo:pairs.jsonl", "demo:cipher.jsonl"] {
            let read = read_pairs(file).unwrap();
            let again = read_pairs(Data::from(read.items.as_slice())).unwrap();
            assert!(again.items == read.items && again.path.to_str().unwrap().starts_with("memory:pairs-"), "{file}");
        }
        let read = read_prompts("demo:prompts.jsonl").unwrap();
        let data = Data::from(read.items.clone());
        assert_eq!(read_prompts(&data).unwrap().items, read.items);
        assert_eq!(read_prompts(data).unwrap().sha256, read_prompts(Data::from(read.items)).unwrap().sha256);
    }

    #[test]
    fn spans_in_memory_come_back_as_they_are() {
        let pair = Pair::new("a b", "a c").span("S2", [1, 2]).span("END", [-1]);
        let read = read_pairs(Data::from(vec![pair.clone()])).unwrap();
        assert_eq!(read.items[0].spans, pair.spans);
        let item = Item::new("a b").span("S2", [1]).span("END", [-1]);
        assert_eq!(read_prompts(Data::from(vec![item.clone()])).unwrap().items[0].spans, item.spans);
    }

    #[test]
    fn inputs_of_every_kind_can_be_written() {
        let vars = Map::from_iter([("enable_thinking".to_string(), json!(false))]);
        let messages = vec![crate::model::template::Message::user("Hi")];
        let inputs = [
            Input::User { text: "Hi".to_string(), vars: vars.clone() },
            Input::Text { text: "Hi".to_string(), special_tokens: false },
            Input::text("Hi"),
            Input::Messages { messages: messages.clone(), go_on: Some(true), vars: vars.clone() },
            Input::Messages { messages, go_on: None, vars: Map::new() },
            Input::Ids(vec![3, 4]),
        ];
        let items: Vec<Item> = inputs.iter().cloned().map(Item::new).collect();
        let read = read_prompts(Data::from(items)).unwrap();
        assert!(read.items.iter().map(|item| &item.prompt).eq(&inputs));
        assert_eq!(read.items[2].id, "3", "the number of the line stands in for an id");
        let pair = Pair::new(inputs[0].clone(), "Hi");
        let why = read_pairs(Data::from(vec![pair])).unwrap_err().to_string();
        assert!(why.contains("memory:pairs-") && why.contains("\"negative\""), "{why}");
    }

    #[test]
    fn parameters_hold_a_file_by_its_name_and_data_in_memory_whole() {
        for data in [Data::from("a.jsonl"), Data::in_memory("m.json", &b"{}"[..]), Data::in_memory("v.npy", vec![255])]
        {
            let written = serde_json::to_value(&data).unwrap();
            assert_eq!(written.is_string(), !data.is_in_memory());
            assert_eq!(serde_json::from_value::<Data>(written).unwrap(), data);
        }
        assert!(serde_json::from_value::<Data>(json!({"memory": "/etc/passwd", "text": ""})).is_err());
    }
}
