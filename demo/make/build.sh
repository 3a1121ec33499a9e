#!/usr/bin/env bash
# Rebuilds the demo from scratch: pictures, annotations, labels, small base model, checkpoint. Called by `make demo-bundle`.
# Needs g++, four to five hours on two cores, and 7 GB of disk for temporary files. Options go to render_rooms.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python="${PYTHON:-python}"
export PYTHONPATH=tools:demo
command -v g++ >/dev/null || { echo "g++ is not installed; base_model.py needs it" >&2; exit 1; }
"$python" -m make.render.render_rooms --series 3 --practice 11000 "$@"
for version in 1 2 3 4; do
  for table in demo/SA-BENCH/annotations/*_{train,val,test}.csv; do
    "$python" tools/convert_csv_to_jsonl.py --input_csv "$table" --prompt_version "$version"
  done
done
"$python" -m make.render.labels
"$python" -m make.learn.base_model
PYTHON="$python" bash tools/train_sft.sh --demo --device cpu --loss raters --overwrite
"$python" -m make.learn.reference
