//! Run directories, disks and pipes that fail.

use super::*;

#[test]
fn what_no_run_made_is_never_replaced() {
    let bench = Bench::new();
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10])]);
    let (model, run) = (family_dir("llama"), bench.out("run"));
    std::fs::create_dir(&run).expect("a folder");
    std::fs::write(run.join("thesis.tex"), "years of work").expect("a file");
    bench.interchange(&model, &pairs, &[]).refused(&["run", "exists"]);
    bench.interchange(&model, &pairs, &["--force"]).refused(&["run", "run.json", "--force does not replace"]);
    assert!(run.join("thesis.tex").exists());
    bench.interchange_to(Path::new("/"), &model, &pairs, &["--force"]).refused(&["/"]);
    bench.interchange_to(&bench.path("pairs.jsonl"), &model, &pairs, &["--force"]).refused(&["pairs.jsonl"]);
    assert!(pairs.is_file());
}

#[cfg(target_os = "linux")]
mod disks {
    use super::*;
    use crate::support::tmpfs::Tmpfs;

    fn pairs(bench: &Bench) -> std::path::PathBuf {
        bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10]), pair("q", &[1, 2], &[3, 4])])
    }

    #[test]
    fn a_full_disk_leaves_no_run_directory_and_the_run_goes_on_when_there_is_room() {
        let Some(disk) = Tmpfs::mount("size=64k") else { return };
        let (bench, model) = (Bench::new(), family_dir("llama"));
        let (pairs, out) = (pairs(&bench), disk.path().join("run"));
        bench.interchange_to(&out, &model, &pairs, &[]).failed(1, &["No space left", "free space"]);
        assert!(!out.exists());
        bench.interchange_to(&out, &model, &pairs, &[]).refused(&["run.partial", "--resume"]);
        disk.remount("size=16m");
        bench.interchange_to(&out, &model, &pairs, &["--resume"]).done();
        bench.interchange(&model, &pairs, &[]).done();
        // The reports state their commands, which differ.
        for name in ["heads.parquet", "pairs.parquet", "necessity.png", "sufficiency.png"] {
            let read = |dir: &Path| std::fs::read(dir.join(name)).expect(name);
            assert!(read(&out) == read(&bench.out("run")), "{name} differs after --resume");
        }
        assert!(!disk.path().join("run.partial").exists());
    }

    #[test]
    fn a_full_disk_leaves_no_part_of_a_trace() {
        let Some(disk) = Tmpfs::mount("size=16k") else { return };
        let bench = Bench::new();
        let ids: Vec<u32> = (0..100).collect();
        let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": { "ids": ids } })]);
        let out = disk.path().join("x.safetensors");
        bench.trace_to(&out, &family_dir("llama"), &prompts, "logits", &[]).failed(1, &["x.safetensors", "free space"]);
        assert_eq!(crate::support::cli::listed(disk.path()), [""; 0]);
    }

    #[test]
    fn a_read_only_disk_is_an_error_that_names_it() {
        let Some(disk) = Tmpfs::mount("size=1m,ro") else { return };
        let bench = Bench::new();
        let out = disk.path().join("run");
        bench.interchange_to(&out, &family_dir("llama"), &pairs(&bench), &[]).failed(1, &["run", "Read-only", "--out"]);
        let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": { "ids": [1] } })]);
        let out = disk.path().join("x.safetensors");
        bench.trace_to(&out, &family_dir("llama"), &prompts, "logits", &[]).failed(1, &["x.safetensors", "--out"]);
    }

    #[test]
    fn what_is_no_file_is_never_replaced_by_one() {
        let bench = Bench::new();
        let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": { "ids": [1] } })]);
        // A socket stands for devices too: a defect must not cost the machine one.
        let socket = bench.out("socket");
        let _open = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        for more in [&[][..], &["--force"]] {
            bench.trace_to(&socket, &family_dir("llama"), &prompts, "logits", more).refused(&["socket", "not a file"]);
            assert_eq!(bench.written(), ["socket"]);
        }
        assert!(!std::fs::symlink_metadata(&socket).expect("a socket").is_file());
    }

    #[test]
    fn a_summary_that_cannot_be_written_is_an_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let model = family_dir("llama");
        let mut command = command(["inspect".as_ref(), model.as_os_str()]);
        ended(command.stdout(full).output().expect("the binary starts"))
            .failed(1, &["standard output", "No space left"]);
    }
}

#[test]
fn a_reader_who_closes_the_pipe_early_is_no_error() {
    let model = Folder::of("llama").key("favourite_colour", json!("blue"));
    let run = |args: &[&std::ffi::OsStr]| {
        let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        // Neither the summary nor the warning finds a reader.
        drop((child.stdout.take(), child.stderr.take()));
        child.wait().expect("an end").code()
    };
    assert_eq!(run(&["inspect".as_ref(), model.path().as_ref()]), Some(0));
    assert_eq!(run(&["inspect".as_ref(), model.path().as_ref(), "--json".as_ref()]), Some(0));
    assert_eq!(run(&["inspect".as_ref(), "/nowhere".as_ref()]), Some(2));
    assert_eq!(run(&["interchange".as_ref(), "--help".as_ref()]), Some(0));
}
