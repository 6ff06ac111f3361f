//! Parameters in messages, as the flags that give them.

use crate::parameters::{Param, write_as};
use std::fmt::{Formatter, Result};

/// From now on messages of the library name flags: `--max-pairs`, `--position all`.
pub(super) fn start() {
    write_as(write);
}

fn write(param: &Param, f: &mut Formatter<'_>) -> Result {
    write!(f, "--{}", param.name.replace('_', "-"))?;
    param.value.iter().try_for_each(|value| write!(f, " {value}"))
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::CommandFactory;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The sources below a folder, but for those of the command line.
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("src/cli") {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_parameter_that_a_message_of_the_library_names_has_a_flag() {
        let commands = Cli::command();
        let flags: BTreeSet<&str> =
            commands.get_subcommands().flat_map(|c| c.get_arguments()).filter_map(|a| a.get_long()).collect();
        let mut texts = Vec::new();
        for folder in ["src", "analyses"] {
            sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut texts);
        }
        let mut named = BTreeSet::new();
        for text in &texts {
            let names = text.split("param(\"").skip(1).filter_map(|rest| rest.split_once('"'));
            named.extend(names.map(|(name, _)| name.replace('_', "-")));
        }
        let without: Vec<&String> = named.iter().filter(|name| !flags.contains(name.as_str())).collect();
        assert!(named.len() > 20 && without.is_empty(), "no flags: {without:?}");
    }
}
