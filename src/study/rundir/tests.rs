use super::*;
use serde_json::json;

fn params(seed: u64) -> Map<String, Value> {
    json!({"command": "ablate", "seed": seed}).as_object().unwrap().clone()
}

fn finished(out: &Path, content: &[u8]) {
    let run = RunDir::create(out, true, false).unwrap();
    run.claim(&params(0)).unwrap();
    run.write_atomic(RUN_FILE, content).unwrap();
    run.finish().unwrap();
}

fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_appears_whole_and_only_when_finished() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("runs/first/");
    let run = RunDir::create(&out, false, false).unwrap();
    run.claim(&params(0)).unwrap();
    run.write_atomic("heads.parquet", b"table").unwrap();
    run.parts().commit("layer-0", b"part").unwrap();
    fs::write(run.path(RUN_FILE).unwrap(), "{}").unwrap();
    assert!(!out.exists());
    assert_eq!(run.finish().unwrap(), folder.path().join("runs/first"));
    assert_eq!(entries(&out), ["heads.parquet", RUN_FILE]);
    assert_eq!(entries(&folder.path().join("runs")), ["first"]);
}

#[test]
fn a_finished_directory_is_only_replaced_with_force() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    finished(&out, b"1");
    for resume in [false, true] {
        let error = RunDir::create(&out, false, resume).unwrap_err().to_string();
        assert!(error.contains("exists already") && error.contains("`force`"), "{error}");
    }
    let run = RunDir::create(&out, true, false).unwrap();
    run.write_atomic(RUN_FILE, b"2").unwrap();
    assert_eq!(fs::read(out.join(RUN_FILE)).unwrap(), b"1", "the old one stays until the new one is finished");
    run.finish().unwrap();
    assert_eq!(fs::read(out.join(RUN_FILE)).unwrap(), b"2");
    assert_eq!(entries(folder.path()), ["run"]);
}

#[test]
fn a_run_that_failed_leaves_what_it_finished_and_no_empty_directory() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let begun = || {
        let run = RunDir::create(&out, false, true).unwrap();
        run.claim(&params(0)).unwrap();
        run
    };
    begun().abandon().unwrap();
    assert!(entries(folder.path()).is_empty());
    let run = begun();
    run.parts().commit("layer-0", b"part").unwrap();
    run.abandon().unwrap();
    drop(run);
    let run = begun();
    assert!(run.parts().part("layer-0").is_some());
    run.write_atomic("heads.parquet", b"table").unwrap();
    fs::remove_file(run.parts().part("layer-0").unwrap()).unwrap();
    run.abandon().unwrap();
    assert!(run.path("heads.parquet").unwrap().exists());
}

#[test]
fn force_never_replaces_what_no_run_made() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("thesis");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("chapter.tex"), "years of work").unwrap();
    let error = RunDir::create(&out, true, false).unwrap_err().to_string();
    assert!(error.contains("not a run directory"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(RunDir::create(&file, true, false), Err(RunDirError::Foreign { .. })));
    let partial = folder.path().join("other.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("mine"), "x").unwrap();
    let other = folder.path().join("other");
    assert!(matches!(RunDir::create(&other, true, true), Err(RunDirError::Foreign { .. })));
}

#[test]
fn an_unfinished_run_needs_resume_or_force() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = RunDir::create(&out, false, false).unwrap();
    run.claim(&params(0)).unwrap();
    run.parts().commit("layer-0", b"part").unwrap();
    drop(run);
    let error = RunDir::create(&out, false, false).unwrap_err().to_string();
    assert!(error.contains("`resume`") && error.contains("`force`"), "{error}");
    let run = RunDir::create(&out, false, true).unwrap();
    run.claim(&params(0)).unwrap();
    assert_eq!(fs::read(run.parts().part("layer-0").unwrap()).unwrap(), b"part");
    assert!(run.parts().part("layer-1").is_none());
    drop(run);
    let run = RunDir::create(&out, true, false).unwrap();
    assert!(run.parts().part("layer-0").is_none());
}

#[test]
fn resume_starts_where_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(&folder.path().join("run"), false, true).unwrap();
    run.claim(&params(0)).unwrap();
}

#[test]
fn resuming_another_command_is_refused_with_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = RunDir::create(&out, false, false).unwrap();
    run.claim(&params(0)).unwrap();
    drop(run);
    let run = RunDir::create(&out, false, true).unwrap();
    let mut other = params(1);
    other.insert("mode".into(), "zero".into());
    let error = run.claim(&other).unwrap_err().to_string();
    assert!(error.contains("seed was 0, is 1, mode was not set, is \"zero\""), "{error}");
    fs::write(run.path(PARAMS_FILE).unwrap(), "{").unwrap();
    assert!(matches!(run.claim(&other), Err(RunDirError::Params { .. })));
}

#[test]
fn parts_whose_parameters_are_unknown_are_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = RunDir::create(&out, false, false).unwrap();
    run.parts().commit("layer-0", b"of an unknown run").unwrap();
    drop(run);
    let run = RunDir::create(&out, false, true).unwrap();
    run.claim(&params(0)).unwrap();
    assert!(run.parts().part("layer-0").is_none());
}

#[test]
fn a_second_process_is_kept_out_while_the_first_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let first = RunDir::create(&out, false, false).unwrap();
    first.parts().commit("layer-0", b"part").unwrap();
    for (force, resume) in [(false, true), (true, false), (false, false)] {
        assert!(matches!(RunDir::create(&out, force, resume), Err(RunDirError::Busy { .. })));
    }
    assert!(first.parts().part("layer-0").is_some(), "and touches nothing");
}

#[test]
fn what_was_being_written_when_a_run_stopped_is_gone_after_resuming() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = RunDir::create(&out, false, false).unwrap();
    run.claim(&params(0)).unwrap();
    fs::write(run.path(".heads.parquet.1.tmp").unwrap(), "half").unwrap();
    drop(run);
    let run = RunDir::create(&out, false, true).unwrap();
    assert!(!run.path(".heads.parquet.1.tmp").unwrap().exists());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(&folder.path().join("run"), false, false).unwrap();
    for name in ["", ".", "..", "a/b", "/etc/passwd", "../x", "a/"] {
        assert!(matches!(run.write_atomic(name, b""), Err(RunDirError::Name { .. })), "{name}");
        assert!(run.parts().commit(name, b"").is_err());
    }
    assert!(matches!(RunDir::create(Path::new("/"), true, true), Err(RunDirError::Unnamed { .. })));
    assert!(matches!(RunDir::create(Path::new(".."), true, true), Err(RunDirError::Unnamed { .. })));
}

#[test]
fn a_run_that_cannot_take_its_place_keeps_all_that_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = RunDir::create(&out, false, false).unwrap();
    run.claim(&params(0)).unwrap();
    run.parts().commit("layer-0", b"part").unwrap();
    run.write_atomic(RUN_FILE, b"new").unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join(RUN_FILE), "someone else's").unwrap();
    let error = run.finish().unwrap_err();
    assert!(matches!(error, RunDirError::Appeared { .. }) && error.to_string().contains("`resume` `force`"), "{error}");
    assert_eq!(fs::read(out.join(RUN_FILE)).unwrap(), b"someone else's");
    let run = RunDir::create(&out, true, true).unwrap();
    run.claim(&params(0)).unwrap();
    assert_eq!(fs::read(run.parts().part("layer-0").unwrap()).unwrap(), b"part");
    // Something that is no run is not replaced, whatever is said.
    fs::remove_file(out.join(RUN_FILE)).unwrap();
    fs::write(out.join("thesis.tex"), "years of work").unwrap();
    assert!(matches!(run.finish(), Err(RunDirError::Foreign { .. })));
    fs::remove_dir_all(&out).unwrap();
    let run = RunDir::create(&out, false, true).unwrap();
    run.claim(&params(0)).unwrap();
    assert!(run.parts().part("layer-0").is_some());
    run.finish().unwrap();
    assert_eq!((entries(folder.path()), entries(&out)), (vec!["run".to_string()], vec![RUN_FILE.to_string()]));
}

#[test]
fn a_run_that_stopped_while_it_took_its_place_is_gone_on_with_and_never_emptied_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = RunDir::create(&out, false, false).unwrap();
    run.claim(&params(0)).unwrap();
    run.write_atomic("inner.parquet", b"hours of work").unwrap();
    // As the last steps before the rename leave it.
    remove_tree(&run.partial.join(PARTS_DIR)).unwrap();
    drop(run);
    assert!(matches!(RunDir::create(&out, false, false), Err(RunDirError::Unfinished { .. })));
    let run = RunDir::create(&out, false, true).unwrap();
    assert_eq!(fs::read(run.path("inner.parquet").unwrap()).unwrap(), b"hours of work");
    run.parts().commit("layer-0", b"part").unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_to_a_run_is_not_replaced_and_is_called_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (there, link) = (folder.path().join("there"), folder.path().join("link"));
    finished(&there, b"1");
    std::os::unix::fs::symlink(&there, &link).unwrap();
    let error = RunDir::create(&link, true, false).unwrap_err().to_string();
    assert!(error.contains("is a symbolic link"), "{error}");
}

#[test]
fn a_write_error_names_the_path_the_cause_and_a_mend() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_file(&folder.path().join("none/x"), b"").unwrap_err().to_string();
    assert!(error.contains("none/x: cannot be written: ") && error.contains("check that the folder"), "{error}");
    let full = WriteError::new(Path::new("x"), "be written")(std::io::ErrorKind::StorageFull.into()).to_string();
    assert!(full.contains("free space"), "{full}");
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(RunDir::create(&file.join("run"), false, false).unwrap_err().to_string().contains("cannot be made"));
}
