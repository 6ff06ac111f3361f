//! The day that a chat template writes into prompts: a parameter, and never the clock's.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::Folder;
use gatelens::model::template::Message;
use gatelens::model::{Model, Options};
use serde_json::{Value, json};

/// A template whose words depend on the year.
const DATED: &str = "{% if strftime_now('%Y') == '2024' %}how{% else %}are{% endif %} {{ messages[0].content }}";

fn model() -> Folder {
    Folder::of("llama").with_template(DATED)
}

fn open(date: Option<&str>) -> Model {
    let folder = model();
    let options = Options { date: date.map(|day| day.parse().expect("a day")), ..Options::default() };
    Model::open(folder.path().to_str().expect("UTF-8"), &options).expect("a sound model")
}

fn ids(model: &Model) -> Vec<u32> {
    model.tokenizer().expect("a tokenizer").encode_chat(&[Message::user("you")], true).expect("ids")
}

#[test]
fn the_day_of_a_template_is_fixed_unless_it_is_given() {
    let fixed = open(None);
    assert_eq!(ids(&fixed), [1, 3]);
    let said = "the chat template writes the date: 2024-07-26 is assumed; give another with `date`";
    assert_eq!(fixed.warnings, [said]);
    let given = open(Some("2030-01-02"));
    assert_eq!(ids(&given), [2, 3]);
    assert_eq!((given.date().map(|day| day.to_string()).as_deref(), given.warnings.len()), (Some("2030-01-02"), 0));
}

#[test]
fn the_day_is_among_the_parameters_of_a_run_whose_template_writes_it() {
    let (dated, plain) = (model(), Folder::of("llama").with_template("{{ messages[0].content }}"));
    let bench = Bench::new();
    let line = json!({ "id": "p", "positive": "you are", "negative": "how are", "answer": [11], "foil": [23] });
    let pairs = bench.dataset("pairs.jsonl", &[line]);
    let recorded = |name: &str, folder: &Folder, more: &[&str]| {
        bench.interchange_to(&bench.out(name), folder.path(), &pairs, more).done();
        let record = std::fs::read(bench.out(name).join("run.json")).expect("a record");
        serde_json::from_slice::<Value>(&record).expect("JSON")["parameters"]["date"].clone()
    };
    assert_eq!(recorded("fixed", &dated, &[]), json!("2024-07-26"));
    assert_eq!(recorded("given", &dated, &["--date", "2030-01-02"]), json!("2030-01-02"));
    assert_eq!(recorded("plain", &plain, &["--date", "2030-01-02"]), Value::Null);
}

#[test]
fn what_is_no_day_is_refused() {
    let folder = model();
    let model = folder.path().to_str().expect("UTF-8");
    gatelens(["inspect", model, "--date", "2023-02-29"]).refused(&["--date", "2023-02-29", "write it as 2024-07-26"]);
}
