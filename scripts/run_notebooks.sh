#!/usr/bin/env bash
# Runs the notebooks from their first cell to their last, as pages with all that they show:
#
#   scripts/run_notebooks.sh [DIR]
#
# They need the package, nbconvert and ipykernel in the Python that runs them ($PYTHON, or python3), and models/smollm2.gguf.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-runs/notebooks}")
for notebook in examples/notebooks/*.ipynb; do
  "${PYTHON:-python3}" -m nbconvert --to html --execute --log-level WARN --output-dir "$out" "$notebook"
done
