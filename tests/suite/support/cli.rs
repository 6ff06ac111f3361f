//! Running the binary, and what it needs: datasets and output folders.

use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// How the binary ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A run of the binary that is yet to be started, away from the caller's own settings.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatelens"));
    command.args(args).env_remove("GATELENS_LOG").env_remove("RAYON_NUM_THREADS").stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn gatelens<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    ended(command(args).output().expect("the binary starts"))
}

/// What every run must keep to: an exit code of its own and no word of a panic.
#[track_caller]
pub fn ended(output: Output) -> Ended {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let code = output.status.code().unwrap_or_else(|| panic!("stopped by a signal: {stderr}"));
    assert!(!stderr.contains("internal:") && !stderr.contains("panicked"), "a panic: {stderr}");
    Ended { code, stdout, stderr }
}

impl Ended {
    /// Done: exit code 0, and the summary.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }

    /// Ended with `code`, nothing on standard output and one error that holds all `parts`.
    #[track_caller]
    pub fn failed(self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in: {}", self.stderr);
        }
    }

    /// Wrong input that was found after something was done and said.
    #[track_caller]
    pub fn refused_after(self, part: &str) {
        assert_eq!(self.code, 2, "{}", self.stderr);
        assert!(self.stderr.starts_with("error: ") && self.stderr.contains(part), "{}", self.stderr);
    }

    /// Flags that the command line's parser refuses: exit code 2, and its message holds all `parts`.
    #[track_caller]
    pub fn told_by_the_parser(self, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (2, ""), "{}", self.stderr);
        parts.iter().for_each(|part| assert!(self.stderr.contains(part), "no `{part}` in: {}", self.stderr));
    }

    /// Wrong input: [`Ended::failed`] with exit code 2.
    #[track_caller]
    pub fn refused(self, parts: &[&str]) {
        self.failed(2, parts);
    }
}

/// A folder for a test's datasets, with another in it for what is written.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("out")).expect("a folder");
        Bench { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the folder for what is written.
    pub fn out(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    /// The names of what was written.
    pub fn written(&self) -> Vec<String> {
        listed(&self.path("out"))
    }

    /// Writes a dataset, one value a line.
    pub fn dataset(&self, name: &str, lines: &[Value]) -> PathBuf {
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        self.text(name, &text.join("\n"))
    }

    pub fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a dataset");
        path
    }

    /// Runs `interchange` into `out/run`.
    pub fn interchange(&self, model: &Path, pairs: &Path, more: &[&str]) -> Ended {
        self.interchange_to(&self.out("run"), model, pairs, more)
    }

    pub fn interchange_to(&self, out: &Path, model: &Path, pairs: &Path, more: &[&str]) -> Ended {
        let args: [&OsStr; 6] = [
            "interchange".as_ref(),
            model.as_ref(),
            "--pairs".as_ref(),
            pairs.as_ref(),
            "--out".as_ref(),
            out.as_ref(),
        ];
        gatelens(args.into_iter().chain(more.iter().map(OsStr::new)))
    }

    /// Runs `trace` into `out/trace.safetensors`.
    pub fn trace(&self, model: &Path, prompts: &Path, sites: &str, more: &[&str]) -> Ended {
        self.trace_to(&self.out("trace.safetensors"), model, prompts, sites, more)
    }

    pub fn trace_to(&self, out: &Path, model: &Path, prompts: &Path, sites: &str, more: &[&str]) -> Ended {
        let start: [&OsStr; 4] = ["trace".as_ref(), model.as_ref(), "--prompts".as_ref(), prompts.as_ref()];
        let end: [&OsStr; 4] = ["--sites".as_ref(), sites.as_ref(), "--out".as_ref(), out.as_ref()];
        gatelens(start.into_iter().chain(end).chain(more.iter().map(OsStr::new)))
    }
}

/// The names in a folder, sorted.
pub fn listed(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A pair of prompts as ids, with the answer and the foil of the golden metric.
pub fn pair(id: &str, positive: &[u32], negative: &[u32]) -> Value {
    let ids = |ids: &[u32]| json!({ "ids": ids });
    json!({ "id": id, "positive": ids(positive), "negative": ids(negative), "answer": [11], "foil": [23] })
}
