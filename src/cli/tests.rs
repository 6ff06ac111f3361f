//! How commands end, in a process of their own.

mod parameters;

use super::*;
use std::process::Command as Process;

/// Run by the test below alone: it sets the process' hook, and ends the process.
#[test]
#[ignore = "ends the process"]
fn a_child_that_panics() {
    watch_panics();
    std::process::exit(i32::from(ended(|| panic!("on purpose,\nin two lines"))));
}

#[test]
fn a_panic_is_one_line_that_says_where_and_exit_code_1() {
    let child = Process::new(std::env::current_exe().unwrap())
        .args(["cli::tests::a_child_that_panics", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8(child.stderr).unwrap();
    assert_eq!((child.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    let place = format!("({}:", file!());
    for part in ["error: internal: on purpose, in two lines", &place, "please report it"] {
        assert!(said.contains(part), "no {part} in: {said}");
    }
}
