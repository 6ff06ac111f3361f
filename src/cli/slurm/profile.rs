//! What a cluster wants to be told of a job, and what a job needs.

use crate::cli::CliError;
use crate::cli::model_args::size;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// What a cluster wants to be told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Profile {
    partition: Option<String>,
    account: Option<String>,
    cpus: Option<u32>,
    memory: Option<String>,
    time: Option<String>,
    gres: Option<String>,
    lines: Vec<String>,
    pub(super) setup: Vec<String>,
}

/// What each task of an array needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resources {
    pub(super) tasks: u32,
    /// GiB.
    pub(super) memory: u64,
    /// As Slurm takes it.
    pub(super) time: String,
}

/// Processors of a task, unless the profile says so.
const CPUS: u32 = 4;

/// Seconds that a task may need beyond what is computed: to load a model, and to write tables.
const START_S: f64 = 600.0;

/// How many times as long as foreseen a task may take: other machines are slower, and pieces do not fill all tasks to the end.
const MARGIN: f64 = 2.0;

/// Tasks end on a quarter of an hour.
const QUARTER_S: f64 = 900.0;

const GIB: f64 = (1u64 << 30) as f64;

/// What a process holds beyond weights and residual streams: activations of a batch, the readings of parts, the program.
const BESIDE: f64 = 1.5 * GIB;

impl Profile {
    /// # Errors
    /// If it cannot be read, or says what no profile says.
    pub(super) fn read(path: &Path) -> Result<Profile, CliError> {
        let bad = |why: String| CliError::Input(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| bad(format!("cannot be read: {e}; check the path")))?;
        let profile: Profile = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        profile.gib().map_err(|why| bad(format!("`memory`: {why}")))?;
        match profile.time.as_deref().map(is_time) {
            Some(false) => {
                Err(bad("`time`: write 4:00:00 for four hours, or 1-12:00:00 for a day and a half".to_string()))
            }
            _ => Ok(profile),
        }
    }

    fn gib(&self) -> Result<Option<u64>, String> {
        let bytes = self.memory.as_deref().map(size).transpose()?;
        Ok(bytes.map(|bytes| (bytes as f64 / GIB).ceil().max(1.0) as u64))
    }

    fn cpus(&self) -> u32 {
        self.cpus.unwrap_or(CPUS).max(1)
    }

    /// What a task needs, if the profile says all of it.
    pub(super) fn resources(&self, tasks: u32) -> Option<Resources> {
        let memory = self.gib().ok().flatten()?;
        Some(Resources { tasks, memory, time: self.time.clone()? })
    }

    /// The options of `sbatch`.
    pub(super) fn options(&self, needs: &Resources) -> Vec<String> {
        let given = [("partition", &self.partition), ("account", &self.account), ("gres", &self.gres)];
        let given = given.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value.as_ref()?)));
        let needed = [
            format!("--cpus-per-task={}", self.cpus()),
            format!("--mem={}G", needs.memory),
            format!("--time={}", needs.time),
        ];
        given.chain(needed).chain(self.lines.iter().cloned()).collect()
    }
}

impl Resources {
    /// What a dry run's lines come to, one for each analysis.
    ///
    /// # Errors
    /// If the time is not known.
    pub(super) fn estimated(lines: &[&Value], tasks: u32, profile: &Profile) -> Result<Resources, String> {
        let known: Vec<&&Value> = lines.iter().filter(|line| line["unknown"].is_null()).collect();
        let most = |of: &dyn Fn(&Value) -> f64| known.iter().map(|line| of(line)).fold(0.0, f64::max);
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        let bytes = most(&|line| number(&line["weights"]["bytes"]) + number(&line["wavefront"]["resid_bytes"]));
        let pieces = most(&|line| number(&line["pieces"])).max(1.0);
        let tasks = tasks.min(pieces as u32).max(1);
        let memory = profile.gib()?.unwrap_or_else(|| ((bytes + BESIDE) * 1.25 / GIB).ceil() as u64);
        if let Some(time) = &profile.time {
            return Ok(Resources { tasks, memory, time: time.clone() });
        }
        if profile.gres.is_some() {
            return Err("how long it takes on such a device is not known here; give `time` in the profile".to_string());
        }
        let seconds = known.iter().map(|line| line["wavefront"]["seconds"].as_f64());
        let seconds = seconds.sum::<Option<f64>>().filter(|_| !known.is_empty());
        let Some(seconds) = seconds else {
            return Err("how long it takes is not known; give `time` in the profile".to_string());
        };
        // What reads an earlier analysis is not counted: as long as the others are on average.
        let all = seconds * lines.len() as f64 / known.len() as f64;
        let here = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        let share = all * here / f64::from(profile.cpus()) / f64::from(tasks);
        Ok(Resources { tasks, memory, time: written(MARGIN * share + START_S) })
    }

    /// What the job needs that comes last: as much memory as any, and an hour, unless the profile has a time.
    pub(super) fn last(all: &[Resources], profile: &Profile) -> Resources {
        let memory = all.iter().map(|needs| needs.memory).max().unwrap_or(1);
        Resources { tasks: 1, memory, time: profile.time.clone().unwrap_or_else(|| written(3600.0)) }
    }
}

/// Seconds as hours, minutes and seconds, up to a quarter of an hour.
fn written(seconds: f64) -> String {
    let minutes = ((seconds / QUARTER_S).ceil() * QUARTER_S / 60.0) as u64;
    format!("{}:{:02}:00", minutes / 60, minutes % 60)
}

/// Whether it is a time as Slurm takes it: minutes, or parts with colons after days and a hyphen.
fn is_time(text: &str) -> bool {
    let (days, rest) = text.split_once('-').unwrap_or(("0", text));
    let parts: Vec<&str> = rest.split(':').collect();
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    is_number(days) && (1..=3).contains(&parts.len()) && parts.iter().all(|part| is_number(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(seconds: Option<f64>, bytes: u64, pieces: u64) -> Value {
        json!({"wavefront": {"seconds": seconds, "resid_bytes": 0}, "weights": {"bytes": bytes}, "pieces": pieces})
    }

    #[test]
    fn times_are_rounded_up_and_read_as_slurm_reads_them() {
        assert_eq!(
            (written(1.0), written(900.0), written(901.0)),
            ("0:15:00".into(), "0:15:00".into(), "0:30:00".into())
        );
        assert_eq!(written(100.0 * 3600.0), "100:00:00");
        assert!(["30", "4:00:00", "1-12", "1-12:30:00"].iter().all(|time| is_time(time)));
        assert!(["", "4h", "1:2:3:4", "-1", "a:b"].iter().all(|time| !is_time(time)));
    }

    #[test]
    fn a_job_needs_its_largest_analysis_memory_and_no_more_tasks_than_pieces() {
        let (a, b) = (line(Some(3600.0), 8 << 30, 3), line(Some(60.0), 1 << 30, 2));
        let unknown = json!({"unknown": "reads screen/circuit.json"});
        let profile = Profile { cpus: Some(1), ..Profile::default() };
        let needs = Resources::estimated(&[&a, &b, &unknown], 8, &profile).unwrap();
        assert_eq!((needs.tasks, needs.memory), (3, 12));
        let time = Profile { time: Some("9:00:00".into()), ..Profile::default() };
        assert_eq!(Resources::estimated(&[&line(None, 1, 1)], 8, &time).unwrap().time, "9:00:00");
    }

    #[test]
    fn a_time_that_cannot_be_known_is_asked_for() {
        let ask = |line: &Value, profile: &Profile| Resources::estimated(&[line], 4, profile).unwrap_err();
        assert!(ask(&line(None, 1, 1), &Profile::default()).contains("`time`"));
        let gpu = Profile { gres: Some("gpu:1".into()), ..Profile::default() };
        assert!(ask(&line(Some(1.0), 1, 1), &gpu).contains("`time`"));
    }
}
