//! What a process that shares a run leaves in its folder: what the others must have in common with it.

use crate::files::write_new;
use crate::parameters::param;
use crate::rundir::{RunDir, RunDirError};
use crate::study::rundir::COMMAND_FILE;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is said of a run that is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// The words after `gatelens`; none where the run was not begun by a command.
    pub words: Vec<String>,
    /// The folder that the command was given in.
    pub folder: PathBuf,
    /// gatelens' version.
    pub version: String,
    /// How products with weights are computed: parts of another kind may differ from these in their last digits. None of an experiment,
    /// whose analyses say it each.
    pub products: Option<String>,
    /// Whether the model is read from its file layer by layer: it is cut into other pieces then.
    pub streamed: bool,
    /// About how many parts there will be.
    pub parts: usize,
}

impl Note {
    /// What this process says of a run that these words began.
    pub(crate) fn of(words: &[String]) -> Note {
        let (folder, version) = (std::env::current_dir().unwrap_or_default(), env!("CARGO_PKG_VERSION").to_string());
        Note { words: words.to_vec(), folder, version, ..Note::default() }
    }

    /// What is said in a folder; none where it is not shared, or what is there cannot be read.
    pub fn read(partial: &Path) -> Option<Note> {
        serde_json::from_slice(&std::fs::read(partial.join(COMMAND_FILE)).ok()?).ok()
    }

    /// Leaves it in a run's folder, or holds this process to what is said there.
    ///
    /// # Errors
    /// If the others compute otherwise, or it cannot be written.
    pub(crate) fn leave(&self, directory: &RunDir) -> Result<(), RunDirError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        if write_new(&directory.path(COMMAND_FILE)?, &text)? {
            return Ok(());
        }
        let unread = || format!("{COMMAND_FILE}: cannot be read; remove it, if no process is at work there");
        let fits = Note::read(directory.folder()).ok_or_else(unread).and_then(|found| self.fits(&found));
        fits.map_err(|why| RunDirError::OtherParts { path: directory.folder().to_path_buf(), why })
    }

    /// Whether parts of the two are of one kind.
    ///
    /// # Errors
    /// With what differs.
    pub(crate) fn fits(&self, other: &Note) -> Result<(), String> {
        if self.version != other.version {
            return Err(format!("its parts are of gatelens {}, these of {}", other.version, self.version));
        }
        match (&self.products, &other.products) {
            (Some(here), Some(there)) if here != there => Err(format!(
                "its parts were computed by `{there}` products, this processor computes by `{here}`, whose results may differ in \
                 their last digits; run all of them with {}, or remove the folder and start anew on like processors",
                param("portable")
            )),
            _ if self.streamed != other.streamed => Err(format!(
                "its parts are of a model that {}, which is cut into other pieces; give all processes the same {}",
                if other.streamed { "is read from its file layer by layer" } else { "is held whole" },
                param("max_memory")
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_another_kind_are_refused_by_name() {
        let note = |version: &str, products: Option<&str>| Note {
            version: version.to_string(),
            products: products.map(str::to_string),
            ..Note::default()
        };
        let here = note("1", Some("packed, avx512f"));
        assert_eq!(here.fits(&note("1", Some("packed, avx512f"))), Ok(()));
        assert_eq!(here.fits(&note("1", None)), Ok(()));
        let why = here.fits(&note("1", Some("packed, avx2"))).unwrap_err();
        assert!(["`packed, avx2`", "`packed, avx512f`", "`portable`"].iter().all(|part| why.contains(part)), "{why}");
        assert!(here.fits(&note("2", Some("packed, avx512f"))).unwrap_err().contains("gatelens 2"));
        let streamed = Note { streamed: true, ..here.clone() };
        assert!(here.fits(&streamed).unwrap_err().contains("`max_memory`"));
    }
}
