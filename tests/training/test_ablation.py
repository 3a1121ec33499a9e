"""The prompt ablation: its plan, and a run with one existing checkpoint and one that it trains."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest

from helpers import REPOSITORY, Ran
from saiqa import facts
from saiqa.evaluate import intervals
from saiqa.prompts import system_prompt
from saiqa.training import ablation
from trainings import small_benchmark

SCRIPT = REPOSITORY / "tools" / "run_ablation.sh"


def run_ablation(*arguments) -> Ran:
    done = subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_dry_run_shows_the_commands_of_every_prompt(tmp_path):
    ran = run_ablation("--demo", "--device", "cpu", "--models_dir", tmp_path, "--num_train_epochs", "2", "--dry_run")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert len(lines) == 3 * len(facts.PROMPT_VERSIONS)
    trainings = [line for line in lines if "saiqa.training.launcher" in line]
    assert len(trainings) == len(facts.PROMPT_VERSIONS)
    assert all(line.endswith("--num_train_epochs 2") for line in trainings)
    for version in facts.PROMPT_VERSIONS:
        assert sum(f"--prompt_version {version}" in line for line in lines) == 3


def test_a_checkpoint_that_is_there_is_taken():
    ran = run_ablation("--demo", "--prompt_versions", "4", "--dry_run")
    assert ran.code == 0 and "launcher" not in ran.out and "saiqa infer" in ran.out


def test_a_missing_checkpoint_is_an_error_where_none_is_to_be_trained(tmp_path):
    ran = run_ablation("--demo", "--models_dir", tmp_path, "--no_train")
    assert ran.code == 2
    assert "sa-iqa-prompt1 is not a checkpoint" in ran.err and "--no_train" in ran.err and "Traceback" not in ran.err


def test_a_failed_step_ends_the_run_with_its_name(tmp_path):
    ran = run_ablation("--demo", "--prompt_versions", "4", "--data_root", tmp_path, "--results_dir", tmp_path)
    assert ran.code == 1
    assert "scoring with prompt 4 ended with exit code 2" in ran.err and "Traceback" not in ran.err


@pytest.mark.slow
def test_one_prompt_there_and_one_trained(tmp_path):
    """Two steps of training give a checkpoint, though not a useful one; the table has both prompts."""
    models = tmp_path / "models"
    models.mkdir()
    (models / facts.tuned_model(4)).symlink_to(REPOSITORY / "demo" / "SA-IQA-model" / facts.tuned_model(4))
    data = small_benchmark(tmp_path / "SA-BENCH", {"train": 8, "val": 4, "test": 30})
    ran = run_ablation(
        *("--demo", "--device", "cpu", "--prompt_versions", "1", "4", "--models_dir", models, "--data_root", data),
        *("--results_dir", tmp_path, "--max_steps", "2", "--nproc_per_node", "1", "--eval_strategy", "no"),
    )
    assert ran.code == 0, ran.err[-3000:]
    assert (models / facts.tuned_model(1) / "model.safetensors").is_file()
    assert not system_prompt(models / facts.tuned_model(1))  # like the demo's
    with open(tmp_path / "ablation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["1"] * 5 + ["4"] * 5
    assert [row["dimension"] for row in rows[5:]] == [*facts.DIMENSIONS, facts.POOLED]
    for row in rows[5:]:
        assert float(row["plcc_low"]) < float(row["plcc"]) < float(row["plcc_high"])
        scored = tmp_path / facts.result_name(row["dimension"], 4, facts.tuned_model(4), ".csv")
        with open(scored, newline="") as file:
            table = list(csv.DictReader(file))
        mos = "score_mos" if row["dimension"] == facts.POOLED else facts.MOS_COLUMN.format(dimension=row["dimension"])
        figures = intervals.correlate([float(r["score_pred"]) for r in table], [float(r[mos]) for r in table])
        assert int(row["n"]) == len(table)
        assert float(row["plcc"]) == pytest.approx(figures.plcc) and float(row["srcc"]) == pytest.approx(figures.srcc)
    assert (tmp_path / "ablation.md").read_text().strip() == ran.out.strip()
    assert "| prompt 1 | prompt 4 |" in ran.out


def test_an_undefined_figure_is_a_gap_in_the_table():
    rows = ablation.tabulate({2: [{"dimension": "layout", "generator": None, "undefined": "all predictions are 3"}]})
    assert rows == [{"prompt": 2, "dimension": "layout", "n": None} | dict.fromkeys(ablation.COLUMNS[3:])]
    assert ablation.markdown(rows)[2] == "| layout | - | PLCC | - |"
