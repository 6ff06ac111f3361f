//! Items: a stem, and candidates that may go on with it, of which one is true.

use crate::analyses::inputs::{Sources, own_from, read_input};
use crate::analyses::prelude::*;
use crate::analyses::scored::Scored;
use crate::dataset::Input;
use crate::dataset::shown::Prompt;
use serde_json::Value;

/// A candidate as the model reads it.
pub struct Candidate {
    pub text: String,
    pub ids: Vec<u32>,
    /// The position from which its own tokens are.
    pub from: usize,
}

impl Candidate {
    /// How many tokens are its own.
    pub fn own(&self) -> usize {
        self.ids.len() - self.from
    }
}

/// An item.
pub struct Question {
    pub id: String,
    pub topic: Option<String>,
    pub candidates: Vec<Candidate>,
    /// Which candidate is true.
    pub right: usize,
}

/// Reads items, JSON Lines of `{"stem", "candidates", "true", "id"?, "topic"?}`.
///
/// # Errors
/// If the file is not sound, or the model cannot read a candidate.
pub fn read(data: &Data, model: &Model) -> Result<(Vec<Question>, Sources, Scored), AnalysisError> {
    let (bytes, source) = read_input(data)?;
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", data.display()));
    let tokenizer = model.tokenizer().map_err(|e| bad(e.to_string()))?;
    let mut found: Vec<Question> = Vec::new();
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let at = |why: String| bad(format!("line {}: {why}", n + 1));
        let value: Value = serde_json::from_slice(line).map_err(|e| at(format!("is no JSON: {e}")))?;
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let stem =
            text("stem").ok_or_else(|| at("field \"stem\": expected a string, which may be empty".to_string()))?;
        let listed = value.get("candidates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let texts: Option<Vec<&str>> = listed.iter().map(Value::as_str).collect();
        let texts = texts.filter(|texts| texts.len() >= 2);
        let texts = texts.ok_or_else(|| {
            at("field \"candidates\": expected two strings or more, as they go on after the stem".into())
        })?;
        let right = value.get("true").and_then(Value::as_u64).map(|right| right as usize);
        let right = right.filter(|right| *right < texts.len());
        let right =
            right.ok_or_else(|| at("field \"true\": expected the number of the true candidate, from 0".into()))?;
        let id = text("id").map_or_else(|| (n + 1).to_string(), str::to_string);
        if found.iter().any(|question| question.id == id) {
            return Err(at(format!("field \"id\": \"{id}\" was there before")));
        }
        let ids = |text: &str| tokenizer.encode(text, true).map_err(|e| at(e.to_string()));
        let before = ids(stem)?;
        let candidate = |text: &&str| {
            let all = ids(&format!("{stem}{text}"))?;
            let from = own_from(model, &before, &all);
            let from = from.map_err(|why| at(format!("field \"candidates\": \"{text}\" {why}")))?;
            Ok(Candidate { text: (*text).to_string(), ids: all, from })
        };
        let candidates = texts.iter().map(candidate).collect::<Result<Vec<_>, AnalysisError>>()?;
        found.push(Question { id, topic: text("topic").map(str::to_string), candidates, right });
    }
    if found.is_empty() {
        return Err(bad("holds no item".to_string()));
    }
    let shown = found.iter().flat_map(|question| {
        question.candidates.iter().map(move |candidate| (question, candidate, Input::text(candidate.text.as_str())))
    });
    let shown: Vec<_> = shown.collect();
    let prompts = shown.iter().map(|(question, candidate, input)| Prompt {
        input,
        ids: &candidate.ids,
        id: &question.id,
        field: "candidates",
    });
    let scored = Scored::of_prompts(model, data.path(), prompts);
    Ok((found, vec![source], scored))
}
