//! Templates and expressions rendered as Python's Jinja2 renders them, set up as `transformers` sets it up. What it
//! rendered stands in `tests/fixtures/templates`, written by `scripts/make_template_cases.py`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::{ChatTemplate, Message};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates")
}

fn read(name: &str) -> Json {
    let bytes = std::fs::read(folder().join(name)).expect(name);
    serde_json::from_slice(&bytes).expect(name)
}

fn object(value: &Json) -> Map<String, Json> {
    value.as_object().cloned().unwrap_or_default()
}

/// What gatelens makes of a template: its text, or nothing where it refuses.
fn render(source: &str, messages: &Json, prompted: bool, variables: &Map<String, Json>) -> Result<String, String> {
    let specials = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>"), ("image_token", "<image>")];
    let specials = specials.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let messages: Vec<Message> = serde_json::from_value(messages.clone()).expect("messages");
    let template = ChatTemplate::new(source, &specials).map_err(|error| error.to_string())?;
    template.render(&messages, prompted, variables).map_err(|error| error.to_string())
}

/// How a case differs from Python's, if it does.
fn difference(name: &str, case: &Json, ours: Result<String, String>) -> Option<String> {
    let python = case.get("output").and_then(Json::as_str);
    match (python, &ours) {
        (Some(text), Ok(ours)) if text == ours => None,
        (None, Err(_)) => None,
        (Some(text), _) => Some(format!("{name}\n  Python   {text:?}\n  gatelens {ours:?}")),
        (None, _) => Some(format!("{name}\n  Python   {}\n  gatelens {ours:?}", case["error"])),
    }
}

#[test]
fn expressions_are_what_they_are_in_python() {
    let (variables, cases) = (object(&read("variables.json")), read("expressions.json"));
    let cases = cases.as_array().expect("a list");
    assert!(cases.len() >= 600, "{} expressions", cases.len());
    let differ: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let source = case["source"].as_str().expect("a source");
            difference(source, case, render(source, &Json::Array(Vec::new()), false, &variables))
        })
        .collect();
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), cases.len(), differ.join("\n"));
}

#[test]
fn templates_of_every_family_render_what_python_renders() {
    let (conversations, cases) = (object(&read("conversations.json")), object(&read("renderings.json")));
    assert!(cases.len() >= 20 && conversations.len() >= 8, "{} templates, {}", cases.len(), conversations.len());
    let mut differ = Vec::new();
    for (template, cases) in &cases {
        let source = std::fs::read_to_string(folder().join(format!("{template}.jinja"))).expect(template);
        for (name, conversation) in &conversations {
            let variables = object(&conversation["variables"]);
            let prompted = conversation["add_generation_prompt"] == true;
            let ours = render(&source, &conversation["messages"], prompted, &variables);
            differ.extend(difference(&format!("{template}, {name}"), &cases[name], ours));
        }
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
}
