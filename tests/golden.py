"""The visible output of the commands, recorded before a change and compared after it: ``make golden``.

Runs the commands of the README on the demo and records for each the exit code, stdout, the errors and warnings of stderr, and
the files it writes (.csv, .jsonl, .run.json, .json), without what differs between runs: seconds, dates, versions, paths. The
numbers depend on the machine, so a record is kept outside git, made at the commit before and compared at the commit after:

    python tests/golden.py record /tmp/golden
    python tests/golden.py compare /tmp/golden
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHORT = {
    "ROOMS": "demo/SA-BENCH/images/*/images/*_test_000[1-3].*",
    "CSV": "demo/SA-BENCH/annotations/lighting_3k_test.csv",
    "RANDOM": "tests/data/ovis2_5-reference",
    "SCORED": "prompt4_sa-iqa-prompt4_limit40",
}
KEPT = (".csv", ".jsonl", ".json")

# Commands in order; OUT is their folder, and the files that a command leaves there stay for the next.
CASES = r"""
infer.py --demo --dry_run
infer.py --demo --limit 6 --results_dir OUT
infer.py --demo --dimension lighting --limit 6 --mode infer --resume --results_dir OUT
infer.py --demo --dimension lighting --limit 6 --mode score --results_dir OUT
infer.py --demo --dimension lighting --limit 6 --mode eval --json --results_dir OUT
infer.py --demo --dimension lighting --limit 6 --mode infer --dtype bfloat16 --resume --results_dir OUT
infer.py --demo --dimension layout --limit 12 --batch_size 3 --full --table markdown --results_dir OUT/full
infer.py --demo --dimension harmony --engine swift --limit 3 --results_dir OUT/swift
infer.py --demo --dimension harmony --workers 2 --limit 20 --max_batch_size 4 --results_dir OUT/workers
infer.py --demo --dimension lighting --limit 6 --mode eval --full --resume --results_dir OUT
infer.py --demo --dimension layout --mode score --results_dir OUT/nothing
infer.py --demo --dimension layout --limit 6 --test_jsonl OUT/nowhere.jsonl --results_dir OUT
infer.py --demo --dimension layout --limit 6 --input_csv CSV --results_dir OUT
infer.py --dimension lighting
infer.py --dimension lighting --data_root nowhere
infer.py --demo --no_such_flag
infer.py --test_jsonl demo/SA-BENCH/annotations/layout_6k_test_prompt4.jsonl --input_csv CSV
infer.py --demo --model_path RANDOM --dimension lighting --limit 4 --mode infer --results_dir OUT/random
infer.py --demo --limit 40 --results_dir OUT/all
evaluate_correlation.py --demo --results_dir OUT/all --model_name sa-iqa-prompt4_limit40
evaluate_correlation.py --demo --results_dir OUT/all --model_name sa-iqa-prompt4_limit40 --full --table latex
evaluate_correlation.py --demo --results_dir OUT/all --model_name sa-iqa-prompt4_limit40 --json --report OUT/report.html
evaluate_correlation.py --results_dir OUT/all --compare sa-iqa-prompt4_limit40 OUT/all/lighting_SCORED.csv
evaluate_correlation.py --results_dir OUT/nothing
score_images.py --demo ROOMS --output_csv OUT/rooms.csv --output_jsonl OUT/rooms.jsonl
score_images.py --demo ROOMS --output_csv OUT/rooms.csv --output_jsonl OUT/rooms.jsonl --resume
score_images.py --demo ROOMS --probabilities
score_images.py --demo ROOMS README.md --json
score_images.py --demo --list nowhere.csv
score_images.py --demo nowhere
best_of_n.py OUT/rooms.csv --group_pattern images/(\w+)/images --k 2 --copy_to OUT/best
best_of_n.py OUT/rooms.jsonl --group_pattern images/(\w+)/images --by lighting --json
best_of_n.py OUT/rooms.csv --group_by prompt
filter_images.py OUT/rooms.csv --floor layout=3 --floor overall=2.5
evaluate_correlation.py OUT/rooms.csv CSV --json
score_images.py --demo --reference demo
score_images.py --demo --views 2 --json
score_images.py --demo ROOMS --reference OUT/rooms.csv --report OUT/gallery.html --output_csv OUT/compared.csv
infer.py --demo --split val --results_dir OUT/val
calibrate.py OUT/val --output OUT/demo.calibration.json
score_images.py --demo ROOMS --calibration OUT/demo.calibration.json --max_width 2 --output_jsonl OUT/sure.jsonl
compare_images.py --demo demo/series/layout/00_floating_0.00.jpg demo/series/layout/00_floating_1.00.jpg --json
audit.py --demo --count 4 --json
explain.py --demo demo/rooms.jpg --output_dir OUT/maps --json
fuse_scores.py fit OUT/rooms.csv tests/data/no_such.csv --output OUT/weights.json
convert_csv_to_jsonl.py --input_csv CSV --dry_run
convert_csv_to_jsonl.py --input_csv CSV --prompt_version 2 --prompts_from demo/SA-BENCH/annotations --output_jsonl OUT/q.jsonl
download.py nothing
train_sft.sh --prompt_version 4 --dry_run
train_sft.sh --demo --device cpu --dry_run
run_ablation.sh --demo --device cpu --dry_run
"""
HELPS = (
    "score_images.py best_of_n.py filter_images.py compare_images.py infer.py evaluate_correlation.py "
    "convert_csv_to_jsonl.py train_sft.sh serve.py download.py calibrate.py audit.py explain.py "
    "fuse_scores.py run_ablation.sh"
)

# What differs between runs or machines.
_VARYING = (
    (re.compile(r'("(?:seconds|started|finished|date)": )[^,\n}]+'), r"\1..."),
    (re.compile(r"\bv\d+-\d{8}-\d{6}\b"), "RUN"),
    (re.compile(r'"picture": \{[^}]*\}'), '"picture": ...'),
    (re.compile(r'"(?:packages|versions)": \{[^}]*\}'), '"packages": ...'),
    (re.compile(r"\b\d+(?:\.\d+)? (?:s|seconds|images/s|items/s)\b"), "..."),
    (re.compile(re.escape(str(REPOSITORY))), "REPOSITORY"),
)


def main(action: str, folder: str) -> int:
    """Record the commands in a folder, or compare them with what it holds; 1 if something differs."""
    kept = Path(folder) / "golden.json"
    if action == "record":
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(dict(record()), indent=1), encoding="utf-8")
        return 0
    before = {name: settled(text, "") for name, text in json.loads(kept.read_text(encoding="utf-8")).items()}
    differing = 0
    for name, now in record():
        then = before.pop(name, "")
        if now != then:
            differing += 1
            print(name, *difflib.unified_diff(then.splitlines(), now.splitlines(), lineterm="", n=0), sep="\n")
    print(f"{differing} differ, {len(before)} are gone: {', '.join(before)}" if differing or before else "all as before")
    return int(bool(differing or before))


def record():
    """The visible output, piece by piece: (name, text)."""
    for script in HELPS.split():
        yield f"{script} --help", said(started(script, "--help"), "")
    with tempfile.TemporaryDirectory() as name:
        out, before = Path(name), {}
        for line in CASES.strip().splitlines():
            longer = {"OUT": name, **SHORT}.items()
            words = [functools.reduce(lambda word, pair: word.replace(*pair), longer, word) for word in line.split()]
            yield line, said(started(*words), name) + files(out, before)


def started(script: str, *flags: str) -> list[str]:
    """The command line of a script in ``tools``."""
    return ["bash" if script.endswith(".sh") else sys.executable, f"tools/{script}", *flags]


def said(command: list[str], out: str) -> str:
    """Exit code, stdout, and the errors and warnings of stderr."""
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    lines = [line for line in ran.stderr.splitlines() if ": error: " in line or ": warning: " in line or "incomplete" in line]
    return settled("\n".join([f"exit {ran.returncode}", ran.stdout, *lines]), out)


def files(out: Path, before: dict[Path, bytes]) -> str:
    """The new or changed files below a folder, as text; ``before`` holds the earlier contents and is updated."""
    now = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    new = {path: content for path, content in now.items() if before.get(path) != content}
    gone = "".join(f"\n== no {path.relative_to(out)}" for path in before if path not in now)
    before.clear()
    before.update(now)
    texts = {path: content.decode() if path.suffix in KEPT else "" for path, content in new.items()}
    return settled("".join(f"\n== {path.relative_to(out)}\n{text}" for path, text in texts.items()) + gone, str(out))


def settled(text: str, out: str) -> str:
    """A text without what differs between runs."""
    text = text.replace(out, "OUT") if out else text
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return text


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
