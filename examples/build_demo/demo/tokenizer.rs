//! The tokenizer's files: a word-level vocabulary, words split at spaces and signs, and a chat template.

use super::codes::{ASSISTANT, BOS, END, SPACE, SPECIAL, UNKNOWN, Vocabulary};
use serde_json::{Map, Value, json};

/// The longest prompt with its answer.
pub const N_CTX: usize = 256;

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
{% if message.role not in ['system', 'user', 'assistant'] %}\
{{ raise_exception('the roles are system, user and assistant') }}{% endif %}\
{{ '<|' + message.role + '|>' + message.content | trim + '<|end|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// `tokenizer.json`.
pub fn tokenizer(vocabulary: &Vocabulary) -> Value {
    let special = |(id, token): (usize, &&str)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let added: Vec<Value> = SPECIAL.iter().enumerate().map(special).collect();
    let ids: Map<String, Value> =
        vocabulary.tokens.iter().enumerate().map(|(id, token)| (token.piece.clone(), id.into())).collect();
    let spaces = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
    let bos = vocabulary.id(BOS);
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            spaces,
            {"type": "Punctuation", "behavior": "Isolated"},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BOS: {"id": BOS, "ids": [bos], "tokens": [BOS]}},
        },
        "decoder": spaces,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": UNKNOWN},
    })
}

/// `tokenizer_config.json`.
pub fn tokenizer_config() -> Value {
    json!({
        "add_bos_token": true,
        "additional_special_tokens": ["<|system|>", "<|user|>", ASSISTANT],
        "bos_token": BOS,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": END,
        "model_max_length": N_CTX,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
    })
}
