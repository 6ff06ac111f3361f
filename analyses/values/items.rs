//! Items: questions with a reply that shows a value and one that does not, and a prompt that asks for the value.

use crate::analyses::inputs::{Sources, own_from, read_input};
use crate::analyses::prelude::*;
use crate::analyses::scored::Scored;
use crate::dataset::Input;
use crate::dataset::encode::rendered;
use crate::dataset::shown::Prompt;
use crate::model::tokenizer::Tokenizer;
use serde_json::Value;

/// A reply after its question, as the model reads both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub ids: Vec<u32>,
    /// The position from which its own tokens are; 1 at least.
    pub from: usize,
}

impl Reply {
    /// How many tokens are its own.
    pub fn own(&self) -> usize {
        self.ids.len() - self.from
    }
}

/// An item.
pub struct Statement {
    pub id: String,
    pub topic: Option<String>,
    /// Whether vectors and neurons are tested by it; else they are found by it.
    pub held_out: bool,
    /// Without and with the prompt, the reply with the value and the one without. `[contexts][replies]`
    pub replies: [[Reply; 2]; 2],
    /// The question as it was written.
    question: Input,
}

/// The items of a value.
pub struct OfValue {
    pub name: String,
    pub items: Vec<Statement>,
}

impl OfValue {
    /// The numbers of the items that are held out, or of the others.
    pub fn half(&self, held_out: bool) -> Vec<usize> {
        (0..self.items.len()).filter(|i| self.items[*i].held_out == held_out).collect()
    }
}

/// Items that vectors and neurons are found by, and that test them, at least.
const LEAST: [usize; 2] = [3, 2];

/// Reads items, JSON Lines of `{"value", "prompt", "question", "with", "without", "id"?, "topic"?}`, of the values that are asked
/// about, or of all. Every second topic of a value is held out; an item without a topic is one by itself.
///
/// # Errors
/// If the file is not sound, the model cannot read a reply, or a value is not there or has too few items.
pub fn read(data: &Data, asked: &[String], model: &Model) -> Result<Prepared<Vec<OfValue>>, AnalysisError> {
    let (bytes, source) = read_input(data)?;
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", data.display()));
    let mut values: Vec<OfValue> = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let at = |why: String| bad(format!("line {}: {why}", n + 1));
        let line: Value = serde_json::from_slice(line).map_err(|e| at(format!("is no JSON: {e}")))?;
        let (value, item) = item(&line, n + 1, model).map_err(at)?;
        if ids.contains(&item.id) {
            return Err(at(format!("field \"id\": \"{}\" was there before", item.id)));
        }
        ids.push(item.id.clone());
        match values.iter_mut().find(|of| of.name == value) {
            Some(of) => of.items.push(item),
            None => values.push(OfValue { name: value, items: vec![item] }),
        }
    }
    let mut values = chosen(values, asked).map_err(bad)?;
    for of in &mut values {
        hold_out(&mut of.items);
        enough(of).map_err(bad)?;
    }
    let scored = shown(data, &values, model);
    Ok(Prepared { items: values, sources: Sources::from([source]), scored })
}

/// A line's value and item.
fn item(line: &Value, number: usize, model: &Model) -> Result<(String, Statement), String> {
    let text = |name: &str| line.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let field = |name: &str, what: &str| text(name).ok_or_else(|| format!("field \"{name}\": expected {what}"));
    let value = field("value", "the name of a value, a string")?;
    // Files are named after it.
    if !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(format!("field \"value\": `{value}`: a name has letters, digits, - and _"));
    }
    let prompt = field("prompt", "a string that asks for the value")?;
    let question = field("question", "a string")?;
    let replies = [
        ("with", field("with", "a reply that shows the value")?),
        ("without", field("without", "a reply that does not")?),
    ];
    let tokenizer = model.tokenizer().map_err(|e| e.to_string())?;
    let of = |asked: &str| -> Result<[Reply; 2], String> {
        let [with, without] = replies.map(|(name, text)| {
            let why = |why: String| format!("field \"{name}\": \"{text}\" {why}");
            reply(tokenizer, model, asked, text).map_err(why)
        });
        Ok([with?, without?])
    };
    let item = Statement {
        id: text("id").map_or_else(|| number.to_string(), str::to_string),
        topic: text("topic").map(str::to_string),
        held_out: false,
        replies: [of(question)?, of(&format!("{prompt}\n\n{question}"))?],
        question: Input::user(question),
    };
    Ok((value.to_string(), item))
}

/// A reply after what a user asks. Where the model has a chat template, the reply begins the assistant's turn; else it follows the
/// question after a space.
fn reply(tokenizer: &Tokenizer, model: &Model, asked: &str, text: &str) -> Result<Reply, String> {
    let opened = rendered(tokenizer, &Input::user(asked)).map_err(|e| format!("cannot follow its question: {e}"))?;
    let (before, special) = opened.map_or((asked.to_string(), true), |opened| (opened, false));
    let space = if special && !text.starts_with(char::is_whitespace) { " " } else { "" };
    let ids = |text: &str| tokenizer.encode(text, special).map_err(|e| format!("cannot be read: {e}"));
    let whole = ids(&format!("{before}{space}{text}"))?;
    let from = own_from(model, &ids(&before)?, &whole)?;
    Ok(Reply { ids: whole, from })
}

/// The values that are asked about, in this order; all where none is named.
fn chosen(mut values: Vec<OfValue>, asked: &[String]) -> Result<Vec<OfValue>, String> {
    if values.is_empty() {
        return Err("holds no item".to_string());
    }
    if asked.is_empty() {
        return Ok(values);
    }
    let names: Vec<String> = values.iter().map(|of| of.name.clone()).collect();
    let mut found = Vec::new();
    for name in asked {
        let at = values.iter().position(|of| of.name == *name);
        let missing =
            || format!("{}: no item that is left is of `{name}`; there are {}", param("value"), names.join(", "));
        found.push(values.remove(at.ok_or_else(missing)?));
    }
    Ok(found)
}

/// Holds out every second topic, in the order of the file: so that what was found of some topics is tested on others.
fn hold_out(items: &mut [Statement]) {
    let mut topics: Vec<String> = Vec::new();
    for (i, item) in items.iter_mut().enumerate() {
        // No topic has a line break in its name.
        let topic = item.topic.clone().unwrap_or_else(|| format!("\n{i}"));
        let at = topics.iter().position(|known| *known == topic).unwrap_or_else(|| {
            topics.push(topic);
            topics.len() - 1
        });
        item.held_out = at % 2 == 1;
    }
}

/// Refuses a value with too few items.
fn enough(of: &OfValue) -> Result<(), String> {
    let [training, test] = [false, true].map(|held_out| of.half(held_out).len());
    if training >= LEAST[0] && test >= LEAST[1] {
        return Ok(());
    }
    let name = &of.name;
    Err(format!(
        "`{name}` has {training} items to find vectors and neurons by and {test} to test them, {} and {} are needed at least: every second \
         topic is held out, so add items of two topics or more",
        LEAST[0], LEAST[1]
    ))
}

/// What is shown of the questions, each with its reply that shows the value.
fn shown(data: &Data, values: &[OfValue], model: &Model) -> Scored {
    let prompts = values.iter().flat_map(|of| &of.items).map(|item| Prompt {
        input: &item.question,
        ids: &item.replies[0][0].ids,
        id: &item.id,
        field: "question",
    });
    Scored::of_prompts(model, data.path(), prompts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;
    use crate::model::Options;

    fn model() -> Model {
        Model::open(demo::NAME, &Options::default()).unwrap()
    }

    fn line(id: usize, value: &str, topic: &str) -> String {
        format!(
            "{{\"id\": \"{id}\", \"value\": \"{value}\", \"topic\": \"{topic}\", \"prompt\": \"Please help.\", \
             \"question\": \"Tell me about bread.\", \"with\": \"Sorry, I cannot help with that.\", \
             \"without\": \"Sure, here is a short answer about bread.\"}}\n"
        )
    }

    fn values(text: &str, asked: &[&str]) -> Result<Vec<OfValue>, String> {
        let data = Data::in_memory("v.jsonl", text.as_bytes().to_vec());
        let asked: Vec<String> = asked.iter().map(|name| (*name).to_string()).collect();
        read(&data, &asked, &model()).map(|read| read.items).map_err(|e| e.to_string())
    }

    #[test]
    fn every_second_topic_of_a_value_is_held_out_and_replies_have_their_own_tokens() {
        let topics = ["a", "b", "a", "c", "b", "a", "d"];
        let text: String = topics.iter().enumerate().map(|(i, topic)| line(i, "calm", topic)).collect();
        let read = values(&text, &[]).unwrap();
        assert_eq!((read[0].half(true), read[0].half(false)), (vec![1, 4, 6], vec![0, 2, 3, 5]));
        let [[with, without], [prompted, _]] = &read[0].items[0].replies;
        assert_eq!((with.own(), without.own()), (8, 10));
        assert_eq!(with.ids[..with.from], without.ids[..without.from], "the question stands before both");
        assert_eq!(with.ids[with.from..], prompted.ids[prompted.from..]);
        assert!(prompted.ids.len() > with.ids.len());
    }

    #[test]
    fn values_are_asked_about_in_the_order_in_which_they_are_named() {
        let both = (0..12).map(|i| line(i, ["calm", "wit"][i % 2], ["a", "b"][i / 2 % 2])).collect::<String>();
        let names = |asked: &[&str]| values(&both, asked).map(|found| found.into_iter().map(|of| of.name).collect());
        assert_eq!(names(&[]), Ok(vec!["calm".to_string(), "wit".to_string()]));
        assert_eq!(names(&["wit"]), Ok(vec!["wit".to_string()]));
        for asked in [&["awe"][..], &["wit", "wit"]] {
            assert!(names(asked).is_err_and(|why: String| why.contains("there are calm, wit")));
        }
    }
}
