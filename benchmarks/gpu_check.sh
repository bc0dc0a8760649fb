#!/bin/sh
# Checks and times the Triton kernels on one GPU, in nine minutes at most. Needs torch and triton and no installation.
# PYTHON=… names the interpreter; the options are those of gpu_check.py.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
# The package as links to this checkout: an installed one might be another.
links=$root/build/gpu_check
rm -rf "$links"
mkdir -p "$links/mmmsvmamba"
ln -s "$root"/mmmsvmamba/* "$root/mmmsvmamba/.mim" "$links/mmmsvmamba/"
ln -s "$root/kernels" "$links/mmmsvmamba/kernels"
PYTHONPATH="$links${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$root/benchmarks/gpu_check.py" "$@"
