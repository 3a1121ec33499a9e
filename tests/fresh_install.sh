#!/usr/bin/env bash
# Installs the package into a new environment, with a given PyTorch or that of PyPI, and scores the demo in an empty
# folder: bash tests/fresh_install.sh [PYTHON] [TORCH]
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${1:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "${2:-torch}"
before="$(du -sm "$folder/venv" | cut -f1)"
SECONDS=0
"$folder/venv/bin/pip" install --quiet "$repository"
echo "in addition to torch: $(($(du -sm "$folder/venv" | cut -f1) - before)) MB, $SECONDS s"
mkdir "$folder/empty"
cd "$folder/empty"
env -u PYTHONPATH "$folder/venv/bin/saiqa" score --demo
