#!/usr/bin/env python3
"""What is left of runs that are killed, or that find no room: whole results or none, and the same bytes in the end.

    scripts/fault_test.py kill [--kills 100] [--seed 0] [--binary target/release/gatelens]
    scripts/fault_test.py disk [--binary ...]

kill: each command is run once undisturbed. Then it is started again and again, resumed, and killed with SIGKILL after a
random part of that time, until it ends by itself; then from the beginning, until there were so many kills of each command.
Checked: while a run is unfinished, only DIR.partial is there; a second process on a directory at work is refused because
of the first, once for each command at least; nothing panics; every table and figure of the finished run is the undisturbed
run's, byte for byte.

disk (Linux; as root, or where user namespaces may mount): the same commands on a tmpfs of every size from too small for
anything to large enough. Checked: the run ends with an error that names a file, without a panic, and DIR is not there;
with room again it goes on to the same bytes. On a file system that is read-only it says so.

Only Python's standard library is needed; the model is the built-in one."""
import argparse, hashlib, os, pathlib, random, shutil, signal, subprocess, sys, tempfile, time

COMMANDS = {
    "interchange": ["interchange", "demo", "--pairs", "demo:pairs.jsonl"],
    "steer": "steer demo --prompts demo:prompts.jsonl --from caa --pairs demo:pairs.jsonl --layer 2 "
             "--coefficients -1:1:5 --generate 8".split(),
    "run": ["run", "datasets/demo/spec.toml"],
    "policy": ["policy", "demo"],
}
WRITTEN = (".parquet", ".png", ".json", ".tex")


def results(folder):
    """Digests of what a run leaves, by path; not of what names the command or its times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in WRITTEN and path.name not in ("run.json", "params.json"):
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def fail(why):
    sys.exit(f"FAILED: {why}")


def same(found, expected, what):
    if found != expected:
        names = sorted(k for k in set(found) | set(expected) if found.get(k) != expected.get(k))
        fail(f"{what}: not as in the undisturbed run: {', '.join(names)}")


def command(binary, name, out, *more):
    return [binary, *COMMANDS[name], "--out", str(out), *more]


def undisturbed(binary, name, folder):
    """The seconds that a command takes, and what it leaves."""
    out = folder / f"{name}-undisturbed"
    at = time.monotonic()
    done = subprocess.run(command(binary, name, out), capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{name}: {done.stderr}")
    expected = results(out)
    if not any(path.endswith(".parquet") for path in expected):
        fail(f"{name} left no table")
    return time.monotonic() - at, expected


def no_panic(errors):
    # A panic is told as one line, which names it a defect.
    if "defect of gatelens" in errors or "panicked" in errors:
        fail(errors)


def second_is_refused(start, first):
    """Whether a second process on the directory of the first ends with an error that says why, as it must while that runs."""
    second = subprocess.run(start, capture_output=True, text=True)
    if second.returncode == 0:
        if first.poll() is None:
            fail(f"a second process worked on the directory too: {' '.join(start)}")
        return False
    no_panic(second.stderr)
    if not any(why in second.stderr for why in ("another process is at work", "exists already")):
        fail(f"a second process was refused with {second.returncode}, but not because of the first: {second.stderr}")
    return True


def kill(binary, folder, kills, rng):
    for name in COMMANDS:
        seconds, expected = undisturbed(binary, name, folder)
        killed, finished, refused, resumed = 0, 0, 0, 0
        out, partial = folder / name, folder / f"{name}.partial"
        while killed < kills or finished == 0 or refused == 0:
            resumed += partial.exists()
            start = command(binary, name, out, "--resume")
            run = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            # Once there were kills enough, what is left runs to its end.
            enough = killed >= kills
            wait = 600 if enough else rng.uniform(0, seconds)
            # Now and then, and once at least, a second process comes to a directory at work.
            if rng.random() < 0.1 or enough and refused == 0:
                time.sleep(min(wait, seconds) / 2)
                wait /= 2
                if run.poll() is None and partial.exists():
                    refused += second_is_refused(command(binary, name, out, "--resume"), run)
            try:
                _, errors = run.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                _, errors = run.communicate()
                no_panic(errors)
                killed += 1
                if out.exists() and partial.exists():
                    fail(f"{name}: killed, and both {out} and {partial} are there")
                if not out.exists():
                    continue
            else:
                if run.returncode != 0:
                    fail(f"{name}: resumed after {killed} kills, it ended with {run.returncode}: {errors}")
            # What has its final name must be whole, though it was killed just after.
            same(results(out), expected, f"{name} after {killed} kills")
            finished += 1
            shutil.rmtree(out)
        print(f"{name}: {seconds:.2f} s undisturbed; {killed} kills, {resumed} resumed, {finished} finished with the same "
              f"{len(expected)} files; a second process refused {refused} times", flush=True)


def in_namespace(script):
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    return subprocess.run([*unshare, "bash", "-c", script], capture_output=True, text=True)


def disk(binary, folder):
    if in_namespace(f"mount -t tmpfs tmpfs {folder}").returncode != 0:
        fail("no tmpfs can be mounted here: run it as root, or where user namespaces may")
    for name in ("interchange", "steer", "run"):
        _, expected = undisturbed(binary, name, folder)
        kept = folder / "kept"
        run = lambda *more: " ".join(map(str, command(binary, name, "mnt/out", *more)))
        size, step, full = 4, 4, 0
        while True:
            script = f"""
                cd {os.getcwd()}; mkdir -p mnt; trap 'umount mnt; rmdir mnt' EXIT
                mount -t tmpfs -o size={size}k tmpfs mnt || exit 90
                {run()}; code=$?
                [ $code = 0 ] && exit 50
                [ -e mnt/out ] && exit 91
                mount -o remount,size=1g mnt || exit 92
                mount -o remount,ro mnt; {run("--resume")} && exit 93
                mount -o remount,rw mnt; {run("--resume")} || exit 94
                rm -rf {kept}; cp -r mnt/out {kept}; exit 51"""
            done = in_namespace(script)
            no_panic(done.stderr)
            if done.returncode == 50:
                break
            if done.returncode != 51:
                fail(f"{name} on {size} KiB: code {done.returncode}: {done.stderr}")
            if "No space left" not in done.stderr or "Read-only" not in done.stderr:
                fail(f"{name} on {size} KiB does not say what it lacks: {done.stderr}")
            same(results(kept), expected, f"{name} after a full disk of {size} KiB")
            full += 1
            size += step
            step = max(4, size // 24)
        print(f"{name}: no room {full} times (4 to {size - step} KiB), each time an error, nothing under the final name, and "
              f"the same {len(expected)} files once there was room", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kill", "disk"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--binary", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release/gatelens")
    args = parser.parse_args()
    binary = str(pathlib.Path(args.binary).resolve())
    if not os.access(binary, os.X_OK):
        sys.exit(f"error: {binary} is not there: build it with `cargo build --release`, or give --binary")
    with tempfile.TemporaryDirectory(prefix="gatelens-faults-") as folder:
        folder = pathlib.Path(folder)
        kill(binary, folder, args.kills, random.Random(args.seed)) if args.what == "kill" else disk(binary, folder)


if __name__ == "__main__":
    main()
