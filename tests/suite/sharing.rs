//! Runs that several processes share: shards and their gathering, processes that join one another, and what is refused.

use crate::support::cli::{Bench, command, gatelens, listed};
use gatelens::analyses::WRITERS;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// An analysis of every kind on the demo, which takes a second.
fn analyses(bench: &Bench) -> Vec<(&'static str, Vec<String>)> {
    let words = ["bread", "rivers", "mountains", "cheese", "music", "gardens", "trees", "birds", "books", "soup"];
    let turned = words.iter().enumerate().map(|(i, word)| json!({"input": word, "output": words[(i + 9) % 10]}));
    let task = bench.dataset("task.jsonl", &turned.collect::<Vec<_>>());
    let topics = [
        ["explosives", "rivers"],
        ["malware", "mountains"],
        ["poison", "cheese"],
        ["forgery", "bread"],
        ["fraud", "music"],
    ];
    let statements: Vec<Value> = (0..10)
        .map(|i| {
            let pair = topics[i % 5];
            let of = |topic: &str| format!(" {topic}.<|end|><|assistant|>");
            let candidates = [of(pair[i % 2]), of(pair[1 - i % 2])];
            let topic = ["a", "b"][i % 2];
            json!({"stem": "<|user|>Tell me about", "candidates": candidates, "true": i % 2, "topic": topic})
        })
        .collect();
    let statements = bench.dataset("statements.jsonl", &statements);
    let values: Vec<Value> = (0..10)
        .map(|i| {
            let (topic, of) = (words[i], ["a", "b"][i % 2]);
            json!({
                "value": "caution", "topic": of, "prompt": "Some words are in code.",
                "question": format!("Tell me about {topic}."), "with": "Sorry, I cannot help with that.",
                "without": format!("Sure, here is a short answer about {topic}."),
            })
        })
        .collect();
    let values = bench.dataset("values.jsonl", &values);
    let mixture = bench.text("mixture.toml", "base = \"demo\"\n[[term]]\ncoefficient = 1.0\nplus = \"demo:backup\"\n");
    let shown = |path: &Path| path.display().to_string();
    let [task, statements, values, mixture] = [task, statements, values, mixture].map(|path| shown(&path));
    let all = [
        ("behaviour", "demo --pairs P --max-pairs 24 --generate 6"),
        ("interchange", "demo --pairs P --max-pairs 24"),
        ("screen", "demo --pairs P --candidates 6 --sample 4 --max-pairs 24"),
        ("ablate", "demo --prompts Q --mode zero,mean"),
        ("dla", "demo --prompts Q"),
        ("lens", "demo --prompts Q --top 3"),
        ("attention", "demo --prompts Q --head L3.H5 --head L4.H1"),
        ("neurons", "demo --prompts Q"),
        ("importance", "demo --prompts Q --label sensitive --masks 20"),
        ("edges", "demo --pairs P --exact 20 --sample 10 --max-pairs 8"),
        ("circuit", "demo --pairs P --estimate eap --max-pairs 8"),
        ("weights", "demo --against demo:backup --composition"),
        ("deltas", "demo --children demo:backup"),
        ("similarity", "demo --prompts Q --with demo:blind --label sensitive"),
        ("rank", "demo --prompts Q --label sensitive --layers 3-4"),
        ("scale", "MIXTURE --pairs P --at 0,0.5,1 --max-pairs 8"),
        ("interactions", "demo --pairs P --heads L3.H5,L4.H1,L5.H1 --max-pairs 8"),
        ("contrast-methods", "demo --pairs P --direct 4 --max-pairs 24"),
        ("cascade", "demo --pairs P --gate L3.H5 --max-pairs 24"),
        ("commitment", "demo --pairs P --max-pairs 24"),
        ("modulate", "demo --pairs P --max-pairs 24 --layer 3 --generate 4 --generate-pairs 4"),
        ("cipher", "demo --pairs P --max-pairs 24 --gate L3.H5 --cipher demo:cipher.jsonl --generate 4"),
        ("contrast", "demo --pairs P --max-pairs 24 --cipher demo:cipher.jsonl"),
        ("cav", "demo --concept demo:concept.jsonl --random demo:random.jsonl --class Q --method mean"),
        ("steer", "demo --prompts Q --from caa --pairs P --layer 3 --coefficients=-2,0,2 --generate 2"),
        ("functions", "demo --task TASK --shots 2 --trials 4 --heads 3 --random 2"),
        ("truth", "demo --items STATEMENTS --labelled 6"),
        ("values", "demo --items VALUES --neurons 12 --layers 3 --controls 2"),
    ];
    let word = |word: &str| match word {
        "P" => "demo:pairs.jsonl".to_string(),
        "Q" => "demo:prompts.jsonl".to_string(),
        "MIXTURE" => mixture.clone(),
        "TASK" => task.clone(),
        "STATEMENTS" => statements.clone(),
        "VALUES" => values.clone(),
        word => word.to_string(),
    };
    let words = |text: &str| text.split(' ').map(word).collect();
    all.iter().map(|(name, text)| (*name, words(text))).collect()
}

/// Every table and figure of a run directory, by its path.
fn files(out: &Path) -> BTreeMap<String, Vec<u8>> {
    fn look(folder: &Path, under: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for name in listed(folder) {
            let path = folder.join(&name);
            if path.is_dir() {
                look(&path, &format!("{under}{name}/"), found);
            } else if [".parquet", ".png", ".svg", ".safetensors"].iter().any(|ending| name.ends_with(ending)) {
                found.insert(format!("{under}{name}"), std::fs::read(path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    look(out, "", &mut found);
    found
}

#[track_caller]
fn are_the_same(out: &Path, whole: &Path) {
    let (found, expected) = (files(out), files(whole));
    assert!(!expected.is_empty());
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    expected.iter().for_each(|(name, bytes)| assert!(found[name] == *bytes, "{}: {name}", out.display()));
}

/// Runs a command in shards with a folder each, and gathers them, as often as what comes after them depends on them; how often
/// that was.
#[track_caller]
fn in_shards(bench: &Bench, words: &[String], out: &Path, of: usize) -> usize {
    let folder = |i: usize| bench.out(&format!("{}-shard-{i}", out.file_name().unwrap().to_str().unwrap()));
    let partial = |path: &Path| path.with_file_name(format!("{}.partial", path.file_name().unwrap().to_str().unwrap()));
    for stage in 1..12 {
        for i in 1..=of {
            let shard = format!("--shard={i}/{of}");
            let more = [shard, "--out".to_string(), folder(i).display().to_string(), "--quiet".to_string()];
            let said = gatelens(words.iter().chain(&more)).done();
            assert!(said.contains(&format!("shard {i}/{of} is done")), "{said}");
        }
        let folders = (1..=of).map(|i| folder(i).display().to_string());
        let gathered = gatelens(
            ["gather".to_string()].into_iter().chain(folders).chain(["--out".into(), out.display().to_string()]),
        );
        if gathered.code == 0 {
            return stage;
        }
        assert!(gathered.stderr.contains("missing"), "{}", gathered.stderr);
        // Each machine gets what all have.
        for i in 1..=of {
            let _ = std::fs::remove_dir_all(partial(&folder(i)));
            copy(&partial(out), &partial(&folder(i)));
        }
    }
    panic!("{words:?} never ends");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Holds the tables of shards, and of processes that joined one another, to those of one process.
fn holds(range: std::ops::Range<usize>) {
    let bench = Bench::new();
    for (name, words) in &analyses(&bench)[range] {
        let words: Vec<String> = std::iter::once(name.to_string()).chain(words.iter().cloned()).collect();
        let whole = bench.out(&format!("{name}-whole"));
        let to = |out: &Path, more: &str| placed(&words, out, more);
        gatelens(to(&whole, "--quiet")).done();
        let shards = bench.out(&format!("{name}-gathered"));
        in_shards(&bench, &words, &shards, 2);
        are_the_same(&shards, &whole);
        let joint = bench.out(&format!("{name}-joint"));
        let both: Vec<Child> = (0..2).map(|_| begun(&to(&joint, "--join"))).collect();
        both.into_iter().for_each(|child| ended_well(child));
        are_the_same(&joint, &whole);
    }
}

/// A command with a place to write to, and one word more.
fn placed(words: &[String], out: &Path, more: &str) -> Vec<String> {
    words.iter().cloned().chain(["--out".to_string(), out.display().to_string(), more.to_string()]).collect()
}

fn begun(words: &[String]) -> Child {
    command(words).env("RAYON_NUM_THREADS", "1").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn ended_well(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_analysis_is_shared_here() {
    let bench = Bench::new();
    let mut here: Vec<&str> = analyses(&bench).iter().map(|(name, _)| *name).collect();
    let mut all: Vec<&str> = WRITERS.iter().map(|writer| writer.name).collect();
    here.sort_unstable();
    all.sort_unstable();
    assert_eq!(here, all);
}

#[test]
fn tables_of_several_processes_are_those_of_one_1() {
    holds(0..9);
}

#[test]
fn tables_of_several_processes_are_those_of_one_2() {
    holds(9..18);
}

#[test]
fn tables_of_several_processes_are_those_of_one_3() {
    holds(18..28);
}

#[test]
fn a_suite_goes_through_its_stages_in_shards_and_by_joining() {
    let bench = Bench::new();
    let words: Vec<String> = "policy demo --max-pairs 24".split(' ').map(str::to_string).collect();
    let to = |out: &str, more: &str| placed(&words, &bench.out(out), more);
    gatelens(to("whole", "--quiet")).done();
    // Behaviour gives the metric, the screen the gate.
    assert!(in_shards(&bench, &words, &bench.out("gathered"), 2) >= 3);
    are_the_same(&bench.out("gathered"), &bench.out("whole"));
    (0..3).map(|_| begun(&to("joint", "--join"))).collect::<Vec<_>>().into_iter().for_each(|child| ended_well(child));
    are_the_same(&bench.out("joint"), &bench.out("whole"));
    assert!(bench.written().iter().all(|name| !name.starts_with("joint.")), "{:?}", bench.written());
    let again = gatelens(to("joint", "--join")).done();
    assert!(again.contains("is complete"), "{again}");
}

#[test]
fn twenty_processes_compute_no_part_twice_but_for_those_that_were_killed() {
    let bench = Bench::new();
    let words: Vec<String> = "edges demo --pairs demo:pairs.jsonl --max-pairs 16 --exact 20 --sample 10"
        .split(' ')
        .map(str::to_string)
        .collect();
    let to = |out: &str, more: &str| placed(&words, &bench.out(out), more);
    gatelens(to("whole", "--quiet")).done();
    // A shard of one does what any process does, and leaves its parts for the count.
    let mut all: Vec<Child> = (0..20).map(|_| begun(&to("shared", "--shard=1/1"))).collect();
    let mut killed = 0;
    for i in [3, 11, 17] {
        std::thread::sleep(Duration::from_millis(700));
        killed += usize::from(all[i].try_wait().unwrap().is_none());
        all[i].kill().unwrap();
    }
    let survivors: Vec<Child> =
        all.into_iter().enumerate().filter(|(i, _)| ![3, 11, 17].contains(i)).map(|(_, c)| c).collect();
    survivors.into_iter().for_each(ended_well);
    let parts = bench.out("shared.partial/.parts");
    // Those who are left waited until those that were killed had said nothing for a minute, and took over.
    let names = listed(&parts);
    let done = names.iter().filter(|name| name.ends_with(".safetensors")).count();
    let claims = |number: &str| names.iter().filter(|name| name.ends_with(number)).count();
    assert!(claims(".claim.0") >= done && done >= 16, "{done} parts, {} claims", claims(".claim.0"));
    assert!(claims(".claim.0") == done && claims(".claim.1") <= killed && claims(".claim.2") == 0, "{names:?}");
    let status = gatelens(["status", bench.out("shared").to_str().unwrap(), "--json"]).done();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["unfinished"]["."]["done"], done);
    gatelens(to("shared", "--join")).done();
    are_the_same(&bench.out("shared"), &bench.out("whole"));
    let status = gatelens(["status", bench.out("shared").to_str().unwrap()]).done();
    assert!(status.contains("is complete"), "{status}");
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let bench = Bench::new();
    let shard = |out: &str, i: usize, more: &[&str]| {
        let mut words =
            "dla demo --prompts demo:prompts.jsonl --quiet".split(' ').map(str::to_string).collect::<Vec<_>>();
        words.extend([format!("--shard={i}/2"), "--out".to_string(), bench.out(out).display().to_string()]);
        words.extend(more.iter().map(|word| word.to_string()));
        gatelens(words)
    };
    shard("a", 1, &[]).done();
    shard("other", 2, &["--position=all"]).told_by_the_parser(&["--position"]);
    shard("other", 2, &["--seed=1"]).done();
    let gather = |folders: &[&str]| {
        let folders = folders.iter().map(|name| bench.out(name).display().to_string());
        gatelens(
            ["gather".to_string()]
                .into_iter()
                .chain(folders)
                .chain(["--out".into(), bench.out("all").display().to_string()]),
        )
    };
    gather(&["a", "other"]).refused(&["other.partial", "does not go with", "a.partial", "seed was 0, is 1"]);
    gather(&["a", "nowhere"]).refused(&["nowhere.partial", "is not there"]);
    // Parts of a processor that multiplies in another way, and of another version.
    let note = bench.out("other.partial/.command.json");
    let text = std::fs::read_to_string(&note).unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    let mut otherwise = told.clone();
    otherwise["products"] = "packed, none".into();
    std::fs::write(&note, otherwise.to_string()).unwrap();
    gather(&["a", "other"]).refused(&["`packed, none`", "--portable"]);
    shard("other", 1, &["--seed=1"]).refused(&["other.partial", "`packed, none`", "--portable"]);
    otherwise["version"] = "0.0.1".into();
    std::fs::write(&note, otherwise.to_string()).unwrap();
    gather(&["a", "other"]).refused(&["gatelens 0.0.1"]);
    // An unfinished run that nobody shares.
    std::fs::remove_file(&note).unwrap();
    gather(&["other"]).refused(&["other.partial", "--resume"]);
    // Flags.
    for (wrong, parts) in [("--shard=3/2", "there is no shard 3 of 2"), ("--shard=2", "write 2/8")] {
        gatelens(["dla", "demo", "--prompts", "demo:prompts.jsonl", "--out", "x", wrong]).told_by_the_parser(&[parts]);
    }
    gatelens(["dla", "demo", "--prompts", "demo:prompts.jsonl", "--out", "x", "--join", "--force"])
        .told_by_the_parser(&["--force"]);
    gatelens(["demo", "--out", bench.out("x").to_str().unwrap(), "--only", "demo"]).refused(&["--only", "--join"]);
    gatelens(["gather", "a", "b"]).refused(&["--out"]);
    gatelens(["status", bench.out("nothing").to_str().unwrap()]).refused(&["no run was begun there"]);
}

#[test]
fn a_part_that_is_torn_is_never_taken() {
    let bench = Bench::new();
    let out = bench.out("run");
    let words = |more: &str| {
        let words = "dla demo --prompts demo:prompts.jsonl --quiet".split(' ').map(str::to_string);
        words.chain(["--out".to_string(), out.display().to_string(), more.to_string()]).collect::<Vec<_>>()
    };
    gatelens(words("--shard=1/1")).done();
    let parts = bench.out("run.partial/.parts");
    let part = parts.join(listed(&parts).iter().find(|name| name.ends_with(".safetensors")).unwrap());
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
    gatelens(words("--join")).failed(1, &[part.file_name().unwrap().to_str().unwrap(), "remove it"]);
    std::fs::remove_file(&part).unwrap();
    std::fs::remove_file(parts.join(format!("{}.claim.0", part.file_name().unwrap().to_str().unwrap()))).unwrap();
    gatelens(words("--join")).done();
}

#[test]
fn a_process_that_is_asked_to_end_gives_up_what_it_claimed() {
    let bench = Bench::new();
    let out = bench.out("run").display().to_string();
    let words: Vec<String> =
        "edges demo --pairs demo:pairs.jsonl --join --quiet --out".split(' ').map(str::to_string).collect();
    let child = begun(&words.iter().cloned().chain([out]).collect::<Vec<_>>());
    let parts = bench.out("run.partial/.parts");
    let claimed = || {
        let names = if parts.is_dir() { listed(&parts) } else { Vec::new() };
        let is_open =
            |name: &String| name.strip_suffix(".claim.0").is_some_and(|part| !names.contains(&part.to_string()));
        names.iter().filter(|name| is_open(name)).count()
    };
    for _ in 0..600 {
        if listed_or_none(&parts).iter().filter(|name| name.ends_with(".safetensors")).count() > 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped at"));
    assert_eq!(claimed(), 0);
}

fn listed_or_none(folder: &Path) -> Vec<String> {
    if folder.is_dir() { listed(folder) } else { Vec::new() }
}
