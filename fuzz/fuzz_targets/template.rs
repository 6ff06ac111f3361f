//! A chat template of any text, rendered for a conversation.
#![no_main]

use gatelens::model::template::{ChatTemplate, Day, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let specials = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let Ok(template) = ChatTemplate::new(source, &specials.into()) else { return };
    let _ = template.date();
    let template = template.at("2023-11-14".parse::<Day>().expect("a day"));
    let _ = template.render(&[Message::user("Hello there"), Message::user("and again")], true, &Default::default());
});
