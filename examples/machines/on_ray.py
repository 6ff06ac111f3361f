"""An analysis that the workers of a Ray cluster share.

    python on_ray.py OUT [--model MODEL] [--pairs FILE] [--workers 4] [--address ADDRESS]

Without an address Ray starts on this machine. OUT must be on a disk that all workers see. Each worker takes the next piece of the
work that no other is at, and all of them end with the whole study.
"""

from __future__ import annotations

import argparse

import ray

import gatelens as gl


@ray.remote(num_cpus=1)
def work(model: str, pairs: str, out: str) -> str:
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
    ray.init(address=asked.address, include_dashboard=False)
    paths = ray.get([work.remote(asked.model, asked.pairs, asked.out) for _ in range(asked.workers)])
    ray.shutdown()
    print(gl.load(paths[0]))


if __name__ == "__main__":
    main()
