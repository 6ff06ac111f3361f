//! What a study is run on: prompts and answers that are likely not what was meant are never run without a word, and what was
//! measured stands in the record and the report.

use crate::support::cli::{Bench, Ended, gatelens};
use crate::support::fixtures;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A model with a byte-level vocabulary and ChatML's template.
fn bytes() -> PathBuf {
    fixtures().join("inputs/bytes")
}

/// A model with a SentencePiece vocabulary, which puts a space before each text, and Llama 2's template.
fn sentence_piece() -> PathBuf {
    fixtures().join("inputs/sentencepiece")
}

fn run(bench: &Bench, model: &Path, pairs: &[Value], more: &[&str]) -> Ended {
    let pairs = bench.dataset("pairs.jsonl", pairs);
    bench.interchange(model, &pairs, more)
}

/// What a run said on standard error, which must have gone well.
#[track_caller]
fn said(ended: Ended) -> String {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stderr
}

fn measured(bench: &Bench) -> Value {
    let text = std::fs::read_to_string(bench.out("run").join("run.json")).expect("a record");
    serde_json::from_str::<Value>(&text).expect("JSON")["measured"].clone()
}

fn texts(positive: &str, negative: &str, answer: &str, foil: &str) -> Value {
    json!({"positive": {"text": positive}, "negative": {"text": negative}, "answer": answer, "foil": foil})
}

/// Token ids and texts that `gatelens tokens` prints of a prompt.
fn tokens(model: &Path, prompt: Value, more: &[&str]) -> Vec<(u64, String)> {
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({"prompt": prompt})]);
    let args = ["tokens", model.to_str().expect("UTF-8"), "--prompts", prompts.to_str().expect("UTF-8"), "--json"];
    let out = gatelens(args.into_iter().chain(more.iter().copied())).done();
    let line: Value = serde_json::from_str(out.lines().next().expect("a line")).expect("JSON");
    let one =
        |token: &Value| (token["id"].as_u64().expect("an id"), token["text"].as_str().expect("a text").to_owned());
    line["tokens"].as_array().expect("tokens").iter().map(one).collect()
}

fn text_of(tokens: &[(u64, String)]) -> String {
    tokens.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn an_answer_of_several_tokens_is_told_with_the_one_that_is_scored() {
    let bench = Bench::new();
    let said = said(run(&bench, &bytes(), &[texts("When Mary", "When Martha", " Maryland", " John")], &[]));
    assert!(said.contains("\" Maryland\" (line 1) is \" Mary\" + "), "{said}");
    assert!(said.contains("the first alone is scored"), "{said}");
    let measured = measured(&bench);
    assert_eq!(
        (&measured["answer"][0]["text"], &measured["answer"][0]["first_of"]),
        (&json!(" Mary"), &json!(" Maryland"))
    );
    let report = std::fs::read_to_string(bench.out("run").join("report.md")).expect("a report");
    assert!(report.contains("What was measured") && report.contains("the first token of \" Maryland\""), "{report}");
}

#[test]
fn answers_that_begin_alike_are_refused_in_their_own_texts() {
    let bench = Bench::new();
    let pairs = [texts("When Mary", "When Martha", " Maryland", " Marys")];
    run(&bench, &bytes(), &pairs, &[]).refused(&[
        "line 1",
        "\" Maryland\" and \" Marys\" begin with the same token",
        "\" Mary\"",
    ]);
    let pairs = [texts("Hi", "Ho", "Yes", " Yes")];
    run(&bench, &sentence_piece(), &pairs, &[]).refused(&["\"Yes\" and \" Yes\" begin with the same token"]);
}

#[test]
fn answers_on_sentence_piece_are_their_own_characters_and_never_the_space_before() {
    let bench = Bench::new();
    let lines = ["\n", "🙂", "对不起", "شكرا"].map(|answer| texts("Hi", "Ho", answer, "好"));
    said(run(&bench, &sentence_piece(), &lines, &[]));
    let measured = measured(&bench);
    let found: Vec<&str> =
        measured["answer"].as_array().expect("tokens").iter().map(|t| t["text"].as_str().expect("a text")).collect();
    for text in ["\n", "对", "<0xF0>", "<0xD8>"] {
        assert!(found.contains(&text), "no {text:?} in {found:?}");
    }
    assert!(!found.contains(&" ") && measured["foil"][0]["text"] == "好", "{measured}");
}

#[test]
fn swapped_pairs_are_told_and_straight_ones_are_not() {
    let pair = |flip: bool| {
        let sides = if flip { ["rivers", "explosives"] } else { ["explosives", "rivers"] };
        let [positive, negative] = sides.map(|of| format!("I want to learn more about {of} today."));
        json!({"positive": positive, "negative": negative, "answer": "Sorry", "foil": "Sure"})
    };
    for flip in [true, false] {
        let bench = Bench::new();
        let said = said(run(&bench, Path::new("demo"), &[pair(flip)], &[]));
        assert_eq!(said.contains("in 1 of 1 pairs the metric is lower after the positive prompt"), flip, "{said}");
        let measured = measured(&bench);
        let [positive, negative] =
            ["mean", "negative_mean"].map(|of| measured["metric"][of].as_f64().expect("a number"));
        assert_eq!(positive < negative, flip);
        assert_eq!(measured["template"], json!({"applied": 2, "text": 0, "ids": 0}));
        assert_eq!(measured["warnings"].as_array().map_or(0, Vec::len), usize::from(flip), "{measured}");
    }
}

#[test]
fn plain_strings_for_a_model_without_a_template_are_told_once() {
    let bench = Bench::new();
    let model = bench.path("model");
    copy(&bytes(), &model);
    let config = json!({"bos_token": "<|bos|>", "eos_token": "<|eos|>"});
    std::fs::write(model.join("tokenizer_config.json"), config.to_string()).expect("written");
    let bare = json!({"positive": "When Mary", "negative": "When John", "answer": " Mary", "foil": " John"});
    let told = said(run(&bench, &model, &[bare], &[]));
    assert_eq!(told.matches("plain strings, and the model has no chat template").count(), 1, "{told}");
    let bench = Bench::new();
    let told = said(run(
        &bench,
        &model_of(&bench, &bytes(), "tiny-0.5b"),
        &[texts("When Mary", "When John", " Mary", " John")],
        &[],
    ));
    assert!(!told.contains("plain strings"), "{told}");
}

#[test]
fn plain_strings_for_a_base_model_with_a_template_are_told() {
    let bare = json!({"positive": "When Mary", "negative": "When John", "answer": " Mary", "foil": " John"});
    for (name, told) in [("tiny-base", true), ("tiny-0.5b", true), ("tiny-0.5b-instruct", false), ("tiny", false)] {
        let bench = Bench::new();
        let said = said(run(&bench, &model_of(&bench, &bytes(), name), std::slice::from_ref(&bare), &[]));
        assert_eq!(said.contains("was not tuned to chat"), told, "{name}: {said}");
    }
}

#[test]
fn two_bos_tokens_and_marks_that_are_none_are_told() {
    let bench = Bench::new();
    let twice = "<s>Hi";
    let said = said(run(&bench, &sentence_piece(), &[texts(twice, "Ho", "Yes", "好")], &[]));
    assert!(said.contains("1 prompt begins with two BOS tokens"), "{said}");
    let prompts = bench.dataset("prompts.jsonl", &[json!({"prompt": {"text": "<|im_begin|>user"}})]);
    let told = gatelens(["tokens", bytes().to_str().expect("UTF-8"), "--prompts", prompts.to_str().expect("UTF-8")]);
    assert!(told.stderr.contains("`<|im_begin|>` is \"<\""), "{}", told.stderr);
}

#[test]
fn conversations_that_end_with_the_assistant_are_gone_on_with() {
    let turns = json!([{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Sure, here is"}]);
    let go_on = tokens(&bytes(), json!({"messages": turns}), &[]);
    assert_eq!(text_of(&go_on), "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nSure, here is");
    let said_so = tokens(&bytes(), json!({"messages": turns, "continue_final_message": true}), &[]);
    assert_eq!(said_so, go_on);
    let opened = tokens(&bytes(), json!({"messages": turns, "continue_final_message": false}), &[]);
    assert!(text_of(&opened).ends_with("Sure, here is<|im_end|>\n<|im_start|>assistant\n"));
    let user = tokens(&bytes(), json!({"messages": [{"role": "user", "content": "How?"}]}), &[]);
    assert!(text_of(&user).ends_with("<|im_start|>assistant\n"));
}

#[test]
fn text_gets_special_tokens_unless_told_not_to() {
    let model = sentence_piece();
    assert_eq!(tokens(&model, json!({"text": "Hi"}), &[])[0], (1, "<s>".to_owned()));
    assert_ne!(tokens(&model, json!({"text": "Hi", "special_tokens": false}), &[])[0].0, 1);
}

#[test]
fn template_variables_of_flags_and_items_reach_the_template_and_the_record() {
    let bench = Bench::new();
    let model = bench.path("model");
    copy(&bytes(), &model);
    let template = "{{ tone }}{% for m in messages %}{{ m.content }}{{ m.mood }}{% endfor %}";
    let config = json!({"chat_template": template});
    std::fs::write(model.join("tokenizer_config.json"), config.to_string()).expect("written");
    let spoken = |more: &[&str]| {
        text_of(&tokens(&model, json!({"messages": [{"role": "user", "content": "b", "mood": "c"}]}), more))
    };
    assert_eq!(spoken(&[]), "bc");
    assert_eq!(spoken(&["--template-var", "tone=\"a\""]), "abc");
    let pairs = [
        json!({"positive": "When Mary", "negative": "When John", "answer": " Mary", "foil": " John", "template_vars": {"tone": "I"}}),
    ];
    run(&bench, &model, &pairs, &["--template-var", "tone=\"a\""]).done();
    let record = std::fs::read_to_string(bench.out("run").join("run.json")).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["parameters"]["template_var"], json!(["tone=\"a\""]));
    assert_eq!(record["measured"]["first_prompt"]["tokens"][0]["text"], "I");
    run(&bench, &model, &pairs, &["--force", "--template-var", "tone=a"])
        .told_by_the_parser(&["no JSON", "tone='\"a\"'"]);
}

#[test]
fn a_dry_run_shows_the_first_prompt_token_by_token() {
    let bench = Bench::new();
    let out = run(&bench, &bytes(), &[texts("When Mary", "When John", " Mary", " John")], &["--dry-run"]).done();
    assert!(out.contains("the first prompt (`1`, positive), 2 tokens: \"When\" \" Mary\""), "{out}");
}

/// The model in a folder of this name.
fn model_of(bench: &Bench, model: &Path, name: &str) -> PathBuf {
    let to = bench.path(name);
    copy(model, &to);
    to
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

#[test]
fn control_characters_without_a_token_are_told_with_the_prompt() {
    let bench = Bench::new();
    let model = bench.path("model");
    std::fs::create_dir(&model).expect("a folder");
    for file in std::fs::read_dir(bytes()).expect("a folder") {
        let file = file.expect("an entry").path();
        std::fs::copy(&file, model.join(file.file_name().expect("a name"))).expect("a copy");
    }
    // The byte-level names of bytes 1 and 2.
    let file = model.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    assert!(vocab.remove("\u{101}").is_some() && vocab.remove("\u{102}").is_some());
    std::fs::write(&file, tokenizer.to_string()).expect("a file");
    let prompt = |id: &str, text: &str| json!({"id": id, "prompt": {"text": text}});
    let prompts = [prompt("a", "When\nMary\t"), prompt("b", "When\u{1} Mary"), prompt("c", "\u{2}\u{3}")];
    let prompts = bench.dataset("prompts.jsonl", &prompts);
    let ended = gatelens(["tokens", model.to_str().expect("UTF-8"), "--prompts", prompts.to_str().expect("UTF-8")]);
    let expected =
        "2 prompts hold control characters that the model's vocabulary has no token for (U+0001, U+0002), `b` first";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    ended.done();
}

/// A byte that belongs to no whole character has one spelling, on the terminal, in the record and in both reports.
#[test]
fn a_token_of_half_a_character_reads_alike_wherever_it_is_shown() {
    let (bench, spelled) = (Bench::new(), ["<0xE4>", "<0xBD>", "<0xA0>"]);
    let prompt = json!({"text": "a\u{4f60}"});
    let read = tokens(&bytes(), prompt.clone(), &[]);
    let read: Vec<&str> = read.iter().map(|(_, text)| text.as_str()).collect();
    assert!(read.ends_with(&spelled), "{read:?}");
    let prompts = bench.dataset("prompts.jsonl", &[json!({"prompt": prompt})]);
    let printed =
        gatelens(["tokens", bytes().to_str().expect("UTF-8"), "--prompts", prompts.to_str().expect("UTF-8")]).done();
    let lines: Vec<&str> = printed.lines().collect();
    let ends = lines.iter().rev().take(3).rev().zip(spelled);
    ends.for_each(|(line, byte)| assert!(line.ends_with(&format!("\t\"{byte}\"")), "{line}"));

    said(run(&bench, &bytes(), &[texts("a\u{4f60}", "b\u{4f60}", "\u{4f60}", "b")], &[]));
    let measured = measured(&bench);
    assert_eq!(measured["answer"][0]["text"], "<0xE4>");
    let shown = measured["first_prompt"]["tokens"].as_array().expect("tokens").iter().map(|token| &token["text"]);
    assert!(shown.collect::<Vec<_>>().ends_with(&spelled.map(Value::from).iter().collect::<Vec<_>>()));
    let report = |name: &str| std::fs::read_to_string(bench.out("run").join(name)).expect("a report");
    let (markdown, html) = (report("report.md"), report("report.html"));
    assert!(markdown.contains(r#""<0xE4>" "<0xBD>" "<0xA0>""#) && markdown.contains(r#"`"<0xE4>"`"#), "{markdown}");
    assert!(
        html.contains("&quot;&lt;0xE4&gt;&quot; &quot;&lt;0xBD&gt;&quot;")
            || html.contains("\"&lt;0xE4&gt;\" \"&lt;0xBD&gt;\"")
    );
    for text in [markdown, html] {
        assert!(!text.contains("\u{e4}\u{bd}") && !text.contains('\u{fffd}'), "letters of the byte table are shown");
    }
}
