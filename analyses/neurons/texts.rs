//! The texts that neurons are looked at in: prompts, or a corpus that is cut into pieces.

use crate::analyses::inputs::{Sources, encoded, item_tokens, read_input};
use crate::analyses::metric::MetricArgs;
use crate::analyses::prelude::*;
use crate::analyses::scored::Scored;
use crate::model::tokenizer::Tokenizer;
use serde_json::Value;

/// Texts as the model reads them.
pub struct Texts {
    pub texts: Vec<Text>,
    /// One a text, where what neurons do to a logit difference is asked.
    pub metrics: Option<Vec<Metric>>,
}

/// A prompt, or a piece of a corpus.
pub struct Text {
    pub id: String,
    pub ids: Vec<u32>,
    /// A prompt's label, if it has one.
    pub label: Option<String>,
}

/// What a file holds.
enum Kind {
    /// JSON Lines with "prompt".
    Prompts,
    /// JSON Lines with "text".
    Documents,
    Plain,
}

/// About so many bytes of plain text are tokenised at once, up to the end of a paragraph.
const AT_ONCE: usize = 1 << 16;

impl Kind {
    /// By the first line that is not empty.
    fn of(bytes: &[u8]) -> Kind {
        let first = bytes.split(|b| *b == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
        match serde_json::from_slice::<Value>(first) {
            Ok(Value::Object(line)) if line.contains_key("text") && !line.contains_key("prompt") => Kind::Documents,
            Ok(Value::Object(_)) => Kind::Prompts,
            _ if first.trim_ascii_start().starts_with(b"{\"") => Kind::Prompts,
            _ => Kind::Plain,
        }
    }
}

impl Texts {
    /// Reads a file of prompts, of documents (`{"text"}` a line) or of plain text; a corpus is cut into pieces of `length` tokens.
    ///
    /// # Errors
    /// If the file is not sound, or the model cannot read it.
    pub fn read(
        prompts: &PromptArgs,
        metric: &MetricArgs,
        length: usize,
        model: &Model,
    ) -> Result<Prepared<Texts>, AnalysisError> {
        let (bytes, source) = read_input(&prompts.prompts)?;
        let documents = match Kind::of(&bytes) {
            Kind::Prompts => return of_prompts(prompts, metric, model),
            Kind::Documents => documents(&prompts.prompts, &bytes)?,
            Kind::Plain => paragraphs(&prompts.prompts, bytes)?,
        };
        let path = prompts.prompts.display();
        if *metric != MetricArgs::default() {
            let why = format!("{path} is a corpus: no token of it is an answer");
            return Err(AnalysisError::Bad(format!("{}: {why}", param("answer"))));
        }
        if let Some(label) = &prompts.label {
            let why = format!("{}: {path} is a corpus: it has no label `{label}`", param("label"));
            return Err(AnalysisError::Bad(why));
        }
        let tokenizer = model.tokenizer().map_err(|why| AnalysisError::Bad(format!("{path}: {why}")))?;
        let texts = pieces(tokenizer, &documents, length.min(model.decoder.arch.n_ctx))
            .map_err(|why| AnalysisError::Bad(format!("{path}: {why}")))?;
        if texts.is_empty() {
            return Err(AnalysisError::Bad(format!("{path}: holds no text")));
        }
        let items = Texts { texts, metrics: None };
        Ok(Prepared { items, sources: vec![source], scored: Scored::default() })
    }
}

fn of_prompts(prompts: &PromptArgs, metric: &MetricArgs, model: &Model) -> Result<Prepared<Texts>, AnalysisError> {
    let dataset = prompts.read()?;
    let named: Vec<[bool; 2]> =
        dataset.items.iter().map(|item| [!item.answer.is_empty(), !item.foil.is_empty()]).collect();
    let text = |(item, ids): (&Item, Vec<u32>)| Text { id: item.id.clone(), ids, label: item.label.clone() };
    let mut sources: Sources = vec![dataset.source()];
    if *metric == MetricArgs::default() && named.iter().all(|sides| *sides == [false; 2]) {
        let (ids, scored) = encoded(model, &dataset)?;
        let texts = dataset.items.iter().zip(ids).map(text).collect();
        return Ok(Prepared { items: Texts { texts, metrics: None }, sources, scored });
    }
    metric.warn_unused(&named);
    let metrics = metric.open(model)?;
    let tokens = dataset.items.iter().map(|item| item_tokens(model, &dataset, item, &metrics));
    let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
    let scored = Scored::of_items(model, &dataset, &tokens, &metrics);
    sources.extend(metrics.source);
    let (ids, of): (Vec<_>, Vec<_>) = tokens.into_iter().unzip();
    let texts = dataset.items.iter().zip(ids).map(text).collect();
    Ok(Prepared { items: Texts { texts, metrics: Some(of) }, sources, scored })
}

/// A document's name with its text, in parts that are tokenised one by one.
type Document = (String, Vec<String>);

fn documents(data: &Data, bytes: &[u8]) -> Result<Vec<Document>, AnalysisError> {
    let mut found = Vec::new();
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let at = |why: String| AnalysisError::Bad(format!("{}: line {}: {why}", data.display(), n + 1));
        let value: Value = serde_json::from_slice(line).map_err(|e| at(format!("is no JSON: {e}")))?;
        let text = value.get("text").and_then(Value::as_str);
        let text =
            text.ok_or_else(|| at("field \"text\": every line of a corpus needs it, as a string".to_string()))?;
        found.push((format!("line {}", n + 1), vec![text.to_string()]));
    }
    Ok(found)
}

/// Plain text as one document, in parts that end with paragraphs.
fn paragraphs(data: &Data, bytes: Vec<u8>) -> Result<Vec<Document>, AnalysisError> {
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        AnalysisError::Bad(format!("{}: line {line}: is no UTF-8 text", data.display()))
    })?;
    let (mut parts, mut part) = (Vec::new(), String::new());
    for paragraph in text.split_inclusive("\n\n") {
        part += paragraph;
        if part.len() >= AT_ONCE {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.push(part);
    parts.retain(|part| !part.trim().is_empty());
    Ok(if parts.is_empty() { Vec::new() } else { vec![("text".to_string(), parts)] })
}

/// Documents in pieces of as many tokens as the model is to read at once, each begun as the model begins a text.
fn pieces(tokenizer: &Tokenizer, documents: &[Document], length: usize) -> Result<Vec<Text>, String> {
    let beginning = tokenizer.encode("", true).map_err(|e| e.to_string())?;
    // A tokenizer that ends texts with a token of its own adds that to an empty one too.
    let beginning: Vec<u32> = beginning.into_iter().filter(|id| Some(*id) == tokenizer.bos()).take(1).collect();
    let room = length.saturating_sub(beginning.len()).max(1);
    let mut found = Vec::new();
    for (name, parts) in documents {
        let mut ids: Vec<u32> = Vec::new();
        for part in parts {
            ids.extend(tokenizer.encode(part, false).map_err(|e| e.to_string())?);
        }
        let n = ids.len().div_ceil(room);
        found.extend(ids.chunks(room).enumerate().map(|(i, some)| Text {
            id: if n == 1 { name.clone() } else { format!("{name}, piece {}", i + 1) },
            ids: beginning.iter().chain(some).copied().collect(),
            label: None,
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Options;

    fn model() -> Model {
        Model::open("demo", &Options::default()).unwrap()
    }

    fn read(name: &str, text: &str, length: usize) -> Result<Texts, String> {
        let prompts = PromptArgs::from(Data::in_memory(name, text.as_bytes().to_vec()));
        let found = Texts::read(&prompts, &MetricArgs::default(), length, &model());
        found.map(|prepared| prepared.items).map_err(|e| e.to_string())
    }

    #[test]
    fn a_corpus_is_cut_into_pieces_and_none_of_it_is_lost() {
        let model = model();
        let tokenizer = model.tokenizer().unwrap();
        let text = "the vault the garden\n\nthe vault is open\n\n";
        let whole = tokenizer.encode(text, false).unwrap();
        let texts = read("a.txt", text, 4).unwrap().texts;
        let begun = tokenizer.encode("", true).unwrap().len();
        let back: Vec<u32> = texts.iter().flat_map(|text| &text.ids[begun.min(1)..]).copied().collect();
        assert_eq!(back, whole);
        assert!(texts.iter().all(|text| text.ids.len() <= 4) && texts[0].id == "text, piece 1");
        let lines = read("a.jsonl", "{\"text\": \"the vault\"}\n\n{\"text\": \"the garden\"}\n", 64).unwrap();
        let names: Vec<&str> = lines.texts.iter().map(|text| text.id.as_str()).collect();
        assert_eq!(names, ["line 1", "line 3"]);
    }

    #[test]
    fn what_is_wrong_with_a_corpus_is_said_with_its_line() {
        for (text, said) in [
            ("{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "line 2: field \"text\""),
            ("{\"text\": \"a\"}\n{oops\n", "line 2: is no JSON"),
            ("\n \n", "holds no text"),
            ("{\"prompt\": \n", "line 1"),
        ] {
            assert!(read("a.jsonl", text, 64).is_err_and(|why| why.contains(said)), "{text}");
        }
        let prompts = PromptArgs::from(Data::in_memory("a.txt", b"caf\xe9".to_vec()));
        let found = Texts::read(&prompts, &MetricArgs::default(), 8, &model());
        assert!(found.is_err_and(|e| e.to_string().contains("line 1: is no UTF-8 text")));
    }
}
