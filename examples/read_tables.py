#!/usr/bin/env python3
"""Reads the heads of a run directory: the strongest with their intervals, and whether the table keeps what it promises.

    pip install polars
    python examples/read_tables.py runs/ioi [--top 8]

With pandas the same table is `pandas.read_parquet("runs/ioi/heads.parquet")`, and the columns' documentation is
`json.loads(pyarrow.parquet.read_metadata("runs/ioi/heads.parquet").metadata[b"gatelens.columns"])` (pip install pandas pyarrow).

Exit code 0: read, and everything checked holds. 1: a check failed. 2: there is no such run directory or table.
"""

import argparse
import json
import sys
from pathlib import Path


def stop(code: int, message: str):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


try:
    import polars as pl
except ImportError:
    stop(2, "polars is missing; install it with: python3 -m pip install polars")


def documented(path: Path, table: pl.DataFrame) -> dict[str, str]:
    """The columns' documentation, which the file carries; every column must have one."""
    docs = json.loads(pl.read_parquet_metadata(path).get("gatelens.columns", "{}"))
    bare = [column for column in table.columns if not docs.get(column)]
    if bare:
        stop(1, f"{path}: no documentation of {', '.join(bare)}")
    return docs


def corrected(path: Path, table: pl.DataFrame, variant: str):
    """Within each family of tests, q rises with p and is never below it; empty cells were not tested."""
    for (name,), family in table.drop_nulls(["p_value", "q_value"]).group_by(variant):
        family = family.sort("p_value", "q_value")
        if not family["q_value"].is_sorted() or (family["q_value"] < family["p_value"]).any():
            stop(1, f"{path}: q-values do not follow p-values in {variant} {name}")


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("run", type=Path, help="a run directory of interchange, screen or ablate")
    args.add_argument("--top", type=int, default=5, help="heads shown of each variant (default: 5)")
    args = args.parse_args()

    if not args.run.is_dir():
        stop(2, f"{args.run}: there is no such run directory; make one with: gatelens interchange ... --out {args.run}")
    path = args.run / "heads.parquet"
    if not path.is_file():
        stop(2, f"{path}: there is no such table; give a run directory of interchange, screen or ablate")

    table = pl.read_parquet(path)
    docs = documented(path, table)
    variant = next((column for column in ("direction", "mode") if column in table.columns), None)
    if variant is None:
        stop(2, f"{path}: has neither directions nor modes; give a run directory of interchange, screen or ablate")
    corrected(path, table, variant)

    for (name,), family in table.group_by(variant, maintain_order=True):
        print(f"{name}: {docs['effect_mean']}")
        strongest = family.drop_nulls("effect_mean").sort(pl.col("effect_mean").abs(), descending=True).head(args.top)
        for row in strongest.iter_rows(named=True):
            q = "   -  " if row["q_value"] is None else f"{row['q_value']:.4f}"
            low, high = (float("nan") if row[end] is None else row[end] for end in ("ci_low", "ci_high"))
            unit = f"L{row['layer']}.H{row['head']}" if row["head"] >= 0 else f"L{row['layer']}"
            print(f"  {unit:<8} {row['effect_mean']:+7.3f}  [{low:+.3f}, {high:+.3f}]  q {q}  n {row['n']}")
    print(f"{path}: {table.height} rows; {len(docs)} columns documented; q follows p in every {variant}")


main()
