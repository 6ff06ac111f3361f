//! The stages, and how each runs in a process of its own.

use crate::report::{Finding, Outcome, Status};
use crate::{Arguments, Failed, Setting, card, engines, golden, kernels, profile, rates, sweep};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A part of the check.
pub struct Stage {
    pub name: &'static str,
    /// Seconds that it may take.
    pub limit_s: u64,
    pub run: fn(&Setting) -> Result<(), Failed>,
}

/// In the order in which they run: what fails early explains what fails later.
pub static STAGES: [Stage; 9] = [
    Stage { name: "device", limit_s: 60, run: card::stage },
    Stage { name: "kernels", limit_s: 60, run: kernels::stage },
    Stage { name: "families in f32", limit_s: 90, run: golden::in_f32 },
    Stage { name: "families in bf16", limit_s: 90, run: golden::in_bf16 },
    Stage { name: "engines", limit_s: 120, run: engines::stage },
    Stage { name: "rates", limit_s: 60, run: rates::stage },
    Stage { name: "small sweep", limit_s: 60, run: sweep::small },
    Stage { name: "large sweep", limit_s: 180, run: sweep::large },
    Stage { name: "profile", limit_s: 90, run: profile::stage },
];

/// Characters of what a stage said last that an error keeps.
const LAST_WORDS: usize = 800;

impl Stage {
    /// What becomes of it where no time is left.
    pub fn not_begun(&self) -> Outcome {
        self.ended(Status::OutOfTime, Duration::ZERO, Duration::ZERO, Some("no time was left for it".to_string()))
    }

    /// Runs it with a limit, and gathers what it found, also where it did not come to its end.
    pub fn in_own_process(&self, arguments: &Arguments, limit: Duration) -> Outcome {
        let begun = Instant::now();
        let [out, err] = ["out", "err"].map(|ending| arguments.scratch.join(format!("stage.{ending}")));
        let ended = File::create(&out).and_then(|to| Ok((to, File::create(&err)?))).map_err(Failed::from);
        let ended = ended.and_then(|to| self.watched(arguments, to, limit));
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let (status, error) = match ended {
            Ok(Some(status)) if status.success() => (Status::Passed, None),
            Ok(Some(status)) => (Status::Failed, Some(format!("{} ({status})", last_words(&read(&err))))),
            Ok(None) => (Status::OutOfTime, Some(format!("stopped after {:.0} s", limit.as_secs_f64()))),
            Err(e) => (Status::Failed, Some(e.to_string())),
        };
        let mut outcome = self.ended(status, begun.elapsed(), limit, error);
        // Whatever else is printed, by a library say, is no finding.
        outcome.findings = read(&out).lines().filter_map(|line| serde_json::from_str::<Finding>(line).ok()).collect();
        outcome
    }

    fn ended(&self, status: Status, took: Duration, limit: Duration, error: Option<String>) -> Outcome {
        let (seconds, limit_s) = (took.as_secs_f64(), limit.as_secs_f64());
        Outcome { stage: self.name.to_string(), status, seconds, limit_s, error, findings: Vec::new() }
    }

    /// How its process ended; none if it was stopped at the limit.
    fn watched(
        &self,
        arguments: &Arguments,
        (out, err): (File, File),
        limit: Duration,
    ) -> Result<Option<ExitStatus>, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--stage", self.name, "--device", &arguments.device]);
        command.arg("--data").arg(&arguments.data).arg("--scratch").arg(&arguments.scratch);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if begun.elapsed() > limit {
                stop(&mut child);
                return Ok(None);
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Ends a process, and those that it started: a profiler's program would go on without it.
fn stop(child: &mut Child) {
    // What ended by itself meanwhile is no concern.
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

/// The end of what a process wrote.
fn last_words(text: &str) -> String {
    let text = text.trim();
    let from = text.char_indices().rev().nth(LAST_WORDS).map_or(0, |(at, _)| at);
    text[from..].to_string()
}
