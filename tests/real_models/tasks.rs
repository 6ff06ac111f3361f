//! Pairs of every task, made for a released tokenizer.

use crate::{model_path, open};
use gatelens::analyses::inputs::PairArgs;
use gatelens::dataset::TokenRef;
use gatelens::task::{Task, make};
use std::collections::HashSet;

#[test]
#[ignore = "needs scripts/fetch_models.sh smollm2"]
fn all_tasks_are_made_for_smollm2_and_read_back_with_equal_lengths_and_single_tokens() {
    let model = open(&model_path("smollm2"));
    let tokenizer = model.tokenizer().expect("a tokenizer");
    for task in Task::ALL {
        let made = make(task, &model, 50, 0).unwrap_or_else(|e| panic!("{e}"));
        println!("{task}: 50 of {} candidates", made.candidates);
        let read = PairArgs::from(made.pairs.clone()).read(&model).unwrap_or_else(|e| panic!("{e}")).items;
        assert_eq!(read.tokens.len(), 50);
        let texts: HashSet<String> =
            made.pairs.iter().map(|pair| format!("{:?}{:?}", pair.positive, pair.negative)).collect();
        assert_eq!(texts.len(), 50, "{task}: no pair is there twice");
        for (pair, tokens) in made.pairs.iter().zip(&read.tokens) {
            assert_eq!(tokens.positive.len(), tokens.negative.len(), "{task}: {pair:?}");
            assert_ne!(tokens.positive, tokens.negative, "{task}: {pair:?}");
            for token in pair.answer.iter().chain(&pair.foil) {
                let TokenRef::Text(text) = token else { continue };
                assert_eq!(tokenizer.answer_tokens(text).expect("tokens").len(), 1, "{task}: {text:?}");
            }
            let (name, last) = tokens.spans.last().expect("spans");
            assert_eq!((name.as_str(), last.as_slice()), ("END", &[tokens.positive.len() - 1][..]), "{task}");
            assert!(
                tokens.spans.len() > 1 && tokens.spans.iter().all(|(_, positions)| !positions.is_empty()),
                "{task}"
            );
        }
    }
}
