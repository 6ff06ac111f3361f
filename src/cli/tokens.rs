//! `gatelens tokens`: what the model reads of a file's prompts, token by token.

use super::{CliError, ModelArgs, say};
use crate::dataset::encode::{At, prompt_ids};
use crate::dataset::shown::{Prompt, Shown};
use crate::dataset::{Input, TokenRef, read_pairs, read_prompts};
use crate::measured::NamedToken;
use crate::model::Model;
use crate::model::tokenizer::Tokenizer;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The arguments of `tokens`.
#[derive(clap::Args)]
pub(super) struct Tokens {
    #[command(flatten)]
    pub(super) model: ModelArgs,

    #[command(flatten)]
    file: FieldArgs,
}

/// A file of prompts, or of pairs of them
#[derive(clap::Args)]
pub(super) struct FieldArgs {
    /// Read prompts from this file, JSON Lines: {"id", "prompt"}
    #[arg(long, value_name = "FILE", required_unless_present = "pairs", conflicts_with = "pairs")]
    prompts: Option<PathBuf>,

    /// Read pairs of prompts from this file, JSON Lines
    ///
    /// Each pair gives its positive prompt and then its negative one.
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
}

impl FieldArgs {
    /// The prompts of the file.
    ///
    /// # Errors
    /// If it is not sound, or none is given.
    pub(super) fn read(&self) -> Result<Fields, CliError> {
        match (&self.pairs, &self.prompts) {
            (Some(path), _) => of_pairs(path),
            (None, Some(path)) => of_prompts(path),
            (None, None) => Err(CliError::Input("--prompts or --pairs is missing".to_owned())),
        }
    }

    /// Whether the file is of pairs.
    pub(super) fn are_pairs(&self) -> bool {
        self.pairs.is_some()
    }
}

/// A prompt of an item.
pub(super) struct Field {
    line: usize,
    pub(super) id: String,
    pub(super) name: &'static str,
    input: Input,
}

/// Answers or foils of an item, to be shown.
struct Side {
    id: String,
    name: &'static str,
    tokens: Vec<TokenRef>,
}

/// The prompts of a file of either kind.
pub(super) struct Fields {
    path: PathBuf,
    pub(super) all: Vec<Field>,
    sides: Vec<Side>,
}

impl Fields {
    /// The prompts as the model reads them; warns of what is likely a mistake.
    ///
    /// # Errors
    /// If the model cannot read one.
    pub(super) fn ids(&self, model: &Model) -> Result<Vec<Vec<u32>>, CliError> {
        let ids = self.all.iter().map(|field| {
            let at = At { path: &self.path, line: field.line, id: &field.id, field: field.name };
            prompt_ids(model, &field.input, at)
        });
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let prompts = self.all.iter().zip(&ids);
        let prompts = prompts.map(|(f, ids)| Prompt { input: &f.input, ids, id: &f.id, field: f.name });
        Shown::of(model, &self.path, prompts);
        Ok(ids)
    }
}

impl Tokens {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let read = self.file.read()?;
        let model = self.model.open()?;
        let tokenizer = model.tokenizer().map_err(|e| CliError::Input(e.to_string()))?;
        let ids = read.ids(&model)?;
        for (field, ids) in read.all.iter().zip(&ids) {
            self.say_field(&field.id, field.name, &tokenizer.named(ids))?;
            let last = read.all.iter().rfind(|other| other.id == field.id).is_some_and(|last| last.name == field.name);
            for side in read.sides.iter().filter(|side| last && side.id == field.id) {
                self.say_field(&side.id, side.name, &of_side(&model, tokenizer, side)?)?;
            }
        }
        Ok(())
    }

    /// A line a token: id, field, position, token id, text.
    fn say_field(&self, id: &str, field: &str, tokens: &[NamedToken]) -> Result<(), CliError> {
        if self.model.output.json {
            return say(&json!({"id": id, "field": field, "tokens": tokens}).to_string());
        }
        let line = |(position, token): (usize, &NamedToken)| {
            format!("{id}\t{field}\t{position}\t{}\t{:?}", token.id, token.text)
        };
        let lines: Vec<String> = tokens.iter().enumerate().map(line).collect();
        say(&lines.join("\n"))
    }
}

/// The tokens of answers or foils: all of each text, of which the first is scored.
fn of_side(model: &Model, tokenizer: &Tokenizer, side: &Side) -> Result<Vec<NamedToken>, CliError> {
    let mut ids = Vec::new();
    for token in &side.tokens {
        match token {
            TokenRef::Id(id) => ids.push(*id),
            TokenRef::Text(text) => {
                ids.extend(tokenizer.answer_tokens(text).map_err(|e| CliError::Input(e.to_string()))?)
            }
        }
    }
    let vocab = model.decoder.arch.vocab;
    match ids.iter().find(|id| **id as usize >= vocab) {
        Some(id) => Err(CliError::Input(format!(
            "{}: token id {id} is out of range; the model has 0 to {}",
            side.id,
            vocab - 1
        ))),
        None => Ok(tokenizer.named(&ids)),
    }
}

fn of_pairs(path: &Path) -> Result<Fields, CliError> {
    let dataset = read_pairs(path)?;
    let (mut fields, mut sides) = (Vec::new(), Vec::new());
    for pair in dataset.items {
        let (line, id) = (pair.line, pair.id);
        fields.push(Field { line, id: id.clone(), name: "positive", input: pair.positive });
        fields.push(Field { line, id: id.clone(), name: "negative", input: pair.negative });
        sides.extend(named_sides(&id, pair.answer, pair.foil));
    }
    Ok(Fields { path: dataset.path, all: fields, sides })
}

fn of_prompts(path: &Path) -> Result<Fields, CliError> {
    let dataset = read_prompts(path)?;
    let (mut fields, mut sides) = (Vec::new(), Vec::new());
    for item in dataset.items {
        sides.extend(named_sides(&item.id, item.answer, item.foil));
        fields.push(Field { line: item.line, id: item.id, name: "prompt", input: item.prompt });
    }
    Ok(Fields { path: dataset.path, all: fields, sides })
}

fn named_sides(id: &str, answer: Vec<TokenRef>, foil: Vec<TokenRef>) -> impl Iterator<Item = Side> {
    let sides = [("answer", answer), ("foil", foil)].into_iter().filter(|(_, tokens)| !tokens.is_empty());
    let id = id.to_owned();
    sides.map(move |(name, tokens)| Side { id: id.clone(), name, tokens })
}
