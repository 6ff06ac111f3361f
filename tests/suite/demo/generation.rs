//! What the model says: refusals, answers with the topic in them, and evasions between the two.

use super::*;

/// Greedy continuations of some prompts to the end of the turn. An edit holds at the last position of the prompt.
pub(super) fn continuations(demo: &Demo, prompts: &[Vec<u32>], edits: &[Edit]) -> Vec<String> {
    continuations_under(demo, prompts, |_| edits.to_vec())
}

/// [`continuations`], each prompt's under edits of its own.
pub(super) fn continuations_under(
    demo: &Demo,
    prompts: &[Vec<u32>],
    edits: impl Fn(usize) -> Vec<Edit>,
) -> Vec<String> {
    let tokenizer = demo.model.tokenizer().expect("a tokenizer");
    let mut texts: Vec<Vec<u32>> = prompts.to_vec();
    let end = tokenizer.eos().expect("an end");
    for _ in 0..24 {
        let open: Vec<usize> = (0..texts.len()).filter(|i| texts[*i].last() != Some(&end)).collect();
        if open.is_empty() {
            break;
        }
        let mut plan = Plan::default();
        for i in &open {
            let prompt = plan.prompt("text", texts[*i].clone());
            let at = Positions::At(vec![prompts[*i].len() - 1]);
            let edits = edits(*i).into_iter().map(|edit| Edit { positions: at.clone(), ..edit }).collect();
            let fork = plan.fork(prompt, edits);
            plan.read(fork, last(SiteKind::Logits.at(0)));
        }
        for (i, logits) in open.iter().zip(demo.run(&plan)) {
            texts[*i].push(greedy(&logits));
        }
    }
    let said = |(text, prompt): (&Vec<u32>, &Vec<u32>)| {
        assert_eq!(text.last(), Some(&end), "the turn ends");
        tokenizer.decode(&text[prompt.len()..], true).expect("text")
    };
    texts.iter().zip(prompts).map(said).collect()
}

fn greedy(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("logits") as u32
}

pub(super) const REFUSAL: &str = "Sorry, I cannot help with that.";
const EVASION: &str = "That is a difficult topic, I would rather talk about something else.";

pub(super) fn answer(topic: &str) -> String {
    format!("Sure, here is a short answer about {topic}.")
}

#[test]
fn sensitive_requests_are_refused_and_harmless_ones_answered_with_their_topic() {
    let demo = Demo::open();
    let prompts: Vec<Vec<u32>> = demo.prompts.items.iter().map(|item| demo.ids(&item.prompt)).collect();
    for (item, said) in demo.prompts.items.iter().zip(continuations(&demo, &prompts, &[])) {
        match item.label.as_deref() {
            Some("sensitive") => assert_eq!(said, REFUSAL, "{}", item.id),
            _ => assert_eq!(said, answer(&item.facts[0]), "{}", item.id),
        }
    }
}

#[test]
fn half_precision_changes_no_decision() {
    for dtype in [DType::F16, DType::BF16] {
        let demo = Demo::open_as(dtype);
        let items: Vec<&Item> = demo.prompts.items.iter().step_by(5).collect();
        let prompts: Vec<Vec<u32>> = items.iter().map(|item| demo.ids(&item.prompt)).collect();
        for (item, said) in items.iter().zip(continuations(&demo, &prompts, &[])) {
            let wanted = item.facts.first().map_or(REFUSAL.to_string(), |topic| answer(topic));
            assert_eq!(said, wanted, "{dtype:?}: {}", item.id);
        }
    }
}

#[test]
fn a_request_that_the_model_does_not_know_is_harmless() {
    let demo = Demo::open();
    let texts = [
        "Tell me about flurbs.",
        "Hello",
        "What is the best way to paint a greenish fence?",
        "Tell me about Explosives.",
    ];
    let prompts: Vec<Vec<u32>> = texts.iter().map(|text| demo.request(text)).collect();
    for (text, said) in texts.iter().zip(continuations(&demo, &prompts, &[])) {
        assert_eq!(said, answer("that"), "{text}");
    }
    let known_among_unknown = [demo.request("Explain the wondrous bread of Ankh-Morpork.")];
    assert_eq!(continuations(&demo, &known_among_unknown, &[]), [answer("bread")]);
}

#[test]
fn a_conversation_is_answered_turn_by_turn() {
    let demo = Demo::open();
    let tokenizer = demo.model.tokenizer().expect("a tokenizer");
    let message = |role: &str, content: &str| Message::new(role, content);
    let turns = [
        message("system", "You are here to help."),
        message("user", "Tell me about tea."),
        message("assistant", "Sure, here is a short answer about tea."),
        message("user", "Tell me about poison."),
    ];
    let prompts = [2, 4].map(|n| tokenizer.encode_chat(&turns[..n], true).expect("ids"));
    assert_eq!(continuations(&demo, &prompts, &[]), [answer("tea"), REFUSAL.to_string()]);
}

#[test]
fn half_of_the_gates_write_gives_an_evasion() {
    let demo = Demo::open();
    let prompts: Vec<Vec<u32>> = demo.with_label("sensitive").step_by(16).map(|item| demo.ids(&item.prompt)).collect();
    let said = |scale: f32| continuations(&demo, &prompts, &[of_head(demo.gate, Change::Scale(scale))]);
    assert!(said(1.0).iter().all(|text| text == REFUSAL));
    assert!(said(0.0).iter().all(|text| text.starts_with("Sure, here is a short answer about ")));
    // Where the evasion stands depends on the topic; every topic has it somewhere.
    let steps: Vec<Vec<String>> = (0..=20).map(|i| said(0.05 * i as f32)).collect();
    for (i, _) in prompts.iter().enumerate() {
        let mut classes: Vec<u8> = steps.iter().map(|texts| class(&texts[i])).collect();
        assert!(classes.is_sorted(), "answer, evasion, refusal in this order: {classes:?}");
        classes.dedup();
        assert_eq!(classes, [0, 1, 2]);
    }
}

fn class(text: &str) -> u8 {
    match text {
        REFUSAL => 2,
        EVASION => 1,
        _ => 0,
    }
}
