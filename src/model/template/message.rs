//! One turn of a conversation, with every field that its file gives it.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

/// One turn of a conversation: an object that is handed to the template as it is, its fields in the order given.
///
/// ```
/// # use gatelens::model::template::Message;
/// let turn: Message = serde_json::from_str(r#"{"role": "assistant", "reasoning_content": "Hm.", "content": "Yes."}"#)?;
/// assert_eq!((turn.role(), turn.text()), ("assistant", Some("Yes.")));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Message {
    fields: Map<String, Value>,
}

/// Why an object is no turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Nobody speaks.
    #[error("missing field `role`: a message says who speaks, such as \"user\"")]
    NoRole,
    /// The role is no text.
    #[error("the role is {found}; a message says who speaks in a string that is not empty, such as \"user\"")]
    WrongRole {
        /// What stands there, as JSON.
        found: String,
    },
}

impl Message {
    /// A turn of `role` (`system`, `user`, `assistant`, or what else the template knows) with a plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let entries = [("role", role.into()), ("content", content.into())];
        Self { fields: entries.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect() }
    }

    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A turn of any fields, such as `reasoning_content`, `tool_calls` or a `content` in parts.
    ///
    /// # Errors
    /// [`MessageError`] where the `role` is missing, empty or no string.
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, MessageError> {
        match fields.get("role") {
            None => Err(MessageError::NoRole),
            Some(Value::String(role)) if !role.is_empty() => Ok(Self { fields }),
            Some(other) => Err(MessageError::WrongRole { found: other.to_string() }),
        }
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// What is said, where `content` is a plain text: not where it is null, absent, or a list of parts.
    pub fn text(&self) -> Option<&str> {
        self.fields.get("content")?.as_str()
    }

    /// All that the turn holds, `role` and `content` among it.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_fields(Map::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
