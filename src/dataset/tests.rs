use super::*;
use std::io::Write;

fn file(bytes: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes.as_ref()).unwrap();
    file
}

fn pair_error(bytes: impl AsRef<[u8]>) -> String {
    read_pairs(file(bytes).path()).unwrap_err().to_string()
}

fn prompt_error(bytes: impl AsRef<[u8]>) -> String {
    read_prompts(file(bytes).path()).unwrap_err().to_string()
}

#[test]
fn a_pair_is_read_with_all_its_fields_and_unknown_ones_are_passed_over() {
    let file = file(
        r#"{"id": "a", "z": 1, "positive": "p", "negative": {"text": "n"}, "group": "g", "lang": "en",
            "answer": ["I", 5], "foil": " Sure", "b": [2], "spans": {"S2": [9, 2], "END": [-1]}}"#
            .replace('\n', " "),
    );
    let dataset = read_pairs(file.path()).unwrap();
    let pair = &dataset.items[0];
    assert_eq!((pair.id.as_str(), pair.line), ("a", 1));
    assert_eq!(pair.positive, Input::user("p"));
    assert_eq!(pair.negative, Input::text("n"));
    assert_eq!((pair.group.as_deref(), pair.lang.as_deref()), (Some("g"), Some("en")));
    assert_eq!(pair.answer, [TokenRef::Text("I".into()), TokenRef::Id(5)]);
    assert_eq!(pair.foil, [TokenRef::Text(" Sure".into())]);
    let span = |name: &str, positions: &[i64]| Span { name: name.to_owned(), positions: positions.to_vec() };
    assert_eq!(pair.spans, [span("S2", &[9, 2]), span("END", &[-1])]);
    assert_eq!(dataset.warnings, [""; 0]);
}

#[test]
fn a_span_is_found_in_the_prompt_from_either_end_and_a_position_beyond_is_named() {
    let of = |positions: &[i64]| Span { name: "S".to_owned(), positions: positions.to_vec() }.of(5);
    assert_eq!(of(&[4, 0, -1, 2]), Ok(vec![0, 2, 4]));
    assert_eq!((of(&[0, 5]), of(&[-6]), of(&[i64::MIN])), (Err(5), Err(-6), Err(i64::MIN)));
}

#[test]
fn wrong_spans_are_refused_where_they_stand() {
    let with =
        |spans: &str| pair_error(format!(r#"{{"id": "a", "positive": "x", "negative": "y", "spans": {spans}}}"#));
    let message = with("[9]");
    assert!(message.contains(r#"line 1: field "spans": expected an object of names and positions"#), "{message}");
    assert!(message.ends_with("found a list"), "{message}");
    assert!(
        with(r#"{"S2": 9}"#)
            .contains(r#"field "spans.S2": expected a list of positions, not empty, found the number 9"#)
    );
    assert!(with(r#"{"S2": []}"#).contains("found an empty list"));
    assert!(with(r#"{"S2": [1, 2.5]}"#).contains(r#"field "spans.S2[1]": expected a position, a whole number"#));
    assert!(with(r#"{"S2": ["last"]}"#).contains("found a string"));
    for name in ["", "2S", "a b", "../x", "last", "all", "é"] {
        let message = with(&format!(r#"{{"{name}": [1]}}"#));
        assert!(
            message.contains("expected a name of ASCII letters") && message.contains(&format!("{name:?}")),
            "{message}"
        );
    }
}

#[test]
fn a_field_that_is_nearly_an_optional_one_is_warned_of_once_with_its_first_line() {
    let file = file(concat!(
        r#"{"id": 1, "positive": "a", "negative": "b"}"#,
        "\n",
        r#"{"id": 2, "positive": "a", "negative": "b", "anwser": ["I"], "note": "x", "facts": "no field of pairs"}"#,
        "\n",
        r#"{"id": 3, "positive": "a", "negative": "b", "anwser": ["I"], "langs": "en"}"#,
    ));
    let path = file.path().display();
    let expected = [
        format!("{path}: line 2: the field \"anwser\" is passed over; was \"answer\" meant?"),
        format!("{path}: line 3: the field \"langs\" is passed over; was \"lang\" meant?"),
    ];
    assert_eq!(read_pairs(file.path()).unwrap().warnings, expected);
}

#[test]
fn a_prompt_takes_every_form_of_input() {
    let file = file(concat!(
        r#"{"id": 1, "prompt": {"messages": [{"role": "user", "content": "hi"}]}, "label": true}"#,
        "\n",
        r#"{"id": "2", "prompt": {"ids": [1, 2, 4294967295]}, "facts": "Paris", "group": null, "answer": 7}"#,
    ));
    let items = read_prompts(file.path()).unwrap().items;
    let hi = Message::new("user", "hi");
    let messages = Input::Messages { messages: vec![hi], go_on: None, vars: Vars::new() };
    assert_eq!(items[0].prompt, messages);
    assert_eq!((items[0].id.as_str(), items[0].label.as_deref()), ("1", Some("true")));
    assert_eq!(items[1].prompt, Input::Ids(vec![1, 2, u32::MAX]));
    assert_eq!(items[1].facts, ["Paris"]);
    assert_eq!(items[1].answer, [TokenRef::Id(7)]);
    assert_eq!(items[1].group, None);
}

#[test]
fn a_byte_order_mark_blank_lines_and_crlf_are_tolerated_and_lines_keep_their_numbers() {
    let file = file("\u{feff}{\"id\":\"a\",\"prompt\":\"x\"}\r\n\r\n  \n{\"id\":\"b\",\"prompt\":\"y\"}\r\n");
    let items = read_prompts(file.path()).unwrap().items;
    assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [1, 4]);
}

#[test]
fn the_hash_is_that_of_the_files_bytes() {
    let file = file("{\"id\":\"a\",\"prompt\":\"x\"}\n");
    let bytes = std::fs::read(file.path()).unwrap();
    let expected: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(read_prompts(file.path()).unwrap().sha256, expected);
}

#[test]
fn a_wrong_type_names_file_line_field_expected_and_found() {
    let file = file(
        "{\"id\":\"a\",\"positive\":\"x\",\"negative\":\"y\"}\n\n{\"id\":\"b\",\"positive\":3,\"negative\":\"y\"}",
    );
    let message = read_pairs(file.path()).unwrap_err().to_string();
    let expected = format!(
        "{}: line 3: field \"positive\": expected a string, {{\"text\"}}, {{\"messages\"}} or {{\"ids\"}}, \
         found the number 3",
        file.path().display()
    );
    assert_eq!(message, expected);
}

#[test]
fn a_missing_field_is_named_with_the_near_miss_in_the_line() {
    let message = pair_error(r#"{"id": "a", "postive": "x", "negative": "y"}"#);
    assert!(message.contains(r#"line 1: field "positive" is missing: expected a string"#), "{message}");
    assert!(message.contains(r#"the line has "postive""#), "{message}");
}

#[test]
fn empty_inputs_are_refused_where_they_stand() {
    let with = |input: &str| prompt_error(format!("{{\"id\": \"a\", \"prompt\": {input}}}"));
    assert!(with("\"\"").contains("found an empty string"));
    assert!(with("{\"text\": \"\"}").contains(r#"field "prompt.text": expected a string that is not empty"#));
    assert!(with("{\"ids\": []}").contains(r#"field "prompt.ids""#));
    assert!(with("{\"messages\": []}").contains(r#"field "prompt.messages""#));
    assert!(with("{}").contains("found an object with no field"));
    assert!(with("null").contains("found null"));
}

#[test]
fn a_fault_inside_an_input_names_its_place() {
    let with = |input: &str| prompt_error(format!("{{\"id\": \"a\", \"prompt\": {input}}}"));
    let message = with("{\"ids\": [1, -2]}");
    assert!(message.contains(r#"field "prompt.ids[1]""#) && message.contains("found the number -2"), "{message}");
    assert!(with("{\"ids\": [4294967296]}").contains("prompt.ids[0]"));
    assert!(with("{\"ids\": [1.5]}").contains("found the number 1.5"));
    let message = with("{\"messages\": [{\"role\": \"user\"}]}");
    assert!(message.contains("prompt.messages[0]") && message.contains("without \"content\""), "{message}");
    assert!(with("{\"messages\": [{\"role\": \"\", \"content\": \"\"}]}").contains("the role is \"\""));
    assert!(with("{\"messages\": [{\"content\": \"\"}]}").contains("missing field `role`"));
    assert!(with("{\"messages\": [\"hi\"]}").contains("found a string"));
    assert!(with("{\"text\": \"a\", \"ids\": [1]}").contains("both \"text\" and \"ids\""));
    assert!(with("{\"txt\": \"a\"}").contains("an object with \"txt\""));
}

#[test]
fn wrong_answers_foils_facts_and_ids_are_refused() {
    let with = |rest: &str| prompt_error(format!("{{\"id\": \"a\", \"prompt\": \"x\", {rest}}}"));
    assert!(with("\"answer\": [\"a\", true]").contains("field \"answer[1]\""));
    assert!(with("\"foil\": []").contains("found an empty list"));
    assert!(with("\"facts\": {\"a\": 1}").contains("field \"facts\": expected a list of strings, found an object"));
    assert!(with("\"group\": [1]").contains("field \"group\": expected a string, found a list"));
    assert!(prompt_error("{\"id\": \"\", \"prompt\": \"x\"}").contains("field \"id\""));
}

#[test]
fn a_duplicate_id_names_both_lines_also_when_one_is_a_number() {
    let message = prompt_error("{\"id\": 7, \"prompt\": \"x\"}\n\n{\"id\": \"7\", \"prompt\": \"y\"}");
    assert!(message.contains("line 3") && message.contains("already the id of line 1"), "{message}");
}

#[test]
fn bad_json_names_line_and_column_and_repeated_keys_are_refused() {
    let message = prompt_error("{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"b\" \"prompt\": \"x\"}");
    assert!(message.contains("line 2, column 12: ") && !message.contains("at line 1"), "{message}");
    assert!(prompt_error("[1]").contains("expected one JSON object a line"));
    assert!(prompt_error("{\"id\": 1, \"id\": 2, \"prompt\": \"x\"}").contains("field \"id\" stands twice"));
    assert!(prompt_error("{\"id\": 1, \"prompt\": \"x\"} {}").contains("trailing characters"));
}

#[test]
fn repeated_keys_are_refused_inside_inputs_too() {
    let with = |input: &str| prompt_error(format!("{{\"id\": \"a\", \"prompt\": {input}}}"));
    assert!(with(r#"{"text": "a", "text": "b"}"#).contains("field \"text\" stands twice"));
    let twice = r#"{"messages": [{"role": "user", "content": "a", "content": "b"}]}"#;
    assert!(with(twice).contains("field \"content\" stands twice"));
}

#[test]
fn a_line_that_is_not_utf8_names_its_line_and_byte() {
    let message = prompt_error(b"{\"id\": 1, \"prompt\": \"x\"}\n{\"id\": \"\xff\"}");
    assert!(message.contains("line 2: byte 9 is not UTF-8"), "{message}");
}

#[test]
fn a_file_of_the_other_kind_is_recognised() {
    let message = pair_error("{\"id\": 1, \"prompt\": \"x\"}");
    assert!(message.contains("this is a prompts file") && message.contains("expected a pairs file"), "{message}");
    let message = prompt_error("{\"id\": 1, \"positive\": \"x\", \"negative\": \"y\"}");
    assert!(message.contains("this is a pairs file"), "{message}");
}

#[test]
fn an_empty_file_a_missing_file_and_a_directory_are_refused() {
    assert!(prompt_error("\n \n").contains("holds no item"));
    let folder = tempfile::tempdir().unwrap();
    let message = read_pairs(folder.path()).unwrap_err().to_string();
    assert!(message.contains("is a directory"), "{message}");
    let message = read_pairs(folder.path().join("none.jsonl")).unwrap_err().to_string();
    assert!(message.contains("cannot be opened"), "{message}");
    let message = read_pairs("demo:pair.jsonl").unwrap_err().to_string();
    let expected = "demo:pair.jsonl: is not a file of the demo; the nearest names are: demo:pairs.jsonl, ";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_line_over_the_limit_is_refused_without_being_read_whole() {
    let mut bytes = b"{\"id\": 1, \"prompt\": \"x\"}\n".to_vec();
    bytes.resize(bytes.len() + MAX_LINE_BYTES + 10, b'a');
    assert!(prompt_error(bytes).contains("line 2: longer than 16 MiB"));
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let message = prompt_error(format!("{{\"id\": 1, \"prompt\": \"x\", \"extra\": {nested}}}"));
    assert!(message.contains("recursion limit"), "{message}");
}

#[test]
fn a_file_of_a_hundred_thousand_lines_is_read_whole() {
    let line = |i: usize| format!("{{\"id\": \"p{i}\", \"prompt\": \"How do I tie knot {i}?\", \"group\": \"g\"}}\n");
    let items = read_prompts(file((0..100_000).map(line).collect::<String>()).path()).unwrap().items;
    assert_eq!((items.len(), items[99_999].line, items[99_999].id.as_str()), (100_000, 100_000, "p99999"));
}

#[test]
fn a_line_without_an_id_is_named_by_its_number() {
    let items = read_prompts(file("{\"prompt\": \"x\"}\n\n{\"prompt\": \"y\", \"id\": null}").path()).unwrap().items;
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["1", "3"]);
    let message = prompt_error("{\"prompt\": \"x\"}\n{\"prompt\": \"y\", \"id\": 1}");
    assert!(message.contains("line 2") && message.contains("already the id of line 1"), "{message}");
    let misspelt = read_prompts(file("{\"idd\": \"a\", \"prompt\": \"x\"}").path()).unwrap().warnings;
    assert!(misspelt[0].contains("was \"id\" meant?"), "{misspelt:?}");
}

#[test]
fn what_may_stand_beside_an_input_is_read_and_nothing_else() {
    let input =
        |text: &str| read_prompts(file(format!("{{\"prompt\": {text}}}")).path()).unwrap().items.remove(0).prompt;
    let bare = Input::Text { text: "a".into(), special_tokens: false };
    assert_eq!(input(r#"{"text": "a", "special_tokens": false}"#), bare);
    assert_eq!(input(r#"{"special_tokens": true, "text": "a"}"#), Input::text("a"));
    let go_on = |text: &str| match input(text) {
        Input::Messages { go_on, .. } => go_on,
        other => panic!("{other:?}"),
    };
    let turn = r#"{"messages": [{"role": "user", "content": "a"}]"#;
    assert_eq!(go_on(&format!("{turn}, \"continue_final_message\": true}}")), Some(true));
    assert_eq!(go_on(&format!("{turn}}}")), None);
    let with = |text: &str| prompt_error(format!("{{\"prompt\": {text}}}"));
    assert!(with(r#"{"text": "a", "special_tokens": 1}"#).contains("prompt.special_tokens"));
    assert!(with(r#"{"ids": [1], "special_tokens": false}"#).contains("\"special_tokens\" does not belong"));
    assert!(with(r#"{"special_tokens": false}"#).contains("an object with \"special_tokens\""));
    assert!(with(&format!("{turn}, \"continue_final_message\": \"yes\"}}")).contains("true or false"));
}

#[test]
fn further_fields_of_messages_and_variables_of_items_are_kept() {
    let line = r#"{"prompt": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "reasoning_content": "r", "tool_calls": [{"name": "f"}]},
        {"role": "tool", "name": "f", "content": null}]}, "template_vars": {"enable_thinking": false}}"#
        .replace('\n', " ");
    let items = read_prompts(file(line).path()).unwrap().items;
    let Input::Messages { messages, vars, .. } = &items[0].prompt else { panic!("messages") };
    let keys = |i: usize| messages[i].fields().keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(keys(1), ["role", "reasoning_content", "tool_calls"]);
    assert_eq!(keys(2), ["role", "name", "content"]);
    assert_eq!(vars["enable_thinking"], false);
    let user = read_prompts(file(r#"{"prompt": "x", "template_vars": {"a": 1}}"#).path()).unwrap();
    assert!(matches!(&user.items[0].prompt, Input::User { vars, .. } if vars["a"] == 1));
    assert!(prompt_error(r#"{"prompt": "x", "template_vars": [1]}"#).contains("field \"template_vars\""));
    let odd = prompt_error(r#"{"prompt": {"messages": [{"role": "user", "content": 3}]}}"#);
    assert!(odd.contains("prompt.messages[0].content") && odd.contains("the number 3"), "{odd}");
}

#[test]
fn files_of_other_kinds_are_told_with_the_command_that_converts_them() {
    for bytes in ["[{\"prompt\": \"x\"}]", "[\n {\"prompt\": \"x\"}\n]", "{\n \"prompt\": \"x\"\n}"] {
        let message = prompt_error(bytes);
        assert!(message.contains("looks like a JSON file") && message.contains("python3 -c 'import json"), "{message}");
    }
    let message = pair_error("id,positive,negative\n1,a,b\n");
    assert!(message.contains("looks like a CSV file") && message.contains("csv.DictReader"), "{message}");
    assert!(!prompt_error("{\"prompt\": \"x\" \"id\": 1}").contains("looks like"));
    assert!(!prompt_error("hello").contains("looks like"));
}
