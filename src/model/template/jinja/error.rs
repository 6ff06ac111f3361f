//! Why a template cannot be parsed or rendered.

/// The error and where it arose.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model::template) struct Error {
    /// The line, from 1; 0 where it is not known yet.
    pub line: usize,
    pub kind: ErrorKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::model::template) enum ErrorKind {
    /// The template called `raise_exception`.
    Raised(String),
    /// It took too many steps.
    Endless,
    /// It made or wrote too much.
    Flood,
    /// Anything else, in words.
    Failed(String),
}

impl Error {
    /// What went wrong.
    pub fn words(self) -> String {
        match self.kind {
            ErrorKind::Raised(words) | ErrorKind::Failed(words) => words,
            ErrorKind::Endless => "it takes too many steps".to_owned(),
            ErrorKind::Flood => "it makes too much".to_owned(),
        }
    }
}

pub(super) type Res<T> = Result<T, Error>;

pub(super) fn fail(why: impl Into<String>) -> Error {
    fail_at(0, why)
}

pub(super) fn fail_at(line: usize, why: impl Into<String>) -> Error {
    Error { line, kind: ErrorKind::Failed(why.into()) }
}

/// Notes the line where it is not known yet.
pub(super) fn at<T>(line: usize, result: Res<T>) -> Res<T> {
    result.map_err(|error| Error { line: if error.line == 0 { line } else { error.line }, ..error })
}
