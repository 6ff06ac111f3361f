//! A chat template of any text, rendered for a conversation.
#![no_main]

use gatelens::model::template::{ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::new(source, "<s>", "</s>") else { return };
    let _ = template.depends_on_date();
    let template = template.at(1_700_000_000);
    let _ = template.render(&[Message::user("Hello there"), Message::user("and again")], true);
});
