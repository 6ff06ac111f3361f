"""An analysis that the workers of a Dask cluster share.

    python on_dask.py OUT [--model MODEL] [--pairs FILE] [--workers 4] [--address ADDRESS]

Without an address Dask starts on this machine. OUT must be on a disk that all workers see. Each worker takes the next piece of the
work that no other is at, and all of them end with the whole study.
"""

from __future__ import annotations

import argparse

from distributed import Client, LocalCluster

import gatelens as gl


def work(worker: int, model: str, pairs: str, out: str) -> str:
    study = gl.Interchange(pairs).run(gl.open(model), out=out, join=True, progress=False)
    return str(study.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", default="demo:pairs.jsonl")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--address")
    asked = parser.parse_args()
    cluster = asked.address or LocalCluster(n_workers=asked.workers, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client:
        calls = client.map(work, range(asked.workers), model=asked.model, pairs=asked.pairs, out=asked.out, pure=False)
        paths = client.gather(calls)
    print(gl.load(paths[0]))


if __name__ == "__main__":
    main()
