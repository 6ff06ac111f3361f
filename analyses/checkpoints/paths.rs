//! Checkpoints by their names: patterns of folders, the step of training that a name ends with, and names as short as tells them apart.

use crate::analyses::AnalysisError;
use crate::analyses::inputs::named_twice;
use crate::model::{Model, ModelError, Options};
use std::path::Path;

/// What a pattern has and a name has not.
const WILD: [char; 3] = ['*', '?', '['];

/// What a folder of a model, or of an adapter, has in it.
const DESCRIPTIONS: [&str; 2] = ["config.json", "adapter_config.json"];

/// The most parts of a path that a short name has.
const PARTS: usize = 4;

/// Names of models, with patterns replaced by the models' folders and GGUF files that they match. Those of one pattern are in natural
/// order, `checkpoint-20` before `checkpoint-100`. Each name is there once.
///
/// # Errors
/// If a pattern is none, or matches nothing.
pub fn expand(patterns: &[String]) -> Result<Vec<String>, AnalysisError> {
    let mut found: Vec<String> = Vec::new();
    for pattern in patterns {
        let mut matched = matched(pattern)?;
        matched.retain(|name| !found.contains(name));
        found.extend(matched);
    }
    Ok(found)
}

/// What one name or pattern stands for.
fn matched(pattern: &str) -> Result<Vec<String>, AnalysisError> {
    // A folder may be called so.
    if !pattern.contains(WILD) || Path::new(pattern).exists() {
        return Ok(vec![pattern.to_string()]);
    }
    let bad = |why: String| AnalysisError::Bad(format!("`{pattern}` {why}"));
    let paths = glob::glob(pattern).map_err(|e| bad(format!("is no pattern: {e}")))?;
    let models = paths.filter_map(Result::ok).filter(|path| is_model(path));
    let mut found: Vec<String> = models.map(|path| path.display().to_string()).collect();
    if found.is_empty() {
        return Err(bad("matches no folder of a model and no .gguf file; check the path".to_string()));
    }
    found.sort_by_cached_key(|name| (natural(name), name.clone()));
    Ok(found)
}

/// Whether there is a model, as far as can be told without reading it. Beside checkpoints stand folders of logs.
fn is_model(path: &Path) -> bool {
    let described = || DESCRIPTIONS.iter().any(|name| path.join(name).is_file());
    path.extension().is_some_and(|ending| ending == "gguf") || described()
}

/// A name as texts, each with the number after it, if there is one: numbers are ordered by their value.
fn natural(name: &str) -> Vec<(String, Option<u64>)> {
    let (mut parts, mut rest) = (Vec::new(), name);
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (number, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        parts.push((text.to_string(), number.parse().ok()));
        rest = after;
    }
    parts
}

/// What the name of a step of training begins with.
const STEPS: [&str; 6] = ["checkpoint", "ckpt", "step", "iter", "epoch", "global_step"];

/// The step of training in a name, as trainers write it: `checkpoint-500`, `step_1000`, `global_step20`, at the end of its last part or
/// of the one before. None where neither is called so: `phi-2` is no step.
pub fn step_of(name: &str) -> Option<u64> {
    let name = name.trim_end_matches(".gguf").trim_end_matches(".toml");
    let parts = name.rsplit('/').filter(|part| !part.is_empty()).take(2);
    parts.into_iter().find_map(|part| {
        let before = part.trim_end_matches(|c: char| c.is_ascii_digit());
        let word = before.trim_end_matches(['-', '_']).to_ascii_lowercase();
        let is_step =
            STEPS.iter().any(|step| word.strip_suffix(step).is_some_and(|rest| !rest.ends_with(char::is_alphanumeric)));
        part[before.len()..].parse().ok().filter(|_| is_step)
    })
}

/// The training that a checkpoint is a step of: the folder that its step lies in.
pub fn training(name: &str) -> &str {
    let mut rest = name.trim_end_matches('/');
    // Its step may stand in the part before the last.
    while let Some((folder, last)) = rest.rsplit_once('/') {
        if step_of(last).is_some() || step_of(rest).is_none() {
            return folder;
        }
        rest = folder;
    }
    ""
}

/// Names as short as tells them apart: the last part of each path, or its last few where two have the same.
pub fn short_names(names: &[&str]) -> Vec<String> {
    let short = |parts: usize| -> Vec<String> { names.iter().map(|name| last_parts(name, parts)).collect() };
    let apart = (1..=PARTS).map(short).find(|names| named_twice(names).is_none());
    apart.unwrap_or_else(|| names.iter().map(|name| (*name).to_string()).collect())
}

/// So many parts of a path, from its end.
fn last_parts(name: &str, parts: usize) -> String {
    let name = name.trim_end_matches('/');
    let name = name.strip_suffix(".gguf").unwrap_or(name);
    let all: Vec<&str> = name.split('/').collect();
    all[all.len().saturating_sub(parts)..].join("/")
}

/// Opens a model of this name in the way in which another one was opened.
///
/// # Errors
/// If there is none, or it cannot be loaded; the message names it.
pub fn open(name: &str, options: &Options) -> Result<Model, AnalysisError> {
    Model::open(name, options).map_err(|e| match e {
        ModelError::Source(e) => AnalysisError::Bad(e.to_string()),
        e => AnalysisError::Bad(format!("model `{name}`: {e}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_pattern_stands_for_the_models_that_it_matches_in_natural_order() {
        let dir = TempDir::new().unwrap();
        for (folder, file) in [
            ("checkpoint-100", "config.json"),
            ("checkpoint-20", "config.json"),
            ("checkpoint-3", "adapter_config.json"),
            ("checkpoint-logs", "events"),
        ] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join(file), "{}").unwrap();
        }
        std::fs::write(dir.path().join("checkpoint-5.gguf"), "").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let found = expand(&["demo".to_string(), path("checkpoint-*"), path("checkpoint-20"), "demo".to_string()]);
        let expected = ["checkpoint-3", "checkpoint-5.gguf", "checkpoint-20", "checkpoint-100"].map(path);
        assert_eq!(found.unwrap(), [&["demo".to_string()][..], &expected].concat());
        assert!(expand(&[]).unwrap().is_empty());
        for (pattern, why) in [("nothing-*", "matches no folder of a model"), ("a***", "is no pattern")] {
            let found = expand(&[path(pattern)]).unwrap_err().to_string();
            assert!(found.contains(why) && found.contains(pattern), "{found}");
        }
    }

    #[test]
    fn numbers_in_names_are_ordered_by_their_value() {
        let mut names = ["run-10/step2", "run-9/step10", "run-9/step9", "run-9", "run-9/step9b"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["run-9", "run-9/step9", "run-9/step9b", "run-9/step10", "run-10/step2"]);
    }

    #[test]
    fn steps_are_read_from_the_ends_of_names() {
        for (name, step) in [
            ("out/checkpoint-500", Some(500)),
            ("out/step_1000/", Some(1000)),
            ("run-3/step2000/hf", Some(2000)),
            ("hf:owner/name@step143000", Some(143_000)),
            ("models/sft-checkpoint-20.gguf", Some(20)),
            ("out/global_step40", Some(40)),
            ("models/sft-20.gguf", None),
            ("run-1/model", None),
            ("step-1/a/b", None),
            ("footstep5", None),
            ("microsoft/phi-2", None),
            ("demo:backup", None),
            ("llama-2-7b", None),
            ("gpt2", None),
            ("", None),
        ] {
            assert_eq!(step_of(name), step, "{name}");
        }
    }

    #[test]
    fn a_training_is_the_folder_of_its_steps() {
        for (name, of) in
            [("a/sft/checkpoint-5", "a/sft"), ("a/sft/step3/hf/", "a/sft"), ("checkpoint-5", ""), ("a/b", "a")]
        {
            assert_eq!(training(name), of, "{name}");
        }
    }

    #[test]
    fn short_names_are_as_long_as_tells_them_apart() {
        assert_eq!(short_names(&["a/checkpoint-1/", "a/checkpoint-2"]), ["checkpoint-1", "checkpoint-2"]);
        assert_eq!(short_names(&["a/checkpoint-1", "b/checkpoint-1"]), ["a/checkpoint-1", "b/checkpoint-1"]);
        assert_eq!(short_names(&["demo:blind", "m/small.gguf"]), ["demo:blind", "small"]);
        assert!(short_names(&[]).is_empty());
    }

    #[test]
    fn a_model_that_is_not_there_is_named() {
        let why = open("no/such/model", &Options::default()).err().unwrap().to_string();
        assert!(why.contains("no/such/model"), "{why}");
    }
}
