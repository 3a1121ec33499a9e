#!/usr/bin/env bash
# Checks and measures the native model on a GPU: bash benchmarks/gpu_check.sh --help
# Finds a Python with torch and transformers and runs benchmarks/gpu_check.py with all arguments.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tools="$here/../tools"
source "$tools/saiqa/training/find_python.sh"
exec "$python" "$here/gpu_check.py" "$@"
