//! Chat tokens, named special tokens and templates of GGUF files, and the names of how text is cut.

use super::*;
use crate::model::tokenizer::recipes::RECIPES;

const CHAT: &str =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}<|im_end|>{% endfor %}[0] <b> [x]";

fn warnings(builder: &GgufBuilder) -> Vec<String> {
    from_builder(builder).expect("sound").warnings().to_vec()
}

#[test]
fn chat_tokens_of_the_wrong_type_are_taken_whole_and_named() {
    let mut pieces = byte_pieces(&HELLO, &[], &[]);
    let start = pieces.add("<|im_start|>", 1, 0.0);
    let end = pieces.add("<|im_end|>", 5, 0.0);
    let idle = pieces.add("<|other|>", 1, 0.0);
    let builder = byte_builder(&pieces, "gpt-2", &HELLO).key("tokenizer.chat_template", CHAT);
    let tokenizer = from_builder(&builder).expect("sound");
    let ids = tokenizer.encode_chat(&[Message::user("hello")], true).expect("encoded");
    assert_eq!(ids.first(), Some(&start));
    assert_eq!(ids.iter().filter(|id| **id == end).count(), 1);
    assert!(tokenizer.is_special(start) && tokenizer.is_special(end) && !tokenizer.is_special(idle));
    let [warning] = tokenizer.warnings() else { panic!("{:?}", tokenizer.warnings()) };
    assert!(warning.contains("<|im_end|>, <|im_start|>") && !warning.contains("other"), "{warning}");
    // As they should be typed, they are found without a word.
    pieces.types[start as usize] = 3;
    pieces.types[end as usize] = 4;
    let typed = byte_builder(&pieces, "gpt-2", &HELLO).key("tokenizer.chat_template", CHAT);
    assert_eq!(warnings(&typed), [""; 0]);
    assert_eq!(
        from_builder(&typed).expect("sound").encode_chat(&[Message::user("hello")], true).expect("encoded"),
        ids
    );
}

#[test]
fn chat_tokens_of_sentence_pieces_are_taken_whole_too() {
    let mut pieces = sentence_pieces();
    let turn = pieces.add("<start_of_turn>", 1, -5.0);
    let inst = pieces.add("[/INST]", 1, -6.0);
    for space in [true, false] {
        let builder = sentence_piece_builder(&pieces)
            .key("tokenizer.ggml.add_space_prefix", Meta::Bool(space))
            .key("tokenizer.chat_template", "<start_of_turn>{{ messages[0].content }}[/INST]");
        let tokenizer = from_builder(&builder).expect("sound");
        let ids = tokenizer.encode_chat(&[Message::user("he")], true).expect("encoded");
        assert_eq!((ids.first(), ids.last()), (Some(&turn), Some(&inst)), "{space}");
        assert_eq!(tokenizer.warnings().len(), 1);
    }
}

#[test]
fn what_merges_build_stays_an_ordinary_token() {
    let mut pieces = sentence_pieces();
    for (rank, piece) in ["<", "b", ">", "<b", "<b>"].iter().enumerate() {
        pieces.add(piece, 1, rank as f32 - 300.0);
    }
    let builder = sentence_piece_builder(&pieces).key("tokenizer.chat_template", "<b>{{ messages[0].content }}");
    let tokenizer = from_builder(&builder).expect("sound");
    assert_eq!(tokenizer.warnings(), [""; 0]);
    assert!(!tokenizer.is_special(pieces.id("<b>")));
}

#[test]
fn every_special_token_of_the_metadata_reaches_the_template() {
    let mut pieces = byte_pieces(&HELLO, &[], &["<unk>", "<sep>", "<cls>", "<mask>", "<eot>"]);
    let eos = pieces.add("<|end|>", 1, 0.0);
    let named = [("unknown", "<unk>"), ("seperator", "<sep>"), ("cls", "<cls>"), ("mask", "<mask>"), ("eot", "<eot>")];
    let mut builder = byte_builder(&pieces, "gpt-2", &HELLO);
    for (key, piece) in named {
        builder = builder.key(&format!("tokenizer.ggml.{key}_token_id"), Meta::U32(pieces.id(piece)));
    }
    // An ordinary token that fills up is none that marks something.
    let builder = builder
        .key("tokenizer.ggml.padding_token_id", Meta::U32(pieces.id("!")))
        .key("tokenizer.ggml.eos_token_id", Meta::U32(eos))
        .key(
            "tokenizer.chat_template",
            "{{ unk_token }}{{ sep_token }}{{ cls_token }}{{ mask_token }}{{ pad_token }}{{ eos_token }}{{ bos_token }}",
        );
    let tokenizer = from_builder(&builder).expect("sound");
    let ids = tokenizer.encode_chat(&[], false).expect("encoded");
    assert_eq!(ids, pieces.ids(&["<unk>", "<sep>", "<cls>", "<mask>", "!", "<|end|>"]));
    assert!(tokenizer.is_special(eos) && !tokenizer.is_special(pieces.id("!")));
    assert!(tokenizer.warnings()[0].contains("<|end|>"), "{:?}", tokenizer.warnings());
    let beyond = byte_builder(&pieces, "gpt-2", &HELLO).key("tokenizer.ggml.mask_token_id", Meta::U32(1_000_000));
    assert!(refusal(&beyond).contains("mask_token_id"));
}

#[test]
fn of_several_templates_the_default_is_taken() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    let names = || byte_builder(&pieces, "gpt-2", &HELLO).key("tokenizer.chat_templates", &["rag", "tool_use"][..]);
    let with = names().key("tokenizer.chat_template.default", "12").key("tokenizer.chat_template.rag", "no");
    let ids = from_builder(&with).expect("sound").encode_chat(&[], false).expect("encoded");
    assert_eq!(ids, pieces.ids(&["12"]));
    let tokenizer = from_builder(&names().key("tokenizer.chat_template.rag", "12")).expect("sound");
    assert!(tokenizer.template().expect("none").is_none());
    assert!(tokenizer.warnings()[0].contains("rag, tool_use"), "{:?}", tokenizer.warnings());
}

#[test]
fn every_name_of_how_text_is_cut_loads_and_gives_back_the_text() {
    let (pieces, _) = llama_bpe();
    let text = "hello there 1234\n  \u{4f60}\u{597d} caf\u{e9} I'll";
    for recipe in RECIPES {
        for name in recipe.names {
            let bos = Meta::U32(pieces.id("<|begin|>"));
            let builder = byte_builder(&pieces, name, &HELLO).key("tokenizer.ggml.bos_token_id", bos);
            let tokenizer = from_builder(&builder).expect("sound");
            let ids = tokenizer.encode(text, true).expect("encoded");
            assert_eq!(ids.contains(&pieces.id("<|begin|>")), recipe.adds_bos, "{name}");
            assert_eq!(ids.contains(&pieces.id("\u{120}there")), recipe.ignore_merges, "{name}");
            assert_eq!(tokenizer.decode(&ids, true).expect("decoded"), text, "{name}");
        }
    }
}
