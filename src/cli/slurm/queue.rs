//! What Slurm's own commands are asked: jobs are submitted, looked for and cancelled.

use crate::cli::CliError;
use std::path::Path;
use std::process::Command;

/// Submits a script, to run after these jobs have ended in any way; gives the job's id.
///
/// # Errors
/// If Slurm is not there, or refuses.
pub(super) fn submit(script: &Path, after: &[String]) -> Result<String, CliError> {
    let mut command = Command::new("sbatch");
    command.arg("--parsable");
    if !after.is_empty() {
        command.arg(format!("--dependency=afterany:{}", after.join(":")));
    }
    let output = command.arg(script).output().map_err(|e| {
        CliError::Input(format!(
            "sbatch: cannot be run: {e}; this is for a machine that submits to Slurm (--dry-run shows the scripts)"
        ))
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    // `1234`, or `1234;cluster`.
    match said.trim().split(';').next().filter(|id| output.status.success() && !id.is_empty()) {
        Some(id) => Ok(id.to_string()),
        None => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(CliError::Failed(format!("{}: sbatch refused it: {}", script.display(), why.trim())))
        }
    }
}

/// Cancels a job that waits. One that is gone is no error.
pub(super) fn cancel(id: &str) {
    let _ = Command::new("scancel").arg(id).output();
}

/// A task of a job, and what Slurm says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Task {
    /// `12_3`, or `13` of a job that is no array.
    pub(in crate::cli) id: String,
    /// As Slurm writes it: `RUNNING`.
    pub(in crate::cli) state: String,
}

/// States that nothing comes after.
const ENDED: [&str; 11] = [
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
    "REVOKED",
    "LAUNCH_FAILED",
];

impl Task {
    pub(in crate::cli) fn is_on_its_way(&self) -> bool {
        !ENDED.contains(&self.state.as_str())
    }

    pub(in crate::cli) fn has_failed(&self) -> bool {
        !self.is_on_its_way() && self.state != "COMPLETED"
    }
}

/// The tasks of a job; none of one that Slurm has forgotten, as it does some minutes after the end.
///
/// # Errors
/// If Slurm does not answer.
pub(in crate::cli) fn tasks(id: &str) -> Result<Vec<Task>, CliError> {
    let mut command = Command::new("squeue");
    command.args(["--noheader", "--array", "--states=all", "--format=%i %T", "--jobs", id]);
    let output = command.output().map_err(|e| CliError::Failed(format!("squeue: cannot be run: {e}")))?;
    let why = String::from_utf8_lossy(&output.stderr);
    match output.status.success() || why.contains("Invalid job id") {
        true => Ok(read(&String::from_utf8_lossy(&output.stdout))),
        false => Err(CliError::Failed(format!("squeue: {}", why.trim()))),
    }
}

fn read(lines: &str) -> Vec<Task> {
    let task = |line: &str| {
        let (id, state) = line.trim().split_once(' ')?;
        Some(Task { id: id.to_string(), state: state.trim().to_string() })
    };
    lines.lines().filter_map(task).collect()
}

/// Whether some of a job waits or runs.
///
/// # Errors
/// If Slurm does not answer.
pub(super) fn is_on_its_way(id: &str) -> Result<bool, CliError> {
    Ok(tasks(id)?.iter().any(Task::is_on_its_way))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_tasks_are_read_as_the_queue_says_them() {
        let tasks = read("12_1 COMPLETED\n12_2 RUNNING\n12_3 NODE_FAIL\n\n13 PENDING\n");
        assert_eq!(tasks.len(), 4);
        let which = |of: fn(&Task) -> bool| {
            tasks.iter().filter(|task| of(task)).map(|task| task.id.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(which(Task::is_on_its_way), ["12_2", "13"]);
        assert_eq!(which(Task::has_failed), ["12_3"]);
    }
}
