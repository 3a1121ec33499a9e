#!/usr/bin/env bash
# Fine-tunes a checkpoint with ms-swift: bash tools/train_sft.sh --help
# Finds a Python that has the requirements and hands everything to tools/saiqa/training/launcher.py.
set -euo pipefail
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$tools/saiqa/training/find_python.sh"
exec "$python" -m saiqa.training.launcher "$@"
