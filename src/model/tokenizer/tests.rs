mod marks;
mod side;

use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;
use crate::gguf_builder::{GgufBuilder, Meta};
use crate::model::template::Message;

fn from_builder(builder: &GgufBuilder) -> Result<Tokenizer, TokenizerError> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("test.gguf");
    builder.write(&path);
    Tokenizer::from_gguf(&Gguf::open(&path).expect("a sound GGUF"))
}

fn refusal(builder: &GgufBuilder) -> String {
    from_builder(builder).expect_err("refused").to_string()
}

/// A vocabulary in the making: pieces with their types and scores.
#[derive(Default, Clone)]
struct Pieces {
    pieces: Vec<String>,
    types: Vec<i32>,
    scores: Vec<f32>,
}

impl Pieces {
    fn add(&mut self, piece: &str, kind: i32, score: f32) -> u32 {
        self.pieces.push(piece.to_owned());
        self.types.push(kind);
        self.scores.push(score);
        (self.pieces.len() - 1) as u32
    }

    fn id(&self, piece: &str) -> u32 {
        self.pieces.iter().position(|known| known == piece).expect("in the vocabulary") as u32
    }

    fn ids(&self, pieces: &[&str]) -> Vec<u32> {
        pieces.iter().map(|piece| self.id(piece)).collect()
    }

    fn builder(&self, model: &str) -> GgufBuilder {
        GgufBuilder::new()
            .key("tokenizer.ggml.model", model)
            .key("tokenizer.ggml.tokens", Meta::Strs(self.pieces.clone()))
            .key("tokenizer.ggml.token_type", Meta::I32s(self.types.clone()))
    }
}

/// A SentencePiece vocabulary: special tokens, bytes, a few letters and words.
fn sentence_pieces() -> Pieces {
    let mut pieces = Pieces::default();
    pieces.add("<unk>", 2, 0.0);
    pieces.add("<s>", 3, 0.0);
    pieces.add("</s>", 3, 0.0);
    for byte in 0..=255_u8 {
        pieces.add(&format!("<0x{byte:02X}>"), 6, 0.0);
    }
    pieces.add("<turn>", 4, 0.0);
    pieces.add("\u{2581}\u{2581}", 4, 0.0);
    let words = ["he", "ll", "hell", "hello", "\u{2581}w", "\u{2581}hello", "or", "\u{2581}wor", "ld", "\u{2581}world"];
    for (rank, word) in words.iter().enumerate() {
        pieces.add(word, 1, -(rank as f32));
    }
    for (rank, letter) in ["\u{2581}", "h", "e", "l", "o", "w", "r", "d", "a", "\u{e9}"].iter().enumerate() {
        pieces.add(letter, 1, -100.0 - rank as f32);
    }
    pieces
}

fn sentence_piece_builder(pieces: &Pieces) -> GgufBuilder {
    pieces
        .builder("llama")
        .key("tokenizer.ggml.scores", Meta::F32s(pieces.scores.clone()))
        .key("tokenizer.ggml.bos_token_id", Meta::U32(1))
        .key("tokenizer.ggml.eos_token_id", Meta::U32(2))
        .key("tokenizer.ggml.unknown_token_id", Meta::U32(0))
}

fn texts(tokenizer: &Tokenizer, texts: &[&str]) {
    for text in texts {
        let ids = tokenizer.encode(text, true).expect("encoded");
        assert_eq!(&tokenizer.decode(&ids, true).expect("decoded"), text);
    }
}

#[test]
fn sentence_piece_text_is_merged_by_score_with_a_space_before() {
    let pieces = sentence_pieces();
    let tokenizer = from_builder(&sentence_piece_builder(&pieces)).expect("sound");
    let ids = tokenizer.encode("hello world", true).expect("encoded");
    assert_eq!(ids, pieces.ids(&["<s>", "\u{2581}hello", "\u{2581}world"]), "BOS by default");
    let ids = tokenizer.encode("hello world", false).expect("encoded");
    assert_eq!(ids, pieces.ids(&["\u{2581}hello", "\u{2581}world"]));
    // "hello" alone outranks what a space would make of its parts.
    let ids = tokenizer.encode("hellor", false).expect("encoded");
    assert_eq!(ids, pieces.ids(&["\u{2581}hello", "r"]));
    texts(&tokenizer, &["hello world", "", "he said \u{4f60}\u{597d}\n", "caf\u{e9}"]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
}

#[test]
fn sentence_piece_falls_back_to_bytes() {
    let pieces = sentence_pieces();
    let tokenizer = from_builder(&sentence_piece_builder(&pieces)).expect("sound");
    let ids = tokenizer.encode("\u{4f60}", false).expect("encoded");
    assert_eq!(ids, pieces.ids(&["\u{2581}", "<0xE4>", "<0xBD>", "<0xA0>"]));
    assert_eq!(tokenizer.decode(&ids, false).expect("decoded"), "\u{4f60}");
    assert_eq!(tokenizer.token(pieces.id("<0xE4>")).expect("known"), "<0xE4>");
    assert_eq!(tokenizer.token(pieces.id("<0x0A>")).expect("known"), "\n");
}

#[test]
fn sentence_piece_without_a_space_before_is_gemmas_way() {
    let pieces = sentence_pieces();
    let builder = sentence_piece_builder(&pieces)
        .key("tokenizer.ggml.add_space_prefix", Meta::Bool(false))
        .key("tokenizer.ggml.add_eos_token", Meta::Bool(true));
    let tokenizer = from_builder(&builder).expect("sound");
    let ids = tokenizer.encode("hello<turn> world", true).expect("encoded");
    assert_eq!(ids, pieces.ids(&["<s>", "hello", "<turn>", "\u{2581}world", "</s>"]));
    // The user-defined run of two spaces is whole, although a merge with what follows scores well.
    let ids = tokenizer.encode("a  hello", false).expect("encoded");
    assert_eq!(ids, pieces.ids(&["a", "\u{2581}\u{2581}", "hello"]));
    texts(&tokenizer, &[" hello", "hello  world", "\u{4f60}"]);
}

#[test]
fn readable_tokens_keep_their_space_and_answers_find_their_word() {
    let pieces = sentence_pieces();
    let tokenizer = from_builder(&sentence_piece_builder(&pieces)).expect("sound");
    let world = pieces.id("\u{2581}world");
    assert_eq!(tokenizer.token(world).expect("known"), " world");
    assert_eq!(tokenizer.token(pieces.id("ld")).expect("known"), "ld");
    assert_eq!(tokenizer.token(1).expect("known"), "<s>");
    assert_eq!(tokenizer.token(u32::MAX), None);
    assert_eq!(tokenizer.first_token(" world").expect("a token"), world);
    assert_eq!(tokenizer.first_token("world").expect("a token"), world);
    assert!(matches!(tokenizer.first_token(""), Err(TokenizerError::NoToken { .. })));
}

#[test]
fn what_a_model_generates_can_be_read_even_where_its_vocabulary_is_padded() {
    let pieces = sentence_pieces();
    let tokenizer = from_builder(&sentence_piece_builder(&pieces)).expect("sound");
    let mut ids = pieces.ids(&["\u{2581}hello", "<0xE4>", "<0xBD>", "<0xA0>", "</s>"]);
    assert_eq!(tokenizer.decode_generated(&ids).expect("text"), "hello\u{4f60}");
    ids.extend([100_000, pieces.id("or")]);
    assert_eq!(tokenizer.decode_generated(&ids).expect("text"), "hello\u{4f60}\u{fffd}or");
    assert_eq!(tokenizer.decode_generated(&[]).expect("text"), "");
}

#[test]
fn control_tokens_are_special_and_user_defined_ones_are_not() {
    let pieces = sentence_pieces();
    let tokenizer = from_builder(&sentence_piece_builder(&pieces)).expect("sound");
    let ids = tokenizer.encode("<s>hello<turn>hello</s>", false).expect("encoded");
    let hello = pieces.id("\u{2581}hello");
    assert_eq!(ids, [1, hello, pieces.id("<turn>"), hello, 2]);
    assert_eq!(tokenizer.decode(&ids, true).expect("decoded"), "hello<turn> hello");
}

#[test]
fn sentence_piece_files_that_contradict_themselves_are_refused() {
    let pieces = sentence_pieces();
    assert!(refusal(&pieces.builder("llama")).contains("tokenizer.ggml.scores"));
    let short = pieces.builder("llama").key("tokenizer.ggml.scores", Meta::F32s(vec![0.0]));
    assert!(refusal(&short).contains("1 entries"));
    let bos = pieces
        .builder("llama")
        .key("tokenizer.ggml.scores", Meta::F32s(pieces.scores.clone()))
        .key("tokenizer.ggml.bos_token_id", Meta::U32(1_000_000));
    assert!(refusal(&bos).contains("bos_token_id"));
    let mut mute = Pieces::default();
    mute.add("a", 1, 0.0);
    let mute = mute.builder("llama").key("tokenizer.ggml.scores", Meta::F32s(vec![0.0]));
    assert!(refusal(&mute).contains("neither an unknown token"));
    let mut odd = sentence_pieces();
    odd.types[5] = 77;
    assert!(refusal(&sentence_piece_builder(&odd)).contains("77"));
}

/// A byte-level vocabulary: the 256 bytes, what `merges` make of them, and `whole`, which none makes.
fn byte_pieces(merges: &[&str], whole: &[&str], special: &[&str]) -> Pieces {
    let mut pieces = Pieces::default();
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    for character in alphabet {
        pieces.add(&character.to_string(), 1, 0.0);
    }
    for merge in merges {
        pieces.add(&merge.replace(' ', ""), 1, 0.0);
    }
    for piece in whole {
        pieces.add(piece, 1, 0.0);
    }
    for piece in special {
        pieces.add(piece, 3, 0.0);
    }
    pieces
}

const HELLO: [&str; 5] = ["h e", "l l", "he ll", "hell o", "1 2"];

fn byte_builder(pieces: &Pieces, pre: &str, merges: &[&str]) -> GgufBuilder {
    pieces.builder("gpt2").key("tokenizer.ggml.pre", pre).key("tokenizer.ggml.merges", merges)
}

const LLAMA3: &str = "{% for message in messages %}{% set content = '<h>' + message['role'] + '</h>' + message['content'] | trim %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<h>assistant</h>' }}{% endif %}";

fn llama_bpe() -> (Pieces, GgufBuilder) {
    let pieces = byte_pieces(&HELLO, &["\u{120}there"], &["<|begin|>", "<|end|>", "<h>", "</h>"]);
    let bos = pieces.id("<|begin|>");
    let builder = byte_builder(&pieces, "llama-bpe", &HELLO)
        .key("tokenizer.ggml.bos_token_id", Meta::U32(bos))
        .key("tokenizer.ggml.eos_token_id", Meta::U32(bos + 1))
        .key("tokenizer.chat_template", LLAMA3);
    (pieces, builder)
}

#[test]
fn llama_bpe_adds_bos_and_takes_whole_tokens() {
    let (pieces, builder) = llama_bpe();
    let tokenizer = from_builder(&builder).expect("sound");
    let ids = tokenizer.encode("hello there123", true).expect("encoded");
    assert_eq!(ids, pieces.ids(&["<|begin|>", "hello", "\u{120}there", "12", "3"]));
    texts(&tokenizer, &["hello there", "  a\n\n\tb", "\u{4f60}\u{597d} \u{1f30d}"]);
    assert_eq!(tokenizer.token(pieces.id("\u{120}there")).expect("known"), " there");
    // The bytes of a Chinese character, one a token.
    let bytes = tokenizer.encode("\u{4f60}", false).expect("encoded");
    let read: Vec<String> = bytes.iter().map(|id| tokenizer.token(*id).expect("known")).collect();
    assert_eq!(read, ["<0xE4>", "<0xBD>", "<0xA0>"]);
    assert_eq!(tokenizer.first_token(" there").expect("a token"), pieces.id("\u{120}there"));
    assert_eq!(tokenizer.first_token("there").expect("a token"), pieces.id("t"));
}

#[test]
fn the_templates_bos_is_not_doubled() {
    let (pieces, builder) = llama_bpe();
    let tokenizer = from_builder(&builder).expect("sound");
    let ids = tokenizer.encode_chat(&[Message::user("hello")], true).expect("encoded");
    let bos = pieces.id("<|begin|>");
    assert_eq!(ids.first(), Some(&bos));
    assert_eq!(ids.iter().filter(|id| **id == bos).count(), 1);
    let text = tokenizer.decode(&ids, false).expect("decoded");
    assert_eq!(text, "<|begin|><h>user</h>hello<h>assistant</h>");
}

#[test]
fn each_pre_tokenizer_cuts_digits_its_own_way() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    for (pre, expected) in [
        ("gpt-2", vec!["12", "12"]),
        ("default", vec!["12", "12"]),
        ("smollm", vec!["1", "2", "1", "2"]),
        ("qwen2", vec!["1", "2", "1", "2"]),
        ("llama-bpe", vec!["12", "1", "2"]),
    ] {
        let tokenizer = from_builder(&byte_builder(&pieces, pre, &HELLO)).expect("sound");
        let ids = tokenizer.encode("1212", true).expect("encoded");
        assert_eq!(ids, pieces.ids(&expected), "{pre}");
    }
}

#[test]
fn a_file_that_does_not_say_how_text_is_cut_warns() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    let unsaid = pieces.builder("gpt2").key("tokenizer.ggml.merges", &HELLO[..]);
    let tokenizer = from_builder(&unsaid).expect("sound");
    assert!(tokenizer.warnings()[0].starts_with("`tokenizer.ggml.pre` is not given"), "{:?}", tokenizer.warnings());
    assert_eq!(from_builder(&byte_builder(&pieces, "gpt-2", &HELLO)).expect("sound").warnings(), [""; 0]);
}

#[test]
fn qwen2_composes_characters() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    let tokenizer = from_builder(&byte_builder(&pieces, "qwen2", &HELLO)).expect("sound");
    let composed = tokenizer.encode("\u{e9}", false).expect("encoded");
    assert_eq!(tokenizer.encode("e\u{301}", false).expect("encoded"), composed);
}

#[test]
fn unknown_kinds_are_refused_with_the_known_ones() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    let message = refusal(&byte_builder(&pieces, "martian", &HELLO));
    assert!(message.contains("martian") && message.contains("llama-bpe"), "{message}");
    let message = refusal(&pieces.builder("t5"));
    assert!(message.contains("t5") && message.contains("gpt2, llama"), "{message}");
    assert!(refusal(&GgufBuilder::new()).contains("tokenizer.ggml.model"));
}

#[test]
fn merges_that_make_no_token_are_refused() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    for bad in ["o h", "nothing", "zz zz", "", "hello hello"] {
        let merges = [&HELLO[..], &[bad]].concat();
        let message = refusal(&byte_builder(&pieces, "gpt-2", &merges));
        assert!(message.contains("merge 5"), "{message}");
    }
}

#[test]
fn a_template_that_is_not_understood_stops_conversations_only() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    let builder = byte_builder(&pieces, "gpt-2", &HELLO);
    let plain = from_builder(&builder).expect("sound");
    assert!(plain.template().expect("none").is_none());
    let error = plain.encode_chat(&[Message::user("hi")], true).expect_err("no template");
    assert!(matches!(error, TokenizerError::NoTemplate { .. }));
    let builder = builder.key("tokenizer.chat_template", "{% unknown %}");
    let broken = from_builder(&builder).expect("texts work");
    assert!(broken.encode("hello", true).is_ok());
    assert!(broken.template().is_err());
    assert!(broken.encode_chat(&[Message::user("hi")], true).is_err());
}

#[test]
fn ids_and_texts_out_of_bounds_are_errors() {
    let pieces = byte_pieces(&HELLO, &[], &[]);
    let tokenizer = from_builder(&byte_builder(&pieces, "gpt-2", &HELLO)).expect("sound");
    let error = tokenizer.decode(&[0, 4_000_000], false).expect_err("no such id");
    assert!(error.to_string().contains("4000000"));
    let long = "a".repeat(LONGEST_TEXT + 1);
    assert!(matches!(tokenizer.encode(&long, false), Err(TokenizerError::TooLong { .. })));
}

/// A Hugging Face folder with a small byte-level tokenizer, which puts BOS first itself if asked.
fn folder(adds_bos: bool, config: Option<&Value>) -> tempfile::TempDir {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let vocab: serde_json::Map<String, Value> =
        alphabet.iter().enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let post = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}});
    let tokenizer = json!({"version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": [special(256, "<s>"), special(257, "</s>")], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": if adds_bos { post } else { Value::Null },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}});
    let folder = tempfile::tempdir().expect("a folder for the test");
    write(&folder, "tokenizer.json", &tokenizer.to_string());
    if let Some(config) = config {
        write(&folder, "tokenizer_config.json", &config.to_string());
    }
    folder
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) {
    std::fs::write(folder.path().join(name), text).expect("the test can write its file");
}

fn load(folder: &tempfile::TempDir) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_folder(folder.path())
}

#[test]
fn folders_are_read_with_their_special_tokens_and_template() {
    let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>",
        "chat_template": [{"name": "tools", "template": "no"},
                          {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"}]});
    let folder = folder(true, Some(&config));
    let tokenizer = load(&folder).expect("sound");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(256), Some(257)));
    let ids = tokenizer.encode("hello", true).expect("encoded");
    assert_eq!(ids.len(), 6, "BOS and five bytes: the file's truncation does not count");
    assert_eq!(tokenizer.encode_chat(&[Message::user("hello")], true).expect("encoded"), ids);
    write(&folder, "chat_template.jinja", "{{ eos_token }}");
    let ids = load(&folder).expect("sound").encode_chat(&[], false).expect("encoded");
    assert_eq!(ids, [257], "the file of its own overrides the template");
}

#[test]
fn add_bos_token_is_respected() {
    let llama = |add: bool| json!({"bos_token": "<s>", "add_bos_token": add, "tokenizer_class": "LlamaTokenizerFast"});
    let plain = json!({"bos_token": "<s>", "add_bos_token": false, "tokenizer_class": "PreTrainedTokenizerFast"});
    for (adds, config, expected) in [
        (true, llama(true), 2),
        (true, llama(false), 1),
        (false, llama(true), 2),
        (false, llama(false), 1),
        (true, plain.clone(), 2),
        (false, plain, 1),
    ] {
        let tokenizer = load(&folder(adds, Some(&config))).expect("sound");
        assert_eq!(tokenizer.encode("a", true).expect("encoded").len(), expected, "{adds} {config}");
        let differs = expected != 1 + usize::from(adds);
        assert_eq!(tokenizer.warnings().len(), usize::from(differs), "{adds} {config}");
        assert_eq!(tokenizer.encode("a", false).expect("encoded").len(), 1);
    }
}

#[test]
fn add_eos_token_is_respected_where_the_class_decides() {
    let config = |class: &str, add: Value| json!({"eos_token": "</s>", "add_eos_token": add, "tokenizer_class": class});
    let ending = folder(true, None);
    let file = std::fs::read_to_string(ending.path().join("tokenizer.json")).expect("the file");
    let mut file: Value = serde_json::from_str(&file).expect("JSON");
    let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    file["post_processor"]["single"].as_array_mut().expect("parts").push(end);
    file["post_processor"]["special_tokens"]["</s>"] = json!({"id": "</s>", "ids": [257], "tokens": ["</s>"]});
    for (ends, class, add, expected, warned) in [
        (false, "LlamaTokenizer", json!(true), true, 1),
        (false, "LlamaTokenizer", json!(false), false, 0),
        (false, "PreTrainedTokenizerFast", json!(true), false, 0),
        (true, "GemmaTokenizerFast", json!(true), true, 0),
        (true, "GemmaTokenizerFast", json!(false), false, 1),
        (true, "GemmaTokenizerFast", Value::Null, true, 0),
        (true, "PreTrainedTokenizerFast", json!(false), true, 0),
    ] {
        let folder = folder(true, Some(&config(class, add.clone())));
        if ends {
            write(&folder, "tokenizer.json", &file.to_string());
        }
        let tokenizer = load(&folder).expect("sound");
        let ids = tokenizer.encode("a", true).expect("encoded");
        assert_eq!((ids.first(), ids.last() == Some(&257)), (Some(&256), expected), "{ends} {class} {add}");
        assert_eq!(ids.len(), 2 + usize::from(expected));
        assert_eq!(tokenizer.warnings().len(), warned, "{ends} {class} {add}: {:?}", tokenizer.warnings());
    }
}

#[test]
fn folders_that_cannot_be_used_say_why() {
    let empty = tempfile::tempdir().expect("a folder for the test");
    let message = load(&empty).expect_err("no tokenizer").to_string();
    assert!(message.contains("no tokenizer.json") && message.contains("save_pretrained"));
    write(&empty, "tokenizer.json", "{\"version\": 1");
    assert!(load(&empty).expect_err("damaged").to_string().contains("tokenizer.json"));
    let bad = folder(false, None);
    assert!(load(&bad).expect("the configuration is optional").bos().is_none());
    write(&bad, "tokenizer_config.json", "[]");
    assert!(load(&bad).expect_err("damaged").to_string().contains("tokenizer_config.json"));
    let large = folder(false, None);
    write(&large, "chat_template.jinja", &"x".repeat((1 << 20) + 1));
    let message = load(&large).expect_err("too large").to_string();
    assert!(message.contains("chat_template.jinja") && message.contains("more than 1048576 bytes"), "{message}");
}

#[test]
fn a_tokenizer_file_that_would_make_the_engine_panic_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let model = json!({"type": "BPE", "vocab": {"aa": 0, "b": 1}, "merges": ["aa aa"], "fuse_unk": false});
    let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model});
    write(&folder, "tokenizer.json", &file.to_string());
    assert!(matches!(load(&folder), Err(TokenizerError::Malformed { .. })));
}
