//! Models by name, from a hub on this machine's loopback that answers as the Hugging Face hub does.

use crate::support::cli::{command, ended};
use crate::support::copies::Folder;
use crate::support::family_dir;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// A hub with one model, `owner/tiny`, whose files are those of a folder.
struct Hub {
    endpoint: String,
}

impl Hub {
    fn serving(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let folder = folder.clone();
                std::thread::spawn(move || answer(stream, &folder));
            }
        });
        Hub { endpoint }
    }

    fn inspect(&self, model: &str, home: &Path) -> crate::support::cli::Ended {
        let mut command = command(["inspect", model]);
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", home).env_remove("HF_TOKEN");
        ended(command.output().expect("the binary starts"))
    }
}

/// Answers one request: a range of a file, or 404.
fn answer(stream: TcpStream, folder: &Path) {
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
    let name = path.strip_prefix("/owner/tiny/resolve/main/").unwrap_or("none");
    let mut bytes = Vec::new();
    let found = std::fs::File::open(folder.join(name)).and_then(|mut f| f.read_to_end(&mut bytes));
    let mut stream = &stream;
    if found.is_err() {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let end = bytes.len().min(to.saturating_add(1));
    let body = &bytes[from.min(end)..end];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nETag: \"{name}\"\r\n\
         X-Repo-Commit: 0123abc\r\nConnection: close\r\n\r\n",
        body.len(),
        end.saturating_sub(1),
        bytes.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[test]
fn a_model_is_fetched_once_and_then_needs_no_hub() {
    let (hub, home) = (Hub::serving(family_dir("llama")), tempfile::tempdir().expect("a folder"));
    let fetched = hub.inspect("hf:owner/tiny", home.path()).done();
    assert!(fetched.contains("llama") && fetched.contains("hf:owner/tiny"), "{fetched}");
    let gone = Hub { endpoint: "http://127.0.0.1:1".to_string() };
    assert_eq!(gone.inspect("hf:owner/tiny", home.path()).done(), fetched);
}

#[test]
fn a_model_in_shards_is_fetched_with_all_of_them() {
    let (folder, home) = (Folder::of("llama").sharded(), tempfile::tempdir().expect("a folder"));
    let fetched = Hub::serving(folder.path().to_path_buf()).inspect("hf:owner/tiny", home.path()).done();
    let gone = Hub { endpoint: "http://127.0.0.1:1".to_string() };
    assert_eq!(gone.inspect("hf:owner/tiny", home.path()).done(), fetched);
}

#[test]
fn a_model_that_the_hub_has_not_is_an_error_that_names_it() {
    let (hub, home) = (Hub::serving(family_dir("llama")), tempfile::tempdir().expect("a folder"));
    hub.inspect("hf:owner/other", home.path()).refused(&["hf:owner/other", "config.json", "404"]);
}

#[test]
fn a_hub_that_does_not_answer_is_an_error_that_says_what_to_check() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub { endpoint: "http://127.0.0.1:1".to_string() };
    hub.inspect("hf:owner/tiny", home.path()).refused(&["hf:owner/tiny", "the network"]);
}
