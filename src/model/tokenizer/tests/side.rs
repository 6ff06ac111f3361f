//! Tokens that only the files beside `tokenizer.json` name.

use super::*;
use crate::model::template::Message;

/// A byte's own token in [`folder`]'s vocabulary.
fn byte(tokenizer: &Tokenizer, letter: &str) -> u32 {
    tokenizer.id(letter).expect("a letter of the alphabet")
}

fn chat_token(content: &str) -> Value {
    json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true})
}

#[test]
fn chat_tokens_of_any_side_file_are_tokens_under_their_ids() {
    let decoder = json!({"added_tokens_decoder": {"258": chat_token("<|start|>"), "259": chat_token("<|end|>")}});
    let list = json!({"additional_special_tokens": ["<|start|>", {"content": "<|end|>"}]});
    let extra = json!({"extra_special_tokens": {"start_token": "<|start|>", "end_token": "<|end|>"}});
    let cases: [(&str, &[(&str, Value)]); 5] = [
        ("added_tokens_decoder", &[("tokenizer_config.json", decoder)]),
        ("additional_special_tokens", &[("tokenizer_config.json", list.clone())]),
        ("extra_special_tokens", &[("tokenizer_config.json", extra)]),
        ("special_tokens_map.json", &[("special_tokens_map.json", list)]),
        ("added_tokens.json", &[("added_tokens.json", json!({"<|end|>": 259, "<|start|>": 258}))]),
    ];
    for (name, files) in cases {
        let folder = folder(false, None);
        files.iter().for_each(|(file, value)| write(&folder, file, &value.to_string()));
        let tokenizer = load(&folder).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ids = tokenizer.encode("<|start|>a<|end|>", false).expect("encoded");
        assert_eq!(ids, [258, byte(&tokenizer, "a"), 259], "{name}");
        assert!(name == "added_tokens.json" || tokenizer.is_special(258), "{name}");
    }
}

#[test]
fn how_a_side_file_matches_a_token_counts() {
    let strips = json!({"258": {"content": "<mark>", "lstrip": true, "rstrip": true, "special": true}});
    let folder = folder(false, Some(&json!({"added_tokens_decoder": strips})));
    let tokenizer = load(&folder).expect("sound");
    let a = byte(&tokenizer, "a");
    assert_eq!(tokenizer.encode("a  <mark> a", false).expect("encoded"), [a, 258, a]);
}

#[test]
fn an_id_that_contradicts_another_file_is_refused_with_both() {
    for (file, value, parts) in [
        ("added_tokens.json", json!({"<s>": 300}), ["\"<s>\" has id 300", "256 in tokenizer.json"]),
        ("added_tokens.json", json!({"<new>": 256}), ["id 256 is \"<new>\"", "\"<s>\" in tokenizer.json"]),
        ("added_tokens.json", json!({"<new>": 400}), ["\"<new>\" has id 400", "the next free one is 258"]),
        ("added_tokens.json", json!({"<new>": "258"}), ["\"<new>\"", "expected the token's id"]),
        (
            "tokenizer_config.json",
            json!({"added_tokens_decoder": {"257": chat_token("<x>")}}),
            ["id 257 is \"<x>\"", "</s>"],
        ),
        (
            "tokenizer_config.json",
            json!({"added_tokens_decoder": ["<x>"]}),
            ["`added_tokens_decoder`", "expected an object"],
        ),
        (
            "tokenizer_config.json",
            json!({"added_tokens_decoder": {"x": chat_token("<x>")}}),
            ["added_tokens_decoder.x", "id"],
        ),
    ] {
        let folder = folder(false, None);
        write(&folder, file, &value.to_string());
        let message = load(&folder).expect_err("refused").to_string();
        assert!(message.contains(file) && parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let folder = folder(false, Some(&json!({"added_tokens_decoder": {"258": chat_token("<x>")}})));
    write(&folder, "added_tokens.json", &json!({"<y>": 258}).to_string());
    let message = load(&folder).expect_err("refused").to_string();
    assert!(message.contains("added_tokens.json") && message.contains("\"<x>\" in tokenizer_config.json"), "{message}");
}

#[test]
fn bos_and_eos_are_found_in_any_side_file() {
    let map = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>"});
    let of_map = folder(true, None);
    write(&of_map, "special_tokens_map.json", &map.to_string());
    let of_config = folder(true, Some(&map));
    // From before `added_tokens_decoder`, the map of special tokens counts first.
    let both = folder(true, Some(&json!({"bos_token": "</s>", "eos_token": "<s>"})));
    write(&both, "special_tokens_map.json", &map.to_string());
    for folder in [of_map, of_config, both] {
        let tokenizer = load(&folder).expect("sound");
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(256), Some(257)));
    }
}

#[test]
fn every_named_special_token_reaches_the_template() {
    let template = "{{ bos_token }}{{ pad_token }}{{ unk_token }}{{ image_token }}{{ sep_token is defined }}";
    let config = json!({"bos_token": "<s>", "pad_token": "<pad>", "image_token": {"content": "<img>"}, "chat_template": template,
        "sep_token": null});
    let folder = folder(false, Some(&config));
    write(&folder, "special_tokens_map.json", &json!({"unk_token": "<unk>"}).to_string());
    let tokenizer = load(&folder).expect("sound");
    let text = tokenizer.render_chat(&[Message::user("a")], true).expect("rendered");
    assert_eq!(text, "<s><pad><unk><img>False");
    let ids = tokenizer.encode_chat(&[Message::user("a")], true).expect("encoded");
    assert_eq!(ids.len(), 4 + "False".len(), "named tokens are one id each");
}

#[test]
fn a_template_in_a_file_of_its_own_kind_is_found() {
    let folder = folder(false, None);
    write(&folder, "chat_template.json", &json!({"chat_template": "[{{ messages[0].content }}]"}).to_string());
    let tokenizer = load(&folder).expect("sound");
    assert_eq!(tokenizer.render_chat(&[Message::user("a")], true).expect("rendered"), "[a]");
}

/// A folder whose template closes each turn, trimmed or not.
fn turns(content: &str) -> Tokenizer {
    let template = format!(
        "{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ {content} }}}}</s>{{% endfor %}}{{% if add_generation_prompt %}}<assistant>{{% endif %}}"
    );
    load(&folder(false, Some(&json!({"eos_token": "</s>", "chat_template": template})))).expect("sound")
}

fn message(value: Value) -> Message {
    serde_json::from_value(value).expect("a message")
}

#[test]
fn a_last_message_is_gone_on_with_as_transformers_does_it() {
    let go_on = |tokenizer: &Tokenizer, content: &str| {
        let turns = [Message::user("hi"), Message::new("assistant", content)];
        tokenizer.render(&turns, Ending::GoneOnWith, &Map::new())
    };
    let (kept, trimmed) = (turns("m.content"), turns("m.content | trim"));
    for (content, as_it_is, without_ends) in [
        ("Sure, here", "Sure, here", "Sure, here"),
        (" Sure, ", " Sure, ", "Sure,"),
        ("hi", "hi", "hi"),
        ("a\n\n", "a\n\n", "a"),
    ] {
        let expected = |text: &str| format!("<user>hi</s><assistant>{text}");
        assert_eq!(go_on(&kept, content).expect("rendered"), expected(as_it_is), "{content:?}");
        assert_eq!(go_on(&trimmed, content).expect("rendered"), expected(without_ends), "{content:?}");
    }
    let error = go_on(&kept, " ").expect_err("nothing to go on with").to_string();
    assert!(error.contains("leave it out"), "{error}");
    let error = go_on(&turns("'x'"), "a").expect_err("left out").to_string();
    assert!(error.contains("leaves its text out"), "{error}");
    let error = go_on(&turns("m.content.replace('b', 'B')"), "a b c").expect_err("written anew").to_string();
    assert!(error.contains("writes it otherwise"), "{error}");
}

#[test]
fn thoughts_reach_the_template_by_each_name() {
    let tokenizer = turns("m.reasoning_content ~ '|' ~ m.thinking ~ '|' ~ (m | list | join(','))");
    let said = |fields: Value| {
        let text = tokenizer.render(&[message(fields)], Ending::Closed, &Map::new()).expect("rendered");
        text.trim_start_matches("<assistant>").trim_end_matches("</s>").to_owned()
    };
    for (field, keys) in [
        ("reasoning_content", "thinking,role,reasoning_content"),
        ("thinking", "thinking,role,reasoning_content"),
        ("reasoning", "thinking,role,reasoning,reasoning_content"),
    ] {
        assert_eq!(said(json!({"role": "assistant", field: "hm"})), format!("hm|hm|{keys}"));
    }
    let all = json!({"role": "assistant", "reasoning": "c", "thinking": "b", "reasoning_content": null});
    assert_eq!(said(all), "b|b|thinking,role,reasoning,reasoning_content");
    assert_eq!(said(json!({"role": "assistant", "thinking": null})), "|None|role,thinking");
}

#[test]
fn a_message_in_parts_is_gone_on_with_at_its_last_text() {
    let tokenizer = turns("m.content[-1].text");
    let parts = json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]);
    let turns = [message(json!({"role": "assistant", "content": parts}))];
    assert_eq!(tokenizer.render(&turns, Ending::GoneOnWith, &Map::new()).expect("rendered"), "<assistant>two");
    let none = [message(json!({"role": "assistant", "content": null}))];
    assert!(tokenizer.render(&none, Ending::GoneOnWith, &Map::new()).is_err());
}

#[test]
fn variables_of_the_item_go_before_those_of_all() {
    let template = "{{ thinking }} {{ other }}";
    let tokenizer = load(&folder(false, Some(&json!({"chat_template": template})))).expect("sound");
    let all = json!({"thinking": true, "other": "x"}).as_object().cloned().expect("an object");
    let own = json!({"thinking": false}).as_object().cloned().expect("an object");
    let text = tokenizer.with_vars(all).render(&[Message::user("a")], Ending::Opened, &own).expect("rendered");
    assert_eq!(text, "False x");
}

#[test]
fn answers_begin_with_a_token_of_their_own_on_byte_level_vocabularies() {
    let tokenizer = load(&folder(false, None)).expect("sound");
    for (text, first) in [
        ("\n", "\u{10a}"),
        ("\u{1f642}", "\u{f0}"),
        ("对不起", "\u{e5}"),
        ("شكرا", "\u{d8}"),
        ("  ", "\u{120}"),
        (" a", "\u{120}"),
    ] {
        assert_eq!(tokenizer.first_token(text).expect("a token"), byte(&tokenizer, first), "{text:?}");
    }
    assert!(tokenizer.tells_spaces());
    assert_eq!(tokenizer.answer_tokens("abc").expect("tokens").len(), 3);
    assert!(matches!(tokenizer.answer_tokens(""), Err(TokenizerError::NoToken { .. })));
}

#[test]
fn answers_never_begin_with_the_space_that_sentence_piece_puts_before() {
    let mut pieces = sentence_pieces();
    let (dui, hao) = (pieces.add("\u{5bf9}", 1, -200.0), pieces.add("\u{597d}", 1, -201.0));
    let tokenizer = from_builder(&sentence_piece_builder(&pieces)).expect("sound");
    let of = |piece: &str| pieces.id(piece);
    for (text, first) in [
        ("\n", of("<0x0A>")),
        ("\u{1f642}", of("<0xF0>")),
        ("\u{5bf9}\u{4e0d}", dui),
        ("\u{597d}", hao),
        (" \u{597d}", hao),
        ("\u{634}", of("<0xD8>")),
        ("  ", of("\u{2581}\u{2581}")),
        (" ", of("\u{2581}")),
        ("hello", of("\u{2581}hello")),
        (" hello", of("\u{2581}hello")),
    ] {
        assert_eq!(tokenizer.first_token(text).expect("a token"), first, "{text:?}");
    }
    assert!(!tokenizer.tells_spaces());
    let ids = tokenizer.answer_tokens("\u{5bf9}\u{597d}").expect("tokens");
    assert_eq!(ids, [dui, hao]);
}

#[test]
fn marks_that_are_no_tokens_are_found_unless_people_wrote_them() {
    let tokenizer = load(&folder(false, Some(&json!({"bos_token": "<s>"})))).expect("sound");
    let marks = |text: &str, contents: &[&str]| -> Vec<String> {
        tokenizer.broken_marks(text, contents).into_iter().map(|(mark, _)| mark).collect()
    };
    assert_eq!(marks("<s><|im_start|>user [INST] <x>", &[]), ["<|im_start|>", "[INST]", "<x>"]);
    assert_eq!(marks("<s><|im_start|>user [INST] <x>", &["what is <x> and [INST]?"]), ["<|im_start|>"]);
    let text = tokenizer.broken_marks_of_text("<|im_start|> <b> [INST]");
    assert_eq!(text.len(), 1);
    assert_eq!(text[0].1.len(), "<|im_start|>".len(), "a token a byte");
}
