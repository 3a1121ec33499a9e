"""evaluate_correlation.py."""

from __future__ import annotations

import pytest

from helpers import REPOSITORY, read_csv, write_csv
from saiqa import facts
from scored_tables import COMMAND

MOS = ["1.0", "2.5", "3.0", "4.5"]


@pytest.fixture
def results(tmp_path):
    """Scored tables of the four dimensions, each with different small errors."""
    for number, dimension in enumerate(facts.DIMENSIONS):
        predictions = [f"{float(mos) + (-1) ** i * number / 4:.2f}" for i, mos in enumerate(MOS)]
        write_scored(tmp_path, dimension, predictions)
    return tmp_path


def write_scored(folder, dimension, predictions, mos=MOS, name="sa-iqa-prompt4"):
    cells = zip(("007", "abc", "1e5", "x"), mos, predictions, strict=True)
    rows = [{"id": i, f"{dimension}_score_mos": m, "score_pred": p, "extra": "e"} for i, m, p in cells]
    write_csv(folder / facts.result_name(dimension, 4, name, ".csv"), rows)


def test_the_four_dimensions_are_pooled(results, run_main):
    ran = run_main(COMMAND, "--results_dir", results)
    assert ran.code == 0, ran.err
    assert [line.split(": ")[0] for line in ran.out.splitlines()] == ["PLCC", "SRCC"]
    merged = read_csv(results / "all_prompt4_sa-iqa-prompt4.csv")
    assert list(merged[0]) == ["dimension", "id", "score_mos", "score_pred"]
    assert [row["dimension"] for row in merged] == [d for d in facts.DIMENSIONS for _ in MOS]
    assert [row["id"] for row in merged[:4]] == ["007", "abc", "1e5", "x"]
    assert merged[1] == {"dimension": "distortion", "id": "abc", "score_mos": "2.5", "score_pred": "2.50"}


def test_the_pooled_figures_are_over_all_rows(results, run_main):
    import numpy

    ran = run_main(COMMAND, "--results_dir", results, "--json")
    merged = read_csv(results / "all_prompt4_sa-iqa-prompt4.csv")
    columns = [[float(row[name]) for row in merged] for name in ("score_mos", "score_pred")]
    assert ran.json["plcc"] == pytest.approx(numpy.corrcoef(*columns)[0, 1])
    assert ran.json["n"] == 16
    assert ran.json["dimensions"]["distortion"]["plcc"] == pytest.approx(1)


def test_the_table_by_dimension_is_on_stderr(results, run_main):
    ran = run_main(COMMAND, "--results_dir", results)
    table = [line.split() for line in ran.err.splitlines()]
    assert table[0] == ["n", "PLCC", "SRCC", "KRCC", "RMSE", "dropped"]
    assert [row[0] for row in table[1:6]] == [*facts.DIMENSIONS, "all"]
    assert [row[1] for row in table[1:6]] == ["4", "4", "4", "4", "16"]
    assert "all_prompt4_sa-iqa-prompt4.csv" in ran.err


def test_a_missing_dimension_names_the_command_that_makes_it(results, run_main):
    (results / "layout_prompt4_sa-iqa-prompt4.csv").unlink()
    ran = run_main(COMMAND, "--results_dir", results)
    assert ran.code == 2
    assert "layout_prompt4_sa-iqa-prompt4.csv is not there" in ran.err
    assert "python tools/infer.py --dimension layout --prompt_version 4" in ran.err
    assert not (results / "all_prompt4_sa-iqa-prompt4.csv").exists()


def test_rows_without_a_score_are_counted_and_listed(results, run_main):
    write_scored(results, "harmony", ["1.0", "", "3.0", "4.0"])
    ran = run_main(COMMAND, "--results_dir", results)
    assert ran.code == 3
    assert "harmony abc: no score_pred" in ran.err
    assert ran.out.startswith("PLCC: ")
    assert next(line.split() for line in ran.err.splitlines() if line.startswith("all "))[-1] == "1"


def test_a_dimension_without_a_correlation_does_not_stop_the_pool(results, run_main):
    write_scored(results, "harmony", ["3.0"] * 4)
    ran = run_main(COMMAND, "--results_dir", results, "--json")
    assert ran.code == 0
    assert "harmony     undefined: harmony: all 4 predictions are 3" in ran.err
    assert ran.json["n"] == 16


def test_constant_predictions_everywhere_have_no_correlation(results, run_main):
    for dimension in facts.DIMENSIONS:
        write_scored(results, dimension, ["3.0"] * 4)
    ran = run_main(COMMAND, "--results_dir", results)
    assert (ran.code, ran.out) == (2, "")
    assert "all 16 predictions are 3" in ran.err


def test_another_model_and_another_output(results, run_main, tmp_path):
    for dimension in facts.DIMENSIONS:
        write_scored(results, dimension, MOS, name="mine")
    flags = ["--model_name", "mine", "--output_csv", tmp_path / "new" / "x.csv"]
    ran = run_main(COMMAND, "--results_dir", results, *flags)
    assert (ran.code, ran.out) == (0, "PLCC: 1.000\nSRCC: 1.000\n")
    assert len(read_csv(tmp_path / "new" / "x.csv")) == 16


@pytest.mark.parametrize(("flags", "folder"), [([], "results"), (["--demo"], "results/demo")])
def test_without_arguments_it_reads_the_results_of_the_repository(run_main, tmp_path, monkeypatch, flags, folder):
    monkeypatch.chdir(tmp_path)
    expected = REPOSITORY / folder / "distortion_prompt4_sa-iqa-prompt4.csv"
    if expected.exists():
        pytest.skip("there are results in this checkout")
    ran = run_main(COMMAND, *flags)
    assert ran.code == 2
    assert str(expected) in ran.err
