#!/usr/bin/env bash
# Compares the four prompts: bash tools/run_ablation.sh --help
# Finds a Python that has the requirements and hands everything to tools/saiqa/training/ablation.py.
set -euo pipefail
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$tools/saiqa/training/find_python.sh"
exec "$python" -m saiqa.training.ablation "$@"
