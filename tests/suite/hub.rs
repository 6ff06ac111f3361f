//! Models by name, from a hub on this machine's loopback that answers as the Hugging Face hub does.

use crate::support::cli::{Ended, command, ended};
use crate::support::copies::Folder;
use crate::support::family_dir;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A hub with one model, `owner/tiny`.
struct Hub {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

/// What the hub has, and what was asked of it.
#[derive(Default)]
struct State {
    /// Commits with the folders of their files; `main` is the last.
    commits: Vec<(String, PathBuf)>,
    /// A file that is answered with 503.
    broken: Option<&'static str>,
    asked: Vec<String>,
}

impl Hub {
    fn serving(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let hub = Hub { endpoint, state: Arc::default() };
        hub.push(folder);
        let state = hub.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = state.clone();
                std::thread::spawn(move || answer(stream, &state));
            }
        });
        hub
    }

    /// One at which nothing listens.
    fn gone() -> Self {
        Hub { endpoint: "http://127.0.0.1:1".to_string(), state: Arc::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no answer has panicked")
    }

    /// Moves `main` to another commit.
    fn push(&self, folder: &Path) {
        let mut state = self.state();
        let commit = format!("{}abc", state.commits.len());
        state.commits.push((commit, folder.to_path_buf()));
    }

    /// Inspects `hf:owner/tiny`.
    fn inspect(&self, home: &Path) -> Ended {
        self.inspect_model("hf:owner/tiny", home)
    }

    fn inspect_model(&self, model: &str, home: &Path) -> Ended {
        let mut command = command(["inspect", model]);
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", home).env_remove("HF_TOKEN");
        ended(command.output().expect("the binary starts"))
    }
}

/// Answers one request: a range of a file, or 404.
fn answer(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(&stream);
    let (mut line, mut from, mut to) = (String::new(), 0, usize::MAX);
    reader.read_line(&mut line).expect("a request");
    let path = line.split(' ').nth(1).unwrap_or_default().to_string();
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) < 3 {
            break;
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            let (a, b) = range.trim().split_once('-').expect("a range");
            (from, to) = (a.parse().expect("a number"), b.parse().unwrap_or(usize::MAX));
        }
    }
    let (status, commit, bytes) = looked_up(&path, &mut state.lock().expect("no answer has panicked"));
    let mut stream = &stream;
    let Some(bytes) = bytes else {
        let _ =
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        return;
    };
    let end = bytes.len().min(to.saturating_add(1));
    let body = &bytes[from.min(end)..end];
    // Blobs are kept under their tags: equal files have equal ones.
    let tag = bytes.iter().fold(bytes.len() as u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nETag: \"{tag:x}\"\r\n\
         X-Repo-Commit: {commit}\r\nConnection: close\r\n\r\n",
        body.len(),
        end.saturating_sub(1),
        bytes.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// The status, commit and bytes of what a path asks for.
fn looked_up(path: &str, state: &mut State) -> (&'static str, String, Option<Vec<u8>>) {
    state.asked.push(path.to_string());
    let (revision, name) =
        path.strip_prefix("/owner/tiny/resolve/").and_then(|p| p.split_once('/')).unwrap_or_default();
    if state.broken == Some(name) {
        return ("503 Service Unavailable", String::new(), None);
    }
    let found = match revision {
        "main" => state.commits.last(),
        commit => state.commits.iter().find(|(known, _)| known == commit),
    };
    let mut bytes = Vec::new();
    match found.map(|(_, folder)| std::fs::File::open(folder.join(name)).and_then(|mut f| f.read_to_end(&mut bytes))) {
        Some(Ok(_)) => ("200", found.map(|(commit, _)| commit.clone()).unwrap_or_default(), Some(bytes)),
        _ => ("404 Not Found", String::new(), None),
    }
}

#[test]
fn a_model_is_fetched_once_and_then_needs_no_hub() {
    let (hub, home) = (Hub::serving(&family_dir("llama")), tempfile::tempdir().expect("a folder"));
    let fetched = hub.inspect(home.path()).done();
    assert!(fetched.contains("llama") && fetched.contains("hf:owner/tiny"), "{fetched}");
    let again = Hub::gone().inspect(home.path());
    assert_eq!(again.stderr, "");
    assert_eq!(again.done(), fetched);
}

#[test]
fn nothing_is_asked_of_the_hub_for_a_model_that_was_fetched() {
    for folder in [Folder::of("llama"), Folder::of("llama").sharded()] {
        let (hub, home) = (Hub::serving(folder.path()), tempfile::tempdir().expect("a folder"));
        let fetched = hub.inspect(home.path()).done();
        hub.state().asked.clear();
        assert_eq!(hub.inspect(home.path()).done(), fetched);
        assert_eq!(hub.state().asked, [""; 0]);
    }
}

#[test]
fn a_model_in_shards_is_fetched_with_all_of_them() {
    let (folder, home) = (Folder::of("llama").sharded(), tempfile::tempdir().expect("a folder"));
    let fetched = Hub::serving(folder.path()).inspect(home.path()).done();
    assert_eq!(Hub::gone().inspect(home.path()).done(), fetched);
}

#[test]
fn what_changes_on_the_hub_changes_no_model_that_was_fetched() {
    let (hub, home) = (Hub::serving(&family_dir("llama")), tempfile::tempdir().expect("a folder"));
    let fetched = hub.inspect(home.path()).done();
    let other = Folder::of("qwen2");
    other.write("generation_config.json", "{}");
    hub.push(other.path());
    assert_eq!(hub.inspect(home.path()).done(), fetched);
    // Nor does it where the cache does not say what the commit has not.
    let cache = home.path().join("hub/models--owner--tiny");
    std::fs::remove_dir_all(cache.join(".no_exist")).expect("notes of what is absent");
    assert_eq!(hub.inspect(home.path()).done(), fetched);
    assert_eq!(std::fs::read_to_string(cache.join("refs/main")).expect("a reference"), "0abc");
    // It is there by its commit's name too.
    std::fs::remove_dir_all(cache.join("refs")).expect("references");
    let named = Hub::gone().inspect_model("hf:owner/tiny@0abc", home.path()).done();
    assert_eq!(named, fetched.replace("hf:owner/tiny", "hf:owner/tiny@0abc"));
}

#[test]
fn a_fetch_that_was_cut_off_goes_on_with_the_commit_that_it_began_with() {
    let (hub, home) = (Hub::serving(&family_dir("llama")), tempfile::tempdir().expect("a folder"));
    hub.state().broken = Some("model.safetensors");
    hub.inspect(home.path()).failed(1, &["hf:owner/tiny", "model.safetensors", "503"]);
    hub.push(&family_dir("qwen2"));
    hub.state().broken = None;
    let fetched = hub.inspect(home.path()).done();
    assert!(fetched.contains("llama"), "{fetched}");
}

#[test]
fn a_file_that_the_hub_did_not_give_is_not_taken_for_one_that_it_has_not() {
    let (hub, home) = (Hub::serving(&family_dir("llama")), tempfile::tempdir().expect("a folder"));
    hub.state().broken = Some("tokenizer_config.json");
    for _ in 0..2 {
        hub.inspect(home.path()).failed(1, &["hf:owner/tiny", "tokenizer_config.json", "503", "try again"]);
    }
    hub.state().broken = None;
    hub.inspect(home.path()).done();
}

#[test]
fn weights_that_something_else_fetched_are_used_without_a_hub_and_with_a_word() {
    let (hub, home) = (Hub::serving(&family_dir("llama")), tempfile::tempdir().expect("a folder"));
    let fetched = hub.inspect(home.path()).done();
    std::fs::remove_dir_all(home.path().join("hub/models--owner--tiny/.no_exist")).expect("notes of what is absent");
    let again = Hub::gone().inspect(home.path());
    assert!(
        again.stderr.starts_with("warning: ") && again.stderr.contains("no `tokenizer.json`, `"),
        "{}",
        again.stderr
    );
    assert_eq!(again.done(), fetched);
}

#[test]
fn an_adapter_is_fetched_and_merged_into_its_base_and_then_needs_no_hub() {
    let (folder, home) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let mut bytes = std::fs::read(family_dir("lora_llama").join(file)).expect("an adapter");
        if file.ends_with("json") {
            let base = family_dir("llama");
            let text = String::from_utf8(bytes).expect("UTF-8");
            bytes = text.replace("../llama", base.to_str().expect("UTF-8")).into_bytes();
        }
        std::fs::write(folder.path().join(file), bytes).expect("a file");
    }
    let hub = Hub::serving(folder.path());
    let first = hub.inspect(home.path());
    assert!(first.stderr.contains("LoRA adapter"), "{}", first.stderr);
    let fetched = first.done();
    hub.state().asked.clear();
    assert_eq!(hub.inspect(home.path()).done(), fetched);
    assert_eq!(hub.state().asked, [""; 0]);
    assert_eq!(Hub::gone().inspect(home.path()).done(), fetched);
}

#[test]
fn a_model_that_the_hub_has_not_is_an_error_that_names_it() {
    let (hub, home) = (Hub::serving(&family_dir("llama")), tempfile::tempdir().expect("a folder"));
    hub.inspect_model("hf:owner/other", home.path()).refused(&["hf:owner/other", "config.json", "404"]);
}

#[test]
fn a_hub_that_does_not_answer_is_work_that_failed_and_says_what_to_check() {
    let home = tempfile::tempdir().expect("a folder");
    Hub::gone().inspect(home.path()).failed(1, &["hf:owner/tiny", "the network"]);
}
