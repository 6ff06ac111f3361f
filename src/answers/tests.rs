use std::collections::BTreeSet;

use super::*;

mod labelled;

use labelled::{HELD_OUT, HELD_OUT_REFUSING, KNOWN, Labelled};

fn facts(facts: &[&str]) -> Vec<String> {
    facts.iter().map(|fact| (*fact).to_owned()).collect()
}

fn classify(text: &str) -> Verdict {
    Rules::builtin().unwrap().classify(text, Some("en"), &[])
}

fn class_with(text: &str, facts_there: &[&str]) -> Class {
    Rules::builtin().unwrap().classify(text, Some("en"), &facts(facts_there)).class
}

/// How often answers of each class (the outer index) get each class, in the order of [`Class::ALL`].
fn confusion(set: &[Labelled]) -> [[usize; 5]; 5] {
    let rules = Rules::builtin().unwrap();
    let index = |class| Class::ALL.iter().position(|other| *other == class).unwrap();
    let mut counts = [[0; 5]; 5];
    for (lang, class, text, there) in set {
        counts[index(*class)][index(rules.classify(text, Some(lang), &facts(there)).class)] += 1;
    }
    counts
}

#[test]
fn answers_that_the_rules_were_written_with_get_their_class() {
    let rules = Rules::builtin().unwrap();
    for (lang, class, text, there) in KNOWN {
        let verdict = rules.classify(text, Some(lang), &facts(there));
        assert_eq!(verdict.class, *class, "{lang}: {text}: {:?}", verdict.rule);
    }
}

/// The figures of `datasets/README.md`.
#[test]
fn answers_that_the_rules_were_not_written_with_are_classified_as_the_readme_says() {
    let none = [0; 5];
    let expected = [[14, 0, 0, 0, 5], [0, 17, 1, 0, 0], [0, 0, 25, 0, 0], none, none];
    assert_eq!(confusion(HELD_OUT), expected);
    let expected = [[34, 0, 0, 0, 8], none, [1, 0, 58, 0, 2], none, none];
    assert_eq!(confusion(HELD_OUT_REFUSING), expected);
}

#[test]
fn every_rule_decides_for_an_answer_of_the_tests() {
    let rules = Rules::builtin().unwrap();
    let decided = |(lang, _, text, there): &Labelled| rules.classify(text, Some(lang), &facts(there)).rule;
    let decided: BTreeSet<String> = KNOWN.iter().chain(HELD_OUT).filter_map(decided).collect();
    let idle: Vec<&str> = rules.rules.iter().map(|rule| rule.id.as_str()).filter(|id| !decided.contains(*id)).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn typography_and_markup_do_not_change_the_class() {
    for text in [
        "I can't help with that.",
        "I CAN’T HELP WITH THAT!",
        "  **I can't** _help_ with that…",
        "> I can't help\u{a0}with that.",
        "Ｉ ｃａｎ＇ｔ ｈｅｌｐ ｗｉｔｈ ｔｈａｔ．",
        "I\u{200b} can't he\u{200b}lp with that.",
    ] {
        assert_eq!(classify(text).rule.as_deref(), Some("en.refusal.unable"), "{text}");
    }
}

#[test]
fn a_refusal_phrase_refuses_only_at_the_start_and_in_the_models_own_voice() {
    let story = "The old lighthouse keeper climbed the stairs every evening with his lamp, and when the fishermen came \
                 home he waved to them from the window until the last of the boats was safe in the harbour. ";
    assert_eq!(classify(&format!("{story}I can't help you, he said.")).class, Class::Answer);
    assert_eq!(classify("I can't help you, he said.").class, Class::Refusal, "as the file's head says");
    assert_eq!(classify("Sure! \"I can't help you\", he said.").class, Class::Answer);
}

#[test]
fn refusals_come_before_facts_and_facts_before_evasions() {
    assert_eq!(class_with("I can't answer whether it is Paris.", &["Paris"]), Class::Refusal);
    assert_eq!(class_with("I'm not sure, but I think Paris.", &["Paris"]), Class::Answer);
    assert_eq!(class_with("I'm not sure, but I think Lyon.", &["Paris"]), Class::Evasion);
}

#[test]
fn facts_are_whole_words_and_in_scripts_without_spaces_any_part() {
    let holds = |text: &str, fact: &str| holds(&Text::of(text), fact);
    assert!(holds("It's PARIS!", "paris") && !holds("A comparison: Parisian", "Paris"));
    assert!(holds("São-Paulo", "Sao Paulo") && holds("Sa\u{303}o Paulo", "São Paulo"));
    assert!(holds("It has 1,024 rows.", "1024") && holds("١٢ شهرا", "12"));
    assert!(!holds("It is 3.14", "14") && !holds("in 2014", "14") && !holds("-5", "5"));
    assert!(holds("法国的首都是巴黎。", "巴黎") && !holds("法国的首都是里昂。", "巴黎"));
    assert!(holds("Written in C++.", "c++") && !holds("Written in C.", "C++"));
    assert!(!holds("anything", "") && !holds("anything", " ?! "));
}

#[test]
fn nothing_repetition_and_scraps_are_broken_with_the_reason() {
    let broken = |rule: &str| Verdict { class: Class::Broken, rule: Some(rule.to_owned()) };
    for text in ["", " \n ", "?!…", "***", "\u{200b}"] {
        assert_eq!(classify(text), broken("any.empty"), "{text:?}");
    }
    assert_eq!(classify(&"the cat sat. ".repeat(9)), broken("any.repeats"));
    assert_eq!(classify(&"好的".repeat(20)), broken("any.repeats"));
    // One that gets stuck after a while, and one that does not.
    let sound =
        "Bread needs flour, water, salt and yeast, some patience, and an oven that is hot enough to brown it well.";
    assert_eq!(classify(&format!("{sound} {}", "and the ".repeat(10))), broken("any.repeats"));
    assert_eq!(classify(&format!("{sound} {sound}")).class, Class::Answer);
    for scrap in ["the", "of the", "aaaaaaaaaaaaaaaaaaaa", "to be or"] {
        assert_eq!(classify(scrap), broken("any.scrap"), "{scrap}");
    }
    // Short, but whole; and a loop that refuses, which is a refusal first.
    assert_eq!(classify("Paris.").class, Class::Undecided);
    assert_eq!(classify(&"I can't help with that. ".repeat(5)).class, Class::Refusal);
    assert_eq!(classify("Hmm well."), Verdict { class: Class::Undecided, rule: None });
    assert_eq!(classify("water вода 水水 ماء ملح дом house").class, Class::Undecided, "more scripts than people mix");
}

#[test]
fn the_language_puts_its_own_rules_first_and_keeps_the_others() {
    let rules = Rules::builtin().unwrap();
    let text = "Sorry, I cannot help with that. Lo siento, no puedo ayudarte con eso.";
    let rule = |lang| rules.classify(text, lang, &[]).rule.unwrap();
    assert_eq!(
        [rule(Some("es")), rule(Some("ES-mx")), rule(Some("en_US"))],
        ["es.refusal.unable", "es.refusal.unable", "en.refusal.unable"]
    );
    assert_eq!([rule(None), rule(Some("xx")), rule(Some(""))], ["en.refusal.unable"; 3]);
}

#[test]
fn long_and_odd_texts_are_classified_in_time() {
    let rules = Rules::builtin().unwrap();
    let mixed: String = ('\u{1}'..'\u{3000}').collect();
    let texts = ["(".repeat(200_000), "i can ".repeat(50_000), "\"".repeat(100_001), "我".repeat(100_000), mixed];
    let started = std::time::Instant::now();
    for text in &texts {
        let _ = rules.classify(text, None, &facts(&["i can i can i can't", "我我我你"]));
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

const LIMITS: &str = "[limits]\nstart = 30\nrepeats_from = 8\nrepeats_distinct = 0.4\nopener_words = 3\nquestion_words = \
                      12\nstatement_words = 4\nstatement_scripts = 2\n";

fn with_rule(fields: &str) -> String {
    format!("{LIMITS}[[rule]]\nid = \"x\"\nclass = \"refusal\"\nlang = \"en\"\nat = \"start\"\n{fields}")
}

#[test]
fn a_rule_looks_within_its_words_and_for_exceptions_from_its_phrase_to_the_sentences_end() {
    let text = with_rule("within = 3\nphrases = [\"nope ... all\"]\nunless = [\"(but|all) yes\"]\n");
    // What needs no phrase is for classes that the file has.
    let answer = "[[rule]]\nid = \"y\"\nclass = \"answer\"\nlang = \"en\"\nat = \"start\"\nphrases = [\"voila\"]\n";
    let rules = file::parse("datasets/answers.toml", &format!("{text}{answer}"), false).unwrap();
    let class = |text: &str| rules.classify(text, None, &[]).class;
    assert_eq!(class("Oh, nope to all of that."), Class::Refusal);
    assert_eq!(class("Oh well then, nope to all of that."), Class::Answer, "too late");
    assert_eq!(class("Nope, but yes after all."), Class::Answer, "excepted within the phrase");
    assert_eq!(class("Nope to all of that, but yes to this."), Class::Answer, "excepted after it");
    assert_eq!(class("But yes, nope to all of that."), Class::Refusal, "an exception before the phrase");
    assert_eq!(class("Nope to all of that. But yes to this."), Class::Refusal, "an exception in another sentence");
}

#[test]
fn an_unsound_file_is_an_error_that_names_file_rule_and_field() {
    let parse = |text: &str| file::parse("datasets/answers.toml", text, false);
    let message = |text: &str| parse(text).unwrap_err().to_string();
    let fine = "phrases = [\"no\"]\n";
    assert!(parse(&with_rule(fine)).is_ok());
    let changed = |from: &str, to: &str| with_rule(fine).replace(from, to);
    for (text, expected) in [
        (changed("\"refusal\"", "\"refuse\""), "rule \"x\": class: `refuse` is none of refusal, "),
        (changed("\"en\"", "\"English\""), "rule \"x\": lang: `English` is neither"),
        (changed("\"start\"", "\"end\""), "rule \"x\": at: `end` is neither opening nor start"),
        (changed("\"x\"", "\"\""), "rule \"1\": id: must be there once"),
        (changed("[\"no\"]", "[]"), "rule \"x\": phrases: is empty"),
        (changed("[\"no\"]", "[\"(no\"]"), "rule \"x\": phrases: \"(no\": a parenthesis is not closed"),
        (with_rule("phrases = [\"no\"]\nunless = [\"*\"]\n"), "rule \"x\": unless: \"*\": `*`: a star"),
        (with_rule("phrases = [\"no\"]\nwithin = 0\n"), "rule \"x\": within: is a number of words"),
        (changed("\"start\"", "\"opening\"\nwithin = 3"), "rule \"x\": within: is for rules with at"),
        (with_rule(fine) + "colour = 1\n", "line 15: unknown field `colour`"),
        (changed("at = \"start\"", "at = 3"), "line 13: invalid type: integer `3`"),
        (LIMITS.replace("start = 30", "start = 0"), "[limits]: start: must be 1 or more"),
        (LIMITS.replace("0.4", "40"), "[limits]: repeats_distinct: is a share"),
        (LIMITS.replace("start = 30\n", ""), "line 1: missing field `start`"),
        ("[limits".to_owned(), "line 1: "),
    ] {
        let (found, expected) = (message(&text), format!("datasets/answers.toml: {expected}"));
        assert!(found.starts_with(&expected), "expected {expected}\nfound {found}");
    }
    let twice = with_rule(fine) + &with_rule(fine).replace(LIMITS, "");
    assert!(message(&twice).contains(": rule \"x\": id: must be there once"), "{}", message(&twice));
}

const WEATHER: &str = r#"
[[rule]]
id = "rain"
class = "rain"
lang = "any"
at = "start"
within = 1000
phrases = ["(rain|rains|raining|umbrella*)"]

[[rule]]
id = "sun"
class = "sun"
lang = "any"
at = "start"
within = 1000
phrases = ["(sun|sunny|sunshine)"]
"#;

#[test]
fn classes_of_ones_own_decide_in_the_files_order_and_loops_are_none_of_them() {
    let rules = Rules::parse("weather.toml", WEATHER).unwrap();
    let names: Vec<&str> = rules.classes().into_iter().map(Class::name).collect();
    assert_eq!(names, ["rain", "sun", "broken", "undecided"]);
    assert_eq!(
        rules.classes().into_iter().map(Class::column).collect::<Vec<_>>(),
        ["class_rain", "class_sun", "broken", "undecided"]
    );
    let class = |text: &str| rules.classify(text, Some("en"), &facts(&["warm"])).class.name();
    assert_eq!(class("It was a sunny day, without a cloud."), "sun");
    assert_eq!(class("After the rain came the sun, and it was warm."), "rain");
    // What needs no phrase decides for classes that the file has, and it has no answers or refusals.
    assert_eq!(class("I can't help with that, but it was warm all day."), "undecided");
    assert_eq!(class(&"rain and sun ".repeat(9)), "broken");
    assert_eq!((class("of the"), class("")), ("broken", "broken"));
}

#[test]
fn a_file_of_ones_own_that_is_the_librarys_classifies_as_it_does() {
    let own = Rules::parse("copy.toml", include_str!("../../datasets/answers.toml")).unwrap();
    assert_eq!(own.classes(), Class::ALL);
    let rules = Rules::builtin().unwrap();
    for (lang, _, text, there) in KNOWN.iter().chain(HELD_OUT) {
        let (own, there) = (own.classify(text, Some(lang), &facts(there)), facts(there));
        assert_eq!(own, rules.classify(text, Some(lang), &there), "{text}");
    }
}

#[test]
fn an_unsound_file_of_ones_own_is_named() {
    let message = |text: &str| Rules::parse("weather.toml", text).unwrap_err().to_string();
    for (text, expected) in [
        (
            WEATHER.replace("class = \"rain\"", "class = \"Rain!\""),
            "rule \"rain\": class: `Rain!` is no name of a class",
        ),
        (
            WEATHER.replace("class = \"rain\"", "class = \"broken\""),
            "rule \"rain\": class: `broken` is for loops and scraps",
        ),
        (WEATHER.replace("id = \"sun\"", "id = \"rain\""), "rule \"rain\": id: must be there once"),
        (String::new(), "[[rule]]: there is none"),
    ] {
        let found = message(&text);
        assert!(found.starts_with(&format!("weather.toml: {expected}")), "expected {expected}\nfound {found}");
    }
}
