//! Datasets, templates, models and devices that cannot be used.

use super::*;

#[test]
fn a_token_id_out_of_range_is_named_with_its_line() {
    let lines = [pair("a", &[1, 2], &[3, 4]), pair("b", &[1, 160], &[3, 4])].map(|v| v.to_string());
    refused_pairs(&lines.join("\n"), &[], &["line 2", "\"b\"", "160", "0 to 159"]);
    let answer =
        json!({ "id": "a", "positive": { "ids": [1] }, "negative": { "ids": [2] }, "answer": [160], "foil": [1] });
    refused_pairs(&answer.to_string(), &[], &["line 1", "\"answer\"", "160", "0 to 159"]);
}

#[test]
fn an_empty_dataset_is_refused() {
    for text in ["", "\n\n", "  \n"] {
        refused_pairs(text, &[], &["no item"]);
    }
}

#[test]
fn a_line_that_is_no_json_object_is_named_by_its_number() {
    let good = pair("a", &[1, 2], &[3, 4]).to_string();
    refused_pairs(&format!("{good}\n\n{{\"id\": 3,\n"), &[], &["line 3"]);
    refused_pairs(&format!("{good}\n[1]"), &[], &["line 2, column 1", "object"]);
    refused_pairs(&format!("{good}\n{good}"), &[], &["line 2", "line 1", "\"a\""]);
    refused_pairs(r#"{"id": 1, "positiv": "x", "negative": "y"}"#, &[], &["line 1", "\"positive\"", "positiv"]);
}

#[test]
fn a_prompt_longer_than_the_context_is_named_with_both_lengths() {
    let long: Vec<u32> = (0..129).collect();
    refused_pairs(&pair("long one", &[1], &long).to_string(), &[], &["line 1", "\"long one\"", "129", "128"]);
}

#[test]
fn a_prompt_as_long_as_the_context_is_run() {
    let bench = Bench::new();
    let long: Vec<u32> = (0..128).collect();
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &long, &[1])]);
    for family in ["llama", "gpt2", "gemma2"] {
        bench.interchange_to(&bench.out(family), &family_dir(family), &pairs, &[]).done();
    }
}

#[test]
fn pairs_of_unequal_length_are_refused_where_all_positions_are_exchanged() {
    let line = pair("uneven", &[1, 2, 3], &[4, 5]).to_string();
    let parts = ["line 1", "\"uneven\"", "3 tokens", "2", "--position last"];
    refused_pairs(&line, &["--position", "all"], &parts);
    let far = ["line 1", "\"uneven\"", "2 tokens", "-3"];
    refused_pairs(&line, &["--position", "-3"], &far);
}

#[test]
fn a_metric_needs_an_answer_and_a_foil_that_differ() {
    let line = |more: Value| {
        let mut line = json!({ "id": "p", "positive": { "ids": [1] }, "negative": { "ids": [2] } });
        line.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        line.to_string()
    };
    refused_pairs(&line(json!({})), &[], &["line 1", "\"p\"", "\"answer\"", "--answer"]);
    refused_pairs(&line(json!({ "answer": [1] })), &[], &["line 1", "\"p\"", "\"foil\"", "--foil"]);
    refused_pairs(&line(json!({ "answer": [1, 2], "foil": [3, 2] })), &[], &["line 1", "\"p\"", "token 2"]);
    refused_pairs(&line(json!({ "answer": [], "foil": [3] })), &[], &["line 1", "\"answer\"", "empty list"]);
    // A text needs a tokenizer, which the fixture has not.
    refused_pairs(&line(json!({ "answer": ["yes"], "foil": [3] })), &[], &["line 1", "\"answer\"", "tokenizer.json"]);
}

#[test]
fn a_token_of_a_flag_is_refused_with_the_flag_and_no_line() {
    let bench = Bench::new();
    let line = json!({ "id": "p", "positive": { "ids": [1] }, "negative": { "ids": [2] } });
    let pairs = bench.dataset("pairs.jsonl", &[line]);
    let with = |answer: &str| bench.interchange(&family_dir("llama"), &pairs, &["--answer", answer, "--foil", "id:1"]);
    let out_of_range = with("id:999999");
    assert!(!out_of_range.stderr.contains("line"), "{}", out_of_range.stderr);
    out_of_range.refused(&["--answer", "999999", "0 to 159"]);
    for wrong in ["id:12a", "id:5,6", "id:-1", "id: 7"] {
        with(wrong).refused(&["--answer", wrong, "whole number"]);
    }
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_field_that_is_nearly_an_optional_one_is_warned_of_once_on_standard_error() {
    let bench = Bench::new();
    let mut lines = [pair("a", &[1, 2], &[3, 4]), pair("b", &[1, 2], &[3, 5])];
    lines.iter_mut().for_each(|line| line["grop"] = json!("g"));
    let pairs = bench.dataset("pairs.jsonl", &lines);
    let ended = bench.interchange(&family_dir("llama"), &pairs, &[]);
    let said: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("\"grop\"")).collect();
    assert!(said.len() == 1 && said[0].contains("line 1") && said[0].contains("\"group\""), "{}", ended.stderr);
    ended.done();
}

#[test]
fn a_text_prompt_without_a_tokenizer_says_what_is_missing() {
    let line = json!({ "id": "p", "positive": "hello", "negative": "you", "answer": [1], "foil": [2] });
    refused_pairs(&line.to_string(), &[], &["line 1", "\"positive\"", "tokenizer.json"]);
}

#[test]
fn a_dataset_that_is_not_there_is_named() {
    let bench = Bench::new();
    bench.interchange(&family_dir("llama"), &bench.path("none.jsonl"), &[]).refused(&["none.jsonl", "check the path"]);
    bench.interchange(&family_dir("llama"), &bench.path("out"), &[]).refused(&["out", "directory"]);
    let misspelt = bench.interchange(&family_dir("llama"), Path::new("demo:pair.jsonl"), &[]);
    misspelt.refused(&["demo:pair.jsonl", "demo:pairs.jsonl"]);
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_chat_template_that_never_ends_is_stopped() {
    let endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let model = Folder::of("llama").with_template(endless);
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": "how are you" })]);
    let started = std::time::Instant::now();
    let parts = ["prompts.jsonl", "line 1", "\"p\"", "chat template", "loops without end"];
    bench.trace(model.path(), &prompts, "logits", &[]).refused(&parts);
    assert!(started.elapsed().as_secs() < 60, "it took {:?}", started.elapsed());
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_chat_template_that_refuses_or_is_wrong_is_an_error_at_its_line() {
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": "how are you" })]);
    for (template, part) in [("{{ raise_exception('no users here') }}", "no users here"), ("{% for %}", "template")] {
        let model = Folder::of("llama").with_template(template);
        bench.trace(model.path(), &prompts, "logits", &[]).refused(&["prompts.jsonl", "line 1", part]);
        inspect(model.path(), &[]).done();
    }
}

// Models that are not there

#[test]
fn a_path_that_is_not_there_is_never_asked_of_the_hub() {
    let hub = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    hub.set_nonblocking(true).expect("a listener that does not wait");
    let endpoint = format!("http://{}", hub.local_addr().expect("an address"));
    let bench = Bench::new();
    for (name, hint) in [("owner/name", "hf:owner/name"), ("./owner/name", "no such"), ("some.gguf", "no such")] {
        let mut command = command(["inspect", name]);
        command.env("HF_ENDPOINT", &endpoint).env("HF_HOME", bench.path("cache")).current_dir(bench.path("out"));
        ended(command.output().expect("the binary starts")).refused(&[name, "no such file or folder", hint]);
    }
    assert!(hub.accept().is_err(), "the hub was asked");
    assert!(!bench.path("cache").exists());
}

#[test]
fn a_model_that_is_neither_folder_nor_gguf_says_what_is_read() {
    let bench = Bench::new();
    inspect(&bench.path("out"), &[]).refused(&["config.json", ".gguf"]);
    let file = bench.text("model.bin", "x");
    inspect(&file, &[]).refused(&["model.bin", ".gguf"]);
    inspect(&family_dir("llama").join("model.safetensors"), &[]).refused(&["folder that holds"]);
}

#[test]
fn cuda_in_a_build_without_it_is_refused() {
    if candle_core::utils::cuda_is_available() {
        println!("skipped: this build has CUDA");
        return;
    }
    refused_with(&family_dir("llama"), &["--device", "cuda"], &["cuda", "this build has no CUDA", "--device cpu"]);
    refused_with(&family_dir("llama"), &["--device", "cuda:x"], &["cuda:x", "cpu, cuda or cuda:N"]);
}
