//! Shell completions and manual pages, made from the commands themselves.

use super::{Cli, CliError, say};
use clap::CommandFactory;
use std::path::PathBuf;

/// Print completions for a shell
#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell: bash, elvish, fish, powershell or zsh
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gatelens", &mut text);
        say(String::from_utf8_lossy(&text).trim_end())
    }
}

/// Write the manual pages: gatelens.1 and one per command
#[derive(clap::Args)]
pub(super) struct Man {
    /// Write them to this folder (default: print the page of gatelens itself)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> Result<(), CliError> {
        match &self.out {
            Some(dir) => {
                let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
                let mend = "choose an --out that may be written to";
                written.map_err(|e| CliError::Failed(format!("{}: cannot be written: {e}; {mend}", dir.display())))
            }
            None => {
                let mut text = Vec::new();
                let rendered = clap_mangen::Man::new(Cli::command()).render(&mut text);
                rendered.map_err(|e| CliError::Failed(format!("the manual page cannot be made: {e}")))?;
                say(String::from_utf8_lossy(&text).trim_end())
            }
        }
    }
}
