//! Claims: who of several processes computes a part, said in files of a folder that they share.
//!
//! `NAME.claim.0` belongs to the process that made it; a file is made by one process alone, on file systems of a network
//! too. Its owner writes a new number into it every ten seconds. Whoever sees the same number for a minute takes the owner
//! to be gone and makes `NAME.claim.1`, which then is in force: a claim is never taken from anybody, so that no two
//! processes can take it over. Clocks are not compared. A claim stays beside the part that it led to, until the run is
//! finished; one whose owner gave up is removed by it.

use crate::files::{WriteError, random};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often an owner says that it is there.
const BEAT: Duration = Duration::from_secs(10);

/// After how long without a word an owner is taken to be gone.
pub(crate) const STALE: Duration = Duration::from_secs(60);

/// What an owner counts from is less than this.
const FIRST_BEATS: u64 = 1_000_000_000;

/// What stands between the name of what is claimed and the claim's number.
const CLAIM: &str = ".claim.";

/// The claims in a folder, as one process sees them.
pub(crate) struct Claims {
    folder: PathBuf,
    stale: Duration,
    /// Of each name, the claim in force with what it said, and since when it has said that.
    seen: RefCell<HashMap<String, Seen>>,
}

/// What a claim was seen to say.
struct Seen {
    number: usize,
    word: String,
    since: Instant,
}

/// How a claim went.
pub(crate) enum Turn {
    /// It is this process'.
    Ours(Claim),
    /// Another process is at it.
    Others,
}

impl Claims {
    pub(crate) fn new(folder: &Path) -> Claims {
        Claims { folder: folder.to_path_buf(), stale: STALE, seen: RefCell::default() }
    }

    /// Claims a name, unless another process is at it that says so.
    ///
    /// # Errors
    /// If the claim cannot be written.
    pub(crate) fn claim(&self, name: &str) -> Result<Turn, WriteError> {
        let mut number = 0;
        loop {
            let path = self.path(name, number);
            match Claim::make(&path) {
                Ok(claim) => return Ok(Turn::Ours(claim)),
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(WriteError::new(&path, "be made")(e)),
                // One that another has followed is in force no longer.
                Err(_) if self.path(name, number + 1).exists() => number += 1,
                Err(_) if self.is_stale(name, number) => number += 1,
                Err(_) => return Ok(Turn::Others),
            }
        }
    }

    /// Whether a claim of that name would be this process' if it made one now.
    pub(crate) fn is_free(&self, name: &str) -> bool {
        let mut number = 0;
        while self.path(name, number).exists() {
            if !self.path(name, number + 1).exists() && !self.is_stale(name, number) {
                return false;
            }
            number += 1;
        }
        true
    }

    /// Whether the claim has said the same for too long.
    fn is_stale(&self, name: &str, number: usize) -> bool {
        // One that is gone is free, which is found when it is made.
        let word = fs::read_to_string(self.path(name, number)).unwrap_or_default();
        let mut seen = self.seen.borrow_mut();
        let now = Seen { number, word, since: Instant::now() };
        let before = seen.entry(name.to_string()).or_insert_with(|| Seen { word: now.word.clone(), ..now });
        if (before.number, &before.word) != (now.number, &now.word) {
            *before = now;
        }
        before.since.elapsed() >= self.stale
    }

    fn path(&self, name: &str, number: usize) -> PathBuf {
        self.folder.join(format!("{name}{CLAIM}{number}"))
    }
}

/// A name that this process has claimed. It says so until it is dropped, and is given up then, unless it was made good.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    made_good: bool,
    beating: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The claims that this process holds.
static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Claim {
    fn make(path: &Path) -> std::io::Result<Claim> {
        let Ok(mut held) = HELD.lock() else { return Err(ErrorKind::Other.into()) };
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        held.push(path.to_path_buf());
        drop(held);
        // It is given up if anything fails from here on.
        let mut claim = Claim { path: path.to_path_buf(), made_good: false, beating: None };
        // Nobody takes it for an earlier one of the same process.
        let mut beat = random() % FIRST_BEATS;
        file.write_all(word(beat).as_bytes())?;
        let (stop, stopped) = channel();
        let at = path.to_path_buf();
        let beating = std::thread::Builder::new().name("claim".to_string()).spawn(move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                beat += 1;
                // It must not come back once it was removed. A beat that fails is made up for by the next, or others take over.
                let _ =
                    OpenOptions::new().write(true).open(&at).and_then(|mut file| file.write_all(word(beat).as_bytes()));
            }
        })?;
        claim.beating = Some((stop, beating));
        Ok(claim)
    }

    /// What was claimed is there: nobody is to claim it again.
    pub(crate) fn made_good(mut self) {
        self.made_good = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((stop, beating)) = self.beating.take() {
            drop(stop);
            let _ = beating.join();
        }
        if let Ok(mut held) = HELD.lock() {
            held.retain(|path| *path != self.path);
        }
        if !self.made_good {
            // Where it cannot be removed it goes stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Gives up all that this process has claimed, and lets it claim nothing more: before it ends at once.
#[cfg(all(unix, feature = "cli"))]
pub(crate) fn give_up() {
    // The lock is kept: nothing more is claimed.
    if let Ok(held) = HELD.lock() {
        held.iter().for_each(|path| drop(fs::remove_file(path)));
        std::mem::forget(held);
    }
}

/// Removes all claims of a folder: nobody else is at work there.
pub(crate) fn clear(folder: &Path) {
    let claims = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    claims.filter(|path| claimed(path).is_some()).for_each(|path| drop(fs::remove_file(path)));
}

/// What a file claims, and its number, if it is a claim.
pub(crate) fn claimed(path: &Path) -> Option<(&str, usize)> {
    let (name, number) = path.file_name()?.to_str()?.rsplit_once(CLAIM)?;
    Some((name, number.parse().ok()?))
}

/// What an owner says: its machine and process, and how often it has said so. Always as long, as it is written over.
fn word(beat: u64) -> String {
    format!("{beat:010} {} {}\n", machine(), std::process::id())
}

/// The machine and process that a claim says it is of.
pub(crate) fn owner(word: &str) -> Option<(&str, u32)> {
    let mut words = word.split_whitespace().skip(1);
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// This machine's name.
fn machine() -> String {
    #[cfg(unix)]
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").ok();
    let name = name.unwrap_or_default().replace(char::is_whitespace, "-");
    if name.is_empty() { "unnamed".to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(turn: Turn) -> Option<Claim> {
        match turn {
            Turn::Ours(claim) => Some(claim),
            Turn::Others => None,
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_is_claimed_once_and_free_again_when_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = [(); 2].map(|()| Claims::new(folder.path()));
        let claim = ours(a.claim("part").unwrap()).unwrap();
        assert!(ours(b.claim("part").unwrap()).is_none() && !b.is_free("part"));
        let word = fs::read_to_string(folder.path().join("part.claim.0")).unwrap();
        assert_eq!(owner(&word), Some((machine().as_str(), std::process::id())));
        drop(claim);
        assert!(b.is_free("part"));
        ours(b.claim("part").unwrap()).unwrap().made_good();
        assert!(ours(a.claim("part").unwrap()).is_none());
        assert_eq!(files(folder.path()), ["part.claim.0"]);
        clear(folder.path());
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn one_process_alone_takes_over_from_an_owner_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        // As a process leaves it that was killed.
        fs::write(folder.path().join("part.claim.0"), word(3)).unwrap();
        let stale = Duration::from_millis(50);
        let watching: Vec<Claims> = (0..4).map(|_| Claims { stale, ..Claims::new(folder.path()) }).collect();
        let at_once = || watching.iter().filter_map(|claims| ours(claims.claim("part").unwrap())).collect::<Vec<_>>();
        assert!(at_once().is_empty());
        std::thread::sleep(2 * stale);
        assert!(watching.iter().all(|claims| claims.is_free("part")));
        assert_eq!(at_once().len(), 1);
        assert_eq!(files(folder.path()), ["part.claim.0"], "the one that took over gave up");
    }

    #[test]
    fn an_owner_that_says_something_new_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.claim.0");
        let stale = Duration::from_millis(200);
        let claims = Claims { stale, ..Claims::new(folder.path()) };
        for beat in 0..6 {
            fs::write(&path, word(beat)).unwrap();
            assert!(!claims.is_free("part"), "{beat}");
            std::thread::sleep(stale / 4);
        }
    }

    #[test]
    fn claims_are_told_from_parts() {
        assert_eq!(claimed(Path::new("x/ab.safetensors.claim.12")), Some(("ab.safetensors", 12)));
        for other in ["ab.safetensors", "ab.claim.", "ab.claim.x", ".ab.safetensors.1.tmp"] {
            assert_eq!(claimed(Path::new(other)), None, "{other}");
        }
    }
}
