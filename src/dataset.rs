//! Reads dataset files: JSON Lines of prompt pairs or of single prompts.
//!
//! It checks everything that can be checked without a model, so that a bad line stops a command before anything is
//! computed, with the file, the line, the field and what was expected. [`encode`] then makes a model's token ids of inputs
//! and of `answer` and `foil`. Fields that no reader knows are passed over: tables of items have the ids, by which such fields
//! can be joined. A field that looks like an optional one, misspelt, is warned of.

pub(crate) mod data;
pub mod encode;
mod fields;
pub mod shown;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::demo;
use crate::model::template::Message;
use crate::names;
pub use data::{Data, IN_MEMORY};
use fields::Fields;

/// The longest line that is read, in bytes: a larger one is not a prompt but a wrong file.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Variables of a chat template beyond the conversation: Qwen 3's `enable_thinking`, `tools`, and the like.
pub type Vars = Map<String, Value>;

/// What a prompt is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A user's message: the chat template is applied, with a generation prompt, if the model has a template.
    User {
        /// The message.
        text: String,
        /// The item's `template_vars`.
        vars: Vars,
    },
    /// Text without a template.
    Text {
        /// The text. Special tokens that are spelled out in it become their ids.
        text: String,
        /// Whether the tokens that the model expects at the ends of a text (usually BOS, or none) are added.
        special_tokens: bool,
    },
    /// A conversation, through the chat template.
    Messages {
        /// The turns.
        messages: Vec<Message>,
        /// Whether the last message is gone on with (`true`), or an assistant's turn is opened after it. Where it is not
        /// said, an assistant's message is gone on with.
        go_on: Option<bool>,
        /// The item's `template_vars`.
        vars: Vars,
    },
    /// Token ids, used as they are.
    Ids(Vec<u32>),
}

impl Input {
    /// A user's message.
    pub fn user(text: impl Into<String>) -> Self {
        Input::User { text: text.into(), vars: Vars::new() }
    }

    /// Text without a template, with the special tokens that the model expects at its ends.
    pub fn text(text: impl Into<String>) -> Self {
        Input::Text { text: text.into(), special_tokens: true }
    }
}

/// A token of `answer` or `foil`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenRef {
    /// The token's id.
    Id(u32),
    /// A string of which the first token counts.
    Text(String),
}

/// A named part of a prompt, or of both of a pair: the second mention of the subject, the last token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its name, as tables and figures have it: of ASCII letters, digits, `+`, `-` and `_`, from a letter on, and neither
    /// `last` nor `all`.
    pub name: String,
    /// Positions in the final token ids of the prompt, of pairs of the positive one, from 0; a negative one counts from the end.
    pub positions: Vec<i64>,
}

impl Span {
    /// The positions in a prompt of so many tokens, ascending and each once.
    ///
    /// # Errors
    /// The first that the prompt has not.
    pub fn of(&self, length: usize) -> Result<Vec<usize>, i64> {
        let counted = |n: &i64| if *n < 0 { n.saturating_add_unsigned(length as u64) } else { *n };
        let found = |n: &i64| usize::try_from(counted(n)).ok().filter(|p| *p < length).ok_or(*n);
        let found: BTreeSet<usize> = self.positions.iter().map(found).collect::<Result<_, _>>()?;
        Ok(found.into_iter().collect())
    }
}

/// Two matched prompts: the positive one shows the behaviour, the negative one is its control.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The line of the file, from 1.
    pub line: usize,
    /// The pair's name, unique in its file; the line's number where it has none.
    pub id: String,
    /// The prompt that shows the behaviour (say, is refused).
    pub positive: Input,
    /// The matched control.
    pub negative: Input,
    /// A subset that results are split by.
    pub group: Option<String>,
    /// The prompts' language.
    pub lang: Option<String>,
    /// Tokens that count for the behaviour; empty where the file names none.
    pub answer: Vec<TokenRef>,
    /// Tokens that count against it; empty where the file names none.
    pub foil: Vec<TokenRef>,
    /// Named parts of the prompts, in the line's order; empty where the file names none.
    pub spans: Vec<Span>,
}

/// A single prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The line of the file, from 1.
    pub line: usize,
    /// The prompt's name, unique in its file; the line's number where it has none.
    pub id: String,
    /// The prompt.
    pub prompt: Input,
    /// The class that the prompt belongs to.
    pub label: Option<String>,
    /// A subset that results are split by.
    pub group: Option<String>,
    /// The prompt's language.
    pub lang: Option<String>,
    /// Tokens that count for the behaviour; empty where the file names none.
    pub answer: Vec<TokenRef>,
    /// Tokens that count against it; empty where the file names none.
    pub foil: Vec<TokenRef>,
    /// Strings of which a right answer holds one.
    pub facts: Vec<String>,
    /// Named parts of the prompt, in the line's order; empty where the file names none.
    pub spans: Vec<Span>,
}

/// A whole dataset file: never empty, ids unique.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset<T> {
    /// Where it was read from.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
    /// The items, in the file's order.
    pub items: Vec<T>,
    /// What a user should look at, each with its file and line.
    pub warnings: Vec<String>,
}

impl<T> Dataset<T> {
    /// The file as it was named, and its SHA-256: what a run's record says of it.
    pub fn source(&self) -> (String, String) {
        (self.path.display().to_string(), self.sha256.clone())
    }
}

/// Why a dataset file cannot be used. Every message names the file and, where there is one, the line.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The file is missing or may not be read.
    #[error("{}: cannot be opened: {source}; check the path and its permissions", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The path is a folder.
    #[error("{}: is a directory, expected a JSON Lines file", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
    },
    /// Reading stopped in the middle.
    #[error("{}: line {line}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line is longer than [`MAX_LINE_BYTES`].
    #[error(
        "{}: line {line}: longer than {} MiB; expected one JSON object a line", path.display(), MAX_LINE_BYTES >> 20
    )]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A line is not UTF-8.
    #[error("{}: line {line}: byte {byte} is not UTF-8; save the file as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The first wrong byte of the line, from 1.
        byte: usize,
    },
    /// A line is not a JSON object.
    #[error("{}: line {line}, column {column}: expected one JSON object a line: {reason}{}", path.display(), converted(path, *kind))]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The byte of the line, from 1.
        column: usize,
        /// What the JSON parser met.
        reason: String,
        /// What the file seems to be instead.
        kind: OtherFile,
    },
    /// A field that every line needs is not there.
    #[error(
        "{}: line {line}: field \"{field}\" is missing: expected {expected}{}", path.display(), meant(hint.as_deref())
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// What it must hold.
        expected: &'static str,
        /// A field of the line with nearly that name.
        hint: Option<String>,
    },
    /// A field holds something else than it must.
    #[error("{}: line {line}: field \"{field}\": expected {expected}, found {found}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field, with the place inside it: `positive.messages[1].role`.
        field: String,
        /// What it must hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// Two lines have the same id.
    #[error("{}: line {line}: field \"id\": \"{id}\" is already the id of line {first_line}; ids are unique", path.display())]
    DuplicateId {
        /// The file.
        path: PathBuf,
        /// The second line with the id.
        line: usize,
        /// The first line with it.
        first_line: usize,
        /// The id.
        id: String,
    },
    /// A pairs file where prompts are expected, or the reverse.
    #[error("{}: line {line}: this is {found}, expected {expected}", path.display())]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the file seems to be.
        found: &'static str,
        /// What the command reads.
        expected: &'static str,
    },
    /// A `demo:` name that is none.
    #[error("{}: is not a file of the demo{hint}", path.display())]
    NoDemoFile {
        /// The name, with `demo:`.
        path: PathBuf,
        /// The nearest names that are.
        hint: String,
    },
    /// The demo's files can be unpacked nowhere.
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    /// There is no item in the file.
    #[error("{}: holds no item; expected at least one line with a JSON object", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A file of another kind that holds prompts, and that a command converts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherFile {
    /// Nothing that is known.
    Unknown,
    /// A JSON array of objects, or one object over several lines.
    Json,
    /// Comma-separated values with a line of names.
    Csv,
}

/// How a file of another kind becomes JSON Lines: the tail of a message.
fn converted(path: &Path, kind: OtherFile) -> String {
    let program = match kind {
        OtherFile::Unknown => return String::new(),
        OtherFile::Json => {
            "x = json.load(open(sys.argv[1])); [print(json.dumps(o)) for o in (x if isinstance(x, list) else [x])]"
        }
        OtherFile::Csv => "[print(json.dumps(o)) for o in csv.DictReader(open(sys.argv[1], newline=\"\"))]",
    };
    let (name, what) = match kind {
        OtherFile::Csv => ("csv, json, sys", "a CSV file"),
        _ => ("json, sys", "a JSON file"),
    };
    let path = path.display();
    format!(
        "; this looks like {what}, and this command makes JSON Lines of it: python3 -c 'import {name}; {program}' {path} > {path}.jsonl"
    )
}

fn meant(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |name| format!("; the line has \"{name}\": was that meant?"))
}

/// Reads pairs, from a file or from memory:
/// `{"id"?, "positive", "negative", "group"?, "lang"?, "answer"?, "foil"?, "spans"?, "template_vars"?}` a line.
pub fn read_pairs(data: impl Into<Data>) -> Result<Dataset<Pair>, DatasetError> {
    read(&data.into(), &["id", "group", "lang", "answer", "foil", "spans", VARS], |fields| {
        fields.refuse_kind("prompt", &["positive", "negative"], PROMPTS_FILE, PAIRS_FILE)?;
        let vars = fields.vars(VARS)?;
        let pair = Pair {
            line: fields.line(),
            id: fields.id()?,
            positive: fields.input("positive", &vars)?,
            negative: fields.input("negative", &vars)?,
            group: fields.name("group")?,
            lang: fields.name("lang")?,
            answer: fields.tokens("answer")?,
            foil: fields.tokens("foil")?,
            spans: fields.spans("spans")?,
        };
        Ok((pair.id.clone(), pair))
    })
}

/// Reads prompts, from a file or from memory:
/// `{"id"?, "prompt", "label"?, "group"?, "lang"?, "answer"?, "foil"?, "facts"?, "spans"?, "template_vars"?}` a line.
pub fn read_prompts(data: impl Into<Data>) -> Result<Dataset<Item>, DatasetError> {
    read(&data.into(), &["id", "label", "group", "lang", "answer", "foil", "facts", "spans", VARS], |fields| {
        fields.refuse_kind("positive", &["prompt"], PAIRS_FILE, PROMPTS_FILE)?;
        let vars = fields.vars(VARS)?;
        let item = Item {
            line: fields.line(),
            id: fields.id()?,
            prompt: fields.input("prompt", &vars)?,
            label: fields.name("label")?,
            group: fields.name("group")?,
            lang: fields.name("lang")?,
            answer: fields.tokens("answer")?,
            foil: fields.tokens("foil")?,
            facts: fields.strings("facts")?,
            spans: fields.spans("spans")?,
        };
        Ok((item.id.clone(), item))
    })
}

/// Variables that an item hands to the chat template.
const VARS: &str = "template_vars";

const PAIRS_FILE: &str = "a pairs file (\"positive\" and \"negative\" in every line)";
const PROMPTS_FILE: &str = "a prompts file (\"prompt\" in every line)";

/// Reads line by line and hands each object's fields to `parse`, which gives the id and the item. Of `optional` fields one is
/// likely meant by a field that is left and has nearly that name.
fn read<T>(
    data: &Data,
    optional: &[&'static str],
    parse: impl Fn(&mut Fields<'_>) -> Result<(String, T), DatasetError>,
) -> Result<Dataset<T>, DatasetError> {
    let path = data.path();
    let mut lines = Lines::open(data)?;
    let mut items = Vec::new();
    let mut line_of_id: HashMap<String, usize> = HashMap::new();
    let mut misspelt: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    while let Some((line, text)) = lines.next_line()? {
        let mut fields = Fields::parse(path, line, text)?;
        let (id, item) = parse(&mut fields)?;
        if let Some(&first_line) = line_of_id.get(&id) {
            return Err(DatasetError::DuplicateId { path: path.to_owned(), line, first_line, id });
        }
        line_of_id.insert(id, line);
        items.push(item);
        for key in fields.left() {
            if !misspelt.contains_key(key)
                && let Some(meant) = names::meant(key, optional.iter().copied())
            {
                misspelt.insert(key.to_owned(), (line, meant));
            }
        }
    }
    if items.is_empty() {
        return Err(DatasetError::Empty { path: path.to_owned() });
    }
    let warning = |(key, (line, meant)): (&String, &(usize, &str))| {
        format!("{}: line {line}: the field \"{key}\" is passed over; was \"{meant}\" meant?", path.display())
    };
    let warnings: Vec<String> = misspelt.iter().map(warning).collect();
    warn_once(&warnings);
    Ok(Dataset { path: path.to_owned(), sha256: lines.sha256(), items, warnings })
}

/// Warns of a file once, however often a command reads it.
pub(crate) fn warn_once(warnings: &[String]) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    warnings.iter().filter(|warning| said.insert((*warning).clone())).for_each(|warning| tracing::warn!("{warning}"));
}

/// Where an input file is: `demo:NAME` is one that comes with the demo model.
///
/// # Errors
/// If the demo has no such file, or its files can be unpacked nowhere.
pub(crate) fn located(path: &Path) -> Result<PathBuf, DatasetError> {
    let Some(name) = path.to_str().and_then(|p| p.strip_prefix("demo:")) else { return Ok(path.to_path_buf()) };
    if demo::file(name).is_none() {
        let near = names::nearest(name, demo::FILES.iter().map(|(name, _)| *name));
        let near: Vec<String> = near.into_iter().map(|name| format!("demo:{name}")).collect();
        return Err(DatasetError::NoDemoFile { path: path.to_owned(), hint: names::suggestion(&near) });
    }
    Ok(demo::folder()?.join(name))
}

/// The lines of a file that are not blank, with their numbers; hashes the bytes as they pass.
struct Lines<'p> {
    path: &'p Path,
    reader: BufReader<Box<dyn Read + 'p>>,
    hasher: Sha256,
    buffer: Vec<u8>,
    line: usize,
}

impl<'p> Lines<'p> {
    fn open(data: &'p Data) -> Result<Self, DatasetError> {
        Ok(Lines {
            path: data.path(),
            reader: BufReader::with_capacity(1 << 18, data.open()?),
            hasher: Sha256::new(),
            buffer: Vec::new(),
            line: 0,
        })
    }

    /// The next line that is not blank, without its end; `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<(usize, &str)>, DatasetError> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            if !self.content().trim_ascii().is_empty() {
                break;
            }
        }
        let (path, line) = (self.path, self.line);
        match std::str::from_utf8(self.content()) {
            Ok(text) => Ok(Some((line, text))),
            Err(error) => Err(DatasetError::NotUtf8 { path: path.to_owned(), line, byte: error.valid_up_to() + 1 }),
        }
    }

    /// Reads one line into the buffer; `false` at the end of the file.
    fn fill(&mut self) -> Result<bool, DatasetError> {
        self.buffer.clear();
        self.line += 1;
        // One byte more than allowed is enough to know that a line is too long, whatever the file's size.
        let mut limited = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.buffer).map_err(|source| DatasetError::Read {
            path: self.path.to_owned(),
            line: self.line,
            source,
        })?;
        if read > MAX_LINE_BYTES {
            return Err(DatasetError::LongLine { path: self.path.to_owned(), line: self.line });
        }
        self.hasher.update(&self.buffer);
        Ok(read > 0)
    }

    /// The buffered line without its line end, and the first line without a byte order mark.
    fn content(&self) -> &[u8] {
        let mut bytes = self.buffer.as_slice();
        bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if self.line == 1 {
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        bytes
    }

    fn sha256(self) -> String {
        let digest = self.hasher.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
