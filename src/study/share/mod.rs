//! Sharing a study: several processes, on one machine or on many, compute its parts.
//!
//! All of them run the analysis' one body. Where a reading's part is another's to compute and is not there yet, the session
//! hands out a stand-in, and the body goes on: what it plans next may depend on the stand-in, or may not. It is run again with
//! other stand-ins; what it plans on both does not depend on them, and so may be computed already (`Sharing`). Results never
//! rest on that guess: the body is run once more when all parts are there, and a part that was computed in vain is not asked
//! for then.

pub(crate) mod claims;
#[cfg(feature = "report")]
mod note;

use super::parts::{Of, Parts};
use crate::files::{WriteError, look_again};
use claims::{Claim, Claims, Turn};
#[cfg(feature = "report")]
pub use note::Note;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Who computes the parts of a study.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// This process.
    #[default]
    Whole,
    /// Each process those of its shard.
    Shard(Shard),
    /// All processes that were given the same study and the same folder: each what no other is at.
    Joint,
    /// None: all must be there.
    Gathered,
}

impl Share {
    /// Whether other processes may work in the same folder.
    pub fn is_shared(self) -> bool {
        matches!(self, Share::Shard(_) | Share::Joint)
    }

    /// Whether it makes tables of what is there: of shards these are left to whoever gathers them.
    pub(super) fn finishes(self) -> bool {
        !matches!(self, Share::Shard(_))
    }
}

/// One of several shards: `2/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1 on.
    number: u32,
    of: u32,
}

impl Shard {
    /// The shard of that number, from 1 on.
    ///
    /// # Errors
    /// If there is no such shard.
    pub fn new(number: u32, of: u32) -> Result<Shard, String> {
        match (1..=of).contains(&number) {
            true => Ok(Shard { number, of }),
            false => Err(format!("there is no shard {number} of {of}; they are 1/{of} to {of}/{of}", of = of.max(1))),
        }
    }

    fn has(self, lane: u64) -> bool {
        lane % u64::from(self.of) == u64::from(self.number - 1)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let (number, of) = text.split_once('/').unwrap_or_default();
        match (number.parse(), of.parse()) {
            (Ok(number), Ok(of)) => Shard::new(number, of),
            _ => Err(format!("`{text}` is no shard; write 2/8 for the second of eight")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// A study that ends before its tables: parts are missing that other processes compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Parts that are there.
    pub there: usize,
    /// Parts that are known to be missing.
    pub missing: usize,
    /// Whether what comes after them depends on them, so that there may be more.
    pub at_barrier: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { there, missing, at_barrier } = self;
        match (missing, there) {
            (0, 0) => return f.write_str("other processes are not done"),
            (0, _) if *at_barrier => {
                return write!(f, "{there} parts are there; what comes after others depends on these");
            }
            (0, _) => return write!(f, "all parts are there, {there} of them"),
            _ => {}
        }
        let parts = if *missing == 1 { "part is" } else { "parts are" };
        write!(f, "{missing} {parts} missing, {there} {} there", if *there == 1 { "is" } else { "are" })?;
        if *at_barrier {
            write!(f, "; what comes after the missing ones depends on them")?;
        }
        Ok(())
    }
}

/// What the sessions of one process know of a study that is shared.
///
/// The body is run in passes. In each, parts of plans that were made before any stand-in was handed out are certain to be
/// asked for. Those after it are guesses, unless they were asked for in the pass before as well, which had other stand-ins.
pub(crate) struct Sharing {
    share: Share,
    claims: Claims,
    pass: RefCell<Pass>,
    before: RefCell<Pass>,
    /// Parts of which it was told already that they are there.
    told: RefCell<HashSet<String>>,
    /// The number of the next pass.
    next: Cell<u64>,
}

/// One time through an analysis' body.
#[derive(Default)]
struct Pass {
    number: u64,
    /// Parts that are certain to be asked for, and are not there.
    lacking: BTreeSet<String>,
    /// Those of them that are this process' share, and that another one is at.
    awaited: BTreeSet<String>,
    /// Parts that were asked for after a stand-in had been handed out.
    after: HashSet<String>,
    /// Whether some of these are guesses.
    guessed: bool,
    /// Whether one had been handed out when the plan at hand was made.
    after_stand_in: bool,
    /// How many parts were computed.
    computed: usize,
    /// Whether something went wrong that no stand-in is to blame for.
    failed: bool,
}

impl Pass {
    fn had_stand_ins(&self) -> bool {
        !self.lacking.is_empty() || self.guessed
    }
}

/// Who is to compute a part.
pub(super) enum Whose {
    Ours(Claim),
    /// Another process, or nobody yet, as it is no more than a guess: a stand-in serves, drawn by this seed.
    Others(u64),
}

/// How a pass ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All parts are there.
    Complete,
    /// There is more to do, or to find out.
    Again,
    /// All that is left is with other processes.
    Stopped(Missing),
}

impl Sharing {
    pub(super) fn new(share: Share, parts: &Parts) -> Sharing {
        let claims = Claims::new(parts.folder());
        let (pass, before, told, next) = Default::default();
        Sharing { share, claims, pass, before, told, next }
    }

    /// Begins the next pass.
    pub(super) fn begin(&self) {
        let number = self.next.replace(self.next.get() + 1);
        let pass = Pass { number, ..Pass::default() };
        self.before.replace(self.pass.replace(pass));
    }

    /// The next plan is made after what was handed out before.
    pub(super) fn next_plan(&self) {
        let mut pass = self.pass.borrow_mut();
        pass.after_stand_in = pass.had_stand_ins();
    }

    /// Who computes a part that is not there. `lane` spreads the parts of a plan over shards. What is not `named` by its file's name alone, because
    /// a caller's function makes it, is never guessed.
    ///
    /// # Errors
    /// If a claim cannot be written.
    pub(super) fn whose(&self, of: &Of, file: &str, lane: u64, named: bool) -> Result<Whose, WriteError> {
        let mut pass = self.pass.borrow_mut();
        let seed = of.seed() ^ pass.number;
        if pass.after_stand_in {
            pass.after.insert(file.to_string());
            if !named || !self.before.borrow().after.contains(file) {
                pass.guessed = true;
                return Ok(Whose::Others(seed));
            }
        }
        let may_be_ours = match self.share {
            Share::Whole | Share::Joint => true,
            Share::Shard(shard) => shard.has(lane),
            Share::Gathered => false,
        };
        if may_be_ours {
            if let Turn::Ours(claim) = self.claims.claim(file)? {
                pass.computed += 1;
                return Ok(Whose::Ours(claim));
            }
            pass.awaited.insert(file.to_string());
        }
        pass.lacking.insert(file.to_string());
        Ok(Whose::Others(seed))
    }

    /// Whether it is the first time that this part is found to be there.
    pub(super) fn is_news(&self, file: String) -> bool {
        self.told.borrow_mut().insert(file)
    }

    /// Something went wrong that no stand-in is to blame for.
    pub(super) fn failed(&self) {
        self.pass.borrow_mut().failed = true;
    }

    /// Whether what ended the pass early may be due to stand-ins.
    pub(super) fn may_be_due_to_stand_ins(&self) -> bool {
        let pass = self.pass.borrow();
        pass.had_stand_ins() && !pass.failed
    }

    /// Ends the pass, which `broke` off or not. Where another process is at what is this one's share, waits until that is there, or free.
    pub(super) fn end(&self, parts: &Parts, broke: bool, waiting: &mut dyn FnMut() -> bool) -> Ended {
        let (pass, before) = (self.pass.borrow(), self.before.borrow());
        if !pass.had_stand_ins() {
            return Ended::Complete;
        }
        // What was guessed is known to depend on stand-ins only once it changed with them, and nothing else had changed.
        if pass.guessed && (pass.number == 0 || pass.computed + before.computed > 0) {
            return Ended::Again;
        }
        let missing = || pass.lacking.iter().filter(|file| parts.part(file).is_none());
        if !pass.awaited.is_empty() {
            // One that comes to be there while others are awaited is no news by itself: a pass takes time too.
            let open = || pass.awaited.iter().filter(|file| parts.part(file).is_none());
            while waiting() && open().next().is_some() && !open().any(|file| self.claims.is_free(file)) {
                std::thread::sleep(LOOK);
                look_again(parts.folder());
            }
            return Ended::Again;
        }
        let missing = missing().count();
        if missing == 0 && !pass.lacking.is_empty() {
            // All have come since they were looked for.
            return Ended::Again;
        }
        Ended::Stopped(Missing { there: parts.count(), missing, at_barrier: pass.guessed || broke })
    }
}

/// How often parts that others compute are looked for.
const LOOK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_written_as_fractions_and_have_each_part_once() {
        assert_eq!("2/8".parse(), Ok(Shard { number: 2, of: 8 }));
        for wrong in ["0/8", "9/8", "1/0", "2", "a/b", "-1/2", "1/2/3", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        let shards: Vec<Shard> = (1..=3).map(|number| Shard::new(number, 3).unwrap()).collect();
        assert!((0..30).all(|lane| shards.iter().filter(|shard| shard.has(lane)).count() == 1));
    }

    #[test]
    fn what_is_missing_is_said_with_what_depends_on_it() {
        let missing = Missing { there: 1, missing: 12, at_barrier: false };
        assert_eq!(missing.to_string(), "12 parts are missing, 1 is there");
        let missing = Missing { there: 2, missing: 1, at_barrier: true };
        assert!(missing.to_string().starts_with("1 part is missing, 2 are there; what comes after"));
    }
}
