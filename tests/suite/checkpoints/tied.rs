//! Weights that are stored once and used twice, under whichever name.

use super::*;

/// Families with the names of their embedding and unembedding.
const ENDS: [(&str, &str, &str); 5] = [
    ("llama", "model.embed_tokens.weight", "lm_head.weight"),
    ("qwen2", "model.embed_tokens.weight", "lm_head.weight"),
    ("gemma3", "model.embed_tokens.weight", "lm_head.weight"),
    ("gpt2", "transformer.wte.weight", "lm_head.weight"),
    ("gpt_neox", "gpt_neox.embed_in.weight", "embed_out.weight"),
];

/// A fixture of which the two ends are one, stored as the embedding.
fn tied(family: &str, head: &str) -> Folder {
    let folder = Folder::of(family).key("tie_word_embeddings", json!(true));
    folder.weights(|t| ["lm_head.weight", head].iter().for_each(|name| drop(t.remove(*name))))
}

#[test]
fn a_tied_embedding_may_be_stored_as_the_unembedding_alone() {
    for (family, embed, head) in ENDS {
        let (ids, expected) = (prompts(family), tied(family, head));
        let expected = logits(&open(expected.path()), &ids);
        let names = if family == "gpt_neox" { vec![head, "lm_head.weight"] } else { vec![head] };
        for stored in names {
            let moved = tied(family, head).renamed(|name| if name == embed { stored } else { name }.to_string());
            for folder in
                [moved, tied(family, head).renamed(|n| if n == embed { stored } else { n }.to_string()).sharded()]
            {
                let found = open(folder.path());
                assert!(found.decoder.arch.tied && found.warnings.is_empty(), "{family}: {:?}", found.warnings);
                assert_eq!(logits(&found, &ids), expected, "{family} as {stored}");
            }
        }
    }
}

#[test]
fn a_bare_decoder_is_tied_under_the_unembeddings_name_too() {
    let expected = logits(&open(tied("gpt2", "lm_head.weight").path()), &prompts("gpt2"));
    let bare = tied("gpt2", "lm_head.weight").renamed(|name| match name {
        "transformer.wte.weight" => "lm_head.weight".to_string(),
        other => other.strip_prefix("transformer.").unwrap_or(other).to_string(),
    });
    assert_eq!(logits(&open(bare.path()), &prompts("gpt2")), expected);
}

#[test]
fn an_alias_that_save_model_notes_is_the_tensor_that_it_names() {
    for (family, embed, head) in ENDS {
        // Whatever the description says of ties, both names are there.
        for tie in [true, false] {
            let both = tied(family, head).key("tie_word_embeddings", json!(tie));
            let both = both.weights(|t| drop(t.insert(head.to_string(), t[embed].clone())));
            let expected = logits(&open(both.path()), &prompts(family));
            for (alias, kept) in [(embed, head), (head, embed)] {
                let folder = tied(family, head).key("tie_word_embeddings", json!(tie));
                let folder = folder.weights(|t| drop(t.insert(head.to_string(), t[embed].clone())));
                let found = open(folder.noted(&[(alias, kept)]).path());
                assert!(found.warnings.is_empty(), "{family}: {:?}", found.warnings);
                assert_eq!(logits(&found, &prompts(family)), expected, "{family}: {alias}");
            }
        }
    }
}

#[test]
fn any_tensor_may_be_an_alias_and_a_note_of_none_is_none() {
    let (first, second) = ("model.layers.0.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight");
    let norms = ("model.norm.weight", "model.layers.1.input_layernorm.weight");
    let equal = || {
        Folder::of("llama").weights(|t| {
            t.insert(second.to_string(), t[first].clone());
            t.insert(norms.0.to_string(), t[norms.1].clone());
        })
    };
    let expected = logits(&open(equal().path()), &prompts("llama"));
    let noted = equal().noted(&[(second, first), norms]);
    assert_eq!(logits(&open(noted.path()), &prompts("llama")), expected);
    unopened(equal().noted(&[(second, "model.nothing")]).path(), &[second, "is missing"]);
}

#[test]
fn an_untied_model_without_a_head_is_told_what_may_mend_it() {
    for (family, _, head) in ENDS {
        let folder = tied(family, head).key("tie_word_embeddings", json!(false));
        let said = "no `lm_head.weight`; if the model ties its embedding, set `tie_word_embeddings`";
        unopened(folder.path(), &[said]);
        assert!(!try_open(folder.path()).err().expect("an error").contains("nearest"), "{family}");
    }
}
