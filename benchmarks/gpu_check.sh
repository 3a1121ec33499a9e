#!/usr/bin/env bash
# Checks and measures the native model on a GPU: bash benchmarks/gpu_check.sh --help
# Finds a Python that has torch and transformers and hands everything to benchmarks/gpu_check.py.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tools="$here/../tools"
source "$tools/saiqa/training/find_python.sh"
exec "$python" "$here/gpu_check.py" "$@"
