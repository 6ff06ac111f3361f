#!/usr/bin/env python3
"""Which small mistakes in the code would no test notice?

    scripts/mutants.py FILE... [--work DIR] [--most SECONDS] [--jobs N]

A copy of the checkout is rewritten so that each mutation (another operator, a condition turned, a function that returns at once) can be
switched on when a test starts: all of them are built once, where cargo-mutants builds each. Every test of the library and of the suite
is run alone once to see which mutated places it passes (tests of over 10 s are left out); then each mutation is run against the tests that
pass its place, the quickest first, until one fails, or for --most seconds.

caught: a test failed.  timeout: it did not end.  missed: all passed.  open: none failed in --most seconds.  unreached: no test passes there.

With --work the copy and the results stay; a second call goes on. Needs Python's standard library and what builds the project."""
import argparse, collections, concurrent.futures, json, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SLOW = 10.0


def run(command, cwd, **more):
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def copy(tree):
    for name in run(["git", "ls-files"], ROOT).splitlines():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    manifest = tree / "Cargo.toml"
    # Lints of the project's own do not hold for what is made of it.
    manifest.write_text(re.sub(r'^(\w+) = "deny"$', r'\1 = "allow"', manifest.read_text(), flags=re.M))
    library = tree / "src" / "lib.rs"
    library.write_text(re.sub(r"^pub mod stats;$", "pub mod stats;\n#[allow(warnings, clippy::all)]\npub mod switch;", library.read_text(), flags=re.M))
    shutil.copy(ROOT / "scripts" / "mutants" / "switch.rs", tree / "src" / "switch.rs")


def rewrite(work, tree, files):
    """Rewrites the files, and leaves the places out that do not compile."""
    crate, target = ROOT / "scripts" / "mutants", work / "rewriter"
    run(["cargo", "build", "--release", "--quiet", "--target-dir", target], crate)
    dropped = work / "dropped.txt"
    for _ in range(12):
        for name in files:
            shutil.copy(ROOT / name, tree / name)
        run([target / "release" / "gatelens-mutants", tree, dropped, work / "list.jsonl", *files], tree)
        check = ["cargo", "check", "--release", "--locked", "--lib", "--message-format=json"]
        done = subprocess.run(check, cwd=tree, text=True, capture_output=True)
        if done.returncode == 0:
            return
        keys = {m["place"]: m["key"] for m in map(json.loads, (work / "list.jsonl").read_text().splitlines())}
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        errors = [m["message"] for m in messages if m.get("reason") == "compiler-message" and m["message"]["level"] == "error"]
        bad = set()
        for span in (s for e in errors for s in e["spans"] if s["is_primary"]):
            text = (tree / span["file_name"]).read_bytes()
            places = [(m.start(), int(m[1])) for m in re.finditer(rb"crate::switch::\w+\((\d+)", text)]
            within = [n for at, n in places if span["byte_start"] <= at < span["byte_end"]]
            before = [n for at, n in places if at <= span["byte_start"]]
            bad.update(keys[n] for n in (within[:1] or before[-1:]) if n in keys)
        if not bad:
            sys.exit(f"what was rewritten does not compile:\n{done.stderr[-3000:]}")
        with open(dropped, "a") as out:
            out.writelines(f"{key}\n" for key in sorted(bad))
    sys.exit("what was rewritten does not compile after twelve rounds")


def build(tree):
    command = ["cargo", "test", "--release", "--locked", "--no-run", "--lib", "--test", "suite", "--message-format=json"]
    found = {}
    for line in run(command, tree).splitlines():
        message = json.loads(line)
        if message.get("executable") and message["profile"]["test"]:
            found["suite" if message["target"]["name"] == "suite" else "lib"] = message["executable"]
    return found


def ended(command, cwd, variables, seconds):
    """The exit code, or None where it did not end."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MUTANT")} | variables
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=cwd, env=environment, start_new_session=True, **quiet)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def reached(tree, binaries, work, jobs):
    """For each place the tests that pass it: seconds, binary, name."""
    kept = work / "reached.jsonl"
    if not kept.exists():
        def names(binary, *more):
            listed = run([binary, "--list", "--format", "terse", *more], tree).splitlines()
            return {line.removesuffix(": test") for line in listed if line.endswith(": test")}

        def one(test):
            which, name = test
            with tempfile.TemporaryDirectory() as scratch:
                file, started = pathlib.Path(scratch) / "passed", time.time()
                command = [binaries[which], "--exact", name, "--test-threads", "1"]
                code = ended(command, tree, {"MUTANTS_REACHED": str(file)}, SLOW)
                places = sorted({int(n) for n in file.read_text().split()}) if file.exists() else []
            return {"binary": which, "name": name, "code": code, "seconds": time.time() - started, "places": places}

        tests = [(w, n) for w, binary in binaries.items() for n in sorted(names(binary) - names(binary, "--ignored"))]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            lines = [json.dumps(test) + "\n" for test in pool.map(one, tests)]
        kept.write_text("".join(lines))
    found, left_out = collections.defaultdict(list), 0
    for test in map(json.loads, kept.read_text().splitlines()):
        left_out += test["code"] != 0
        for place in test["places"] if test["code"] == 0 else []:
            found[place].append((test["seconds"], test["binary"], test["name"]))
    print(f"{left_out} tests are left out: they take too long, or fail alone", flush=True)
    return found


def judged(tree, binaries, tests, mutation, most):
    """What became of a mutation, and by how many tests."""
    started, at, size, ran = time.time(), 0, 6, 0
    if not tests:
        return "unreached", 0
    tests = sorted(tests)
    while at < len(tests):
        # A few seconds' worth, so that a mutation that nothing notices does not wait for all slow tests at once.
        n = 1
        while n < min(size, len(tests) - at) and sum(s for s, _, _ in tests[at:at + n + 1]) < 3:
            n += 1
        chunk, at, size = tests[at:at + n], at + n, min(3 * size, 100)
        for which, binary in binaries.items():
            names = [name for _, w, name in chunk if w == which]
            if names:
                seconds = 8 + 3 * sum(s for s, w, _ in chunk if w == which)
                code = ended([binary, "--exact", *names, "--test-threads", "1"], tree, {"MUTANT": str(mutation)}, seconds)
                if code != 0:
                    return "timeout" if code is None else "caught", ran
                ran += len(names)
        if time.time() - started > most and at < len(tests):
            return "open", ran
    return "missed", ran


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of the library, from the root of the checkout")
    parser.add_argument("--work"), parser.add_argument("--most", type=float, default=60), parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(args.work or scratch).resolve()
        tree, results = work / "tree", work / "results.jsonl"
        if not (work / "binaries.json").exists():
            work.mkdir(parents=True, exist_ok=True)
            copy(tree), rewrite(work, tree, args.files)
            (work / "binaries.json").write_text(json.dumps(build(tree)))
        binaries = json.loads((work / "binaries.json").read_text())
        mutations = [json.loads(line) for line in (work / "list.jsonl").read_text().splitlines()]
        tests = reached(tree, binaries, work, args.jobs)
        known = {r["id"]: r for r in map(json.loads, results.read_text().splitlines())} if results.exists() else {}
        todo = [m for m in mutations if m["id"] not in known]
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool, open(results, "a") as out:
            futures = {pool.submit(judged, tree, binaries, tests[m["place"]], m["id"], args.most): m for m in todo}
            for done in concurrent.futures.as_completed(futures):
                mutation, (became, ran) = futures[done], done.result()
                known[mutation["id"]] = {"id": mutation["id"], "became": became, "tests": ran}
                out.write(json.dumps(known[mutation["id"]]) + "\n"), out.flush()
        counts = collections.Counter(known[m["id"]]["became"] for m in mutations)
        for m in mutations:
            if known[m["id"]]["became"] not in ("caught", "timeout"):
                print(f"{known[m['id']]['became']}: {m['file']}:{m['line']} {m['function']}: {m['to']}: {m['what']}")
        print(f"{len(mutations)} mutations: {', '.join(f'{n} {name}' for name, n in counts.most_common())}")


if __name__ == "__main__":
    main()
