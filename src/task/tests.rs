use super::*;
use crate::dataset::{Data, Span, TokenRef, read_pairs};

fn candidates(task: Task) -> Vec<Candidate> {
    let mut rng = stats::rng(1, "test");
    (0..400).map(|_| task.draw(&mut rng)).collect()
}

#[test]
fn every_slot_of_every_candidate_has_a_word_and_the_prompts_differ_in_words_alone() {
    for task in Task::ALL {
        for candidate in candidates(task) {
            let [positive, negative] = candidate.filled();
            let text = &positive.text;
            assert!(!text.contains(['{', '}']), "{task}: {text}");
            assert!(!text.contains("  ") || task == Task::Docstring, "{task}: a slot is empty: {text}");
            let names =
                |filled: &candidate::Filled| filled.spans.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&positive), names(&negative), "{task}");
            assert!(positive.spans.iter().all(|(_, bytes)| !bytes.is_empty()), "{task}: {text}");
            // Two second numbers of a sum may be the same: such a candidate is put aside.
            assert!(text != &negative.text || task == Task::Addition, "{task}: {text}");
        }
    }
}

#[test]
fn answers_and_foils_are_what_the_prompts_call_for() {
    for candidate in candidates(Task::GreaterThan) {
        let [positive, _] = candidate.filled();
        let (_, bytes) = positive.spans.iter().find(|(name, _)| name == "YEAR").unwrap();
        let year: u32 = positive.text[bytes.clone()].parse().unwrap();
        let than = if candidate.group.ends_with("years") { year } else { year / 10 };
        let number = |text: &String| text.parse::<u32>().unwrap();
        assert!(candidate.answer.iter().map(number).all(|later| later > than), "{candidate:?}");
        assert!(candidate.foil.iter().map(number).all(|earlier| earlier < than), "{candidate:?}");
        assert!(!candidate.answer.is_empty() && !candidate.foil.is_empty());
    }
    for candidate in candidates(Task::Addition) {
        let numbers = |filled: &candidate::Filled| -> u32 {
            filled.spans.iter().map(|(_, bytes)| filled.text[bytes.clone()].parse::<u32>().unwrap()).sum()
        };
        let sums = candidate.filled().map(|filled| numbers(&filled).to_string());
        assert_eq!([candidate.answer[0].trim(), candidate.foil[0].trim()], [&*sums[0], &*sums[1]]);
    }
    for candidate in candidates(Task::Colours) {
        let [positive, negative] = candidate.filled().map(|filled| filled.text);
        let holds = |text: &str, colour: &str, from: usize| text[from..].contains(colour.trim());
        assert!(holds(&positive, &candidate.answer[0], 0) && holds(&negative, &candidate.foil[0], 0), "{positive}");
        assert_ne!(candidate.answer, candidate.foil);
    }
}

#[test]
fn names_of_spans_are_read_back() {
    for task in Task::ALL {
        let [positive, negative] = candidates(task).remove(0).filled();
        let spans = positive.spans.iter().map(|(name, _)| Span { name: name.clone(), positions: vec![0] });
        let pair = Pair { spans: spans.collect(), ..Pair::new(positive.text, negative.text) };
        let read = read_pairs(Data::from(vec![pair.clone()])).unwrap();
        assert_eq!(read.items[0].spans, pair.spans, "{task}");
    }
}

#[test]
fn a_token_is_written_as_its_text_only_where_the_text_is_read_as_this_token() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/inputs/bytes");
    let model = Model::open(folder, &crate::model::Options::default()).unwrap();
    let candidate = |answer: &str| Candidate {
        group: "test",
        text: "When {S}".to_string(),
        words: vec![candidate::Word::other("S", "Mary", "John")],
        answer: vec![answer.to_string()],
        foil: vec![" Rome".to_string()],
    };
    let made = |answer: &str| Fit::new(&model).unwrap().pair(&candidate(answer)).unwrap();
    let pair = made(" Paris").unwrap();
    assert_eq!(pair.answer, [TokenRef::Text(" Paris".to_string())]);
    assert_eq!(made(" Maryland"), Err(Rejection::Answers));
    assert_eq!(made(" Rome"), Err(Rejection::Same));
}
