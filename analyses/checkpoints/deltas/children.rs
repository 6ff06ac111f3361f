//! The children: whether each fits the parent, what it reads of the prompts, and of what kind it is.

use crate::analyses::checkpoints::paths::open;
use crate::analyses::inputs::read_input;
use crate::analyses::prelude::*;
use crate::dataset::Input;
use crate::dataset::encode::prompt_ids;
use crate::model::tokenizer::TokenizerError;
use crate::names::short_name;
use serde_json::Value;

/// A model that is compared with the parent.
pub struct Child {
    /// As it was named.
    pub name: String,
    /// Its kind, if one is given.
    pub label: Option<String>,
    /// The prompts as it reads them.
    pub ids: Vec<Vec<u32>>,
    /// What tells its weights from others'.
    pub sample: String,
}

impl Child {
    /// Opens a child, to see whether it fits the parent and how it reads the prompts. Gives with it what a user should know.
    ///
    /// # Errors
    /// If there is no such model, its stream has another width, or it cannot read a prompt.
    pub fn read(
        name: &str,
        parent: &Model,
        set: &Dataset<Item>,
        ids: &[Vec<u32>],
    ) -> Result<(Child, Vec<String>), AnalysisError> {
        let model = open(name, &parent.options)?;
        let bad = |why: String| AnalysisError::Bad(format!("model `{name}`: {why}"));
        let (arch, wanted) = (&model.decoder.arch, parent.decoder.arch.d_model);
        if arch.d_model != wanted {
            let found = arch.d_model;
            return Err(bad(format!(
                "its stream has {found} numbers and the parent's {wanted}: they cannot be compared"
            )));
        }
        SiteKind::ResidPost.at(arch.n_layers - 1).check(arch).map_err(|e| bad(e.to_string()))?;
        let mut notes: Vec<String> = model.warnings.clone();
        // While it trains, a model is often saved without its tokenizer.
        let lacks_tokenizer = model.tokenizer().is_err_and(|e| matches!(*e, TokenizerError::NoTokenizer { .. }));
        let read = |(item, ids): (&Item, &Vec<u32>)| {
            let input = if lacks_tokenizer { Input::Ids(ids.clone()) } else { item.prompt.clone() };
            prompt_ids(&model, &input, set.at(item.line, &item.id, "prompt"))
        };
        let own = set.items.iter().zip(ids).map(read).collect::<Result<Vec<_>, _>>();
        let own = own.map_err(|e| bad(e.to_string()))?;
        if lacks_tokenizer {
            notes.push("has no tokenizer, so that it reads the parent's tokens".to_string());
        } else if own != ids {
            let why =
                "reads the prompts as other tokens than the parent does: some of the difference may be due to that";
            notes.push(why.to_string());
        }
        Ok((Child { name: name.to_string(), label: None, ids: own, sample: model.sample.clone() }, notes))
    }
}

/// The number of the child that is meant, by its whole name or by the last part of its path; none where it is no child's.
///
/// # Errors
/// If it is the last part of several.
pub fn find(text: &str, names: &[String]) -> Result<Option<usize>, String> {
    let whole = names.iter().position(|name| name == text);
    let last = |i: &usize| short_name(&names[*i]) == short_name(text);
    match (whole, (0..names.len()).filter(last).count()) {
        (Some(found), _) => Ok(Some(found)),
        (None, 0 | 1) => Ok((0..names.len()).find(last)),
        (None, several) => Err(format!("`{text}` may be any of {several} children; write the whole path")),
    }
}

/// [`find`], where it has to be one.
///
/// # Errors
/// If it is none, or may be several.
pub fn find_one(text: &str, names: &[String]) -> Result<usize, String> {
    find(text, names)?.ok_or_else(|| format!("`{text}` is none of the children: {}", names.join(", ")))
}

/// The kind of each child, if it has one.
pub type Labels = Vec<Option<String>>;

/// The kind of each child, from JSON Lines of `{"model", "label"}`; models that are none of the children are passed over.
///
/// # Errors
/// If the file is not sound, names a child twice, or none.
pub fn labels(data: &Data, names: &[String]) -> Result<(Labels, (String, String)), AnalysisError> {
    let (bytes, source) = read_input(data)?;
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", data.display()));
    let mut labels: Labels = vec![None; names.len()];
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let at = |why: String| bad(format!("line {}: {why}", n + 1));
        let value: Value = serde_json::from_slice(line).map_err(|e| at(format!("is no JSON: {e}")))?;
        let text = |name: &str| {
            let text = value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.ok_or_else(|| at(format!("field \"{name}\": expected a string that is not empty")))
        };
        let (model, label) = (text("model")?, text("label")?);
        let Some(child) = find(model, names).map_err(at)? else { continue };
        if labels[child].is_some() {
            return Err(at(format!("field \"model\": \"{model}\" was there before")));
        }
        labels[child] = Some(label.to_string());
    }
    match labels.iter().all(Option::is_none) {
        true => Err(bad(format!("names none of the children: {}", names.join(", ")))),
        false => Ok((labels, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["a/checkpoint-1", "b/checkpoint-1", "b/checkpoint-2/", "demo"].map(str::to_string).to_vec()
    }

    #[test]
    fn children_are_found_by_their_names_or_the_last_parts_of_their_paths() {
        let names = names();
        assert_eq!(find("b/checkpoint-1", &names), Ok(Some(1)));
        assert_eq!((find("checkpoint-2", &names), find("demo", &names)), (Ok(Some(2)), Ok(Some(3))));
        assert!(find("checkpoint-1", &names).unwrap_err().contains("any of 2 children"));
        assert_eq!(find("other", &names), Ok(None));
        assert!(find_one("other", &names).unwrap_err().contains("none of the children"));
    }

    #[test]
    fn labels_are_of_the_children_that_the_file_names() {
        let of = |lines: &str| labels(&Data::in_memory("labels.jsonl", lines.as_bytes()), &names());
        let lines = "{\"model\": \"demo\", \"label\": \"x\"}\n\n{\"model\": \"else\", \"label\": \"y\"}\n";
        assert_eq!(of(lines).unwrap().0, [None, None, None, Some("x".to_string())]);
        for (lines, why) in [
            ("{\"model\": \"else\", \"label\": \"y\"}", "names none of the children"),
            ("{\"model\": \"demo\"}", "line 1: field \"label\""),
            (
                "{\"model\": \"demo\", \"label\": \"x\"}\n{\"model\": \"demo\", \"label\": \"x\"}",
                "line 2: field \"model\"",
            ),
            ("{\"model\": \"checkpoint-1\", \"label\": \"x\"}", "line 1: `checkpoint-1` may be any of 2"),
            ("{oops", "is no JSON"),
        ] {
            let found = of(lines).unwrap_err().to_string();
            assert!(found.contains(why), "{found}");
        }
    }
}
