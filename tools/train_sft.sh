#!/usr/bin/env bash
# Fine-tunes a checkpoint with ms-swift: bash tools/train_sft.sh --help
# Finds a Python that has the requirements and hands everything to tools/saiqa/training/launcher.py.
set -euo pipefail
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ -n "${PYTHON:-}" ]; then
  python="$PYTHON"
elif [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$tools/../.venv/bin/python" ]; then
  python="$tools/../.venv/bin/python"
else
  python="$(command -v python || command -v python3)"
fi
export PYTHONPATH="$tools${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m saiqa.training.launcher "$@"
