//! The flags of a run that several processes share, and what is said when one of them stops before its tables.

use super::{CliError, say};
use crate::study::{Missing, Shard, Share};
use serde_json::json;
use std::path::Path;

// Not a documentation comment: clap would show it as each command's.
// Who computes a run.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct With {
    /// Compute one of several shards of the work alone, as 2/8; `gather` makes the tables of all
    ///
    /// What a shard has finished is kept in DIR.partial. Shards may have a folder each, on machines that share no disk.
    #[arg(long, value_name = "I/N", conflicts_with_all = ["force", "join"])]
    shard: Option<Shard>,

    /// Work together with all processes that are given the same command and --out, on one machine or many
    ///
    /// Each takes the next piece of the work that no other is at, and the last one writes the tables. They may come and go; a piece
    /// of one that is gone is taken over after a minute.
    #[arg(long, conflicts_with = "force")]
    join: bool,

    // Compute nothing: all parts are there.
    #[arg(long, hide = true, conflicts_with_all = ["force", "join", "shard"])]
    gathered: bool,
}

impl With {
    /// Who computes.
    pub(super) fn share(self) -> Share {
        match self {
            With { shard: Some(shard), .. } => Share::Shard(shard),
            With { join: true, .. } => Share::Joint,
            With { gathered: true, .. } => Share::Gathered,
            With { .. } => Share::Whole,
        }
    }

    /// It as words of the command line.
    pub(super) fn words(self) -> Vec<String> {
        match self.share() {
            Share::Whole => Vec::new(),
            Share::Shard(shard) => vec![format!("--shard={shard}")],
            Share::Joint => vec!["--join".to_string()],
            Share::Gathered => vec!["--gathered".to_string()],
        }
    }
}

/// Words of a command without those that say who computes it.
pub(super) fn without(words: &[String]) -> Vec<String> {
    without_flags(words, &["--join", "--gathered"], &["--shard"])
}

/// Words of a command without some flags: those that stand alone, and those that a value belongs to.
pub(super) fn without_flags(words: &[String], alone: &[&str], valued: &[&str]) -> Vec<String> {
    let mut kept = Vec::with_capacity(words.len());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if valued.contains(&word.as_str()) {
            // Its value follows.
            words.next();
        } else if valued.iter().any(|flag| word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))) {
            // Its value stands with it.
        } else if !alone.contains(&word.as_str()) {
            kept.push(word.clone());
        }
    }
    kept
}

/// Says that a run stops before its tables.
///
/// # Errors
/// Where all should have been there; and if nothing can be said.
pub(super) fn told(missing: &Missing, out: &Path, share: Share, json: bool) -> Result<(), CliError> {
    let place = format!("{}.partial", out.display());
    if share == Share::Gathered {
        return Err(CliError::Input(format!(
            "{place}: {missing}; run all shards, each with this --out or with a folder that {place} was copied to, and gather them again"
        )));
    }
    if json {
        let Missing { there, missing, at_barrier } = missing;
        let line = json!({"out": out, "complete": false, "there": there, "missing": missing, "at_barrier": at_barrier});
        return say(&line.to_string());
    }
    let shard = match share {
        Share::Shard(shard) => format!("shard {shard} is done; "),
        _ => String::new(),
    };
    say(&format!("{place}: {shard}{missing}; {}", next(missing)))
}

/// What is to be done about it.
fn next(missing: &Missing) -> &'static str {
    match missing {
        Missing { at_barrier: true, .. } => {
            "run the other shards, then `gatelens gather`, which says how to go on from there"
        }
        Missing { missing: 0, there: 1.., .. } => "`gatelens gather` makes the tables",
        _ => "run the other shards, then `gatelens gather`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_the_same_whoever_computes_it() {
        let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<String>>();
        let plain = words("dla demo --pairs a --out b");
        for shared in ["dla demo --shard 2/4 --pairs a --out b", "dla demo --pairs a --out b --shard=2/4 --gathered"] {
            assert_eq!(without(&words(shared)), plain);
        }
        assert_eq!(without(&words("dla --join demo --pairs a --out b")), plain);
    }
}
