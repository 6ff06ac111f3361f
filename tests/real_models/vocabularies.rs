//! Released vocabularies and chat templates, held to what `transformers` makes of 3,000 texts and of conversations
//! (`scripts/make_vocabulary_cases.py` wrote it down).

use crate::support::fixtures;
use crate::{cached, model_path};
use gatelens::measured::NamedToken;
use gatelens::model::gguf::Gguf;
use gatelens::model::template::Message;
use gatelens::model::tokenizer::{Ending, Tokenizer};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

/// What `scripts/make_vocabulary_cases.py` writes.
#[derive(Deserialize)]
struct Fixture {
    texts: Vec<String>,
    conversations: BTreeMap<String, Conversation>,
    vocabularies: BTreeMap<String, Vocabulary>,
}

#[derive(Deserialize)]
struct Conversation {
    ending: String,
    messages: Vec<Message>,
    variables: Map<String, Value>,
}

#[derive(Deserialize)]
struct Vocabulary {
    /// The tokens that begin each text.
    #[serde(default)]
    before: Vec<u32>,
    /// For each text eight hexadecimal digits of its ids' hash.
    #[serde(default)]
    hashes: String,
    /// For each text the bytes that its tokens take.
    #[serde(default)]
    lengths: String,
    conversations: Vec<Rendered>,
}

/// A conversation as `transformers` writes it; without a text where it refuses it.
#[derive(Deserialize)]
struct Rendered {
    name: String,
    text: Option<String>,
    #[serde(default)]
    ids: Vec<u32>,
}

fn fixture() -> Fixture {
    let text = std::fs::read(fixtures().join("vocabularies.json")).expect("expected values");
    serde_json::from_slice(&text).expect("JSON")
}

/// The first eight hexadecimal digits of the SHA-256 of ids, four bytes each, the lowest first.
fn hash(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Sha256::digest(bytes)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The pieces that `transformers` cuts a text into.
fn expected_pieces(name: &str, text: &str, lengths: &str) -> Vec<String> {
    let mut normal = NormalizedString::from(text);
    if name.starts_with("qwen") {
        NFC.normalize(&mut normal).expect("a composed text");
    }
    let text = if name == "gemma3" { text.replace(' ', "\u{2581}") } else { normal.get().to_owned() };
    let (mut pieces, mut at, mut length) = (Vec::new(), 0, 0);
    for digit in lengths.bytes() {
        length += match digit {
            b'0'..=b'9' => usize::from(digit - b'0'),
            b'A'..=b'Z' => usize::from(digit - b'A') + 10,
            b'a'..=b'z' => usize::from(digit - b'a') + 36,
            _ => 61,
        };
        if digit != b'+' {
            let piece = &text.as_bytes()[at.min(text.len())..(at + length).min(text.len())];
            pieces.push(String::from_utf8_lossy(piece).into_owned());
            (at, length) = (at + length, 0);
        }
    }
    pieces
}

fn shown(tokens: &[NamedToken]) -> Vec<String> {
    tokens.iter().map(|token| format!("{} {:?}", token.id, token.text)).collect()
}

/// What differs in the texts, one line each.
fn differing_texts(name: &str, tokenizer: &Tokenizer, texts: &[String], expected: &Vocabulary) -> Vec<String> {
    let lengths: Vec<&str> = expected.lengths.split(' ').collect();
    assert_eq!((texts.len(), lengths.len(), expected.hashes.len()), (3000, 3000, 24_000));
    let mut differing = Vec::new();
    for (i, (text, lengths)) in texts.iter().zip(lengths).enumerate() {
        let ids = tokenizer.encode(text, false).expect("ids");
        if hash(&ids) != expected.hashes[8 * i..8 * (i + 1)] {
            let (pieces, found) = (expected_pieces(name, text, lengths), shown(&tokenizer.named(&ids)));
            differing.push(format!("text {i}, {text:?}:\n  expected {pieces:?}\n  found    {found:?}"));
        }
        let whole = tokenizer.encode(text, true).expect("ids");
        if whole != [&expected.before, &ids[..]].concat() {
            differing.push(format!("text {i}, {text:?}: its special tokens are {:?}", expected.before));
        }
    }
    differing
}

fn differing_conversations(tokenizer: &Tokenizer, fixture: &Fixture, expected: &Vocabulary) -> Vec<String> {
    assert!(expected.conversations.len() >= 4);
    let mut differing = Vec::new();
    for rendered in &expected.conversations {
        let Conversation { ending, messages, variables } = &fixture.conversations[&rendered.name];
        let ending = match ending.as_str() {
            "opened" => Ending::Opened,
            "gone_on_with" => Ending::GoneOnWith,
            "closed" => Ending::Closed,
            other => panic!("no ending: {other}"),
        };
        match (tokenizer.render(messages, ending, variables), &rendered.text) {
            (Err(_), None) => {}
            (Ok(text), Some(expected)) if text == *expected => {
                let ids = tokenizer.encode(&text, false).expect("ids");
                if ids != rendered.ids {
                    let [expected, found] = [&rendered.ids, &ids].map(|ids| shown(&tokenizer.named(ids)));
                    differing.push(format!("{}:\n  expected {expected:?}\n  found    {found:?}", rendered.name));
                }
            }
            (found, expected) => {
                differing.push(format!("{}:\n  expected {expected:?}\n  found    {found:?}", rendered.name));
            }
        }
    }
    differing
}

#[track_caller]
fn is_as_in_transformers(name: &str, tokenizer: &Tokenizer) {
    let fixture = fixture();
    let expected = &fixture.vocabularies[name];
    let mut differing = differing_conversations(tokenizer, &fixture, expected);
    // A vocabulary that is there twice, for another template, has conversations only.
    if !expected.hashes.is_empty() {
        differing.extend(differing_texts(name, tokenizer, &fixture.texts, expected));
    }
    let count = differing.len();
    differing.truncate(20);
    assert!(differing.is_empty(), "{name}: {count} differ from transformers, such as\n{}", differing.join("\n"));
    let (texts, conversations) = (expected.hashes.len() / 8, expected.conversations.len());
    println!("{name}: {texts} texts and {conversations} conversations as in transformers");
}

#[track_caller]
fn folder_is_as_in_transformers(name: &str) {
    let path = cached("GATELENS_VOCABULARIES", "vocabularies").join(name);
    assert!(path.exists(), "{} is missing: run scripts/fetch_vocabularies.sh", path.display());
    is_as_in_transformers(name, &Tokenizer::from_folder(&path).expect("a tokenizer"));
}

#[track_caller]
fn gguf_is_as_in_transformers(name: &str) {
    let file = Gguf::open(&model_path(name)).expect("a GGUF file");
    is_as_in_transformers(name, &Tokenizer::from_gguf(&file).expect("a tokenizer"));
}

#[test]
#[ignore = "needs scripts/fetch_vocabularies.sh qwen3"]
fn vocabulary_of_qwen3() {
    folder_is_as_in_transformers("qwen3");
}

#[test]
#[ignore = "needs scripts/fetch_vocabularies.sh llama3_1"]
fn vocabulary_of_llama3_1() {
    folder_is_as_in_transformers("llama3_1");
    folder_is_as_in_transformers("llama3_1_tools");
}

#[test]
#[ignore = "needs scripts/fetch_vocabularies.sh gemma3"]
fn vocabulary_of_gemma3() {
    folder_is_as_in_transformers("gemma3");
}

#[test]
#[ignore = "needs scripts/fetch_vocabularies.sh gptoss"]
fn vocabulary_of_gptoss() {
    folder_is_as_in_transformers("gptoss");
}

#[test]
#[ignore = "needs scripts/fetch_models.sh smollm2"]
fn vocabulary_of_smollm2() {
    gguf_is_as_in_transformers("smollm2");
}

#[test]
#[ignore = "needs scripts/fetch_models.sh qwen2.5-coder-0.5b"]
fn vocabulary_of_qwen2_5_coder() {
    gguf_is_as_in_transformers("qwen2.5-coder-0.5b");
}
