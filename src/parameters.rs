//! Parameters of what is run: their names in messages, and their values as text.
//!
//! The library names a parameter as Rust, Python and experiment files do. A front end that has other words for it, as the
//! command line has flags, says once how they are written ([`write_as`]). [`parameters!`](crate::parameters!) declares types of them.

mod declared;

pub use declared::{Parameters, Ranged, Rule, excludes, needs, reader, within};

use crate::names::meant;
use serde::de::Error;
use serde_json::{Map, Value};
use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::OnceLock;

/// A parameter in a message: `` `max_pairs` ``, or with a value `` `position = all` ``.
///
/// ```
/// use gatelens::parameters::param;
/// assert_eq!(format!("give {}", param("max_pairs")), "give `max_pairs`");
/// assert_eq!(format!("give {}", param("position").is("all")), "give `position = all`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The name of the field that holds it.
    pub name: &'static str,
    /// The value that is spoken of, if one is.
    pub value: Option<String>,
}

/// A parameter by the name of its field.
pub const fn param(name: &'static str) -> Param {
    Param { name, value: None }
}

impl Param {
    /// The parameter with this value.
    pub fn is(self, value: impl Display) -> Param {
        Param { value: Some(value.to_string()), ..self }
    }
}

/// How a front end writes parameters.
type Writer = fn(&Param, &mut fmt::Formatter<'_>) -> fmt::Result;

static WRITER: OnceLock<Writer> = OnceLock::new();

/// Messages of this process write parameters in this way from now on. The first call counts.
pub fn write_as(writer: Writer) {
    WRITER.get_or_init(|| writer);
}

impl Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (WRITER.get(), &self.value) {
            (Some(write), _) => write(self, f),
            (None, None) => write!(f, "`{}`", self.name),
            (None, Some(value)) => write!(f, "`{} = {value}`", self.name),
        }
    }
}

/// Reads a value by its text, for `#[serde(deserialize_with)]` and types that implement it; a whole number stands for its text.
///
/// # Errors
/// What [`FromStr`] says.
pub fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "expected a text")]
    enum Written {
        Text(String),
        Number(i64),
    }
    let text = match serde::Deserialize::deserialize(deserializer)? {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
    };
    text.parse().map_err(D::Error::custom)
}

/// What is wrong with parameters as a file or a program gives them.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("no parameter is called `{found}`{}", hint(nearest.as_deref()))]
    Unknown { found: String, nearest: Option<String> },
    #[error("the parameters cannot be read: {0}")]
    Unfit(#[from] serde_json::Error),
    #[error("{param}: {why}")]
    Unsound { param: Param, why: String },
    #[error("{param} needs {needed}: give it too, or leave {param} out")]
    Lacking { param: Param, needed: Param },
    #[error("{} and {} exclude each other: leave one out", .params[0], .params[1])]
    Excluded { params: [Param; 2] },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

/// Parameters from a JSON object; what it leaves out has its default.
///
/// # Errors
/// If it lacks one that has no default, names one that there is not, or a value does not fit.
pub fn read<P: Parameters>(object: &Map<String, Value>) -> Result<P, ParameterError> {
    let read: P = P::deserialize(Value::Object(object.clone()))?;
    // Parameters are flattened from several types, of which none knows the others' names; all are written.
    let known = serde_json::to_value(&read)?;
    let known = || known.as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    match object.keys().find(|key| !known().any(|name| name == *key)) {
        None => Ok(read),
        Some(found) => {
            Err(ParameterError::Unknown { found: found.clone(), nearest: meant(found, known()).map(str::to_string) })
        }
    }
}
